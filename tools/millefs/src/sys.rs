//! Going into the background.
#![allow(
    unsafe_code,
    reason = "fork(2) is unsafe in a program with threads; here there is one"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe, setsid};

/// The way back to the process that was started from the shell.
#[derive(Debug)]
pub(crate) struct Starter {
    report: Option<File>,
}

/// What a daemon says when its mount answers; anything else is an error's text.
const READY: &[u8] = b"\0ready";

/// Forks. The child goes on in its own session; the parent waits until the child reports and ends with its outcome.
pub(crate) fn background() -> Result<Starter> {
    let (reader, writer) = pipe().context("make pipe")?;
    // SAFETY: called from `main` before any thread is started.
    match unsafe { fork() }.context("go into the background")? {
        ForkResult::Child => {
            drop(reader);
            // Ctrl-C in the starting terminal must not end the server.
            setsid().context("start a session")?;
            Ok(Starter {
                report: Some(File::from(writer)),
            })
        }
        ForkResult::Parent { .. } => {
            drop(writer);
            let mut said = Vec::new();
            File::from(reader)
                .read_to_end(&mut said)
                .context("wait for the mount")?;
            if said == READY {
                std::process::exit(0);
            }
            let text = String::from_utf8_lossy(&said);
            let text = if text.is_empty() {
                "the server ended before the mount answered".into()
            } else {
                text
            };
            anyhow::bail!("{text}");
        }
    }
}

impl Starter {
    /// Stays in the foreground: nobody waits.
    pub(crate) fn foreground() -> Self {
        Self { report: None }
    }

    /// Tells the starter that the mount answers, and lets go of its terminal.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let Some(mut report) = self.report.take() else {
            return Ok(());
        };
        let null: OwnedFd = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")?
            .into();
        dup2_stdin(null.as_fd())?;
        dup2_stdout(null.as_fd())?;
        dup2_stderr(null.as_fd())?;
        std::env::set_current_dir("/")?;
        report
            .write_all(READY)
            .context("report to the starting process")
    }

    /// Tells the starter what went wrong. False if nobody waits, so that the error is the caller's to print.
    pub(crate) fn failed(&mut self, error: &anyhow::Error) -> bool {
        let Some(mut report) = self.report.take() else {
            return false;
        };
        report.write_all(format!("{error:#}").as_bytes()).is_ok()
    }
}
