//! `mille ps`: lists containers.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use mille_engine::{Container, Engine, Ground, NEVER, Sizes, Status};

use super::{Arity, Verb};
use crate::arguments::{self, is_on, list, switch, table_format, value};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::filter::Filters;
use crate::output::json::Tree;
use crate::output::rows::{List, Row};
use crate::output::{self, human};

mod filter;

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "ps",
    usage: "[OPTIONS]",
    about: "List containers",
    arity: Arity::None,
    flags_first: false,
    flags,
    run,
};

/// Cells of COMMAND and of a mount.
const COMMAND_CELLS: usize = 20;
const MOUNT_CELLS: usize = 15;

const RAW: &str = "container_id: {{.ID}}\\nimage: {{.Image}}\\ncommand: {{.Command}}\\ncreated_at: {{.CreatedAt}}\\nstate: \
                   {{.State}}\\nstatus: {{.Status}}\\nnames: {{.Names}}\\nlabels:{{pad .Labels 1 0}}\\nports:{{pad .Ports 1 0}}\\n";

fn flags(command: Command) -> Command {
    command
        .arg(switch(
            "all",
            Some('a'),
            "Show all containers (default shows just running)",
        ))
        .arg(
            list(
                "filter",
                Some('f'),
                "Filter output based on conditions provided",
            )
            .value_name("filter"),
        )
        .arg(table_format())
        .arg(
            value(
                "last",
                Some('n'),
                "int",
                "Show n last created containers (includes all states) (default -1)",
            )
            .value_parser(clap::builder::ValueParser::new(integer)),
        )
        .arg(switch(
            "latest",
            Some('l'),
            "Show the latest created container (includes all states)",
        ))
        .arg(switch("no-trunc", None, "Don't truncate output"))
        .arg(switch("quiet", Some('q'), "Only display container IDs"))
        .arg(switch("size", Some('s'), "Display total file sizes"))
}

