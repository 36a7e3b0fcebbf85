//! `mille container prune`, `mille image prune` and `mille system prune`.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use mille_engine::{Engine, Error, RemoveImageOptions, RemoveOptions, Removed, Volume};
use mille_store::{DiffId, ImageId};

use super::{Arity, Verb};
use crate::arguments::{is_on, list, switch, texts};
use crate::context::Context;
use crate::failure::Failure;
use crate::moment;
use crate::output::filter::Filters;
use crate::output::{self, human};

/// `mille container prune`.
pub(crate) static CONTAINER: Verb = Verb {
    name: "container prune",
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    arity: Arity::None,
    flags_first: false,
    flags: common,
    run: containers,
};

/// `mille image prune`.
pub(crate) static IMAGE: Verb = Verb {
    name: "image prune",
    usage: "[OPTIONS]",
    about: "Remove unused images",
    arity: Arity::None,
    flags_first: false,
    flags: |command: Command| all(command, "Remove all unused images, not just dangling ones"),
    run: images,
};

/// `mille system prune`.
pub(crate) static SYSTEM: Verb = Verb {
    name: "system prune",
    usage: "[OPTIONS]",
    about: "Remove unused data",
    arity: Arity::None,
    flags_first: false,
    flags: |command: Command| {
        all(command, "Remove all unused images not just dangling ones").arg(switch(
            "volumes",
            None,
            "Prune anonymous volumes",
        ))
    },
    run: system,
};

/// Names of filters.
const FILTERS: &[&str] = &["label", "label!", "until"];

/// Flags of a command that removes images: only dangling ones, unless all are asked for.
fn all(command: Command, about: &'static str) -> Command {
    common(command).arg(switch("all", Some('a'), about))
}

fn common(command: Command) -> Command {
    command
        .arg(
            list(
                "filter",
                None,
                "Provide filter values (e.g. \"until=<timestamp>\")",
            )
            .value_name("filter"),
        )
        .arg(switch("force", Some('f'), "Do not prompt for confirmation"))
}

/// What is spared.
pub(super) struct Rules {
    filters: Filters,
    until: Option<Timestamp>,
}

impl Rules {
    fn read(verb: &'static Verb, matches: &ArgMatches) -> Result<Self, Failure> {
        Self::of(Filters::read(verb, &texts(matches, "filter"), FILTERS)?)
    }

    pub(super) fn of(filters: Filters) -> Result<Self, Failure> {
        let until = filters.values("until").map(moment::from_filter).last();
        Ok(Self {
            until: until.transpose()?,
            filters,
        })
    }

    /// Returns whether something made then, with these labels, is to go.
    fn take<'l>(
        &self,
        created: Option<Timestamp>,
        label: impl Fn(&str) -> Option<&'l str>,
    ) -> bool {
        let old = self
            .until
            .is_none_or(|until| created.unwrap_or_default() <= until);
        let spared = self
            .filters
            .values("label!")
            .any(|wanted| match wanted.split_once('=') {
                Some((key, value)) => label(key) == Some(value),
                None => label(wanted).is_some(),
            });
        old && !spared && self.filters.labels(label)
    }

    /// Returns whether a volume is to go, of those that nobody needs.
    pub(super) fn take_volume(&self, volume: &Volume) -> bool {
        let label = |key: &str| volume.labels.as_ref()?.get(key).map(String::as_str);
        self.take(None, label)
    }

    /// What the question says of the filters.
    fn announced(&self, matches: &ArgMatches) -> String {
        let mut given = texts(matches, "filter");
        if given.is_empty() {
            return String::new();
        }
        given.sort();
        let lines: String = given
            .iter()
            .map(|filter| format!("  - {filter}\n"))
            .collect();
        format!("\n  Items to be pruned will be filtered with:\n{lines}")
    }
}

