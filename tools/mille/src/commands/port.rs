//! `mille port`: what is published. Containers have the host's network or none, so nothing is.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::Failure;
use crate::numbers::go_error;

/// `mille port`.
pub(crate) const VERB: Verb = Verb {
    name: "port",
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings or a specific mapping for the container",
    arity: Arity::Between(1, 2),
    flags_first: false,
    flags: |command: Command| command,
    run: port,
};

fn port(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = words(matches);
    let name = words.first().map_or("", String::as_str);
    context.records()?.find(name)?;
    let Some(asked) = words.get(1) else {
        return Ok(ExitCode::SUCCESS);
    };
    let number = asked.split('/').next().unwrap_or_default();
    if number.parse::<u16>().is_err() {
        let cause = go_error("ParseUint", number);
        return Err(Failure::plain(format!(
            "Error: invalid port ({number}): {cause}"
        )));
    }
    Err(Failure::plain(format!(
        "Error: No public port '{asked}' published for {name}"
    )))
}
