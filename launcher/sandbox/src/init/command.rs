//! The last step: find the command as the user, report, wait for the word, execute.

use super::{Context, Executor, Start, Tie, die_with_parent};
use crate::message::Message;
use crate::weaken::{self, Hole};
use crate::{Failure, SeccompProgram, sys};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Returns the value of the last `name=` in an environment.
fn variable<'a>(env: &'a [OsString], name: &str) -> Option<&'a OsStr> {
    let value = |entry: &'a OsString| {
        entry
            .as_bytes()
            .strip_prefix(name.as_bytes())?
            .strip_prefix(b"=")
            .map(OsStr::from_bytes)
    };
    env.iter().rev().find_map(value)
}

/// Returns the environment with `HOME`: last where it was not there, in its place where it was empty.
fn with_home(env: &[OsString], home: &OsStr) -> Vec<OsString> {
    let mut entry = OsString::from("HOME=");
    entry.push(home);
    let mut env = env.to_vec();
    match env
        .iter_mut()
        .rev()
        .find(|given| given.as_bytes().starts_with(b"HOME="))
    {
        Some(given) if given.as_bytes() == b"HOME=" => *given = entry,
        Some(_) => {}
        None => env.push(entry),
    }
    env
}

/// Why a candidate is not the command.
enum Unfit {
    Errno(Errno),
    NotExecutable,
}

/// Checks that `path` is a file this user may execute, without following links of procfs.
fn check_executable(path: &Path) -> Result<(), Unfit> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = if weaken::is_open(Hole::MagicLinks) {
        ResolveFlags::empty()
    } else {
        ResolveFlags::NO_MAGICLINKS
    };
    let fd = rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve).map_err(Unfit::Errno)?;
    let stat = rustix::fs::fstat(&fd).map_err(Unfit::Errno)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_directory || stat.st_mode & 0o111 == 0 {
        return Err(Unfit::NotExecutable);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())
        .map_err(|_| Unfit::NotExecutable)
}

/// Finds the file a command means.
fn find(command: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let shown = || command.to_string_lossy().into_owned();
    if command.as_bytes().contains(&b'/') {
        let file = PathBuf::from(command);
        return match check_executable(&file) {
            Ok(()) => Ok(file),
            Err(Unfit::NotExecutable | Unfit::Errno(Errno::ACCESS)) => {
                Err(Failure::NotExecutable { command: shown() })
            }
            Err(Unfit::Errno(Errno::LOOP)) => Err(Failure::MagicLink { command: shown() }),
            Err(Unfit::Errno(errno)) => Err(Failure::NoSuchCommand {
                command: shown(),
                errno: errno.raw_os_error(),
            }),
        };
    }
    let directories = path
        .unwrap_or_default()
        .as_bytes()
        .split(|byte| *byte == b':');
    directories
        .filter(|_| !command.is_empty())
        .map(|directory| {
            if directory.is_empty() {
                b"."
            } else {
                directory
            }
        })
        .map(|directory| Path::new(OsStr::from_bytes(directory)).join(command))
        .find(|file| check_executable(file).is_ok())
        .ok_or_else(|| Failure::NotInPath { command: shown() })
}

fn c_strings(texts: &[OsString]) -> Result<Vec<CString>, Failure> {
    texts
        .iter()
        .map(|text| CString::new(text.clone().into_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::system("pass the arguments", None, Errno::INVAL))
}

impl Executor {
    pub(super) fn execute(
        &mut self,
        args: &[OsString],
        env: &[OsString],
        seccomp: Option<&SeccompProgram>,
        init: bool,
    ) -> Result<(), Failure> {
        let command = args.first().map(OsString::as_os_str).unwrap_or_default();
        let env = with_home(env, &self.identity.home);
        let path = find(command, variable(&env, "PATH"))?;
        let (argv, envp) = (c_strings(args)?, c_strings(&env)?);
        let program = c_strings(&[path.clone().into_os_string()])?;
        self.channel.send(&Message::Ready, None).during("report")?;
        if self.start == Start::Held {
            self.wait_for(&Message::Start);
        }
        if weaken::is_open(Hole::Tracing) {
            // So that whoever watches has something to see.
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        if self.tie == Tie::ToParent {
            // Once more: becoming another user has cleared it.
            die_with_parent().during("tie the process to its parent")?;
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if !weaken::is_open(Hole::Descriptors) {
            sys::close_on_exec_from(3).during("close the descriptors")?;
        }
        if let Some(filter) = seccomp {
            sys::install_seccomp(filter).during("install the seccomp filter")?;
        }
        if init {
            super::reaper::split()?;
        }
        let mask = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        mask.map_err(Errno::from_nix)
            .during("unblock the signals")?;
        let Some(file) = program.first() else {
            return Err(Failure::Vanished);
        };
        match nix::unistd::execve(file, &argv, &envp) {
            Ok(never) => match never {},
            Err(errno) => Err(Failure::Execute {
                path,
                errno: errno as i32,
            }),
        }
    }
}

/// Turns one library's error into the other's.
trait FromNix {
    fn from_nix(errno: nix::errno::Errno) -> Errno;
}

impl FromNix for Errno {
    fn from_nix(errno: nix::errno::Errno) -> Errno {
        Errno::from_raw_os_error(errno as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(entries: &[&str]) -> Vec<OsString> {
        entries.iter().map(OsString::from).collect()
    }

    #[test]
    fn home_comes_last_and_keeps_its_place() {
        for (given, want) in [
            (
                &["PATH=/bin", "A=1"][..],
                &["PATH=/bin", "A=1", "HOME=/root"][..],
            ),
            (&["HOME=/h", "A=1"], &["HOME=/h", "A=1"]),
            (&["HOME=", "A=1"], &["HOME=/root", "A=1"]),
            (&["HOMEX=1"], &["HOMEX=1", "HOME=/root"]),
        ] {
            assert_eq!(with_home(&env(given), OsStr::new("/root")), env(want));
        }
    }

    #[test]
    fn the_last_path_counts() {
        let env = env(&["PATH=/a", "PATHX=/no", "PATH=/b"]);
        assert_eq!(variable(&env, "PATH"), Some(OsStr::new("/b")));
        assert_eq!(variable(&env, "NOPE"), None);
    }

    #[test]
    fn commands_are_found_or_explained() {
        let path = Some(OsStr::new("/nosuch:/bin:/usr/bin"));
        for (command, want) in [
            ("sh", Ok("/bin/sh")),
            ("/bin/sh", Ok("/bin/sh")),
            (
                "nosuchcmd",
                Err("exec: \"nosuchcmd\": executable file not found in $PATH"),
            ),
            ("", Err("exec: \"\": executable file not found in $PATH")),
            (
                "/nosuch/cmd",
                Err("exec: \"/nosuch/cmd\": stat /nosuch/cmd: no such file or directory"),
            ),
            ("/etc", Err("exec: \"/etc\": permission denied")),
            (
                "/etc/passwd",
                Err("exec: \"/etc/passwd\": permission denied"),
            ),
            (
                "/etc/passwd/x",
                Err("exec: \"/etc/passwd/x\": stat /etc/passwd/x: not a directory"),
            ),
            (
                "/proc/self/exe",
                Err("exec: \"/proc/self/exe\": permission denied (leads through a link of procfs)"),
            ),
        ] {
            let got = find(OsStr::new(command), path).map_err(|failure| failure.to_string());
            assert_eq!(
                got,
                want.map(PathBuf::from).map_err(str::to_owned),
                "{command}"
            );
        }
    }
}
