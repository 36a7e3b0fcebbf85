//! Mounts as they are asked for: `-v` and the entries of `HostConfig.Mounts`, with docker's refusals.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::workdir::clean;

/// One `--mount`, with docker's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountSpec {
    /// `bind`, `volume` or `tmpfs`; anything else is refused at creation.
    #[serde(rename = "Type")]
    pub kind: String,
    /// A host path or a volume's name; empty for an anonymous volume and for tmpfs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Where in the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Read-only.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Of a bind mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Of a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeMountOptions>,
    /// Of a memory filesystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// `bind-*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// One of docker's six words; empty is `rprivate`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Without the mounts below the source.
    #[serde(skip_serializing_if = "is_false")]
    pub non_recursive: bool,
}

/// `volume-*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeMountOptions {
    /// Does not fill an empty volume from the image.
    #[serde(skip_serializing_if = "is_false")]
    pub no_copy: bool,
    /// Labels of a volume that is made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Driver of a volume that is made.
    pub driver_config: DriverConfig,
}

/// `volume-driver` and `volume-opt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverConfig {
    /// Empty or `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// See [`crate::VolumeOptions`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// `tmpfs-*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// Upper limit; 0 is the kernel's default.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    /// Permission bits; 0 is the default.
    #[serde(skip_serializing_if = "is_no_mode")]
    pub mode: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_no_mode(value: &u32) -> bool {
    *value == 0
}

impl MountSpec {
    /// Makes sure that there can be such a mount; what it names on the host is looked at, too.
    ///
    /// # Errors
    /// Docker's texts.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |reason: &str| {
            Err(Error::Invalid(format!(
                "invalid mount config for type {:?}: {reason}",
                self.kind
            )))
        };
        if self.target.is_empty() {
            return wrong("field Target must not be empty");
        }
        if let Err(reason) = check_target(&self.target) {
            return wrong(&reason);
        }
        let must_not = |field: &str| wrong(&format!("field {field} must not be specified"));
        match self.kind.as_str() {
            "bind" if self.source.is_empty() => wrong("field Source must not be empty"),
            "bind" if self.volume_options.is_some() => must_not("VolumeOptions"),
            "bind" if !self.source.starts_with('/') => wrong(&format!(
                "invalid mount path: '{}' mount path must be absolute",
                self.source
            )),
            // Unlike with -v, a missing source is a mistake here and not a directory to be made.
            "bind" if !Path::new(&self.source).exists() => {
                wrong(&format!("bind source path does not exist: {}", self.source))
            }
            "volume" if self.bind_options.is_some() => must_not("BindOptions"),
            "volume" if self.source.is_empty() && self.read_only => {
                wrong("must not set ReadOnly mode when using anonymous volumes")
            }
            "tmpfs" if self.bind_options.is_some() => must_not("BindOptions"),
            "tmpfs" if self.volume_options.is_some() => must_not("VolumeOptions"),
            "tmpfs" if !self.source.is_empty() => must_not("Source"),
            "bind" | "volume" | "tmpfs" => Ok(()),
            _ => wrong("mount type unknown"),
        }
    }
}

/// Returns why nothing can be mounted there.
fn check_target(target: &str) -> std::result::Result<(), String> {
    if !target.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        ));
    }
    if clean(Path::new(target)) == Path::new("/") {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    Ok(())
}

/// What `-v` says, as docker's engine reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    /// The same in the form of `--mount`.
    pub(crate) spec: MountSpec,
    /// The third part.
    pub(crate) mode: String,
}

impl Bind {
    /// Parses `/host:/container[:mode]` or `name:/container[:mode]`.
    ///
    /// # Errors
    /// Docker's texts.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let malformed = || Error::Invalid(format!("invalid volume specification: '{text}'"));
        let parts: Vec<_> = text.split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [source, target] => (*source, *target, ""),
            [source, target, mode] => (*source, *target, *mode),
            _ => return Err(malformed()),
        };
        if source.is_empty() || target.is_empty() {
            return Err(malformed());
        }
        let mode_of = Mode::parse(mode)?;
        let kind = if source.starts_with('/') {
            "bind"
        } else {
            crate::volumes::check_name(source)?;
            "volume"
        };
        let spec = MountSpec {
            kind: kind.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: mode_of.readonly,
            bind_options: mode_of.propagation.map(|word| BindOptions {
                propagation: word.to_owned(),
                non_recursive: false,
            }),
            volume_options: (mode_of.no_copy && kind == "volume").then(|| VolumeMountOptions {
                no_copy: true,
                ..VolumeMountOptions::default()
            }),
            tmpfs_options: None,
        };
        let in_spec = |reason: &str| {
            Error::Invalid(format!(
                "invalid volume specification: '{text}': invalid mount config for type {kind:?}: {reason}"
            ))
        };
        check_target(target).map_err(|reason| in_spec(&reason))?;
        if kind == "volume" && spec.bind_options.is_some() {
            return Err(in_spec("field BindOptions must not be specified"));
        }
        Ok(Self {
            spec,
            mode: mode.to_owned(),
        })
    }
}

