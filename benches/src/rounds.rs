//! Interleaved rounds, medians, ratios.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::machine::Machine;

/// Where a run works: the built programs, a directory of its own, a busybox root in it.
#[derive(Debug)]
pub struct Place {
    /// Directory of `mille` and `millefs`.
    pub programs: PathBuf,
    /// Removed at the end.
    pub directory: tempfile::TempDir,
}

impl Place {
    /// Makes the directory and the busybox tree `bb` with its tar `bb.tar`.
    pub fn new() -> Result<Self> {
        let programs = std::env::current_exe()?
            .parent()
            .context("no directory of the program")?
            .to_path_buf();
        ensure!(
            programs.join("mille").exists(),
            "{} has no mille: cargo build --release",
            programs.display()
        );
        let directory = tempfile::Builder::new()
            .prefix("mille-bench-")
            .tempdir_in("/var/tmp")?;
        let place = Place {
            programs,
            directory,
        };
        place.shell(
            "mkdir -p bb/bin bb/proc bb/dev bb/sys bb/etc bb/tmp && cp $(command -v busybox) bb/bin/ && \
             for a in sh true sleep ls; do ln -s busybox bb/bin/$a; done && echo root:x:0:0::/root:/bin/sh > bb/etc/passwd && tar -C bb -cf bb.tar .",
        )?;
        Ok(place)
    }

    /// Path of the working directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a shell script in the working directory with `$bin` set to the programs' directory; an error shows its stderr.
    pub fn shell(&self, script: &str) -> Result<String> {
        let output = self
            .command(script)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .output()?;
        ensure!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_string())
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.path());
        command
            .env("bin", &self.programs)
            .env("MILLE_ROOT", self.path().join("root"))
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell script and returns how long its commands took, without the start of the shell.
    pub fn time(&self, script: &str) -> Result<Duration> {
        let clocked =
            format!("from=$EPOCHREALTIME; {{ {script}\n}} >/dev/null; echo $from $EPOCHREALTIME");
        let told = self.shell(&clocked)?;
        let seconds = |text: &str| text.parse::<f64>().context("a time of the shell's");
        let (from, to) = told.split_once(' ').context("two times of the shell's")?;
        Ok(Duration::from_secs_f64(seconds(to)? - seconds(from)?))
    }
}

/// One way of doing the compared thing.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// Name in the table.
    pub name: &'static str,
    /// Run before each round, untimed.
    pub before: &'static str,
    /// What is timed.
    pub script: &'static str,
}

/// Samples of one comparison.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// What was compared.
    pub name: String,
    /// Contender and its samples in milliseconds, in order of the rounds.
    pub samples_ms: Vec<(String, Vec<f64>)>,
}

impl Comparison {
    /// Runs all contenders in turn, `rounds` times after one untimed round, and prints medians and ratios to the first.
    pub fn run(place: &Place, name: &str, contenders: &[Contender], rounds: usize) -> Result<Self> {
        let mut samples: Vec<(String, Vec<f64>)> = contenders
            .iter()
            .map(|c| (c.name.to_string(), Vec::new()))
            .collect();
        for round in 0..=rounds {
            for (contender, (_, times)) in contenders.iter().zip(&mut samples) {
                place.shell(contender.before)?;
                let time = place.time(contender.script)?;
                if round > 0 {
                    times.push(time.as_secs_f64() * 1e3);
                }
            }
        }
        let comparison = Comparison {
            name: name.to_string(),
            samples_ms: samples,
        };
        comparison.print();
        Ok(comparison)
    }

    /// Median of a contender, in milliseconds.
    pub fn median(&self, name: &str) -> f64 {
        self.samples_ms
            .iter()
            .find(|(contender, _)| contender == name)
            .map_or(f64::NAN, |(_, times)| median(times))
    }

    fn print(&self) {
        println!("{} ({} rounds)", self.name, self.samples_ms[0].1.len());
        let first = median(&self.samples_ms[0].1);
        for (name, times) in &self.samples_ms {
            println!(
                "  {name:<44} {:>9.2} ms  {:>6.2}x",
                median(times),
                median(times) / first
            );
        }
    }
}

/// The middle one.
pub fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Writes the raw samples with the machine they come from.
pub fn save(file: &Path, results: &[Comparison]) -> Result<()> {
    #[derive(Serialize)]
    struct Run<'a> {
        #[serde(flatten)]
        machine: Machine,
        results: &'a [Comparison],
    }
    let run = Run {
        machine: Machine::here()?,
        results,
    };
    std::fs::write(file, serde_json::to_string_pretty(&run)? + "\n")
        .with_context(|| file.display().to_string())
}
