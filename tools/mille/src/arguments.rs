//! The command line as docker's client reads it: clap does the reading, the words of its errors are docker's.

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::commands::{Arity, Verb};
use crate::context::Globals;
use crate::failure::Failure;
use crate::output;

/// Id of the one positional argument that every command has.
const WORDS: &str = "args";
/// What docker says of `-h`.
const SHORT_HELP_NOTE: &str = "Flag shorthand -h has been deprecated, use --help\n";
/// Id of `-h` where it is no other flag.
const SHORT_HELP: &str = "short-help";

/// Reads the flags before the command and returns them with the rest.
pub(crate) fn globals(
    args: impl Iterator<Item = OsString>,
) -> Result<(Globals, Vec<OsString>), Failure> {
    let mut globals = Globals::default();
    let mut args = args.peekable();
    while let Some(word) = args
        .peek()
        .and_then(|word| word.to_str())
        .map(str::to_owned)
    {
        if word == "--root" {
            args.next();
            let root = args
                .next()
                .ok_or_else(|| unknown("flag needs an argument: --root"))?;
            globals.root = Some(root.into());
        } else if let Some(root) = word.strip_prefix("--root=") {
            globals.root = Some(root.into());
            args.next();
        } else if word.starts_with('-')
            && !["-h", "--help", "-v", "--version"].contains(&word.as_str())
        {
            return Err(unknown(&format!("unknown flag: {word}")));
        } else {
            break;
        }
    }
    Ok((globals, args.collect()))
}

fn unknown(text: &str) -> Failure {
    let text = format!(
        "{text}\n\nUsage:  mille [OPTIONS] COMMAND [ARG...]\n\nRun 'mille --help' for more information"
    );
    Failure::Plain {
        text,
        code: crate::failure::CLIENT_ERROR,
    }
}

/// A flag that is on or off: `--rm`, `--rm=false`, `-it`.
pub(crate) fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Arg {
    with_short(Arg::new(long).long(long).help(help), short)
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_parser(ValueParser::new(boolean))
        .value_name("")
}

/// A flag with one value; the last one counts.
pub(crate) fn value(
    long: &'static str,
    short: Option<char>,
    kind: &'static str,
    help: &'static str,
) -> Arg {
    with_short(Arg::new(long).long(long).help(help), short)
        .action(ArgAction::Set)
        .value_name(kind)
        .allow_hyphen_values(true)
}

/// `--format` of the commands that print tables.
pub(crate) fn table_format() -> Arg {
    let help = "Format output: table, table TEMPLATE, json or a Go template";
    value("format", None, "string", help)
}

/// A flag that may be repeated.
pub(crate) fn list(long: &'static str, short: Option<char>, help: &'static str) -> Arg {
    with_short(Arg::new(long).long(long).help(help), short)
        .action(ArgAction::Append)
        .value_name("list")
        .allow_hyphen_values(true)
}

fn with_short(arg: Arg, short: Option<char>) -> Arg {
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// Go's strconv.ParseBool.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!(
            "strconv.ParseBool: parsing {other:?}: invalid syntax"
        )),
    }
}

/// Whether a switch is on.
pub(crate) fn is_on(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or(false)
}

/// The text of a flag with one value.
pub(crate) fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// All values of a flag that may be repeated.
pub(crate) fn texts(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches
        .get_many::<String>(name)
        .map(|values| values.cloned().collect())
        .unwrap_or_default()
}

/// The arguments that are no flags.
pub(crate) fn words(matches: &ArgMatches) -> Vec<String> {
    texts(matches, WORDS)
}

/// Builds clap's command of a verb.
pub(crate) fn command(verb: &'static Verb) -> Command {
    let mut words = Arg::new(WORDS).num_args(0..).hide(true);
    if verb.flags_first {
        words = words.trailing_var_arg(true);
    }
    let command = Command::new(verb.name)
        .about(verb.about)
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .no_binary_name(true);
    let command = (verb.flags)(command);
    let taken = command
        .get_arguments()
        .any(|arg| arg.get_short() == Some('h'));
    // Shown where `-h` is another flag, as docker's help has it.
    let help = Arg::new("help").long("help").help("Print usage");
    let command = command.arg(help.action(ArgAction::SetTrue).hide(!taken));
    let command = if taken {
        command
    } else {
        let help = Arg::new(SHORT_HELP).short('h');
        command.arg(help.action(ArgAction::SetTrue).hide(true))
    };
    command.arg(words)
}

