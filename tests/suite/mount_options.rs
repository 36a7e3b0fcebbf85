//! The options of `millefs`, one by one, as callers of the mount see them.

use std::path::Path;

use mille_tests::program::{self, Outcome, built};
use mille_tests::{Who, leftovers, tree};

/// Layers `a` over `b`, `u`, `w` and the mount point `m` in a directory of its own.
struct Stage {
    who: Who,
    directory: tempfile::TempDir,
}

impl Stage {
    /// Makes the layers by a script that runs as this user.
    fn new(who: Who, layers: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("mille-o-")
            .tempdir_in("/var/tmp")
            .unwrap();
        tree::set_mode(directory.path(), 0o755);
        who.own(directory.path());
        let stage = Stage { who, directory };
        stage.script(&format!("mkdir a b u w m; {layers}")).ok();
        stage
    }

    fn script(&self, script: &str) -> Outcome {
        self.script_as(self.who, script)
    }

    /// Runs a script in the directory; `on OPTIONS` mounts with the layers and these options besides.
    fn script_as(&self, who: Who, script: &str) -> Outcome {
        let mut command = who.command(Path::new("/bin/bash"));
        let script = format!(
            "on() {{ \"$millefs\" -o \"lowerdir=a:b,upperdir=u,workdir=w${{1:+,$1}}\" m; }}\n\
             off() {{ umount m 2>/dev/null || fusermount3 -u m; }}\n{script}"
        );
        command
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(self.directory.path())
            .env("millefs", built("millefs"));
        program::run(command, b"")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.script("off 2>/dev/null; true");
        let found = leftovers::below(self.directory.path());
        leftovers::clear(self.directory.path());
        if !found.is_empty() && !std::thread::panicking() {
            panic!("left behind: {found:#?}");
        }
    }
}

#[test]
fn root_fuse_uidmapping_and_gidmapping_shift_both_ways() {
    let stage = Stage::new(
        Who::Root,
        "touch b/root b/one b/far; chown 1:1 b/one; chown 200000:200000 b/far; chmod 777 u",
    );
    let seen = stage
        .script(
            "on uidmapping=0:1000:1:1:110000:65536,gidmapping=0:1000:1:1:110000:65536; cd m; \
             stat -c '%n %u:%g' root one far; \
             echo x >> one; chown 1000:110004 root; touch made; chown 110000:110000 made; \
             ! chown 5 one 2>/dev/null; stat -c '%n %u:%g' root one made; cd ..; off; \
             stat -c '%n %u:%g' u/root u/one u/made",
        )
        .ok();
    assert_eq!(
        seen,
        "root 1000:1000\none 110000:110000\nfar 65534:65534\n\
         root 1000:110004\none 110000:110000\nmade 110000:110000\n\
         u/root 0:5\nu/one 1:1\nu/made 1:1"
    );
}

#[test]
fn root_fuse_uidmapping_makes_objects_as_their_maker_and_strangers_as_nobody() {
    let stage = Stage::new(Who::Root, "chmod 777 u");
    let map = program::ordinary_user().uid;
    stage
        .script(&format!(
            "on uidmapping=7:{map}:1,gidmapping=7:{map}:1; touch m/strange"
        ))
        .ok();
    stage
        .script_as(Who::Ordinary, "mkdir m/d; ln -s x m/l; stat -c %u m/d")
        .ok();
    let stored = stage
        .script("off; stat -c '%n %u:%g' u/strange u/d u/l")
        .ok();
    assert_eq!(stored, "u/strange 65534:65534\nu/d 7:7\nu/l 7:7");
}

#[test]
fn root_fuse_uidmapping_shifts_access_control_lists() {
    let stage = Stage::new(Who::Root, "touch b/f");
    let seen = stage
        .script(
            "on uidmapping=0:5000:100; setfacl -m u:5007:rw m/f; getfacl -nc m/f | grep user:5; \
             ! setfacl -m u:3:rw m/f 2>/dev/null; off; getfacl -nc u/f | grep user:",
        )
        .ok();
    assert_eq!(seen, "user:5007:rw-\nuser::rw-\nuser:7:rw-");
}

