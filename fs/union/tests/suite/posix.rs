//! What a plain directory does and a union must do too, where it takes something of its own.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mille_union::fuse::MountOptions;

use crate::kit::{Stage, require_root};
use crate::mounted::without_passthrough;

/// The device that overlays use as their whiteout is one that anybody with the right can make.
#[test]
fn root_fuse_a_device_that_looks_like_a_whiteout_is_a_device() {
    require_root();
    let mut stage = Stage::new(2, "echo low > l1/gone; mkdir l1/d");
    stage.features.null_devices = true;
    let mounted = stage.mount();
    stage.shell(
        "rm m/gone; umask 027; mknod m/gone c 0 0; mknod m/new c 0 0; ln m/new m/other; mv m/new m/d/new; \
         chown 5:6 m/other; chmod 604 m/other",
    );
    let seen = "for f in gone other d/new; do stat -c '%n %F %t:%T %a %u:%g %h' m/$f; done";
    let want = "gone character special file 0:0 640 0:0 1\n\
                other character special file 0:0 604 5:6 2\n\
                d/new character special file 0:0 604 5:6 2\n";
    let want: String = want.lines().map(|line| format!("m/{line}\n")).collect();
    assert_eq!(stage.shell(seen), want);
    assert_eq!(
        stage.shell("ls m m/d | xargs"),
        "m: d gone other m/d: new\n"
    );
    mounted.unmount().unwrap();
    // Stored as what nobody takes for a whiteout.
    assert_eq!(
        stage.shell("stat -c %F u/gone u/d/new | sort -u"),
        "regular empty file\n"
    );
    let mounted = stage.mount();
    assert_eq!(stage.shell(seen), want);
    mounted.unmount().unwrap();
    // The same below another upper, from where it is copied up.
    stage.shell("rm -r l2; mv u l2; mkdir u; rm -r w; mkdir w");
    let mounted = stage.mount();
    assert_eq!(stage.shell(seen), want);
    stage.shell("touch -d @1 m/gone; chmod 600 m/other; rm m/gone; no test -e m/gone");
    assert_eq!(
        stage.shell("stat -c '%F %t:%T %a %u:%g %h' m/d/new"),
        "character special file 0:0 600 5:6 2\n"
    );
    mounted.unmount().unwrap();
}

#[test]
fn root_fuse_a_device_that_would_be_a_whiteout_is_refused_where_layers_become_archives() {
    require_root();
    let stage = Stage::new(1, "echo low > l1/f");
    let mounted = stage.mount();
    stage.shell("no mknod m/new c 0 0; no test -e m/new");
    mounted.unmount().unwrap();
}

