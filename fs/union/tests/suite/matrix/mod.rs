//! The matrix: every call on every kind of object, wherever its layers have it, on a union and on a plain directory.
//!
//! Nothing is expected by hand: result, errno and everything that is there afterwards must be what the plain directory
//! gives. Besides, of the union only: numbers are constant over copy-up, rename and another mount, listings tell the same
//! numbers as stat, the layers are untouched, overlayfs sees the same tree in the
//! upper, and so does a union that has it as a lower.

mod arena;
mod call;
mod fixture;
mod snapshot;

use crate::kit::require_root;
use crate::mounted::without_passthrough;
use arena::{Arena, Case, Setting};
use call::{Call, opens};
use fixture::{Caller, Kind, Part, Place};
use mille_union::fuse::MountOptions;
use rustix::fs::RenameFlags;

/// One case for each object and each of `calls`.
fn cases(parts: &[Vec<Part>], callers: &[Caller], calls: &[Vec<Call>]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &caller in callers {
        for parts in parts {
            for calls in calls {
                cases.push(Case {
                    parts: parts.clone(),
                    caller,
                    calls: calls.clone(),
                });
            }
        }
    }
    cases
}

/// One object `o` of every kind in every place.
fn objects(places: &[Place]) -> Vec<Vec<Part>> {
    let mut objects = Vec::new();
    for &kind in Kind::ALL {
        for &place in places {
            objects.push(vec![Part::new("o", kind, place)]);
        }
    }
    objects
}

/// An object `a` of every kind in every place, and another `b`.
fn pairs(kinds: &[Kind], places: &[(Place, Place)]) -> Vec<Vec<Part>> {
    let mut pairs = Vec::new();
    for &source in kinds {
        for &target in kinds {
            for &(here, there) in places {
                pairs.push(vec![
                    Part::new("a", source, here),
                    Part::new("b", target, there),
                ]);
            }
        }
    }
    pairs
}

fn single(calls: impl IntoIterator<Item = Call>) -> Vec<Vec<Call>> {
    calls.into_iter().map(|call| vec![call]).collect()
}

/// What is done with a name after the call in question: can it be made, removed, made as something else?
fn afterwards(name: &'static str) -> [Call; 5] {
    use rustix::fs::OFlags;
    [
        Call::Open(name, OFlags::RDWR | OFlags::CREATE),
        Call::Unlink(name),
        Call::Mkdir(name),
        Call::Rmdir(name),
        Call::Open(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL),
    ]
}

/// The names that [`unary`] calls speak of.
const NAMES: [&str; 5] = ["o", "o/", "o/.", "o/..", "o/c"];

/// Calls on each of the names, in their order.
fn unary() -> Vec<Vec<Call>> {
    let mut all = Vec::new();
    for name in NAMES {
        let calls = [
            Call::Stat(name),
            Call::Unlink(name),
            Call::Rmdir(name),
            Call::Mkdir(name),
            Call::Fifo(name),
            Call::Symlink("somewhere", name),
            Call::Readlink(name),
            Call::List(name),
            Call::Truncate(name, 0),
            Call::Truncate(name, 3),
            Call::Truncate(name, 5000),
            Call::Chmod(name, 0o600),
            Call::Chmod(name, 0o6711),
            Call::Chown(name, false),
            Call::Chown(name, true),
            Call::Times(name, false),
            Call::Times(name, true),
            Call::SetXattr(name),
            Call::GetXattr(name),
            Call::Access(name),
            Call::Link(name, "new", false),
            Call::Link(name, "new", true),
            Call::Link(name, "o", false),
            Call::Link("o", name, false),
            Call::Rename(name, "new", RenameFlags::empty()),
            Call::Rename(name, "new/", RenameFlags::empty()),
            Call::Rename(name, "new", RenameFlags::EXCHANGE),
            Call::Rename(name, "o", RenameFlags::empty()),
            Call::Rename("o", name, RenameFlags::empty()),
            Call::Rename("o", "o/new", RenameFlags::empty()),
            Call::Rename(name, "o.l", RenameFlags::empty()),
            Call::Rename(name, "o.l", RenameFlags::NOREPLACE),
            Call::Rename(name, "o.l", RenameFlags::EXCHANGE),
        ];
        for call in calls {
            let mut calls = vec![call.clone(), call];
            if name == "o" {
                calls.extend(afterwards("o"));
            }
            all.push(calls);
        }
    }
    all
}

