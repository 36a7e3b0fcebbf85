//! Reading docker's json-file: the last lines, a span of time, and what comes next.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::options::LogOptions;

use super::write::rotated;
use super::{LogLine, LogStream};

/// How long a follower sleeps at most before it looks whether the container has ended.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Block size of the search for the last lines.
const BLOCK_BYTES: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Stored {
    log: String,
    #[serde(default)]
    stream: String,
    time: String,
}

/// Gives the lines `options` asks for. `ended` tells a follower that the container has ended: it is asked before the
/// last look at the file, so that nothing is missed.
pub(crate) fn read(
    path: &Path,
    options: &LogOptions,
    mut ended: impl FnMut() -> Result<bool>,
    sink: &mut dyn FnMut(&LogLine) -> io::Result<()>,
) -> Result<()> {
    let watch = options.follow.then(|| Watch::new(path)).transpose()?;
    let mut reader = Reader {
        options,
        sink,
        over: false,
    };
    let mut current = None;
    for (file, from) in starting_points(path, options.tail)? {
        let mut open = Open::new(file, from)?;
        open.drain(&mut reader)?;
        current = Some(open);
    }
    let Some(watch) = watch else { return Ok(()) };
    while !reader.over {
        let last = ended()?;
        follow_step(path, &mut current, &mut reader)?;
        if last {
            return Ok(());
        }
        watch.wait(FOLLOW_INTERVAL)?;
    }
    Ok(())
}

/// Reads what was added since, going over to a new file after a rotation.
fn follow_step(path: &Path, current: &mut Option<Open>, reader: &mut Reader<'_, '_>) -> Result<()> {
    if let Some(open) = current {
        open.drain(reader)?;
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let new = file.metadata().map_err(Error::io("stat", path))?;
    let moved = match current {
        Some(open) => open.inode != new.ino() || new.len() < open.position,
        None => true,
    };
    if moved {
        let mut open = Open::new(file, 0)?;
        open.drain(reader)?;
        *current = Some(open);
    }
    Ok(())
}

struct Reader<'a, 'o> {
    options: &'o LogOptions,
    sink: &'a mut dyn FnMut(&LogLine) -> io::Result<()>,
    /// A line after `until` was met.
    over: bool,
}

impl Reader<'_, '_> {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        // A record torn by a crash is skipped: the rest of the log is still worth reading.
        let Ok(stored) = serde_json::from_slice::<Stored>(line) else {
            return Ok(());
        };
        let time = || stored.time.parse::<jiff::Timestamp>().ok();
        if let Some(since) = self.options.since
            && time().is_some_and(|time| time < since)
        {
            return Ok(());
        }
        if let Some(until) = self.options.until
            && time().is_some_and(|time| time > until)
        {
            self.over = true;
            return Ok(());
        }
        let stream = if stored.stream == "stderr" {
            LogStream::Stderr
        } else {
            LogStream::Stdout
        };
        (self.sink)(&LogLine {
            stream,
            time: stored.time,
            text: stored.log,
        })
        .map_err(Error::system("write log line"))
    }
}

/// A log file and how far it has been read: always to the end of a whole line.
struct Open {
    file: BufReader<File>,
    inode: u64,
    position: u64,
}

impl Open {
    fn new(file: File, from: u64) -> Result<Self> {
        let inode = file.metadata().map_err(Error::system("stat log"))?.ino();
        let mut file = BufReader::new(file);
        file.seek(SeekFrom::Start(from))
            .map_err(Error::system("seek log"))?;
        Ok(Self {
            file,
            inode,
            position: from,
        })
    }

    /// Gives all whole lines that are there by now.
    fn drain(&mut self, reader: &mut Reader<'_, '_>) -> Result<()> {
        let mut line = Vec::new();
        while !reader.over {
            line.clear();
            let length = self
                .file
                .read_until(b'\n', &mut line)
                .map_err(Error::system("read log"))?;
            if line.last() != Some(&b'\n') {
                // The writer is in the middle of it: come back to its beginning.
                self.file
                    .seek(SeekFrom::Start(self.position))
                    .map_err(Error::system("seek log"))?;
                return Ok(());
            }
            self.position += length as u64;
            reader.line(&line)?;
        }
        Ok(())
    }
}

/// Returns the files to read, oldest first, and where to start in each.
fn starting_points(path: &Path, tail: Option<u64>) -> Result<Vec<(File, u64)>> {
    let mut files = VecDeque::new();
    let mut missing = tail;
    for candidate in youngest_first(path) {
        let file = match File::open(&candidate) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && candidate == path => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(Error::io("open", &candidate)(error)),
        };
        let from = match &mut missing {
            None => 0,
            Some(lines) => {
                let (from, found) =
                    last_lines(&file, *lines).map_err(Error::io("read", &candidate))?;
                *lines -= found;
                from
            }
        };
        files.push_front((file, from));
        // Also with nothing missing any more the youngest file is kept: a follower goes on from its end.
        if missing == Some(0) {
            break;
        }
    }
    Ok(files.into())
}

