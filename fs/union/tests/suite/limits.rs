//! What cannot be had through FUSE or its library, and what callers see instead: see README.md, "Deviations".

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{AtFlags, CWD, StatxFlags, ioctl_ficlone, statx, syncfs};
use rustix::io::Errno;

use crate::kit::{Stage, require_root};

#[test]
fn root_fuse_callers_see_what_fuse_cannot_do() {
    require_root();
    let stage = Stage::new(1, "echo low > l1/f");
    let _mounted = stage.mount();
    let unnamed = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(stage.path("m"));
    assert_eq!(
        unnamed.unwrap_err().raw_os_error(),
        Some(libc::EOPNOTSUPP),
        "O_TMPFILE"
    );
    let from = File::open(stage.path("m/f")).unwrap();
    let to = File::create(stage.path("m/g")).unwrap();
    assert_eq!(ioctl_ficlone(&to, &from), Err(Errno::OPNOTSUPP), "FICLONE");
    assert_eq!(
        rustix::fs::copy_file_range(&from, None, &to, None, 100),
        Ok(4),
        "copy_file_range"
    );
    assert_eq!(syncfs(&to), Ok(()));
    let seen = statx(CWD, stage.path("m/f"), AtFlags::empty(), StatxFlags::ALL).unwrap();
    assert_eq!(seen.stx_mask & StatxFlags::BTIME.bits(), 0, "time of birth");
    assert_eq!(std::fs::read(stage.path("m/g")).unwrap(), b"low\n");
}
