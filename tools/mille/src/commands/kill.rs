//! `mille kill`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{Arity, Verb};
use crate::arguments::{text, value, words};
use crate::context::Context;
use crate::failure::{Failure, each};

/// `mille kill`.
pub(crate) const VERB: Verb = Verb {
    name: "kill",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: add_flags,
    run: kill,
};

fn add_flags(command: Command) -> Command {
    command.arg(value(
        "signal",
        Some('s'),
        "string",
        "Signal to send to the container",
    ))
}

fn kill(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let engine = context.records()?;
    let signal = text(matches, "signal").unwrap_or("KILL");
    each(&words(matches), |name| Ok(engine.kill(name, signal)?))
}
