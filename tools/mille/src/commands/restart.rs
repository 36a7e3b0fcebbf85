//! `mille restart`.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{Arity, Verb, stop};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::{Failure, each};

/// `mille restart`.
pub(crate) const VERB: Verb = Verb {
    name: "restart",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Restart one or more containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: stop::add_flags,
    run: restart,
};

fn restart(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let options = stop::options(&VERB, matches)?;
    let names = words(matches);
    let engine = context.layers_to_start(&names)?;
    each(&names, |name| {
        Ok(engine.restart(&engine.find(name)?.id, &options)?)
    })
}
