//! `mille wait`.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// `mille wait`.
pub(crate) const VERB: Verb = Verb {
    name: "wait",
    usage: "CONTAINER [CONTAINER...]",
    about: "Block until one or more containers stop, then print their exit codes",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: |command| command,
    run: wait,
};

fn wait(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let engine = context.records()?;
    let mut failures = Vec::new();
    for name in &words(matches) {
        match engine.find(name).and_then(|found| engine.wait(&found.id)) {
            Ok(code) => output::emit(&format!("{code}\n"))?,
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for failure in failures {
        failure.report();
    }
    Err(Failure::Said)
}
