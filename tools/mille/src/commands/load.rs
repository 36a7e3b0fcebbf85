//! `mille load`: brings in images of an archive.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_store::{Error, LoadError, LoadEvent, LoadOptions, Source};

use super::import::open_file;
use super::{Arity, Verb};
use crate::arguments::{self, is_on, switch, value};
use crate::context::Context;
use crate::failure::{Failure, chain};
use crate::output;
use crate::platform;

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "load",
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    arity: Arity::None,
    flags_first: false,
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command
        .arg(value(
            "input",
            Some('i'),
            "string",
            "Read from tar archive file (or an unpacked one), instead of STDIN",
        ))
        .arg(value(
            "platform",
            None,
            "string",
            "Load the image of this platform: os[/arch[/variant]]",
        ))
        .arg(switch("quiet", Some('q'), "Suppress the progress bar"))
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let platform = arguments::text(matches, "platform")
        .map(|text| platform::read(text).map_err(Failure::plain))
        .transpose()?;
    let input = arguments::text(matches, "input").unwrap_or_default();
    let source = source(input)?;
    let engine = context.layers()?;
    let store = engine
        .store()
        .with_progress(output::progress::reporter(is_on(matches, "quiet")));
    let mut lines = Vec::new();
    let loaded = store.load_with(source, &LoadOptions { platform }, &mut |event| {
        note(&engine, &event);
        lines.push(line(&event));
    });
    // The bar must be gone before anything is printed.
    drop(store);
    for line in lines {
        output::emit(&(line + "\n"))?;
    }
    // As docker: errors of the archive come without the engine's prefix.
    loaded
        .map(|_| ExitCode::SUCCESS)
        .map_err(|error| Failure::plain(refused(input, &error)))
}

/// Names the archive where the error is one of it as a whole; docker's own texts stay as they are.
fn refused(input: &str, error: &Error) -> String {
    let whole = matches!(
        error,
        Error::LayerTruncated { .. }
            | Error::Load(
                LoadError::Truncated { .. } | LoadError::NotAnArchive(_) | LoadError::Tar { .. }
            )
    );
    if whole && !input.is_empty() {
        format!("{input}: {}", chain(error))
    } else {
        chain(error)
    }
}

fn source(input: &str) -> Result<Source, Failure> {
    let path = Path::new(input);
    if input.is_empty() {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(Failure::plain(
                "requested load from stdin, but stdin is empty",
            ));
        }
        return Ok(Source::Stream(Box::new(File::from(
            stdin.as_fd().try_clone_to_owned()?,
        ))));
    }
    if path.is_dir() {
        return Ok(Source::Dir(path.to_owned()));
    }
    Ok(Source::Stream(Box::new(open_file(path)?)))
}

/// Notes an image that came.
fn note(engine: &mille_engine::Engine, event: &LoadEvent) {
    let id = match event {
        LoadEvent::Loaded(name) => engine.store().resolve(&name.familiar()).ok(),
        LoadEvent::LoadedId(id) => Some(*id),
        LoadEvent::Renamed { .. } => None,
    };
    if let Some(id) = id {
        engine.note_image("load", &id, &id.to_string());
    }
}

fn line(event: &LoadEvent) -> String {
    match event {
        LoadEvent::Renamed { name, old } => {
            format!(
                "The image {} already exists, renaming the old one with ID {old} to empty string",
                name.familiar()
            )
        }
        LoadEvent::Loaded(name) => format!("Loaded image: {}", name.familiar()),
        LoadEvent::LoadedId(id) => format!("Loaded image ID: {id}"),
    }
}

#[cfg(test)]
mod tests {
    use mille_store::{Digest, ImageId, Reference};

    use super::*;

    #[test]
    fn lines_are_dockers() {
        let (name, id) = (
            Reference::parse("img:v2").unwrap(),
            ImageId::from(Digest::of(b"")),
        );
        assert_eq!(
            line(&LoadEvent::Loaded(name.clone())),
            "Loaded image: img:v2"
        );
        assert_eq!(
            line(&LoadEvent::LoadedId(id)),
            format!("Loaded image ID: {id}")
        );
        assert_eq!(
            line(&LoadEvent::Renamed { name, old: id }),
            format!(
                "The image img:v2 already exists, renaming the old one with ID {id} to empty string"
            )
        );
    }

    #[test]
    fn a_missing_archive_is_dockers_error() {
        let Err(Failure::Plain { text, code: 1 }) = source("/nosuch.tar") else {
            panic!("no error")
        };
        assert_eq!(text, "open /nosuch.tar: no such file or directory");
        assert!(matches!(source("/"), Ok(Source::Dir(_))));
    }
}