#[test]
fn root_fuse_squash_shows_one_owner_and_leaves_the_layers_alone() {
    let stage = Stage::new(
        Who::Root,
        "touch b/f b/g; chown 5:6 b/f; mkdir b/d; chown 7:8 b/d; chmod 777 u",
    );
    let seen = stage
        .script(
            "on squash_to_root; cd m; stat -c '%n %u:%g' f d .; chown 9:9 f; stat -c '%n %u:%g' f; cd ..; ls u; off; \
             on squash_to_uid=42,squash_to_root; stat -c '%n %u:%g' m/f; echo x >> m/f; off; \
             on squash_to_gid=43; stat -c '%n %u:%g' m/f; chown 10:9 m/f; touch m/n; off; stat -c '%n %u:%g' u/f u/n",
        )
        .ok();
    assert_eq!(
        seen,
        "f 0:0\nd 0:0\n. 0:0\nf 0:0\nm/f 42:0\nm/f 5:43\nu/f 10:6\nu/n 0:0"
    );
}

#[test]
fn root_fuse_static_nlink_and_timeout() {
    let stage = Stage::new(Who::Root, "mkdir -p b/d/1 b/d/2; touch b/f; ln b/f b/g");
    let seen = stage
        .script(
            "on; stat -c %h m/d m/f; off; on static_nlink; stat -c %h m/d m/f; mkdir m/d/3; stat -c %h m/d; off",
        )
        .ok();
    assert_eq!(seen, "4\n2\n1\n2\n1");
    // What somebody does to a layer behind the mount's back shows when the time is over.
    let seen = stage
        .script(
            "on timeout=0.2; ls m/behind 2>/dev/null || echo none; touch b/behind; sleep 0.5; ls m/behind; off",
        )
        .ok();
    assert_eq!(seen, "none\nm/behind");
}

#[test]
fn root_fuse_noacl_has_no_access_control_lists() {
    let stage = Stage::new(Who::Root, "touch b/f; setfacl -m u:5:rw b/f");
    let seen = stage
        .script(
            "on noacl; ! setfacl -m u:6:rw m/f 2>/dev/null; getfattr -m - m/f; getfacl -nc m/f | grep user:5 || echo plain; \
             off; on; getfacl -nc m/f | grep user:5; off",
        )
        .ok();
    assert_eq!(seen, "plain\nuser:5:rw-");
}

#[test]
fn root_fuse_labels_are_for_selinux_and_do_no_harm_without() {
    let stage = Stage::new(Who::Root, "touch b/f");
    let seen = stage.script(
        "on 'nodev,context=\"system_u:object_r:container_file_t:s0:c1,c2\",noexec'; grep \" $PWD/m \" /proc/mounts; off",
    );
    assert!(seen.ok().contains("nodev,noexec"));
}

#[test]
fn root_fuse_unknown_options_are_reported_and_what_others_have_is_taken() {
    let stage = Stage::new(Who::Root, "touch b/f");
    let outcome =
        stage.script("on wombat,volatile,index=off,xino=off,fsync=0,userxattr,x-y=z; ls m; off");
    assert_eq!(
        outcome.err().trim(),
        "millefs: option wombat is not known and ignored"
    );
    assert_eq!(outcome.ok(), "f");
}

/// The attribute can be set by whoever owns a file. For root, who can have real device nodes, a lower layer of somebody
/// else's must not bring any.
#[test]
fn root_fuse_no_device_comes_from_an_attribute_of_a_strangers_layer() {
    let stage = Stage::new(
        Who::Root,
        "touch b/dev; setfattr -n user.containers.override_stat -v 0:0:0666:char-1-3 b/dev",
    );
    let seen = stage
        .script("on userxattr; stat -c '%F %a' m/dev; off")
        .ok();
    assert_eq!(seen, "regular empty file 644");
}

