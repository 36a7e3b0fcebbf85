//! Devices of the host in a container: `--device`.

use std::path::{Path, PathBuf};

use mille_sandbox::{Device, DeviceKind};
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One `--device`, with docker's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    /// A device node, or a directory of which all nodes are given.
    pub path_on_host: String,
    /// Where in the container.
    pub path_in_container: String,
    /// `rwm`. Fewer rights would need a device control group, and are refused.
    pub cgroup_permissions: String,
}

/// Directories below a directory of devices.
const MAX_DEPTH: usize = 8;

/// Looks the devices up on the host.
///
/// # Errors
/// Docker's texts: nothing there, or no device.
pub(crate) fn find(mappings: &[DeviceMapping]) -> Result<Vec<Device>> {
    let mut found = Vec::new();
    for mapping in mappings {
        let failed = |reason: &str| {
            Error::Invalid(format!(
                "error gathering device information while adding custom device {:?}: {reason}",
                mapping.path_on_host
            ))
        };
        let rights = &mapping.cgroup_permissions;
        if !["r", "w", "m"].iter().all(|right| rights.contains(right)) {
            return Err(Error::Invalid(format!(
                "--device {}: rights other than rwm ({rights}) need a device control group, which containers here do not \
                 have",
                mapping.path_on_host
            )));
        }
        let (host, inside) = (
            Path::new(&mapping.path_on_host),
            Path::new(&mapping.path_in_container),
        );
        let before = found.len();
        gather(host, inside, MAX_DEPTH, &mut found).map_err(|errno| match errno {
            Errno::NOENT => failed("no such file or directory"),
            Errno::NODEV => failed("not a device node"),
            errno => failed(&std::io::Error::from(errno).to_string()),
        })?;
        if found.len() == before {
            return Err(failed("not a device node"));
        }
    }
    Ok(found)
}

fn gather(
    host: &Path,
    inside: &Path,
    depth: usize,
    found: &mut Vec<Device>,
) -> std::result::Result<(), Errno> {
    let stat = rustix::fs::statat(CWD, host, AtFlags::empty())?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => DeviceKind::Char,
        FileType::BlockDevice => DeviceKind::Block,
        FileType::Directory if depth > 0 => return gather_below(host, inside, depth, found),
        _ => return Err(Errno::NODEV),
    };
    found.push(Device {
        path: inside.to_path_buf(),
        host_path: host.to_path_buf(),
        kind,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    });
    Ok(())
}

/// The devices in a directory; what is no device is left out, as docker does.
fn gather_below(
    host: &Path,
    inside: &Path,
    depth: usize,
    found: &mut Vec<Device>,
) -> std::result::Result<(), Errno> {
    let entries = std::fs::read_dir(host)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let mut names: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.file_name().into())
        .collect();
    names.sort();
    for name in names {
        match gather(&host.join(&name), &inside.join(&name), depth - 1, found) {
            Err(Errno::NODEV | Errno::NOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, rights: &str) -> DeviceMapping {
        DeviceMapping {
            path_on_host: host.into(),
            path_in_container: "/dev/x".into(),
            cgroup_permissions: rights.into(),
        }
    }

    #[test]
    fn devices_are_looked_up_and_refused_in_dockers_words() {
        let null = find(&[mapping("/dev/null", "rwm")]).unwrap();
        assert_eq!(
            (null[0].major, null[0].minor, null[0].kind),
            (1, 3, DeviceKind::Char)
        );
        assert_eq!(null[0].path, Path::new("/dev/x"));
        for (given, want) in [
            (
                mapping("/nosuch", "rwm"),
                "error gathering device information while adding custom device \"/nosuch\": no such file or directory",
            ),
            (
                mapping("/etc/passwd", "rwm"),
                "error gathering device information while adding custom device \"/etc/passwd\": not a device node",
            ),
            (
                mapping("/dev/null", "r"),
                "--device /dev/null: rights other than rwm (r) need a device control group, which containers here do not \
                 have",
            ),
        ] {
            assert_eq!(find(&[given]).unwrap_err().to_string(), want);
        }
    }
}
