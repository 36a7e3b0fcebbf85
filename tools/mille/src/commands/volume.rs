//! `mille volume`: directories that outlive containers.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{Engine, Error, Volume, VolumeOptions};

use super::prune::{Rules, agreed};
use super::{Arity, Verb};
use crate::arguments::{is_on, list, switch, table_format, text, texts, value, words};
use crate::context::Context;
use crate::failure::{Failure, each};
use crate::output::filter::Filters;
use crate::output::json::Tree;
use crate::output::rows::{List, Row};
use crate::output::{self, human};

/// `mille volume create`.
pub(crate) static CREATE: Verb = Verb {
    name: "volume create",
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    arity: Arity::AtMost(1),
    flags_first: false,
    flags: |command| {
        command
            .arg(value(
                "driver",
                Some('d'),
                "string",
                "Specify volume driver name (default \"local\")",
            ))
            .arg(list("label", None, "Set metadata for a volume"))
            .arg(
                list(
                    "opt",
                    Some('o'),
                    "Set driver specific options (type=none, o=bind, device=/DIR)",
                )
                .value_name("map"),
            )
            // What the name was given with before it became an argument.
            .arg(value("name", None, "string", "Specify volume name").hide(true))
    },
    run: create,
};

/// `mille volume ls`.
pub(crate) static LS: Verb = Verb {
    name: "volume ls",
    usage: "[OPTIONS]",
    about: "List volumes",
    arity: Arity::None,
    flags_first: false,
    flags: |command| {
        filter(
            command,
            Some('f'),
            "Provide filter values (e.g. \"dangling=true\")",
        )
        .arg(table_format())
        .arg(switch("quiet", Some('q'), "Only display volume names"))
    },
    run: ls,
};

/// `mille volume rm`.
pub(crate) static RM: Verb = Verb {
    name: "volume rm",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: |command| {
        command.arg(switch(
            "force",
            Some('f'),
            "Force the removal of one or more volumes",
        ))
    },
    run: rm,
};

/// `mille volume prune`.
pub(crate) static PRUNE: Verb = Verb {
    name: "volume prune",
    usage: "[OPTIONS]",
    about: "Remove unused local volumes",
    arity: Arity::None,
    flags_first: false,
    flags: |command| {
        filter(
            command,
            None,
            "Provide filter values (e.g. \"label=<label>\")",
        )
        .arg(switch(
            "all",
            Some('a'),
            "Remove all unused volumes, not just anonymous ones",
        ))
        .arg(switch("force", Some('f'), "Do not prompt for confirmation"))
    },
    run: prune,
};

fn filter(command: Command, short: Option<char>, help: &'static str) -> Command {
    command.arg(list("filter", short, help).value_name("filter"))
}

fn pairs(texts: Vec<String>) -> BTreeMap<String, String> {
    let pair = |text: String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (text, String::new()),
    };
    texts.into_iter().map(pair).collect()
}

