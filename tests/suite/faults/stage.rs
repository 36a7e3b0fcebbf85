//! Layers, a mount of them by a server of its own, and what it shows.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mille_tests::program::{built, require, shell};
use mille_tests::tree;

use super::cases::{Case, LAYERS};
use super::same;

/// What a mount shows, as text.
pub(super) type View = String;

/// What happens at a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server is killed before it.
    Kill,
    /// It fails with this error, of which programs say so.
    Error(&'static str, &'static str),
}

/// Calls that change something on a disk, or decide what is changed.
const CALLS: &str = "open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,mknod,mknodat,symlink,\
symlinkat,rmdir,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,chmod,fchmod,fchmodat,?fchmodat2,chown,\
lchown,fchown,fchownat,utimensat,write,pwrite64,ftruncate,truncate,fallocate,copy_file_range,sendfile,fsync,fdatasync";

/// Of these, the ones that need room.
const ALLOCATING: &[&str] = &[
    "renameat",
    "renameat2",
    "linkat",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "setxattr",
    "fsetxattr",
    "write",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "fsync",
];

/// One system call of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    name: String,
    /// The nth of this name, from 1.
    nth: usize,
    makes_file: bool,
    /// It takes rubbish out of the work directory: when that fails, the next mount does it.
    cleans: bool,
}

impl Call {
    /// The calls of a log, in order; those by which the server speaks left out.
    fn of(log: &str) -> Vec<Self> {
        let mut calls: Vec<Self> = Vec::new();
        let lines = log.lines().filter_map(|line| line.split_once(' '));
        for (_, line) in lines {
            let line = line.trim_start();
            let Some((name, arguments)) = line.split_once('(') else {
                continue;
            };
            if name.contains(' ') || arguments.starts_with("2, ") {
                continue;
            }
            let nth = 1 + calls.iter().filter(|call| call.name == name).count();
            let (name, makes_file) = (name.to_owned(), arguments.contains("O_CREAT"));
            let cleans = name == "unlinkat"
                && (arguments.contains("\"#") || arguments.contains("\"intent-"));
            calls.push(Self {
                name,
                nth,
                makes_file,
                cleans,
            });
        }
        calls
    }

    /// True if it can fail, or be the last, in this way.
    pub(super) fn may(&self, fault: Fault) -> bool {
        match fault {
            Fault::Error("ENOSPC", _) => self.makes_file || ALLOCATING.contains(&&*self.name),
            Fault::Error(..) => !self.cleans,
            Fault::Kill => true,
        }
    }
}

/// What an operation does.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) before: View,
    pub(super) after: View,
    pub(super) calls: Vec<Call>,
}

/// How long anything may take. A mount that hangs is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// One case's directory.
#[derive(Debug)]
pub(super) struct Stage {
    directory: tempfile::TempDir,
    case: &'static str,
    prepare: &'static str,
    act: &'static str,
    times: bool,
    lowers: String,
}

/// A mount whose server is our child.
#[derive(Debug)]
struct Mount {
    server: Child,
    point: PathBuf,
    times: bool,
}

impl Stage {
    pub(super) fn new(case: &Case) -> Self {
        require("strace", "strace");
        let directory = tempfile::Builder::new()
            .prefix("mille-f-")
            .tempdir_in("/var/tmp")
            .unwrap();
        shell(&format!("cd {} && {LAYERS}", directory.path().display()));
        let mut stage = Self {
            directory,
            case: case.name,
            prepare: case.prepare,
            act: case.act,
            times: case.times,
            lowers: String::new(),
        };
        stage.lowers = stage.lowers_now();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lowers_now(&self) -> String {
        ["l1", "l2"]
            .map(|name| tree::fingerprint(&self.path(name)))
            .concat()
    }

    pub(super) fn lowers_unchanged(&self) {
        assert_eq!(
            self.lowers_now(),
            self.lowers,
            "{}: a layer was written to",
            self.case
        );
    }

    /// The operation, left alone.
    pub(super) fn undisturbed(&self) -> Seen {
        let mount = self.prepared();
        let before = mount.view();
        let trace = mount.trace(None, &self.path("trace"));
        mount.act(self.act).unwrap();
        trace.end();
        let calls = Call::of(&self.log());
        let after = mount.view();
        mount.end();
        let mount = self.mount();
        assert_eq!(mount.view(), after, "{}: after the next mount", self.case);
        mount.end();
        Seen {
            before,
            after,
            calls,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("trace")).unwrap()
    }

    /// Does the operation with a fault at one of its calls.
    pub(super) fn struck(&self, fault: Fault, call: &Call, seen: &Seen) {
        let (before, after) = (("before", &seen.before), ("after", &seen.after));
        let mut mount = self.prepared();
        let trace = mount.trace(Some((fault, call)), &self.path("trace"));
        let acted = mount.act(self.act);
        if fault == Fault::Kill {
            wait_until("the server's death", || mount.has_ended());
        }
        trace.end();
        let log = self.log();
        let what = format!("{} with {fault:?} at {call:?}\n{log}\n{acted:?}", self.case);
        if fault != Fault::Kill {
            assert!(log.contains("INJECTED"), "{what}: did not fail");
            let view = mount.view();
            match (&acted, fault) {
                (Ok(()), _) => same(&what, &view, &[after]),
                (Err(message), Fault::Error(_, text)) => {
                    // After: it was done, only not to be looked at.
                    same(&what, &view, &[before, after]);
                    assert!(message.contains(text), "{what}: another error");
                }
                (Err(_), Fault::Kill) => {}
            }
            if acted.is_err() && view == seen.before {
                self.do_after_all(&mount, seen, &format!("{what}: the second time"));
            }
        }
        mount.end();
        let mount = self.mount();
        let view = mount.view();
        same(
            &format!("{what}: after the next mount"),
            &view,
            &[before, after],
        );
        let left = |dir: &str, found: &str| {
            let left = shell(&format!("find {} {found}", self.path(dir).display()));
            assert_eq!(left, "", "{what}: left behind");
        };
        left("w/work", "-mindepth 1 ! -name '#whiteout'");
        left("u", "-name '#*'");
        if view == seen.before {
            self.do_after_all(&mount, seen, &format!("{what}: at the next mount"));
        }
        mount.end();
    }

    /// It was the one call's fault, and nothing stays of it.
    fn do_after_all(&self, mount: &Mount, seen: &Seen, what: &str) {
        if let Err(error) = mount.act(self.act) {
            panic!("{what}: {error}");
        }
        same(what, &mount.view(), &[("after", &seen.after)]);
    }

    /// A mount on a fresh upper, prepared for the operation.
    fn prepared(&self) -> Mount {
        shell(&format!(
            "cd {} && rm -rf u w && mkdir u w && touch -d @1700000000 u",
            self.directory.path().display()
        ));
        let mount = self.mount();
        mount.act(self.prepare).unwrap();
        mount
    }

    fn mount(&self) -> Mount {
        let at = self.directory.path().display();
        let point = self.path("m");
        let mut command = Command::new(built("millefs"));
        command.args(["-f", "-o"]).arg(format!(
            "lowerdir={at}/l2:{at}/l1,upperdir={at}/u,workdir={at}/w,metacopy=on,threads=1"
        ));
        let server = command.arg(&point).stdin(Stdio::null()).spawn().unwrap();
        let times = self.times;
        let mut mount = Mount {
            server,
            point,
            times,
        };
        wait_until("the mount", || mount.is_there());
        mount
    }
}

impl Mount {
    fn has_ended(&mut self) -> bool {
        self.server.try_wait().unwrap().is_some()
    }

