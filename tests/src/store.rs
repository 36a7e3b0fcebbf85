//! One store of `mille` for one test, as root or as an ordinary user.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::program::{self, Outcome, Who};
use crate::{leftovers, rootfs};

/// A directory of its own with a store in it; checked for leftovers and removed when dropped.
#[derive(Debug)]
pub struct Store {
    /// As whom the programs run.
    pub who: Who,
    directory: tempfile::TempDir,
    root: PathBuf,
    /// The protection that the program leaves out, for the escape suite.
    weakened: Option<&'static str>,
}

impl Store {
    /// Makes an empty store for `who`.
    pub fn new(who: Who) -> Self {
        // Below /var/tmp: a disk file system, where a tmpfs /tmp would hide what a real upper layer does.
        let directory = tempfile::Builder::new()
            .prefix("mille-t-")
            .tempdir_in("/var/tmp")
            .unwrap();
        crate::tree::set_mode(directory.path(), 0o755);
        who.own(directory.path());
        let root = directory.path().join("root");
        Store {
            who,
            directory,
            root,
            weakened: None,
        }
    }

    /// From here on the weakened build runs, without the protection of this name (`mille_sandbox::weaken::Hole`).
    pub fn weaken(&mut self, hole: &'static str) {
        self.weakened = Some(hole);
    }

    /// Whether [`Store::weaken`] was called.
    pub fn is_weakened(&self) -> bool {
        self.weakened.is_some()
    }

    /// The program that runs on this store.
    pub fn program(&self) -> PathBuf {
        program::built(match self.weakened {
            None => "mille",
            Some(_) => program::WEAKENED,
        })
    }

    fn with_hole(&self, mut command: Command) -> Command {
        match self.weakened {
            None => command.env_remove("MILLE_WEAKEN"),
            Some(hole) => command.env("MILLE_WEAKEN", hole),
        };
        command
    }

    /// Makes a store that holds the busybox image `bb`.
    pub fn with_busybox(who: Who) -> Self {
        let store = Store::new(who);
        let tar = store.file("bb.tar");
        std::fs::write(&tar, rootfs::busybox_tar()).unwrap();
        who.own(&tar);
        store.mille(["import", tar.to_str().unwrap(), "bb"]).ok();
        store
    }

    /// Path of the store's root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Path of a file of the test's own beside the store.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where its run-time state is: what does not outlive a reboot.
    pub fn run_directory(&self) -> PathBuf {
        let base = match self.who.account() {
            None => PathBuf::from("/run/mille"),
            // The test's own directory has too long a name for sockets.
            Some(user) => PathBuf::from(format!("/tmp/mille-{}", user.uid)),
        };
        let root = self.root.canonicalize().unwrap();
        let hash = crate::tree::hex(&Sha256::digest(root.as_os_str().as_encoded_bytes()));
        base.join(&hash[..12])
    }

    /// A command line of `mille` on this store.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.with_hole(self.who.command(&self.program()));
        command
            .arg("--root")
            .arg(&self.root)
            .args(args)
            .current_dir(self.directory.path());
        command.env("XDG_RUNTIME_DIR", self.directory.path());
        command
    }

    /// Runs `mille` on this store with nothing on standard input.
    pub fn mille<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        program::run(self.command(args), b"")
    }

    /// Runs `mille` with `input` on standard input.
    pub fn mille_with<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Outcome {
        program::run(self.command(args), input)
    }

    /// Runs a line of words separated by blanks (no quoting).
    #[track_caller]
    pub fn line(&self, line: &str) -> Outcome {
        self.mille(line.split_whitespace())
    }

    /// Runs a shell script as this user beside the store with `$mille` set to the program and its root.
    pub fn script(&self, script: &str) -> Outcome {
        let mut command = self.with_hole(self.who.command(Path::new("/bin/bash")));
        command
            .args(["-uo", "pipefail", "-c", script])
            .current_dir(self.directory.path());
        command
            .env("mille", self.program())
            .env("MILLE_ROOT", &self.root);
        command.env("XDG_RUNTIME_DIR", self.directory.path());
        program::run(command, b"")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let ids = self.mille(["ps", "-aq"]).out();
        for id in ids.lines() {
            self.mille(["rm", "-f", id]);
        }
        let found = leftovers::below(self.directory.path());
        leftovers::clear(self.directory.path());
        // Files of an ordinary user's store belong to ids of its subordinate range; the tests run as root.
        if !found.is_empty() && !std::thread::panicking() {
            panic!("left behind: {found:#?}");
        }
    }
}