/// Docker's words for propagation.
const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

/// Returns whether docker has this word for propagation.
pub(crate) fn is_propagation(word: &str) -> bool {
    PROPAGATIONS.contains(&word)
}

/// The third part of `-v`, and what follows the name in `--volumes-from`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mode<'a> {
    pub(crate) readonly: bool,
    pub(crate) propagation: Option<&'a str>,
    pub(crate) no_copy: bool,
}

impl<'a> Mode<'a> {
    /// Parses `ro,rslave`: at most one word of each kind.
    ///
    /// # Errors
    /// Docker's text.
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("invalid mode: {text}"));
        let mut mode = Self::default();
        if text.is_empty() {
            return Ok(mode);
        }
        // Access, label, propagation, copy, consistency: how often each was said.
        let mut said = [0_u8; 5];
        for word in text.split(',') {
            let kind = match word {
                "ro" | "rw" => 0,
                // Labels of SELinux, which this program leaves alone, as docker does where there is none.
                "z" | "Z" => 1,
                word if is_propagation(word) => 2,
                "nocopy" => 3,
                // Means something on other systems only, also to docker.
                "consistent" | "cached" | "delegated" => 4,
                _ => return Err(invalid()),
            };
            let count = said.get_mut(kind).ok_or_else(invalid)?;
            *count += 1;
            if *count > 1 {
                return Err(invalid());
            }
            match kind {
                0 => mode.readonly = word == "ro",
                2 => mode.propagation = Some(word),
                3 => mode.no_copy = true,
                _ => {}
            }
        }
        Ok(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_parsed_with_dockers_words() {
        let parsed = |text| Bind::parse(text).unwrap().spec;
        assert!(parsed("/a:/b:ro").read_only);
        assert_eq!(parsed("vol:/b").kind, "volume");
        let slave = parsed("/a:/b:rslave,ro,z").bind_options.unwrap();
        assert_eq!(slave.propagation, "rslave");
        assert!(parsed("vol:/b:nocopy").volume_options.unwrap().no_copy);
        for (text, want) in [
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            (":/x", "invalid volume specification: ':/x'"),
            ("/tmp:/x:frob", "invalid mode: frob"),
            ("/tmp:/x:ro,rw", "invalid mode: ro,rw"),
            (
                "rel/path:/x",
                "create rel/path: \"rel/path\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
            ),
            (
                "/tmp:x",
                "invalid volume specification: '/tmp:x': invalid mount config for type \"bind\": invalid mount path: \
                 'x' mount path must be absolute",
            ),
            (
                "/tmp:/a/..",
                "invalid volume specification: '/tmp:/a/..': invalid mount config for type \"bind\": invalid \
                 specification: destination can't be '/'",
            ),
            (
                "vol:/x:rshared",
                "invalid volume specification: 'vol:/x:rshared': invalid mount config for type \"volume\": field \
                 BindOptions must not be specified",
            ),
        ] {
            assert_eq!(Bind::parse(text).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn mounts_are_checked_with_dockers_words() {
        let spec = |kind: &str, source: &str, target: &str| MountSpec {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..MountSpec::default()
        };
        for (given, want) in [
            (spec("bind", "/", "/x"), None),
            (spec("volume", "", "/x"), None),
            (spec("frob", "", "/x"), Some("mount type unknown")),
            (
                spec("bind", "/nosuchdir1", "/x"),
                Some("bind source path does not exist: /nosuchdir1"),
            ),
            (
                spec("bind", "", "/x"),
                Some("field Source must not be empty"),
            ),
            (
                spec("tmpfs", "/a", "/x"),
                Some("field Source must not be specified"),
            ),
            (
                spec("volume", "", "/"),
                Some("invalid specification: destination can't be '/'"),
            ),
        ] {
            let want =
                want.map(|want| format!("invalid mount config for type {:?}: {want}", given.kind));
            assert_eq!(given.check().err().map(|e| e.to_string()), want);
        }
    }
}
