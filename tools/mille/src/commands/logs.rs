//! `mille logs`.

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{LogLine, LogOptions, LogStream};

use super::{Arity, Verb};
use crate::arguments::{is_on, switch, text, value, words};
use crate::context::Context;
use crate::failure::Failure;
use crate::moment;
use crate::output::Watched;

/// `mille logs`.
pub(crate) const VERB: Verb = Verb {
    name: "logs",
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    arity: Arity::Exactly(1),
    flags_first: false,
    flags: add_flags,
    run: logs,
};

fn add_flags(command: Command) -> Command {
    command
        .arg(switch("details", None, "Show extra details provided to logs"))
        .arg(switch("follow", Some('f'), "Follow log output"))
        .arg(value("since", None, "string", "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"))
        .arg(value("tail", Some('n'), "string", "Number of lines to show from the end of the logs (default \"all\")"))
        .arg(switch("timestamps", Some('t'), "Show timestamps"))
        .arg(value("until", None, "string", "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"))
}

fn logs(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let options = LogOptions {
        // docker takes anything that is no number, and negative ones, as "all".
        tail: text(matches, "tail").and_then(|text| text.parse().ok()),
        since: moment::from_flag(matches, "since")?,
        until: moment::from_flag(matches, "until")?,
        follow: is_on(matches, "follow"),
    };
    let timestamps = is_on(matches, "timestamps");
    // The details are what log options add to each line; there are none of these options here.
    let details = if is_on(matches, "details") { " " } else { "" };
    let engine = context.records()?;
    let found = engine.find(&words(matches)[0])?;
    let mut stdout = Watched(std::io::stdout().lock());
    let mut stderr = std::io::stderr().lock();
    let mut sink = |line: &LogLine| {
        let stamp = if timestamps {
            format!("{} ", moment::nanoseconds(&line.time))
        } else {
            String::new()
        };
        let out: &mut dyn Write = match line.stream {
            LogStream::Stdout => &mut stdout,
            LogStream::Stderr => &mut stderr,
        };
        out.write_all(format!("{stamp}{details}{}", line.text).as_bytes())?;
        out.flush()
    };
    engine.logs(&found.id, &options, &mut sink)?;
    Ok(ExitCode::SUCCESS)
}