/// The kernel leaves it to us: it asks for the truncation first and for the program afterwards.
#[test]
fn root_fuse_a_running_program_is_not_truncated_by_a_reader() {
    require_root();
    for options in [MountOptions::default(), without_passthrough()] {
        let stage = Stage::new(1, "cp /bin/sleep l1/low");
        let mounted = stage.mount_with(&options);
        stage.shell("cp /bin/sleep m/new");
        for name in ["low", "new"] {
            let path = stage.path("m").join(name);
            let open = |write: bool| {
                let mut options = File::options();
                options.read(true).write(write);
                options.custom_flags(libc::O_TRUNC).open(&path)
            };
            let mut program = Command::new(&path).arg("60").spawn().unwrap();
            for write in [false, true] {
                let refused = open(write).unwrap_err();
                assert_eq!(
                    refused.raw_os_error(),
                    Some(libc::ETXTBSY),
                    "{name} {write}"
                );
            }
            let size = path.metadata().unwrap().len();
            assert_eq!(size, Path::new("/bin/sleep").metadata().unwrap().len());
            assert_eq!(program.try_wait().unwrap(), None);
            program.kill().unwrap();
            program.wait().unwrap();
            // The kernel tells of the end a little later.
            let end = Instant::now() + Duration::from_secs(5);
            while open(false).is_err() {
                assert!(Instant::now() < end, "{name} is held for ever");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(path.metadata().unwrap().len(), 0);
        }
        mounted.unmount().unwrap();
    }
}

/// A write takes set-group-id away also where it cannot be executed by the group, unless by one of the group.
#[test]
fn root_fuse_set_group_id_goes_when_written_from_outside_of_the_group() {
    require_root();
    for options in [MountOptions::default(), without_passthrough()] {
        let stage = Stage::new(1, "chmod 755 .; echo low > l1/f");
        let mounted = stage.mount_with(&options);
        let outcomes = stage.shell(
            "for way in 'printf x >> m/f' ': > m/f' 'truncate -s 1 m/f' 'fallocate -l 9 m/f'; do \
               for groups in --clear-groups --groups=7; do chgrp 7 m/f; chmod 2666 m/f; \
                 setpriv --reuid=12345 --regid=12345 $groups sh -c \"$way\"; stat -c %a m/f; done; done | xargs",
        );
        assert_eq!(outcomes, "666 2666 666 2666 666 2666 666 2666\n");
        mounted.unmount().unwrap();
    }
}

#[test]
fn root_fuse_trusted_attributes_are_listed_to_root_alone() {
    require_root();
    let stage = Stage::new(
        1,
        "chmod 755 .; touch l1/f; setfattr -n trusted.t -v 1 l1/f; setfattr -n user.u -v 2 l1/f",
    );
    let mounted = stage.mount();
    let list = "getfattr -m - m/f | grep -v '^#' | xargs";
    assert_eq!(stage.shell(list), "trusted.t user.u\n");
    let other = format!("setpriv --reuid=12345 --regid=12345 --clear-groups sh -c \"{list}\"");
    assert_eq!(stage.shell(&other), "user.u\n");
    mounted.unmount().unwrap();
}

/// What the file system of the layer knows nothing of is not said to be merely absent.
#[test]
fn root_fuse_attributes_of_an_unknown_family_are_not_supported() {
    require_root();
    let stage = Stage::new(1, "touch l1/f");
    let mounted = stage.mount();
    let mut value = [0_u8; 8];
    for name in ["system.none", "none"] {
        let read = rustix::fs::getxattr(stage.path("m/f"), name, &mut value[..]);
        assert_eq!(read, Err(rustix::io::Errno::OPNOTSUPP), "{name}");
    }
    let read = rustix::fs::getxattr(stage.path("m/f"), "user.none", &mut value[..]);
    assert_eq!(read, Err(rustix::io::Errno::NODATA));
    mounted.unmount().unwrap();
}

/// What an object is called by its number holds over copy-up, rename and another mount, in whatever order the names are
/// looked up, also where the layers are on several file systems; and a listing says the same.
#[test]
fn root_fuse_numbers_are_the_same_at_the_next_mount_of_layers_on_several_devices() {
    require_root();
    let stage = Stage::new(
        3,
        "chmod 755 .; mount -t tmpfs none l1; mount -t tmpfs none l2; \
         for l in l1 l2 l3; do mkdir -p $l/d/sub-$l; echo $l > $l/f-$l; ln $l/f-$l $l/d/g-$l; ln -s f $l/s-$l; \
           mkfifo $l/p-$l; echo $l > $l/d/same; echo $l > $l/d/sub-$l/x; done",
    );
    let numbers = |order: &str| {
        stage.shell(&format!(
            "find m -mindepth 1 | sort {order} | while read -r n; do stat -c '%n %i %d' \"$n\"; done | sort"
        ))
    };
    let first = stage.mount();
    let before = numbers("");
    stage.shell("for l in l1 l2 l3; do echo x >> m/f-$l; chown -h 7 m/s-$l m/p-$l m/d/sub-$l; touch m/new-$l; done");
    let copied = numbers("-r");
    for line in before.lines() {
        assert!(
            copied.lines().any(|other| other == line),
            "{line}\n{copied}"
        );
    }
    stage.shell("mv m/d/sub-l1 m/moved; mv m/s-l2 m/d/; mv m/d m/e; mv m/p-l3 m/new-l1");
    let last = numbers("");
    first.unmount().unwrap();
    first.wait().unwrap();
    let only_numbers = |text: &str| -> Vec<String> {
        // The device is the mount's, and the next mount is another one.
        let names = text.lines().filter_map(|line| line.rsplit_once(' '));
        names.map(|(number, _)| number.to_owned()).collect()
    };
    for order in ["", "-r"] {
        let again = stage.mount();
        assert_eq!(
            only_numbers(&numbers(order)),
            only_numbers(&last),
            "{order}"
        );
        let listed = stage.shell("find m -mindepth 1 -printf '%p %i\\n' | sort");
        assert_eq!(listed.lines().collect::<Vec<_>>(), only_numbers(&last));
        again.unmount().unwrap();
        again.wait().unwrap();
    }
    stage.shell("umount l1 l2");
}

/// A union as a lower of another has numbers of 64 bits, for which there is no scheme.
#[test]
fn root_fuse_numbers_of_a_union_over_a_union_are_the_same_at_the_next_mount() {
    require_root();
    let inner = Stage::new(
        1,
        "mount -t tmpfs none l1; mkdir -p l1/d/e l1/empty; echo 1 > l1/d/e/f; ln l1/d/e/f l1/g; ln -s f l1/s",
    );
    let below = inner.mount();
    let mut outer = Stage::new(0, "");
    let lower = outer.path("l1");
    outer.shell(&format!("ln -s {} l1", inner.path("m").display()));
    assert!(lower.exists());
    outer.lowers = 1;
    let numbers = || outer.shell("find m -mindepth 1 -printf '%p %i\\n' | sort");
    let first = outer.mount();
    let before = numbers();
    outer.shell("chown -hR 7 m; echo 2 >> m/g");
    assert_eq!(numbers(), before);
    outer.shell("mv m/d m/moved; mv m/moved m/d");
    first.unmount().unwrap();
    first.wait().unwrap();
    let again = outer.mount();
    assert_eq!(numbers(), before);
    again.unmount().unwrap();
    again.wait().unwrap();
    below.unmount().unwrap();
    below.wait().unwrap();
    inner.shell("umount l1");
}

/// It set no times at all, as on xfs; the file system of the upper knows.
#[test]
fn root_fuse_a_truncation_to_the_same_size_sets_what_the_upper_s_file_system_sets() {
    require_root();
    let stage = Stage::new(1, "printf low > l1/f; mkdir plain");
    let mounted = stage.mount();
    stage.shell("printf top > m/new; printf top > plain/new; printf low > plain/f; cat m/f");
    let changes = |path: &str| -> (bool, bool) {
        let path = stage.path(path);
        let times = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let settle = || std::thread::sleep(Duration::from_millis(50));
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let before = times();
        settle();
        nix::unistd::truncate(name.as_c_str(), 3).unwrap();
        let between = times();
        settle();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(3)
            .unwrap();
        (between != before, times() != between)
    };
    for name in ["f", "new", "new"] {
        let want = changes(&format!("plain/{name}"));
        assert_eq!(changes(&format!("m/{name}")), want, "{name}");
    }
    mounted.unmount().unwrap();
}
