//! `mille run`: create and start, attached or in the background.

use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{ClientIo, Ended, Engine, StartOptions, Streams};

use super::create::{CidFile, as_run, make};
use super::{Arity, Verb};
use crate::arguments::{is_on, switch, value};
use crate::container_flags as flags;
use crate::context::Context;
use crate::failure::{CLIENT_ERROR, Failure};
use crate::keys;
use crate::output;

/// `mille run`.
pub(crate) const VERB: Verb = Verb {
    name: "run",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    arity: Arity::AtLeast(1),
    flags_first: true,
    flags: add_flags,
    run,
};

fn add_flags(command: Command) -> Command {
    flags::add(command)
        .arg(switch(
            "detach",
            Some('d'),
            "Run container in background and print container ID",
        ))
        .arg(value(
            "detach-keys",
            None,
            "string",
            "Override the key sequence for detaching a container",
        ))
        .arg(
            switch("sig-proxy", None, "Proxy received signals to the process")
                .default_value("true"),
        )
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let detach = is_on(matches, "detach");
    let streams = flags::attached(&VERB, matches)?;
    if detach && !streams.is_empty() {
        return Err(Failure::plain(
            "conflicting options: cannot specify both --attach and --detach",
        ));
    }
    let mut options = flags::read(&VERB, matches)?;
    if detach {
        options.config.attach_stdin = false;
        options.config.attach_stdout = false;
        options.config.attach_stderr = false;
        options.config.stdin_once = false;
    }
    let attach = Streams {
        stdin: options.config.attach_stdin,
        stdout: options.config.attach_stdout,
        stderr: options.config.attach_stderr,
    };
    let tty = options.config.tty;
    flags::check_terminal(tty, attach.stdin)?;
    let detach_keys = keys::from_flag(matches)?;
    if tty && let Some(size) = mille_engine::terminal_size(std::io::stdout().as_fd()) {
        options.host_config.console_size = size;
    }
    let refused = |text: String| {
        let code = if detach { CLIENT_ERROR } else { code_of(&text) };
        Failure::Run {
            verb: &VERB,
            text,
            code,
        }
    };
    let cidfile = CidFile::reserve(matches).map_err(refused)?;
    let joins = options.host_config.donors();
    let engine = context
        .layers_beside(joins)
        .map_err(Failure::before_running)?;
    let id = make(&engine, options, matches).map_err(|error| {
        CidFile::give_up(matches);
        as_run(&VERB, &error)
    })?;
    cidfile.write(&id)?;
    if detach {
        // The id is said also when the start fails; nobody reading it must not keep the container from starting.
        let started = engine.start(&id, StartOptions { attach: None });
        output::emit(&format!("{id}\n"))?;
        started.map_err(|error| as_run(&VERB, &error))?;
        return Ok(ExitCode::SUCCESS);
    }
    let started = engine
        .start(
            &id,
            StartOptions {
                attach: Some(attach),
            },
        )
        .map_err(|error| as_run(&VERB, &error))?;
    let Some(session) = started else {
        return Ok(ExitCode::SUCCESS);
    };
    let forward = is_on(matches, "sig-proxy");
    carry(&engine, session, attach, tty, detach_keys, forward)
}

/// docker decides the code by the text, also for its own failures.
fn code_of(text: &str) -> u8 {
    if text.contains("no such file or directory") {
        127
    } else {
        CLIENT_ERROR
    }
}

/// Carries the streams of an attached container and turns its end into an exit code.
pub(crate) fn carry(
    engine: &Engine,
    session: mille_engine::Session,
    attach: Streams,
    tty: bool,
    detach_keys: Vec<u8>,
    forward_signals: bool,
) -> Result<ExitCode, Failure> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let io = ClientIo {
        stdin: attach.stdin.then(|| stdin.as_fd()),
        stdout: attach.stdout.then(|| stdout.as_fd()),
        stderr: attach.stderr.then(|| stderr.as_fd()),
        terminal: tty,
        detach_keys,
        forward_signals: forward_signals && !tty,
    };
    let id = session.container().clone();
    let how = session.run(&io)?;
    if how == Ended::Detached {
        // It may be gone by now, with its record.
        engine.note_detached(&id).ok();
    }
    ended(how)
}

/// The exit code of an attached command.
pub(crate) fn ended(ended: Ended) -> Result<ExitCode, Failure> {
    let code = match ended {
        Ended::Exited(code) => code,
        Ended::Detached => 0,
        Ended::Interrupted(signal) => 128 + signal,
    };
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)))
}
