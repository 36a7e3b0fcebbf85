//! Looking into a container's root without being inside: diff, sizes, export.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mille_layer::encode::Encoder;
use mille_layer::{Mark, MarkSpace};
use mille_union::changes::ChangeKind;
use mille_union::{Access, View};

use crate::channel::{Channel, Waited};
use crate::container::Container;
use crate::engine::{Difference, DifferenceKind, Engine, Sizes};
use crate::error::{Error, Result};
use crate::ids::ContainerId;
use crate::lock::Lock;
use crate::message::Message;
use crate::stop::GRACE;

/// How long a monitor may take to flush or freeze.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for a command that is using the container's files.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Size of the buffer before an archive's writer.
const BUFFER_BYTES: usize = 256 * 1024;

/// A container's root as it is now, and what keeps it from being pulled away.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) merged: Arc<View>,
    /// Of a stopped container: nobody starts or removes it meanwhile.
    _lock: Option<Lock>,
    /// Of a running one: while it is open, what was frozen stays so.
    monitor: Option<Channel>,
}

impl Look {
    /// Lets a frozen container go on; what was opened stays readable.
    pub(crate) fn thaw(&mut self) {
        self.monitor = None;
    }
}

/// Opens a container's root for reading.
///
/// A running container is asked to flush (and, with `freeze`, held still as far as this machine can); the upper is then
/// read beside the monitor. A stopped one is locked, and what a crash left half-done in its upper is finished first.
pub(crate) fn look(engine: &Engine, container: &Container, freeze: bool) -> Result<Look> {
    let stack = engine.stack(container)?;
    let writable = engine.writable(&container.id);
    let running = container.is_running();
    if running && let Some(channel) = flushed(engine, container, freeze)? {
        let merged = stack.open(&writable, Access::Observe)?;
        return Ok(Look {
            merged,
            _lock: None,
            monitor: Some(channel),
        });
    }
    // One that has just ended is still being taken down.
    let patience = if running { GRACE } else { LOCK_PATIENCE };
    let paths = engine.layout.container(&container.id);
    let lock = match Lock::take_within(&paths.lock(), patience) {
        // Removed meanwhile, and the lock with it.
        Ok(_) | Err(_) if !paths.record().exists() => {
            return Err(Error::NoSuchContainer(container.id.to_string()));
        }
        taken => taken?,
    };
    let access = if lock.is_some() {
        Access::Exclusive
    } else {
        Access::Observe
    };
    Ok(Look {
        merged: stack.open(&writable, access)?,
        _lock: lock,
        monitor: None,
    })
}

/// Asks a running container's monitor to flush, and to hold the container still; `None` when it has ended meanwhile.
fn flushed(engine: &Engine, container: &Container, freeze: bool) -> Result<Option<Channel>> {
    let Some(mut channel) = engine.connect(&container.id)? else {
        return Ok(None);
    };
    channel.queue(&Message::Watch);
    let wishes: &[Message] = if freeze {
        &[Message::Freeze, Message::Sync]
    } else {
        &[Message::Sync]
    };
    for wish in wishes {
        channel.queue(wish);
        let answer = channel.wait_for(Some(PATIENCE), |message| match message {
            Message::Done => Some(Ok(())),
            Message::Failed(reason) => Some(Err(reason)),
            _ => None,
        });
        let refused = |reason: String| Error::Monitor {
            id: container.id.to_string(),
            reason,
        };
        match answer.map_err(Error::system("talk to the monitor"))? {
            Waited::Found(Ok(())) => {}
            Waited::Found(Err(reason)) if *wish == Message::Freeze => {
                let id = container.id.short();
                log::warn!("container {id} goes on during the commit: {reason}");
            }
            Waited::Found(Err(reason)) => return Err(refused(format!("flush: {reason}"))),
            Waited::TimedOut => return Err(refused("it does not answer".to_owned())),
            Waited::Closed => return Ok(None),
        }
    }
    Ok(Some(channel))
}

