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

#[test]
fn user_fuse_one_id_files_are_copied_in_and_out() {
    let store = with_owners();
    store.line("run -d --name work owned sleep 1000").ok();
    let all = store.script(
        "set -e; echo in > f; $mille cp f work:/t/f; $mille exec work stat -c '%a %u:%g' /t/f; $mille exec work cat /t/f; \
         $mille cp work:/t/theirs back; cat back; stat -c %a back; \
         tar -c --owner=5 --group=6 f | $mille cp - work:/data; $mille exec work stat -c %u:%g /data/f; \
         $mille stop -t 0 work; $mille cp -a f work:/t/g; $mille cp work:/t/g -  | tar -xO; \
         $mille export work | tar --numeric-owner -tv t/f t/g t/theirs | sed 's/  */ /g' | cut -d' ' -f1,2,6",
    );
    assert_eq!(
        all.ok(),
        "644 0:0\nin\ntheirs\n640\n0:0\nwork\nin\n-rw-r--r-- 0/0 t/f\n-rw-r--r-- 0/0 t/g\n-rw-r----- 1000/100 t/theirs"
    );
}
