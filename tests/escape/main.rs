//! What a container must not be able to do: one test per lesson of others' vulnerabilities. Each row is tried twice: the
//! program as it is must hold, and a build of it that leaves just one protection out must be found broken by the very
//! same check, so that no row passes for want of an attack. README.md lists the rows, and those that do not apply.

mod attack;
mod descriptors;
mod files;
mod identity;
mod kernel;
mod mounts;

use mille_tests::{Store, Who};

/// What came of an attack.
#[derive(Debug)]
enum Verdict {
    /// Nothing was reached.
    Holds,
    /// Something was, and this shows it.
    Broken(String),
}

impl Verdict {
    /// Holds when `safe`; `evidence` says what was seen.
    fn of(safe: bool, evidence: impl Into<String>) -> Self {
        if safe {
            Verdict::Holds
        } else {
            Verdict::Broken(evidence.into())
        }
    }

    /// Broken if either is.
    fn and(self, then: impl FnOnce() -> Self) -> Self {
        match self {
            Verdict::Holds => then(),
            broken => broken,
        }
    }
}

type Row = fn(&Store) -> Verdict;

fn holds(row: Row) {
    match row(&Store::with_busybox(Who::Root)) {
        Verdict::Holds => {}
        Verdict::Broken(evidence) => panic!("{evidence}"),
    }
}

fn is_noticed(row: Row, hole: &'static str) {
    let mut store = Store::with_busybox(Who::Root);
    store.weaken(hole);
    let verdict = row(&store);
    assert!(
        matches!(verdict, Verdict::Broken(_)),
        "nothing is noticed without {hole}"
    );
}

/// A module per row with its two tests: the row, and the protection (of `mille_sandbox::weaken::Hole`) that it is about.
macro_rules! rows {
    ($($name:ident: $row:path, $hole:literal;)*) => {$(
        mod $name {
            #[test]
            fn root_fuse_holds() {
                crate::holds($row);
            }

            #[test]
            fn ci_root_fuse_is_noticed() {
                crate::is_noticed($row, $hole);
            }
        }
    )*};
}

rows! {
    program_of_the_host: crate::descriptors::program_of_the_host, "Seal";
    command_through_a_link_of_procfs: crate::descriptors::command_through_a_link_of_procfs, "MagicLinks";
    leaked_descriptors: crate::descriptors::leaked_descriptors, "Descriptors";
    working_directory_by_descriptor: crate::descriptors::working_directory_by_descriptor, "Cwd";
    looking_into_who_joins: crate::descriptors::looking_into_who_joins, "Tracing";
    session_of_the_launcher: crate::descriptors::session_of_the_launcher, "Session";

    mount_point_is_a_link: crate::mounts::mount_point_is_a_link, "ProcLink";
    volume_over_proc: crate::mounts::volume_over_proc, "ProcVolume";
    links_to_the_host: crate::mounts::links_to_the_host, "RootScope";
    links_that_are_swapped: crate::mounts::links_that_are_swapped, "RootScope";
    working_directory_is_a_link: crate::mounts::working_directory_is_a_link, "RootScope";
    mask_of_the_container: crate::mounts::mask_of_the_container, "MaskSource";
    failing_mounts: crate::mounts::failing_mounts, "MountErrors";

    masked_paths: crate::kernel::masked_paths, "Masks";
    parameters_of_the_kernel: crate::kernel::parameters_of_the_kernel, "ReadonlyPaths";
    control_groups: crate::kernel::control_groups, "Cgroups";
    device_nodes: crate::kernel::device_nodes, "Devices";
    system_calls: crate::kernel::system_calls, "Seccomp";
    processes_of_the_host: crate::kernel::processes_of_the_host, "PidNamespace";
    security_options: crate::kernel::security_options, "SecurityOption";

    inheritable_capabilities: crate::identity::inheritable_capabilities, "Inheritable";
    bounding_set: crate::identity::bounding_set, "BoundingSet";
    no_new_privileges: crate::identity::no_new_privileges, "NoNewPrivileges";
    users_that_are_none: crate::identity::users_that_are_none, "User";
    user_of_the_image: crate::identity::user_of_the_image, "User";
    groups_of_the_launcher: crate::identity::groups_of_the_launcher, "Groups";

    account_file: crate::files::account_file, "AccountFile";
    environment_of_the_image: crate::files::environment_of_the_image, "ImageEnv";
    store_of_others: crate::files::store_of_others, "StoreMode";
}

/// What the program of every day must not have: the switch of the weakened one.
#[test]
fn the_usual_program_is_not_weakened() {
    let program = std::fs::read(mille_tests::program::built("mille")).unwrap();
    let switch = b"MILLE_WEAKEN";
    assert!(!program.windows(switch.len()).any(|bytes| bytes == switch));
}
