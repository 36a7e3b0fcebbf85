//! Owners, modes and devices kept in an attribute, where the real ones cannot be had.

use mille_layer::encode::Encoder;
use mille_union::Ownership;
use mille_union::archive::{write_changes, write_tree};

use crate::kit::{Stage, require_root};

fn told(script: &str) -> Stage {
    require_root();
    let mut stage = Stage::new(1, script);
    stage.ownership = Ownership::Override;
    stage
}

/// What an object is stored as: mode and kind on disk, and the attribute.
const STORED: &str = "stored() { for f in \"$@\"; do echo \"$f $(stat -c '%a %u:%g %F' u/$f) \
                      $(getfattr --only-values -n user.containers.override_stat u/$f 2>/dev/null)\"; done; }";

#[test]
fn root_fuse_made_objects_are_told_by_the_attribute() {
    let stage = told("setfattr -n user.containers.override_stat -v 0:0:0755 l1");
    let mounted = stage.mount();
    let seen = stage.shell(
        "cd m; umask 022; echo data > f; mkdir d; mknod dev c 1 3; mknod blk b 8 17; mkfifo pipe; ln -s f l
         chown 5:6 f d dev; chmod 4711 f; chmod 2770 d; chown -h 7 l; ln f g
         stat -c '%n %a %u:%g %F %t:%T' f g d dev blk pipe l; cat f; find . -type c -o -type b -o -type p | sort",
    );
    assert_eq!(
        seen,
        "f 4711 5:6 regular file 0:0\ng 4711 5:6 regular file 0:0\nd 2770 5:6 directory 0:0\n\
         dev 644 5:6 character special file 1:3\nblk 644 0:0 block special file 8:11\npipe 644 0:0 fifo 0:0\n\
         l 777 0:0 symbolic link 0:0\ndata\n./blk\n./dev\n./pipe\n"
    );
    drop(mounted);
    let stored = stage.shell(&format!("{STORED}; stored f d dev blk pipe"));
    assert_eq!(
        stored,
        "f 600 0:0 regular file 5:6:04711\nd 700 0:0 directory 5:6:02770\n\
         dev 600 0:0 regular empty file 5:6:0644:char-1-3\nblk 600 0:0 regular empty file 0:0:0644:block-8-17\n\
         pipe 600 0:0 regular empty file 0:0:0644:pipe\n"
    );
    // Found again by the next mount.
    let _mounted = stage.mount();
    let again = stage.shell("cd m; stat -c '%n %a %u:%g %F' f dev; rm f dev; mkdir e; rmdir e d");
    assert_eq!(
        again,
        "f 4711 5:6 regular file\ndev 644 5:6 character special file\n"
    );
}

#[test]
fn root_fuse_what_lower_layers_tell_is_copied_up_and_changed() {
    let stage = told(
        "cd l1; echo low > f; : > dev; mkdir d; echo in > d/in; chmod 600 f dev; chmod 700 d
         tell() { setfattr -n user.containers.override_stat -v $1 $2; }
         tell 1000:100:0640 f; tell 0:0:0600:char-5-1 dev; tell 1000:1000:01777:dir d; tell 8:9:0444 d/in",
    );
    let before = stage.lowers_fingerprint();
    let mounted = stage.mount();
    let seen = stage.shell(
        "cd m; stat -c '%n %a %u:%g %F' f dev d d/in; echo more >> f; chown 5 f; chmod 600 d/in; chgrp 3 dev; touch d/new
         stat -c '%n %a %u:%g %F' f dev d d/in; cat f d/in",
    );
    assert_eq!(
        seen,
        "f 640 1000:100 regular file\ndev 600 0:0 character special file\nd 1777 1000:1000 directory\n\
         d/in 444 8:9 regular file\n\
         f 640 5:100 regular file\ndev 600 0:3 character special file\nd 1777 1000:1000 directory\n\
         d/in 600 8:9 regular file\nlow\nmore\nin\n"
    );
    drop(mounted);
    assert_eq!(stage.lowers_fingerprint(), before);
    let stored = stage.shell(&format!("{STORED}; stored f dev d/in"));
    assert_eq!(
        stored,
        "f 600 0:0 regular file 5:100:0640\ndev 600 0:0 regular empty file 0:3:0600:char-5-1\n\
         d/in 600 0:0 regular file 8:9:0600\n"
    );
}

#[test]
fn root_fuse_set_id_bits_go_as_they_must() {
    let stage = told("");
    let _mounted = stage.mount();
    let seen = stage.shell(
        "cd m; echo x > f; chmod 6755 f; chown 5:6 f; stat -c %a f; chmod 6755 f; chmod 777 .
         setpriv --reuid 1001 --clear-groups --inh-caps=-all bash -c 'echo y >> f' || true; stat -c %a f
         chmod 6777 f; setpriv --reuid 1001 --clear-groups --inh-caps=-all bash -c 'echo y >> f'; stat -c '%a %u' f",
    );
    assert_eq!(seen, "755\n6755\n777 5\n");
}

#[test]
fn root_fuse_permissions_are_those_told() {
    let stage = told("");
    let _mounted = stage.mount();
    stage.shell(
        "cd m; as() { setpriv --reuid 1001 --regid 1001 --clear-groups --inh-caps=-all \"$@\"; }
         chmod 755 .; echo x > secret; chmod 600 secret; no as cat secret 2>/dev/null
         echo y > open; chmod 644 open; as cat open; echo '#!/bin/sh' > run; chmod 711 run; chown 1001 run; as ./run
         mkdir mine; chown 1001:1001 mine; as touch mine/f; as mkdir mine/d; test $(stat -c %u:%g mine/f) = 1001:1001
         no as touch g 2>/dev/null; no setfacl -m u:5:rw open 2>/dev/null",
    );
}

#[test]
fn root_fuse_archives_have_what_is_told() {
    let stage = told(
        "cd l1; echo low > low; chmod 600 low; setfattr -n user.containers.override_stat -v 3:4:0640 low",
    );
    let mounted = stage.mount();
    stage.shell(
        "cd m; touch f; chown 5:6 f; chmod 4750 f; mknod dev c 1 3; mkfifo p; mkdir d; chown 9:9 d",
    );
    drop(mounted);
    let (merged, base) = (stage.view(), stage.base());
    let list = |name: &str, bytes: Vec<u8>| {
        let path = stage.path(name);
        std::fs::write(&path, bytes).unwrap();
        stage.shell(&format!(
            "tar --numeric-owner -tvf {} | sed 's/ \\+/ /g' | cut -d' ' -f1,2,3,6",
            path.display()
        ))
    };
    let mut changes = Encoder::new(Vec::new());
    write_changes(&merged, &base, &mut changes).unwrap();
    let ours =
        "drwxr-xr-x 9/9 0 d/\ncrw-r--r-- 0/0 1,3 dev\n-rwsr-x--- 5/6 0 f\nprw-r--r-- 0/0 0 p\n";
    assert_eq!(list("changes.tar", changes.finish().unwrap()), ours);
    let mut tree = Encoder::new(Vec::new());
    write_tree(&merged, &mut tree).unwrap();
    let all = list("tree.tar", tree.finish().unwrap());
    assert!(all.contains("-rw-r----- 3/4 4 low\n"), "{all}");
}
