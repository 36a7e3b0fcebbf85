//! Making images of containers.
//!
//! The changes are streamed as a layer's tar into the store. A running container is flushed and, where this machine has
//! a freezer for us, held still meanwhile (see [`crate::freeze`]); without one it goes on, and each file is taken as it
//! is at its moment, as `--pause=false` does.

use mille_store::config::{History, ImageConfig, RootFs, apply_changes, host_architecture};
use mille_store::{Commit, DiffId, Digest, Image, ImageId, commit_config};

use crate::changes::{look, write_changes, write_tree};
use crate::container::Container;
use crate::create::{BASE_LABEL, is_on_host};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Subject;
use crate::ids::ContainerId;
use crate::options::{CommitOptions, HOST_BASE};

/// Makes an image of a container.
pub(crate) fn commit(
    engine: &Engine,
    id: &ContainerId,
    options: &CommitOptions,
) -> Result<ImageId> {
    let mut container = engine.load(id)?;
    let base = base_image(engine, &container)?;
    // A change that would be refused is found before anything is written.
    apply_changes(&mut container.config.clone(), &options.changes)
        .map_err(mille_store::Error::from)?;
    if container.on_host {
        let labels = container.config.labels.get_or_insert_default();
        labels.insert(BASE_LABEL.to_owned(), HOST_BASE.to_owned());
    }
    // Until the image refers to the new layer, nobody may collect it.
    let _store = engine.store.lock_shared()?;
    let _work = engine.store.begin()?;
    let held = options.pause && container.is_running() && !container.state.paused;
    let subject = Subject::from(&container);
    let note_held = |action| {
        if held {
            subject.note(&engine.layout, action, &[]);
        }
    };
    note_held("pause");
    let image = make_image(engine, &container, &base, options);
    if let Ok(image) = &image {
        let mut more = vec![
            ("comment", options.message.clone()),
            ("imageID", image.to_string()),
        ];
        if let Some(reference) = &options.reference {
            more.push(("imageRef", reference.familiar()));
        }
        subject.note(&engine.layout, "commit", &more);
    }
    // The container goes on as soon as its changes are read; told is the order that docker has.
    note_held("unpause");
    image
}

fn make_image(
    engine: &Engine,
    container: &Container,
    base: &Image,
    options: &CommitOptions,
) -> Result<ImageId> {
    let layer = add_changes(engine, container, options.pause)?;
    let config = commit_config(&Commit {
        base,
        container_id: container.id.as_str(),
        container: &container.config,
        changes: &options.changes,
        layer,
        author: &options.author,
        comment: &options.message,
        created: jiff::Timestamp::now(),
    })
    .map_err(mille_store::Error::from)?;
    let parent = engine.image_of(container);
    let image = engine.store.add_image(&config, parent.as_ref())?;
    if let Some(reference) = &options.reference {
        engine.store.tag(&image, reference)?;
        engine.note_image("tag", &image, &reference.familiar());
    }
    Ok(image)
}

/// Streams what the container changed into the store; `None` when it changed nothing.
fn add_changes(engine: &Engine, container: &Container, pause: bool) -> Result<Option<DiffId>> {
    let mut look = look(engine, container, pause)?;
    let base = engine.stack(container)?.open_base()?;
    let merged = look.merged.clone();
    if mille_union::changes::changes(&merged, &base)
        .map_err(Error::Union)?
        .is_empty()
    {
        return Ok(None);
    }
    let write = |out: &mut dyn std::io::Write| Ok(write_changes(&merged, &base, out)?);
    let info = engine.store.add_layer_written(None, write)?;
    look.thaw();
    Ok(Some(info.diff_id))
}

/// Returns the image the new one is made from. One that is gone (or `@host`) is stood in for by what the record knows.
fn base_image(engine: &Engine, container: &Container) -> Result<Image> {
    if let Some(id) = engine.image_of(container) {
        match engine.store.image(&id) {
            Err(mille_store::Error::NoSuchImage(_)) => {}
            found => return Ok(found?),
        }
    }
    let rootfs = RootFs {
        kind: "layers".to_owned(),
        diff_ids: container.layers.clone(),
        ..RootFs::default()
    };
    let config = ImageConfig {
        architecture: host_architecture().to_owned(),
        os: "linux".to_owned(),
        rootfs: Some(rootfs),
        ..ImageConfig::default()
    };
    Ok(Image {
        id: ImageId::from(Digest::of(b"")),
        config,
        raw: Vec::new(),
        names: Vec::new(),
        size: 0,
        layers: container.layers.clone(),
        parent: None,
        last_tagged: None,
    })
}

/// Refuses an image that only this machine can complete.
pub(crate) fn check_portable(engine: &Engine, id: &ImageId) -> Result<()> {
    if is_on_host(&engine.store.image(id)?) {
        return Err(Error::HostBase(format!(
            "image {} stands on {HOST_BASE}, the root of this machine, which no archive holds; give --flatten to save \
             all of it",
            id.short()
        )));
    }
    Ok(())
}

/// Makes an image of one layer of all that an image shows.
pub(crate) fn flatten(engine: &Engine, id: &ImageId) -> Result<ImageId> {
    let image = engine.store.image(id)?;
    let view = engine.image_stack(id)?.open_base()?;
    let _store = engine.store.lock_shared()?;
    let _work = engine.store.begin()?;
    let info = engine
        .store
        .add_layer_written(None, |out| Ok(write_tree(&view, out)?))?;
    let config = flattened(image.config, id, info.diff_id);
    let bytes = serde_json::to_vec(&config).map_err(|source| Error::Record {
        path: engine.layout.root.clone(),
        source,
    })?;
    Ok(engine.store.add_image(&bytes, None)?)
}

/// Returns the configuration of an image whose layers have become one.
fn flattened(mut config: ImageConfig, id: &ImageId, layer: DiffId) -> ImageConfig {
    if let Some(labels) = config
        .config
        .as_mut()
        .and_then(|config| config.labels.as_mut())
    {
        labels.remove(BASE_LABEL);
    }
    config.rootfs = Some(RootFs {
        kind: "layers".to_owned(),
        diff_ids: vec![layer],
        ..RootFs::default()
    });
    // As docker's squash: every step stays told, and the layer is of a last one.
    for step in &mut config.history {
        step.empty_layer = true;
    }
    config.history.push(History {
        created: config.created.clone(),
        comment: format!("merge {id}"),
        ..History::default()
    });
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flattened_image_has_one_step_with_a_layer() {
        let id = ImageId::from(Digest::of(b"image"));
        let layer = DiffId::from(Digest::of(b"layer"));
        let step = |comment: &str, empty_layer| History {
            comment: comment.to_owned(),
            empty_layer,
            ..History::default()
        };
        // The first is a commit of what stands on the machine's root alone and changed nothing.
        for history in [
            vec![],
            vec![step("a", true)],
            vec![step("a", false), step("b", true)],
        ] {
            let count = history.len();
            let config = ImageConfig {
                history,
                ..ImageConfig::default()
            };
            let flat = flattened(config, &id, layer);
            assert_eq!(flat.layers(), [layer]);
            assert_eq!(flat.history.len(), count + 1);
            let with_layer = flat.history.iter().filter(|step| !step.empty_layer);
            assert_eq!(
                with_layer
                    .map(|step| step.comment.clone())
                    .collect::<Vec<_>>(),
                [format!("merge {id}")]
            );
        }
    }
}
