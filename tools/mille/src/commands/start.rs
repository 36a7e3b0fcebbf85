//! `mille start`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{StartOptions, Streams};

use super::{Arity, Verb, run};
use crate::arguments::{is_on, switch, value, words};
use crate::container_flags::check_terminal;
use crate::context::Context;
use crate::failure::Failure;
use crate::keys;
use crate::output;

/// `mille start`.
pub(crate) const VERB: Verb = Verb {
    name: "start",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: add_flags,
    run: start,
};

fn add_flags(command: Command) -> Command {
    command
        .arg(switch(
            "attach",
            Some('a'),
            "Attach STDOUT/STDERR and forward signals",
        ))
        .arg(value(
            "detach-keys",
            None,
            "string",
            "Override the key sequence for detaching a container",
        ))
        .arg(switch("interactive", Some('i'), "Attach container's STDIN"))
}

fn start(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let names = words(matches);
    if is_on(matches, "attach") || is_on(matches, "interactive") {
        let [name] = names.as_slice() else {
            return Err(Failure::plain(
                "you cannot start and attach multiple containers at once",
            ));
        };
        return attached(context, matches, name);
    }
    let engine = context.layers_to_start(&names)?;
    let mut failed = Vec::new();
    for name in &names {
        let started = engine
            .find(name)
            .and_then(|found| engine.start(&found.id, StartOptions { attach: None }));
        match started {
            Ok(_) => output::emit(&format!("{name}\n"))?,
            Err(error) => {
                Failure::from(error).report();
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::plain(format!(
        "Error: failed to start containers: {}",
        failed.join(", ")
    )))
}

fn attached(context: &Context, matches: &ArgMatches, name: &str) -> Result<ExitCode, Failure> {
    let keys = keys::from_flag(matches)?;
    let engine = context.layers_to_start(&[name.to_owned()])?;
    let found = engine.find(name)?;
    let attach = Streams {
        stdin: is_on(matches, "interactive") && found.config.open_stdin,
        stdout: true,
        stderr: true,
    };
    check_terminal(found.config.tty, attach.stdin)?;
    match engine.start(
        &found.id,
        StartOptions {
            attach: Some(attach),
        },
    )? {
        Some(session) => run::carry(&engine, session, attach, found.config.tty, keys, true),
        None => Ok(ExitCode::SUCCESS),
    }
}
