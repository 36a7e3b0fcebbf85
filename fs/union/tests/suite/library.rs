//! The view as a library.

use std::ffi::OsStr;
use std::path::Path;

use mille_union::{Access, Error, Make, SetAttr, View, resolve_path};
use rustix::fs::FileType;

use crate::kit::{Stage, bytes, me, names, node, split};

#[test]
fn layers_merge_and_whiteouts_hide() {
    let stage = Stage::new(
        3,
        "mkdir -p l1/d/s l2/d l3/d; echo 1 > l1/d/a; echo 1 > l1/d/b; echo 2 > l2/d/b; echo 1 > l1/x
         mknod l3/d/a c 0 0; mkdir l3/x; echo 3 > l3/d/c",
    );
    let view = stage.base();
    assert_eq!(names(&view, ""), ["d", "x"]);
    assert_eq!(names(&view, "d"), ["b", "c", "s"]);
    assert_eq!(bytes(&view, "d/b"), b"2\n");
    assert!(node(&view, "x").is_dir());
    assert!(
        view.lookup(&node(&view, "d"), OsStr::new("a"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn paths_resolve_inside_the_root() {
    let stage = Stage::new(
        1,
        "cd l1; mkdir -p a/b; echo f > a/b/f; ln -s /a/b/f abs; ln -s ../../../../a/b up; ln -s loop loop; ln -s a/b/f/ bad",
    );
    let view = stage.base();
    let ino = |path: &str, follow| resolve_path(&view, Path::new(path), follow).map(|n| n.ino());
    let file = ino("/a/b/f", false).unwrap();
    assert_eq!(ino("abs", true).unwrap(), file);
    assert_ne!(ino("abs", false).unwrap(), file);
    assert_eq!(ino("up/f", false).unwrap(), file);
    assert_eq!(ino("../../a/./b/../b/f", true).unwrap(), file);
    assert_eq!(ino("loop", true).unwrap_err().errno(), libc::ELOOP);
    assert_eq!(ino("abs/x", true).unwrap_err().errno(), libc::ENOTDIR);
    assert_eq!(ino("bad", true).unwrap_err().errno(), libc::ENOTDIR);
    assert_eq!(ino("a/nosuch", true).unwrap_err().errno(), libc::ENOENT);
}

#[test]
fn an_upper_is_used_by_one_at_a_time_but_may_be_looked_at() {
    let stage = Stage::new(1, "echo 1 > l1/a");
    let view = stage.view();
    assert!(matches!(
        stage.try_view(Access::Exclusive),
        Err(Error::Busy { .. })
    ));
    let observed = stage.try_view(Access::Observe).unwrap();
    let (parent, name) = split(&view, "new");
    view.make(&parent, name, Make::Dir { mode: 0o755 }, 0, me())
        .unwrap();
    assert_eq!(names(&observed, ""), ["a", "new"]);
    let refused = observed
        .unlink(&observed.root(), OsStr::new("a"))
        .unwrap_err();
    assert_eq!(refused.errno(), libc::EROFS);
    drop((view, parent));
    stage.try_view(Access::Exclusive).unwrap();
}

/// umount(8) returns before a server has gone, and on a busy machine that takes its time.
#[test]
fn a_predecessor_that_takes_its_time_is_waited_for() {
    let stage = Stage::new(1, "");
    let predecessor = stage.view();
    let leaves = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(2500));
        drop(predecessor);
    });
    stage.try_view(Access::Exclusive).unwrap();
    leaves.join().unwrap();
}

#[test]
fn overlapping_directories_are_refused() {
    let stage = Stage::new(1, "mkdir -p l1/inner");
    for script in [
        "rm -r u; ln -s l1 u",
        "rm u; ln -s l1/inner u",
        "rm u; mkdir u; rm -r w; ln -s u w",
    ] {
        stage.shell(script);
        let error = stage.try_view(Access::Exclusive).unwrap_err();
        assert!(matches!(error, Error::Overlap { .. }), "{script}: {error}");
    }
}

#[test]
fn numbers_stay_over_copy_up_and_the_next_mount() {
    let stage = Stage::new(1, "cd l1; echo 1 > a; mkdir d; echo 2 > d/b; ln d/b d/c");
    let numbers = |view: &mille_union::View| ["a", "d", "d/b", "d/c"].map(|p| node(view, p).ino());
    let view = stage.view();
    let before = numbers(&view);
    assert_eq!(before[2], before[3]);
    let mode = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    for path in ["a", "d", "d/b"] {
        view.set_attr(&node(&view, path), &mode).unwrap();
    }
    assert_eq!(numbers(&view), before);
    assert_eq!(view.attr(&node(&view, "d/c")).unwrap().mode, 0o600);
    assert_eq!(view.attr(&node(&view, "d/c")).unwrap().nlink, 2);
    drop(view);
    assert_eq!(numbers(&stage.view()), before);
}

#[test]
fn a_killed_predecessor_s_hard_links_are_finished() {
    let stage = Stage::new(1, "cd l1; mkdir d; echo old > d/a; ln d/a b; ln d/a c");
    // As left by a server killed after the first of three links.
    stage.shell(
        "mkdir -p w/work u/d; echo new > w/work/intent-7.copy; ln w/work/intent-7.copy w/work/#6; \
         ln w/work/intent-7.copy u/b; printf 'd/a\\0b\\0c\\0' > w/work/intent-7.names; touch w/work/#9",
    );
    let view = stage.view();
    for path in ["d/a", "b", "c"] {
        assert_eq!(bytes(&view, path), b"new\n", "{path}");
    }
    assert_eq!(view.attr(&node(&view, "c")).unwrap().nlink, 3);
    assert!(!stage.shell("ls -A w/work").contains("intent"));
    assert_eq!(stage.shell("find w/work -type f"), "");
}

#[test]
fn a_hard_link_in_a_moved_directory_is_found() {
    let stage = Stage::new(1, "cd l1; mkdir -p d/e; echo x > d/e/a; ln d/e/a b");
    let view = stage.view();
    let root = view.root();
    let new = view
        .make(&root, OsStr::new("new"), Make::Dir { mode: 0o755 }, 0, me())
        .unwrap();
    let (from, name) = (node(&view, "d"), OsStr::new("e"));
    let flags = rustix::fs::RenameFlags::empty();
    view.rename(&from, name, &new, OsStr::new("moved"), flags)
        .unwrap();
    drop((view, root, new, from));
    let view = stage.view();
    view.prepare_write(&node(&view, "b"), true).unwrap();
    assert_eq!(view.attr(&node(&view, "b")).unwrap().nlink, 2);
    assert_eq!(view.attr(&node(&view, "new/moved/a")).unwrap().size, 0);
    assert_eq!(node(&view, "new/moved/a").ino(), node(&view, "b").ino());
}

#[test]
fn a_directory_that_was_not_replaced_after_all_stays_empty() {
    // Too long a way for a redirect: the rename is refused when the target has been prepared already.
    let long = "d".repeat(200);
    let stage = Stage::new(
        1,
        &format!("cd l1; mkdir -p {long}/{long}/moved target; echo low > target/a"),
    );
    let view = stage.view();
    let target = node(&view, "target");
    view.unlink(&target, OsStr::new("a")).unwrap();
    let (from, name) = (node(&view, &format!("{long}/{long}")), OsStr::new("moved"));
    let flags = rustix::fs::RenameFlags::empty();
    let refused = view.rename(&from, name, &view.root(), OsStr::new("target"), flags);
    assert_eq!(refused.unwrap_err().errno(), libc::EXDEV);
    assert_eq!(names(&view, "target"), [""; 0]);
    view.rmdir(&view.root(), OsStr::new("target")).unwrap();
    drop((view, target, from));
    assert_eq!(names(&stage.view(), ""), [long]);
}

#[test]
fn the_id_of_nobody_at_all_is_refused() {
    let stage = Stage::new(1, "echo 1 > l1/a");
    let view = stage.view();
    for (uid, gid) in [(Some(u32::MAX), None), (None, Some(u32::MAX))] {
        let change = SetAttr {
            uid,
            gid,
            ..SetAttr::default()
        };
        let refused = view.set_attr(&node(&view, "a"), &change);
        assert_eq!(refused.unwrap_err().errno(), libc::EINVAL);
    }
}

/// What a view says of a name: kind and number of the object, and its bytes.
fn told(view: &View, dir: &str, name: &str) -> Option<(FileType, u64, Vec<u8>)> {
    let node = view.lookup(&node(view, dir), OsStr::new(name)).unwrap()?;
    let bytes = match node.kind() {
        FileType::RegularFile => bytes(view, &format!("{dir}/{name}")),
        _ => names(view, &format!("{dir}/{name}")).join(" ").into(),
    };
    Some((node.kind(), node.ino(), bytes))
}

/// Once many names have been looked for, or the directory has been listed, only the layers that have a name are asked.
#[test]
fn names_known_of_many_layers_change_no_answer() {
    // Every name by chance in every layer: a file, a directory that merges, an opaque or a redirected one, whiteouts of both forms.
    let script = "RANDOM=20261121; for l in {1..9}; do mkdir -p l$l/d; for n in {a..t}; do p=l$l/d/$n; case $((RANDOM % 16)) in
        0) echo $l$n > $p;; 1) mknod $p c 0 0;; 2) touch l$l/d/.wh.$n;; 3|4) mkdir $p; touch $p/in$l;;
        5) mkdir $p; touch $p/in$l; setfattr -n trusted.overlay.opaque -v y $p;;
        6) mkdir $p; touch $p/in$l; setfattr -n trusted.overlay.redirect -v b $p;;
        7) mkdir $p; touch $p/in$l; setfattr -n trusted.overlay.redirect -v /d/c $p;; esac; done; done";
    let mut stage = Stage::new(9, script);
    stage.aufs = true;
    let (asked, listed) = (stage.base(), stage.base());
    for name in 'a'..='t' {
        told(&asked, "d", &format!("no{name}"));
    }
    names(&listed, "d");
    let mut there = 0;
    for name in ('a'..='z').map(String::from) {
        // One that has not been asked for anything yet.
        let fresh = told(&stage.base(), "d", &name);
        assert_eq!(told(&asked, "d", &name), fresh, "{name}");
        assert_eq!(told(&listed, "d", &name), fresh, "{name}");
        there += usize::from(fresh.is_some());
    }
    assert!((8..20).contains(&there), "{there}");
}
