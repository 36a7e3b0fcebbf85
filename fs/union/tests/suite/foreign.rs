//! Uppers that another program wrote.

use crate::kit::{Stage, require_root};

/// What fuse-overlayfs leaves in an upper: its own opaque signs and attributes beside the kernel's, and `.wh.` files
/// where it may not make device nodes.
#[test]
fn root_fuse_an_upper_of_fuse_overlayfs_goes_on() {
    require_root();
    let mut stage = Stage::new(
        1,
        "mkdir -p l1/d/s l1/e l1/keep l1/gone; echo low > l1/d/f; echo low > l1/e/f; echo low > l1/f; echo low > l1/g; echo low > l1/h
         mkdir u/d u/e; touch u/d/new u/d/.wh..wh..opq; mknod u/d/.wh..opq c 0 0; setfattr -n user.fuseoverlayfs.opaque -v y u/d
         touch u/e/.wh.f u/.wh.g u/.wh.gone; mknod u/f c 0 0; mknod u/h c 0 0",
    );
    stage.features.reserve_wh_names = true;
    let mounted = stage.mount();
    assert_eq!(
        stage.shell("cd m; ls . d e; getfattr -dm - d"),
        ".:\nd\ne\nkeep\n\nd:\nnew\n\ne:\n"
    );
    stage.shell(
        "cd m; no cat g 2>/dev/null; no ls d/f d/s 2>/dev/null; no touch .wh.x 2>/dev/null
         echo new > g; mkdir gone; touch gone/x; mkdir f; touch f/x; echo new > e/f; rm e/f; no ls e/f 2>/dev/null; rmdir e
         mv d keep/d; rm keep/d/new; rmdir keep/d; ln g h; mkdir d; touch d/y",
    );
    let seen = "cd m; ls -R . | grep -v '^$' | xargs; cat g h";
    let want = ".: d f g gone h keep ./d: y ./f: x ./gone: x ./keep:\nnew\nnew\n";
    assert_eq!(stage.shell(seen), want);
    drop(mounted);
    let mounted = stage.mount();
    assert_eq!(stage.shell(seen), want);
    stage.shell("cd m; rm -r gone g h f d; mkdir gone; ls -A gone | wc -l | grep -x 0");
    drop(mounted);
    let _mounted = stage.mount();
    assert_eq!(
        stage.shell("ls -AR m | xargs"),
        "m: gone keep m/gone: m/keep:\n"
    );
}

/// Lowers that were uppers: one of them has moved a directory, and something else is now where that was. What moves out of
/// the moved one is written down as the lowers together know it, as the kernel does, not as its own layer has it.
#[test]
fn root_fuse_what_leaves_a_directory_that_a_lower_has_moved_is_found_again() {
    require_root();
    let stage = Stage::new(
        2,
        "mkdir -p l1/old/sub; echo low > l1/old/sub/f; echo data > l1/old/file; echo two > l1/old/linked
         mkdir l2/moved; mknod l2/old c 0 0; setfattr -n trusted.overlay.redirect -v old l2/moved",
    );
    let see =
        "ls m m/moved m/away | xargs; cat m/away/f m/file m/other; stat -c '%a %i' m/away m/file";
    let mounted = stage.mount();
    let before = stage.shell(&format!(
        "mv m/moved/sub m/away; chmod 600 m/moved/file; mv m/moved/file m/file; chmod 640 m/moved/linked
         ln m/moved/linked m/other; {see}"
    ));
    assert!(
        before.starts_with("m: away file moved other m/away: f m/moved: linked\nlow\ndata\ntwo\n"),
        "{before}"
    );
    drop(mounted);
    let redirects = stage.shell(
        "for name in away file other; do getfattr --only-values -n trusted.overlay.redirect u/$name; echo; done",
    );
    assert_eq!(redirects, "/moved/sub\n/moved/file\n/moved/linked\n");
    let mounted = stage.mount();
    assert_eq!(stage.shell(see), before);
    drop(mounted);
    stage.shell(
        "mount -t overlay none -o lowerdir=l2:l1,upperdir=u,workdir=w,redirect_dir=on,metacopy=on m; \
         test \"$(cat m/away/f m/file m/other | xargs)\" = 'low data two'",
    );
}
