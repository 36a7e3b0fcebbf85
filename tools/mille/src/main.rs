//! `mille`: containers from one small binary, in docker's words. Each command is one file of [`commands`]; this crate is
//! the only one that prints.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program speaks to its user"
)]

mod arguments;
mod commands;
mod complete;
mod container_flags;
mod context;
mod env_file;
mod failure;
mod help;
mod keys;
mod lookup;
mod manual;
mod moment;
mod mount_flag;
mod numbers;
mod output;
mod platform;

use std::process::ExitCode;

use arguments::Parsed;
use lookup::Asked;

/// Commands that start processes of containers: they run from a place that nothing in a container can write to.
const STARTING: [&str; 4] = ["run", "start", "restart", "exec"];

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<ExitCode, failure::Failure> {
    let (globals, words) = arguments::globals(std::env::args_os().skip(1))?;
    match words.split_first() {
        Some((first, rest)) if first == complete::WORD => {
            return complete::run(&context::Context::new(globals), rest);
        }
        Some((first, rest)) if first == manual::WORD => return manual::run(rest),
        _ => {}
    }
    let (verb, words) = match lookup::find(&words)? {
        Asked::Command(verb, words) => (verb, words),
        Asked::Text(text) => return output::emit(&text).map(|()| ExitCode::SUCCESS),
        Asked::Reminder(text) => {
            output::complain(text.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
    };
    let name = verb.name.rsplit(' ').next().unwrap_or(verb.name);
    if STARTING.contains(&name)
        && let Err(errno) = mille_engine::run_sealed()
    {
        log::debug!("the program cannot be sealed: {errno}");
    }
    match arguments::parse(verb, words)? {
        Parsed::Matches(matches) => (verb.run)(&context::Context::new(globals), &matches),
        Parsed::Help => output::emit(&help::command(verb)).map(|()| ExitCode::SUCCESS),
    }
}
