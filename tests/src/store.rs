//! One store of `mille` for one test, as root or as an ordinary user.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{self, Outcome, Who};
use crate::{leftovers, rootfs};

/// A directory of its own with a store in it; checked for leftovers and removed when dropped.
#[derive(Debug)]
pub struct Store {
    /// As whom the programs run.
    pub who: Who,
    directory: tempfile::TempDir,
    root: PathBuf,
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
        }
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

    /// A command line of `mille` on this store.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.who.command(&program::built("mille"));
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
        let mut command = self.who.command(Path::new("/bin/bash"));
        command
            .args(["-uo", "pipefail", "-c", script])
            .current_dir(self.directory.path());
        command
            .env("mille", program::built("mille"))
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
