//! `mille history`: the steps that made an image.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use jiff::Timestamp;
use mille_store::HistoryLine;

use super::{Arity, Verb};
use crate::arguments::{self, is_on, switch, table_format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Tree;
use crate::output::rows::{List, Row};
use crate::output::{self, human};
use crate::platform;

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "history",
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    arity: Arity::Exactly(1),
    flags_first: false,
    flags,
    run,
};

/// Cells of CREATED BY.
const COMMAND_CELLS: usize = 45;

fn flags(command: Command) -> Command {
    command
        .arg(table_format())
        .arg(
            switch(
                "human",
                Some('H'),
                "Print sizes and dates in human readable format",
            )
            .default_value("true"),
        )
        .arg(switch("no-trunc", None, "Don't truncate output"))
        .arg(platform::flag())
        .arg(switch("quiet", Some('q'), "Only show image IDs"))
}

/// How much of a line is shown.
#[derive(Debug, Clone, Copy)]
struct Look {
    human: bool,
    truncate: bool,
    now: Timestamp,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let look = Look {
        human: is_on(matches, "human"),
        truncate: !is_on(matches, "no-trunc"),
        now: Timestamp::now(),
    };
    let format = arguments::text(matches, "format").unwrap_or_default();
    let list = list(look);
    let sheet = if is_on(matches, "quiet") {
        list.quiet("ID")?
    } else {
        list.sheet(format)?
    };
    let engine = context.records()?;
    let words = arguments::words(matches);
    let typed = words.first().map_or("", String::as_str);
    platform::check(&engine, matches, typed)?;
    let image = engine.resolve_image(typed)?;
    let lines = engine.store().history(&image)?;
    let rows: Vec<Row> = lines.iter().map(|line| row(line, look)).collect();
    output::emit(&sheet.lay_out(&rows)?)?;
    Ok(ExitCode::SUCCESS)
}

fn list(look: Look) -> List {
    let created = if look.human {
        "CreatedSince"
    } else {
        "CreatedAt"
    };
    List {
        table: format!(
            "{{{{.ID}}}}\t{{{{.{created}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}"
        ),
        raw: "raw",
        titles: &[
            ("Comment", "COMMENT"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("CreatedSince", "CREATED"),
            ("ID", "IMAGE"),
            ("Size", "SIZE"),
        ],
        kind: "*formatter.historyContext",
        errors: ("template parsing error: ", "template parsing error: "),
    }
}

fn row(line: &HistoryLine, look: Look) -> Row {
    let id = line.id.as_ref().map_or_else(
        || "<missing>".to_owned(),
        |id| {
            if look.truncate {
                id.short()
            } else {
                id.to_string()
            }
        },
    );
    let created_by = line.created_by.replace('\t', " ");
    let fields = Tree::texts([
        ("Comment", line.comment.clone()),
        ("CreatedAt", human::rfc3339(line.created)),
        (
            "CreatedBy",
            if look.truncate {
                human::ellipsis(&created_by, COMMAND_CELLS)
            } else {
                created_by
            },
        ),
        ("CreatedSince", human::ago(line.created, look.now)),
        ("ID", id),
        (
            "Size",
            if look.human {
                human::size(line.size, 3)
            } else {
                line.size.to_string()
            },
        ),
    ]);
    Row {
        fields,
        labels: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_dockers() {
        let look = Look {
            human: true,
            truncate: true,
            now: "2026-11-21T02:25:06.4Z".parse().unwrap(),
        };
        let step = |created: &str, created_by: &str, size, comment: &str| HistoryLine {
            id: None,
            created: created.parse().ok(),
            created_by: created_by.to_owned(),
            size,
            comment: comment.to_owned(),
            tags: Vec::new(),
        };
        let steps = [
            step("2026-11-21T02:25:06.3Z", "sh -c rm /f", 0, ""),
            step(
                "2026-11-21T02:25:05Z",
                "sh -c echo hello > /f; head -c 100000 /dev/zero > /g",
                100_006,
                "a long message",
            ),
        ];
        let shown = |look: Look| {
            let rows: Vec<Row> = steps.iter().map(|step| row(step, look)).collect();
            list(look).sheet("").unwrap().lay_out(&rows).unwrap()
        };
        assert_eq!(
            shown(look),
            "IMAGE       CREATED                  CREATED BY                                      SIZE      COMMENT\n\
             <missing>   Less than a second ago   sh -c rm /f                                     0B        \n\
             <missing>   1 second ago             sh -c echo hello > /f; head -c 100000 /dev/z…   100kB     a long message\n"
        );
        let plain = shown(Look {
            human: false,
            truncate: false,
            ..look
        });
        assert!(plain.starts_with("IMAGE       CREATED AT"), "{plain}");
        assert!(
            plain.contains("/dev/zero > /g   100006    a long message"),
            "{plain}"
        );
    }
}
