//! The union held against the kernel's overlayfs and against a plain directory: the same random operations on all three,
//! every result and errno compared, and the whole trees every hundred operations.
//!
//! A failing sequence is shrunk to the few operations that matter and printed as it would be typed into `regressions`.

mod acl;
mod again;
mod arena;
mod crew;
mod exchange;
mod hand;
mod handle;
mod judge;
mod moments;
mod op;
mod places;
mod random;
mod regressions;
mod survey;

use std::cell::Cell;

use arena::{Kind, Layers};
use judge::{Tally, hold, hold_together};
use op::Op;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use random::Random;

/// A sequence is made of blocks, so that shrinking first leaves out many operations at once. Both have half this length on
/// average: to be shrinkable to nothing, they may be generated short as well.
const BLOCK: usize = 40;
const BLOCKS: usize = 50;

/// How many shorter sequences are tried after a failure, and for how long.
const SHRINK_STEPS: u32 = 800;
const SHRINK_MS: u32 = 90_000;

fn operation() -> impl Strategy<Value = Op> {
    // The operations are small already: only leaving them out makes a failure clearer.
    any::<u64>().no_shrink().prop_map(Op::numbered)
}

/// By any of several processes. None renames with a whiteout: whether that is right is told by paths from the root.
fn operation_by_somebody() -> impl Strategy<Value = Op> {
    (0..crew::STANDS.len(), any::<u64>())
        .no_shrink()
        .prop_map(|(member, number)| Op::by(member, number))
        .prop_filter("of paths from the root", |operation| {
            !matches!(operation.act(), Op::RenameWhiteout { .. })
        })
}

type Sequence = BoxedStrategy<Vec<Vec<Op>>>;

fn sequence(operation: impl Strategy<Value = Op> + 'static) -> Sequence {
    vec(vec(operation, 0..=BLOCK), 0..=BLOCKS).boxed()
}

/// Holds sequences of `operations` in all; fails with the shortest sequence found that goes wrong.
pub fn explore(kind: Kind, seed: u64, operations: usize) {
    let layers = Layers::new(kind);
    explore_on(&layers, kind, seed, operations);
}

/// As [`explore`], on layers made before.
pub fn explore_on(layers: &Layers, kind: Kind, seed: u64, operations: usize) {
    explore_sequences(&sequence(operation()), layers, kind, seed, operations);
}

/// As [`explore`], the operations carried out by several processes in turn.
fn explore_by_processes(kind: Kind, seed: u64, operations: usize) {
    let sequences = sequence(operation_by_somebody());
    explore_sequences(&sequences, &Layers::new(kind), kind, seed, operations);
}