fn create(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let name = words(matches).into_iter().next();
    let flag = text(matches, "name").map(str::to_owned);
    if name.is_some() && flag.is_some() {
        return Err(Failure::plain(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let options = VolumeOptions {
        name: name.or(flag),
        driver: text(matches, "driver").unwrap_or_default().to_owned(),
        labels: pairs(texts(matches, "label")),
        options: pairs(texts(matches, "opt")),
    };
    let name = context.records()?.create_volume(&options)?;
    output::emit(&format!("{name}\n"))?;
    Ok(ExitCode::SUCCESS)
}

const FILTERS: &[&str] = &["dangling", "driver", "label", "name"];

fn ls(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let format = text(matches, "format").unwrap_or_default();
    let filters = Filters::read(&LS, &texts(matches, "filter"), FILTERS)?;
    let list = columns();
    let sheet = if is_on(matches, "quiet") {
        list.quiet("Name")?
    } else {
        list.sheet(format)?
    };
    let engine = context.records()?;
    let rows: Vec<Row> = select(&engine, &filters)?.iter().map(row).collect();
    output::emit(&sheet.lay_out(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

fn select(engine: &Engine, filters: &Filters) -> Result<Vec<Volume>, Failure> {
    let dangling = filters.flag("dangling")?;
    let mut found = Vec::new();
    for volume in engine.volumes()? {
        let fits = labels_fit(&volume, filters)
            && filters.matches("name", &[&volume.name])
            && filters.matches("driver", &["local"]);
        let unused = |volume: &Volume| -> Result<bool, Failure> {
            Ok(engine.volume_users(&volume.name)?.is_empty())
        };
        if fits && (dangling.is_none() || dangling == Some(unused(&volume)?)) {
            found.push(volume);
        }
    }
    Ok(found)
}

fn labels_fit(volume: &Volume, filters: &Filters) -> bool {
    let label = |key: &str| volume.labels.as_ref()?.get(key).map(String::as_str);
    filters.labels(label)
}

pub(super) fn columns() -> List {
    List {
        table: "{{.Driver}}\t{{.Name}}".to_owned(),
        raw: "name: {{.Name}}\\ndriver: {{.Driver}}\\n",
        titles: &[
            ("Availability", "AVAILABILITY"),
            ("Driver", "DRIVER"),
            ("Group", "GROUP"),
            ("Labels", "LABELS"),
            ("Links", "LINKS"),
            ("Mountpoint", "MOUNTPOINT"),
            ("Name", "VOLUME NAME"),
            ("Scope", "SCOPE"),
            ("Size", "SIZE"),
            ("Status", "STATUS"),
        ],
        kind: "*formatter.volumeContext",
        errors: ("template parsing error: ", "template parsing error: "),
    }
}

pub(super) fn row(volume: &Volume) -> Row {
    let unknown = || "N/A".to_owned();
    let labels = volume.labels.clone().unwrap_or_default();
    let joined: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let fields = Tree::texts([
        ("Availability", unknown()),
        ("Driver", "local".to_owned()),
        ("Group", unknown()),
        ("Labels", joined.join(",")),
        ("Links", unknown()),
        (
            "Mountpoint",
            volume.mountpoint.to_string_lossy().into_owned(),
        ),
        ("Name", volume.name.clone()),
        ("Scope", "local".to_owned()),
        ("Size", unknown()),
        ("Status", unknown()),
    ]);
    Row {
        fields,
        labels: Some(labels),
    }
}

fn rm(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let force = is_on(matches, "force");
    let engine = context.layers()?;
    each(&words(matches), |name| match engine.remove_volume(name) {
        Err(Error::NoSuchVolume(_)) if force => Ok(()),
        other => Ok(other?),
    })
}

fn prune(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let filters = Filters::read(
        &PRUNE,
        &texts(matches, "filter"),
        &["all", "label", "label!"],
    )?;
    let all = is_on(matches, "all") || filters.flag("all")? == Some(true);
    let which = if all { "all" } else { "anonymous" };
    let rules = Rules::of(filters)?;
    let warning =
        format!("This will remove {which} local volumes not used by at least one container.");
    if !agreed(matches, &warning)? {
        return Ok(ExitCode::SUCCESS);
    }
    let engine = context.layers()?;
    let wanted = |volume: &Volume| (all || volume.anonymous) && rules.take_volume(volume);
    let pruned = engine.prune_volumes(wanted)?;
    let mut said = String::new();
    if !pruned.names.is_empty() {
        said = format!("Deleted Volumes:\n{}\n\n", pruned.names.join("\n"));
    }
    said.push_str(&format!(
        "Total reclaimed space: {}\n",
        human::size(pruned.bytes, 4)
    ));
    output::emit(&said)?;
    Ok(ExitCode::SUCCESS)
}

/// What inspect shows of a volume, docker's keys in docker's order.
pub(super) fn object(volume: &Volume) -> Tree {
    let text = |text: &str| Tree::Text(text.to_owned());
    let map = |map: &Option<BTreeMap<String, String>>| match map {
        None => Tree::Null,
        Some(map) => Tree::Map(
            map.iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
        ),
    };
    let mountpoint = volume.mountpoint.to_string_lossy();
    Tree::Map(
        [
            ("CreatedAt", text(&volume.created)),
            ("Driver", text("local")),
            ("Labels", map(&volume.labels)),
            ("Mountpoint", text(&mountpoint)),
            ("Name", text(&volume.name)),
            ("Options", map(&volume.options)),
            ("Scope", text("local")),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            created: "2026-11-21T02:55:54Z".to_owned(),
            labels: Some([("a".to_owned(), "b".to_owned())].into()),
            options: None,
            anonymous: false,
            mountpoint: format!("/w/D/volumes/{name}/_data").into(),
        }
    }

    #[test]
    fn lists_are_dockers() {
        let rows = [row(&volume("vol1"))];
        let list = columns();
        let laid_out = |format: &str| list.sheet(format).unwrap().lay_out(&rows).unwrap();
        assert_eq!(laid_out(""), "DRIVER    VOLUME NAME\nlocal     vol1\n");
        assert_eq!(
            laid_out("json"),
            "{\"Availability\":\"N/A\",\"Driver\":\"local\",\"Group\":\"N/A\",\"Labels\":\"a=b\",\"Links\":\"N/A\",\
             \"Mountpoint\":\"/w/D/volumes/vol1/_data\",\"Name\":\"vol1\",\"Scope\":\"local\",\"Size\":\"N/A\",\
             \"Status\":\"N/A\"}\n"
        );
        assert_eq!(laid_out("{{.Label \"a\"}}"), "b\n");
    }

    #[test]
    fn inspect_is_dockers() {
        assert_eq!(
            object(&volume("vol1")).compact(),
            "{\"CreatedAt\":\"2026-11-21T02:55:54Z\",\"Driver\":\"local\",\"Labels\":{\"a\":\"b\"},\
             \"Mountpoint\":\"/w/D/volumes/vol1/_data\",\"Name\":\"vol1\",\"Options\":null,\"Scope\":\"local\"}"
        );
    }
}
