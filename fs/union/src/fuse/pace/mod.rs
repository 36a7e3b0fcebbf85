//! How the serving threads run while requests come one after the other.
//!
//! With one caller a request is a conversation: one of the two always waits for the other, and what that costs is decided
//! by where they wait and how. On an idle machine the waiting one's processor goes to sleep, and waking a halted virtual
//! processor takes 50 to 100 microseconds, several times as long as most answers do; on a busy one a place on a
//! processor has to be waited for; and a second serving thread is only woken to find nothing to do. So, as long as requests
//! come in close succession:
//!
//! - idle processors wait awake, see [`Awake`];
//! - while they come from one caller, one thread serves and the others step aside, see [`solo`]. If there is a processor
//!   to spare it looks for the next request for a moment before it sleeps; if there is none it runs on the processor the
//!   caller runs on, see [`near`].
//!
//! Who decides is a thread that looks every millisecond while requests come, and sleeps while they do not. What it goes by
//! are counters: a request costs no lock for it.

mod load;
mod near;
mod solo;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use load::Load;
use near::Near;
pub(crate) use near::set_free;
use solo::Solo;

use crate::awake::Awake;

/// Requests in close succession before anything is done about it.
const ROW: u32 = 8;

/// Requests that come within this time come in close succession.
const CLOSE: Duration = Duration::from_micros(500);

/// Between two looks; after one without a request the succession is over.
const TICK: Duration = Duration::from_millis(1);

/// One caller is alone as long as fewer than one request in so many comes from another than the one before, or moves data,
/// which goes on beside what the caller does.
const ALONE: u32 = 4;

/// Notices in which succession requests come.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    /// When the last request came, in microseconds.
    last: AtomicU64,
    row: AtomicU32,
    /// Requests come in close succession, and the keeper looks after them.
    close: AtomicBool,
    requests: AtomicU32,
    /// Who asked last.
    caller: AtomicU32,
    /// Requests that are no word of a conversation with the one who asked before.
    others: AtomicU32,
    near: Near,
    solo: Solo,
    keeper: OnceLock<Option<Thread>>,
}

impl Pace {
    /// For a mount that so many threads serve.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            since: Instant::now(),
            last: AtomicU64::new(0),
            row: AtomicU32::new(0),
            close: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            caller: AtomicU32::new(0),
            others: AtomicU32::new(0),
            near: Near::new(),
            solo: Solo::new(threads),
            keeper: OnceLock::new(),
        }
    }

    /// A thread asks for something, or has data moved; 0 is the kernel itself, or a thread that is not seen from here.
    pub(crate) fn asked(self: &Arc<Self>, caller: u32, moves_data: bool) {
        let another = caller != 0 && self.caller.load(Ordering::Relaxed) != caller;
        if another {
            self.caller.store(caller, Ordering::Relaxed);
        }
        if another || moves_data {
            self.others.fetch_add(1, Ordering::Relaxed);
        }
        // Last: who looks between the two must not take it for a word of the same conversation.
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.close.load(Ordering::Relaxed) {
            return self.near.follow();
        }
        let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let last = self.last.swap(now, Ordering::Relaxed);
        if Duration::from_micros(now.saturating_sub(last)) > CLOSE {
            self.row.store(0, Ordering::Relaxed);
        } else if self.row.fetch_add(1, Ordering::Relaxed) >= ROW {
            self.begin();
        }
    }

    /// The calling thread has served a request from `device` and is about to wait for the next.
    pub(crate) fn served(&self, device: Option<&OwnedFd>) {
        self.solo.served(device);
    }

    fn begin(self: &Arc<Self>) {
        if self.close.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(keeper) = self.keeper.get_or_init(|| keeper(Arc::downgrade(self))) {
            keeper.unpark();
        }
    }

    /// Looks after requests until none has come for a while.
    fn attend(&self, load: &mut Load) {
        let mut seen = self.requests.load(Ordering::Relaxed);
        loop {
            std::thread::sleep(TICK);
            let now = self.requests.load(Ordering::Relaxed);
            let others = self.others.swap(0, Ordering::Relaxed);
            // None: or the one thread that serves is busy with one that takes long, and others must be let in.
            let came = now.wrapping_sub(seen);
            if came == 0 {
                break;
            }
            seen = now;
            let alone = others < came.div_ceil(ALONE);
            let spare = load.leaves_room();
            let caller = self.caller.load(Ordering::Relaxed);
            self.near.to(Some(caller).filter(|_| alone && !spare));
            self.solo.alone(alone, spare);
        }
        self.near.to(None);
        self.solo.alone(false, false);
        self.row.store(0, Ordering::Relaxed);
        self.close.store(false, Ordering::Relaxed);
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if let Some(Some(keeper)) = self.keeper.get() {
            keeper.unpark();
        }
    }
}

