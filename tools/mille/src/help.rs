//! Help texts: the overview, a group of commands, a command with its flags; laid out as docker's.

use std::os::fd::AsFd;

use clap::Arg;

use crate::arguments;
use crate::commands::{GROUPS, Verb};
use crate::lookup::{Group, aliases};

/// Width where standard input is no terminal, in cells.
const USUAL_CELLS: usize = 80;
/// Cells by which the last line of a text may be longer rather than be broken once more.
const SLACK_CELLS: usize = 5;
/// Least room beside the flags in which texts are broken.
const LEAST_CELLS: usize = 24;

/// What docker's overview begins with, in its order.
const COMMON: [&str; 12] = [
    "run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version",
    "info",
];

/// The overview.
pub(crate) fn overview() -> String {
    let mut text =
        "Usage:  mille [OPTIONS] COMMAND\n\nContainers on a layered filesystem in user space\n"
            .to_owned();
    let verbs = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter());
    let (mut common, mut others): (Vec<&Verb>, Vec<&Verb>) =
        verbs.partition(|verb| COMMON.contains(&verb.name));
    common.sort_by_key(|verb| COMMON.iter().position(|name| *name == verb.name));
    others.sort_by_key(|verb| verb.name);
    text.push_str("\nCommon Commands:\n");
    for verb in common {
        text.push_str(&line(verb.name, verb.about));
    }
    text.push_str("\nManagement Commands:\n");
    for group in Group::ALL {
        text.push_str(&line(group.name(), group.about()));
    }
    text.push_str("\nCommands:\n");
    for verb in others {
        text.push_str(&line(verb.name, verb.about));
    }
    text.push_str("\nGlobal Options:\n      --root string   Directory of the store (default /var/lib/mille; MILLE_ROOT)\n");
    text.push_str("  -v, --version       Print version information and quit\n");
    text.push_str("\nRun 'mille COMMAND --help' for more information on a command.\n");
    text
}

/// A command in a list, with the first line of what it does.
fn line(name: &str, about: &str) -> String {
    let about = about.lines().next().unwrap_or_default();
    format!("  {name:<11} {about}\n")
}

/// The commands of a group.
pub(crate) fn group(group: Group) -> String {
    let name = group.name();
    let mut text = format!(
        "Usage:  mille {name} COMMAND\n\n{}\n\nCommands:\n",
        group.about()
    );
    for (word, verb) in group.verbs() {
        text.push_str(&line(word, verb.about));
    }
    text.push_str(&format!(
        "\nRun 'mille {name} COMMAND --help' for more information on a command.\n"
    ));
    text
}

/// A command's help, for the width of the terminal.
pub(crate) fn command(verb: &'static Verb) -> String {
    let size = mille_engine::terminal_size(std::io::stdin().as_fd());
    let cells = size
        .map(|[_, columns]| usize::from(columns))
        .filter(|cells| *cells > 0);
    laid_out(verb, cells.unwrap_or(USUAL_CELLS))
}

fn laid_out(verb: &'static Verb, cells: usize) -> String {
    let mut text = format!("Usage:  mille {}", verb.synopsis())
        .trim_end()
        .to_owned();
    text.push_str(&format!("\n\n{}\n", verb.about));
    let names = aliases(verb);
    if names.len() > 1 {
        text.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
    }
    let command = arguments::command(verb);
    let mut flags: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .collect();
    if flags.is_empty() {
        return text;
    }
    flags.sort_by_key(|arg| arg.get_long().unwrap_or_default().to_owned());
    text.push_str("\nOptions:\n");
    let width = flags.iter().map(|arg| left(arg).len()).max().unwrap_or(0);
    for flag in flags {
        let about = wrapped(&about(flag), width + 3, cells);
        text.push_str(&format!("{:<width$}   {about}\n", left(flag)));
    }
    text
}

/// `  -n, --tail string`.
fn left(flag: &Arg) -> String {
    let short = flag
        .get_short()
        .map_or("    ".to_owned(), |short| format!("-{short}, "));
    let kind = flag
        .get_value_names()
        .and_then(|names| names.first())
        .map(ToString::to_string)
        .unwrap_or_default();
    format!("  {short}--{} {kind}", flag.get_long().unwrap_or_default())
        .trim_end()
        .to_owned()
}

fn about(flag: &Arg) -> String {
    let text = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let on = flag
        .get_default_values()
        .iter()
        .any(|value| value == "true");
    if on {
        format!("{text} (default true)")
    } else {
        text
    }
}

/// Breaks a text at blanks into lines that stand beside a column of `indent` cells.
fn wrapped(text: &str, indent: usize, cells: usize) -> String {
    let Some(room) = cells
        .checked_sub(indent + 1)
        .filter(|room| *room >= LEAST_CELLS)
    else {
        return text.to_owned();
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while rest.len() >= room {
        let blanks = rest
            .match_indices(' ')
            .map(|(at, _)| at)
            .take_while(|at| *at < room - SLACK_CELLS);
        let Some(at) = blanks.last().filter(|at| *at > 0) else {
            break;
        };
        lines.push(&rest[..at]);
        rest = &rest[at + 1..];
    }
    lines.push(rest);
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup;

    fn verb(name: &str) -> &'static Verb {
        lookup::plain(name).unwrap()
    }

    #[test]
    fn a_command_is_laid_out_as_dockers() {
        let want = "Usage:  mille logs [OPTIONS] CONTAINER

Fetch the logs of a container

Aliases:
  mille container logs, mille logs

Options:
      --details        Show extra details provided to logs
  -f, --follow         Follow log output
      --since string   Show logs since timestamp (e.g.
                       \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\"
                       for 42 minutes)
  -n, --tail string    Number of lines to show from the end of the logs
                       (default \"all\")
  -t, --timestamps     Show timestamps
      --until string   Show logs before a timestamp (e.g.
                       \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\"
                       for 42 minutes)
";
        assert_eq!(laid_out(verb("logs"), 80), want);
    }

    #[test]
    fn commands_without_flags_and_with_other_names() {
        let want = "Usage:  mille wait CONTAINER [CONTAINER...]

Block until one or more containers stop, then print their exit codes

Aliases:
  mille container wait, mille wait
";
        assert_eq!(laid_out(verb("wait"), 80), want);
        for (name, want) in [
            (
                "ps",
                "mille container ls, mille container list, mille container ps, mille ps",
            ),
            ("rmi", "mille image rm, mille image remove, mille rmi"),
            ("images", "mille image ls, mille image list, mille images"),
        ] {
            let text = laid_out(verb(name), 80);
            assert!(
                text.contains(&format!("\nAliases:\n  {want}\n")),
                "{name}: {text}"
            );
        }
        assert!(!laid_out(verb("inspect"), 80).contains("Aliases"));
        assert!(laid_out(verb("commit"), 80).contains("during commit (default true)"));
    }

    #[test]
    fn no_line_is_too_wide() {
        for (_, verbs) in GROUPS {
            for verb in *verbs {
                let text = laid_out(verb, 80);
                let flags = text.split("Options:\n").nth(1).unwrap_or_default();
                for line in flags.lines() {
                    assert!(line.chars().count() < 80, "{}: {line}", verb.name);
                }
            }
        }
    }
}
