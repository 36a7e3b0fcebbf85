//! `mille attach`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::Streams;

use super::{Arity, Verb, run};
use crate::arguments::{is_on, switch, value, words};
use crate::container_flags::check_terminal;
use crate::context::Context;
use crate::failure::Failure;
use crate::keys;

/// `mille attach`.
pub(crate) const VERB: Verb = Verb {
    name: "attach",
    usage: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    arity: Arity::Exactly(1),
    flags_first: false,
    flags: add_flags,
    run: attach,
};

fn add_flags(command: Command) -> Command {
    command
        .arg(value(
            "detach-keys",
            None,
            "string",
            "Override the key sequence for detaching a container",
        ))
        .arg(switch("no-stdin", None, "Do not attach STDIN"))
        .arg(
            switch(
                "sig-proxy",
                None,
                "Proxy all received signals to the process",
            )
            .default_value("true"),
        )
}

fn attach(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let keys = keys::from_flag(matches)?;
    let engine = context.records()?;
    let found = engine.find(&words(matches)[0])?;
    if !found.is_running() {
        return Err(Failure::plain(
            "You cannot attach to a stopped container, start it first",
        ));
    }
    if found.state.paused {
        return Err(Failure::plain(mille_engine::Error::AttachPaused));
    }
    if found.state.restarting {
        return Err(Failure::plain(mille_engine::Error::AttachRestarting));
    }
    let streams = Streams {
        stdin: !is_on(matches, "no-stdin") && found.config.open_stdin,
        stdout: true,
        stderr: true,
    };
    if streams.stdin {
        check_terminal(found.config.tty, true)?;
    }
    let session = engine.attach(&found.id, streams)?;
    run::carry(
        &engine,
        session,
        streams,
        found.config.tty,
        keys,
        is_on(matches, "sig-proxy"),
    )
}
