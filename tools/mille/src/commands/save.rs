//! `mille save`: writes images to an archive.

use std::collections::{HashMap, HashSet};
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
    let mut made = Vec::new();
    let written = write(
        &engine,
        &names,
        is_on(matches, "flatten"),
        &mut out,
        &mut made,
    );
    let options = RemoveImageOptions {
        force: false,
        prune: true,
    };
    for id in made {
        if let Err(error) = engine.remove_image(&id.to_string(), options) {
            // The archive is what counts; the image without a name can be removed by hand.
            log::warn!("remove image {id}: {error}");
        }
    }
    match written {
        Ok(()) => out.finish().map(|()| ExitCode::SUCCESS),
        // Nobody reads standard output any more: as one that SIGPIPE ends.
        Err(Broken::Pipe) => Ok(ExitCode::from(output::BROKEN_PIPE)),
        Err(Broken::Other(failure)) => Err(failure),
    }
}

/// Why no archive came to be.
#[derive(Debug)]
enum Broken {
    Pipe,
    Other(Failure),
}

impl<E: Into<Failure>> From<E> for Broken {
    fn from(error: E) -> Self {
        Broken::Other(error.into())
    }
}

/// Writes the archive; `made` gets the images that are only there for it.
fn write(
    engine: &Engine,
    names: &[&str],
    whole: bool,
    out: &mut Destination,
    made: &mut Vec<ImageId>,
) -> Result<(), Broken> {
    let mut items = engine.store().save_items(names)?;
    if whole {
        flatten(engine, &mut items, made)?;
    } else {
        for item in &items {
            engine.check_portable(&item.id)?;
        }
    }
    match engine.store().save(&items, out) {
        Err(mille_store::Error::Write { source, .. })
            if source.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            Err(Broken::Pipe)
        }
        other => Ok(other?),
    }
}

/// Puts a whole image in the place of each that stands on the host.
fn flatten(
    engine: &Engine,
    items: &mut [SaveItem],
    made: &mut Vec<ImageId>,
) -> Result<(), Failure> {
    let images = engine.store().images()?;
    let before: HashSet<ImageId> = images.iter().map(|image| image.id).collect();
    let mut whole = HashMap::new();
    for item in items {
        match engine.check_portable(&item.id) {
            Ok(()) => continue,
            Err(mille_engine::Error::HostBase(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let id = match whole.get(&item.id) {
            Some(id) => *id,
            None => engine.flatten(&item.id)?,
        };
        if whole.insert(item.id, id).is_none() && !before.contains(&id) {
            made.push(id);
        }
        item.id = id;
    }
    Ok(())
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
