//! Giving memory back after the kernel has forgotten much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::pace;
use crate::sys;

/// So many forgotten nodes are worth the look at the whole heap: about a megabyte.
const MANY: u32 = 4096;

/// The kernel forgets in waves; this long after the first of one it is looked whether it is over.
const WAVE: Duration = Duration::from_millis(500);

/// A wave that does not end is served as often as this many looks.
const LOOKS: u32 = 10;

/// Notices when much has been forgotten.
#[derive(Debug, Default)]
pub(crate) struct Tidy {
    forgotten: AtomicU32,
    waiting: AtomicBool,
}

impl Tidy {
    /// One more node was forgotten.
    pub(crate) fn forgotten(self: &Arc<Self>) {
        let before = self.forgotten.fetch_add(1, Ordering::Relaxed);
        if before < MANY || self.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        let thread = std::thread::Builder::new().name("mille-tidy".to_owned());
        if let Err(error) = thread.spawn(move || this.wait_and_trim()) {
            log::debug!("memory is not given back: {error}");
            self.waiting.store(false, Ordering::Release);
        }
    }

    fn wait_and_trim(&self) {
        pace::set_free();
        for _ in 0..LOOKS {
            std::thread::sleep(WAVE);
            if self.forgotten.swap(0, Ordering::Relaxed) == 0 {
                break;
            }
        }
        sys::memory::trim();
        self.waiting.store(false, Ordering::Release);
    }
}
