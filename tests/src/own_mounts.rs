//! A mount table of a test's own.

use std::cell::Cell;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Moves the calling thread, and what it starts from now on, into a mount namespace that nobody else has; once. For tests
/// that unmount and expect the server to end: another test that makes a namespace of the machine's mounts, as containers
/// and `unshare` do, would copy the mount and keep its server alive with it.
///
/// Needs root. `/proc/self/mounts` tells of the first thread's table, `/proc/thread-self/mounts` of this one.
pub fn own_mounts() {
    thread_local! {
        static DONE: Cell<bool> = const { Cell::new(false) };
    }
    if DONE.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}
