//! Where an archive goes: a file that appears only when it is whole, or standard output, but no terminal.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mille_store::{Phase, Progress, STRIDE, Silent, Step};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::output::{Watched, complain, go_io_error};

/// Buffer towards the file or pipe, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Destination")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An open destination. Dropped before [`Destination::finish`], a file leaves nothing behind.
pub(crate) struct Destination {
    kind: Kind,
    /// As the caller gave it.
    name: String,
    progress: Arc<dyn Progress>,
    /// Bytes written so far, and how many of them have been reported.
    done: u64,
    reported: u64,
    /// What the first failed write said.
    failed: Option<String>,
}

#[derive(Debug)]
enum Kind {
    File {
        out: BufWriter<File>,
        /// Opened with the file: the mount namespace may be another one at the end, where the two were strangers.
        directory: OwnedFd,
        /// The name it has meanwhile; none where the file system has files without one, which go with their writer.
        aside: Option<OsString>,
        name: OsString,
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
            name: path.unwrap_or("/dev/stdout").to_owned(),
            progress: Arc::new(Silent),
            done: 0,
            reported: 0,
            failed: None,
        })
    }

    /// Counts what is written, for an archive of which nobody knows how long it will be.
    pub(crate) fn counted(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self.report();
        self
    }

    fn report(&mut self) {
        self.reported = self.done;
        let name = self.name.rsplit('/').next().unwrap_or_default();
        self.progress.step(Step {
            phase: Phase::Write,
            item: name,
            done: self.done,
            total: None,
        });
    }

    /// Writes what is buffered and gives the file its name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush()?;
        if let Kind::File {
            out,
            directory,
            aside,
            name,
        } = &mut self.kind
        {
            if aside.is_none() {
                if link(out.get_ref(), directory, name)? {
                    return Ok(());
                }
                // Something has the name already: only a rename replaces it.
                let other = beside(name);
                link(out.get_ref(), directory, &other)?;
                *aside = Some(other);
            }
            let aside = aside.as_deref().unwrap_or_default();
            rustix::fs::renameat(&*directory, aside, &*directory, &*name)
                .map_err(io::Error::from)?;
        }
        Ok(())
    }

    /// Takes a failure of whoever wrote here: where it was this destination that could not be written, only that is
    /// said.
    pub(crate) fn blame(&self, failure: Failure) -> Failure {
        match &self.failed {
            Some(text) => Failure::plain(text),
            None => failure,
        }
    }

    /// Says what could not be written.
    fn named(&mut self, error: &io::Error) -> io::Error {
        let text = format!("write {}: {}", self.name, go_io_error(error));
        self.failed.get_or_insert_with(|| text.clone());
        io::Error::new(error.kind(), text)
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
    let directory = directory(path);
    match std::fs::metadata(directory) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "invalid output path: stat {}: {}",
            directory.display(),
            go_io_error(&error)
        )),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn file(path: &str) -> io::Result<Kind> {
    let path = PathBuf::from(path);
    if path.metadata().is_ok_and(|meta| !meta.is_file()) {
        let out = OpenOptions::new().write(true).open(&path)?;
        return Ok(Kind::Special(BufWriter::with_capacity(BUFFER_BYTES, out)));
    }
    // A link keeps pointing where it points: its target is replaced.
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_owned();
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory(&path), flags, Mode::empty())?;
    let (flags, mode) = (OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let (out, aside) = match rustix::fs::openat(&directory, ".", flags | OFlags::TMPFILE, mode) {
        Ok(out) => (out, None),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let aside = beside(&name);
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            let out = rustix::fs::openat(&directory, &aside, flags, mode)?;
            (out, Some(aside))
        }
        Err(errno) => return Err(errno.into()),
    };
    Ok(Kind::File {
        out: BufWriter::with_capacity(BUFFER_BYTES, File::from(out)),
        directory,
        aside,
        name,
    })
}

/// The name of a file that is not whole yet.
fn beside(name: &OsStr) -> OsString {
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}", std::process::id()));
    beside
}

/// Gives a file without a name one; returns whether it was free.
fn link(file: &File, directory: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, open, directory, name, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer().write(bytes);
        let written = written.map_err(|error| self.named(&error))?;
        self.done += written as u64;
        if self.done - self.reported >= STRIDE {
            self.report();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.writer().flush();
        flushed.map_err(|error| self.named(&error))
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Kind::File {
            aside: Some(aside),
            directory,
            ..
        } = &self.kind
            && let Err(errno) = rustix::fs::unlinkat(directory, aside, AtFlags::empty())
            && errno != Errno::NOENT
        {
            complain(&format!("remove {}: {errno}", aside.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory =
            std::env::temp_dir().join(format!("mille-destination-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("out.tar");
        let names = || std::fs::read_dir(&directory).unwrap().count();
        let open = || Destination::open(path.to_str(), "save", "image").unwrap();
        let mut given_up = open();
        given_up.write_all(b"half").unwrap();
        given_up.flush().unwrap();
        assert_eq!(names(), 0, "something is seen before it is whole");
        drop(given_up);
        assert_eq!(names(), 0);
        for content in ["first", "second"] {
            let mut whole = open();
            whole.write_all(content.as_bytes()).unwrap();
            whole.finish().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(), 1);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

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
