//! Shrunk sequences that once went wrong.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use mille_tests::{Inside, inside};

use super::arena::{Arena, Kind, Layers};
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

#[test]
fn user_fuse_what_is_open_for_writing_stays_so_when_the_mode_forbids_it() {
    inside!(Inside::Ordinary);
    holds(
        Kind::ORDINARY,
        &[
            Op::Open {
                slot: 0,
                path: "c",
                write: true,
                append: false,
            },
            Op::ChmodHandle {
                slot: 0,
                mode: 0o444,
            },
            Op::TruncateHandle {
                slot: 0,
                size: 1426,
            },
            Op::WriteHandle {
                slot: 0,
                at: 100,
                fill: b'x',
            },
            Op::ChmodHandle { slot: 0, mode: 0 },
            Op::ReadHandle(0),
            Op::Sync(0),
        ],
    );
}

/// As git makes its objects.
#[test]
fn user_fuse_the_maker_of_a_read_only_file_fills_it() {
    inside!(Inside::Ordinary);
    let layers = Layers::new(Kind::ORDINARY);
    let arena = Arena::new(&layers);
    for mode in [0o444, 0o200, 0] {
        let path = arena.ours().join(format!("mode-{mode:o}"));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .unwrap();
        file.write_all(b"object").unwrap();
        file.sync_all().unwrap();
        file.set_len(3).unwrap();
        drop(file);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"obj");
    }
}

#[test]
fn root_fuse_data_that_comes_up_later_leaves_the_capability() {
    holds(
        Kind::ROOT,
        &[
            Op::SetCapability("e/a"),
            Op::Create {
                path: "e/a",
                exclusive: false,
                mode: 0o644,
            },
        ],
    );
}

#[test]
fn user_namespace_fuse_a_mapping_leaves_the_set_id_bits() {
    inside!(Inside::Namespace);
    holds(
        Kind::NAMESPACE,
        &[
            Op::Open {
                slot: 2,
                path: "b",
                write: true,
                append: false,
            },
            Op::Unlink("b"),
            Op::MapWrite { slot: 2, fill: 68 },
            Op::StatHandle(2),
        ],
    );
}

#[test]
fn root_fuse_a_copy_up_by_open_shows_in_the_ctime_at_once() {
    holds(
        Kind::ROOT,
        &[
            Op::Create {
                path: "b",
                exclusive: false,
                mode: 0o600,
            },
            Op::AsUser(Box::new(Op::Allocate {
                path: "b",
                at: 3634,
                len: 641,
                keep_size: true,
            })),
        ],
    );
}

#[test]
fn root_fuse_a_mapping_leaves_the_capability() {
    holds(
        super::WITHOUT_PASSTHROUGH,
        &[
            Op::SetCapability("c"),
            Op::Open {
                slot: 2,
                path: "c",
                write: true,
                append: false,
            },
            Op::MapWrite { slot: 2, fill: 87 },
        ],
    );
}

/// Who reads the old bytes finds their holes.
#[test]
fn root_fuse_a_reader_of_the_old_bytes_finds_their_holes() {
    holds(
        Kind::ROOT,
        &[
            Op::Open {
                slot: 2,
                path: "b",
                write: false,
                append: false,
            },
            Op::Append {
                path: "b",
                len: 140_000,
                fill: 88,
            },
            Op::Seek {
                slot: 2,
                at: 4643,
                hole: true,
            },
        ],
    );
}

#[test]
fn root_fuse_a_reader_of_the_old_bytes_seeks_past_the_new_end() {
    holds(
        Kind::ROOT,
        &[
            Op::Open {
                slot: 2,
                path: "b",
                write: false,
                append: false,
            },
            Op::OpenTrunc("b"),
            Op::Seek {
                slot: 2,
                at: 1762,
                hole: true,
            },
        ],
    );
}

#[test]
fn root_fuse_a_range_is_not_copied_onto_itself() {
    let copy = Op::CopyRange { from: "b", to: "b" };
    holds(Kind::ROOT, &[copy]);
}

/// The other one was copied up before, and its ctime changed behind the kernel's back.
#[test]
fn user_namespace_fuse_an_exchange_that_is_refused_leaves_no_trace() {
    inside!(Inside::Namespace);
    holds(
        Kind::NAMESPACE,
        &[
            Op::Exchange {
                from: "red",
                to: "dir",
            },
            Op::AsUser(Box::new(Op::Mkdir {
                path: "red",
                mode: 0o700,
            })),
        ],
    );
}

#[test]
fn user_fuse_what_may_no_longer_be_opened_can_be_flushed() {
    inside!(Inside::Ordinary);
    holds(
        Kind::ORDINARY,
        &[
            Op::Open {
                slot: 0,
                path: "c",
                write: false,
                append: false,
            },
            Op::ChmodHandle { slot: 0, mode: 0 },
            Op::Sync(0),
        ],
    );
}
