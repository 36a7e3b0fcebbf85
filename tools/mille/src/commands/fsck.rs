//! `mille fsck`: the whole store checked against its digests.

use std::process::ExitCode;

use clap::ArgMatches;
use mille_store::Severity;

use super::{Arity, Verb};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// `mille fsck`.
pub(crate) const VERB: Verb = Verb {
    name: "fsck",
    usage: "",
    about: "Check every image and layer against its digest; ends with 1 and a list if something is damaged",
    arity: Arity::None,
    flags_first: false,
    flags: |command| command,
    run: fsck,
};

fn fsck(context: &Context, _matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let engine = context.layers()?;
    let report = engine.fsck()?;
    for finding in &report.findings {
        let word = match finding.severity {
            Severity::Damage => "damaged",
            Severity::Leftover => "left over",
        };
        output::emit(&format!(
            "{word}: {}: {}\n",
            finding.subject, finding.detail
        ))?;
    }
    let damaged = report
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::Damage);
    output::emit(&format!(
        "{} images, {} layers: {}\n",
        report.images,
        report.layers,
        if damaged { "damaged" } else { "clean" }
    ))?;
    Ok(if damaged {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
