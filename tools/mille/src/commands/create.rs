//! `mille create`: a container, not started.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{ContainerId, CreateOptions, Engine, Error, RemoveOptions};

use super::{Arity, Verb};
use crate::arguments::{is_on, text};
use crate::container_flags as flags;
use crate::context::Context;
use crate::failure::{CLIENT_ERROR, Failure, chain, daemon};
use crate::output;
use crate::platform;

/// `mille create`.
pub(crate) const VERB: Verb = Verb {
    name: "create",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    arity: Arity::AtLeast(1),
    flags_first: true,
    flags: add_flags,
    run: create,
};

fn add_flags(command: Command) -> Command {
    flags::add(command).mut_arg("pull", |flag| {
        flag.help("Pull image before creating (\"missing\", \"never\") (default \"missing\")")
    })
}

fn create(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let options = flags::read(&VERB, matches)?;
    let cidfile = CidFile::reserve(matches).map_err(Failure::plain)?;
    let engine = context.layers()?;
    let id = make(&engine, options, matches).map_err(Failure::from)?;
    cidfile.write(&id)?;
    output::emit(&format!("{id}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// How often a container whose name is wanted is removed before somebody else is believed to make it again and again.
const REPLACEMENTS: usize = 5;

/// Makes the container, with docker's note about a missing image. With `--replace` the one that has its name goes, running
/// or not, once everything else is known to be right.
pub(crate) fn make(
    engine: &Engine,
    options: CreateOptions,
    matches: &ArgMatches,
) -> mille_engine::Result<ContainerId> {
    let image = options.image.clone();
    platform::check(engine, matches, &image).inspect_err(|error| {
        flags::note_missing_image(error, &image, text(matches, "pull"));
    })?;
    let mut left = if is_on(matches, "replace") {
        REPLACEMENTS
    } else {
        0
    };
    loop {
        match engine.create(options.clone()) {
            Err(Error::NameInUse { id, .. }) if left > 0 => {
                left -= 1;
                remove(engine, &id)?;
            }
            Err(error) => {
                flags::note_missing_image(&error, &image, text(matches, "pull"));
                return Err(error);
            }
            made => return made,
        }
    }
}

fn remove(engine: &Engine, id: &str) -> mille_engine::Result<()> {
    let options = RemoveOptions {
        force: true,
        ..RemoveOptions::default()
    };
    match engine
        .find(id)
        .and_then(|found| engine.remove(&found.id, options))
    {
        Err(Error::NoSuchContainer(_)) => Ok(()),
        other => other,
    }
}

/// The same failure in the form of `run`.
pub(crate) fn as_run(verb: &'static Verb, error: &mille_engine::Error) -> Failure {
    let code = u8::try_from(error.run_exit_code()).unwrap_or(CLIENT_ERROR);
    Failure::Run {
        verb,
        text: daemon(chain(error)),
        code,
    }
}

/// `--cidfile`: made before the container, so that two of them never share one.
pub(crate) struct CidFile(Option<File>);

impl CidFile {
    /// Makes the file, which must not exist.
    pub(crate) fn reserve(matches: &ArgMatches) -> Result<Self, String> {
        let Some(path) = text(matches, "cidfile") else {
            return Ok(CidFile(None));
        };
        match File::create_new(path) {
            Ok(file) => Ok(CidFile(Some(file))),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )),
            Err(error) => {
                let cause = output::go_io_error(&error);
                Err(format!(
                    "failed to create the container ID file: open {path}: {cause}"
                ))
            }
        }
    }

    /// Writes the id.
    pub(crate) fn write(self, id: &ContainerId) -> Result<(), Failure> {
        match self.0 {
            Some(mut file) => Ok(file.write_all(id.to_string().as_bytes())?),
            None => Ok(()),
        }
    }

    /// Removes the file again: no container was made.
    pub(crate) fn give_up(matches: &ArgMatches) {
        if let Some(path) = text(matches, "cidfile")
            && let Err(error) = std::fs::remove_file(path)
        {
            output::complain(&format!("remove {path}: {error}"));
        }
    }
}
