//! Running `mille` and its peers, and what came of it.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest any single command of a test may take; a hang is a failure, not a wait.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);

/// Name of the ordinary user that `tests/run` creates (`useradd -m` gives it a range in /etc/subuid).
pub const ORDINARY_USER: &str = "mille-test";

/// The build of `mille` whose protections can be left out, as `tests/run ci` keeps it beside the usual one.
pub const WEAKENED: &str = "mille-weakened";

/// Name of the user without subordinate ids that `tests/run` creates.
pub const ONE_ID_USER: &str = "mille-one";

/// As whom a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// uid 0 with the capabilities of the test process.
    Root,
    /// [`ORDINARY_USER`], with its own HOME and no privilege.
    Ordinary,
    /// [`ONE_ID_USER`], likewise: its user namespaces have its own id and no other.
    OneId,
}

impl Who {
    /// Returns a command that runs `program` as this user, with an environment of its own.
    pub fn command(self, program: &Path) -> Command {
        let mut command = match self.account() {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={}", user.uid),
                    format!("--regid={}", user.gid),
                    "--init-groups".into(),
                    "--inh-caps=-all".into(),
                ]);
                command.arg(program);
                command.env("HOME", &user.home).env("USER", &user.name);
                command
            }
        };
        command
            .env_remove("MILLE_ROOT")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_DATA_HOME");
        command
    }

    /// The account of a user that is not root.
    pub fn account(self) -> Option<&'static Account> {
        match self {
            Who::Root => None,
            Who::Ordinary => Some(ordinary_user()),
            Who::OneId => Some(one_id_user()),
        }
    }

    /// Gives `path` to this user, so that it can work in it.
    pub fn own(self, path: &Path) {
        if let Some(user) = self.account() {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }
}

/// An ordinary user.
#[derive(Debug)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// Returns the account of [`ORDINARY_USER`]; panics with the command that creates it when it is missing.
pub fn ordinary_user() -> &'static Account {
    static ACCOUNT: OnceLock<Account> = OnceLock::new();
    ACCOUNT.get_or_init(|| account(ORDINARY_USER, "useradd -m"))
}

/// Returns the account of [`ONE_ID_USER`]; panics with the command that creates it when it is missing.
fn one_id_user() -> &'static Account {
    static ACCOUNT: OnceLock<Account> = OnceLock::new();
    ACCOUNT.get_or_init(|| {
        account(
            ONE_ID_USER,
            "useradd -m -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0",
        )
    })
}

fn account(name: &str, created_by: &str) -> Account {
    let user = nix::unistd::User::from_name(name)
        .unwrap()
        .unwrap_or_else(|| panic!("no user {name}: run `{created_by} {name}` (tests/run does)"));
    Account {
        name: name.to_owned(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
    }
}

/// Returns the path of a program of this workspace, copied to where an ordinary user can execute it. All tests of one
/// build share the copy; the copy of an earlier build is removed.
pub fn built(name: &str) -> PathBuf {
    shared_copy(&source(name), name)
}

/// Returns the path of a copy of a program that an ordinary user can execute, as [`built`] does.
pub fn shared_copy(source: &Path, name: &str) -> PathBuf {
    let meta = source.metadata().unwrap();
    let place = hash(&source);
    let version = hash(&(meta.len(), meta.mtime(), meta.mtime_nsec()));
    let prefix = format!("mille-bin-{name}-{place:016x}-");
    let directory = std::env::temp_dir().join(format!("{prefix}{version:016x}"));
    let copy = directory.join(name);
    if !copy.exists() {
        remove_earlier(&prefix, &directory);
        std::fs::create_dir_all(&directory).unwrap();
        crate::tree::set_mode(&directory, 0o755);
        // Concurrent tests: each copies aside, the last rename wins, all are the same bytes.
        let thread = std::thread::current().id();
        let aside = directory.join(format!("{}.{thread:?}", std::process::id()));
        // By another process: a child that a test forks meanwhile would inherit our descriptor open for writing, and the
        // program could not be executed until that child has gone ("text file busy").
        let copied = Command::new("cp").arg(source).arg(&aside).status();
        assert!(copied.unwrap().success());
        std::fs::rename(&aside, &copy).unwrap();
    }
    copy
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Removes the copies of other builds of the same program. A concurrent test may be doing the same.
fn remove_earlier(prefix: &str, keep: &Path) {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let earlier = entry.file_name().to_string_lossy().starts_with(prefix);
        if earlier && entry.path() != keep {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn source(name: &str) -> PathBuf {
    if let Some(directory) = std::env::var_os("MILLE_BIN_DIR") {
        return PathBuf::from(directory).join(name);
    }
    let here = std::env::current_exe().unwrap();
    let profile = here.parent().and_then(Path::parent).unwrap();
    let path = profile.join(name);
    let how = match name {
        WEAKENED => "tests/run ci",
        _ => "cargo build --workspace --bins",
    };
    assert!(
        path.exists(),
        "{} is not built: run `{how}`",
        path.display()
    );
    path
}

/// Exit code and output of a finished program.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run, for messages.
    pub what: String,
    /// Exit code; 128+n when ended by signal n.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Standard output as text, without its final newline.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout)
            .trim_end_matches('\n')
            .to_string()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Requires exit code 0 and returns the output.
    #[track_caller]
    pub fn ok(self) -> String {
        self.code(0).out()
    }

    /// Requires this exit code.
    #[track_caller]
    pub fn code(self, want: i32) -> Self {
        assert_eq!(
            self.code,
            want,
            "{}\nstdout: {}\nstderr: {}",
            self.what,
            self.out(),
            self.err()
        );
        self
    }

    /// Requires `text` in standard error.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.err().contains(text),
            "{}: no {text:?} in stderr: {}",
            self.what,
            self.err()
        );
        self
    }
}

impl From<(String, Output)> for Outcome {
    fn from((what, output): (String, Output)) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output
            .status
            .code()
            .unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        Outcome {
            what,
            code,
            stdout: output.stdout,
            stderr: output.stderr,
        }
    }
}

/// Runs `command` to its end with `input` on standard input, within the limit.
pub fn run(command: Command, input: &[u8]) -> Outcome {
    run_within(command, input, COMMAND_LIMIT)
}

/// As [`run`], with a limit of the caller's.
pub fn run_within(mut command: Command, input: &[u8], limit: Duration) -> Outcome {
    let what = describe(&command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that ends early closes the pipe: that is its right, and not this thread's failure.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let (done, watch) = std::sync::mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        let start = Instant::now();
        if watch.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
            return Some(start.elapsed());
        }
        None
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    feeder.join().unwrap();
    if let Some(after) = watcher.join().unwrap() {
        panic!(
            "{what}: no end after {after:?}\nstderr: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    (what, output).into()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a shell command as root and requires success.
#[track_caller]
pub fn shell(script: &str) -> String {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]);
    run(command, b"").ok()
}

/// Requires that a peer program is installed; its absence is a failure that names the package.
pub fn require(program: &str, package: &str) {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|directory| directory.join(program).exists());
    assert!(
        found,
        "{program} is not installed: apt-get install {package} (tests/run does)"
    );
}
