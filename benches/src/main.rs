//! `mille-benches`: mille side by side with the programs it is measured against, in one run.
//!
//! Every comparison is a set of contenders that are run in interleaved rounds, so that what the machine does meanwhile
//! hits all of them; printed are medians and their ratio to the first contender. Only ratios of one run mean anything:
//! the raw samples are written to `benches/runs/` with the kernel and the CPU they come from.

mod archive;
mod cache;
mod compare;
mod exec;
mod machine;
mod memory;
mod rounds;
mod startup;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use rounds::Comparison;

/// Rounds of a quick look; `--rounds N` changes it.
const DEFAULT_ROUNDS: usize = 15;

fn main() -> Result<()> {
    let mut rounds = DEFAULT_ROUNDS;
    let mut wanted = Vec::new();
    let mut save = None;
    let mut plot = None;
    let mut args = std::env::args().skip(1);
    let mut comparing = false;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().context("--rounds needs a number")?.parse()?,
            "--save" => save = Some(PathBuf::from(args.next().context("--save needs a file")?)),
            "--plot" => plot = Some(PathBuf::from(args.next().context("--plot needs a file")?)),
            "--caller" => return compare::be_caller(args),
            "compare" => comparing = true,
            flag if flag.starts_with('-') => bail!(
                "unknown flag {flag}; usage: mille-benches [--rounds N] [--save FILE] [startup|archive|exec|memory|cache|latency]…\n       mille-benches compare [--rounds N] [--save FILE] [--plot FILE] [WORDS OF WORKLOADS]"
            ),
            name => wanted.push(name.to_string()),
        }
    }
    if comparing {
        return compare::compare(&compare::Wish {
            rounds,
            only: wanted,
            save,
            plot,
        });
    }
    let all = wanted.is_empty();
    let is_wanted = |name: &str| all || wanted.iter().any(|want| want == name);
    let place = rounds::Place::new()?;
    let mut results: Vec<Comparison> = Vec::new();
    if is_wanted("startup") {
        results.push(startup::compare(&place, rounds)?);
        startup::crowd(&place, rounds)?;
    }
    if is_wanted("archive") {
        results.extend(archive::compare(&place, rounds.div_ceil(3))?);
    }
    if is_wanted("exec") {
        results.push(exec::compare(&place, rounds)?);
    }
    if is_wanted("memory") {
        memory::report(&place)?;
    }
    if is_wanted("cache") {
        cache::report(&place)?;
    }
    if is_wanted("latency") {
        compare::report_latency()?;
    }
    if let Some(file) = save {
        rounds::save(&file, &results)?;
    }
    Ok(())
}
