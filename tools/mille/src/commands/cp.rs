//! `mille cp`.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::CopyOptions;

use super::{Arity, Verb};
use crate::arguments::{is_on, switch, words};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Watched, human};

/// `mille cp`.
pub(crate) const VERB: Verb = Verb {
    name: "cp",
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tmille cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive \
            from stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream \
            a tar archive of a\ncontainer source to stdout.",
    arity: Arity::Exactly(2),
    flags_first: false,
    flags: add_flags,
    run: cp,
};

fn add_flags(command: Command) -> Command {
    command
        .arg(switch(
            "archive",
            Some('a'),
            "Archive mode (copy all uid/gid information)",
        ))
        .arg(switch(
            "follow-link",
            Some('L'),
            "Always follow symbol link in SRC_PATH",
        ))
        .arg(switch(
            "quiet",
            Some('q'),
            "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
        ))
}

/// Takes `CONTAINER:PATH` apart; what begins with a slash or a dot is a path of the machine's.
fn container_path(argument: &str) -> Option<(&str, &str)> {
    if argument.starts_with('/') {
        return None;
    }
    argument
        .split_once(':')
        .filter(|(container, _)| !container.starts_with('.') && !container.is_empty())
}

fn cp(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = words(matches);
    let [source, destination] = words.as_slice() else {
        return Err(Failure::plain("source and destination are needed"));
    };
    let options = CopyOptions {
        archive: is_on(matches, "archive"),
        follow_link: is_on(matches, "follow-link"),
    };
    let (from, to) = (container_path(source), container_path(destination));
    let copied = match (from, to) {
        (Some(_), Some(_)) => {
            return Err(Failure::plain(
                "copying between containers is not supported",
            ));
        }
        (None, None) => {
            return Err(Failure::plain("must specify at least one container source"));
        }
        (Some((container, path)), None) if destination == "-" => {
            let mut stdout = std::io::stdout().lock();
            if stdout.is_terminal() {
                return Err(Failure::plain(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                ));
            }
            let out: &mut dyn Write = &mut Watched(&mut stdout);
            context
                .records()?
                .copy_stream_out(container, path, options, out)?;
            return Ok(ExitCode::SUCCESS);
        }
        (Some((container, path)), None) => {
            context
                .records()?
                .copy_out(container, path, Path::new(destination), options)?
        }
        (None, Some((container, path))) if source == "-" => {
            let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
            let input: &mut (dyn Read + Send) = &mut File::from(stdin);
            context
                .records()?
                .copy_stream_in(container, path, options, input)?;
            return Ok(ExitCode::SUCCESS);
        }
        (None, Some((container, path))) => {
            context
                .records()?
                .copy_in(container, Path::new(source), path, options)?
        }
    };
    if !is_on(matches, "quiet") && std::io::stderr().is_terminal() {
        output::complain(&format!(
            "Successfully copied {} to {destination}",
            human::size(copied, 3)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_container() {
        for (argument, want) in [
            ("c1:/x", Some(("c1", "/x"))),
            ("c1:", Some(("c1", ""))),
            ("./c1:x", None),
            ("/c1:x", None),
            ("file", None),
            ("-", None),
        ] {
            assert_eq!(container_path(argument), want, "{argument}");
        }
    }
}
