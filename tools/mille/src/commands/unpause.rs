//! `mille unpause`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::{Failure, each};

/// `mille unpause`.
pub(crate) const VERB: Verb = Verb {
    name: "unpause",
    usage: "CONTAINER [CONTAINER...]",
    about: "Unpause all processes within one or more containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: |command: Command| command,
    run: unpause,
};

fn unpause(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let engine = context.records()?;
    each(&words(matches), |name| {
        Ok(engine.unpause(&engine.find(name)?.id)?)
    })
}
