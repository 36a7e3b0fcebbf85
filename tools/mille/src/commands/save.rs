//! `mille save`: writes images to an archive.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{Engine, HOST_BASE, RemoveImageOptions};
use mille_store::{ImageId, ResolveError, SaveItem};

use super::{Arity, Verb};
use crate::arguments::{self, is_on, switch, value};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::output::destination::Destination;
use crate::platform;

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
        .arg(platform::flag())
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let path = arguments::text(matches, "output").filter(|path| !path.is_empty());
    let mut out = Destination::open(path, "save", "image")?;
    let engine = context.layers()?;
    let names = arguments::words(matches);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        platform::check(&engine, matches, name)?;
    }
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
    written.map_err(|failure| out.blame(failure))?;
    out.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the archive; `made` gets the images that are only there for it.
fn write(
    engine: &Engine,
    names: &[&str],
    whole: bool,
    out: &mut Destination,
    made: &mut Vec<ImageId>,
) -> Result<(), Failure> {
    let mut items = Vec::new();
    for name in names {
        if *name == HOST_BASE {
            engine.resolve_image(name)?;
        }
        let found = engine.store().save_items(&[name]);
        for item in found.map_err(|error| missing(error, name))? {
            if !items.contains(&item) {
                items.push(item);
            }
        }
    }
    if whole {
        flatten(engine, &mut items, made)?;
    } else {
        for item in &items {
            engine.check_portable(&item.id)?;
        }
    }
    let progress = output::progress::reporter(false);
    engine.store().with_progress(progress).save(&items, out)?;
    for item in &items {
        engine.note_image("save", &item.id, &item.id.to_string());
    }
    Ok(())
}

/// Of what is not there docker's engine repeats what was typed, without a tag that was not.
fn missing(error: mille_store::Error, typed: &str) -> Failure {
    match error {
        mille_store::Error::Resolve(ResolveError::NotFound(_)) => {
            Failure::Daemon(ResolveError::NotFound(typed.to_owned()).to_string())
        }
        other => other.into(),
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
