//! `--mount type=bind,source=/a,target=/b,readonly`: one mount as a list of keys, in the words of docker's client.

use mille_engine::{BindOptions, MountSpec, TmpfsOptions, VolumeMountOptions};

use crate::numbers::ram_bytes;

/// Reads one list.
pub(crate) fn parse(text: &str) -> Result<MountSpec, String> {
    let mut mount = MountSpec {
        kind: "volume".to_owned(),
        ..MountSpec::default()
    };
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("readonly" | "ro", value) => mount.read_only = boolean(&key, value)?,
            ("volume-nocopy", value) => volume(&mut mount).no_copy = boolean(&key, value)?,
            ("bind-nonrecursive", value) => bind(&mut mount).non_recursive = boolean(&key, value)?,
            (_, None) => {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            }
            (_, Some(value)) => set(&mut mount, field, &key, value)?,
        }
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let mixed = |family: &str| {
        let kind = &mount.kind;
        Err(format!(
            "cannot mix '{family}-*' options with mount type '{kind}'"
        ))
    };
    if mount.volume_options.is_some() && mount.kind != "volume" {
        return mixed("volume");
    }
    if mount.bind_options.is_some() && mount.kind != "bind" {
        return mixed("bind");
    }
    if mount.tmpfs_options.is_some() && mount.kind != "tmpfs" {
        return mixed("tmpfs");
    }
    Ok(mount)
}

fn set(mount: &mut MountSpec, field: &str, key: &str, value: &str) -> Result<(), String> {
    let wrong = || format!("invalid value for {key}: {value}");
    match key {
        "type" => mount.kind = value.to_lowercase(),
        "source" | "src" => mount.source = complete(value),
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        // Means something on other systems only, also to docker.
        "consistency" => {}
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-recursive" => match value {
            // What is read-only here is so with everything below.
            "enabled" | "readonly" => {}
            "disabled" => bind(mount).non_recursive = true,
            _ => return Err(wrong()),
        },
        "volume-label" => {
            let (label, value) = value.split_once('=').unwrap_or((value, ""));
            let labels = &mut volume(mount).labels;
            labels.insert(label.to_owned(), value.to_owned());
        }
        "volume-driver" => volume(mount).driver_config.name = value.to_owned(),
        "volume-opt" => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            let options = &mut volume(mount).driver_config.options;
            options.insert(name.to_owned(), value.to_owned());
        }
        "tmpfs-size" => tmpfs(mount).size_bytes = ram_bytes(value).ok_or_else(wrong)?,
        "tmpfs-mode" => {
            tmpfs(mount).mode = u32::from_str_radix(value, 8).map_err(|_| wrong())?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

/// A path of the host that begins with a dot is completed, as docker does.
fn complete(source: &str) -> String {
    let path = source.starts_with('.').then(|| std::path::absolute(source));
    match path {
        Some(Ok(path)) => path.to_string_lossy().into_owned(),
        _ => source.to_owned(),
    }
}

fn bind(mount: &mut MountSpec) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut MountSpec) -> &mut VolumeMountOptions {
    mount.volume_options.get_or_insert_default()
}

fn tmpfs(mount: &mut MountSpec) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(format!("invalid value for {key}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: &str, source: &str, target: &str) -> MountSpec {
        MountSpec {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..MountSpec::default()
        }
    }

    #[test]
    fn what_can_be_read() {
        let readonly = MountSpec {
            read_only: true,
            ..spec("bind", "/tmp", "/x")
        };
        let limited = MountSpec {
            tmpfs_options: Some(TmpfsOptions {
                size_bytes: 1 << 20,
                mode: 0o700,
            }),
            ..spec("tmpfs", "", "/x")
        };
        let empty = MountSpec {
            volume_options: Some(VolumeMountOptions {
                no_copy: true,
                labels: [("a".to_owned(), "b".to_owned())].into(),
                ..VolumeMountOptions::default()
            }),
            ..spec("volume", "vol", "/x")
        };
        for (text, want) in [
            (
                "type=bind,source=/tmp,target=/x",
                spec("bind", "/tmp", "/x"),
            ),
            ("type=bind,src=/tmp,dst=/x,readonly", readonly),
            ("type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700", limited),
            ("src=vol,dst=/x,volume-nocopy,volume-label=a=b", empty),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (text, want) in [
            ("source=/tmp", "target is required"),
            ("frob", "invalid field 'frob' must be a key=value pair"),
            ("frob=1,dst=/x", "unexpected key 'frob' in 'frob=1'"),
            (
                "type=bind,src=/tmp,dst=/x,readonly=maybe",
                "invalid value for readonly: maybe",
            ),
            (
                "type=tmpfs,dst=/x,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'tmpfs'",
            ),
            (
                "type=bind,src=/,dst=/x,tmpfs-size=1m",
                "cannot mix 'tmpfs-*' options with mount type 'bind'",
            ),
        ] {
            assert_eq!(parse(text), Err(want.to_owned()), "{text}");
        }
    }
}
