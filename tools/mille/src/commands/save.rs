//! `mille save`: writes images to an archive.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{Engine, RemoveImageOptions};
use mille_store::{ImageId, SaveItem};

use super::{Arity, Verb};
use crate::arguments::{self, is_on, switch, value};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::output::destination::Destination;

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "save",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command
        .arg(switch(
            "flatten",
            None,
            "Save an image that stands on @host as one layer of all that it shows",
        ))
        .arg(value(
            "output",
            Some('o'),
            "string",
            "Write to a file, instead of STDOUT",
        ))
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let path = arguments::text(matches, "output").filter(|path| !path.is_empty());
    check(path)?;
    let mut out = Destination::open(path, "save")?;
    let engine = context.layers()?;
    let names = arguments::words(matches);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut items = engine.store().save_items(&names)?;
    let made = if is_on(matches, "flatten") {
        flatten(&engine, &mut items)?
    } else {
        portable(&engine, &items)?
    };
    let written = engine.store().save(&items, &mut out);
    for id in made {
        engine.remove_image(
            &id.to_string(),
            RemoveImageOptions {
                force: false,
                prune: true,
            },
        )?;
    }
    written?;
    out.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses images that would be incomplete elsewhere.
fn portable(engine: &Engine, items: &[SaveItem]) -> Result<Vec<ImageId>, Failure> {
    for item in items {
        engine.check_portable(&item.id)?;
    }
    Ok(Vec::new())
}

/// Puts a whole image in the place of each that stands on the host; returns those made for it.
fn flatten(engine: &Engine, items: &mut [SaveItem]) -> Result<Vec<ImageId>, Failure> {
    let before: HashSet<ImageId> = engine
        .store()
        .images()?
        .iter()
        .map(|image| image.id)
        .collect();
    let mut made: Vec<(ImageId, ImageId)> = Vec::new();
    for item in items {
        match engine.check_portable(&item.id) {
            Err(mille_engine::Error::HostBase(_)) => {}
            other => {
                other?;
                continue;
            }
        }
        let whole = match made.iter().find(|(from, _)| *from == item.id) {
            Some((_, whole)) => *whole,
            None => engine.flatten(&item.id)?,
        };
        made.push((item.id, whole));
        item.id = whole;
    }
    let made: HashSet<ImageId> = made
        .into_iter()
        .map(|(_, whole)| whole)
        .filter(|id| !before.contains(id))
        .collect();
    Ok(made.into_iter().collect())
}

/// Refuses a place for the archive in docker's words, before any work is done.
fn check(path: Option<&str>) -> Result<(), Failure> {
    let Some(path) = path.map(Path::new) else {
        return Ok(());
    };
    let refused = |text: String| Failure::plain(format!("failed to save image: {text}"));
    if path.is_dir() {
        return Err(refused("cannot write to a directory".to_owned()));
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    match fs::metadata(directory) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = output::go_io_error(&error);
            Err(refused(format!(
                "invalid output path: stat {}: {text}",
                directory.display()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_cannot_be_written() {
        let text = |path| match check(Some(path)) {
            Err(Failure::Plain { text, code: 1 }) => text,
            other => format!("{other:?}"),
        };
        assert_eq!(
            text("/nosuch/x"),
            "failed to save image: invalid output path: stat /nosuch: no such file or directory"
        );
        assert_eq!(
            text("."),
            "failed to save image: cannot write to a directory"
        );
        assert!(check(Some("/dev/null")).is_ok() && check(Some("x.tar")).is_ok());
    }
}
