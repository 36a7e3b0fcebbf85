//! A server that dies, or whose system calls fail, at each single system call of an operation.
//!
//! strace(1) does it: it is attached to a mounted `millefs` with one serving thread. A first run records the calls that an
//! operation makes; then, in a run for each of them, the server is killed before that call, or the call fails. These are
//! all the moments there are: nothing changes between two calls.

mod cases;
mod stage;

use cases::{CASES, Case};
use stage::{Fault, Stage, View};

const EIO: Fault = Fault::Error("EIO", "Input/output error");
const ENOSPC: Fault = Fault::Error("ENOSPC", "No space left on device");

/// Runs a case with a fault at each call in turn. Afterwards the view must be what it was or what it should have become.
fn at_every_call(case: &Case, fault: Fault) {
    let stage = Stage::new(case);
    let seen = stage.undisturbed();
    assert_ne!(seen.before, seen.after, "{}: nothing is done", case.name);
    assert!(
        seen.calls.len() >= case.fewest,
        "{}: {:?}",
        case.name,
        seen.calls
    );
    for call in &seen.calls {
        if call.may(fault) {
            stage.struck(fault, call, &seen);
        }
    }
    stage.lowers_unchanged();
}

fn same(what: &str, seen: &View, wanted: &[(&str, &View)]) {
    if wanted.iter().any(|(_, view)| *view == seen) {
        return;
    }
    let mut text = format!("{what}: neither\n");
    for (name, view) in wanted {
        text += &format!("== {name}:\n{}", difference(view, seen));
    }
    panic!("{text}");
}

fn difference(wanted: &View, seen: &View) -> String {
    let only = |a: &View, b: &View, sign: char| -> String {
        let lines = a
            .lines()
            .filter(|line| !b.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    only(wanted, seen, '-') + &only(seen, wanted, '+')
}

macro_rules! faults {
    ($($name:ident: $case:literal, $fault:expr;)*) => {$(
        #[test]
        fn $name() {
            let case = CASES.iter().find(|case| case.name == $case).unwrap();
            at_every_call(case, $fault);
        }
    )*};
}

faults! {
    ci_root_fuse_killed_copying_up_data: "data", Fault::Kill;
    ci_root_fuse_killed_copying_up_metadata: "metadata", Fault::Kill;
    ci_root_fuse_killed_bringing_data: "bring-data", Fault::Kill;
    ci_root_fuse_killed_copying_up_a_link_group: "links", Fault::Kill;
    ci_root_fuse_killed_copying_up_directories: "directories", Fault::Kill;
    ci_root_fuse_killed_renaming_over_a_directory: "over-directory", Fault::Kill;
    ci_root_fuse_killed_renaming_a_merged_directory: "merged-directory", Fault::Kill;
    ci_root_fuse_killed_moving_a_merged_directory: "moved-directory", Fault::Kill;
    ci_root_fuse_killed_exchanging: "exchange", Fault::Kill;
    ci_root_fuse_killed_renaming_a_file: "rename-file", Fault::Kill;
    ci_root_fuse_killed_removing_a_lower_file: "whiteout", Fault::Kill;
    ci_root_fuse_killed_removing_a_copied_file: "whiteout-over-copy", Fault::Kill;
    ci_root_fuse_killed_removing_a_merged_directory: "rmdir", Fault::Kill;
    ci_root_fuse_killed_creating_over_a_whiteout: "create-over-whiteout", Fault::Kill;
    ci_root_fuse_killed_making_a_directory_over_a_whiteout: "mkdir-opaque", Fault::Kill;
    ci_root_fuse_killed_linking: "link", Fault::Kill;
    ci_root_fuse_killed_moving_onto_a_whiteout: "directory-onto-whiteout", Fault::Kill;
    ci_root_fuse_failing_copying_up_data: "data", EIO;
    ci_root_fuse_failing_copying_up_metadata: "metadata", EIO;
    ci_root_fuse_failing_bringing_data: "bring-data", EIO;
    ci_root_fuse_failing_copying_up_a_link_group: "links", EIO;
    ci_root_fuse_failing_copying_up_directories: "directories", EIO;
    ci_root_fuse_failing_renaming_over_a_directory: "over-directory", EIO;
    ci_root_fuse_failing_renaming_a_merged_directory: "merged-directory", EIO;
    ci_root_fuse_failing_moving_a_merged_directory: "moved-directory", EIO;
    ci_root_fuse_failing_exchanging: "exchange", EIO;
    ci_root_fuse_failing_renaming_a_file: "rename-file", EIO;
    ci_root_fuse_failing_removing_a_lower_file: "whiteout", EIO;
    ci_root_fuse_failing_removing_a_copied_file: "whiteout-over-copy", EIO;
    ci_root_fuse_failing_removing_a_merged_directory: "rmdir", EIO;
    ci_root_fuse_failing_creating_over_a_whiteout: "create-over-whiteout", EIO;
    ci_root_fuse_failing_making_a_directory_over_a_whiteout: "mkdir-opaque", EIO;
    ci_root_fuse_failing_linking: "link", EIO;
    ci_root_fuse_failing_moving_onto_a_whiteout: "directory-onto-whiteout", EIO;
    ci_root_fuse_out_of_space_copying_up_data: "data", ENOSPC;
    ci_root_fuse_out_of_space_copying_up_a_link_group: "links", ENOSPC;
    ci_root_fuse_out_of_space_copying_up_directories: "directories", ENOSPC;
    ci_root_fuse_out_of_space_renaming_a_merged_directory: "merged-directory", ENOSPC;
    ci_root_fuse_out_of_space_moving_a_merged_directory: "moved-directory", ENOSPC;
    ci_root_fuse_out_of_space_removing_a_lower_file: "whiteout", ENOSPC;
    ci_root_fuse_out_of_space_removing_a_merged_directory: "rmdir", ENOSPC;
    ci_root_fuse_out_of_space_creating_over_a_whiteout: "create-over-whiteout", ENOSPC;
    ci_root_fuse_out_of_space_making_a_directory_over_a_whiteout: "mkdir-opaque", ENOSPC;
}
