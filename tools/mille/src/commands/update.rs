//! `mille update`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{Resources, UpdateOptions};

use super::{Arity, Verb};
use crate::arguments::{text, value, words};
use crate::container_flags::{limits, restart_policy};
use crate::context::Context;
use crate::failure::{Failure, each};

/// `mille update`.
pub(crate) const VERB: Verb = Verb {
    name: "update",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Update configuration of one or more containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: add_flags,
    run: update,
};

fn add_flags(command: Command) -> Command {
    let limits = limits::FLAGS.iter();
    let limits = limits.map(|(long, short, kind, help)| value(long, *short, kind, help));
    command.args(limits).arg(value(
        "restart",
        None,
        "string",
        "Restart policy to apply when a container exits",
    ))
}

fn update(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let policy = text(matches, "restart").filter(|text| !text.is_empty());
    let restart_policy = policy.map(restart_policy).transpose();
    let options = UpdateOptions {
        restart_policy: restart_policy.map_err(Failure::plain)?,
        limits: limits::are_given(matches)
            .then(|| limits::read(&VERB, matches, &Resources::default()))
            .transpose()?,
    };
    if options.restart_policy.is_none() && options.limits.is_none() {
        return Err(Failure::plain(
            "you must provide one or more flags when using this command",
        ));
    }
    let engine = context.records()?;
    each(&words(matches), |name| {
        Ok(engine.update(&engine.find(name)?.id, &options)?)
    })
}
