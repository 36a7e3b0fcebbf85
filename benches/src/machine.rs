//! What a run's numbers come from.

use std::process::Command;

use anyhow::Result;
use serde::Serialize;

/// Kernel, processor and commit of a run.
#[derive(Debug, Serialize)]
pub struct Machine {
    kernel: String,
    cpu: String,
    cores: usize,
    commit: String,
}

impl Machine {
    /// Asks the machine; the commit is that of the working directory, empty outside of a repository.
    pub fn here() -> Result<Self> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or_default();
        let commit = Command::new("git").args(["rev-parse", "HEAD"]).output();
        Ok(Self {
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_string(),
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_string(),
            cores: std::thread::available_parallelism()?.get(),
            commit: commit.map_or_else(
                |_| String::new(),
                |out| String::from_utf8_lossy(&out.stdout).trim().to_string(),
            ),
        })
    }
}
