//! `mille rename`.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::Failure;

/// `mille rename`.
pub(crate) const VERB: Verb = Verb {
    name: "rename",
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    arity: Arity::Exactly(2),
    flags_first: false,
    flags: |command| command,
    run: rename,
};

fn rename(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = words(matches);
    let (old, new) = (words[0].trim(), words[1].trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::plain(
            "Error: Neither old nor new names may be empty",
        ));
    }
    let engine = context.records()?;
    if let Err(error) = engine
        .find(old)
        .and_then(|found| engine.rename(&found.id, new))
    {
        Failure::from(error).report();
        return Err(Failure::plain(format!(
            "Error: failed to rename container named {old}"
        )));
    }
    Ok(ExitCode::SUCCESS)
}
