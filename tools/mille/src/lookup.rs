//! Which command was typed: by its own name, in one of docker's groups, or a question for help.

use std::ffi::OsString;

use crate::commands::{
    GROUPS, Verb, df, events, images, info, inspect, prune, ps, rm, rmi, volume,
};
use crate::failure::Failure;
use crate::help;

/// What the words ask for.
#[derive(Debug)]
pub(crate) enum Asked<'w> {
    /// A command, with the words after its name.
    Command(&'static Verb, &'w [OsString]),
    /// A text on standard output.
    Text(String),
    /// A text on standard error, because the command is missing; docker ends with 0 all the same.
    Reminder(String),
}

/// Docker's groups of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// `mille container`.
    Container,
    /// `mille image`.
    Image,
    /// `mille volume`.
    Volume,
    /// `mille system`.
    System,
}

/// A name in a group and what it stands for.
type Entry = (&'static str, &'static Verb);

/// Names that differ from the command's own, or that it does not have.
const CONTAINER: &[Entry] = &[
    ("ls", &ps::VERB),
    ("list", &ps::VERB),
    ("ps", &ps::VERB),
    ("prune", &prune::CONTAINER),
    ("rm", &rm::VERB),
    ("remove", &rm::VERB),
];
const IMAGE: &[Entry] = &[
    ("ls", &images::VERB),
    ("list", &images::VERB),
    ("prune", &prune::IMAGE),
    ("rm", &rmi::VERB),
    ("remove", &rmi::VERB),
];
const VOLUME: &[Entry] = &[
    ("create", &volume::CREATE),
    ("ls", &volume::LS),
    ("list", &volume::LS),
    ("prune", &volume::PRUNE),
    ("rm", &volume::RM),
    ("remove", &volume::RM),
];
const SYSTEM: &[Entry] = &[
    ("df", &df::VERB),
    ("events", &events::VERB),
    ("info", &info::VERB),
    ("prune", &prune::SYSTEM),
];

/// Commands that a group has by the same name.
const CONTAINER_SAME: &[&str] = &[
    "attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port",
    "rename", "restart", "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
];
const IMAGE_SAME: &[&str] = &["history", "import", "load", "save", "tag"];

impl Group {
    /// All of them.
    pub(crate) const ALL: [Group; 4] =
        [Group::Container, Group::Image, Group::Volume, Group::System];

    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Container => "container",
            Group::Image => "image",
            Group::Volume => "volume",
            Group::System => "system",
        }
    }

    /// One line of help.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Group::Container => "Manage containers",
            Group::Image => "Manage images",
            Group::Volume => "Manage volumes",
            Group::System => "Manage the store and what runs",
        }
    }

    fn named(self) -> &'static [Entry] {
        match self {
            Group::Container => CONTAINER,
            Group::Image => IMAGE,
            Group::Volume => VOLUME,
            Group::System => SYSTEM,
        }
    }

    fn same(self) -> &'static [&'static str] {
        match self {
            Group::Container => CONTAINER_SAME,
            Group::Image => IMAGE_SAME,
            Group::Volume => &[],
            Group::System => &[],
        }
    }

    /// Its `inspect` is a command of its own: it looks only for one kind of thing.
    fn inspect(self) -> Option<Entry> {
        match self {
            Group::Container => Some(("inspect", &inspect::CONTAINER)),
            Group::Image => Some(("inspect", &inspect::IMAGE)),
            Group::Volume => Some(("inspect", &inspect::VOLUME)),
            Group::System => None,
        }
    }

    /// Its commands by their first names, sorted.
    pub(crate) fn verbs(self) -> Vec<Entry> {
        let mut all: Vec<Entry> = self
            .same()
            .iter()
            .filter_map(|name| plain(name).map(|verb| (*name, verb)))
            .collect();
        for entry in self.named() {
            if !all.iter().any(|(_, verb)| verb.name == entry.1.name) {
                all.push(*entry);
            }
        }
        all.extend(self.inspect());
        all.sort_by_key(|(name, _)| *name);
        all
    }

    fn find(self, name: &str) -> Option<&'static Verb> {
        if let Some((inspect, verb)) = self.inspect()
            && name == inspect
        {
            return Some(verb);
        }
        let named = self.named().iter().find(|(word, _)| *word == name);
        let verb = named.map(|(_, verb)| *verb).or_else(|| {
            let same = self.same().contains(&name);
            same.then(|| plain(name)).flatten()
        })?;
        // Errors and help repeat the command as it was typed. One for the life of the program.
        let spoken = format!("{} {name}", self.name());
        Some(Box::leak(Box::new(Verb {
            name: Box::leak(spoken.into_boxed_str()),
            ..*verb
        })))
    }
}

/// All names of a command, docker's longer ones first; none but its own for `inspect`, which differs in each group.
pub(crate) fn aliases(verb: &Verb) -> Vec<String> {
    let own = own_name(verb);
    let mut all = Vec::new();
    for group in Group::ALL {
        let named = group.named().iter();
        let named = named.filter(|(_, target)| target.name == own);
        let same = group.same().iter().filter(|name| **name == own);
        let words = named.map(|(word, _)| *word).chain(same.copied());
        all.extend(words.map(|word| format!("mille {} {word}", group.name())));
    }
    let plain = format!("mille {own}");
    if !all.contains(&plain) {
        all.push(plain);
    }
    all
}

