//! What happens to containers, images and volumes, as one line each in a file of the run-time directory.
//!
//! There is no daemon to ask: whoever does something appends a line, monitors included, and `events` reads the file. Two
//! files of [`LIMIT_BYTES`] are kept; after a reboot there is nothing. An event that cannot be written is lost: it must
//! not keep anything from its work.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::files;
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::records::Record;

/// A file this large becomes the old one.
const LIMIT_BYTES: u64 = 1 << 20;
/// Between two looks at the file.
const INTERVAL: Duration = Duration::from_millis(100);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    #[serde(with = "moments")]
    pub time: Timestamp,
    /// `container`, `image` or `volume`.
    pub kind: String,
    /// `start`, `die`, `exec_create: sh`, …
    pub action: String,
    /// Full id.
    pub id: String,
    /// Name, image, labels, and what belongs to the action.
    pub attributes: BTreeMap<String, String>,
}

/// Which events are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventOptions {
    /// From this moment on; without it and `until`, from now on.
    pub since: Option<Timestamp>,
    /// Up to this moment, waiting for it where it lies ahead; without it, without end.
    pub until: Option<Timestamp>,
}

/// What events of one container have in common.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    id: String,
    attributes: BTreeMap<String, String>,
}

impl Subject {
    fn new(
        id: &ContainerId,
        image: &str,
        name: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Self {
        let mut attributes = labels.cloned().unwrap_or_default();
        attributes.insert("image".to_owned(), image.to_owned());
        attributes.insert("name".to_owned(), name.to_owned());
        Self {
            id: id.to_string(),
            attributes,
        }
    }

    /// Notes an event of this container.
    pub(crate) fn note(&self, layout: &Layout, action: &str, more: &[(&str, String)]) {
        let mut attributes = self.attributes.clone();
        for (name, value) in more {
            attributes.insert((*name).to_owned(), value.clone());
        }
        note(layout, "container", action, self.id.clone(), attributes);
    }
}

impl From<&Container> for Subject {
    fn from(container: &Container) -> Self {
        Self::new(
            &container.id,
            &container.image_name,
            &container.name,
            container.config.labels.as_ref(),
        )
    }
}

impl From<&Record> for Subject {
    fn from(record: &Record) -> Self {
        Self::new(
            &record.id,
            &record.image_name,
            &record.name,
            record.config.labels.as_ref(),
        )
    }
}

/// Notes that what was not needed of a kind has been removed.
pub(crate) fn note_prune(layout: &Layout, kind: &str, bytes: u64) {
    let attributes = BTreeMap::from([("reclaimed".to_owned(), bytes.to_string())]);
    note(layout, kind, "prune", String::new(), attributes);
}

/// Notes what happens to a volume: `create`, `mount`, `unmount`, `destroy`.
pub(crate) fn note_volume(layout: &Layout, action: &str, name: &str, more: &[(&str, String)]) {
    let mut attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
    for (key, value) in more {
        attributes.insert((*key).to_owned(), value.clone());
    }
    note(layout, "volume", action, name.to_owned(), attributes);
}

/// Notes an event.
pub(crate) fn note(
    layout: &Layout,
    kind: &str,
    action: &str,
    id: String,
    attributes: BTreeMap<String, String>,
) {
    let event = Event {
        time: Timestamp::now(),
        kind: kind.to_owned(),
        action: action.to_owned(),
        id,
        attributes,
    };
    if let Err(error) = append(layout, &event) {
        log::debug!("event {}: {error}", event.action);
    }
}

fn append(layout: &Layout, event: &Event) -> Result<()> {
    let path = layout.events();
    let mut line = serde_json::to_vec(event).map_err(|source| Error::Record {
        path: path.clone(),
        source,
    })?;
    line.push(b'\n');
    let mut file = files::open_append(&path, 0o600)?;
    // One write: lines of several processes do not mix.
    file.write_all(&line).map_err(Error::io("write", &path))?;
    let size = file.metadata().map_err(Error::io("stat", &path))?.len();
    if size >= LIMIT_BYTES {
        rotate(layout)?;
    }
    Ok(())
}

fn rotate(layout: &Layout) -> Result<()> {
    let (path, old) = (layout.events(), layout.old_events());
    let Some(_lock) = Lock::try_take(&layout.events_lock())? else {
        return Ok(());
    };
    // Somebody may have done it since.
    let size = fs::metadata(&path).map_err(Error::io("stat", &path))?.len();
    if size >= LIMIT_BYTES {
        fs::rename(&path, &old).map_err(Error::io("rename into place", &old))?;
    }
    Ok(())
}

/// Moments as text.
mod moments {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        time: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A file of events as far as it has been read.
struct Reader {
    file: File,
    inode: u64,
    /// Bytes of a line whose end is not there yet.
    rest: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let inode = file.metadata().map_err(Error::io("stat", path))?.ino();
        Ok(Some(Self {
            file,
            inode,
            rest: Vec::new(),
        }))
    }

