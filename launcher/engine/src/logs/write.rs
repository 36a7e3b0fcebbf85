//! Writing docker's json-file: one JSON object per line of output.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{open_append, tolerate_missing};
use crate::host_config::LogConfig;

use super::LogStream;

/// Longest piece of a line that becomes one record: docker's copier has a buffer of this size.
pub(crate) const PIECE_BYTES: usize = 16 * 1024;
/// Mode of the file, as docker's.
const MODE: u32 = 0o640;

/// When the file is set aside and how many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Bytes after which a file is full; `None` never.
    pub(crate) max_size_bytes: Option<u64>,
    /// Files kept, the current one included; at least 1.
    pub(crate) max_files: u32,
}

/// Checks a container's log driver and its options; `None` when nothing is kept.
///
/// # Errors
/// Docker's texts for an unknown driver, an unknown option or a bad value.
pub(crate) fn rotation(config: &LogConfig) -> Result<Option<Rotation>> {
    let invalid = |text: String| Err(Error::Invalid(text));
    match config.kind.as_str() {
        "none" => return Ok(None),
        "json-file" | "" => {}
        other => {
            return invalid(format!(
                "error looking up logging plugin {other}: plugin \"{other}\" not found"
            ));
        }
    }
    let mut rotation = Rotation {
        max_size_bytes: None,
        max_files: 1,
    };
    for (key, value) in &config.config {
        match key.as_str() {
            "max-size" => {
                match parse_size(value) {
                    Some(0) => return invalid(
                        "failed to initialize logging driver: max-size must be a positive number"
                            .into(),
                    ),
                    Some(size) => rotation.max_size_bytes = Some(size),
                    None => {
                        return invalid(format!(
                            "failed to initialize logging driver: invalid size: '{value}'"
                        ));
                    }
                }
            }
            "max-file" => match value.parse::<u32>() {
                Ok(0) => {
                    return invalid(
                        "failed to initialize logging driver: max-file cannot be less than 1"
                            .into(),
                    );
                }
                Ok(count) => rotation.max_files = count,
                Err(_) => {
                    return invalid(format!(
                        "failed to initialize logging driver: strconv.Atoi: parsing \"{value}\": invalid syntax"
                    ));
                }
            },
            other => {
                return invalid(format!(
                    "unknown log opt '{other}' for json-file log driver"
                ));
            }
        }
    }
    Ok(Some(rotation))
}

/// Parses `10m`, `1.5g`, `100k`, `4096`, `10mb` as binary units, as docker does for sizes in memory.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at_checked(digits)?;
    let unit = unit.trim().trim_end_matches('b').trim_end_matches('i');
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let bytes = number * f64::from(1_u32 << 10).powi(shift / 10);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie between 0 and 2^60, which u64 holds"
    )]
    (0.0..1.15e18).contains(&bytes).then_some(bytes as u64)
}

/// The log file of a running container.
#[derive(Debug)]
pub(crate) struct JsonLog {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    rotation: Rotation,
    /// Records waiting to be written: one write per batch of lines.
    batch: Vec<u8>,
}

impl JsonLog {
    /// Opens the log, going on after what earlier runs wrote.
    pub(crate) fn open(path: &Path, rotation: Rotation) -> Result<Self> {
        let file = open_append(path, MODE)?;
        let size_bytes = file.metadata().map_err(Error::io("stat", path))?.len();
        let mut log = Self {
            path: path.to_path_buf(),
            file,
            size_bytes,
            rotation,
            batch: Vec::new(),
        };
        if log.ends_torn()? {
            // A monitor was killed while it wrote: end its half record, so that ours stands on a line of its own.
            log.batch.push(b'\n');
        }
        Ok(log)
    }

    fn ends_torn(&self) -> Result<bool> {
        use std::os::unix::fs::FileExt;
        let Some(last) = self.size_bytes.checked_sub(1) else {
            return Ok(false);
        };
        let mut byte = [0_u8];
        self.file
            .read_exact_at(&mut byte, last)
            .map_err(Error::io("read", &self.path))?;
        Ok(byte != *b"\n")
    }

