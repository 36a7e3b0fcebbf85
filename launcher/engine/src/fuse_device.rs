//! Why a FUSE mount failed, in words that help: the device is not there, is not it, or is not for this user.

use std::io;
use std::path::Path;

use mille_sandbox::host;

use crate::error::Error;

/// The device by which a file system server talks to the kernel.
const DEVICE: &str = "/dev/fuse";

/// Turns the error of a mount into one that says what to do, if the device is to blame.
pub(crate) fn explain(error: mille_union::Error) -> Error {
    let mille_union::Error::Path { op, path, source } = &error else {
        return Error::Union(error);
    };
    let opening = path == Path::new(DEVICE);
    if !opening && !op.starts_with("mount") {
        return Error::Union(error);
    }
    match advice(Path::new(DEVICE), opening.then_some(source)) {
        Some(advice) => Error::Invalid(format!("{error}: {advice}")),
        None => Error::Union(error),
    }
}

/// What is wrong with the device, and the command that helps; `refused` is why it could not be opened.
fn advice(device: &Path, refused: Option<&io::Error>) -> Option<String> {
    let name = device.display();
    let Ok(stat) = rustix::fs::stat(device) else {
        return Some(format!(
            "there is no FUSE device here: run `sudo modprobe fuse` (in a container: start that with --device {name})"
        ));
    };
    if !host::is_fuse_device(&stat) {
        let (major, minor) = host::FUSE_NUMBER;
        return Some(format!(
            "{name} is something else than the FUSE device: run `sudo rm {name} && sudo mknod -m 666 {name} c {major} {minor}`"
        ));
    }
    match refused?.kind() {
        io::ErrorKind::PermissionDenied => Some(format!(
            "{name} has mode {:04o} and owner {}:{}: run `sudo chmod 666 {name}`",
            stat.st_mode & 0o7777,
            stat.st_uid,
            stat.st_gid
        )),
        // ENXIO, ENODEV: a device node without a driver.
        _ => Some("the kernel has no FUSE: run `sudo modprobe fuse`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_what_helps() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fuse");
        let said = |refused| advice(&path, refused).unwrap();
        assert!(said(None).contains("sudo modprobe fuse"));
        std::fs::write(&path, "").unwrap();
        assert!(said(None).contains("mknod -m 666"));
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(
            advice(Path::new("/dev/null"), Some(&refused))
                .unwrap()
                .contains("c 10 229")
        );
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        let error = mille_union::Error::Path {
            op: "open",
            path: "/layer".into(),
            source: io::Error::from(io::ErrorKind::NotFound),
        };
        assert!(matches!(explain(error), Error::Union(_)));
    }
}
