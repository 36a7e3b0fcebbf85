//! `mille images`: lists images.

mod tree;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use mille_engine::Engine;
use mille_store::{Image, ImageId, Reference};

use super::{Arity, Verb};
use crate::arguments::{self, is_on, list, switch, table_format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::filter::{self, Filters};
use crate::output::json::Tree;
use crate::output::rows::{List, Row};
use crate::output::{self, human};

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "images",
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    arity: Arity::AtMost(1),
    flags_first: false,
    flags,
    run,
};

/// Names of filters.
const FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since"];
/// What stands for an absent name, tag or digest.
const NONE: &str = "<none>";

fn flags(command: Command) -> Command {
    command
        .arg(switch(
            "all",
            Some('a'),
            "Show all images (default hides intermediate images)",
        ))
        .arg(switch("digests", None, "Show digests"))
        .arg(
            list(
                "filter",
                Some('f'),
                "Filter output based on conditions provided",
            )
            .value_name("filter"),
        )
        .arg(table_format())
        .arg(switch("no-trunc", None, "Don't truncate output"))
        .arg(switch("quiet", Some('q'), "Only show image IDs"))
        .arg(switch("tree", None, "List each image with its platform"))
}

/// How much of a line is shown.
#[derive(Debug, Clone, Copy)]
struct Look {
    truncate: bool,
    digests: bool,
    now: Timestamp,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let format = arguments::text(matches, "format").unwrap_or_default();
    let quiet = is_on(matches, "quiet");
    let filters = Filters::read(&VERB, &arguments::texts(matches, "filter"), FILTERS)?;
    if quiet && !format.is_empty() {
        output::complain(
            "WARNING: Ignoring custom format, because both --format and --quiet are set.",
        );
    }
    if is_on(matches, "tree") {
        let others = ["digests", "no-trunc", "quiet"];
        let other = others.into_iter().find(|flag| is_on(matches, flag));
        if let Some(other) = other.or((!format.is_empty()).then_some("format")) {
            return Err(Failure::plain(format!(
                "--{other} is not yet supported with --tree"
            )));
        }
    }
    let list = columns(is_on(matches, "digests"));
    let sheet = if quiet {
        list.quiet("ID")?
    } else {
        list.sheet(format)?
    };
    let patterns: Vec<String> = arguments::words(matches)
        .into_iter()
        .chain(filters.values("reference").map(str::to_owned))
        .collect();
    let look = Look {
        truncate: !is_on(matches, "no-trunc"),
        digests: is_on(matches, "digests") || sheet.asks_for("Digest"),
        now: Timestamp::now(),
    };
    let engine = context.records()?;
    let images = select(
        engine.store().images()?,
        &filters,
        is_on(matches, "all"),
        &window(&engine, &filters)?,
    )?;
    if is_on(matches, "tree") {
        let used: BTreeSet<String> = engine
            .images_in_use()?
            .iter()
            .map(ImageId::to_string)
            .collect();
        let images: Vec<Image> = images
            .into_iter()
            .filter(|image| patterns.is_empty() || !rows(image, &patterns, look).is_empty())
            .collect();
        output::emit(&tree::lay_out(&images, &used))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Row> = images
        .iter()
        .flat_map(|image| rows(image, &patterns, look))
        .collect();
    output::emit(&sheet.lay_out(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn columns(digests: bool) -> List {
    let digest = if digests { "{{.Digest}}\t" } else { "" };
    List {
        table: format!(
            "{{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{{{{.CreatedSince}}}}\t{{{{.Size}}}}"
        ),
        raw: "repository: {{.Repository}}\\ntag: {{.Tag}}\\nimage_id: {{.ID}}\\ncreated_at: {{.CreatedAt}}\\nvirtual_size: \
              {{.Size}}\\n",
        titles: &[
            ("Containers", "CONTAINERS"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedSince", "CREATED"),
            ("Digest", "DIGEST"),
            ("ID", "IMAGE ID"),
            ("Repository", "REPOSITORY"),
            ("SharedSize", "SHARED SIZE"),
            ("Size", "SIZE"),
            ("Tag", "TAG"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("VirtualSize", "SIZE"),
        ],
        kind: "*formatter.imageContext",
        errors: ("template parsing error: ", "template parsing error: "),
    }
}

/// The moments between which `before` and `since` leave images, both excluded.
#[derive(Debug, Default)]
struct Window {
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

fn window(engine: &Engine, filters: &Filters) -> Result<Window, Failure> {
    let created = |name: &str| -> Result<Vec<Timestamp>, Failure> {
        let mut moments = Vec::new();
        for typed in filters.values(name) {
            let image = engine.store().image(&engine.resolve_image(typed)?)?;
            moments.push(image.created().unwrap_or_default());
        }
        Ok(moments)
    };
    Ok(Window {
        after: created("since")?.into_iter().max(),
        before: created("before")?.into_iter().min(),
    })
}

/// Leaves the images that are to be listed, newest first.
fn select(
    mut images: Vec<Image>,
    filters: &Filters,
    all: bool,
    window: &Window,
) -> Result<Vec<Image>, Failure> {
    let dangling = filters.flag("dangling")?;
    let parents: HashSet<ImageId> = images.iter().filter_map(|image| image.parent).collect();
    images.retain(|image| {
        let labels = image
            .config
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref());
        let intermediate = image.is_dangling() && parents.contains(&image.id);
        let created = image.created().unwrap_or_default();
        (all || !intermediate)
            && dangling.is_none_or(|wanted| wanted == (image.is_dangling() && !intermediate))
            && filters.labels(|key| {
                labels
                    .and_then(|labels| labels.get(key))
                    .map(String::as_str)
            })
            && window.after.is_none_or(|moment| created > moment)
            && window.before.is_none_or(|moment| created < moment)
    });
    Ok(newest_first(images))
}

/// Sorts images; equal ages by their names.
pub(super) fn newest_first(mut images: Vec<Image>) -> Vec<Image> {
    images.sort_by(|a, b| {
        b.created()
            .cmp(&a.created())
            .then_with(|| a.names.cmp(&b.names))
            .then_with(|| a.id.cmp(&b.id))
    });
    images
}

/// One row for each name of an image.
pub(super) fn every_name(image: &Image, truncate: bool, now: Timestamp) -> Vec<Row> {
    let look = Look {
        truncate,
        digests: false,
        now,
    };
    rows(image, &[], look)
}

/// One row for each name of an image that fits the patterns.
fn rows(image: &Image, patterns: &[String], look: Look) -> Vec<Row> {
    let fits = |name: &&Reference| {
        let (whole, repository) = (name.familiar(), name.familiar_name());
        let fits =
            |pattern: &String| filter::glob(pattern, &whole) || filter::glob(pattern, &repository);
        patterns.is_empty() || patterns.iter().any(fits)
    };
    if image.is_dangling() {
        return if patterns.is_empty() {
            vec![row(image, NONE, NONE, NONE, look)]
        } else {
            Vec::new()
        };
    }
    let mut repositories: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for name in image.names.iter().filter(fits) {
        let (tags, digests) = repositories.entry(name.familiar_name()).or_default();
        match (name.digest(), name.tag()) {
            (Some(digest), _) => digests.push(digest.to_string()),
            (None, tag) => tags.push(tag.unwrap_or(NONE).to_owned()),
        }
    }
    let mut rows = Vec::new();
    for (repository, (tags, digests)) in &repositories {
        let digests: Vec<&str> = digests
            .iter()
            .filter(|_| look.digests)
            .map(String::as_str)
            .collect();
        let digests = if digests.is_empty() {
            vec![NONE]
        } else {
            digests
        };
        let tags: Vec<&str> = if tags.is_empty() {
            vec![NONE]
        } else {
            tags.iter().map(String::as_str).collect()
        };
        for tag in tags {
            rows.extend(
                digests
                    .iter()
                    .map(|digest| row(image, repository, tag, digest, look)),
            );
        }
    }
    rows
}

fn row(image: &Image, repository: &str, tag: &str, digest: &str, look: Look) -> Row {
    let unknown = || "N/A".to_owned();
    let fields = Tree::texts([
        ("Containers", unknown()),
        ("CreatedAt", human::local_time(image.created())),
        ("CreatedSince", human::ago(image.created(), look.now)),
        ("Digest", digest.to_owned()),
        (
            "ID",
            if look.truncate {
                image.id.short()
            } else {
                image.id.to_string()
            },
        ),
        ("Repository", repository.to_owned()),
        ("SharedSize", unknown()),
        ("Size", human::size(image.size, 3)),
        ("Tag", tag.to_owned()),
        ("UniqueSize", unknown()),
        ("VirtualSize", human::size(image.size, 4)),
    ]);
    Row {
        fields,
        labels: None,
    }
}

#[cfg(test)]
mod tests;
