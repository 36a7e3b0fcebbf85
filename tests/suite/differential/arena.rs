//! Three mounts over the same lower layers: ours, the kernel's, and a plain copy of what they show.

use std::path::{Path, PathBuf};
use std::process::Command;

use mille_tests::program::{Outcome, built, run, shell};
use mille_tests::{own_mounts, tree};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Which way the mounts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Metadata-only copy-up of ours.
    pub metacopy: bool,
    /// The kernel reads and writes file data by itself.
    pub passthrough: bool,
    /// Marks in `user.overlay.`, as everywhere but for the machine's root; no redirects then.
    pub userxattr: bool,
    /// The kernel's overlayfs takes part. An ordinary user without a namespace cannot mount it.
    pub kernel: bool,
    /// The kernel keeps hard links over copy-up, in an index of its own that only it can read.
    pub index: bool,
    /// Everything is in memory, where no copy-up waits for a disk.
    pub memory: bool,
    /// Every file is written to while it is still being copied up, not only the large ones.
    pub block_copyup: bool,
}

impl Kind {
    /// Root, with everything.
    pub const ROOT: Kind = Kind {
        metacopy: true,
        passthrough: true,
        userxattr: false,
        kernel: true,
        index: true,
        memory: false,
        block_copyup: false,
    };
    /// Root of a user namespace.
    pub const NAMESPACE: Kind = Kind {
        metacopy: false,
        passthrough: false,
        userxattr: true,
        ..Self::ROOT
    };

    /// The ordinary user, who mounts by fusermount3.
    pub const ORDINARY: Kind = Kind {
        kernel: false,
        ..Self::NAMESPACE
    };

    /// Whether directories with lower parts can be renamed.
    pub fn redirects(&self) -> bool {
        !self.userxattr
    }
}

/// Three layers with every kind of meeting: file over directory, opaque, whiteouts, hard links, deep merges; `b` is
/// larger than what goes through the page cache of the mount.
const LAYERS: &str = r#"
mkdir -p l1 l2 l3 && cd l1
for f in a c d; do head -c 3000 /dev/zero | tr '\0' $f > $f; done
head -c 200000 /dev/zero | tr '\0' b > b
mkdir -p dir/sub/dir opq/sub red/sub e/dir gone
for d in dir dir/sub dir/sub/dir opq opq/sub red red/sub e e/dir gone; do echo "1 $d" > $d/a; echo "1b $d" > $d/b; done
ln a hl; ln a dir/hl; echo pair > dir/f; ln dir/f e/hl2; ln -s a f; ln -s ../a dir/c; mkfifo dir/d
setfattr -n user.one -v low a; chmod 4755 b; truncate -s 100000 dir/e; echo tail >> dir/e
if [ $(id -u) = 0 ]; then chown 1000:77 c; chown 1000:1000 e/dir opq/sub; fi
chmod 1777 dir/sub/dir
cd ../l2
mkdir -p dir/sub opq e; echo 2 > dir/sub/a; echo 2 > opq/c; setfattr -n $X.overlay.opaque -v y opq; mknod gone c 0 0
echo 2 > e/b; mknod dir/b c 0 0; ln -s nowhere red; echo "2 d" > d; chmod 2777 dir
cd ../l3
mkdir -p dir/dir e/sub; echo 3 > dir/dir/a; echo 3 > e/sub/f; echo 3 > new; setfattr -n user.two -v top dir
chmod 2777 dir
cd ..; find l1 l2 l3 -exec touch -h -d @1700000000 {} +
"#;

/// Layers on disk, with what they should go on holding.
#[derive(Debug)]
pub struct Layers {
    directory: tempfile::TempDir,
    /// Where uppers and plain trees are made.
    uppers: PathBuf,
    kind: Kind,
    fingerprints: Vec<(PathBuf, String)>,
}

impl Layers {
    /// Makes the layers, and uppers later, in the usual place.
    pub fn new(kind: Kind) -> Self {
        Self::with_uppers(kind, None)
    }

    /// Makes the layers in the usual place, and uppers later in a directory of another file system.
    pub fn with_uppers(kind: Kind, uppers: Option<&Path>) -> Self {
        Self::made_by(kind, uppers, "")
    }

    /// Makes layers that have all of the usual ones in each of several directories.
    pub fn in_directories(kind: Kind, directories: &[&str]) -> Self {
        let all = directories.join(" ");
        let script = format!(
            "for l in l1 l2 l3; do mkdir aside; cp -a $l/. aside; rm -rf $l/*; \
             for d in {all}; do cp -a aside $l/$d; done; rm -rf aside; touch -d @1700000000 $l; done"
        );
        Self::made_by(kind, None, &script)
    }

