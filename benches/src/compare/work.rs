//! What a workload is.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::stage::Layers;

/// One thing that is timed on every contender.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) layers: Layers,
    /// It changes the plain directory, which then has to be made anew.
    pub(super) changes: bool,
    /// Untimed.
    pub(super) before: Step,
    pub(super) timed: Step,
}

/// A piece of work below the mount point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Nothing,
    /// In this process: a shell's own time would drown what is measured.
    Call(fn(&Path) -> Result<()>),
    /// By bash, in the mount point.
    Shell(&'static str),
    /// This named piece by so many processes at once.
    Callers(usize, &'static str),
    /// The mount itself.
    Mount,
}

impl Workload {
    /// Reads only.
    pub(super) fn reading(name: &str, layers: Layers, before: Step, timed: Step) -> Self {
        Self {
            name: name.to_owned(),
            layers,
            changes: false,
            before,
            timed,
        }
    }

    /// Changes what it works on.
    pub(super) fn changing(name: &str, layers: Layers, before: Step, timed: Step) -> Self {
        Self {
            changes: true,
            ..Self::reading(name, layers, before, timed)
        }
    }

    pub(super) fn is_mount(&self) -> bool {
        matches!(self.timed, Step::Mount)
    }
}

impl Step {
    pub(super) fn run(self, at: &Path) -> Result<()> {
        match self {
            Self::Nothing | Self::Mount => Ok(()),
            Self::Call(call) => call(at),
            Self::Shell(script) => shell(at, script),
            Self::Callers(count, name) => callers(at, count, name),
        }
    }
}

/// Runs a script; what it says is shown when it fails.
pub(super) fn shell(at: &Path, script: &str) -> Result<()> {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(at)
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// First argument of a process that is one of many.
const CALLER: &str = "--caller";

fn callers(at: &Path, count: usize, name: &str) -> Result<()> {
    let myself = std::env::current_exe()?;
    let mut children = Vec::new();
    for index in 0..count {
        let mut command = Command::new(&myself);
        command.args([CALLER, name]).arg(at).arg(index.to_string());
        children.push(command.spawn()?);
    }
    for mut child in children {
        ensure!(child.wait()?.success(), "a caller failed");
    }
    Ok(())
}

/// The life of one of several processes: the arguments after [`CALLER`].
pub fn be_caller(mut args: impl Iterator<Item = String>) -> Result<()> {
    let name = args.next().context("which work")?;
    let at = args.next().context("where")?;
    let index: usize = args.next().context("which one")?.parse()?;
    let at = Path::new(&at);
    match name.as_str() {
        "stat" => super::metadata::stat_all(at),
        "create" => super::changes::create_and_unlink(&at.join(format!("own{index}")), 1000),
        other => bail!("no work {other}"),
    }
}
