//! `mille export`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{Arity, Verb};
use crate::arguments::{is_on, switch, text, value, words};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::output::destination::Destination;

/// `mille export`.
pub(crate) const VERB: Verb = Verb {
    name: "export",
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    arity: Arity::Exactly(1),
    flags_first: false,
    flags: add_flags,
    run: export,
};

fn add_flags(command: Command) -> Command {
    command
        .arg(switch(
            "flatten",
            None,
            "Also when the container stands on @host: the whole machine goes into the archive",
        ))
        .arg(value(
            "output",
            Some('o'),
            "string",
            "Write to a file, instead of STDOUT",
        ))
}

fn export(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let destination = Destination::open(text(matches, "output"), "export", "container")?;
    let mut destination = destination.counted(output::progress::reporter(false));
    let engine = context.layers()?;
    let found = engine.find(&words(matches)[0])?;
    let exported = engine.export(&found.id, is_on(matches, "flatten"), &mut destination);
    exported.map_err(|error| destination.blame(error.into()))?;
    destination.finish()?;
    Ok(ExitCode::SUCCESS)
}
