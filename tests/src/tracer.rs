//! Sudden death at a chosen moment: a program is traced, and one of its processes killed at its n-th step into or out of
//! the kernel. So each state that others can see is one in which it can be left, and a failure can be had again.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A victim that makes no step for so long when the program has ended waits for something else to happen.
const IDLE: Duration = Duration::from_millis(100);

/// Which process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The program itself.
    Itself,
    /// The process below it that starts a session of its own: what becomes a monitor or a server.
    Monitor,
    /// A process that runs already.
    Running(Pid),
}

/// What became of it.
#[derive(Debug)]
pub struct Fate {
    /// It was killed; else it ended by itself before.
    pub killed: bool,
    /// Steps it made.
    pub steps: u32,
    /// How the program ended.
    pub status: ExitStatus,
    /// What it said on standard error.
    pub stderr: String,
}

/// Runs `command` (of which a program of this workspace is the last to be executed) and kills `victim` at its step
/// `step`, counted from 1; with `u32::MAX` the steps are only counted.
pub fn kill_at(command: Command, victim: Victim, step: u32) -> Fate {
    // Only the thread that started a process (or took it over) may trace it and hears of it alone.
    let tracing = std::thread::spawn(move || Trace::run(command, victim, step));
    tracing.join().unwrap()
}

/// A step is a stop before or after a system call of the victim's first thread.
struct Trace {
    victim: Victim,
    step: u32,
    first: Pid,
    /// Everybody who is traced; true for whom steps are counted.
    traced: BTreeMap<Pid, bool>,
    steps: u32,
    killed: bool,
    status: Option<i32>,
}

impl Trace {
    #[allow(
        clippy::zombie_processes,
        reason = "its tracer waits for it by another call"
    )]
    fn run(command: Command, victim: Victim, step: u32) -> Fate {
        let mut said = tempfile::tempfile().unwrap();
        // It waits, stopped, until it is traced; what follows is the command itself in the same process.
        let mut stopped = Command::new("bash");
        stopped.args(["-c", "kill -STOP $$; exec \"$@\"", "bash"]);
        stopped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => stopped.env(name, value),
                None => stopped.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            stopped.current_dir(directory);
        }
        stopped
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone().unwrap());
        let child = stopped.spawn().unwrap();
        let first = Pid::from_raw(child.id().cast_signed());
        let waited = waitpid(first, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(waited, WaitStatus::Stopped(..)), "{waited:?}");
        let mut trace = Trace {
            victim,
            step,
            first,
            traced: BTreeMap::new(),
            steps: 0,
            killed: false,
            status: None,
        };
        if let Victim::Running(pid) = victim {
            ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD).unwrap();
            ptrace::interrupt(pid).unwrap();
            trace.traced.insert(pid, true);
        } else {
            let options = Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEEXEC;
            ptrace::seize(first, options).unwrap();
            trace.traced.insert(first, false);
        }
        kill(first, Signal::SIGCONT).unwrap();
        trace.follow();
        let mut stderr = Vec::new();
        said.rewind().unwrap();
        said.read_to_end(&mut stderr).unwrap();
        Fate {
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            killed: trace.killed,
            steps: trace.steps,
            status: ExitStatus::from_raw(trace.status.unwrap()),
        }
    }

    fn follow(&mut self) {
        let mut last = Instant::now();
        while self.status.is_none() || self.counted().is_some() && last.elapsed() < IDLE {
            // Of this thread alone: other tests have children of their own.
            let mut flags = WaitPidFlag::__WNOTHREAD | WaitPidFlag::__WALL;
            if self.status.is_some() {
                flags |= WaitPidFlag::WNOHANG;
            }
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
                Ok(status) => {
                    last = Instant::now();
                    self.heard(status);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => panic!("wait: {errno}"),
            }
        }
        for pid in std::mem::take(&mut self.traced).into_keys() {
            // They run on; only one that is stopped can be let go.
            if ptrace::interrupt(pid).is_ok()
                && waitpid(pid, Some(WaitPidFlag::__WALL)).is_ok_and(|status| {
                    !matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
                })
            {
                ptrace::detach(pid, None).ok();
            }
        }
    }

    fn counted(&self) -> Option<Pid> {
        let mut all = self.traced.iter();
        all.find(|(_, counted)| **counted).map(|(pid, _)| *pid)
    }

    fn heard(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) => self.ended(pid, code << 8),
            WaitStatus::Signaled(pid, signal, _) => self.ended(pid, signal as i32),
            WaitStatus::PtraceSyscall(pid) => self.stepped(pid),
            WaitStatus::PtraceEvent(pid, _, event) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                let itself = pid == self.first && self.victim == Victim::Itself;
                if itself && is_ours(pid) {
                    self.traced.insert(pid, true);
                }
                self.resume(pid, None);
            }
            // The new one stops by itself.
            WaitStatus::PtraceEvent(pid, signal, event)
                if event == Event::PTRACE_EVENT_STOP as i32 =>
            {
                self.met(pid, signal);
            }
            WaitStatus::PtraceEvent(pid, ..) => self.resume(pid, None),
            WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
            _ => {}
        }
    }

    /// A stop without a cause of its own: the first one of a new process or thread, or a group stop.
    fn met(&mut self, pid: Pid, _signal: Signal) {
        if !self.traced.contains_key(&pid) {
            // Threads, and whatever is below the one that is watched, go their own ways.
            if self.counted().is_some() || leader(pid) != Some(pid) {
                ptrace::detach(pid, None).ok();
                return;
            }
            self.traced.insert(pid, false);
        }
        self.resume(pid, None);
    }

    fn stepped(&mut self, pid: Pid) {
        if self.victim == Victim::Monitor && self.counted().is_none() && starts_session(pid) {
            self.traced.insert(pid, true);
            // Its own children are not followed.
            ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD).unwrap();
        }
        if self.traced.get(&pid) == Some(&true) {
            self.steps += 1;
            if self.steps == self.step {
                self.killed = true;
                kill(pid, Signal::SIGKILL).unwrap();
                return;
            }
        }
        self.resume(pid, None);
    }

    fn ended(&mut self, pid: Pid, status: i32) {
        self.traced.remove(&pid);
        if pid == self.first {
            self.status = Some(status);
        }
    }

    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        let counted = self.traced.get(&pid) == Some(&true);
        let searching =
            self.victim == Victim::Monitor && pid != self.first && self.counted().is_none();
        let resumed = if counted || searching {
            ptrace::syscall(pid, signal)
        } else {
            ptrace::cont(pid, signal)
        };
        // Somebody else may have killed it meanwhile: its end is heard of next.
        assert!(
            matches!(resumed, Ok(()) | Err(Errno::ESRCH)),
            "resume {pid}: {resumed:?}"
        );
    }
}

fn is_ours(pid: Pid) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    program.file_name() == Path::new("mille").file_name()
}

fn leader(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("Tgid:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(Pid::from_raw)
}

fn starts_session(pid: Pid) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().unwrap_or_default();
    number.parse() == Ok(nix::libc::SYS_setsid)
}
