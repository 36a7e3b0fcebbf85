//! `mille stop`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::StopOptions;

use super::{Arity, Verb};
use crate::arguments::{text, value, words};
use crate::container_flags::invalid;
use crate::context::Context;
use crate::failure::{Failure, each};
use crate::numbers::go_error;

/// `mille stop`.
pub(crate) const VERB: Verb = Verb {
    name: "stop",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: add_flags,
    run: stop,
};

/// The flags that say how a container is stopped.
pub(super) fn add_flags(command: Command) -> Command {
    command
        .arg(value(
            "signal",
            Some('s'),
            "string",
            "Signal to send to the container",
        ))
        .arg(
            value(
                "timeout",
                Some('t'),
                "int",
                "Seconds to wait before killing the container",
            )
            .alias("time"),
        )
}

/// How a container is to be stopped.
pub(super) fn options(verb: &'static Verb, matches: &ArgMatches) -> Result<StopOptions, Failure> {
    let seconds = match text(matches, "timeout") {
        None => None,
        Some(text) => {
            let number = text.parse();
            Some(number.map_err(|_| invalid(verb, "timeout", text, &go_error("ParseInt", text)))?)
        }
    };
    Ok(StopOptions {
        signal: text(matches, "signal").map(str::to_owned),
        timeout_seconds: seconds,
    })
}

fn stop(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let options = options(&VERB, matches)?;
    let engine = context.records()?;
    each(&words(matches), |name| {
        Ok(engine.stop(&engine.find(name)?.id, &options)?)
    })
}
