//! Files that are read or written on behalf of a container.

use std::os::unix::fs::PermissionsExt;

use mille_tests::Store;

use crate::Verdict;
use crate::attack::{image, image_with_config};

/// CVE-2024-9676: a passwd that is no file could be waited for, or read, for ever.
pub(crate) fn account_file(store: &Store) -> Verdict {
    image(store, "rm etc/passwd; mkfifo etc/passwd", &[]);
    let ran = store.line("run --rm evil echo ran").out();
    Verdict::of(ran.is_empty(), ran)
}

/// CVE-2026-57231: a name without a value in the image's environment is not the host's variable.
pub(crate) fn environment_of_the_image(store: &Store) -> Verdict {
    image_with_config(store, r#"{"Env":["SECRET","*","PATH=/bin"],"Cmd":["env"]}"#);
    let script = "SECRET=hunter2 \"$mille\" run --rm evil";
    let env = store.script(script).ok();
    assert!(env.contains("PATH=/bin"), "{env}");
    Verdict::of(!env.contains("hunter2"), env)
}

/// CVE-2021-41091: set-id programs of images are not for the other users of the host to execute.
pub(crate) fn store_of_others(store: &Store) -> Verdict {
    let fresh = store.file("fresh");
    store.script("\"$mille\" --root fresh images").ok();
    let mode = std::fs::metadata(fresh).unwrap().permissions().mode() & 0o777;
    Verdict::of(mode == 0o700, format!("mode {mode:o}"))
}
