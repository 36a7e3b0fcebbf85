//! Where an archive goes: a file that appears only when it is whole, or standard output, but no terminal.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::output::{Watched, complain, go_io_error};

/// Buffer towards the file or pipe, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// An open destination. Dropped before [`Destination::finish`], a file leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Destination {
    kind: Kind,
    bar: ProgressBar,
}

#[derive(Debug)]
enum Kind {
    File {
        out: BufWriter<File>,
        aside: PathBuf,
        path: PathBuf,
        done: bool,
    },
    /// An existing device or pipe, written in place.
    Special(BufWriter<File>),
    Stdout(BufWriter<Watched<Stdout>>),
}

impl Destination {
    /// Opens `-o PATH`, or standard output for `None`; `verb` and the thing it is done to are named in refusals.
    pub(crate) fn open(path: Option<&str>, verb: &str, thing: &str) -> Result<Self, Failure> {
        let refused = |text: &str| Failure::plain(format!("failed to {verb} {thing}: {text}"));
        let kind = match path {
            None => {
                let stdout = io::stdout();
                if stdout.is_terminal() {
                    let text = format!(
                        "cowardly refusing to {verb} to a terminal. Use the -o flag or redirect"
                    );
                    return Err(Failure::plain(text));
                }
                Kind::Stdout(BufWriter::with_capacity(BUFFER_BYTES, Watched(stdout)))
            }
            Some(path) => {
                check(Path::new(path)).map_err(|text| refused(&text))?;
                file(path)
                    .map_err(|error| refused(&format!("open {path}: {}", go_io_error(&error))))?
            }
        };
        Ok(Destination {
            kind,
            bar: bar(verb),
        })
    }

    /// Writes what is buffered and gives the file its name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        self.writer().flush()?;
        if let Kind::File {
            aside, path, done, ..
        } = &mut self.kind
        {
            std::fs::rename(&*aside, &*path)?;
            *done = true;
        }
        Ok(())
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.kind {
            Kind::File { out, .. } | Kind::Special(out) => out,
            Kind::Stdout(out) => out,
        }
    }
}

/// Refuses a place for the archive in docker's words, before any work is done.
fn check(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err("cannot write to a directory".to_owned());
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    match std::fs::metadata(directory) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "invalid output path: stat {}: {}",
            directory.display(),
            go_io_error(&error)
        )),
    }
}

fn file(path: &str) -> io::Result<Kind> {
    let path = PathBuf::from(path);
    if path.metadata().is_ok_and(|meta| !meta.is_file()) {
        let out = OpenOptions::new().write(true).open(&path)?;
        return Ok(Kind::Special(BufWriter::with_capacity(BUFFER_BYTES, out)));
    }
    // A link keeps pointing where it points: its target is replaced.
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let aside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&aside)?;
    out.set_permissions(Permissions::from_mode(0o600))?;
    Ok(Kind::File {
        out: BufWriter::with_capacity(BUFFER_BYTES, out),
        aside,
        path,
        done: false,
    })
}

/// Bytes written so far, when standard error is a terminal.
fn bar(verb: &str) -> ProgressBar {
    let bar = if io::stderr().is_terminal() {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{spinner} {msg} {bytes} ({bytes_per_sec})");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.with_message(verb.to_owned())
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer().write(bytes)?;
        self.bar.inc(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Kind::File {
            aside, done: false, ..
        } = &self.kind
            && let Err(error) = std::fs::remove_file(aside)
            && error.kind() != io::ErrorKind::NotFound
        {
            complain(&format!("remove {}: {error}", aside.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_cannot_be_written() {
        let text = |path| match Destination::open(Some(path), "save", "image") {
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
        assert!(check(Path::new("/dev/null")).is_ok() && check(Path::new("x.tar")).is_ok());
    }
}