fn renames() -> Vec<Vec<Call>> {
    let flags = [
        RenameFlags::empty(),
        RenameFlags::NOREPLACE,
        RenameFlags::EXCHANGE,
    ];
    let mut all = Vec::new();
    for flags in flags {
        let mut calls = vec![Call::Rename("a", "b", flags)];
        calls.extend(afterwards("a"));
        calls.push(Call::Rename("b", "a", flags));
        all.push(calls);
    }
    for (from, to) in [("a/", "b"), ("a", "b/"), ("a/", "b/")] {
        all.push(vec![Call::Rename(from, to, RenameFlags::empty())]);
    }
    // Into and out of directories, and back.
    let inside = |from, to, back| {
        vec![
            Call::Rename(from, to, RenameFlags::empty()),
            Call::Rename(to, back, RenameFlags::empty()),
            Call::Mkdir(from),
            Call::List("b"),
        ]
    };
    all.push(inside("a", "b/c", "a"));
    all.push(inside("a", "b/new", "a2"));
    all.push(inside("a/c", "b/c", "c"));
    all.push(vec![
        Call::Link("a", "b", false),
        Call::Rename("a", "b", RenameFlags::empty()),
        Call::Unlink("a"),
        Call::Open("b", rustix::fs::OFlags::RDWR),
    ]);
    all
}

/// Each case flushes what it copies up, thousands of times; most of them in memory, some on a disk, as layers usually are.
fn on_disk() -> Setting {
    Setting {
        on_disk: true,
        ..Setting::default()
    }
}

const EVERYWHERE: &[Place] = &[Place::Lower, Place::Upper, Place::Copied];

#[test]
fn ci_root_fuse_matrix_of_opens_in_a_lower() {
    require_root();
    let cases = cases(
        &objects(&[Place::Lower]),
        &[Caller::Root],
        &single(opens(false)),
    );
    Arena::run(cases, &on_disk());
}

#[test]
fn ci_root_fuse_matrix_of_opens() {
    require_root();
    let calls = single(opens(true));
    let all = cases(&objects(&[Place::Lower]), &[Caller::Root], &calls);
    Arena::run(all, &Setting::default());
}

#[test]
fn ci_root_fuse_matrix_of_opens_of_copied_objects() {
    require_root();
    let calls = single(opens(true));
    let all = cases(&objects(&[Place::Copied]), &[Caller::Root], &calls);
    Arena::run(all, &Setting::default());
}

#[test]
fn ci_root_fuse_matrix_of_opens_by_others() {
    require_root();
    let others = [Caller::User, Caller::Stranger, Caller::Sticky];
    let calls = single(opens(false));
    let all = cases(&objects(&[Place::Lower]), &others, &calls);
    Arena::run(all, &Setting::default());
}

#[test]
fn ci_root_fuse_matrix_of_opens_without_passthrough() {
    require_root();
    let setting = Setting {
        options: without_passthrough(),
        metacopy: false,
        ..Setting::default()
    };
    let all = cases(&objects(EVERYWHERE), &[Caller::Root], &single(opens(false)));
    Arena::run(all, &setting);
}

#[test]
fn ci_root_fuse_matrix_of_calls_on_one_object_in_a_lower() {
    require_root();
    let mut calls = unary();
    calls.truncate(calls.len() / NAMES.len());
    let cases = cases(&objects(&[Place::Lower]), &[Caller::Root], &calls);
    Arena::run(cases, &on_disk());
}

#[test]
fn ci_root_fuse_matrix_of_calls_on_one_object() {
    require_root();
    let places = [Place::Lower, Place::Copied];
    let cases = cases(&objects(&places), &[Caller::Root], &unary());
    Arena::run(cases, &Setting::default());
}

#[test]
fn ci_root_fuse_matrix_of_calls_on_one_object_by_others() {
    require_root();
    let callers = [Caller::User, Caller::Stranger, Caller::Sticky];
    let mut calls = unary();
    calls.truncate(calls.len() / NAMES.len() * 2);
    let cases = cases(&objects(&[Place::Lower]), &callers, &calls);
    Arena::run(cases, &Setting::default());
}

/// Every kind renamed over every kind.
fn rename_everything(here: Place, there: Place) {
    require_root();
    let pairs = pairs(Kind::ALL, &[(here, there)]);
    let all = cases(&pairs, &[Caller::Root], &renames());
    Arena::run(all, &Setting::default());
}

#[test]
fn ci_root_fuse_matrix_of_renames_of_lower_over_copied_objects() {
    rename_everything(Place::Lower, Place::Copied);
}

#[test]
fn ci_root_fuse_matrix_of_renames_of_upper_over_lower_objects() {
    rename_everything(Place::Upper, Place::Lower);
}

#[test]
fn ci_root_fuse_matrix_of_renames_of_copied_over_upper_objects() {
    rename_everything(Place::Copied, Place::Upper);
}

#[test]
fn ci_root_fuse_matrix_of_renames_by_others() {
    require_root();
    let places = [(Place::Lower, Place::Lower)];
    let callers = [Caller::User, Caller::Stranger, Caller::Sticky];
    let all = cases(&pairs(Kind::SOME, &places), &callers, &renames());
    let setting = Setting {
        options: MountOptions::default(),
        metacopy: false,
        ..Setting::default()
    };
    Arena::run(all, &setting);
}
