//! The four that are compared, and how they are mounted.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stage::{Layers, Stage};

/// Who is compared. The first is what the others are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    Overlayfs,
    Millefs,
    FuseOverlayfs,
    Plain,
}

/// In the order of the rounds.
pub(super) const CONTENDERS: [Contender; 4] = [
    Contender::Overlayfs,
    Contender::Millefs,
    Contender::FuseOverlayfs,
    Contender::Plain,
];

impl Contender {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::Millefs => "millefs",
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Plain => "plain",
        }
    }
}

/// How long a server may take to mount, and to report.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mount of one contender.
#[derive(Debug)]
pub(super) struct Mounted {
    at: PathBuf,
    is_mount: bool,
    /// `millefs`, in the foreground, and what it says.
    server: Option<(Child, PathBuf)>,
}

impl Mounted {
    pub(super) fn new(stage: &Stage, layers: Layers, contender: Contender) -> Result<Self> {
        if contender == Contender::Plain {
            return Ok(Self {
                at: stage.plain(layers),
                is_mount: false,
                server: None,
            });
        }
        let at = stage.path().join("mount");
        let options = format!(
            "lowerdir={},upperdir=upper/u,workdir=upper/w",
            stage.lowers(layers).join(":")
        );
        let mut mounted = Self {
            at,
            is_mount: true,
            server: None,
        };
        match contender {
            Contender::Overlayfs => run(stage, "mount", &["-t", "overlay", "o", "-o", &options])?,
            Contender::FuseOverlayfs => {
                let program = std::env::var("MILLE_BENCH_FUSE_OVERLAYFS");
                let program = program.as_deref().unwrap_or("fuse-overlayfs");
                run(stage, program, &["-o", &options])?;
            }
            _ => mounted.server = Some(serve(stage, &options)?),
        }
        Ok(mounted)
    }

    pub(super) fn at(&self) -> &Path {
        &self.at
    }

    /// Requests served so far by kind, of `millefs`.
    pub(super) fn requests(&mut self) -> Result<Vec<(String, u64)>> {
        let Some((server, said)) = &self.server else {
            return Ok(Vec::new());
        };
        let lines = reports(said)?.len();
        kill(Pid::from_raw(i32::try_from(server.id())?), Signal::SIGUSR1)?;
        let start = Instant::now();
        loop {
            let reports = reports(said)?;
            if reports.len() > lines {
                return Ok(reports.into_iter().next_back().unwrap_or_default());
            }
            ensure!(start.elapsed() < PATIENCE, "millefs reports no requests");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        if self.is_mount {
            let status = Command::new("umount").arg(&self.at).status()?;
            ensure!(status.success(), "umount {}", self.at.display());
        }
        if let Some((server, _)) = &mut self.server {
            server.wait()?;
        }
        Ok(())
    }
}

/// Runs a mount program in the stage's directory: layers are named relative to it.
fn run(stage: &Stage, program: &str, args: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(args)
        .arg("mount")
        .current_dir(stage.path())
        .stderr(Stdio::null())
        .status()
        .with_context(|| program.to_owned())?;
    ensure!(status.success(), "{program} fails: {status}");
    Ok(())
}

/// `millefs` as mille mounts it for its containers: changes of attributes copy no data.
fn serve(stage: &Stage, options: &str) -> Result<(Child, PathBuf)> {
    let said = stage.path().join("millefs.log");
    let mount = stage.path().join("mount");
    let before = mount_number(&mount)?;
    let program = std::env::current_exe()?.with_file_name("millefs");
    let mut server = Command::new(&program)
        .args(["-f", "-o", &format!("{options},metacopy=on"), "mount"])
        .current_dir(stage.path())
        .stderr(File::create(&said)?)
        .spawn()
        .with_context(|| program.display().to_string())?;
    let start = Instant::now();
    while mount_number(&mount)? == before {
        ensure!(server.try_wait()?.is_none(), "millefs has ended");
        ensure!(start.elapsed() < PATIENCE, "millefs does not mount");
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok((server, said))
}

/// Device number of what a path leads to.
fn mount_number(path: &Path) -> Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::dev(&path.metadata()?))
}

/// What `millefs` has reported: `millefs: requests lookup=3 …` a line.
fn reports(said: &Path) -> Result<Vec<Vec<(String, u64)>>> {
    let mut text = String::new();
    File::open(said)?.read_to_string(&mut text)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole
        .lines()
        .filter_map(|line| line.strip_prefix("millefs: requests"));
    let report = |line: &str| {
        let pairs = line
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='));
        pairs
            .filter_map(|(kind, n)| Some((kind.to_owned(), n.parse().ok()?)))
            .collect()
    };
    Ok(lines.map(report).collect())
}
