//! `mille system df`: what the store's disk is used for.

mod verbose;

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::Engine;
use mille_store::DiffId;

use self::verbose::Details;
use super::{Arity, Verb};
use crate::arguments::{self, is_on, switch, table_format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Tree;
use crate::output::rows::{List, Row};
use crate::output::{self, human};

/// `mille system df`.
pub(crate) static VERB: Verb = Verb {
    name: "system df",
    usage: "[OPTIONS]",
    about: "Show disk usage",
    arity: Arity::None,
    flags_first: false,
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command.arg(table_format()).arg(switch(
        "verbose",
        Some('v'),
        "Show detailed information on space usage",
    ))
}

fn list() -> List {
    List {
        table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}".to_owned(),
        raw: "type: {{.Type}}\\ntotal: {{.TotalCount}}\\nactive: {{.Active}}\\nsize: {{.Size}}\\nreclaimable: \
              {{.Reclaimable}}\\n",
        titles: &[
            ("Active", "ACTIVE"),
            ("Reclaimable", "RECLAIMABLE"),
            ("Size", "SIZE"),
            ("TotalCount", "TOTAL"),
            ("Type", "TYPE"),
        ],
        kind: "*formatter.diskUsageContext",
        errors: ("template parsing error: ", "template parsing error: "),
    }
}

/// One line: how many there are and are in use, what all take and what those not in use take.
#[derive(Debug, Default, PartialEq, Eq)]
struct Share {
    total: usize,
    active: usize,
    bytes: u64,
    reclaimable_bytes: u64,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let list = list();
    let format = arguments::text(matches, "format").unwrap_or_default();
    if is_on(matches, "verbose") {
        let table = matches!(format, "" | "table");
        let details = Details::of(&context.layers()?, table)?;
        output::emit(&if table {
            details.tables()?
        } else {
            details.formatted(format)?
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let sheet = list.sheet(format)?;
    let engine = context.layers()?;
    let rows = [
        row("Images", &images(&engine)?),
        row("Containers", &containers(&engine)?),
        row("Local Volumes", &volumes(&engine)?),
        // Scripts count the lines: there is none of it.
        row("Build Cache", &Share::default()),
    ];
    output::emit(&sheet.lay_out(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

/// A layer that images share counts once, and is in use as soon as one of them is.
fn images(engine: &Engine) -> Result<Share, Failure> {
    let used: BTreeSet<String> = engine
        .images_in_use()?
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut share = Share::default();
    let (mut all, mut needed) = (BTreeSet::<DiffId>::new(), BTreeSet::<DiffId>::new());
    for image in engine.store().images()? {
        share.total += 1;
        if used.contains(&image.id.to_string()) {
            share.active += 1;
            needed.extend(&image.layers);
        }
        all.extend(&image.layers);
    }
    for layer in &all {
        let bytes = engine.store().layer_size(layer)?;
        share.bytes += bytes;
        if !needed.contains(layer) {
            share.reclaimable_bytes += bytes;
        }
    }
    Ok(share)
}

fn containers(engine: &Engine) -> Result<Share, Failure> {
    let mut share = Share::default();
    for container in engine.containers()? {
        let bytes = engine.sizes(&container)?.read_write_bytes;
        share.total += 1;
        share.bytes += bytes;
        if container.is_running() {
            share.active += 1;
        } else {
            share.reclaimable_bytes += bytes;
        }
    }
    Ok(share)
}

fn volumes(engine: &Engine) -> Result<Share, Failure> {
    let mut share = Share::default();
    for volume in engine.volumes()? {
        let bytes = engine.volume_bytes(&volume)?;
        share.total += 1;
        share.bytes += bytes;
        if engine.volume_users(&volume.name)?.is_empty() {
            share.reclaimable_bytes += bytes;
        } else {
            share.active += 1;
        }
    }
    Ok(share)
}

fn row(kind: &str, share: &Share) -> Row {
    let fields = Tree::texts([
        ("Active", share.active.to_string()),
        ("Reclaimable", reclaimable(share)),
        ("Size", human::size(share.bytes, 4)),
        ("TotalCount", share.total.to_string()),
        ("Type", kind.to_owned()),
    ]);
    Row {
        fields,
        labels: None,
    }
}

fn reclaimable(share: &Share) -> String {
    let text = human::size(share.reclaimable_bytes, 4);
    match (share.reclaimable_bytes * 100).checked_div(share.bytes) {
        Some(percent) => format!("{text} ({percent}%)"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shown_with_their_percentage() {
        let share = |bytes, reclaimable_bytes| Share {
            bytes,
            reclaimable_bytes,
            ..Share::default()
        };
        assert_eq!(reclaimable(&share(0, 0)), "0B");
        assert_eq!(reclaimable(&share(2_084_000, 2_084_000)), "2.084MB (100%)");
        assert_eq!(reclaimable(&share(300, 100)), "100B (33%)");
    }
}
