//! Processes that outlive a container's first one. The kernel ends them where that one was the first of a pid namespace;
//! where the namespace is the host's or another container's, it is for the monitor to do, as runc does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Rounds of killing; each catches what was forked during the one before.
const ROUNDS: usize = 50;
/// Between two rounds: a killed process takes a moment to go.
const STEP: Duration = Duration::from_millis(2);

/// Kills every process whose root is the container's, mounted at `merged`.
pub(crate) fn kill(merged: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(device) = device_of(&mounts, merged) else {
        return;
    };
    for _ in 0..ROUNDS {
        let found = with_root(&device);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // Looked at once more through a descriptor: the number may be another process's by now.
            let held = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
            if let Some(Ok(process)) = held
                && has_root(pid, &device)
                && let Err(errno) = pidfd_send_signal(&process, Signal::KILL)
            {
                log::debug!("kill {pid}: {errno}");
            }
        }
        std::thread::sleep(STEP);
    }
    log::warn!("processes are forked faster than they can be killed");
}

/// The device number of what is mounted last at a place: fields 3 and 5 of mountinfo(5).
fn device_of(mounts: &str, place: &Path) -> Option<String> {
    let mut lines = mounts.lines().rev();
    lines.find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        (Path::new(fields.nth(1)?) == place).then(|| device.to_owned())
    })
}

/// Every container has a file system of its own for its root, so that its number tells whose a process is.
fn has_root(pid: i32, device: &str) -> bool {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let first = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"));
    first.is_some_and(|line| line.split(' ').nth(2) == Some(device))
}

fn with_root(device: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| has_root(*pid, device)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_place() {
        let mounts = "30 25 0:26 / /a rw - fuse mille rw\n31 25 0:27 / /a rw - fuse mille rw\n32 25 0:28 / /b rw - x y rw\n";
        assert_eq!(device_of(mounts, Path::new("/a")), Some("0:27".to_owned()));
        assert_eq!(device_of(mounts, Path::new("/c")), None);
        let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = device_of(&own, Path::new("/")).unwrap();
        assert!(with_root(&root).contains(&i32::try_from(std::process::id()).unwrap()));
    }
}
