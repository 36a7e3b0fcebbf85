//! Where the serving threads run.
//!
//! With one caller a request is a conversation: one of the two always waits for the other. On two processors each word
//! wakes a processor that has just gone to sleep, which takes several times as long as most answers do. So while one
//! caller asks for names and attributes, the threads that serve it run on the processor it runs on. As soon as somebody
//! else asks, or data is moved, they run again wherever the system puts them.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use crate::sys::processor::{self, Processors};

/// Requests of one caller in a row before it counts as alone, and before it is asked again where it runs: that costs as
/// much as a request.
const PATIENCE: u32 = 64;

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

/// Who asks, and where the threads are to run.
#[derive(Debug)]
pub(crate) struct Near {
    caller: AtomicU32,
    /// How many requests of this caller have come one after the other.
    alone: AtomicU32,
    place: AtomicU32,
}

impl Near {
    pub(crate) fn new() -> Self {
        // While no thread is bound yet.
        let _all = allowed();
        Self {
            caller: AtomicU32::new(0),
            alone: AtomicU32::new(0),
            place: AtomicU32::new(ANYWHERE),
        }
    }

    /// A thread asks for something; 0 is the kernel itself, or a thread that is not seen from here.
    pub(crate) fn asked(&self, caller: u32) {
        let Some(allowed) = allowed() else {
            return;
        };
        if caller == 0 {
            return;
        }
        if self.caller.load(Ordering::Relaxed) != caller {
            self.caller.store(caller, Ordering::Relaxed);
            self.scatter();
        } else if self.alone.fetch_add(1, Ordering::Relaxed) % PATIENCE == PATIENCE - 1 {
            let place = processor::of_thread(caller).filter(|place| allowed.has(*place));
            self.place
                .store(place.unwrap_or(ANYWHERE), Ordering::Relaxed);
        }
        bind(self.place.load(Ordering::Relaxed), allowed);
    }

    /// Data is moved, which goes on beside what the caller does.
    pub(crate) fn moved_data(&self) {
        let Some(allowed) = allowed() else {
            return;
        };
        self.scatter();
        bind(ANYWHERE, allowed);
    }

    fn scatter(&self) {
        self.alone.store(0, Ordering::Relaxed);
        self.place.store(ANYWHERE, Ordering::Relaxed);
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
    fn only_one_caller_alone_is_followed() {
        let all = free();
        // Somebody who certainly runs somewhere.
        let me = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let near = Near::new();
        let alone = || (0..=PATIENCE).for_each(|_| near.asked(me));
        alone();
        assert_eq!(free(), 1);
        // The kernel's own requests are nobody's.
        near.asked(0);
        assert_eq!(free(), 1);
        let inherited = || std::thread::spawn(|| (free(), set_free(), free())).join();
        let (bound, (), freed) = inherited().unwrap();
        assert_eq!((bound, freed), (1, all));
        near.asked(1);
        assert_eq!(free(), all);
        (0..PATIENCE).for_each(|each| near.asked(if each % 8 == 0 { 1 } else { me }));
        assert_eq!(free(), all);
        alone();
        assert_eq!(free(), 1);
        near.moved_data();
        assert_eq!(free(), all);
        // Gone, or out of sight.
        (0..=PATIENCE).for_each(|_| near.asked(u32::MAX));
        assert_eq!(free(), all);
    }
}
