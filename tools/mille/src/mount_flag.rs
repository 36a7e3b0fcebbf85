//! `--mount type=bind,source=/a,target=/b,readonly`: one mount as a list of keys.

/// What it asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    /// In the form of `-v`.
    Bind(String),
    /// In the form of `--tmpfs`.
    Tmpfs {
        /// Where.
        target: String,
        /// Options.
        options: String,
    },
}

/// Why there is no such mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The list cannot be read: docker's client refuses the flag.
    Flag(String),
    /// It asks for something that cannot be: docker's engine refuses it.
    Mount(String),
}

impl From<&str> for Wrong {
    fn from(text: &str) -> Self {
        Wrong::Flag(text.to_owned())
    }
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Wrong::Flag(text)
    }
}

/// Reads one list.
pub(crate) fn parse(text: &str) -> Result<Mount, Wrong> {
    let (mut kind, mut source, mut target, mut readonly) = ("volume".to_owned(), None, None, false);
    let mut options = Vec::new();
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("readonly" | "ro", value) => readonly = boolean(field, value)?,
            (_, None) => {
                return Err(format!("invalid field '{field}' must be a key=value pair").into());
            }
            ("type", Some(value)) => kind = value.to_lowercase(),
            ("source" | "src", Some(value)) => source = Some(value.to_owned()),
            ("target" | "dst" | "destination", Some(value)) => target = Some(value.to_owned()),
            ("tmpfs-size", Some(value)) => options.push(format!("size={value}")),
            ("tmpfs-mode", Some(value)) => options.push(format!("mode={value}")),
            (_, Some(_)) => return Err(format!("unexpected key '{key}' in '{field}'").into()),
        }
    }
    let target = target.ok_or("target is required")?;
    match (kind.as_str(), source) {
        ("bind", Some(source)) => {
            // Unlike -v, a missing source is a mistake here and not a directory to be made.
            if !std::path::Path::new(&source).exists() {
                return Err(Wrong::Mount(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                )));
            }
            Ok(Mount::Bind(format!(
                "{source}:{target}{}",
                if readonly { ":ro" } else { "" }
            )))
        }
        ("bind", None) => Err(Wrong::Mount(
            "invalid mount config for type \"bind\": field Source must not be empty".to_owned(),
        )),
        ("tmpfs", None) => {
            if readonly {
                options.push("ro".to_owned());
            }
            Ok(Mount::Tmpfs {
                target,
                options: options.join(","),
            })
        }
        ("tmpfs", Some(_)) => Err(Wrong::Mount(
            "invalid mount config for type \"tmpfs\": field Source must not be specified"
                .to_owned(),
        )),
        ("volume", _) => Err("volumes are not there yet; type=bind and type=tmpfs are".into()),
        (other, _) => Err(Wrong::Mount(format!(
            "invalid mount config for type {other:?}: mount type unknown"
        ))),
    }
}

fn boolean(field: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(other) => Err(format!(
            "invalid value for {}: {other}",
            field.split('=').next().unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, want) in [
            (
                "type=bind,source=/tmp,target=/x",
                Ok(Mount::Bind("/tmp:/x".into())),
            ),
            (
                "type=bind,src=/tmp,dst=/x,readonly",
                Ok(Mount::Bind("/tmp:/x:ro".into())),
            ),
            (
                "type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700",
                Ok(Mount::Tmpfs {
                    target: "/x".into(),
                    options: "size=1m,mode=700".into(),
                }),
            ),
            ("source=/tmp", Err("target is required".into())),
            (
                "frob",
                Err("invalid field 'frob' must be a key=value pair".into()),
            ),
            (
                "type=bind,src=/nosuchdir1,dst=/x",
                Err(Wrong::Mount(
                    "invalid mount config for type \"bind\": bind source path does not exist: /nosuchdir1"
                        .into(),
                )),
            ),
            (
                "type=frob,target=/x",
                Err(Wrong::Mount(
                    "invalid mount config for type \"frob\": mount type unknown".into(),
                )),
            ),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
