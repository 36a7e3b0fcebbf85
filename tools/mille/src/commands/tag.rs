//! `mille tag`: gives an image another name.

use std::process::ExitCode;

use clap::ArgMatches;
use mille_store::{Reference, ReferenceError};

use super::{Arity, Verb};
use crate::arguments;
use crate::context::Context;
use crate::failure::Failure;

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "tag",
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    arity: Arity::Exactly(2),
    flags_first: false,
    flags: |command| command,
    run,
};

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = arguments::words(matches);
    let [source, target] = words.as_slice() else {
        return Err(Failure::Said);
    };
    let name = target_name(target)?;
    let engine = context.records()?;
    let store = engine.store();
    let image = engine.resolve_image(source)?;
    store.tag(&image, &name)?;
    engine.note_image("tag", &image, &name.familiar());
    Ok(ExitCode::SUCCESS)
}

/// Reads the new name, as docker's client does before it asks the engine.
fn target_name(text: &str) -> Result<Reference, Failure> {
    let refused = |error: &ReferenceError| {
        Failure::plain(format!(
            "Error parsing reference: {text:?} is not a valid repository/tag: {error}"
        ))
    };
    let digest = || Failure::plain("refusing to create a tag with a digest reference");
    if let Some((name, _)) = text.split_once('@') {
        return Err(Reference::parse(name).map_or_else(|error| refused(&error), |_| digest()));
    }
    Ok(Reference::parse(text)
        .map_err(|error| refused(&error))?
        .or_latest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_dockers() {
        for (text, want) in [
            ("bb:v2", Ok("bb:v2")),
            ("byid", Ok("byid:latest")),
            (
                "x:",
                Err(
                    "Error parsing reference: \"x:\" is not a valid repository/tag: invalid reference format",
                ),
            ),
            (
                "x:a b",
                Err(
                    "Error parsing reference: \"x:a b\" is not a valid repository/tag: invalid reference format",
                ),
            ),
            (
                "x@sha256:aaaa",
                Err("refusing to create a tag with a digest reference"),
            ),
        ] {
            let found = target_name(text)
                .map(|name| name.familiar())
                .map_err(|failure| match failure {
                    Failure::Plain { text, .. } => text,
                    other => format!("{other:?}"),
                });
            assert_eq!(found.as_deref().map_err(String::as_str), want, "{text}");
        }
    }
}