    /// Makes the layers and changes them by a script.
    fn made_by(kind: Kind, uppers: Option<&Path>, script: &str) -> Self {
        if nix::unistd::geteuid().is_root() {
            own_mounts();
        }
        let directory = tempfile::Builder::new()
            .prefix("mille-d-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let at = directory.path().display().to_string();
        if kind.memory {
            shell(&format!("mount -t tmpfs none {at}"));
        }
        tree::set_mode(directory.path(), 0o755);
        let family = if kind.userxattr { "user" } else { "trusted" };
        shell(&format!(
            "umask 022; cd {at} && X={family}; {LAYERS}{script}"
        ));
        let mut layers = Layers {
            fingerprints: fingerprints(directory.path()),
            uppers: uppers.unwrap_or(directory.path()).to_owned(),
            directory,
            kind,
        };
        layers.kind.kernel = kind.kernel && layers.kernel_mounts();
        // The plain tree is a copy of what the kernel shows, or of what we do where it cannot.
        let arena = Arena::unfurnished(&layers, layers.kind);
        let shown = if layers.kind.kernel {
            arena.mount_kernel("u2", "w2", "m2").unwrap();
            "m2"
        } else {
            eprintln!("WITHOUT THE KERNEL'S OVERLAYFS: compared with the plain tree only");
            arena.mount_ours("u1", "w1", "m1").code(0);
            "m1"
        };
        let source = arena.directory.join(shown);
        shell(&format!("cp -a {} {at}/master", source.display()));
        drop(arena);
        layers
    }

    /// Whether the kernel's overlayfs can take part; says so loudly if not.
    fn kernel_mounts(&self) -> bool {
        let mounted = Arena::unfurnished(self, self.kind).mount_kernel("u2", "w2", "m2");
        if let Err(error) = &mounted {
            eprintln!(
                "WARNING: NO OVERLAYFS OF THE KERNEL HERE, only a plain tree to compare with: {error}"
            );
        }
        mounted.is_ok()
    }

    /// Requires that no layer was written to.
    pub fn assert_unchanged(&self) {
        assert_eq!(
            fingerprints(self.directory.path()),
            self.fingerprints,
            "a layer was written to"
        );
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        if self.kind.memory {
            umount2(self.directory.path(), MntFlags::MNT_DETACH).ok();
        }
    }
}

fn fingerprints(at: &Path) -> Vec<(PathBuf, String)> {
    ["l1", "l2", "l3"]
        .map(|name| (at.join(name), tree::fingerprint(&at.join(name))))
        .to_vec()
}

/// Mounts in a directory of their own; unmounted and removed when dropped.
#[derive(Debug)]
pub struct Arena<'a> {
    layers: &'a Layers,
    directory: PathBuf,
    kind: Kind,
    /// How many of our uppers have become lowers.
    turned: usize,
}

impl<'a> Arena<'a> {
    /// Mounts both and copies the plain tree.
    pub fn new(layers: &'a Layers) -> Self {
        let arena = Self::unfurnished(layers, layers.kind);
        if arena.kind.kernel {
            arena.mount_kernel("u2", "w2", "m2").unwrap();
        }
        arena.mount_ours("u1", "w1", "m1").code(0);
        let copied = Command::new("cp")
            .arg("-a")
            .arg(layers.directory.path().join("master"))
            .arg(arena.plain())
            .status();
        assert!(copied.unwrap().success());
        arena
    }

    fn unfurnished(layers: &'a Layers, kind: Kind) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("case-")
            .tempdir_in(&layers.uppers)
            .unwrap()
            .keep();
        tree::set_mode(&directory, 0o755);
        for name in ["u1", "w1", "m1", "u2", "w2", "m2", "m3", "m4"] {
            std::fs::create_dir(directory.join(name)).unwrap();
        }
        for upper in ["u1", "u2"] {
            // As the root of the layers.
            tree::set_mode(&directory.join(upper), 0o755);
            shell(&format!(
                "touch -d @1700000000 {}",
                directory.join(upper).display()
            ));
        }
        Arena {
            layers,
            directory,
            kind,
            turned: 0,
        }
    }

    fn options(&self, upper: &str, work: &str) -> String {
        let layers = self.layers.directory.path().display();
        let at = self.directory.display();
        let turned: String = (1..=self.turned)
            .rev()
            .map(|turn| format!("{at}/u1-{turn}:"))
            .collect();
        format!(
            "lowerdir={turned}{layers}/l3:{layers}/l2:{layers}/l1,upperdir={at}/{upper},workdir={at}/{work}"
        )
    }

