//! What a container's processes use, read by its monitor, which may look at all of them: from /proc, and from its control
//! groups where it has some.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::freeze::members;
use crate::ids::ContainerId;
use crate::limits::{self, Groups};

/// Processes that are named at most: what fits into one message.
const MAX_NAMED: usize = 6000;

/// What a running container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Its processes as the host numbers them, 6000 at most.
    pub processes: Vec<i32>,
    /// How many there are.
    pub process_count: u64,
    /// Processor time since the start, of all that live and all they have reaped.
    pub cpu_nanoseconds: u64,
    /// Anonymous and shared memory in use; with a memory limit what counts towards it, but for inactive file cache.
    pub memory_bytes: u64,
    /// Its limit, or the machine's memory.
    pub memory_limit_bytes: u64,
    /// Read from disks.
    pub read_bytes: u64,
    /// Written to disks.
    pub written_bytes: u64,
}

/// Adds up what the container of this first process uses. A process that ends meanwhile is left out.
pub(crate) fn of(id: &ContainerId, init: Pid) -> io::Result<Usage> {
    let pids: BTreeSet<i32> = members(init)?;
    let mut usage = Usage {
        process_count: u64::try_from(pids.len()).unwrap_or(u64::MAX),
        memory_limit_bytes: field_kib("/proc/meminfo", &["MemTotal:"]),
        processes: pids.iter().copied().take(MAX_NAMED).collect(),
        ..Usage::default()
    };
    for pid in pids {
        usage.cpu_nanoseconds += cpu_nanoseconds(pid);
        let status = format!("/proc/{pid}/status");
        usage.memory_bytes += field_kib(&status, &["RssAnon:", "RssShmem:"]);
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        usage.read_bytes += sum_of(&io, &["read_bytes:"]);
        usage.written_bytes += sum_of(&io, &["write_bytes:"]);
    }
    limits::count(&Groups::directories_of(id, init.as_raw()), &mut usage);
    Ok(usage)
}

/// The sum of some fields of a file in /proc that counts in KiB, in bytes.
fn field_kib(path: &str, names: &[&str]) -> u64 {
    sum_of(&fs::read_to_string(path).unwrap_or_default(), names) << 10
}

fn sum_of(text: &str, names: &[&str]) -> u64 {
    let value = |line: &str| -> Option<u64> {
        let mut words = line.split_whitespace();
        words.next().filter(|name| names.contains(name))?;
        words.next()?.parse().ok()
    };
    text.lines().filter_map(value).sum()
}

/// User and system time, its own and of the children it has reaped: fields 14 to 17 of proc_pid_stat(5).
fn cpu_nanoseconds(pid: i32) -> u64 {
    let text = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&String::from_utf8_lossy(&text)).saturating_mul(1_000_000_000 / TICKS_PER_SECOND)
}

/// `USER_HZ`: what Linux counts in towards programs, on all machines this program runs on.
const TICKS_PER_SECOND: u64 = 100;

fn ticks(stat: &str) -> u64 {
    let after = stat.rsplit_once(')').map(|(_, after)| after);
    let fields = after.unwrap_or_default().split_whitespace();
    fields
        .skip(14 - 3)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_after_the_name() {
        let text = "77 (a b) c) S 5 77 77 0 -1 4194560 1 2 3 4 50 6 700 8 20 0 1 0 123456 1000 1";
        assert_eq!(ticks(text), 50 + 6 + 700 + 8);
        assert_eq!(ticks(""), 0);
    }

    #[test]
    fn this_process_uses_something() {
        let id = ContainerId::random().unwrap();
        let usage = of(&id, nix::unistd::getpid()).unwrap();
        assert!(usage.memory_bytes > 0 && usage.memory_limit_bytes > usage.memory_bytes);
        assert!(usage.processes.contains(&nix::unistd::getpid().as_raw()));
    }
}