    fn is_there(&mut self) -> bool {
        assert!(!self.has_ended(), "the server ended");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == self.point.to_str())
    }

    /// Runs a script in the mount; what it said if it failed.
    fn act(&self, script: &str) -> Result<(), String> {
        let mut command = Command::new("timeout");
        command.args([&PATIENCE.as_secs().to_string(), "bash", "-euc", script]);
        let output = command.env("LC_ALL", "C").current_dir(&self.point).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    /// Everything that programs can see, except times that no two runs have in common.
    fn view(&self) -> View {
        // Of a file about to be written that had no data of its own, the time may be lost.
        let times = if self.times {
            ""
        } else {
            "| sed -E 's/ (old|new)$//'"
        };
        let script = format!("find . -mindepth 1 \\( -type d -printf '%p d %m %U:%G\\n' -o -printf '%p %y %m %U:%G %n %s %l %T@\\n' \\) | sed -E 's/ 1700000000.0+$/ old/; s/ 1500000000.0+$/ set/; s/ [0-9]+[.][0-9]+$/ new/' {times} | sort
            find . -type f -print0 | sort -z | xargs -0 -r sha256sum
            find . -mindepth 1 -print0 | sort -z | xargs -0 -r getfattr -hd -m - 2>/dev/null || true");
        shell(&format!("cd {} && {{ {script}; }}", self.point.display()))
    }

    /// Attaches a tracer, which lets a fault happen.
    fn trace(&self, fault: Option<(Fault, &Call)>, log: &Path) -> Trace {
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-o"]).arg(log);
        command.args(["-e", &format!("trace={CALLS}")]);
        if let Some((fault, Call { name, nth, .. })) = fault {
            let what = match fault {
                Fault::Kill => "signal=SIGKILL".to_owned(),
                Fault::Error(name, _) => format!("error={name}"),
            };
            command.args(["-e", &format!("inject={name}:{what}:when={nth}")]);
        }
        command.args(["-p", &self.server.id().to_string()]);
        command.stderr(Stdio::null());
        // A thread that is made while strace looks through the list of threads is not traced: once more.
        let start = Instant::now();
        loop {
            let trace = Trace {
                tracer: command.spawn().unwrap(),
            };
            if self.is_traced_soon() {
                return trace;
            }
            assert!(start.elapsed() < PATIENCE, "the tracer does not come");
            trace.end();
        }
    }

    /// Whether all threads of the server are traced, within a time.
    fn is_traced_soon(&self) -> bool {
        let tasks = format!("/proc/{}/task", self.server.id());
        let traced = || {
            std::fs::read_dir(&tasks).unwrap().all(|task| {
                let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                status
                    .lines()
                    .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
            })
        };
        let start = Instant::now();
        while start.elapsed() < PATIENCE / 10 {
            if traced() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        false
    }

    fn end(mut self) {
        shell(&format!("umount -l {}", self.point.display()));
        wait_until("the server's end", || self.has_ended());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.server.try_wait().is_ok_and(|status| status.is_none()) {
            nix::mount::umount2(&self.point, nix::mount::MntFlags::MNT_DETACH).ok();
            self.server.kill().ok();
            self.server.wait().ok();
        }
    }
}

/// A tracer at work.
#[derive(Debug)]
struct Trace {
    tracer: Child,
}

impl Trace {
    /// Detaches it.
    fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.tracer.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).ok();
        // It may wait for a thread that does not stop; the tracees are let go when it dies, too.
        let start = Instant::now();
        while self.tracer.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE / 10 {
                self.tracer.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.tracer.kill().ok();
        self.tracer.wait().ok();
    }
}

fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(3));
    }
}