    fn mount_kernel(&self, upper: &str, work: &str, point: &str) -> Result<(), String> {
        let features = if self.kind.userxattr {
            // The kernel follows neither redirects nor metadata-only files then.
            "userxattr".to_owned()
        } else {
            "redirect_dir=on,metacopy=on".to_owned()
        };
        let index = if self.kind.index { "on" } else { "off" };
        let options = format!(
            "{},{features},index={index},xino=on",
            self.options(upper, work)
        );
        let point = self.directory.join(point);
        mount(
            Some("overlay"),
            &point,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .map_err(|errno| format!("mount -t overlay -o {options}: {errno}"))
    }

    fn mount_ours(&self, upper: &str, work: &str, point: &str) -> Outcome {
        self.mount_ours_with(upper, work, point, &self.features())
    }

    fn features(&self) -> String {
        let word = |on| if on { "on" } else { "off" };
        let redirects = if self.kind.userxattr {
            "userxattr"
        } else {
            "redirect_dir=on"
        };
        let (metacopy, passthrough) = (word(self.kind.metacopy), word(self.kind.passthrough));
        let from = if self.kind.block_copyup {
            ",block_copyup=1"
        } else {
            ""
        };
        format!("{redirects},metacopy={metacopy},passthrough={passthrough}{from}")
    }

    fn mount_ours_with(&self, upper: &str, work: &str, point: &str, features: &str) -> Outcome {
        let mut command = Command::new(built("millefs"));
        command
            .arg("-o")
            .arg(format!("{},{features}", self.options(upper, work)))
            .arg(self.directory.join(point));
        run(command, b"")
    }

    /// Our mount.
    pub fn ours(&self) -> PathBuf {
        self.directory.join("m1")
    }

    /// What is written through our mount.
    pub fn upper(&self) -> PathBuf {
        self.directory.join("u1")
    }

    /// The kernel's mount.
    pub fn kernel(&self) -> Option<PathBuf> {
        self.kind.kernel.then(|| self.directory.join("m2"))
    }

    /// A plain copy.
    pub fn plain(&self) -> PathBuf {
        self.directory.join("plain")
    }

    /// Unmounts ours and mounts it again; with `turn` its upper becomes the topmost lower, below an empty one. Nothing may
    /// be open.
    pub fn again(&mut self, turn: bool) {
        let at = self.directory.display();
        shell(&format!("umount {at}/m1"));
        if turn {
            self.turned += 1;
            let turned = self.turned;
            shell(&format!(
                "cd {at}; mv u1 u1-{turned}; rm -r w1; mkdir u1 w1
                 for copy in chmod chown touch; do $copy --reference=u1-{turned} u1; done"
            ));
        }
        self.mount_ours("u1", "w1", "m1").code(0);
    }

    /// Unmounts ours and mounts its upper with the kernel.
    pub fn kernel_on_our_upper(&self) -> PathBuf {
        self.unmount(["m1", "m2"]);
        self.mount_kernel("u1", "w1", "m3").unwrap();
        self.directory.join("m3")
    }

    /// Unmounts the kernel's and mounts its upper with ours.
    pub fn ours_on_the_kernels_upper(&self) -> PathBuf {
        self.unmount(["m1", "m2"]);
        self.mount_ours("u2", "w2", "m4").code(0);
        self.directory.join("m4")
    }

    /// Unmounts all and mounts our upper, or the kernel's, with features of its own.
    pub fn ours_again(&self, kernels: bool, features: &str) -> Outcome {
        self.unmount(["m1", "m2", "m3", "m4"]);
        let (upper, work) = if kernels { ("u2", "w2") } else { ("u1", "w1") };
        self.mount_ours_with(upper, work, "m4", features)
    }

    fn unmount<const N: usize>(&self, points: [&str; N]) {
        for point in points {
            let point = self.directory.join(point);
            if umount2(&point, MntFlags::MNT_DETACH).is_err() && is_mounted(&point) {
                // Mounted by fusermount3 for an ordinary user.
                shell(&format!("fusermount3 -u -z {}", point.display()));
            }
        }
    }
}

fn is_mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let point = point.to_string_lossy();
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(&*point))
}

impl Drop for Arena<'_> {
    fn drop(&mut self) {
        self.unmount(["m1", "m2", "m3", "m4"]);
        // Directories that nobody may search, where we are an ordinary user.
        let at = self.directory.display();
        shell(&format!(
            "rm -rf {at} 2>/dev/null || {{ chmod -R u+rwX {at}; rm -rf {at}; }}"
        ));
    }
}
