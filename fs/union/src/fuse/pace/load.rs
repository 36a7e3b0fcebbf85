//! Whether a processor has nothing to do.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::sys::processor;

/// The fourth field says how many threads run or want to, see proc_loadavg(5).
const LOADAVG: &str = "/proc/loadavg";

/// Each look counts for one in so many: what is seen is a moment.
const WEIGHT: f32 = 0.125;

/// How many threads want to run, over the last few looks.
#[derive(Debug)]
pub(super) struct Load {
    source: Option<File>,
    processors: f32,
    wanting: f32,
}

impl Load {
    pub(super) fn new() -> Self {
        let source = File::open(LOADAVG);
        let source = source.inspect_err(|error| log::debug!("{LOADAVG}: {error}"));
        Self {
            source: source.ok(),
            processors: u16::try_from(processor::online()).map_or(f32::MAX, f32::from),
            wanting: 0.0,
        }
    }

    /// Looks, and says whether fewer threads want to run than there are processors, not counting the one that asks. Where it
    /// is not known there is room.
    pub(super) fn leaves_room(&mut self) -> bool {
        if let Some(now) = self.source.as_ref().and_then(running) {
            let others = f32::from(now.saturating_sub(1));
            self.wanting += (others - self.wanting) * WEIGHT;
        }
        self.wanting < self.processors
    }
}

/// How many threads of the machine run or want to.
fn running(source: &File) -> Option<u16> {
    let mut text = [0; 128];
    let length = source.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let (running, _all) = text.split_whitespace().nth(3)?.split_once('/')?;
    running.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_seen_to_run() {
        assert!(running(&File::open(LOADAVG).unwrap()).unwrap() > 0);
        let zero = tempfile::tempfile().unwrap();
        zero.write_all_at(b"0.00 0.00 0.00 nonsense 7\n", 0)
            .unwrap();
        assert_eq!(running(&zero), None);
    }

    #[test]
    fn more_threads_than_processors_leave_no_room_after_a_while() {
        let told = tempfile::tempfile().unwrap();
        let mut load = Load {
            source: Some(told.try_clone().unwrap()),
            processors: 2.0,
            wanting: 0.0,
        };
        let looks = |load: &mut Load, text: &str| {
            told.write_all_at(text.as_bytes(), 0).unwrap();
            (0..32).map(|_| load.leaves_room()).collect::<Vec<_>>()
        };
        // The one that looks, the caller, the server.
        assert!(
            looks(&mut load, "0.5 0.5 0.5 2/9 7")
                .iter()
                .all(|room| *room)
        );
        let busy = looks(&mut load, "0.5 0.5 0.5 4/9 7");
        assert!(busy[0] && !busy[31]);
        let idle = looks(&mut load, "0.5 0.5 0.5 2/9 7");
        assert!(!idle[0] && idle[31]);
    }
}
