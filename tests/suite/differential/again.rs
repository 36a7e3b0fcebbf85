//! The view goes on after another mount: of the same upper, with the same numbers, or with the upper become the topmost
//! lower, below an empty one, as containers and their images are stacked.

use std::path::Path;

use super::arena::{Arena, Kind, Layers};
use super::judge::{Case, Trees};
use super::op::Op;
use super::random::Random;
use super::{WITHOUT_METACOPY, WITHOUT_PASSTHROUGH};

const MOUNTS: u64 = 8;
const OPERATIONS: u64 = 60;

fn go_on(kind: Kind, seeds: std::ops::Range<u64>) {
    let layers = Layers::new(kind);
    for seed in seeds {
        if let Err(difference) = hold_over_mounts(&layers, kind, seed) {
            panic!("seed {seed}, {kind:?}: {difference}");
        }
    }
    layers.assert_unchanged();
}

fn hold_over_mounts(layers: &Layers, kind: Kind, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut arena = Arena::new(layers);
    let mut trees = Trees::new(&arena);
    trees.look()?;
    for mount in 0..MOUNTS {
        let told = |error| format!("mount {mount}: {error}");
        let mut case = Case::new(&arena, Path::new(""), kind, 0);
        // The kernel's overlayfs refuses other lowers for an upper in which it has written an index.
        case.leave_the_kernel_out();
        for step in 0..OPERATIONS {
            let operation = Op::any(&mut random);
            case.timed_step(usize::try_from(step).unwrap(), &operation)
                .map_err(told)?;
        }
        trees.allow(case.longest_step);
        trees.look().map_err(told)?;
        drop(case);
        let turn = random.coin();
        arena.again(turn);
        if turn {
            trees.forget_numbers();
        }
        let told = |error| format!("after mount {mount}, turned: {turn}: {error}");
        trees.look().map_err(told)?;
    }
    Ok(())
}

#[test]
fn root_fuse_the_view_goes_on_with_the_upper_as_a_lower() {
    go_on(Kind::ROOT, 1..3);
}

#[test]
fn ci_root_fuse_the_view_goes_on_with_the_upper_as_a_lower() {
    go_on(Kind::ROOT, 10..14);
    go_on(WITHOUT_METACOPY, 20..22);
    go_on(WITHOUT_PASSTHROUGH, 30..32);
}

#[test]
fn soak_root_fuse_the_view_goes_on_with_the_upper_as_a_lower() {
    go_on(Kind::ROOT, 1000..1200);
    go_on(WITHOUT_METACOPY, 2000..2200);
}
