//! `mille pause`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::{Failure, each};

/// `mille pause`.
pub(crate) const VERB: Verb = Verb {
    name: "pause",
    usage: "CONTAINER [CONTAINER...]",
    about: "Pause all processes within one or more containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: |command: Command| command,
    run: pause,
};

fn pause(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let engine = context.records()?;
    each(&words(matches), |name| {
        Ok(engine.pause(&engine.find(name)?.id)?)
    })
}