/// The thread that looks; `None` if there can be none, and then nobody notices any more either.
fn keeper(pace: Weak<Pace>) -> Option<Thread> {
    let thread = std::thread::Builder::new().name("mille-pace".to_owned());
    match thread.spawn(move || keep(&pace)) {
        Ok(keeper) => Some(keeper.thread().clone()),
        Err(error) => {
            log::debug!("nobody looks at the pace of requests: {error}");
            None
        }
    }
}

/// A keeper's life: until the mount is gone.
fn keep(pace: &Weak<Pace>) {
    set_free();
    let awake = Awake::new();
    let mut load = Load::new();
    while let Some(pace) = pace.upgrade() {
        if pace.close.load(Ordering::Relaxed) {
            let _held = awake.as_ref().map(Awake::hold);
            pace.attend(&mut load);
        }
        drop(pace);
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

    const LONG: Duration = Duration::from_secs(10);

    /// Serves requests of these callers, one after the other and again and again, until what is returned is dropped.
    fn serve(pace: &Arc<Pace>, callers: &'static [u32]) -> std::sync::mpsc::Sender<()> {
        let pace = pace.clone();
        let (goes_on, until) = channel::<()>();
        std::thread::spawn(move || {
            let gone = |until: &Receiver<()>| {
                until.recv_timeout(Duration::from_micros(50)) == Err(RecvTimeoutError::Disconnected)
            };
            while !gone(&until) {
                for caller in callers {
                    pace.asked(*caller, false);
                    pace.served(None);
                }
            }
        });
        goes_on
    }

    fn wait_for(what: &str, seen: impl Fn() -> bool) {
        let since = Instant::now();
        while !seen() {
            assert!(since.elapsed() < LONG, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn one_thread_serves_a_caller_that_is_alone_and_all_serve_when_it_stops() {
        let pace = Arc::new(Pace::new(2));
        let first = serve(&pace, &[7]);
        let second = serve(&pace, &[7]);
        let aside = || pace.solo.count_aside();
        wait_for("a thread steps aside", || aside() == 1);
        // Both stop, or the one that serves is kept from going on: nobody waits for it.
        drop((first, second));
        wait_for("it comes back", || {
            aside() == 0 && !pace.close.load(Ordering::Relaxed)
        });
        pace.served(None);
    }

    #[test]
    fn all_serve_callers_that_take_turns() {
        let pace = Arc::new(Pace::new(2));
        let goes_on = serve(&pace, &[7, 8]);
        wait_for("it is looked", || pace.close.load(Ordering::Relaxed));
        for _ in 0..20 {
            std::thread::sleep(TICK);
            pace.served(None);
        }
        assert_eq!(pace.solo.count_aside(), 0);
        drop(goes_on);
    }

    #[test]
    fn seldom_requests_are_not_looked_after() {
        let pace = Arc::new(Pace::new(2));
        for _ in 0..4 * ROW {
            std::thread::sleep(2 * CLOSE);
            pace.asked(7, false);
        }
        assert!(pace.keeper.get().is_none());
    }

    #[test]
    fn the_keeper_goes_with_the_mount() {
        let pace = Arc::new(Pace::new(2));
        drop(serve(&pace, &[7]));
        for _ in 0..4 * ROW {
            pace.asked(7, false);
        }
        wait_for("a keeper", || pace.keeper.get().is_some());
        let gone = Arc::downgrade(&pace);
        drop(pace);
        wait_for("nobody holds it", || gone.upgrade().is_none());
    }
}
