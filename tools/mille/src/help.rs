//! Help texts: the overview, grouped, and a command's flags.

use std::process::ExitCode;

use crate::arguments;
use crate::commands::{GROUPS, Verb};

/// Prints the overview; without a command docker prints it on standard error and ends with 0.
pub(crate) fn overview() -> ExitCode {
    eprint!("{}", text());
    ExitCode::SUCCESS
}

/// The overview.
pub(crate) fn text() -> String {
    let mut text =
        "Usage:  mille [OPTIONS] COMMAND\n\nContainers on a layered filesystem in user space\n"
            .to_owned();
    for (title, verbs) in GROUPS {
        text.push_str(&format!("\n{title}:\n"));
        for verb in *verbs {
            text.push_str(&format!("  {:<11} {}\n", verb.name, verb.about));
        }
    }
    text.push_str("\nGlobal Options:\n      --root string   Directory of the store (default /var/lib/mille; MILLE_ROOT)\n");
    text.push_str("  -v, --version       Print version information and quit\n");
    text.push_str("\nRun 'mille COMMAND --help' for more information on a command.\n");
    text
}

/// Prints a command's help.
pub(crate) fn command(verb: &'static Verb) {
    println!(
        "\nUsage:  mille {} {}\n\n{}",
        verb.name, verb.usage, verb.about
    );
    let command = arguments::command(verb);
    let mut flags: Vec<_> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .collect();
    flags.sort_by_key(|arg| arg.get_long().unwrap_or_default().to_owned());
    if flags.is_empty() {
        return;
    }
    println!("\nOptions:");
    let left = |arg: &clap::Arg| {
        let short = arg
            .get_short()
            .map_or("    ".to_owned(), |short| format!("-{short}, "));
        let kind = arg
            .get_value_names()
            .and_then(|names| names.first())
            .map(ToString::to_string)
            .unwrap_or_default();
        format!("{short}--{} {kind}", arg.get_long().unwrap_or_default())
            .trim_end()
            .to_owned()
    };
    let width = flags.iter().map(|arg| left(arg).len()).max().unwrap_or(0);
    for flag in flags {
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        println!("  {:<width$}   {help}", left(flag));
    }
}