/// Asks, unless told not to; anything but yes is no.
pub(super) fn agreed(matches: &ArgMatches, warning: &str) -> Result<bool, Failure> {
    if is_on(matches, "force") {
        return Ok(true);
    }
    output::emit(&format!(
        "WARNING! {warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

/// What went, as it is told, and how much room it took.
#[derive(Debug, Default)]
struct Gone {
    containers: Vec<String>,
    volumes: Vec<String>,
    images: Vec<Removed>,
    bytes: u64,
}

impl Gone {
    fn report(&self) -> Result<ExitCode, Failure> {
        let mut text = String::new();
        if !self.containers.is_empty() {
            text.push_str(&format!(
                "Deleted Containers:\n{}\n\n",
                self.containers.join("\n")
            ));
        }
        if !self.volumes.is_empty() {
            text.push_str(&format!(
                "Deleted Volumes:\n{}\n\n",
                self.volumes.join("\n")
            ));
        }
        if !self.images.is_empty() {
            text.push_str("Deleted Images:\n");
            for image in &self.images {
                text.push_str(&match image {
                    Removed::Untagged(name) => format!("untagged: {name}\n"),
                    Removed::Deleted(id) => format!("deleted: {id}\n"),
                });
            }
            text.push('\n');
        }
        text.push_str(&format!(
            "Total reclaimed space: {}\n",
            human::size(self.bytes, 4)
        ));
        output::emit(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn containers(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let rules = Rules::read(&CONTAINER, matches)?;
    if !agreed(matches, "This will remove all stopped containers.")? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut gone = Gone::default();
    remove_containers(&context.layers()?, &rules, &mut gone)?;
    gone.report()
}

fn images(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let rules = Rules::read(&IMAGE, matches)?;
    let all = is_on(matches, "all");
    let warning = if all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    };
    if !agreed(matches, warning)? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut gone = Gone::default();
    remove_images(&context.layers()?, &rules, all, &mut gone)?;
    gone.report()
}

fn system(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let rules = Rules::read(&SYSTEM, matches)?;
    let all = is_on(matches, "all");
    let images = if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let volumes = is_on(matches, "volumes");
    if volumes && rules.until.is_some() {
        return Err(Failure::plain(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    let mut warning = "This will remove:\n  - all stopped containers\n".to_owned();
    if volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(&format!("  - {images}\n"));
    warning.push_str(&rules.announced(matches));
    if !agreed(matches, &warning)? {
        return Ok(ExitCode::SUCCESS);
    }
    let engine = context.layers()?;
    let mut gone = Gone::default();
    remove_containers(&engine, &rules, &mut gone)?;
    if volumes {
        let pruned =
            engine.prune_volumes(|volume| volume.anonymous && rules.take_volume(volume))?;
        gone.volumes = pruned.names;
        gone.bytes += pruned.bytes;
    }
    remove_images(&engine, &rules, all, &mut gone)?;
    // What killed commands left in the store goes too.
    gone.bytes += engine.collect()?.bytes;
    gone.report()
}

fn remove_containers(engine: &Engine, rules: &Rules, gone: &mut Gone) -> Result<(), Failure> {
    for container in engine.containers()? {
        let labels = container.config.labels.as_ref();
        let label = |key: &str| {
            labels
                .and_then(|labels| labels.get(key))
                .map(String::as_str)
        };
        if container.is_running() || !rules.take(container.created.parse().ok(), label) {
            continue;
        }
        let bytes = engine.sizes(&container).map(|sizes| sizes.read_write_bytes);
        let options = RemoveOptions {
            force: false,
            volumes: false,
        };
        match engine.remove(&container.id, options) {
            Ok(()) => {
                gone.bytes += bytes.unwrap_or_default();
                gone.containers.push(container.id.to_string());
            }
            // Somebody started it, or removed it, meanwhile.
            Err(
                Error::RemoveRunning { .. }
                | Error::NoSuchContainer(_)
                | Error::RemovalInProgress(_),
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    engine.note_prune("container", gone.bytes);
    Ok(())
}

fn remove_images(
    engine: &Engine,
    rules: &Rules,
    all: bool,
    gone: &mut Gone,
) -> Result<(), Failure> {
    let before = layers(engine)?;
    let used: BTreeSet<String> = engine
        .images_in_use()?
        .iter()
        .map(ImageId::to_string)
        .collect();
    let images = engine.store().images()?;
    let parents: BTreeSet<String> = images
        .iter()
        .filter_map(|image| image.parent)
        .map(|parent| parent.to_string())
        .collect();
    for image in &images {
        let id = image.id.to_string();
        let labels = image.config.config.as_ref();
        let labels = labels.and_then(|config| config.labels.as_ref());
        let label = |key: &str| {
            labels
                .and_then(|labels| labels.get(key))
                .map(String::as_str)
        };
        let wanted = all || (image.is_dangling() && !parents.contains(&id));
        if used.contains(&id) || !wanted || !rules.take(image.created(), label) {
            continue;
        }
        let mut names: Vec<String> = image.names.iter().map(|name| name.familiar()).collect();
        if names.is_empty() {
            names.push(id);
        }
        for name in names {
            let options = RemoveImageOptions {
                force: false,
                prune: true,
            };
            match engine.remove_image(&name, options) {
                Ok(removed) => gone.images.extend(removed),
                // Used or gone meanwhile, or the parent of one that stays.
                Err(error) => log::debug!("{name}: {error}"),
            }
        }
    }
    let freed = before
        .iter()
        .filter(|(layer, _)| !engine.store().has_layer(layer));
    let bytes = freed.map(|(_, bytes)| bytes).sum();
    gone.bytes += bytes;
    engine.note_prune("image", bytes);
    Ok(())
}

/// The layers of all images and what each takes.
fn layers(engine: &Engine) -> Result<Vec<(DiffId, u64)>, Failure> {
    let images = engine.store().images()?;
    let layers: BTreeSet<DiffId> = images.into_iter().flat_map(|image| image.layers).collect();
    let mut sized = Vec::new();
    for layer in layers {
        sized.push((layer, engine.store().layer_size(&layer)?));
    }
    Ok(sized)
}
