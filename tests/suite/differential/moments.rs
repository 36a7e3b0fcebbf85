//! What one operation does to the times of the objects it names and of the directories they are in.
//!
//! Ours must change when the plain tree's do. Of what the plain tree leaves alone, a copy-up shows in the ctime, as with
//! every overlay, and nowhere else: mtime and atime stay. Reading need not set an atime (overlays do not write to lower
//! layers for it), and may set it later than the plain tree did; that of a directory says when the server read it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::op::Op;
use super::survey::CLOCK_LAG;

/// A time as the kernel tells it.
type Moment = (i64, i64);

/// One object at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    /// With the time of its birth, who it is.
    who: (u64, i64, u32),
    directory: bool,
    link: bool,
    atime: Moment,
    mtime: Moment,
    ctime: Moment,
}

/// The objects before an operation.
#[derive(Debug)]
pub struct Watch {
    start: Moment,
    /// The kernel's clock for files runs behind by up to a tick.
    just_before: Moment,
    before: Vec<Pair>,
}

#[derive(Debug)]
struct Pair {
    path: String,
    ours: Shown,
    plain: Shown,
    /// In the upper with its data, under one name: nothing is left to copy up.
    settled: bool,
}

impl Watch {
    /// Looks at what `operation` names in both trees; `upper` is ours.
    pub fn new(operation: &Op, ours: &Path, plain: &Path, upper: &Path) -> Self {
        let before = operation
            .paths()
            .into_iter()
            .flat_map(|path| {
                let parent = Path::new(path).parent().unwrap_or(Path::new(""));
                [path.to_owned(), parent.display().to_string()]
            })
            .filter_map(|path| {
                let (left, right) = (shown(&ours.join(&path))?, shown(&plain.join(&path))?);
                let settled = !left.directory && is_settled(&upper.join(&path));
                Some(Pair {
                    path,
                    ours: left,
                    plain: right,
                    settled,
                })
            })
            .collect();
        Watch {
            start: ago(Duration::ZERO),
            just_before: ago(CLOCK_LAG),
            before,
        }
    }

    /// Looks again, wherever the operation has put the objects; `Err` tells the first difference.
    pub fn compare(&self, operation: &Op, ours: &Path, plain: &Path) -> Result<(), String> {
        let paths: Vec<&String> = self.before.iter().map(|pair| &pair.path).collect();
        for path in paths {
            let (Some(ours), Some(plain)) = (shown(&ours.join(path)), shown(&plain.join(path)))
            else {
                continue;
            };
            let was = |pair: &&Pair| pair.plain.who == plain.who;
            let Some(pair) = self.before.iter().find(was) else {
                continue;
            };
            self.judge(pair, ours, plain, operation).map_err(|what| {
                format!("{path}: {what}\n  before {pair:?}\n  ours   {ours:?}\n  plain  {plain:?}")
            })?;
        }
        Ok(())
    }

    fn judge(&self, pair: &Pair, ours: Shown, plain: Shown, operation: &Op) -> Result<(), String> {
        let read = operation.reads();
        let set = matches!(operation.act(), Op::Utimes { path, .. } if *path == pair.path);
        for (what, time, owed, may_differ) in [
            (
                "mtime",
                (|shown| shown.mtime) as fn(Shown) -> Moment,
                true,
                false,
            ),
            ("ctime", |shown| shown.ctime, true, !pair.settled),
            // A symbolic link on the way is read too, and a directory when the server wants to know its names.
            (
                "atime",
                |shown| shown.atime,
                false,
                read || ours.link || ours.directory,
            ),
        ] {
            let (left, right) = (
                (time(pair.ours), time(ours)),
                (time(pair.plain), time(plain)),
            );
            let (here, there) = (left.0 != left.1, right.0 != right.1);
            // Too short a time after the change before, for a clock that ticks.
            let fresh = |before: Moment| before >= self.just_before;
            // An atime may be shown late: not that of a read by this operation, but of one before.
            let late = what == "atime" && left.1 <= self.start;
            if there && !here && owed && !fresh(left.0) {
                return Err(format!("the {what} is as before"));
            }
            if here && !there && !may_differ && !late && !fresh(right.0) {
                return Err(format!("the {what} has changed"));
            }
            // A symbolic link may be on the way to another of its names, and is read again by whoever looks.
            let read_since = what == "atime" && ours.link && fresh(right.1);
            if set && what != "ctime" && there && left.1 != right.1 && !read_since {
                return Err(format!("the {what} is not what was set"));
            }
        }
        Ok(())
    }
}

fn ago(span: Duration) -> Moment {
    let then = (SystemTime::now() - span).duration_since(SystemTime::UNIX_EPOCH);
    let since = then.unwrap_or(Duration::ZERO);
    (
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        i64::from(since.subsec_nanos()),
    )
}

fn shown(path: &PathBuf) -> Option<Shown> {
    let meta = path.symlink_metadata().ok()?;
    let birth = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    Some(Shown {
        who: (meta.ino(), birth.stx_btime.tv_sec, birth.stx_btime.tv_nsec),
        directory: meta.is_dir(),
        link: meta.is_symlink(),
        atime: (meta.atime(), meta.atime_nsec()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        ctime: (meta.ctime(), meta.ctime_nsec()),
    })
}

fn is_settled(upper: &Path) -> bool {
    let Ok(meta) = upper.symlink_metadata() else {
        return false;
    };
    let without_data = ["trusted", "user"].iter().any(|family| {
        let name = format!("{family}.overlay.metacopy");
        rustix::fs::lgetxattr(upper, name, &mut [0_u8; 64][..]).is_ok()
    });
    meta.nlink() == 1 && !without_data
}