    /// Adds one record to the batch; a full file is rotated.
    pub(crate) fn push(&mut self, stream: LogStream, piece: &[u8], time: &str) -> Result<()> {
        write_record(&mut self.batch, stream, piece, time);
        match self.rotation.max_size_bytes {
            Some(limit) if self.size_bytes + self.batch.len() as u64 >= limit => {
                self.flush()?;
                self.rotate()
            }
            _ => Ok(()),
        }
    }

    /// Writes the batch.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let result = self
            .file
            .write_all(&batch)
            .map_err(Error::io("write", &self.path));
        self.size_bytes += batch.len() as u64;
        self.batch = batch;
        self.batch.clear();
        result
    }

    fn rotate(&mut self) -> Result<()> {
        if self.rotation.max_files < 2 {
            self.file
                .set_len(0)
                .map_err(Error::io("truncate", &self.path))?;
        } else {
            for number in (1..self.rotation.max_files - 1).rev() {
                let (from, to) = (rotated(&self.path, number), rotated(&self.path, number + 1));
                tolerate_missing(fs::rename(&from, &to)).map_err(Error::io("rotate", &from))?;
            }
            fs::rename(&self.path, rotated(&self.path, 1))
                .map_err(Error::io("rotate", &self.path))?;
            self.file = open_append(&self.path, MODE)?;
        }
        self.size_bytes = 0;
        Ok(())
    }
}

