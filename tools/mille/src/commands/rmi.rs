//! `mille rmi`: removes names of images and images.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{RemoveImageOptions, Removed};
use mille_store::ResolveError;

use super::{Arity, Verb};
use crate::arguments::{self, is_on, switch};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::platform;

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "rmi",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command
        .arg(switch("force", Some('f'), "Force removal of the image"))
        .arg(switch("no-prune", None, "Do not delete untagged parents"))
        .arg(platform::flag())
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let force = is_on(matches, "force");
    let options = RemoveImageOptions {
        force,
        prune: !is_on(matches, "no-prune"),
    };
    let engine = context.layers()?;
    let mut errors = Vec::new();
    let mut fatal = false;
    for image in arguments::words(matches) {
        let fits = platform::check(&engine, matches, &image);
        match fits.and_then(|()| engine.remove_image(&image, options)) {
            Ok(removed) => output::emit(&lines(&removed))?,
            Err(error) => {
                fatal |= !is_missing(&error);
                errors.push(Failure::from(error));
            }
        }
    }
    if errors.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for error in errors {
        error.report();
    }
    if force && !fatal {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::Said)
    }
}

/// Whether the image is simply not there, which `--force` forgives.
fn is_missing(error: &mille_engine::Error) -> bool {
    matches!(
        error,
        mille_engine::Error::Resolve(ResolveError::NotFound(_))
            | mille_engine::Error::Store(mille_store::Error::Resolve(ResolveError::NotFound(_)))
    )
}

fn lines(removed: &[Removed]) -> String {
    let lines = removed.iter().map(|line| match line {
        Removed::Untagged(name) => format!("Untagged: {name}\n"),
        Removed::Deleted(id) => format!("Deleted: {id}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_dockers() {
        let removed = [
            Removed::Untagged("bb:gz".to_owned()),
            Removed::Deleted("sha256:35af".to_owned()),
        ];
        assert_eq!(lines(&removed), "Untagged: bb:gz\nDeleted: sha256:35af\n");
    }
}
