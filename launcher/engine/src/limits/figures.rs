//! What a container's control groups count, for `stats`: better figures than those of its processes, where there are any.

use std::fs;
use std::path::{Path, PathBuf};

use crate::usage::Usage;

/// Puts what the groups count in the place of what was added up from /proc. A file that is not there changes nothing.
pub(crate) fn apply(groups: &[PathBuf], usage: &mut Usage) {
    for group in groups {
        let number = |name: &str| number(group, name);
        let stat = read(group, "memory.stat");
        if let Some(bytes) = number("memory.current") {
            usage.memory_bytes = bytes.saturating_sub(value(&stat, "inactive_file"));
        }
        if let Some(bytes) = number("memory.usage_in_bytes") {
            usage.memory_bytes = bytes.saturating_sub(value(&stat, "total_inactive_file"));
        }
        let limit = number("memory.max").or(number("memory.limit_in_bytes"));
        // Version 1 says "no limit" by a number larger than any machine.
        if let Some(limit) = limit.filter(|limit| *limit < usage.memory_limit_bytes) {
            usage.memory_limit_bytes = limit;
        }
        if let Some(nanoseconds) = number("cpuacct.usage") {
            usage.cpu_nanoseconds = nanoseconds;
        }
        let cpu = read(group, "cpu.stat");
        if has(&cpu, "usage_usec") {
            usage.cpu_nanoseconds = value(&cpu, "usage_usec").saturating_mul(1000);
        }
        if let Some(count) = number("pids.current") {
            usage.process_count = count;
        }
    }
}

fn read(group: &Path, name: &str) -> String {
    fs::read_to_string(group.join(name)).unwrap_or_default()
}

fn number(group: &Path, name: &str) -> Option<u64> {
    read(group, name).trim().parse().ok()
}

fn line<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

fn has(text: &str, name: &str) -> bool {
    line(text, name).is_some()
}

fn value(text: &str, name: &str) -> u64 {
    let value = line(text, name).and_then(|value| value.trim().parse().ok());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_interfaces_are_read() {
        let usage = Usage {
            memory_limit_bytes: 1 << 30,
            memory_bytes: 7,
            process_count: 1,
            ..Usage::default()
        };
        let two: &[(&str, &str)] = &[
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 1000\ninactive_file 3000\n"),
            ("memory.max", "67108864\n"),
            ("cpu.stat", "usage_usec 12\nuser_usec 5\n"),
            ("pids.current", "3\n"),
        ];
        let one: &[(&str, &str)] = &[
            ("memory.usage_in_bytes", "5000\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 3000\n"),
            ("memory.limit_in_bytes", "67108864\n"),
            ("cpuacct.usage", "12000\n"),
            ("cpu.stat", "nr_periods 0\n"),
            ("pids.current", "3\n"),
        ];
        let unlimited: &[(&str, &str)] = &[("memory.limit_in_bytes", "9223372036854771712\n")];
        let counted = Usage {
            memory_limit_bytes: 64 << 20,
            memory_bytes: 2000,
            cpu_nanoseconds: 12_000,
            process_count: 3,
            ..Usage::default()
        };
        for (files, want) in [
            (two, &counted),
            (one, &counted),
            (unlimited, &usage),
            (&[], &usage),
        ] {
            let group = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(group.path().join(name), text).unwrap();
            }
            let mut now = usage.clone();
            apply(&[group.path().to_owned()], &mut now);
            assert_eq!(&now, want);
        }
    }
}
