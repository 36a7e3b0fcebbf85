//! Which further commands run in a container: one small file each, beside the container's socket.
//!
//! No process answers for them (see [`crate::exec`]), so a record is believed only as long as the process it names
//! lives; what a killed client leaves is dropped by the next one, or goes with the container.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{self, tolerate_missing};
use crate::ids::ContainerId;
use crate::layout::ContainerPaths;
use crate::process;

/// A command's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    pid: i32,
    /// When it started, in clock ticks since boot.
    start: u64,
}

impl Record {
    fn is_live(self) -> bool {
        process::stat(self.pid).is_some_and(|stat| stat.start == self.start && !stat.dead)
    }
}

/// The record of a command that this process started; removed by [`Running::forget`].
#[derive(Debug)]
pub(crate) struct Running {
    path: PathBuf,
}

impl Running {
    /// Notes a command that has just been started.
    ///
    /// # Errors
    /// The container's run-time directory cannot be written.
    pub(crate) fn note(paths: &ContainerPaths, id: &ContainerId, pid: i32) -> Result<Self> {
        let home = paths.execs();
        files::make_directory(&home, 0o700)?;
        // What others left is dropped here, so that no number of them piles up.
        list(paths)?;
        let start = process::stat(pid)
            .map(|stat| stat.start)
            .unwrap_or_default();
        files::replace_json(&home, id.as_str(), &Record { pid, start })?;
        Ok(Self {
            path: home.join(id.as_str()),
        })
    }

    /// Forgets it: the command has ended.
    pub(crate) fn forget(self) -> Result<()> {
        tolerate_missing(fs::remove_file(&self.path)).map_err(Error::io("remove", &self.path))
    }
}

/// Returns the ids of the commands that run, in order of their ids; records of others are removed.
///
/// # Errors
/// The records cannot be read.
pub(crate) fn list(paths: &ContainerPaths) -> Result<Vec<String>> {
    let home = paths.execs();
    let entries = match fs::read_dir(&home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", &home))?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("read", &home))?.file_name();
        let Some(id) = name.to_str().and_then(ContainerId::parse) else {
            continue;
        };
        let path = home.join(id.as_str());
        match files::read_json::<Record>(&path)? {
            Some(record) if record.is_live() => ids.push(id.to_string()),
            // Ended between the listing and now.
            None => {}
            Some(_) => {
                tolerate_missing(fs::remove_file(&path)).map_err(Error::io("remove", &path))?;
            }
        }
    }
    ids.sort();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    #[test]
    fn only_commands_that_live_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout {
            root: directory.path().join("root"),
            run: directory.path().to_path_buf(),
        };
        let paths = layout.container(&ContainerId::random().unwrap());
        fs::create_dir(&paths.run).unwrap();
        assert!(list(&paths).unwrap().is_empty());
        let own = i32::try_from(std::process::id()).unwrap();
        let id = || ContainerId::random().unwrap();
        let running = Running::note(&paths, &id(), own).unwrap();
        let mut other = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let ended = Running::note(&paths, &id(), i32::try_from(other.id()).unwrap()).unwrap();
        assert_eq!(list(&paths).unwrap().len(), 2);
        other.kill().unwrap();
        // Dead, and not yet reaped.
        while list(&paths).unwrap().len() > 1 {
            std::thread::yield_now();
        }
        other.wait().unwrap();
        let name = running.path.file_name().unwrap().to_str().unwrap();
        assert_eq!(list(&paths).unwrap(), [name]);
        assert!(!ended.path.exists(), "a dead record stays");
        running.forget().unwrap();
        assert!(list(&paths).unwrap().is_empty());
    }
}