fn integer(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let format = arguments::text(matches, "format").unwrap_or_default();
    let quiet = is_on(matches, "quiet");
    let size = is_on(matches, "size");
    let filters = Filters::read(&VERB, &arguments::texts(matches, "filter"), filter::NAMES)?;
    if quiet && !format.is_empty() {
        output::complain(
            "WARNING: Ignoring custom format, because both --format and --quiet are set.",
        );
    }
    let list = columns(size);
    let sheet = if quiet {
        list.quiet("ID")?
    } else {
        list.sheet(format)?
    };
    let sized = !quiet && (size || sheet.asks_for("Size"));
    let engine = if sized {
        context.layers()?
    } else {
        context.records()?
    };
    let last = matches.get_one::<i64>("last").copied().unwrap_or(-1);
    let last = if is_on(matches, "latest") && last == -1 {
        1
    } else {
        last
    };
    let last = usize::try_from(last).ok().filter(|last| *last > 0);
    let all = is_on(matches, "all") || last.is_some() || filters.has("status");
    let containers = filter::apply(&engine, engine.containers()?, &filters, all)?;
    let now = Timestamp::now();
    let truncate = !is_on(matches, "no-trunc");
    let mut rows = Vec::new();
    for container in containers.iter().take(last.unwrap_or(usize::MAX)) {
        let sizes = if sized {
            Some(engine.sizes(container)?)
        } else {
            None
        };
        rows.push(row(
            container,
            image(&engine, container, truncate),
            sizes,
            now,
            truncate,
        ));
    }
    if rows.is_empty() {
        sheet.check()?;
    }
    output::emit(&sheet.lay_out(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn columns(size: bool) -> List {
    let table =
        "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
    List {
        table: if size {
            format!("{table}\t{{{{.Size}}}}")
        } else {
            table.to_owned()
        },
        raw: RAW,
        titles: &[
            ("Command", "COMMAND"),
            ("CreatedAt", "CREATED AT"),
            ("HealthStatus", "HEALTH"),
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Labels", "LABELS"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Mounts", "MOUNTS"),
            ("Names", "NAMES"),
            ("Networks", "NETWORKS"),
            ("Platform", "PLATFORM"),
            ("Ports", "PORTS"),
            ("RunningFor", "CREATED"),
            ("Size", "SIZE"),
            ("State", "STATE"),
            ("Status", "STATUS"),
        ],
        kind: "*formatter.ContainerContext",
        errors: ("failed to parse template: ", "failed to execute template: "),
    }
}

/// The image as it was typed, or its id once that name means another image or none.
pub(super) fn image(engine: &Engine, container: &Container, truncate: bool) -> String {
    let Ground::Image(id) = &container.ground else {
        return container.image_id();
    };
    match engine.store().resolve(&container.image_name) {
        Ok(found) if found == *id => container.image_name.clone(),
        _ if truncate => id.short(),
        _ => id.to_string(),
    }
}

pub(super) fn row(
    container: &Container,
    image: String,
    sizes: Option<Sizes>,
    now: Timestamp,
    truncate: bool,
) -> Row {
    let created = container.created.parse().ok();
    let command = command(container);
    let command = if truncate {
        human::ellipsis(&command, COMMAND_CELLS)
    } else {
        command
    };
    let labels = container.config.labels.clone().unwrap_or_default();
    let joined: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let text = |key: &str, value: String| (key.to_owned(), Tree::Text(value));
    let id = container.id.to_string();
    let fields = Tree::Map(vec![
        text("Command", human::quoted(&command)),
        text("CreatedAt", human::local_time(created)),
        text("HealthStatus", health(container).to_owned()),
        text(
            "ID",
            if truncate {
                id.chars().take(12).collect()
            } else {
                id
            },
        ),
        text("Image", image),
        text("Labels", joined.join(",")),
        text(
            "LocalVolumes",
            container
                .mounts
                .iter()
                .filter(|mount| mount.volume().is_some())
                .count()
                .to_string(),
        ),
        text("Mounts", mounts(container, truncate)),
        text("Names", container.name.clone()),
        text("Networks", network(container).to_owned()),
        ("Platform".to_owned(), Tree::Null),
        text("Ports", String::new()),
        text("RunningFor", human::ago(created, now)),
        text("Size", size(sizes)),
        text("State", container.state.status.as_str().to_owned()),
        text("Status", status(container, now)),
    ]);
    Row {
        fields,
        labels: Some(labels),
    }
}

/// Program and arguments; those with a blank in quotes.
fn command(container: &Container) -> String {
    let quoted = |arg: &String| {
        if arg.contains(' ') {
            format!("'{arg}'")
        } else {
            arg.clone()
        }
    };
    let words: Vec<String> = std::iter::once(container.path.clone())
        .chain(container.args.iter().map(quoted))
        .collect();
    words.join(" ")
}

/// The sources of the mounts, newest tools' width.
fn mounts(container: &Container, truncate: bool) -> String {
    let sources = container.mounts.iter().map(|mount| match mount.volume() {
        Some(name) => name,
        None => mount.point.source.as_str(),
    });
    let sources: Vec<String> = sources
        .filter(|source| !source.is_empty())
        .map(|source| {
            if truncate {
                human::ellipsis(source, MOUNT_CELLS)
            } else {
                source.to_owned()
            }
        })
        .collect();
    sources.join(",")
}

/// The network's name.
fn network(container: &Container) -> &str {
    match container.host_config.network_mode.as_str() {
        "" | "default" => "host",
        mode => mode,
    }
}

fn size(sizes: Option<Sizes>) -> String {
    let Some(sizes) = sizes else {
        return human::size(0, 3);
    };
    let written = human::size(sizes.read_write_bytes, 3);
    if sizes.root_fs_bytes == 0 {
        return written;
    }
    format!(
        "{written} (virtual {})",
        human::size(sizes.root_fs_bytes, 3)
    )
}

/// Whether it is well; empty without a check.
fn health(container: &Container) -> &str {
    let health = container.state.health.as_ref();
    health.map_or("", |health| health.status.as_str())
}

/// STATUS: `Up 3 minutes`, `Exited (0) 8 days ago`.
fn status(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let since = |moment: &str| {
        moment
            .parse()
            .map(|moment| human::since(moment, now))
            .unwrap_or_default()
    };
    let up = || since(&state.started_at);
    match state.status {
        Status::Paused => format!("Up {} (Paused)", up()),
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            since(&state.finished_at)
        ),
        Status::Running => match health(container) {
            "" => format!("Up {}", up()),
            "starting" => format!("Up {} (health: starting)", up()),
            health => format!("Up {} ({health})", up()),
        },
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created | Status::Exited if state.started_at == NEVER => "Created".to_owned(),
        Status::Created | Status::Exited if state.finished_at == NEVER => String::new(),
        Status::Created | Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            since(&state.finished_at)
        ),
    }
}

#[cfg(test)]
mod tests;
