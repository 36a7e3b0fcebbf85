//! What may follow on an unfinished command line. The scripts of `mille completion` ask with a hidden command and show
//! what it prints, one candidate a line; a last line says whether names of files may follow too.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Command;
use mille_engine::{Container, Engine};

use crate::arguments;
use crate::commands::{GROUPS, Verb};
use crate::context::Context;
use crate::failure::Failure;
use crate::lookup::{self, Asked, Group};
use crate::output;

/// The hidden command.
pub(crate) const WORD: &str = "__complete";
/// Last line: names of files may follow.
const FILES: &str = ":files";

/// What a word stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container(Wanted),
    Image,
    Volume,
    Either,
    File,
    Nothing,
}

/// Which containers a command can do something with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    Running,
    Stopped,
}

/// Commands for containers that run.
const FOR_RUNNING: &[&str] = &[
    "attach", "exec", "kill", "pause", "port", "stats", "stop", "top",
];

/// Prints the candidates for the last of `words`, which follow the program's name.
pub(crate) fn run(context: &Context, words: &[OsString]) -> Result<ExitCode, Failure> {
    let words: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", &[][..]),
    };
    let mut text = String::new();
    let (mut candidates, kind) = candidates(before, last);
    candidates.extend(names(context, kind));
    candidates.retain(|candidate| candidate.starts_with(last));
    candidates.sort();
    candidates.dedup();
    for candidate in candidates {
        text.push_str(&candidate);
        text.push('\n');
    }
    if kind == Kind::File {
        text.push_str(FILES);
        text.push('\n');
    }
    output::emit(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The names of what there is; none when the store cannot be read, since there is nobody to tell.
fn names(context: &Context, kind: Kind) -> Vec<String> {
    let wanted = match kind {
        Kind::Container(_) | Kind::Image | Kind::Volume | Kind::Either => context.records().ok(),
        Kind::File | Kind::Nothing => None,
    };
    let Some(engine) = wanted else {
        return Vec::new();
    };
    match kind {
        Kind::Container(wanted) => containers(&engine, wanted),
        Kind::Image => images(&engine),
        Kind::Volume => volumes(&engine),
        _ => [containers(&engine, Wanted::Any), images(&engine)].concat(),
    }
}

fn containers(engine: &Engine, wanted: Wanted) -> Vec<String> {
    let fits = |container: &Container| match wanted {
        Wanted::Any => true,
        Wanted::Running => container.is_running(),
        Wanted::Stopped => !container.is_running(),
    };
    let all = engine.containers().unwrap_or_default();
    all.iter()
        .filter(|container| fits(container))
        .map(|container| container.name.trim_start_matches('/').to_owned())
        .collect()
}

fn images(engine: &Engine) -> Vec<String> {
    let all = engine.store().images().unwrap_or_default();
    all.iter().flat_map(|image| image.repo_tags()).collect()
}

fn volumes(engine: &Engine) -> Vec<String> {
    let all = engine.volumes().unwrap_or_default();
    all.into_iter().map(|volume| volume.name).collect()
}

/// The words that may stand in place of `last`, and what else may.
fn candidates(before: &[String], last: &str) -> (Vec<String>, Kind) {
    let before = after_globals(before);
    let Some((first, rest)) = before.split_first() else {
        return (top(last), Kind::Nothing);
    };
    if first == "help" {
        return (
            if rest.is_empty() { top("") } else { Vec::new() },
            Kind::Nothing,
        );
    }
    if let Some(group) = Group::ALL.into_iter().find(|group| group.name() == first)
        && rest.is_empty()
    {
        let names = group.verbs().into_iter();
        return (
            names.map(|(name, _)| name.to_owned()).collect(),
            Kind::Nothing,
        );
    }
    let words: Vec<OsString> = before.iter().map(OsString::from).collect();
    match lookup::find(&words) {
        Ok(Asked::Command(verb, rest)) => {
            let rest: Vec<_> = rest.iter().map(|word| word.to_string_lossy()).collect();
            let rest: Vec<&str> = rest.iter().map(AsRef::as_ref).collect();
            of_verb(verb, &rest, last)
        }
        _ => (Vec::new(), Kind::Nothing),
    }
}

fn after_globals(words: &[String]) -> &[String] {
    match words {
        [flag, _, rest @ ..] if flag == "--root" => after_globals(rest),
        [flag, rest @ ..] if flag.starts_with("--root=") => after_globals(rest),
        _ => words,
    }
}

/// The first word.
fn top(last: &str) -> Vec<String> {
    if last.starts_with('-') {
        return ["--root", "--help", "--version"]
            .map(str::to_owned)
            .to_vec();
    }
    let verbs = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter());
    let groups = Group::ALL.into_iter().map(Group::name);
    verbs
        .map(|verb| verb.name)
        .chain(groups)
        .chain(["help"])
        .map(str::to_owned)
        .collect()
}