    /// Returns the events that have come since. A line that is none is left out.
    fn read(&mut self, path: &Path) -> Result<Vec<Event>> {
        self.file
            .read_to_end(&mut self.rest)
            .map_err(Error::io("read", path))?;
        let end = self.rest.iter().rposition(|byte| *byte == b'\n');
        let whole: Vec<u8> = self.rest.drain(..end.map_or(0, |end| end + 1)).collect();
        let lines = whole.split(|byte| *byte == b'\n');
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

/// Gives the events that are wanted, one by one.
pub(crate) fn read(
    layout: &Layout,
    options: EventOptions,
    sink: &mut dyn FnMut(&Event) -> io::Result<()>,
) -> Result<()> {
    let started = Timestamp::now();
    let past = options.since.is_some() || options.until.is_some();
    let since = options
        .since
        .unwrap_or(if past { Timestamp::UNIX_EPOCH } else { started });
    let until = options.until.unwrap_or(Timestamp::MAX);
    let mut give = |events: Vec<Event>| -> Result<()> {
        let wanted = events
            .into_iter()
            .filter(|event| event.time >= since && event.time <= until);
        for event in wanted {
            sink(&event).map_err(|source| Error::Output {
                stream: "/dev/stdout",
                source,
            })?;
        }
        Ok(())
    };
    let path = layout.events();
    // Opened before the old file is read: what is renamed in between is read as well.
    let mut current = Reader::open(&path)?;
    let old = layout.old_events();
    if let Some(mut reader) = Reader::open(&old)?
        && current.as_ref().map(|current| current.inode) != Some(reader.inode)
    {
        give(reader.read(&old)?)?;
    }
    loop {
        // Asked before reading: what came up to that moment is in the file.
        let over = Timestamp::now() >= until;
        if let Some(reader) = &mut current {
            give(reader.read(&path)?)?;
        }
        let inode = fs::metadata(&path).map(|meta| meta.ino()).ok();
        if inode.is_some() && inode != current.as_ref().map(|current| current.inode) {
            if let Some(reader) = &mut current {
                // What came between the last read and the renaming.
                give(reader.read(&path)?)?;
            }
            current = Reader::open(&path)?;
            continue;
        }
        if over {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout {
            root: directory.path().join("root"),
            run: directory.path().to_path_buf(),
        };
        (directory, layout)
    }

    fn actions(layout: &Layout, options: EventOptions) -> Vec<String> {
        let mut all = Vec::new();
        read(layout, options, &mut |event| {
            all.push(event.action.clone());
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn events_are_read_back_within_their_bounds() {
        let (_guard, layout) = layout();
        let until = || EventOptions {
            until: Some(Timestamp::now()),
            ..EventOptions::default()
        };
        assert!(actions(&layout, until()).is_empty());
        note(&layout, "container", "create", "1".into(), BTreeMap::new());
        let between = Timestamp::now();
        std::thread::sleep(Duration::from_millis(2));
        note(&layout, "container", "start", "1".into(), BTreeMap::new());
        assert_eq!(actions(&layout, until()), ["create", "start"]);
        let later = EventOptions {
            since: Some(between),
            ..until()
        };
        assert_eq!(actions(&layout, later), ["start"]);
    }

    #[test]
    fn files_stay_small_and_the_old_one_is_read_too() {
        let (_guard, layout) = layout();
        let long = BTreeMap::from([("x".to_owned(), "y".repeat(100_000))]);
        for number in 0..15 {
            note(
                &layout,
                "image",
                &number.to_string(),
                String::new(),
                long.clone(),
            );
        }
        let size = |path| fs::metadata(path).unwrap().len();
        assert!(size(layout.events()) < LIMIT_BYTES);
        assert!(size(layout.old_events()) < 2 * LIMIT_BYTES);
        let all = actions(
            &layout,
            EventOptions {
                until: Some(Timestamp::now()),
                ..EventOptions::default()
            },
        );
        let want: Vec<String> = (0..15).map(|number| number.to_string()).collect();
        assert_eq!(all, want);
    }
}
