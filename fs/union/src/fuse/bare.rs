//! Turning requests for extended attributes off where there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::pace;
use crate::view::View;

/// So many requests cost about as much as a look at every object of a usual image, which is what it takes to know that
/// they are in vain.
const WORTH_A_SEARCH: u32 = 1000;

/// What is known of a mount's extended attributes.
#[derive(Debug, Default)]
pub(crate) struct Bareness {
    asked: AtomicU32,
    proven: AtomicBool,
}

impl Bareness {
    /// A value was asked for. True once it is certain that there is none in the whole mount, and never will be.
    pub(crate) fn asked(self: &Arc<Self>, view: &Arc<View>) -> bool {
        if self.proven.load(Ordering::Relaxed) {
            return true;
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) == WORTH_A_SEARCH && !view.is_writable() {
            self.search(view);
        }
        false
    }

    fn search(self: &Arc<Self>, view: &Arc<View>) {
        let (this, view) = (self.clone(), Arc::downgrade(view));
        let thread = std::thread::Builder::new().name("mille-bare".to_owned());
        let search = move || {
            pace::set_free();
            let Some(view) = view.upgrade() else { return };
            match view.is_bare() {
                Ok(bare) => this.proven.store(bare, Ordering::Relaxed),
                Err(error) => log::debug!("extended attributes go on being asked for: {error}"),
            }
        };
        if let Err(error) = thread.spawn(search) {
            log::debug!("extended attributes go on being asked for: {error}");
        }
    }
}