/// Lists what differs from the image.
pub(crate) fn diff(engine: &Engine, id: &ContainerId) -> Result<Vec<Difference>> {
    let container = engine.load(id)?;
    let look = look(engine, &container, false)?;
    let base = engine.stack(&container)?.open_base()?;
    let changes = mille_union::changes::changes(&look.merged, &base).map_err(Error::Union)?;
    let differences = changes.into_iter().filter_map(|change| {
        let kind = match change.kind {
            ChangeKind::Added => DifferenceKind::Added,
            ChangeKind::Modified => DifferenceKind::Changed,
            ChangeKind::Deleted => DifferenceKind::Deleted,
            ChangeKind::Touched => return None,
        };
        Some(Difference {
            kind,
            path: Path::new("/").join(PathBuf::from(OsString::from_vec(change.path))),
        })
    });
    Ok(differences.collect())
}

/// Writes the whole tree as one tar.
pub(crate) fn export(
    engine: &Engine,
    id: &ContainerId,
    flatten: bool,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let container = engine.load(id)?;
    if container.on_host && !flatten {
        return Err(Error::HostBase(format!(
            "container {} stands on {}: its whole tree holds every file of this machine that it can read; give \
             --flatten to write it all the same",
            container.name,
            crate::HOST_BASE
        )));
    }
    let look = look(engine, &container, false)?;
    write_tree(&look.merged, out).map_err(Error::Union)
}

/// Writes a view's whole tree as one tar.
pub(crate) fn write_tree(view: &View, out: &mut dyn Write) -> mille_union::Result<()> {
    let failed = |source: io::Error| mille_union::Error::Io {
        op: "write archive",
        source,
    };
    let mut encoder = Encoder::new(BufWriter::with_capacity(BUFFER_BYTES, out));
    mille_union::archive::write_tree(view, &mut encoder)?;
    encoder
        .finish()
        .and_then(|mut out| out.flush())
        .map_err(failed)
}

/// Writes what a container changed as a layer's tar.
pub(crate) fn write_changes(
    merged: &View,
    base: &View,
    out: &mut dyn Write,
) -> mille_union::Result<()> {
    let failed = |source: io::Error| mille_union::Error::Io {
        op: "write layer",
        source,
    };
    let mut encoder = Encoder::new(BufWriter::with_capacity(BUFFER_BYTES, out));
    mille_union::archive::write_changes(merged, base, &mut encoder)?;
    encoder
        .finish()
        .and_then(|mut out| out.flush())
        .map_err(failed)
}

/// Adds up what a container wrote.
pub(crate) fn sizes(engine: &Engine, container: &Container) -> Result<Sizes> {
    let upper = engine.layout.container(&container.id).upper();
    let mut walk = Walk {
        space: engine.dialect().space,
        seen: BTreeSet::new(),
        bytes: 0,
    };
    walk.add(&upper).map_err(Error::io("measure", &upper))?;
    let mut image_bytes = 0;
    for layer in &container.layers {
        image_bytes += engine.store.layer_size(layer)?;
    }
    Ok(Sizes {
        read_write_bytes: walk.bytes,
        root_fs_bytes: image_bytes + walk.bytes,
    })
}

struct Walk {
    space: MarkSpace,
    /// Files with several names that were counted.
    seen: BTreeSet<(u64, u64)>,
    bytes: u64,
}

impl Walk {
    fn add(&mut self, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                // The container goes on meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if meta.is_dir() {
                self.add(&path)?;
            } else if meta.is_file() && !self.has_no_data(&path) {
                let counted = meta.nlink() > 1 && !self.seen.insert((meta.dev(), meta.ino()));
                self.bytes += if counted { 0 } else { meta.len() };
            }
        }
        Ok(())
    }

    /// A file whose attributes alone were changed has its data in a layer.
    fn has_no_data(&self, path: &Path) -> bool {
        let mut value = [0_u8; 64];
        rustix::fs::lgetxattr(path, self.space.name(Mark::Metacopy), value.as_mut_slice()).is_ok()
    }
}
