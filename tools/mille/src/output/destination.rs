//! Where an archive goes: a file that appears only when it is whole, or standard output, but no terminal.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::output::go_io_error;

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
    Stdout(BufWriter<Stdout>),
}

impl Destination {
    /// Opens `-o PATH`, or standard output for `None`; `verb` is named in the refusal of a terminal.
    pub(crate) fn open(path: Option<&str>, verb: &str) -> Result<Self, Failure> {
        let kind = match path {
            None => {
                let stdout = io::stdout();
                if stdout.is_terminal() {
                    let text = format!(
                        "cowardly refusing to {verb} to a terminal. Use the -o flag or redirect"
                    );
                    return Err(Failure::plain(text));
                }
                Kind::Stdout(BufWriter::with_capacity(BUFFER_BYTES, stdout))
            }
            Some(path) => file(path).map_err(|error| {
                Failure::plain(format!(
                    "failed to {verb}: open {path}: {}",
                    go_io_error(&error)
                ))
            })?,
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

fn file(path: &str) -> io::Result<Kind> {
    let path = PathBuf::from(path);
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
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
            eprintln!("remove {}: {error}", aside.display());
        }
    }
}