/// Returns the name of the `number`th file set aside, 1 the youngest.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Writes one record as docker's encoder does: keys log, stream, time.
fn write_record(out: &mut Vec<u8>, stream: LogStream, piece: &[u8], time: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, piece);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Escapes as Go's encoder does: `<>&` and control characters as \u00XX except \n and \r, one \ufffd per bad byte.
fn escape(out: &mut Vec<u8>, piece: &[u8]) {
    for chunk in piece.utf8_chunks() {
        escape_valid(out, chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Escapes valid UTF-8; what needs no escape is copied in runs.
fn escape_valid(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = text.iter().position(|&byte| needs_escape(byte)) {
        let (plain, rest) = text.split_at(at);
        out.extend_from_slice(plain);
        // U+2028 and U+2029 end lines in JavaScript: Go escapes them too. They begin with the byte e2.
        let taken = match rest {
            [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
                out.extend_from_slice(if *last == 0xa8 {
                    b"\\u2028"
                } else {
                    b"\\u2029"
                });
                3
            }
            [byte, ..] => {
                escape_byte(out, *byte);
                1
            }
            [] => return,
        };
        text = rest.get(taken..).unwrap_or_default();
    }
    out.extend_from_slice(text);
}

fn needs_escape(byte: u8) -> bool {
    matches!(byte, 0..=0x1f | b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)
}

fn escape_byte(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        0xe2 => out.push(byte),
        _ => {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(b"\\u00");
            out.extend([digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Cuts a stream into lines, and lines over [`PIECE_BYTES`] into pieces.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// Feeds bytes; gives each finished line (newline included) and each full piece.
    pub(crate) fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let room = PIECE_BYTES - self.rest.len();
            let window = bytes.get(..room).unwrap_or(bytes);
            let line = window
                .iter()
                .position(|&byte| byte == b'\n')
                .map(|at| at + 1);
            let taken = line.unwrap_or(window.len());
            let (now, later) = bytes.split_at(taken);
            bytes = later;
            if line.is_some() && self.rest.is_empty() {
                each(now)?;
                continue;
            }
            self.rest.extend_from_slice(now);
            if line.is_some() || self.rest.len() == PIECE_BYTES {
                let piece = std::mem::take(&mut self.rest);
                each(&piece)?;
                self.rest = piece;
                self.rest.clear();
            }
        }
        Ok(())
    }

    /// Gives what is left at the end of the stream.
    pub(crate) fn finish<E>(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Ok(()) } else { each(&rest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    fn pieces(feeds: &[&[u8]]) -> Vec<usize> {
        let mut splitter = Splitter::default();
        let mut lengths = Vec::new();
        for feed in feeds {
            let each = |piece: &[u8]| -> Result<(), Infallible> {
                lengths.push(piece.len());
                Ok(())
            };
            splitter.feed(feed, each).unwrap();
        }
        splitter
            .finish(|piece| -> Result<(), Infallible> {
                lengths.push(piece.len());
                Ok(())
            })
            .unwrap();
        lengths
    }

    #[test]
    fn long_lines_are_cut_at_16_kib() {
        let mut line = vec![b'x'; 40_000];
        line.push(b'\n');
        assert_eq!(pieces(&[&line, b"last\n"]), [16384, 16384, 7233, 5]);
        assert_eq!(pieces(&[b"a", b"b\nc\nd", b""]), [3, 2, 1]);
        assert_eq!(pieces(&[&vec![b'x'; 16384], b"\n"]), [16384, 1]);
    }

    #[test]
    fn records_are_dockers_bytes() {
        let mut out = Vec::new();
        let piece = b"quote \" back \\ tab \t <&> \xc3\xa9 \xff\xfe nul \0 bell \x07\n";
        write_record(
            &mut out,
            LogStream::Stdout,
            piece,
            "2026-11-21T02:33:37.59308183Z",
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"log\":\"quote \\\" back \\\\ tab \\u0009 \\u003c\\u0026\\u003e é \\ufffd\\ufffd nul \\u0000 bell \
             \\u0007\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T02:33:37.59308183Z\"}\n"
        );
    }

    #[test]
    fn line_separators_are_escaped_and_their_neighbours_are_not() {
        let mut out = Vec::new();
        escape(&mut out, "a\u{2028}b\u{2029}\u{2026}\u{e9}\x1f".as_bytes());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a\\u2028b\\u2029\u{2026}\u{e9}\\u001f"
        );
    }

    #[test]
    fn driver_options_are_checked_with_dockers_words() {
        let config = |kind: &str, key: &str, value: &str| LogConfig {
            kind: kind.into(),
            config: if key.is_empty() {
                BTreeMap::new()
            } else {
                BTreeMap::from([(key.into(), value.into())])
            },
        };
        for (given, want) in [
            (
                config("frob", "", ""),
                "error looking up logging plugin frob: plugin \"frob\" not found",
            ),
            (
                config("json-file", "frob", "1"),
                "unknown log opt 'frob' for json-file log driver",
            ),
            (
                config("json-file", "max-size", "abc"),
                "failed to initialize logging driver: invalid size: 'abc'",
            ),
        ] {
            assert_eq!(rotation(&given).unwrap_err().to_string(), want);
        }
        let rotation = rotation(&config("json-file", "max-size", "1k"))
            .unwrap()
            .unwrap();
        assert_eq!(
            rotation,
            Rotation {
                max_size_bytes: Some(1024),
                max_files: 1
            }
        );
        assert_eq!(parse_size("1.5m"), Some(1_572_864));
    }

    #[test]
    fn a_torn_record_is_closed_and_files_rotate() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        fs::write(&path, "{\"log\":\"half").unwrap();
        let mut log = JsonLog::open(
            &path,
            Rotation {
                max_size_bytes: Some(200),
                max_files: 3,
            },
        )
        .unwrap();
        for _ in 0..9 {
            log.push(LogStream::Stderr, b"0123456789\n", "2026-11-21T02:33:37Z")
                .unwrap();
        }
        log.flush().unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        assert!(text(&rotated(&path, 2)).len() >= 200 && text(&rotated(&path, 1)).len() >= 200);
        assert!(!rotated(&path, 3).exists());
        assert!(
            text(&path)
                .lines()
                .all(|line| line.starts_with("{\"log\":\"0123456789"))
        );
    }
}
