//! The commands: one file each, and the table that names them.

mod attach;
mod commit;
mod completion;
mod cp;
mod create;
pub(crate) mod df;
mod diff;
mod doctor;
pub(crate) mod events;
mod exec;
mod export;
mod fsck;
mod history;
pub(crate) mod images;
mod import;
pub(crate) mod info;
pub(crate) mod inspect;
mod kill;
mod load;
mod logs;
mod mount;
mod pause;
mod port;
pub(crate) mod prune;
pub(crate) mod ps;
mod rename;
mod restart;
pub(crate) mod rm;
pub(crate) mod rmi;
mod run;
mod save;
mod start;
mod stats;
mod stop;
mod tag;
mod top;
mod umount;
mod unpause;
mod update;
mod version;
pub(crate) mod volume;
mod wait;

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
#[derive(Debug, Clone, Copy)]
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
            "Usage:  mille {}\n\n{word} 'mille {} --help' for more information",
            self.synopsis(),
            self.name
        )
    }

    /// The name and what follows it.
    pub(crate) fn synopsis(&self) -> String {
        format!("{} {}", self.name, self.usage)
            .trim_end()
            .to_owned()
    }
}

/// The commands by what they are for.
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
            &restart::VERB,
            &kill::VERB,
            &pause::VERB,
            &unpause::VERB,
            &wait::VERB,
            &rename::VERB,
            &update::VERB,
            &top::VERB,
            &stats::VERB,
            &port::VERB,
            &rm::VERB,
        ],
    ),
    (
        "Changes",
        &[&diff::VERB, &cp::VERB, &commit::VERB, &export::VERB],
    ),
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
            &events::VERB,
            &info::VERB,
            &version::VERB,
            &completion::VERB,
        ],
    ),
];