/// The same tree by us and by the kernel: files whose data is in layers that are no part of the tree.
#[test]
fn root_fuse_layers_of_data_are_read_as_the_kernel_does() {
    let stage = Stage::new(
        Who::Root,
        "mkdir -p d1/x d2/x/y; printf 'first' > d1/x/one; printf 'second' > d2/x/y/two; printf other > d2/x/one; \
         leads() { truncate -s $3 $1; setfattr -n trusted.overlay.metacopy $1; setfattr -n trusted.overlay.redirect -v $2 $1; chmod 640 $1; }; \
         leads b/one /x/one 5; leads b/two /x/y/two 6; leads b/lost /x/none 3; echo plain > b/plain",
    );
    let see =
        "cat m/one m/two m/plain; ! cat m/lost 2>/dev/null; ls m; stat -c '%n %s %a' m/one m/two";
    let kernel = stage
        .script(&format!(
            "mount -t overlay none -o lowerdir=a:b::d1::d2,metacopy=on,redirect_dir=on m; {see}; off"
        ))
        .ok();
    let ours = stage
        .script(&format!(
            "\"$millefs\" -o lowerdir=a:b::d1::d2 m; {see}; off"
        ))
        .ok();
    assert_eq!(ours, kernel);
    let changed = stage
        .script(
            "\"$millefs\" -o lowerdir=a:b::d1::d2,upperdir=u,workdir=w m; chmod 600 m/one; printf more >> m/two; cat m/one m/two; \
             off; \"$millefs\" -o lowerdir=a:b::d1::d2,upperdir=u,workdir=w m; stat -c %a m/one; cat m/one m/two; ls m; off; \
             test ! -e d1/x/two; cat d2/x/y/two",
        )
        .ok();
    assert_eq!(
        changed,
        "firstsecondmore600\nfirstsecondmorelost\none\nplain\ntwo\nsecond"
    );
}

#[test]
fn root_fuse_a_killed_server_is_seen_as_one_that_has_gone() {
    let stage = Stage::new(Who::Root, "head -c 200000 /dev/zero > b/large");
    let seen = stage
        .script(
            "\"$millefs\" -f -o lowerdir=a:b,upperdir=u,workdir=w m & until mountpoint -q m; do sleep 0.02; done; echo kept > m/f; \
             exec 5<m/large; kill -9 $!; wait $! 2>/dev/null || true; (ls m 2>&1 || true) | grep -o 'not connected'; head -c 5 <&5 | wc -c; \
             exec 5<&-; umount m; on; cat m/f; off",
        )
        .ok();
    assert_eq!(seen, "not connected\n5\nkept");
}

#[test]
fn root_fuse_what_a_lower_layer_has_fixed_stays_as_it_is() {
    let stage = Stage::new(
        Who::Root,
        "mkdir b/dir b/empty; for f in b/fixed b/appended b/dir/f; do echo x > $f; done; \
         chattr +i b/fixed b/dir b/empty; chattr +a b/appended",
    );
    let undo = "chattr -ia b/fixed b/appended b/dir b/empty";
    let outcome = stage.script(&format!(
        "on; cd m; for try in 'echo y >> fixed' 'echo y > appended' 'truncate -s 0 fixed' 'chmod 600 fixed' 'chown 1 fixed' \
         'setfattr -n user.a -v b fixed' 'rm -f fixed appended' 'ln fixed l' 'mv fixed l' 'touch dir/new' 'rm -f dir/f' \
         'mv dir e' 'rmdir empty' 'touch n && mv n fixed'; do bash -c \"$try\" 2>/dev/null && echo \"done: $try\"; done; \
         cat fixed appended; echo inside >> dir/f; chattr -i fixed; echo y >> fixed; cat fixed; cd ..; off; {undo}"
    ));
    if outcome.code != 0 {
        stage.script(undo).ok();
    }
    assert_eq!(outcome.ok(), "x\nx\nx\ny");
}

#[test]
fn user_fuse_an_ordinary_user_mounts_through_fusermount() {
    let stage = Stage::new(
        Who::Ordinary,
        "echo top > a/f; echo bottom > b/f; mkdir b/d; echo g > b/d/g; : > b/gone",
    );
    let seen = stage
        .script(
            "on; cat m/f; rm m/gone; echo more >> m/d/g; mkdir m/d/n; grep \" $PWD/m \" /proc/mounts | cut -d' ' -f3; off; \
             find u -type c; cat u/d/g; \"$millefs\" -o lowerdir=u:b m; ls m m/d; ! touch m/x 2>/dev/null; off",
        )
        .ok();
    assert_eq!(
        seen,
        "top\nfuse.millefs\nu/gone\ng\nmore\nm:\nd\nf\n\nm/d:\ng\nn"
    );
}

