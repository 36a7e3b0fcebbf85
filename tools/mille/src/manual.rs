//! Manual pages, of the same table of commands and flags as the help: one for `mille`, one for each command. Written by a
//! hidden command, which `just man` calls.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Arg;

use crate::arguments;
use crate::commands::{GROUPS, Verb};
use crate::failure::Failure;
use crate::lookup::{Group, aliases};

/// The hidden command.
pub(crate) const WORD: &str = "__man";

/// Writes the pages into the directory that is the only word.
pub(crate) fn run(words: &[OsString]) -> Result<ExitCode, Failure> {
    let [directory] = words else {
        return Err(Failure::plain(format!(
            "mille: usage: mille {WORD} DIRECTORY"
        )));
    };
    let directory = Path::new(directory);
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text)
            .map_err(|error| Failure::plain(format!("mille: write {}: {error}", path.display())))
    };
    std::fs::create_dir_all(directory).map_err(|error| {
        let path = directory.display();
        Failure::plain(format!("mille: create directory {path}: {error}"))
    })?;
    write("mille.1", overview())?;
    for verb in verbs() {
        write(&format!("{}.1", page_name(verb)), page(verb))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every command; those that only a group has (`volume create`) too.
fn verbs() -> impl Iterator<Item = &'static Verb> {
    let plain = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter()).copied();
    let grouped = Group::ALL.into_iter().flat_map(Group::verbs);
    let grouped = grouped.map(|(_, verb)| verb);
    plain.chain(grouped.filter(|verb| verb.name.contains(' ')))
}

fn page_name(verb: &Verb) -> String {
    format!("mille-{}", verb.name.replace(' ', "-"))
}

/// A text as roff takes it: no line begins a request, hyphens are hyphens that can be searched for.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.chars().next() {
            Some('.' | '\'') => format!("\\&{line}"),
            _ => line.to_owned(),
        })
        .collect();
    lines.join("\n")
}

fn heading(name: &str, about: &str) -> String {
    let title = name.to_uppercase();
    let version = env!("CARGO_PKG_VERSION");
    format!(
        ".TH \"{title}\" 1 \"\" \"mille {version}\" \"mille\"\n.SH NAME\n{} \\- {}\n",
        escaped(name),
        escaped(about.lines().next().unwrap_or_default())
    )
}

fn entry(left: &str, about: &str) -> String {
    format!(".TP\n{left}\n{}\n", escaped(about))
}

fn overview() -> String {
    let mut text = heading(
        "mille",
        "containers on a layered filesystem in user space, in docker's words",
    );
    text.push_str(".SH SYNOPSIS\n.B mille\n[OPTIONS] COMMAND [ARG...]\n.SH OPTIONS\n");
    let root = "Directory of the store; MILLE_ROOT where it is not given";
    text.push_str(&entry("\\fB\\-\\-root\\fR \\fIstring\\fR", root));
    text.push_str(&entry(
        "\\fB\\-v\\fR, \\fB\\-\\-version\\fR",
        "Print version information and quit",
    ));
    for (title, verbs) in GROUPS {
        text.push_str(&format!(".SH {}\n", escaped(&title.to_uppercase())));
        for verb in *verbs {
            let page = escaped(&page_name(verb));
            text.push_str(&entry(&format!("\\fB{page}\\fR(1)"), verb.about));
        }
    }
    text.push_str(".SH GROUPS\n");
    for group in Group::ALL {
        let names: Vec<_> = group.verbs().into_iter().map(|(name, _)| name).collect();
        let about = format!("{}: {}", group.about(), names.join(", "));
        let name = format!("\\fBmille {}\\fR", group.name());
        text.push_str(&entry(&name, &about));
    }
    text.push_str(".SH EXIT STATUS\n125 is an error of mille or of a flag, 126 a command that cannot be run, 127 one that is not there; run and exec end with the code of the command.\n");
    text
}

fn page(verb: &'static Verb) -> String {
    let mut text = heading(&page_name(verb), verb.about);
    let usage = format!("mille {}", verb.synopsis());
    text.push_str(&format!(
        ".SH SYNOPSIS\n{}\n.SH DESCRIPTION\n{}.\n",
        escaped(usage.trim_end()),
        escaped(verb.about)
    ));
    let names = aliases(verb);
    if names.len() > 1 {
        let names = escaped(&names.join(", "));
        text.push_str(&format!(".PP\nAlso: {names}\n"));
    }
    let command = arguments::command(verb);
    let mut flags: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .collect();
    flags.sort_by_key(|arg| arg.get_long().unwrap_or_default().to_owned());
    if !flags.is_empty() {
        text.push_str(".SH OPTIONS\n");
    }
    for flag in flags {
        let about = flag.get_help().map(ToString::to_string).unwrap_or_default();
        text.push_str(&entry(&left(flag), &about));
    }
    text.push_str(".SH SEE ALSO\n.BR mille (1)\n");
    text
}

/// `-n, --tail string`.
fn left(flag: &Arg) -> String {
    let short = flag
        .get_short()
        .map(|short| format!("\\fB\\-{short}\\fR, "))
        .unwrap_or_default();
    let long = escaped(flag.get_long().unwrap_or_default());
    let kind = flag
        .get_value_names()
        .and_then(|names| names.first())
        .filter(|name| !name.is_empty())
        .map(|name| format!(" \\fI{name}\\fR"))
        .unwrap_or_default();
    format!("{short}\\fB\\-\\-{long}\\fR{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_flag_is_on_it() {
        for verb in verbs() {
            let text = page(verb);
            assert!(text.starts_with(".TH \"MILLE-"), "{text}");
            let command = arguments::command(verb);
            for flag in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let name = format!("\\-\\-{}\\fR", escaped(flag.get_long().unwrap()));
                assert!(text.contains(&name), "{}: {name}", verb.name);
            }
            let plain = !verb.name.contains(' ');
            assert!(
                !plain || overview().contains(&escaped(verb.about)),
                "{}",
                verb.name
            );
        }
    }

    #[test]
    fn roff_takes_texts_as_they_are() {
        for (given, want) in [
            ("a-b", "a\\-b"),
            (".x\n'y", "\\&.x\n\\&'y"),
            ("\\n", "\\en"),
        ] {
            assert_eq!(escaped(given), want);
        }
    }
}