/// A word after a command: a flag, the value of one, or an argument.
fn of_verb(verb: &'static Verb, before: &[&str], last: &str) -> (Vec<String>, Kind) {
    let command = arguments::command(verb);
    let (mut position, mut words, mut flags_end) = (0, before.iter(), false);
    while let Some(word) = words.next() {
        if flags_end || !word.starts_with('-') || *word == "-" {
            position += 1;
            flags_end |= verb.flags_first;
        } else if *word == "--" {
            flags_end = true;
        } else if takes_next(&command, word) && words.next().is_none() {
            return (Vec::new(), value(word));
        }
    }
    if last.starts_with('-') && !flags_end {
        return (flags(&command), Kind::Nothing);
    }
    (Vec::new(), argument(verb, position))
}

/// Whether the value of a flag is the next word.
fn takes_next(command: &Command, word: &str) -> bool {
    let by_long = word.strip_prefix("--");
    let letter = word.chars().last();
    let flag = command.get_arguments().find(|arg| match by_long {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some() && arg.get_short() == letter,
    });
    flag.is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
}

/// What the value of a flag is: mostly something only the user knows.
fn value(flag: &str) -> Kind {
    match flag {
        "--volumes-from" => Kind::Container(Wanted::Any),
        "--env-file" | "--label-file" | "--cidfile" | "--volume" | "-v" | "--mount" | "--input"
        | "-i" | "--output" | "-o" | "--device" => Kind::File,
        _ => Kind::Nothing,
    }
}

fn flags(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    shown
        .filter_map(|arg| arg.get_long())
        .map(|long| format!("--{long}"))
        .collect()
}

/// What the usage line calls the argument at this place; the last one repeats.
fn argument(verb: &Verb, position: usize) -> Kind {
    let usage = verb.usage.trim_start_matches("[OPTIONS]");
    let parts: Vec<&str> = usage.split_whitespace().collect();
    let repeats = parts.last().is_some_and(|part| part.ends_with("...]"));
    let last = parts.len().saturating_sub(1);
    let Some(part) = parts.get(if repeats {
        position.min(last)
    } else {
        position
    }) else {
        return Kind::Nothing;
    };
    let own = verb.name.rsplit(' ').next().unwrap_or(verb.name);
    let wanted = match own {
        "start" => Wanted::Stopped,
        own if FOR_RUNNING.contains(&own) => Wanted::Running,
        _ => Wanted::Any,
    };
    match (part.contains("CONTAINER"), part.contains("IMAGE")) {
        (true, true) => Kind::Either,
        (true, false) => Kind::Container(wanted),
        // A name that is yet to be given.
        (false, true) if part.contains("TARGET") => Kind::Nothing,
        (false, true) => Kind::Image,
        _ if part.contains("VOLUME") && own == "create" => Kind::Nothing,
        _ if part.contains("VOLUME") => Kind::Volume,
        _ if part.contains("NAME|ID") => Kind::Either,
        _ if part.contains("REPOSITORY") && own == "images" => Kind::Image,
        _ if part.contains("NEW_NAME") || part.contains("REPOSITORY") => Kind::Nothing,
        _ => Kind::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> (Vec<String>, Kind) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().unwrap();
        let (mut found, kind) = candidates(before, last);
        found.retain(|word| word.starts_with(last.as_str()));
        (found, kind)
    }

    #[test]
    fn arguments_are_what_the_usage_calls_them() {
        use Kind::{Container, Either, File, Image, Nothing, Volume};
        for (line, want) in [
            ("run ", Image),
            ("run --rm ", Image),
            ("run --name ", Nothing),
            ("run -it --name x ", Image),
            ("run bb ", File),
            ("run --env-file ", File),
            ("container run ", Image),
            ("exec ", Container(Wanted::Running)),
            ("exec -it -w /x ", Container(Wanted::Running)),
            ("start ", Container(Wanted::Stopped)),
            ("start a b ", Container(Wanted::Stopped)),
            ("--root /x rm -f a ", Container(Wanted::Any)),
            ("--root=/x container stop ", Container(Wanted::Running)),
            ("rename ", Container(Wanted::Any)),
            ("rename a ", Nothing),
            ("tag ", Image),
            ("tag bb ", Nothing),
            ("rmi a ", Image),
            ("image inspect ", Image),
            ("inspect ", Either),
            ("mount ", Either),
            ("mount bb ", File),
            ("commit ", Container(Wanted::Any)),
            ("commit a ", Nothing),
            ("save -o ", File),
            ("frob ", Nothing),
            ("volume rm ", Volume),
            ("volume create ", Nothing),
        ] {
            assert_eq!(ask(line).1, want, "{line:?}");
        }
    }

    #[test]
    fn commands_groups_and_flags() {
        for (line, want) in [
            ("di", &["diff"][..]),
            ("im", &["images", "import", "image"]),
            ("image h", &["history"]),
            ("help dif", &["diff"]),
            ("run --rm --netw", &["--network"]),
            ("run bb --netw", &[]),
            ("logs --f", &["--follow"]),
            ("--ro", &["--root"]),
            ("frob x", &[]),
        ] {
            assert_eq!(ask(line).0, want, "{line:?}");
        }
    }
}
