//! Trees to run in, and ways to run.

use mille_sandbox::host::Host;
use mille_sandbox::{
    Child, ExecSpec, ExitStatus, Plan, Prepared, SpawnError, Spec, Stdio, Warning,
};
use nix::unistd::{Gid, Pid, Uid, User};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const APPLETS: &[&str] = &[
    "cat", "chmod", "env", "false", "grep", "head", "hostname", "id", "ip", "kill", "ls", "mkdir",
    "mount", "ps", "pwd", "readlink", "rm", "sh", "sleep", "stat", "stty", "tail", "touch", "true",
    "tty", "umount", "wc",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n\
                      alice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:100::/home/bob:/bin/sh\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nwheel:x:10:root,alice\nusers:x:100:\nalice:x:1000:\n";

/// A root file system with busybox.
pub(crate) struct Tree {
    dir: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) warnings: Vec<Warning>,
}

pub(crate) fn need_root() {
    assert!(Uid::effective().is_root(), "this test needs root");
}

impl Tree {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("mille-sandbox-")
            .tempdir()
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let tree = Self { dir };
        for name in [
            "bin", "etc", "data", "tmp", "root", "home", "proc", "sys", "dev",
        ] {
            fs::create_dir(tree.path(name)).unwrap();
        }
        fs::create_dir(tree.path("home/alice")).unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|p| Path::new(p).exists());
        let busybox = busybox.expect("this test needs busybox-static");
        fs::copy(busybox, tree.path("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", tree.path("bin").join(applet)).unwrap();
        }
        tree.write("etc/passwd", PASSWD);
        tree.write("etc/group", GROUP);
        tree
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Puts a link where something is.
    pub(crate) fn replace_by_link(&self, name: &str, target: &Path) {
        let path = self.path(name);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).unwrap();
        }
        symlink(target, path).unwrap();
    }

    pub(crate) fn spec(&self, script: &str) -> Spec {
        self.command(&["sh", "-c", script])
    }

    pub(crate) fn command(&self, args: &[&str]) -> Spec {
        let mut spec = Spec::new(self.dir.path(), args.iter().map(OsString::from).collect());
        spec.env = vec!["PATH=/usr/bin:/bin".into()];
        spec
    }

    /// Runs a script in a plain container.
    pub(crate) fn sh(&self, script: &str) -> Run {
        run(&self.spec(script))
    }

    /// Gives everything to a user.
    pub(crate) fn give_to(&self, user: &User) {
        give(self.dir.path(), user.uid, user.gid);
    }
}

fn give(path: &Path, uid: Uid, gid: Gid) {
    lchown(path, Some(uid.as_raw()), Some(gid.as_raw())).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid, gid);
        }
    }
}

/// Makes the streams of a run, and the ends to read from.
pub(crate) fn streams() -> (Stdio, OwnedFd, OwnedFd) {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((out, stdout), (err, stderr)) = (pipe(), pipe());
    (
        Stdio {
            stdin: None,
            stdout: Some(stdout),
            stderr: Some(stderr),
        },
        out,
        err,
    )
}

pub(crate) fn read_all(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    // A terminal ends with EIO.
    if let Err(error) = fs::File::from(fd).read_to_end(&mut bytes) {
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn plan(spec: &Spec) -> Plan {
    Plan::new(spec, &Host::probe().unwrap()).unwrap()
}

fn finish(prepared: Result<Prepared, SpawnError>, out: OwnedFd, err: OwnedFd) -> Run {
    let mut warnings = Vec::new();
    let started = prepared.and_then(|mut prepared| {
        warnings = prepared.warnings().to_vec();
        let pty = prepared.take_pty();
        prepared.start().map(|child| (child, pty))
    });
    match started {
        Err(error) => Run {
            code: error.exit_code(),
            out: String::new(),
            err: error.to_string(),
            warnings,
        },
        Ok((mut child, pty)) => {
            let out = pty.map_or_else(|| read_all(out), read_all);
            let err = read_all(err);
            Run {
                code: child.wait().unwrap().code(),
                out,
                err,
                warnings,
            }
        }
    }
}

pub(crate) fn run(spec: &Spec) -> Run {
    need_root();
    let (io, out, err) = streams();
    finish(mille_sandbox::prepare(&plan(spec), io), out, err)
}

pub(crate) fn run_exec(target: Pid, spec: &ExecSpec) -> Run {
    let (io, out, err) = streams();
    finish(mille_sandbox::prepare_exec(target, spec, io), out, err)
}

/// A container that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Running {
    pub(crate) fn start(spec: &Spec) -> Self {
        need_root();
        Self {
            child: mille_sandbox::spawn(&plan(spec), Stdio::default()).unwrap(),
        }
    }

    pub(crate) fn exec(&self, script: &str) -> Run {
        self.exec_spec(&exec_spec(&["sh", "-c", script]))
    }

    pub(crate) fn exec_spec(&self, spec: &ExecSpec) -> Run {
        run_exec(self.child.pid(), spec)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test may have killed it already.
        if self.child.signal(nix::sys::signal::Signal::SIGKILL).is_ok() {
            let status = self.child.wait().unwrap();
            assert!(
                matches!(status, ExitStatus::Signaled { signal: 9, .. }),
                "{status:?}"
            );
        }
    }
}

pub(crate) fn exec_spec(args: &[&str]) -> ExecSpec {
    let mut spec = ExecSpec::new(args.iter().map(OsString::from).collect());
    spec.env = vec!["PATH=/usr/bin:/bin".into()];
    spec
}

/// Returns the example program, which stands in for a launcher that can be killed or be somebody else's.
pub(crate) fn driver() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/sandbox");
    assert!(
        path.exists(),
        "{} is missing: cargo build --examples",
        path.display()
    );
    path
}

/// Returns an ordinary user with a range of ids, made when missing.
pub(crate) fn ordinary_user() -> User {
    const NAME: &str = "milletest";
    need_root();
    // Test processes run side by side; one of them makes the user.
    let lock = fs::File::create(std::env::temp_dir().join("mille-test-user.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if User::from_name(NAME).unwrap().is_none() {
        let status = Command::new("useradd")
            .args(["-m", NAME])
            .status()
            .expect("useradd");
        assert!(status.success(), "useradd: {status}");
    }
    User::from_name(NAME).unwrap().unwrap()
}

/// A copy of the driver that everybody may run.
pub(crate) struct PublicDriver {
    dir: TempDir,
}

impl PublicDriver {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("mille-driver-")
            .tempdir()
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = dir.path().join("sandbox");
        fs::copy(driver(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// Returns the command that runs the driver as a user.
    pub(crate) fn command(&self, user: &User) -> Command {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid));
        command.args(["--init-groups", "timeout", "30"]);
        command.arg(self.dir.path().join("sandbox"));
        command
    }

    pub(crate) fn run(&self, user: &User, args: &[&str]) -> Run {
        run_of(self.command(user).args(args).output().unwrap())
    }
}

pub(crate) fn run_of(output: Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        warnings: Vec::new(),
    }
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim()
            .starts_with('Z')
    })
}

/// Waits until a condition holds; fails after five seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < end, "not in five seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
