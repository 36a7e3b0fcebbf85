//! The commands: one file each, and the table that names them.

mod attach;
mod commit;
mod create;
mod diff;
mod doctor;
mod exec;
mod export;
mod fsck;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod load;
mod logs;
mod mount;
mod ps;
mod rename;
mod rm;
mod rmi;
mod run;
mod save;
mod start;
mod stop;
mod tag;
mod umount;
mod version;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Failure;

/// How many arguments that are no flags a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    /// None at all.
    None,
    /// So many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
    /// So many or fewer.
    AtMost(usize),
    /// Within both bounds.
    Between(usize, usize),
}

/// One command.
#[derive(Debug)]
pub(crate) struct Verb {
    /// As it is typed.
    pub(crate) name: &'static str,
    /// What follows the name in a usage line.
    pub(crate) usage: &'static str,
    /// One line of help.
    pub(crate) about: &'static str,
    /// Number of arguments.
    pub(crate) arity: Arity,
    /// Flags end at the first argument: what follows belongs to the container's command.
    pub(crate) flags_first: bool,
    /// Adds the flags.
    pub(crate) flags: fn(Command) -> Command,
    /// Does it.
    pub(crate) run: fn(&Context, &ArgMatches) -> Result<ExitCode, Failure>,
}

impl Verb {
    /// The usage line and where to find more, as docker ends a usage error; `word` is `Run` or, after "at least", `See`.
    pub(crate) fn usage_tail(&self, word: &str) -> String {
        format!(
            "Usage:  mille {0} {1}\n\n{word} 'mille {0} --help' for more information",
            self.name, self.usage
        )
    }
}

/// The commands as help groups them.
pub(crate) const GROUPS: &[(&str, &[&Verb])] = &[
    (
        "Containers",
        &[
            &run::VERB,
            &create::VERB,
            &start::VERB,
            &exec::VERB,
            &attach::VERB,
            &ps::VERB,
            &logs::VERB,
            &stop::VERB,
            &kill::VERB,
            &wait::VERB,
            &rename::VERB,
            &rm::VERB,
        ],
    ),
    ("Changes", &[&diff::VERB, &commit::VERB, &export::VERB]),
    (
        "Images",
        &[
            &images::VERB,
            &import::VERB,
            &load::VERB,
            &save::VERB,
            &tag::VERB,
            &rmi::VERB,
            &history::VERB,
            &inspect::VERB,
        ],
    ),
    (
        "Looking in",
        &[
            &mount::VERB,
            &umount::VERB,
            &fsck::VERB,
            &doctor::VERB,
            &info::VERB,
            &version::VERB,
        ],
    ),
];

/// `mille container VERB`: docker's words for the verbs it groups there.
const CONTAINER: &[(&str, &Verb)] = &[
    ("ls", &ps::VERB),
    ("list", &ps::VERB),
    ("inspect", &inspect::CONTAINER),
];

/// `mille image VERB`.
const IMAGE: &[(&str, &Verb)] = &[
    ("ls", &images::VERB),
    ("list", &images::VERB),
    ("rm", &rmi::VERB),
    ("inspect", &inspect::IMAGE),
];

/// Verbs that both groups share with the top level.
const CONTAINER_PLAIN: &[&str] = &[
    "run", "create", "start", "exec", "attach", "ps", "logs", "stop", "kill", "wait", "rename",
    "rm", "diff", "commit", "export",
];
const IMAGE_PLAIN: &[&str] = &["import", "load", "save", "tag", "history"];

fn plain(name: &str) -> Option<&'static Verb> {
    GROUPS
        .iter()
        .flat_map(|(_, verbs)| verbs.iter())
        .find(|verb| verb.name == name)
        .copied()
}

/// Finds the command in what was typed; `None` asks for the overview.
pub(crate) fn find(words: &[OsString]) -> Result<Option<(&'static Verb, &[OsString])>, Failure> {
    let Some((first, rest)) = words.split_first() else {
        return Ok(None);
    };
    let first = first.to_string_lossy();
    match first.as_ref() {
        "help" | "-h" | "--help" => help(rest),
        "-v" | "--version" => {
            println!("mille version {}", env!("CARGO_PKG_VERSION"));
            std::process::exit(0);
        }
        "container" => grouped(&first, rest, CONTAINER, CONTAINER_PLAIN),
        "image" => grouped(&first, rest, IMAGE, IMAGE_PLAIN),
        name => plain(name)
            .map(|verb| Some((verb, rest)))
            .ok_or_else(|| unknown(name)),
    }
}

fn help(rest: &[OsString]) -> Result<Option<(&'static Verb, &[OsString])>, Failure> {
    let Some(name) = rest.first() else {
        print!("{}", crate::help::text());
        std::process::exit(0);
    };
    let name = name.to_string_lossy();
    crate::help::command(plain(&name).ok_or_else(|| unknown(&name))?);
    std::process::exit(0);
}

fn grouped<'w>(
    group: &str,
    rest: &'w [OsString],
    own: &[(&str, &'static Verb)],
    shared: &[&str],
) -> Result<Option<(&'static Verb, &'w [OsString])>, Failure> {
    let Some((name, rest)) = rest.split_first() else {
        return Ok(None);
    };
    let name = name.to_string_lossy();
    let verb = own
        .iter()
        .find(|(word, _)| *word == name)
        .map(|(_, verb)| *verb);
    let verb = verb.or_else(|| {
        shared
            .contains(&name.as_ref())
            .then(|| plain(&name))
            .flatten()
    });
    verb.map(|verb| Some((verb, rest)))
        .ok_or_else(|| unknown(&format!("{group} {name}")))
}

fn unknown(name: &str) -> Failure {
    Failure::plain(format!(
        "mille: unknown command: mille {name}\n\nRun 'mille --help' for more information"
    ))
}
