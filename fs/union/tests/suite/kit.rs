//! Layers in a temporary directory, a view of them, and small words for tests.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mille_union::fuse::{MountOptions, Mounted, mount};
use mille_union::{
    Access, Chain, ChainIndex, Config, Features, Lower, MarkSpace, NodeRef, Owner, Owners,
    Ownership, Upper, View, resolve_path,
};

/// Layers below one temporary directory: `l1`, `l2`, … (the last the topmost), `u`, `w`, `m`.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) lowers: usize,
    pub(crate) features: Features,
    pub(crate) space: MarkSpace,
    pub(crate) ownership: Ownership,
    pub(crate) owners: Owners,
    /// `.wh.` files may occur in the lowers.
    pub(crate) aufs: bool,
    /// How many of the lowest layers a merged index speaks of.
    pub(crate) indexed: usize,
}

/// What the library has to say belongs to a failed test's output.
struct Heard;

impl log::Log for Heard {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("mille")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{}: {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

impl Stage {
    /// Makes layers by a shell script that runs in the temporary directory with `l1` … made.
    pub(crate) fn new(lowers: usize, script: &str) -> Self {
        Self::made(lowers, script, false)
    }

    /// The same on a tmpfs, where nothing waits for a disk.
    pub(crate) fn in_memory(lowers: usize, script: &str) -> Self {
        Self::made(lowers, script, true)
    }

    fn made(lowers: usize, script: &str, in_memory: bool) -> Self {
        if log::set_logger(&Heard).is_ok() {
            log::set_max_level(log::LevelFilter::Warn);
        }
        if is_root() {
            own_mounts();
        }
        let directory = tempfile::Builder::new()
            .prefix("mille-u-")
            .tempdir_in("/var/tmp")
            .unwrap();
        if in_memory {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("tmpfs", directory.path(), "tmpfs", flags, None).unwrap();
        }
        for layer in 1..=lowers {
            fs::create_dir(directory.path().join(format!("l{layer}"))).unwrap();
        }
        for name in ["u", "w", "m"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let space = if is_root() {
            MarkSpace::Trusted
        } else {
            MarkSpace::User
        };
        let features = Features {
            metacopy: true,
            ..Features::default()
        };
        let stage = Self {
            directory,
            lowers,
            features,
            space,
            ownership: Ownership::Real,
            owners: Owners::default(),
            aufs: false,
            indexed: 0,
        };
        stage.shell(script);
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a script in the temporary directory; its standard output.
    pub(crate) fn shell(&self, script: &str) -> String {
        let output = Command::new("bash")
            // `no COMMAND`: it must fail.
            .arg("-euxc")
            .arg(format!("no() {{ if \"$@\"; then exit 1; fi; }}\n{script}"))
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{script}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn config(&self, upper: Option<Upper>) -> Config {
        Config {
            lowers: (1..=self.lowers)
                .rev()
                .map(|layer| Lower {
                    aufs: self.aufs,
                    plain: layer <= self.indexed,
                    ..Lower::at(self.path(&format!("l{layer}")))
                })
                .collect(),
            upper,
            space: self.space,
            ownership: self.ownership,
            owners: self.owners.clone(),
            features: self.features,
            chain: self.index(),
        }
    }

    /// Makes the index anew each time, and opens it.
    fn index(&self) -> Option<ChainIndex> {
        let layers: Vec<PathBuf> = (1..=self.indexed)
            .rev()
            .map(|layer| self.path(&format!("l{layer}")))
            .collect();
        let chain = Chain {
            layers: &layers,
            space: self.space,
            ownership: self.ownership,
        };
        (!layers.is_empty()).then(|| {
            fs::write(self.path("index.new"), chain.build().unwrap()).unwrap();
            fs::rename(self.path("index.new"), self.path("index")).unwrap();
            chain.open(&self.path("index")).unwrap()
        })
    }

    pub(crate) fn upper(&self, access: Access) -> Upper {
        Upper {
            dir: self.path("u"),
            work: self.path("w"),
            access,
            aufs: self.features.reserve_wh_names,
            fit: false,
        }
    }

    /// The view with its upper, to be written.
    pub(crate) fn view(&self) -> Arc<View> {
        View::open(self.config(Some(self.upper(Access::Exclusive)))).unwrap()
    }

    /// The view of the lowers alone.
    pub(crate) fn base(&self) -> Arc<View> {
        View::open(self.config(None)).unwrap()
    }

    /// Tries to open the view of the lowers alone, with an index that is given.
    pub(crate) fn base_with(
        &self,
        lowers: Vec<Lower>,
        chain: ChainIndex,
    ) -> mille_union::Result<Arc<View>> {
        View::open(Config {
            lowers,
            chain: Some(chain),
            ..self.config(None)
        })
    }

    /// The same with an upper.
    pub(crate) fn view_with(
        &self,
        lowers: Vec<Lower>,
        chain: ChainIndex,
        upper: Upper,
    ) -> mille_union::Result<Arc<View>> {
        View::open(Config {
            lowers,
            chain: Some(chain),
            ..self.config(Some(upper))
        })
    }

    /// Tries to open the view with its upper.
    pub(crate) fn try_view(&self, access: Access) -> mille_union::Result<Arc<View>> {
        View::open(self.config(Some(self.upper(access))))
    }

    /// Mounts at `m`.
    pub(crate) fn mount(&self) -> Mounted {
        self.mount_with(&MountOptions::default())
    }

    pub(crate) fn mount_with(&self, options: &MountOptions) -> Mounted {
        mount(self.view(), &self.path("m"), options).unwrap()
    }

    /// A fingerprint of everything in the lower layers.
    pub(crate) fn lowers_fingerprint(&self) -> String {
        self.shell(
            "for l in l*; do (cd $l && find . -printf '%p %y %m %U:%G %s %n %T@ %l\\n' | sort; \
             find . -type f -print0 | sort -z | xargs -0r sha256sum; getfattr -Rhd -m - . 2>/dev/null); done",
        )
    }
}

/// Moves this thread and what it starts into a mount namespace of its own, once: a namespace that another test makes of the
/// machine's mounts would have a copy of ours, and we would wait for its end.
fn own_mounts() {
    thread_local! {
        static DONE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if DONE.replace(true) {
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Tests that mount need root; they fail without it.
pub(crate) fn require_root() {
    assert!(is_root(), "this test needs root");
}

/// The caller itself.
pub(crate) fn me() -> Owner {
    Owner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    }
}

/// A node by path, links not followed.
pub(crate) fn node(view: &View, path: &str) -> NodeRef {
    resolve_path(view, Path::new(path), false).unwrap()
}

/// The bytes of a file.
pub(crate) fn bytes(view: &View, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    view.open_read(&node(view, path))
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// The names in a directory, sorted.
pub(crate) fn names(view: &View, path: &str) -> Vec<String> {
    let mut names: Vec<String> = view
        .list(&node(view, path))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Splits a path into parent and name.
pub(crate) fn split<'a>(view: &View, path: &'a str) -> (NodeRef, &'a OsStr) {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    (node(view, dir), OsStr::new(name))
}

impl Drop for Stage {
    /// A failed test must not leave mounts behind.
    fn drop(&mut self) {
        for name in ["m", "small", "l1", "l2", ""] {
            let path = self.path(name);
            let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
            let mounted = mounts.lines().any(|line| {
                line.split(' ')
                    .nth(1)
                    .is_some_and(|at| Path::new(at) == path)
            });
            if mounted && let Err(error) = Command::new("umount").arg("-l").arg(&path).status() {
                eprintln!("umount {}: {error}", path.display());
            }
        }
    }
}

/// A small deterministic generator (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}
