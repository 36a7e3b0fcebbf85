//! `mille version`: what program this is.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_store::config::host_architecture;
use serde_json::json;

use super::{Arity, Verb};
use crate::arguments::{self, value};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::output::json::Tree;
use crate::output::template::{Data, Format, Missing};

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "version",
    usage: "[OPTIONS]",
    about: "Show the version information",
    arity: Arity::None,
    flags_first: false,
    flags: |command: Command| {
        command.arg(value(
            "format",
            Some('f'),
            "string",
            "Format output: json or a Go template",
        ))
    },
    run,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Exit code for a template that does not parse.
pub(crate) const BROKEN_TEMPLATE: u8 = 64;

fn run(_: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let format = arguments::text(matches, "format").unwrap_or_default();
    let missing = Missing::Field("system.versionInfo");
    output::emit(&if format.is_empty() {
        text()
    } else {
        formatted("version", format, missing, &facts()?)?
    })?;
    Ok(ExitCode::SUCCESS)
}

/// There is no daemon: client and engine are one program, and docker's two halves say the same.
fn facts() -> Result<Tree, Failure> {
    let half = json!({ "Arch": host_architecture(), "Os": "linux", "Version": VERSION });
    Tree::of(&json!({ "Client": half, "Server": half }))
}

fn text() -> String {
    let arch = host_architecture();
    format!(
        "Client:\n Version:           {VERSION}\n OS/Arch:           linux/{arch}\n\nServer:\n Engine:\n  Version:          \
         {VERSION}\n  OS/Arch:          linux/{arch}\n"
    )
}

/// Shows one object by `json` or a template; as docker, an empty line comes before the error of one that fails.
pub(crate) fn formatted(
    name: &'static str,
    format: &str,
    missing: Missing,
    tree: &Tree,
) -> Result<String, Failure> {
    if format == "json" {
        return Ok(tree.compact() + "\n");
    }
    let broken = |text| Failure::Plain {
        text: format!("template parsing error: {text}"),
        code: BROKEN_TEMPLATE,
    };
    let template = Format::parse(name, format, missing).map_err(broken)?;
    match template.render(&Data::object(tree, &[])) {
        Ok(text) => Ok(text + "\n"),
        Err(text) => {
            output::emit("\n")?;
            Err(Failure::plain(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let show = |format| {
            formatted(
                "version",
                format,
                Missing::Field("system.versionInfo"),
                &facts().unwrap(),
            )
        };
        assert_eq!(
            show("{{.Server.Version}} {{.Client.Os}}").unwrap(),
            format!("{VERSION} linux\n")
        );
        assert!(matches!(
            show("{{"),
            Err(Failure::Plain {
                code: BROKEN_TEMPLATE,
                ..
            })
        ));
        let Err(Failure::Plain { text, code: 1 }) = show("{{.Nope}}") else {
            panic!("no error")
        };
        let want = "template: version:1:2: executing \"version\" at <.Nope>: can't evaluate field Nope in type system.versionInfo";
        assert_eq!(text, want);
    }
}
