//! Where the serving threads run.
//!
//! On a busy machine caller and server take turns soonest on one processor: the one that has asked or answered goes to
//! sleep there and makes room for the other.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use crate::sys::processor::{self, Processors};

/// No processor in particular.
const ANYWHERE: u32 = u32::MAX;

thread_local! {
    /// The processor that this thread has been bound to.
    static HERE: Cell<u32> = const { Cell::new(ANYWHERE) };
}

/// Where the process may run, as it was before any thread was bound; `None` if that is not known or a single processor.
fn allowed() -> Option<&'static Processors> {
    static ALLOWED: OnceLock<Option<Processors>> = OnceLock::new();
    let known = ALLOWED.get_or_init(|| {
        let allowed = processor::allowed().ok();
        allowed.filter(|allowed| allowed.count() > 1)
    });
    known.as_ref()
}

/// Where the serving threads are to run.
#[derive(Debug)]
pub(super) struct Near(AtomicU32);

impl Near {
    pub(super) fn new() -> Self {
        // While no thread is bound yet.
        let _all = allowed();
        Self(AtomicU32::new(ANYWHERE))
    }

    /// Serve on the processor that this caller runs on now; anywhere if there is none, or it cannot be seen where.
    pub(super) fn to(&self, caller: Option<u32>) {
        let Some(allowed) = allowed() else {
            return;
        };
        let place = caller.and_then(processor::of_thread);
        let place = place.filter(|place| allowed.has(*place));
        self.0.store(place.unwrap_or(ANYWHERE), Ordering::Relaxed);
    }

    /// Has this thread run where it is to.
    pub(super) fn follow(&self) {
        if let Some(allowed) = allowed() {
            bind(self.0.load(Ordering::Relaxed), allowed);
        }
    }
}

/// Lets this thread run anywhere: at the start of every thread that a serving one may have made, which is bound like that.
pub(crate) fn set_free() {
    if let Some(allowed) = allowed() {
        HERE.set(ANYWHERE);
        report(processor::bind(allowed));
    }
}

/// Has this thread run on one processor.
fn bind(place: u32, allowed: &Processors) {
    HERE.with(|here| {
        if here.replace(place) == place {
            return;
        }
        let wanted = if place == ANYWHERE {
            processor::bind(allowed)
        } else {
            processor::bind(&Processors::only(place))
        };
        report(wanted);
    });
}

/// A thread that is not bound serves as well, only not as fast: a processor may have been taken away meanwhile.
fn report(bound: Result<(), Errno>) {
    if let Err(errno) = bound {
        log::debug!("bind to processor: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> u32 {
        processor::allowed().unwrap().count()
    }

    #[test]
    fn a_caller_is_followed_as_long_as_it_is_seen() {
        let all = free();
        // Somebody who certainly runs somewhere.
        let me = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let near = Near::new();
        let follow = |caller| {
            near.to(caller);
            near.follow();
            free()
        };
        assert_eq!(follow(None), all);
        assert_eq!(follow(Some(me)), 1);
        let inherited = || std::thread::spawn(|| (free(), set_free(), free())).join();
        let (bound, (), freed) = inherited().unwrap();
        assert_eq!((bound, freed), (1, all));
        assert_eq!(follow(None), all);
        assert_eq!(follow(Some(me)), 1);
        // Gone, or out of sight.
        assert_eq!(follow(Some(u32::MAX)), all);
    }
}
