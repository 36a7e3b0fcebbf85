//! mille for a user without subordinate ids, whose user namespaces have one id: owners are kept beside the files.

use mille_tests::{Store, Who};

/// A store with an image `owned` that is busybox with one more file: `/t/theirs`, mode 0640, of 1000:100.
fn with_owners() -> Store {
    let store = Store::with_busybox(Who::OneId);
    store
        .script(
            "set -e; mkdir t; echo theirs > t/theirs; tar -rf bb.tar --owner=1000 --group=100 --mode=0640 t/theirs; \
             $mille import bb.tar owned",
        )
        .ok();
    store
}

#[test]
fn user_fuse_one_id_owners_of_an_image_outlive_a_container() {
    let store = with_owners();
    let seen = store
        .mille([
            "run", "--name", "work", "owned", "sh", "-ec",
            "cat /t/theirs; echo more >> /t/theirs; chmod 4710 /t/theirs; mv /t/theirs /t/moved; echo mine > /mine; \
             chown 0:0 /mine; mkfifo /pipe; stat -c '%a %u:%g' /t/moved /mine /pipe",
        ])
        .ok();
    // All are root's inside: the kernel has no other id there.
    assert_eq!(seen, "theirs\n4710 0:0\n644 0:0\n644 0:0");
    store.line("commit work after").ok();
    let listed = store
        .script(
            "$mille export work | tar --numeric-owner -tv | sed 's/  */ /g' | grep -E ' (t/moved|mine|pipe)$' | \
             cut -d' ' -f1,2,6 | LC_ALL=C sort",
        )
        .ok();
    assert_eq!(
        listed,
        "-rw-r--r-- 0/0 mine\n-rws--x--- 1000/100 t/moved\nprw-r--r-- 0/0 pipe"
    );
    // The committed layer has the owner too: its tar is what a third container's export is made of.
    store.line("run --name third after cat /t/moved").ok();
    let third = store
        .script("$mille export third | tar --numeric-owner -tv t/moved")
        .ok();
    assert!(third.starts_with("-rws--x--- 1000/100 "), "{third}");
}

#[test]
fn user_fuse_one_id_other_ids_and_devices_are_refused_by_the_kernel() {
    let store = with_owners();
    // chown(2) to an id that the namespace does not have, and mknod(2) of a device, do not even reach a file system.
    let seen = store.mille([
        "run",
        "--rm",
        "owned",
        "sh",
        "-c",
        "chown 5:6 /t/a; mknod /device c 1 3; stat -c %u:%g /t/a; ls /device",
    ]);
    let seen = seen
        .says("chown: /t/a: Invalid argument")
        .says("mknod: /device: Operation not permitted");
    assert_eq!(seen.out(), "0:0");
}
