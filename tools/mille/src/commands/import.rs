//! `mille import`: makes an image of a root file system.

use std::fs::File;
use std::io::Seek;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_store::{ImportOptions, Reference};

use super::{Arity, Verb};
use crate::arguments::{self, list, value};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::platform;

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "import",
    usage: "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    about: "Import the contents from a tarball to create a filesystem image",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command
        .arg(list(
            "change",
            Some('c'),
            "Apply Dockerfile instruction to the created image",
        ))
        .arg(value(
            "message",
            Some('m'),
            "string",
            "Set commit message for imported image",
        ))
        .arg(value(
            "platform",
            None,
            "string",
            "Set platform of the image: os[/arch[/variant]]",
        ))
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = arguments::words(matches);
    let (source, name) = match words.as_slice() {
        [source] => (source, None),
        [source, name] => (source, Some(reference(name)?)),
        _ => {
            return Err(Failure::Arity {
                verb: &VERB,
                text: "requires at most 2 arguments".to_owned(),
            });
        }
    };
    let (tar, bytes) = open(source)?;
    let options = ImportOptions {
        changes: arguments::texts(matches, "change"),
        message: arguments::text(matches, "message").map(str::to_owned),
        platform: arguments::text(matches, "platform")
            .map(|text| platform::read(text).map_err(Failure::plain))
            .transpose()?,
        created: None,
        name,
        bytes,
    };
    let engine = context.layers()?;
    let store = engine
        .store()
        .with_progress(output::progress::reporter(false));
    let id = store.import(tar, &options)?;
    engine.note_image("import", &id, &id.to_string());
    drop(store);
    output::emit(&format!("{id}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn reference(text: &str) -> Result<Reference, Failure> {
    let name = Reference::parse(text).map_err(Failure::plain)?;
    if name.digest().is_some() {
        return Err(Failure::Daemon("cannot import digest reference".to_owned()));
    }
    Ok(name.or_latest())
}

/// Opens what is to be imported; returns also how many bytes it has, if that is known.
fn open(source: &str) -> Result<(File, Option<u64>), Failure> {
    if source == "-" {
        let mut file = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let read = file.stream_position().unwrap_or(0);
        let bytes = length(&file).map(|all| all.saturating_sub(read));
        return Ok((file, bytes));
    }
    if source.starts_with("http://") || source.starts_with("https://") {
        let text = format!(
            "import of a URL is not supported; fetch it and pipe it in: curl -fL '{source}' | mille import -"
        );
        return Err(Failure::plain(text));
    }
    let file = open_file(Path::new(source))?;
    let bytes = length(&file);
    Ok((file, bytes))
}

/// Pipes and devices do not say how much will come.
fn length(file: &File) -> Option<u64> {
    let meta = file.metadata().ok()?;
    meta.is_file().then_some(meta.len())
}

/// Opens a file for reading; errors in docker's words.
pub(super) fn open_file(path: &Path) -> Result<File, Failure> {
    let failed = |operation: &str, error: &std::io::Error| {
        Failure::plain(format!(
            "{operation} {}: {}",
            path.display(),
            output::go_io_error(error)
        ))
    };
    let file = File::open(path).map_err(|error| failed("open", &error))?;
    if file
        .metadata()
        .map_err(|error| failed("stat", &error))?
        .is_dir()
    {
        return Err(failed("read", &rustix::io::Errno::ISDIR.into()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        match result {
            Err(Failure::Plain { text, .. }) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn sources_that_cannot_be_read() {
        assert_eq!(
            text(open("/nosuch.tar").map(|_| ())),
            "open /nosuch.tar: no such file or directory"
        );
        assert_eq!(text(open("/").map(|_| ())), "read /: is a directory");
        assert!(
            text(open("https://example.com/x.tar").map(|_| ()))
                .contains("curl -fL 'https://example.com/x.tar' | mille import -")
        );
        assert_eq!(text(reference("bb:ba d")), "invalid reference format");
    }
}