/// The name without a group: `ps` of `container ls`.
fn own_name(verb: &Verb) -> &str {
    let Some((group, word)) = verb.name.split_once(' ') else {
        return verb.name;
    };
    let group = Group::ALL.into_iter().find(|known| known.name() == group);
    let target = group.and_then(|group| group.named().iter().find(|(name, _)| *name == word));
    target.map_or(word, |(_, target)| target.name)
}

/// Finds a command by its own name.
pub(crate) fn plain(name: &str) -> Option<&'static Verb> {
    GROUPS
        .iter()
        .flat_map(|(_, verbs)| verbs.iter())
        .find(|verb| verb.name == name)
        .copied()
}

/// Finds out what was asked for.
pub(crate) fn find(words: &[OsString]) -> Result<Asked<'_>, Failure> {
    let Some((first, rest)) = words.split_first() else {
        return Ok(Asked::Reminder(help::overview()));
    };
    let first = first.to_string_lossy();
    match first.as_ref() {
        "help" => topic(rest),
        "-h" | "--help" => Ok(Asked::Text(help::overview())),
        "-v" | "--version" => {
            let version = env!("CARGO_PKG_VERSION");
            Ok(Asked::Text(format!("mille version {version}\n")))
        }
        name => match Group::ALL.iter().find(|group| group.name() == name) {
            Some(group) => grouped(*group, rest),
            None => plain(name)
                .map(|verb| Asked::Command(verb, rest))
                .ok_or_else(|| unknown(name, "")),
        },
    }
}

fn topic(rest: &[OsString]) -> Result<Asked<'_>, Failure> {
    let words: Vec<_> = rest.iter().map(|word| word.to_string_lossy()).collect();
    let group = |name: &str| Group::ALL.into_iter().find(|group| group.name() == name);
    let text = match words.as_slice() {
        [] => Some(help::overview()),
        [name] => group(name)
            .map(help::group)
            .or_else(|| plain(name).map(help::command)),
        [name, verb, ..] => group(name)
            .and_then(|group| group.find(verb))
            .or_else(|| plain(name))
            .map(help::command),
    };
    text.map(Asked::Text)
        .ok_or_else(|| Failure::plain(format!("unknown help topic: {}", words.join(" "))))
}

fn grouped(group: Group, rest: &[OsString]) -> Result<Asked<'_>, Failure> {
    let Some((name, rest)) = rest.split_first() else {
        return Ok(Asked::Reminder(help::group(group)));
    };
    let name = name.to_string_lossy();
    if name == "--help" || name == "-h" {
        return Ok(Asked::Text(help::group(group)));
    }
    group
        .find(&name)
        .map(|verb| Asked::Command(verb, rest))
        .ok_or_else(|| unknown(&name, group.name()))
}

/// An unknown command; of a group if there is one.
fn unknown(name: &str, group: &str) -> Failure {
    let path = format!("mille {group}").trim_end().to_owned();
    let usage = if group.is_empty() {
        String::new()
    } else {
        format!("Usage:  {path}\n\n")
    };
    Failure::plain(format!(
        "mille: unknown command: {path} {name}\n\n{usage}Run '{path} --help' for more information"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn say(text: &str) -> String {
        match find(&words(text)) {
            Ok(Asked::Command(verb, rest)) => format!("{} + {}", verb.name, rest.len()),
            Ok(Asked::Text(text)) => format!("out: {}", text.lines().next().unwrap_or_default()),
            Ok(Asked::Reminder(text)) => {
                format!("err: {}", text.lines().next().unwrap_or_default())
            }
            Err(Failure::Plain { text, code: 1 }) => text,
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn commands_and_groups() {
        for (text, want) in [
            ("ps -a", "ps + 1"),
            ("container ls -a", "container ls + 1"),
            ("container rm x y", "container rm + 2"),
            ("image rm x", "image rm + 1"),
            ("image inspect x", "image inspect + 1"),
            ("container inspect", "container inspect + 0"),
            ("", "err: Usage:  mille [OPTIONS] COMMAND"),
            ("help", "out: Usage:  mille [OPTIONS] COMMAND"),
            ("-h", "out: Usage:  mille [OPTIONS] COMMAND"),
            (
                "help run",
                "out: Usage:  mille run [OPTIONS] IMAGE [COMMAND] [ARG...]",
            ),
            ("image", "err: Usage:  mille image COMMAND"),
            ("container --help", "out: Usage:  mille container COMMAND"),
            ("help frob", "unknown help topic: frob"),
            (
                "frob",
                "mille: unknown command: mille frob\n\nRun 'mille --help' for more information",
            ),
            (
                "image frob",
                "mille: unknown command: mille image frob\n\nUsage:  mille image\n\nRun 'mille image --help' for more information",
            ),
            (
                "image run",
                "mille: unknown command: mille image run\n\nUsage:  mille image\n\nRun 'mille image --help' for more information",
            ),
        ] {
            assert_eq!(say(text), want, "{text}");
        }
    }

    #[test]
    fn every_name_of_a_group_is_there() {
        for group in Group::ALL {
            for name in group.same() {
                assert!(plain(name).is_some(), "{name}");
            }
        }
    }
}
