//! The union held against the kernel's overlayfs and against a plain directory: the same random operations on all three,
//! every result and errno compared, then the whole trees.
//!
//! Where the kernel's overlayfs and the plain directory differ, either answer is right for us; where they agree there is
//! only one. A failing sequence is shrunk to the few operations that matter and printed as they would be typed.

mod act;
mod arena;
mod op;

use arena::{Arena, Kind};
use mille_tests::{Who, tree};
use op::{Op, Random};

/// Operations of one batch; every batch starts from fresh mounts.
const BATCH: usize = 120;

/// Runs `operations` on fresh mounts; `Err` tells the first difference.
fn hold(operations: &[Op], kind: Kind) -> Result<(), String> {
    let arena = Arena::new(kind);
    let start = now();
    let mut hands = [
        act::Hand::new(arena.ours()),
        act::Hand::new(arena.kernel()),
        act::Hand::new(arena.plain()),
    ];
    for (step, operation) in operations.iter().enumerate() {
        let [ours, kernel, plain] = hands.each_mut().map(|hand| hand.apply(operation));
        if ours != kernel && ours != plain {
            return Err(format!(
                "step {step}, {operation:?}:\n  ours   {ours:?}\n  kernel {kernel:?}\n  plain  {plain:?}"
            ));
        }
        if ours != plain && diverges(operation) {
            // The kernel's answer, and another state of the plain tree from here on: nothing more to compare with it.
            break;
        }
    }
    drop(hands);
    let [ours, plain] = [arena.ours(), arena.plain()].map(|root| {
        let mut objects = tree::read(&root);
        for object in objects.values_mut().filter(|object| object.mtime >= start) {
            // Made at about the same time, perhaps in different seconds.
            object.mtime = i64::MAX;
        }
        objects
    });
    if ours != plain {
        let differ = ours
            .keys()
            .chain(plain.keys())
            .find(|path| ours.get(*path) != plain.get(*path))
            .unwrap();
        return Err(format!(
            "{} differs at the end:\n  ours  {:?}\n  plain {:?}",
            differ.display(),
            ours.get(differ),
            plain.get(differ)
        ));
    }
    arena.lowers_unchanged()
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Whether a differing result of this operation means a differing state.
fn diverges(operation: &Op) -> bool {
    !matches!(
        operation,
        Op::Stat(_) | Op::List(_) | Op::Read(_) | Op::ReadHandle(..)
    )
}

/// Removes what a failing sequence does not need: halves, quarters, … single operations.
fn shrink(mut operations: Vec<Op>, kind: Kind) -> Vec<Op> {
    let mut chunk = operations.len() / 2;
    while chunk > 0 {
        let mut start = 0;
        while start < operations.len() {
            let mut fewer = operations.clone();
            fewer.drain(start..(start + chunk).min(operations.len()));
            if hold(&fewer, kind).is_err() {
                operations = fewer;
            } else {
                start += chunk;
            }
        }
        chunk /= 2;
    }
    operations
}

fn explore(kind: Kind, seed: u64, batches: u64) {
    for batch in 0..batches {
        let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ batch);
        let operations: Vec<Op> = (0..BATCH).map(|_| Op::any(&mut random)).collect();
        if hold(&operations, kind).is_err() {
            let few = shrink(operations, kind);
            let difference = hold(&few, kind).unwrap_err();
            panic!("seed {seed}, batch {batch}: {few:#?}\n{difference}");
        }
    }
}

#[test]
fn root_fuse_union_behaves_as_overlayfs() {
    explore(
        Kind {
            who: Who::Root,
            metacopy: true,
            index: true,
        },
        1,
        6,
    );
    explore(
        Kind {
            who: Who::Root,
            metacopy: false,
            index: true,
        },
        2,
        4,
    );
}

#[test]
fn ci_root_fuse_union_behaves_as_overlayfs_for_long() {
    for seed in 10..14 {
        explore(
            Kind {
                who: Who::Root,
                metacopy: seed % 2 == 0,
                index: true,
            },
            seed,
            60,
        );
    }
}

#[test]
fn soak_root_fuse_union_behaves_as_overlayfs() {
    for seed in 100..140 {
        explore(
            Kind {
                who: Who::Root,
                metacopy: seed % 2 == 0,
                index: true,
            },
            seed,
            220,
        );
    }
}

#[test]
fn root_fuse_kernel_reads_the_upper_we_wrote() {
    for seed in 0..4 {
        let kind = Kind {
            who: Who::Root,
            metacopy: true,
            index: true,
        };
        let arena = Arena::new(kind);
        let mut random = Random::new(seed + 7000);
        let mut hand = act::Hand::new(arena.ours());
        for _ in 0..200 {
            hand.apply(&Op::any(&mut random)).ok();
        }
        drop(hand);
        let before = tree::read(&arena.ours());
        let after = tree::read(&arena.kernel_on_our_upper());
        tree::assert_same(&before, &after);
    }
}

#[test]
fn root_fuse_we_read_the_upper_the_kernel_wrote() {
    for seed in 0..4 {
        let kind = Kind {
            who: Who::Root,
            metacopy: true,
            index: false,
        };
        let arena = Arena::new(kind);
        let mut random = Random::new(seed + 8000);
        let mut hand = act::Hand::new(arena.kernel());
        for _ in 0..200 {
            hand.apply(&Op::any(&mut random)).ok();
        }
        drop(hand);
        let before = tree::read(&arena.kernel());
        let after = tree::read(&arena.ours_on_the_kernels_upper());
        tree::assert_same(&before, &after);
    }
}
