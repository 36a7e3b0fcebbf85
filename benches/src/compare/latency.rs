//! What others notice of a large copy-up.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::contender::{Contender, Mounted};
use super::stage::{Ground, Layers, Stage};

/// How long others are watched with nothing going on beside them.
const QUIET: Duration = Duration::from_secs(1);

/// Prints how long looking up a name takes, which asks the file system every time since no name is asked for twice: with
/// nothing beside it, and while a file of 1 GiB is copied up. A copy-up that holds a lock shows in the last columns.
pub fn report() -> Result<()> {
    println!("one lookup while 1 GiB is copied up, in microseconds");
    println!("  on     who              what        median    99 %     max   lookups");
    for ground in [Ground::Tmpfs, Ground::Disk] {
        let stage = Stage::new(ground, [Layers::Giant])?;
        for contender in [Contender::Overlayfs, Contender::Millefs] {
            stage.clear_upper()?;
            let mounted = Mounted::new(&stage, Layers::Giant, contender)?;
            let watched = watch(mounted.at());
            mounted.finish()?;
            for (what, latencies) in watched? {
                println!(
                    "  {:<6} {:<16} {what:<9} {}",
                    ground.name(),
                    contender.name(),
                    figures(latencies)
                );
            }
        }
    }
    Ok(())
}

type Watched = Vec<(&'static str, Vec<Duration>)>;

fn watch(at: &Path) -> Result<Watched> {
    let start = Instant::now();
    let quiet = look_up("quiet", at, || start.elapsed() < QUIET)?;
    let beside = std::thread::scope(|scope| {
        let copying = scope.spawn(|| {
            let file = at.join("giant");
            // Also where the file can be written to before it has been copied, the flush waits for the copy.
            OpenOptions::new().append(true).open(file)?.sync_all()
        });
        let beside = look_up("beside", at, || !copying.is_finished());
        copying.join().ok().context("the copy-up panicked")??;
        beside
    })?;
    Ok(vec![("alone", quiet), ("copy-up", beside)])
}

/// Looks names up that are not there, at least one.
fn look_up(prefix: &str, at: &Path, mut goes_on: impl FnMut() -> bool) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    loop {
        let path = at.join(format!("{prefix}{}", latencies.len()));
        let start = Instant::now();
        let found = path.symlink_metadata();
        latencies.push(start.elapsed());
        ensure!(found.is_err(), "{} exists", path.display());
        if !goes_on() {
            return Ok(latencies);
        }
    }
}

fn figures(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len() - 1);
        latencies[index].as_secs_f64() * 1e6
    };
    format!(
        "{:>8.0} {:>7.0} {:>7.0} {:>9}",
        at(50),
        at(99),
        at(100),
        latencies.len()
    )
}
