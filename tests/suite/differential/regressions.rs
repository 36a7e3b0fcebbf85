//! Shrunk sequences that once went wrong.

use super::arena::{Kind, Layers};
use super::judge::hold;
use super::op::Op;

#[track_caller]
fn holds(kind: Kind, operations: &[Op]) {
    let layers = Layers::new(kind);
    if let Err(difference) = hold(operations, &layers, kind) {
        panic!("{difference}");
    }
    layers.assert_unchanged();
}

#[test]
fn root_fuse_a_mount_leaves_the_times_of_the_root() {
    holds(Kind::ROOT, &[]);
}

#[test]
fn root_fuse_an_acl_set_from_outside_the_group_clears_set_gid() {
    holds(
        Kind::ROOT,
        &[
            Op::Chmod {
                path: "c",
                mode: 0o2755,
            },
            Op::AsUser(Box::new(Op::SetAcl {
                path: "c",
                default: false,
                bits: 7,
            })),
        ],
    );
}
