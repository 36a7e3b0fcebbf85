//! `mille commit`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{CommitOptions, HOST_BASE};
use mille_store::Reference;

use super::{Arity, Verb};
use crate::arguments::{is_on, list, switch, text, texts, value, words};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// `mille commit`.
pub(crate) const VERB: Verb = Verb {
    name: "commit",
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Create a new image from a container's changes",
    arity: Arity::Between(1, 2),
    flags_first: false,
    flags: add_flags,
    run: commit,
};

fn add_flags(command: Command) -> Command {
    command
        .arg(value(
            "author",
            Some('a'),
            "string",
            "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")",
        ))
        .arg(list(
            "change",
            Some('c'),
            "Apply Dockerfile instruction to the created image",
        ))
        .arg(value("message", Some('m'), "string", "Commit message"))
        .arg(switch(
            "no-pause",
            None,
            "Disable pausing container during commit",
        ))
        .arg(switch("pause", Some('p'), "Pause container during commit").default_value("true"))
}

fn commit(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = words(matches);
    let reference = match words.get(1).filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => Some(Reference::parse(name).map_err(Failure::plain)?.or_latest()),
    };
    let options = CommitOptions {
        reference,
        author: text(matches, "author").unwrap_or_default().to_owned(),
        message: text(matches, "message").unwrap_or_default().to_owned(),
        changes: texts(matches, "change"),
        pause: is_on(matches, "pause") && !is_on(matches, "no-pause"),
    };
    if words[0] == HOST_BASE {
        return Err(Failure::Daemon(format!(
            "{HOST_BASE} is the root of this machine, not a container: run something on it (mille run --name NAME \
             {HOST_BASE} COMMAND) and commit NAME"
        )));
    }
    let engine = context.layers()?;
    let found = engine.find(&words[0])?;
    output::emit(&format!("{}\n", engine.commit(&found.id, &options)?))?;
    Ok(ExitCode::SUCCESS)
}
