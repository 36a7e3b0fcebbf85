//! What `millefs` has flushed when it says so, and what `volatile` leaves out.

use std::path::Path;

use mille_tests::program::{built, require, shell};

/// A directory of its own with `$millefs` in a script's environment.
fn script(script: &str) -> String {
    let directory = tempfile::Builder::new()
        .prefix("mille-y-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let at = directory.path().display();
    let millefs = built("millefs");
    shell(&format!(
        "cd {at}; millefs={}; trap 'cd {at}; for m in m again/m; do umount -l $m 2>/dev/null || true; done; \
         for d in disk after; do umount -l $d 2>/dev/null || true; done' EXIT\n{script}",
        Path::display(&millefs)
    ))
}

/// Counts the server's flushes (fsync, fdatasync) at each step; the copy-up of a directory alone needs none.
const COUNT: &str = r#"
mkdir -p l/d u w m; echo low > l/d/f; echo low > l/d/g
strace -f -qq -o log -e trace=fsync,fdatasync "$millefs" -f -o lowerdir=l,upperdir=u,workdir=w$options m & server=$!
until mountpoint -q m; do kill -0 $server; sleep 0.02; done
flushes() { grep -c -E 'f(data)?sync\(' log || true; }
told=
tell() { now=$(flushes); told="$told $1=$((now > before ? 1 : 0))"; before=$now; }
before=$(flushes)
echo more >> m/d/f; tell copy-up
sync m/d/f; tell file
echo more >> m/d/f; tell write
sync -d m/d/f; tell data
mkdir m/new; sync m/new; tell directory
sync m/d/g; tell lower
umount m; wait $server
echo $told; cd w; test -d work/incompat/volatile && echo marked || echo unmarked
"#;

#[test]
fn root_fuse_fsync_flushes_and_a_copy_up_does() {
    require("strace", "strace");
    let seen = script(&format!("options=\n{COUNT}"));
    assert_eq!(
        seen,
        "copy-up=1 file=1 write=0 data=1 directory=1 lower=0\nunmarked"
    );
}

#[test]
fn root_fuse_volatile_and_fsync_0_flush_nothing() {
    require("strace", "strace");
    for options in ["volatile", "fsync=0"] {
        let seen = script(&format!("options=,{options}\n{COUNT}"));
        assert_eq!(
            seen, "copy-up=0 file=0 write=0 data=0 directory=0 lower=0\nmarked",
            "{options}"
        );
    }
}

/// The mark says during which boot of the machine the upper was written: a server's end loses nothing. One of the
/// kernel's overlayfs does not, and is a reason to refuse as it is there.
#[test]
fn root_fuse_an_upper_written_without_flushing_is_refused_after_the_machine_went_down() {
    let seen = script(
        r#"
mkdir l u w m; echo low > l/f; on() { "$millefs" -o lowerdir=l,upperdir=u,workdir=w${1-} m; }
refused() { for o in "" ,volatile; do on $o 2>said && exit 1; grep -q "remove work/incompat/volatile in the work directory" said; done; }
on ,volatile; echo x > m/new; umount m
on; cat m/new; umount m; on ,volatile; cat m/new; umount m
mark=w/work; mark=$mark/incompat
echo another-boot > $mark/volatile/boot_id; refused
rm $mark/volatile/boot_id; refused
rm -r $mark/volatile; on; cat m/new; umount m
mount -t overlay none -o lowerdir=l,upperdir=u,workdir=w,volatile m; umount m; refused
rm -r $mark; on ,volatile; umount m
mount -t overlay none -o lowerdir=l,upperdir=u,workdir=w m 2>/dev/null && echo mounted || echo refused by the kernel"#,
    );
    assert_eq!(seen, "x\nx\nx\nrefused by the kernel");
}

/// A machine that stops: what the disk has at that moment is copied, and mounted again. The upper's file system still has
/// in memory what nobody has flushed.
#[test]
fn ci_root_fuse_what_was_flushed_outlives_the_machine() {
    let seen = script(
        r#"
truncate -s 48M image; mkfs.ext4 -q image; mkdir disk after m again; mount -o loop image disk
mkdir -p disk/l/d/e disk/u disk/w; head -c 3000000 /dev/urandom > disk/l/d/e/big; cp disk/l/d/e/big big; echo low > disk/l/d/f; echo low > disk/l/d/h
ln disk/l/d/h disk/l/d/h2; sync -f disk
on() { "$millefs" -o lowerdir=$1/l,upperdir=$1/u,workdir=$1/w $2; }
# The image as it is now, seen by another mount of it. Each has its own file: the loop device of the one before may not be gone.
crash() {
    count=$((${count:-0} + 1)); sync image; cp image crashed$count; mount -o loop crashed$count after; on after again; "$@"; umount again; umount after
}
on disk m
# Copied up by another change: the data is whole, or still that of the lower.
chmod 600 m/d/e/big; crash cmp again/d/e/big big
printf flushed > m/d/f; sync m/d/f; crash grep -x flushed again/d/f
echo more >> m/d/h2; sync m/d/h; crash cmp again/d/h m/d/h; crash cmp again/d/h2 m/d/h
mkdir -p m/d/new/deep; echo x > m/d/new/deep/f; sync m/d/new/deep/f m/d/new/deep m/d/new m/d; crash cat again/d/new/deep/f
mv m/d/e m/moved; sync m m/d; crash cmp again/moved/big big
rm m/d/f; sync m/d; crash test ! -e again/d/f
umount m; echo done"#,
    );
    assert_eq!(seen, "flushed\nx\ndone");
}
