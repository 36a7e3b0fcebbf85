//! A docker engine of a test's own: Debian's packages unpacked by `tests/run`, a daemon with its data, socket and
//! run-time state in one directory, no network. It ends with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program;

/// How long the daemon may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running engine.
#[derive(Debug)]
pub struct Docker {
    programs: PathBuf,
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    /// Starts a daemon and waits until it answers.
    pub fn start() -> Self {
        let programs = programs();
        let directory = tempfile::Builder::new()
            .prefix("mille-docker-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let at = |name: &str| directory.path().join(name);
        let log = std::fs::File::create(at("log")).unwrap();
        let mut command = Command::new(programs.join("usr/sbin/dockerd"));
        command
            .env("PATH", search_path(&programs))
            .args(["--data-root", at("data").to_str().unwrap()])
            .args(["--exec-root", at("exec").to_str().unwrap()])
            .args(["--pidfile", at("pid").to_str().unwrap()])
            .arg("--host")
            .arg(format!("unix://{}", at("sock").display()))
            .args(["--storage-driver", "overlay2", "--bridge", "none"])
            .args(["--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let daemon = command.spawn().unwrap();
        let docker = Docker {
            programs,
            directory,
            daemon,
        };
        let start = Instant::now();
        while docker.run("version").code != 0 {
            assert!(
                start.elapsed() < PATIENCE,
                "dockerd does not answer:\n{}",
                std::fs::read_to_string(docker.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        docker
    }

    /// Its directory, for files of the test.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a line of shell words as `docker LINE`.
    pub fn run(&self, line: &str) -> program::Outcome {
        let mut command = Command::new("bash");
        let host = format!("unix://{}", self.path().join("sock").display());
        command
            .args(["-euo", "pipefail", "-c", &format!("docker {line}")])
            .current_dir(self.path())
            .env("PATH", search_path(&self.programs))
            .env("DOCKER_HOST", host)
            .env("DOCKER_CONFIG", self.path());
        program::run(command, b"")
    }

    /// As [`Docker::run`]; requires success and gives the output.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        let start = Instant::now();
        while start.elapsed() < PATIENCE && self.daemon.try_wait().is_ok_and(|end| end.is_none()) {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.daemon.kill().ok();
        self.daemon.wait().ok();
        // Mounts that it keeps for its own runs, and what a container of a failed test has left.
        crate::leftovers::clear(self.directory.path());
    }
}

/// Where `tests/run ci` unpacks the packages: `docker-engine` in the target directory.
fn programs() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let found = here
        .ancestors()
        .map(|above| above.join("docker-engine"))
        .find(|directory| directory.join("usr/sbin/dockerd").exists());
    found.expect("no docker engine is unpacked in target/docker-engine: run `tests/run ci`")
}

fn search_path(programs: &Path) -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    let programs = programs.display();
    format!("{programs}/usr/sbin:{programs}/usr/bin:{own}")
}