/// What the words after a command's name are.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Flags and arguments.
    Matches(ArgMatches),
    /// A question for help.
    Help,
}

/// Reads the words after a command's name.
pub(crate) fn parse(verb: &'static Verb, args: &[OsString]) -> Result<Parsed, Failure> {
    let matches = command(verb)
        .try_get_matches_from(args)
        .map_err(|error| explain(verb, args, &error))?;
    let short =
        matches.try_contains_id(SHORT_HELP).unwrap_or(false) && matches.get_flag(SHORT_HELP);
    if short {
        // On standard output: docker's own choice below the top level.
        output::emit(SHORT_HELP_NOTE)?;
    }
    if short || matches.get_flag("help") {
        return Ok(Parsed::Help);
    }
    arity(verb, words(&matches).len())?;
    Ok(Parsed::Matches(matches))
}

fn arity(verb: &'static Verb, count: usize) -> Result<(), Failure> {
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    let text = match verb.arity {
        Arity::None if count > 0 => "accepts no arguments".to_owned(),
        Arity::Exactly(n) if count != n => format!("requires {n} {}", plural(n)),
        Arity::AtLeast(n) if count < n => format!("requires at least {n} {}", plural(n)),
        Arity::AtMost(n) if count > n => format!("requires at most {n} {}", plural(n)),
        Arity::Between(low, high) if count < low || count > high => {
            format!(
                "requires at least {low} and at most {high} {}",
                plural(high)
            )
        }
        _ => return Ok(()),
    };
    Err(Failure::Arity { verb, text })
}

/// docker's words for what clap found wrong.
fn explain(verb: &'static Verb, args: &[OsString], error: &clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let flag = context(ContextKind::InvalidArg);
    let name = flag
        .split([' ', '[', '='])
        .next()
        .unwrap_or_default()
        .to_owned();
    let text = match error.kind() {
        ErrorKind::InvalidUtf8 => not_unicode(args),
        ErrorKind::UnknownArgument => unknown_flag(&name),
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            format!("flag needs an argument: {}", written(args, &name))
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let value = context(ContextKind::InvalidValue);
            let cause = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            format!(
                "invalid argument {value:?} for {:?} flag: {cause}",
                declared(verb, &name)
            )
        }
        _ => error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned(),
    };
    Failure::Flag { verb, text }
}

/// Names the first argument that is not UTF-8: names in a container may be, those on the command line may not.
fn not_unicode(args: &[OsString]) -> String {
    let word = args.iter().find(|word| word.to_str().is_none());
    let shown = word.map(|word| word.to_string_lossy()).unwrap_or_default();
    format!("the argument {shown:?} is not valid UTF-8")
}

fn unknown_flag(name: &str) -> String {
    match name.strip_prefix('-') {
        Some(short) if !short.starts_with('-') => {
            let letter = short.chars().next().unwrap_or(' ');
            format!("unknown shorthand flag: '{letter}' in -{short}")
        }
        _ => format!("unknown flag: {name}"),
    }
}

fn find_flag(verb: &'static Verb, name: &str) -> Option<Arg> {
    let long = name.trim_start_matches('-').to_owned();
    let command = command(verb);
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(&long))
        .cloned()
}

/// How a flag lacking its value is named: as it was typed, which is the last word.
fn written(args: &[OsString], name: &str) -> String {
    let last = args.last().map(|word| word.to_string_lossy());
    let cluster = last.as_deref().filter(|word| !word.starts_with("--"));
    match cluster.and_then(|word| word.strip_prefix('-')) {
        Some(letters) => {
            let letter = letters.chars().next_back().unwrap_or(' ');
            format!("'{letter}' in -{letters}")
        }
        None => name.to_owned(),
    }
}

/// How pflag names a flag in errors: `-e, --env`.
pub(crate) fn declared(verb: &'static Verb, name: &str) -> String {
    let Some(arg) = find_flag(verb, name) else {
        return name.to_owned();
    };
    let long = arg
        .get_long()
        .map(|long| format!("--{long}"))
        .unwrap_or_default();
    arg.get_short()
        .map_or(long.clone(), |short| format!("-{short}, {long}"))
}
