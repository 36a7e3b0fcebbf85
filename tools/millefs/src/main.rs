//! `millefs`: mounts layers as one tree.
//!
//! `millefs -o lowerdir=A:B[,upperdir=U,workdir=W][,…] MOUNTPOINT`: A over B, changes go to U. Goes to the background when
//! the mount answers, unless told otherwise by `-f`.

mod background;
mod options;
mod remount;
mod serve;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            complain(&format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The program's one way to speak. Nobody may be listening any more: a closed or full standard error must not end a server
/// whose mount works, as `eprintln!` would.
fn complain(text: &dyn std::fmt::Display) {
    let line = format!("millefs: {text}\n");
    ignore_deaf(std::io::stderr().write_all(line.as_bytes()));
}

/// There is nowhere to report it to.
fn ignore_deaf(_written: std::io::Result<()>) {}

fn say(text: &str) -> Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn run() -> Result<ExitCode> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let in_background = arguments
        .first()
        .is_some_and(|first| first == background::SERVER_FLAG);
    if in_background {
        arguments.remove(0);
    }
    match arguments.first().and_then(|first| first.to_str()) {
        Some("-h" | "--help") => return say(options::HELP),
        // podman asks for it (`podman info`).
        Some("-V" | "--version") => {
            return say(concat!("millefs ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        _ => {}
    }
    let options = options::parse(arguments.iter().cloned())?;
    if options.remount {
        remount::remount(&options)?;
        return Ok(ExitCode::SUCCESS);
    }
    if in_background || options.foreground {
        serve::serve(options, in_background)?;
        return Ok(ExitCode::SUCCESS);
    }
    background::start(arguments)
}
