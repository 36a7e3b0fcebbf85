//! `mille exec`.

use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{ClientIo, Error, ExecOptions};

use super::{Arity, Verb};
use crate::arguments::{is_on, list, switch, text, texts, value, words};
use crate::container_flags::{check_terminal, variables};
use crate::context::Context;
use crate::env_file;
use crate::failure::Failure;
use crate::keys;
use crate::output;

/// `mille exec`.
pub(crate) const VERB: Verb = Verb {
    name: "exec",
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    arity: Arity::AtLeast(2),
    flags_first: true,
    flags: add_flags,
    run: exec,
};

/// Exit code when the command could not be started.
const NOT_STARTED: u8 = 126;

fn add_flags(command: Command) -> Command {
    command
        .arg(switch(
            "detach",
            Some('d'),
            "Detached mode: run command in the background",
        ))
        .arg(value(
            "detach-keys",
            None,
            "string",
            "Override the key sequence for detaching a container",
        ))
        .arg(list("env", Some('e'), "Set environment variables"))
        .arg(list(
            "env-file",
            None,
            "Read in a file of environment variables",
        ))
        .arg(switch(
            "interactive",
            Some('i'),
            "Keep STDIN open even if not attached",
        ))
        .arg(switch(
            "privileged",
            None,
            "Give extended privileges to the command",
        ))
        .arg(switch("tty", Some('t'), "Allocate a pseudo-TTY"))
        .arg(value(
            "user",
            Some('u'),
            "string",
            "Username or UID (format: \"<name|uid>[:<group|gid>]\")",
        ))
        .arg(value(
            "workdir",
            Some('w'),
            "string",
            "Working directory inside the container",
        ))
}

fn exec(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let mut words = words(matches).into_iter();
    let name = words.next().unwrap_or_default();
    let mut env = Vec::new();
    for file in texts(matches, "env-file") {
        env.extend(env_file::read(&file).map_err(Failure::plain)?);
    }
    env.extend(variables(&VERB, matches)?);
    let detach_keys = keys::from_flag(matches)?;
    let terminal = is_on(matches, "tty");
    let detach = is_on(matches, "detach");
    let interactive = is_on(matches, "interactive") && !detach;
    check_terminal(terminal, interactive)?;
    let options = ExecOptions {
        command: words.map(Into::into).collect(),
        env: env.into_iter().map(Into::into).collect(),
        workdir: text(matches, "workdir").map(Into::into),
        user: text(matches, "user")
            .filter(|user| !user.is_empty())
            .map(str::to_owned),
        terminal,
        privileged: is_on(matches, "privileged"),
        detach,
    };
    let engine = context.records()?;
    let found = engine.find(&name)?;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let io = ClientIo {
        stdin: interactive.then(|| stdin.as_fd()),
        stdout: (!detach).then(|| stdout.as_fd()),
        stderr: (!detach).then(|| stderr.as_fd()),
        terminal,
        detach_keys,
        forward_signals: false,
    };
    match engine.exec(&found.id, &options, &io) {
        Ok(code) => Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))),
        // docker has the runtime's text on standard output here, since the stream is already attached.
        Err(Error::Exec(text)) if !detach => {
            output::emit(&format!("{text}\n"))?;
            Ok(ExitCode::from(NOT_STARTED))
        }
        Err(Error::Restarting(_)) => Err(Error::Restarting(name).into()),
        Err(Error::ExecPaused(_)) => Err(Error::ExecPaused(name).into()),
        Err(error) => Err(error.into()),
    }
}
