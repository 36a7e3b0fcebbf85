//! `mille mount`: look into an image or a container without running anything.

use std::path::Path;
use std::process::ExitCode;

use clap::ArgMatches;
use mille_engine::{HOST_BASE, MountSource};

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::Failure;

/// `mille mount`.
pub(crate) const VERB: Verb = Verb {
    name: "mount",
    usage: "IMAGE|CONTAINER DIRECTORY",
    about: "Mount an image or a container's filesystem read-only at a directory",
    arity: Arity::Exactly(2),
    flags_first: false,
    flags: |command| command,
    run: mount,
};

fn mount(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = words(matches);
    // As an ordinary user a mount made inside the user namespace would be seen by nobody.
    let engine = context.records()?;
    // A container's name is the nearer one; an image can always be given with its tag.
    let source = match engine.find(&words[0]) {
        _ if words[0] == HOST_BASE => MountSource::Host,
        Ok(container) => MountSource::Container(container.id),
        Err(mille_engine::Error::NoSuchContainer(_)) => {
            MountSource::Image(engine.resolve_image(&words[0])?)
        }
        Err(error) => return Err(error.into()),
    };
    engine.mount(&source, Path::new(&words[1]))?;
    Ok(ExitCode::SUCCESS)
}
