//! Going to the background once the mount answers.
//!
//! The program starts itself again with [`SERVER_FLAG`] and waits: the new process mounts and says so on its standard
//! output, then the first one ends. A program that forks after it has threads, or mounts before it forks, would lose
//! its server; starting again needs neither care nor `unsafe`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

/// First argument of the process that serves. Not for people.
pub(crate) const SERVER_FLAG: &str = "--serve-in-background";

/// What the server says when it is mounted.
const READY: &[u8] = b"ready\n";

/// Starts the server and returns when it is mounted, or with its exit code when it ended before. Its messages go to
/// standard error by themselves.
pub(crate) fn start(args: impl IntoIterator<Item = OsString>) -> Result<ExitCode> {
    let mut server = Command::new("/proc/self/exe")
        .arg(SERVER_FLAG)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the server process")?;
    let mut said = Vec::new();
    if let Some(mut stdout) = server.stdout.take() {
        stdout
            .read_to_end(&mut said)
            .context("wait for the server process")?;
    }
    if said == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = server.wait().context("wait for the server process")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// In the server: a session of its own, so that no terminal's Ctrl-C reaches it, and a working directory that keeps no
/// file system busy. Relative paths must have been opened before.
pub(crate) fn detach() -> Result<()> {
    nix::unistd::setsid().context("setsid")?;
    nix::unistd::chdir("/").context("chdir /")?;
    Ok(())
}

/// In the server: tells the waiting process that the mount answers, and lets go of the terminal.
pub(crate) fn ready() -> Result<()> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(READY)
        .and_then(|()| stdout.flush())
        .context("report the mount")?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    nix::unistd::dup2_stdin(&null).context("dup2")?;
    nix::unistd::dup2_stdout(&null).context("dup2")?;
    nix::unistd::dup2_stderr(&null).context("dup2")?;
    Ok(())
}
