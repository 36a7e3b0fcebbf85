//! `mille rm`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{Error, RemoveOptions};

use super::{Arity, Verb};
use crate::arguments::{is_on, switch, words};
use crate::context::Context;
use crate::failure::{Failure, each};

/// `mille rm`.
pub(crate) const VERB: Verb = Verb {
    name: "rm",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: add_flags,
    run: rm,
};

fn add_flags(command: Command) -> Command {
    command
        .arg(switch(
            "force",
            Some('f'),
            "Force the removal of a running container (uses SIGKILL)",
        ))
        .arg(switch(
            "volumes",
            Some('v'),
            "Remove anonymous volumes associated with the container",
        ))
}

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let options = RemoveOptions {
        force: is_on(matches, "force"),
        volumes: is_on(matches, "volumes"),
    };
    let engine = context.layers()?;
    let mut missing = false;
    let done = each(&words(matches), |name| match engine.find(name) {
        Ok(found) => Ok(engine.remove(&found.id, options)?),
        // Whatever it was: what is left of it can be removed.
        Err(_) if options.force && engine.remove_damaged(name)? => Ok(()),
        Err(error) => {
            missing |= matches!(error, Error::NoSuchContainer(_));
            Err(error.into())
        }
    });
    // With -f, something that is not there is said but is no failure.
    match done {
        Err(Failure::Said) if options.force && missing => Ok(ExitCode::SUCCESS),
        other => other,
    }
}
