//! `mille umount`.

use std::path::Path;
use std::process::ExitCode;

use clap::ArgMatches;

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::{Failure, each};

/// `mille umount`.
pub(crate) const VERB: Verb = Verb {
    name: "umount",
    usage: "DIRECTORY [DIRECTORY...]",
    about: "Unmount what mille mount has mounted",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: |command| command,
    run: umount,
};

fn umount(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let engine = context.records()?;
    each(&words(matches), |directory| {
        Ok(engine.umount(Path::new(directory))?)
    })
}
