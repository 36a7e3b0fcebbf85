//! Images, and the containers and mounts that use them.

use mille_store::{Collected, DiffId, Finding, FsckReport, ImageUse, Removed, Severity, User};

use crate::container::Ground;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::RemoveImageOptions;
use crate::records;
use crate::served;

/// Removes a name or an image, in docker's words.
pub(crate) fn remove(
    engine: &Engine,
    typed: &str,
    options: RemoveImageOptions,
) -> Result<Vec<Removed>> {
    // No container is made of it between the question who uses it and its removal.
    let _store = engine.store.lock_exclusive()?;
    let uses = uses(engine)?;
    let options = mille_store::RemoveOptions {
        force: options.force,
        keep_parents: !options.prune,
        uses: &uses,
    };
    let image = engine.resolve_image(typed);
    if let Err(error @ Error::HostBase(_)) = image {
        return Err(error);
    }
    let removed = engine.store.remove_image(typed, &options)?;
    if let Ok(image) = image {
        let id = image.to_string();
        for one in &removed {
            match one {
                Removed::Untagged(_) => engine.note_image("untag", &image, &id),
                Removed::Deleted(deleted) if *deleted == id => {
                    engine.note_image("delete", &image, &id);
                }
                Removed::Deleted(_) => {}
            }
        }
    }
    Ok(removed)
}

/// Removes what nothing refers to.
pub(crate) fn collect(engine: &Engine) -> Result<Collected> {
    let _store = engine.store.lock_exclusive()?;
    Ok(engine.store.collect(&pinned(engine)?)?)
}

/// Checks the store, and the records of containers.
pub(crate) fn fsck(engine: &Engine) -> Result<FsckReport> {
    let _store = engine.store.lock_shared()?;
    let mut report = engine.store.fsck(&pinned(engine)?)?;
    for id in records::ids(&engine.layout)? {
        if let Some(wrong) = records::damage(&engine.layout, &id) {
            report.findings.push(Finding {
                severity: Severity::Damage,
                subject: format!("container {id}"),
                detail: format!(
                    "its container.json {wrong}; `rm -f` with its id or name removes it"
                ),
            });
        }
    }
    Ok(report)
}

/// The layers that containers and mounts need, whatever became of the image they were made of.
fn pinned(engine: &Engine) -> Result<Vec<DiffId>> {
    let containers = engine.containers()?.into_iter();
    let containers = containers.flat_map(|container| container.layers);
    let mounts = served::all(&engine.layout)?.into_iter();
    Ok(containers
        .chain(mounts.flat_map(|mount| mount.layers))
        .collect())
}

pub(crate) fn uses(engine: &Engine) -> Result<Vec<ImageUse>> {
    let containers = engine.containers()?.into_iter();
    let uses = containers.filter_map(|container| match container.ground {
        Ground::Image(image) => Some(ImageUse {
            user: User::Container(container.id.to_string()),
            image: Some(image),
            running: container.state.running,
            layers: container.layers,
        }),
        Ground::Host => None,
    });
    let mounts = served::all(&engine.layout)?.into_iter();
    let mounts = mounts.map(|mount| ImageUse {
        user: User::Mount(mount.directory),
        image: mount.image,
        running: true,
        layers: mount.layers,
    });
    Ok(uses.chain(mounts).collect())
}
