//! `mille diff`.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::ArgMatches;
use mille_engine::DifferenceKind;

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// `mille diff`.
pub(crate) const VERB: Verb = Verb {
    name: "diff",
    usage: "CONTAINER",
    about: "Inspect changes to files or directories on a container's filesystem",
    arity: Arity::Exactly(1),
    flags_first: false,
    flags: |command| command,
    run: diff,
};

fn diff(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = words(matches);
    if words[0].is_empty() {
        return Err(Failure::plain("Container name cannot be empty"));
    }
    let engine = context.layers()?;
    let found = engine.find(&words[0])?;
    let mut text = Vec::new();
    for difference in engine.diff(&found.id)? {
        let letter = match difference.kind {
            DifferenceKind::Added => 'A',
            DifferenceKind::Changed => 'C',
            DifferenceKind::Deleted => 'D',
        };
        text.extend_from_slice(format!("{letter} ").as_bytes());
        text.extend_from_slice(difference.path.as_os_str().as_bytes());
        text.push(b'\n');
    }
    output::emit_bytes(&text)?;
    Ok(ExitCode::SUCCESS)
}
