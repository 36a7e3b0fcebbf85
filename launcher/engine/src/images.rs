//! Images and the containers that use them.

use mille_store::{Collected, ContainerUse, DiffId, Removed};

use crate::container::Ground;
use crate::engine::Engine;
use crate::error::Result;
use crate::options::RemoveImageOptions;

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
    Ok(engine.store.remove_image(typed, &options)?)
}

/// Removes what nothing refers to.
pub(crate) fn collect(engine: &Engine) -> Result<Collected> {
    let _store = engine.store.lock_exclusive()?;
    let pinned: Vec<DiffId> = engine
        .containers()?
        .into_iter()
        .flat_map(|container| container.layers)
        .collect();
    Ok(engine.store.collect(&pinned)?)
}

fn uses(engine: &Engine) -> Result<Vec<ContainerUse>> {
    let containers = engine.containers()?.into_iter();
    let uses = containers.filter_map(|container| match container.ground {
        Ground::Image(image) => Some(ContainerUse {
            id: container.id.to_string(),
            image,
            running: container.state.running,
            layers: container.layers,
        }),
        Ground::Host => None,
    });
    Ok(uses.collect())
}
