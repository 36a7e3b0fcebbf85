//! The union filesystem side by side with the kernel's overlayfs, fuse-overlayfs and a plain directory.
//!
//! Every sample has a mount of its own on an empty upper layer, so that none inherits what another has warmed or written.
//! *Cold* means just that: freshly mounted (the layers' own inodes may be in memory). *Warm* is the second time on one
//! mount. The contenders take turns, round by round; a first round is not counted, in which the requests of `millefs` are.

mod changes;
mod contender;
mod data;
mod depth;
mod latency;
mod metadata;
mod plot;
mod programs;
mod report;
mod stage;
mod work;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use contender::{CONTENDERS, Contender, Mounted};
use report::{Measured, Report};
use stage::{Ground, Stage};
use work::Workload;

pub use latency::report as report_latency;
pub use work::be_caller;

/// What was asked for on the command line.
#[derive(Debug)]
pub struct Wish {
    /// Counted rounds.
    pub rounds: usize,
    /// Only workloads whose name contains one of these words; empty: all.
    pub only: Vec<String>,
    /// Where the raw samples go.
    pub save: Option<PathBuf>,
    /// Where the plot goes.
    pub plot: Option<PathBuf>,
}

/// Runs all workloads on a tmpfs and on the disk, and reports.
pub fn compare(wish: &Wish) -> Result<()> {
    let mut report = Report::new(wish.rounds)?;
    for ground in [Ground::Tmpfs, Ground::Disk] {
        let workloads: Vec<Workload> = all().filter(|work| is_wanted(work, &wish.only)).collect();
        let stage = Stage::new(ground, workloads.iter().map(|work| work.layers))?;
        for work in &workloads {
            let measured = measure(&stage, work, wish.rounds)?;
            println!("{}", measured.line());
            report.results.push(measured);
            // A long run that is cut short has still measured something.
            if let Some(file) = &wish.save {
                report.save(file)?;
            }
        }
    }
    report.print();
    if let Some(file) = &wish.plot {
        let svg = plot::svg(&report.ratios());
        std::fs::write(file, svg).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn all() -> impl Iterator<Item = Workload> {
    metadata::workloads()
        .into_iter()
        .chain(data::workloads())
        .chain(changes::workloads())
        .chain(programs::workloads())
        .chain(depth::workloads())
}

fn is_wanted(work: &Workload, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|word| work.name.contains(word))
}

fn measure(stage: &Stage, work: &Workload, rounds: usize) -> Result<Measured> {
    let mut measured = Measured::new(stage.ground, &work.name);
    for round in 0..=rounds {
        for (index, contender) in CONTENDERS.iter().enumerate() {
            if measured.has_failed(index) {
                continue;
            }
            match sample(stage, work, *contender, round == 0) {
                Ok(sample) if round == 0 => measured.requests.extend(sample.requests),
                Ok(sample) => measured.add(index, sample.milliseconds),
                Err(error) => {
                    eprintln!("{} on {}: {error:#}", work.name, contender.name());
                    measured.fail(index);
                }
            }
        }
    }
    Ok(measured)
}

struct Sample {
    milliseconds: f64,
    requests: Vec<(String, u64)>,
}

fn sample(stage: &Stage, work: &Workload, contender: Contender, count: bool) -> Result<Sample> {
    stage.refresh(work, contender)?;
    if work.is_mount() {
        let start = Instant::now();
        Mounted::new(stage, work.layers, contender)?.finish()?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        return Ok(Sample {
            milliseconds,
            requests: Vec::new(),
        });
    }
    let mut mounted = Mounted::new(stage, work.layers, contender)?;
    let outcome = run(&mut mounted, work, count);
    // Unmounted also where the workload failed.
    mounted.finish()?;
    outcome
}

fn run(mounted: &mut Mounted, work: &Workload, count: bool) -> Result<Sample> {
    work.before.run(mounted.at())?;
    let before = if count {
        mounted.requests()?
    } else {
        Vec::new()
    };
    let start = Instant::now();
    work.timed.run(mounted.at())?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let mut requests = if count {
        mounted.requests()?
    } else {
        Vec::new()
    };
    for (kind, n) in &mut requests {
        let earlier = before.iter().find(|(other, _)| other == kind);
        *n -= earlier.map_or(0, |(_, n)| *n);
    }
    requests.retain(|(_, n)| *n > 0);
    Ok(Sample {
        milliseconds,
        requests,
    })
}
