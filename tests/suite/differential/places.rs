//! The same elsewhere: in a user namespace, as an ordinary user, and with the upper on other file systems.

use std::path::{Path, PathBuf};

use mille_tests::program::{built, require, run, shell};
use mille_tests::{Inside, inside, own_mounts};

use super::arena::{Kind, Layers};
use super::{explore, explore_on, soak};

/// Operations of one test of the CI set.
const PART: usize = 8_000;

#[test]
fn user_namespace_fuse_union_behaves_as_overlayfs() {
    inside!(Inside::Namespace);
    explore(Kind::NAMESPACE, 21, 1500);
}

#[test]
fn user_fuse_union_behaves_as_a_directory() {
    inside!(Inside::Ordinary);
    explore(Kind::ORDINARY, 22, 1500);
}

#[test]
fn ci_user_namespace_fuse_union_behaves_as_overlayfs() {
    inside!(Inside::Namespace);
    explore(Kind::NAMESPACE, 23, PART);
}

#[test]
fn ci_user_namespace_fuse_union_with_metacopy_behaves_as_overlayfs() {
    inside!(Inside::Namespace);
    let asked_for = Kind {
        metacopy: true,
        ..Kind::NAMESPACE
    };
    explore(asked_for, 24, PART);
}

#[test]
fn ci_user_fuse_union_behaves_as_a_directory() {
    inside!(Inside::Ordinary);
    explore(Kind::ORDINARY, 25, PART);
}

#[test]
fn soak_user_namespace_fuse_union_behaves_as_overlayfs() {
    inside!(Inside::Namespace);
    let with_metacopy = Kind {
        metacopy: true,
        ..Kind::NAMESPACE
    };
    soak(explore, &[Kind::NAMESPACE, with_metacopy], 200_000);
}

#[test]
fn soak_user_fuse_union_behaves_as_a_directory() {
    inside!(Inside::Ordinary);
    soak(explore, &[Kind::ORDINARY], 100_000);
}

/// A file system of its own in a file, mounted while this lives.
struct Volume {
    directory: tempfile::TempDir,
}

impl Volume {
    fn new(kind: &str) -> Self {
        own_mounts();
        let directory = tempfile::Builder::new()
            .prefix("mille-v-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let at = directory.path().display();
        shell(&match kind {
            "ramfs" => format!("mkdir {at}/m; mount -t ramfs ramfs {at}/m"),
            "tmpfs" => format!("mkdir {at}/m; mount -t tmpfs -o size=300m tmpfs {at}/m"),
            _ => format!(
                "cd {at}; truncate -s 400M image; mkfs.{kind} -q image >mkfs.log; mkdir m; mount -o loop image m"
            ),
        });
        Volume { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("m")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        nix::mount::umount2(&self.path(), nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

fn explore_above(uppers: &Path, seed: u64, operations: usize) {
    let layers = Layers::with_uppers(Kind::ROOT, Some(uppers));
    explore_on(&layers, Kind::ROOT, seed, operations);
}

#[test]
fn root_fuse_upper_on_tmpfs() {
    explore_above(&Volume::new("tmpfs").path(), 31, 1000);
}

#[test]
fn ci_root_fuse_upper_on_tmpfs() {
    explore_above(&Volume::new("tmpfs").path(), 32, PART);
}

#[test]
fn ci_root_fuse_upper_on_ext4_of_its_own() {
    explore_above(&Volume::new("ext4").path(), 33, PART);
}

#[test]
fn ci_root_fuse_upper_on_xfs() {
    require("mkfs.xfs", "xfsprogs");
    explore_above(&Volume::new("xfs").path(), 34, PART);
}

#[test]
fn ci_root_fuse_upper_on_btrfs() {
    require("mkfs.btrfs", "btrfs-progs");
    explore_above(&Volume::new("btrfs").path(), 35, PART);
}

/// A file system that cannot hold an upper is refused at mount, with the reason.
#[test]
fn root_fuse_an_upper_without_extended_attributes_is_refused() {
    let volume = Volume::new("ramfs");
    let at = volume.path().display().to_string();
    shell(&format!("cd {at}; mkdir l u w m"));
    let mut command = std::process::Command::new(built("millefs"));
    command
        .arg("-o")
        .arg(format!("lowerdir={at}/l,upperdir={at}/u,workdir={at}/w"));
    command.arg(format!("{at}/m"));
    run(command, b"").code(1).says(
        "cannot be an upper layer: the extended attribute trusted.overlay.opaque cannot be set",
    );
}