fn youngest_first(path: &Path) -> impl Iterator<Item = PathBuf> {
    std::iter::once(path.to_path_buf()).chain((1..).map(|number| rotated(path, number)))
}

/// Returns where the last `lines` lines of a file begin, and how many there are.
fn last_lines(file: &File, lines: u64) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::FileExt;
    let end = file.metadata()?.len();
    let (mut upper, mut found) = (end, 0);
    let mut block = Vec::new();
    while upper > 0 {
        let lower = upper.saturating_sub(BLOCK_BYTES);
        block.resize(usize::try_from(upper - lower).unwrap_or_default(), 0);
        file.read_exact_at(&mut block, lower)?;
        for (at, _) in block
            .iter()
            .enumerate()
            .rev()
            .filter(|&(_, &byte)| byte == b'\n')
        {
            // Each newline ends a line; the line after the one that makes `lines` full begins behind it.
            if found == lines {
                return Ok((lower + at as u64 + 1, found));
            }
            found += 1;
        }
        upper = lower;
    }
    Ok((0, found))
}

/// Wakes a follower when something is written.
struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    fn new(path: &Path) -> Result<Self> {
        let system = |errno: rustix::io::Errno| Error::io("watch", path)(errno.into());
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).map_err(system)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        // The directory sees every write to the log, its rotation and the state file's replacement.
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        match inotify::add_watch(&inotify, directory, events) {
            // Out of watches (a limit per user): the interval alone keeps the follower going.
            Ok(_) | Err(rustix::io::Errno::NOSPC) => Ok(Self { inotify }),
            Err(errno) => Err(system(errno)),
        }
    }

    fn wait(&self, patience: Duration) -> Result<()> {
        let timeout = rustix::event::Timespec::try_from(patience).ok();
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::system("poll")(errno.into())),
        }
        // What happened does not matter, only that something did.
        let mut events = [0_u8; 4096];
        while rustix::io::read(&self.inotify, &mut events).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::write::{JsonLog, Rotation};

    fn write(path: &Path, lines: std::ops::Range<u32>, rotation: Rotation) {
        let mut log = JsonLog::open(path, rotation).unwrap();
        for line in lines {
            let time = format!("2026-11-21T02:33:{:02}Z", line % 60);
            log.push(LogStream::Stdout, format!("{line}\n").as_bytes(), &time)
                .unwrap();
        }
        log.flush().unwrap();
    }

    fn collect(path: &Path, options: &LogOptions) -> Vec<String> {
        let mut lines = Vec::new();
        let mut sink = |line: &LogLine| {
            lines.push(line.text.trim_end().to_owned());
            Ok(())
        };
        read(path, options, || Ok(true), &mut sink).unwrap();
        lines
    }

    #[test]
    fn tail_since_and_until() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        write(
            &path,
            0..10,
            Rotation {
                max_size_bytes: None,
                max_files: 1,
            },
        );
        let at = |second: u32| Some(format!("2026-11-21T02:33:{second:02}Z").parse().unwrap());
        let none = LogOptions::default();
        for (options, want) in [
            (
                LogOptions {
                    tail: Some(0),
                    ..none.clone()
                },
                vec![],
            ),
            (
                LogOptions {
                    tail: Some(2),
                    ..none.clone()
                },
                vec!["8", "9"],
            ),
            (
                LogOptions {
                    tail: Some(100),
                    since: at(8),
                    ..none.clone()
                },
                vec!["8", "9"],
            ),
            (
                LogOptions {
                    until: at(1),
                    ..none.clone()
                },
                vec!["0", "1"],
            ),
            (
                LogOptions {
                    since: at(3),
                    until: at(3),
                    ..none.clone()
                },
                vec!["3"],
            ),
        ] {
            assert_eq!(collect(&path, &options), want, "{options:?}");
        }
        assert_eq!(collect(&path, &none).len(), 10);
    }

    #[test]
    fn tail_reaches_into_rotated_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        write(
            &path,
            0..30,
            Rotation {
                max_size_bytes: Some(500),
                max_files: 4,
            },
        );
        assert!(rotated(&path, 1).exists());
        let options = LogOptions {
            tail: Some(15),
            ..LogOptions::default()
        };
        let want: Vec<_> = (15..30).map(|n| n.to_string()).collect();
        assert_eq!(collect(&path, &options), want);
    }

    #[test]
    fn a_follower_gets_what_is_added_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let plain = Rotation {
            max_size_bytes: None,
            max_files: 1,
        };
        write(&path, 0..3, plain);
        let mut lines = Vec::new();
        let mut rounds = 0;
        let mut sink = |line: &LogLine| {
            lines.push(line.text.trim_end().to_owned());
            Ok(())
        };
        let options = LogOptions {
            tail: Some(1),
            follow: true,
            ..LogOptions::default()
        };
        let ended = || {
            rounds += 1;
            write(&path, rounds * 10..rounds * 10 + 1, plain);
            Ok(rounds == 2)
        };
        read(&path, &options, ended, &mut sink).unwrap();
        assert_eq!(lines, ["2", "10", "20"]);
    }
}
