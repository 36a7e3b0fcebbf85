//! `mille stats`: what containers use, once or again and again.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use mille_engine::{Container, Engine, Error, Usage};

use super::{Arity, Verb};
use crate::arguments::{self, is_on, switch, table_format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Tree;
use crate::output::rows::{List, Row};
use crate::output::{self, human};

/// `mille stats`.
pub(crate) const VERB: Verb = Verb {
    name: "stats",
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Display a live stream of container(s) resource usage statistics",
    arity: Arity::AtLeast(0),
    flags_first: false,
    flags: add_flags,
    run: stats,
};

/// Between two looks, and over which processor time is measured.
const INTERVAL: Duration = Duration::from_millis(500);

/// To the top left corner; the rest of the line; the rest of the screen.
const HOME: &str = "\x1b[H";
const ERASE_LINE: &str = "\x1b[K";
const ERASE_BELOW: &str = "\x1b[J";

fn add_flags(command: Command) -> Command {
    command
        .arg(switch(
            "all",
            Some('a'),
            "Show all containers (default shows just running)",
        ))
        .arg(table_format())
        .arg(switch(
            "no-stream",
            None,
            "Disable streaming stats and only pull the first result",
        ))
        .arg(switch("no-trunc", None, "Do not truncate output"))
}

fn list() -> List {
    List {
        table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
            .to_owned(),
        raw: "raw",
        titles: &[
            ("BlockIO", "BLOCK I/O"),
            ("CPUPerc", "CPU %"),
            ("Container", "CONTAINER"),
            ("ID", "CONTAINER ID"),
            ("MemPerc", "MEM %"),
            ("MemUsage", "MEM USAGE / LIMIT"),
            ("Name", "NAME"),
            ("NetIO", "NET I/O"),
            ("PIDs", "PIDS"),
        ],
        kind: "*container.statsContext",
        errors: ("template parsing error: ", "template parsing error: "),
    }
}

/// One container as it was typed, and what it used when it was last looked at.
#[derive(Debug)]
struct Watched {
    typed: String,
    container: Container,
    usage: Usage,
    at: Instant,
}

fn stats(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let list = list();
    let sheet = list.sheet(arguments::text(matches, "format").unwrap_or_default())?;
    let names = arguments::words(matches);
    let all = is_on(matches, "all");
    let truncate = !is_on(matches, "no-trunc");
    let engine = context.records()?;
    let mut before = look(&engine, &names, all)?;
    loop {
        std::thread::sleep(INTERVAL);
        let now = look(&engine, &names, all)?;
        let rows: Vec<Row> = now
            .values()
            .map(|watched| {
                row(
                    watched,
                    before.get(&watched.container.id.to_string()),
                    truncate,
                )
            })
            .collect();
        let text = sheet.lay_out(&sorted(rows, &now, &names))?;
        if is_on(matches, "no-stream") {
            output::emit(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let lines: String = text
            .lines()
            .map(|line| format!("{line} {ERASE_LINE}\n"))
            .collect();
        output::emit(&format!("{HOME}{lines}{ERASE_BELOW}"))?;
        before = now;
    }
}

/// Containers by id.
type Looked = BTreeMap<String, Watched>;

/// As they were typed, else newest first.
fn sorted(rows: Vec<Row>, looked: &Looked, names: &[String]) -> Vec<Row> {
    let mut keyed: Vec<(usize, std::cmp::Reverse<&str>, Row)> = looked
        .values()
        .zip(rows)
        .map(|(watched, row)| {
            let place = names.iter().position(|name| *name == watched.typed);
            let created = std::cmp::Reverse(watched.container.created.as_str());
            (place.unwrap_or(usize::MAX), created, row)
        })
        .collect();
    keyed.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    keyed.into_iter().map(|(_, _, row)| row).collect()
}

fn look(engine: &Engine, names: &[String], all: bool) -> Result<Looked, Failure> {
    let mut chosen = Vec::new();
    if names.is_empty() {
        let containers = engine.containers()?.into_iter();
        chosen.extend(
            containers
                .filter(|container| all || container.is_running())
                .map(|container| (container.id.short().to_owned(), container)),
        );
    }
    for name in names {
        chosen.push((name.clone(), engine.find(name)?));
    }
    let mut looked = Looked::new();
    for (typed, container) in chosen {
        let usage = match engine.usage(&container.id) {
            Ok(usage) => usage,
            Err(Error::NotRunning(_) | Error::Restarting(_) | Error::NoSuchContainer(_)) => {
                Usage::default()
            }
            Err(error) => return Err(error.into()),
        };
        let watched = Watched {
            typed,
            usage,
            at: Instant::now(),
            container,
        };
        looked.insert(watched.container.id.to_string(), watched);
    }
    Ok(looked)
}

fn row(now: &Watched, before: Option<&Watched>, truncate: bool) -> Row {
    let usage = &now.usage;
    let memory = percent(usage.memory_bytes as f64, usage.memory_limit_bytes as f64);
    let id = &now.container.id;
    let fields = Tree::texts([
        (
            "BlockIO",
            format!(
                "{} / {}",
                human::size(usage.read_bytes, 3),
                human::size(usage.written_bytes, 3)
            ),
        ),
        ("CPUPerc", format!("{:.2}%", processor(now, before))),
        ("Container", now.typed.clone()),
        (
            "ID",
            if truncate {
                id.short().to_owned()
            } else {
                id.to_string()
            },
        ),
        ("MemPerc", format!("{memory:.2}%")),
        (
            "MemUsage",
            format!(
                "{} / {}",
                human::binary_size(usage.memory_bytes),
                human::binary_size(usage.memory_limit_bytes)
            ),
        ),
        ("Name", now.container.name.clone()),
        // The network is the host's, or there is none.
        ("NetIO", "0B / 0B".to_owned()),
        ("PIDs", usage.process_count.to_string()),
    ]);
    Row {
        fields,
        labels: None,
    }
}

/// Percent of one processor between two looks.
fn processor(now: &Watched, before: Option<&Watched>) -> f64 {
    let Some(before) = before else {
        return 0.0;
    };
    // A container that was started anew meanwhile has used less than before.
    let used = now
        .usage
        .cpu_nanoseconds
        .saturating_sub(before.usage.cpu_nanoseconds);
    let passed = now.at.saturating_duration_since(before.at);
    percent(used as f64, passed.as_nanos() as f64)
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        part / whole * 100.0
    } else {
        0.0
    }
}