fn explore_sequences(
    sequences: &Sequence,
    layers: &Layers,
    kind: Kind,
    seed: u64,
    operations: usize,
) {
    let mut bytes = [0x6d; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: SHRINK_STEPS,
        max_shrink_time: SHRINK_MS,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let mut tally = Tally::default();
    while tally.operations < operations {
        let tree = sequences.new_tree(&mut runner).unwrap();
        let held = Cell::new(Tally::default());
        let outcome = runner.run_one(tree, |blocks| {
            let operations: Vec<Op> = blocks.into_iter().flatten().collect();
            held.set(hold(&operations, layers, kind).map_err(TestCaseError::fail)?);
            Ok(())
        });
        if let Err(TestError::Fail(reason, blocks)) = outcome {
            let few = blocks.iter().flatten().map(|op| format!("{op:?},\n"));
            panic!(
                "seed {seed}, {kind:?}:\n{}{reason}",
                few.collect::<String>()
            );
        }
        tally.operations += held.get().operations;
        tally.with_kernel += held.get().with_kernel;
    }
    layers.assert_unchanged();
    let Tally {
        operations,
        with_kernel,
    } = tally;
    eprintln!(
        "seed {seed}: {operations} operations, {with_kernel} with the kernel's overlayfs alongside"
    );
}

const WITHOUT_PASSTHROUGH: Kind = Kind {
    passthrough: false,
    ..Kind::ROOT
};
const WITHOUT_METACOPY: Kind = Kind {
    metacopy: false,
    ..Kind::ROOT
};

const fn in_memory(kind: Kind) -> Kind {
    Kind {
        memory: true,
        ..kind
    }
}

#[test]
fn root_fuse_union_of_files_written_before_they_are_copied_behaves_as_overlayfs() {
    for (passthrough, seed) in [(true, 4), (false, 5)] {
        let kind = Kind {
            passthrough,
            block_copyup: true,
            ..Kind::ROOT
        };
        explore(in_memory(kind), seed, 700);
    }
}

#[test]
fn root_fuse_union_behaves_as_overlayfs() {
    explore(Kind::ROOT, 1, 3000);
}

#[test]
fn root_fuse_union_without_passthrough_behaves_as_overlayfs() {
    explore(WITHOUT_PASSTHROUGH, 2, 2000);
}

#[test]
fn root_fuse_union_without_metacopy_behaves_as_overlayfs() {
    explore(WITHOUT_METACOPY, 3, 2000);
}

/// Several at once in one mount, each in a directory of its own: none may notice the others. In every tree each sequence
/// is a thread, or a process that stands in its directory.
fn explore_together(kind: Kind, processes: bool, seeds: std::ops::Range<u64>) {
    let places = ["p", "q", "r", "s"];
    let layers = Layers::in_directories(kind, &places);
    for seed in seeds {
        let sequences: Vec<_> = places
            .into_iter()
            .zip(seed * 100..)
            .map(|(place, seed)| {
                let mut random = Random::new(seed);
                let any = |_| match processes {
                    true => Op::by(0, random.below(u64::from(u32::MAX))),
                    false => Op::any(&mut random),
                };
                (place, (0..400).map(any).collect())
            })
            .collect();
        if let Err(difference) = hold_together(&sequences, &layers, kind) {
            panic!("seed {seed}, {kind:?}: {difference}");
        }
    }
    layers.assert_unchanged();
}

#[test]
fn root_fuse_sequences_in_one_mount_do_not_disturb_each_other() {
    explore_together(Kind::ROOT, false, 1..3);
    explore_together(WITHOUT_PASSTHROUGH, false, 3..5);
}

#[test]
fn root_fuse_processes_in_one_mount_do_not_disturb_each_other() {
    explore_together(Kind::ROOT, true, 5..7);
}

#[test]
fn root_fuse_processes_behave_as_on_overlayfs() {
    explore_by_processes(Kind::ROOT, 4, 1000);
}

#[test]
fn ci_root_fuse_sequences_in_one_mount_do_not_disturb_each_other() {
    explore_together(Kind::ROOT, false, 10..13);
    explore_together(Kind::ROOT, true, 13..16);
    explore_together(WITHOUT_PASSTHROUGH, false, 20..23);
    explore_together(WITHOUT_PASSTHROUGH, true, 23..26);
}

/// Operations of one test of the CI set; there are eight of them, so that they spread over the processors: with those of
/// `places`, more than 150,000 from 15 seeds.
const PART: usize = 12_000;

macro_rules! parts {
    ($($name:ident: $how:ident, $kind:expr, $seed:expr;)*) => { $(
        #[test]
        fn $name() {
            $how($kind, $seed, PART);
        }
    )* };
}

parts! {
    ci_root_fuse_union_behaves_as_overlayfs_1: explore, Kind::ROOT, 11;
    ci_root_fuse_union_behaves_as_overlayfs_2: explore, in_memory(Kind::ROOT), 12;
    ci_root_fuse_union_behaves_as_overlayfs_3: explore, in_memory(Kind::ROOT), 13;
    ci_root_fuse_union_behaves_as_overlayfs_4: explore, WITHOUT_PASSTHROUGH, 14;
    ci_root_fuse_union_behaves_as_overlayfs_5: explore, in_memory(WITHOUT_PASSTHROUGH), 15;
    ci_root_fuse_union_behaves_as_overlayfs_6: explore, WITHOUT_METACOPY, 16;
    ci_root_fuse_union_behaves_as_overlayfs_7: explore, in_memory(WITHOUT_METACOPY), 17;
    ci_root_fuse_processes_behave_as_on_overlayfs: explore_by_processes, in_memory(Kind::ROOT), 18;
}

/// Where the machine's root mounts: most of it in memory, for there it takes half the time.
const SOAKED: [Kind; 4] = [
    Kind::ROOT,
    in_memory(Kind::ROOT),
    in_memory(WITHOUT_PASSTHROUGH),
    in_memory(WITHOUT_METACOPY),
];

/// A million operations, from a seed of its own every time.
#[test]
fn soak_root_fuse_union_behaves_as_overlayfs() {
    soak(explore, &SOAKED, 1_000_000);
}

#[test]
fn soak_root_fuse_processes_behave_as_on_overlayfs() {
    soak(explore_by_processes, &SOAKED, 100_000);
}

/// Holds `operations` in all; `MILLE_SEED` repeats a run, `MILLE_OPERATIONS` shortens it.
fn soak(explore: fn(Kind, u64, usize), kinds: &[Kind], operations: u64) {
    let given = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given("MILLE_SEED").unwrap_or(clock.unwrap().as_secs());
    let operations = given("MILLE_OPERATIONS").unwrap_or(operations);
    let each = usize::try_from(operations).unwrap().div_ceil(kinds.len());
    for (kind, seed) in kinds.iter().zip(seed..) {
        explore(*kind, seed, each);
    }
}
