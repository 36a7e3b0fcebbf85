//! The upper as the common format: written by us and mounted by the kernel's overlayfs, and the other way round.

use std::path::PathBuf;

use mille_tests::{Inside, inside};

use super::arena::{Arena, Kind, Layers};
use super::hand::Hand;
use super::op::Op;
use super::random::Random;
use super::survey::{Survey, differing_names, survey};

/// Redirects and metadata-only files on both sides. Without the kernel's index: what it keeps there only it can read.
const ROOT: Kind = Kind {
    index: false,
    ..Kind::ROOT
};

/// As the kernel mounts in a user namespace, and we by default: neither redirects nor metadata-only files.
const USERXATTR: Kind = Kind {
    index: false,
    ..Kind::NAMESPACE
};

const SEQUENCES: u64 = 6;
const OPERATIONS: u64 = 250;

/// Carries out a sequence below `root`.
fn write(root: PathBuf, seed: u64) {
    let mut random = Random::new(seed);
    let mut hand = Hand::new(root);
    for _ in 0..OPERATIONS {
        // Refusals are the other tests' affair.
        hand.apply(&Op::any(&mut random)).ok();
    }
}

#[track_caller]
fn assert_same(before: &Survey, after: &Survey, seed: u64) {
    if let Some(difference) = differing_names(before, after) {
        panic!("seed {seed}: {difference}");
    }
}

fn kernel_reads_ours(kind: Kind, seeds: u64) {
    let layers = Layers::new(kind);
    for seed in seeds..seeds + SEQUENCES {
        let arena = Arena::new(&layers);
        write(arena.ours(), seed);
        let before = survey(&arena.ours()).unwrap();
        let after = survey(&arena.kernel_on_our_upper()).unwrap();
        assert_same(&before, &after, seed);
    }
    layers.assert_unchanged();
}

fn we_read_the_kernels(kind: Kind, seeds: u64) {
    let layers = Layers::new(kind);
    for seed in seeds..seeds + SEQUENCES {
        let arena = Arena::new(&layers);
        write(arena.kernel().unwrap(), seed);
        let before = survey(&arena.kernel().unwrap()).unwrap();
        let after = survey(&arena.ours_on_the_kernels_upper()).unwrap();
        assert_same(&before, &after, seed);
    }
    layers.assert_unchanged();
}

#[test]
fn root_fuse_kernel_reads_the_upper_we_wrote() {
    kernel_reads_ours(ROOT, 7000);
}

#[test]
fn root_fuse_we_read_the_upper_the_kernel_wrote() {
    we_read_the_kernels(ROOT, 8000);
}

#[test]
fn root_fuse_kernel_reads_the_upper_we_wrote_with_userxattr() {
    kernel_reads_ours(USERXATTR, 7100);
}

#[test]
fn root_fuse_we_read_the_upper_the_kernel_wrote_with_userxattr() {
    we_read_the_kernels(USERXATTR, 8100);
}

#[test]
fn user_namespace_fuse_kernel_reads_the_upper_we_wrote() {
    inside!(Inside::Namespace);
    kernel_reads_ours(USERXATTR, 7200);
}

#[test]
fn user_namespace_fuse_we_read_the_upper_the_kernel_wrote() {
    inside!(Inside::Namespace);
    we_read_the_kernels(USERXATTR, 8200);
}

/// An upper that has marks of a feature is refused as a whole when the feature is off, whoever wrote it.
#[test]
fn root_fuse_an_upper_with_marks_of_a_feature_that_is_off_is_refused() {
    let layers = Layers::new(ROOT);
    for (by_kernel, op, off) in [
        (false, RENAME, "redirect_dir"),
        (true, RENAME, "redirect_dir"),
        (false, CHMOD, "metacopy"),
        (true, CHMOD, "metacopy"),
    ] {
        let arena = Arena::new(&layers);
        let root = if by_kernel {
            arena.kernel().unwrap()
        } else {
            arena.ours()
        };
        Hand::new(root).apply(&op).unwrap();
        let refused =
            arena.ours_again(by_kernel, &format!("redirect_dir=on,metacopy=on,{off}=off"));
        assert_ne!(refused.code, 0, "{off}, by the kernel: {by_kernel}");
        let said = refused.err();
        let remedy = format!("mount it with {off}=on");
        assert!(said.contains(&remedy), "{said}");
        // With it, nothing is lost; and the other feature was not used.
        let other = if off == "metacopy" {
            "redirect_dir"
        } else {
            "metacopy"
        };
        let shown = arena.ours_again(
            by_kernel,
            &format!("redirect_dir=on,metacopy=on,{other}=off"),
        );
        shown.code(0);
    }
}

/// What we wrote without a feature is known to be without; what the kernel wrote after us is looked at again.
#[test]
fn root_fuse_marks_the_kernel_added_later_are_noticed() {
    let layers = Layers::new(ROOT);
    let arena = Arena::new(&layers);
    arena
        .ours_again(false, "redirect_dir=off,metacopy=off")
        .code(0);
    Hand::new(arena.kernel_on_our_upper())
        .apply(&RENAME)
        .unwrap();
    arena
        .ours_again(false, "redirect_dir=off,metacopy=off")
        .code(1)
        .says("redirect_dir=on");
}

/// The marks of a feature that went again are no reason to refuse.
#[test]
fn root_fuse_an_upper_whose_marks_have_gone_is_not_refused() {
    let layers = Layers::new(ROOT);
    let arena = Arena::new(&layers);
    let mut hand = Hand::new(arena.ours());
    hand.apply(&CHMOD).unwrap();
    hand.apply(&Op::Unlink("c")).unwrap();
    drop(hand);
    arena.ours_again(false, "metacopy=off").code(0);
}

const RENAME: Op = Op::Rename {
    from: "e",
    to: "moved",
};
const CHMOD: Op = Op::Chmod {
    path: "c",
    mode: 0o640,
};
