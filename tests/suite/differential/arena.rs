//! Three mounts over the same lower layers: ours, the kernel's, and a plain copy of what they show.

use std::path::PathBuf;

use mille_tests::program::{Outcome, built, run, shell};
use mille_tests::{Who, tree};

/// Which way the mounts are made.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As whom our server runs.
    pub who: Who,
    /// Metadata-only copy-up, on both sides.
    pub metacopy: bool,
    /// The kernel keeps hard links over copy-up, in an index of its own that only it can read.
    pub index: bool,
}

/// Mounts in a directory of their own; unmounted and removed when dropped.
#[derive(Debug)]
pub struct Arena {
    directory: tempfile::TempDir,
    kind: Kind,
    lowers: Vec<(PathBuf, String)>,
}

/// Three layers with every kind of meeting: file over directory, opaque, whiteouts, hard links, deep merges.
const LAYERS: &str = r#"
mkdir -p l1 l2 l3 && cd l1
for f in a b c d; do head -c 3000 /dev/zero | tr '\0' $f > $f; done
mkdir -p dir/sub/dir opq/sub red/sub e/dir gone
for d in dir dir/sub dir/sub/dir opq opq/sub red red/sub e e/dir gone; do echo "1 $d" > $d/a; echo "1b $d" > $d/b; done
ln a hl; ln a dir/hl; echo pair > dir/f; ln dir/f red/hl2; ln -s a f; ln -s ../a dir/c; mkfifo dir/d
setfattr -n user.one -v low a; chmod 4755 b; chown 1000:77 c; truncate -s 100000 dir/e; echo tail >> dir/e
cd ../l2
mkdir -p dir/sub opq e; echo 2 > dir/sub/a; echo 2 > opq/c; setfattr -n trusted.overlay.opaque -v y opq; mknod gone c 0 0
echo 2 > e/b; mknod dir/b c 0 0; ln -s nowhere red; echo "2 d" > d; chmod 2755 dir
cd ../l3
mkdir -p dir/dir e/sub; echo 3 > dir/dir/a; echo 3 > e/sub/f; echo 3 > new; setfattr -n user.two -v top dir
cd ..; find l1 l2 l3 -exec touch -h -d @1700000000 {} +
mkdir -p u1 w1 m1 u2 w2 m2 m3 m4
"#;

impl Arena {
    /// Makes the layers and all mounts.
    pub fn new(kind: Kind) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("mille-d-")
            .tempdir_in("/var/tmp")
            .unwrap();
        tree::set_mode(directory.path(), 0o755);
        let at = directory.path().display().to_string();
        shell(&format!("cd {at} && {LAYERS}"));
        let lowers = ["l1", "l2", "l3"].map(|name| {
            (
                directory.path().join(name),
                tree::fingerprint(&directory.path().join(name)),
            )
        });
        let arena = Arena {
            directory,
            kind,
            lowers: lowers.to_vec(),
        };
        arena.mount_kernel("u2", "w2", "m2");
        arena.mount_ours("u1", "w1", "m1").code(0);
        shell(&format!("cp -a {at}/m2 {at}/plain"));
        arena
    }

    fn options(&self, upper: &str, work: &str) -> String {
        let at = self.directory.path().display();
        format!(
            "lowerdir={at}/l3:{at}/l2:{at}/l1,upperdir={at}/{upper},workdir={at}/{work},redirect_dir=on,metacopy={}",
            if self.kind.metacopy { "on" } else { "off" }
        )
    }

    fn mount_kernel(&self, upper: &str, work: &str, point: &str) {
        shell(&format!(
            "mount -t overlay overlay -o {},index={},xino=on {}",
            self.options(upper, work),
            if self.kind.index { "on" } else { "off" },
            self.directory.path().join(point).display()
        ));
    }

    fn mount_ours(&self, upper: &str, work: &str, point: &str) -> Outcome {
        let mut command = self.kind.who.command(&built("millefs"));
        command
            .arg("-o")
            .arg(self.options(upper, work))
            .arg(self.directory.path().join(point));
        run(command, b"")
    }

    /// Our mount.
    pub fn ours(&self) -> PathBuf {
        self.directory.path().join("m1")
    }

    /// The kernel's mount.
    pub fn kernel(&self) -> PathBuf {
        self.directory.path().join("m2")
    }

    /// A plain copy.
    pub fn plain(&self) -> PathBuf {
        self.directory.path().join("plain")
    }

    /// Unmounts ours and mounts its upper with the kernel.
    pub fn kernel_on_our_upper(&self) -> PathBuf {
        let at = self.directory.path().display();
        shell(&format!(
            "umount {at}/m1; umount {at}/m2; rm -rf {at}/w1; mkdir {at}/w1"
        ));
        shell(&format!(
            "mount -t overlay overlay -o {} {at}/m3",
            self.options("u1", "w1")
        ));
        self.directory.path().join("m3")
    }

    /// Unmounts the kernel's and mounts its upper with ours.
    pub fn ours_on_the_kernels_upper(&self) -> PathBuf {
        let at = self.directory.path().display();
        shell(&format!(
            "umount {at}/m1; umount {at}/m2; rm -rf {at}/w2; mkdir {at}/w2"
        ));
        self.mount_ours("u2", "w2", "m4").code(0);
        self.directory.path().join("m4")
    }

    /// Requires that no layer was written to.
    pub fn lowers_unchanged(&self) -> Result<(), String> {
        for (path, before) in &self.lowers {
            if tree::fingerprint(path) != *before {
                return Err(format!("{} was written to", path.display()));
            }
        }
        Ok(())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for point in ["m1", "m2", "m3", "m4"] {
            nix::mount::umount2(
                &self.directory.path().join(point),
                nix::mount::MntFlags::MNT_DETACH,
            )
            .ok();
        }
    }
}