/// The server of the mount before unmounted once more when it heard of its end: what was mounted there by then.
#[test]
fn user_fuse_a_mount_outlives_the_server_of_the_one_before() {
    let stage = Stage::new(Who::Ordinary, "echo low > b/f");
    let seen = stage
        .script("for n in $(seq 10); do on; off; on; sleep 0.1; cat m/f; off; done")
        .ok();
    assert_eq!(seen, ["low"; 10].join("\n"));
}

/// The way in which podman starts a mount program, with the least that a user can have: one id.
#[test]
fn user_fuse_a_namespace_with_one_id_keeps_owners_in_attributes() {
    let stage = Stage::new(
        Who::OneId,
        "tell() { setfattr -n user.containers.override_stat -v $1 $2; }; tell 0:0:0755 b; echo x > b/f; chmod 600 b/f; \
         tell 5:6:0640 b/f; echo y > a/plain; chmod 604 a/plain",
    );
    let seen = stage
        .script(
            "export -f on off; unshare --user --map-root-user --mount bash -euc '\
             on xattr_permissions=2; stat -c \"%n %a %u:%g\" m/f m/plain; ! cat m/f 2>/dev/null; off; \
             on xattr_permissions=2,squash_to_root; stat -c \"%n %a %u:%g\" m/f m/plain; cat m/f; echo z >> m/f; \
             chmod 4711 m/f; mkfifo m/p; stat -c \"%n %a %u:%g %F\" m/f m/p; off'; \
             getfattr --absolute-names --only-values -n user.containers.override_stat u/f; cat u/f",
        )
        .ok();
    assert_eq!(
        seen,
        "m/f 640 65534:65534\nm/plain 604 0:0\nm/f 640 0:0\nm/plain 604 0:0\nx\n\
         m/f 4711 0:0 regular file\nm/p 644 0:0 fifo\n5:6:04711x\nz"
    );
}

#[test]
fn root_fuse_stays_in_the_foreground_when_asked() {
    let stage = Stage::new(Who::Root, "touch b/f");
    let outcome = stage.script(
        "\"$millefs\" --debug -o lowerdir=a:b m & until mountpoint -q m; do sleep 0.02; done; ls m; ! touch m/x 2>/dev/null; \
         cat m/none 2>/dev/null || true; kill -0 $!; off; wait $!; echo ended $?",
    );
    assert_eq!(outcome.ok(), "f\nended 0");
    // A signal unmounts.
    let seen = stage
        .script(
            "\"$millefs\" -f -o lowerdir=a:b m & until mountpoint -q m; do sleep 0.02; done; kill $!; wait $!; \
             mountpoint -q m || echo gone",
        )
        .ok();
    assert_eq!(seen, "gone");
}

#[test]
fn root_fuse_an_upper_without_attributes_is_refused_with_the_reason() {
    let stage = Stage::new(Who::Root, "touch b/f");
    stage
        .script(
            "mkdir r; mount -t ramfs none r; mkdir r/u r/w; trap 'umount r' EXIT; \
             \"$millefs\" -o lowerdir=a:b,upperdir=r/u,workdir=r/w m",
        )
        .code(1)
        .says("r/u cannot be an upper layer")
        .says("the extended attribute trusted.overlay.opaque cannot be set");
}

#[test]
fn root_fuse_says_its_version_and_its_options() {
    let stage = Stage::new(Who::Root, "");
    let seen = stage
        .script("\"$millefs\" --version; \"$millefs\" --help")
        .ok();
    assert!(seen.starts_with("millefs "), "{seen}");
    assert!(seen.contains("xattr_permissions"), "{seen}");
}

#[test]
fn root_fuse_chattr_and_lsattr_reach_the_layers() {
    let stage = Stage::new(Who::Root, "touch b/f; mkdir b/d; chattr +d b/f");
    let seen = stage
        .script(
            "letters() { lsattr -d $1 | cut -d' ' -f1 | tr -d e-; }; on; cd m; letters f; chattr +i f; \
             ! rm f 2>/dev/null; ! bash -c 'echo x > f' 2>/dev/null; letters f; chattr -i f; rm f; \
             touch g; chattr +a g; echo 1 >> g; ! bash -c 'echo x > g' 2>/dev/null; chattr -a g; cat g; \
             chattr +A d; letters d; ! chattr -p 5 d 2>/dev/null; cd ..; off; letters u/d; letters b/f",
        )
        .ok();
    assert_eq!(seen, "d\nid\n1\nA\nA\nd");
}
