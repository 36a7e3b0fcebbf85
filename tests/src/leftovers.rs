//! What a test must not leave behind: mounts below its directory, processes that work in it.

use std::path::Path;
use std::time::{Duration, Instant};

/// How long a monitor may take to unmount and end after the last command returned.
const GRACE: Duration = Duration::from_secs(5);

/// Returns a line for each mount below `directory` and each process whose command line or environment names it, after
/// the grace period.
pub fn below(directory: &Path) -> Vec<String> {
    let start = Instant::now();
    loop {
        let found = now(directory);
        if found.is_empty() || start.elapsed() > GRACE {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`below`], without waiting.
pub fn now(directory: &Path) -> Vec<String> {
    mounts(directory)
        .into_iter()
        .chain(processes(directory))
        .collect()
}

/// Ends what [`below`] found, so that one failing test does not spoil the next.
pub fn clear(directory: &Path) {
    for pid in pids(directory) {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .ok();
    }
    let mut points = mount_points(directory);
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        nix::mount::umount2(point.as_str(), nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// Ends the process with which an ordinary user's podman keeps its namespaces between two commands. Its number stands in
/// the runtime directory `run` of the test.
pub fn clear_pause(directory: &Path) {
    let file = directory.join("run/libpod/tmp/pause.pid");
    let Ok(text) = std::fs::read_to_string(file) else {
        return;
    };
    if let Ok(pid) = text.trim().parse::<i32>()
        && pids(directory).contains(&pid)
    {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .ok();
    }
}

fn mounts(directory: &Path) -> Vec<String> {
    mount_points(directory)
        .into_iter()
        .map(|point| format!("mount {point}"))
        .collect()
}

fn mount_points(directory: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| Path::new(point).starts_with(directory))
        .map(str::to_string)
        .collect()
}

fn processes(directory: &Path) -> Vec<String> {
    let describe = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!(
            "process {pid}: {}",
            String::from_utf8_lossy(&line).replace('\0', " ")
        )
    };
    pids(directory).into_iter().map(describe).collect()
}

fn pids(directory: &Path) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    let needle = directory.as_os_str().as_encoded_bytes();
    let listing = std::fs::read_dir("/proc").unwrap();
    let pids = listing
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let names = |pid: &i32| {
        let holds = |file: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            bytes.windows(needle.len()).any(|window| window == needle)
        };
        *pid != own && (holds("cmdline") || holds("environ")) && !zombie(*pid)
    };
    pids.filter(names).collect()
}

fn zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}
