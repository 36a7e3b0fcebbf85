//! One serving thread for one caller.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the next request is looked for: what a caller takes between two that it makes for one purpose.
const LOOK: Duration = Duration::from_micros(50);

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Who of the serving threads serves.
#[derive(Debug)]
pub(super) struct Solo {
    threads: usize,
    /// One thread is enough.
    alone: AtomicBool,
    /// That one looks for the next request before it sleeps.
    looks: AtomicBool,
    /// How many threads have stepped aside: never all of them. The lock is held for the count alone.
    aside: Mutex<usize>,
    back: Condvar,
}

impl Solo {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads,
            alone: AtomicBool::new(false),
            looks: AtomicBool::new(false),
            aside: Mutex::new(0),
            back: Condvar::new(),
        }
    }

    /// Whether one thread is enough, and looks; if not, all come back.
    pub(super) fn alone(&self, alone: bool, looks: bool) {
        self.looks.store(alone && looks, Ordering::Relaxed);
        if alone {
            self.alone.store(true, Ordering::Relaxed);
        } else if self.alone.load(Ordering::Relaxed) {
            // Under the lock: nobody may step aside who has seen the old word and misses the call.
            let aside = self.aside.lock();
            self.alone.store(false, Ordering::Relaxed);
            drop(aside);
            self.back.notify_all();
        }
    }

    /// A request has been served: the thread steps aside if it is not needed, or looks for the next.
    pub(super) fn served(&self, device: Option<&OwnedFd>) {
        if !self.alone.load(Ordering::Relaxed) {
            return;
        }
        if self.steps_aside() {
            return;
        }
        if self.looks.load(Ordering::Relaxed)
            && let Some(device) = device
        {
            look(device);
        }
    }

    /// How many threads have stepped aside.
    #[cfg(test)]
    pub(super) fn count_aside(&self) -> usize {
        *self.aside.lock()
    }

    fn steps_aside(&self) -> bool {
        let mut aside = self.aside.lock();
        if *aside + 1 >= self.threads {
            return false;
        }
        *aside += 1;
        while self.alone.load(Ordering::Relaxed) {
            self.back.wait(&mut aside);
        }
        *aside -= 1;
        true
    }
}

/// Returns when there is a request, or there has been none for a moment.
fn look(device: &OwnedFd) {
    let since = Instant::now();
    let mut device = [PollFd::new(device, PollFlags::IN)];
    while poll(&mut device, Some(&AT_ONCE)) == Ok(0) && since.elapsed() < LOOK {}
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn all_but_one_step_aside_and_come_back() {
        let solo = Arc::new(Solo::new(3));
        solo.served(None);
        solo.alone(true, false);
        let (report, served) = mpsc::channel();
        for _ in 0..3 {
            let (solo, report) = (solo.clone(), report.clone());
            std::thread::spawn(move || {
                solo.served(None);
                report.send(()).unwrap();
            });
        }
        let moment = Duration::from_secs(5);
        served.recv_timeout(moment).unwrap();
        while solo.count_aside() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        served.try_recv().unwrap_err();
        // As often as it is said.
        solo.alone(true, true);
        solo.alone(false, true);
        served.recv_timeout(moment).unwrap();
        served.recv_timeout(moment).unwrap();
        assert_eq!(solo.count_aside(), 0);
        solo.served(None);
    }

    #[test]
    fn the_last_one_looks_until_something_comes() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let device = OwnedFd::from(reader);
        let solo = Solo::new(1);
        let takes = || {
            let since = Instant::now();
            solo.served(Some(&device));
            since.elapsed()
        };
        solo.alone(true, true);
        assert!(takes() >= LOOK);
        writer.write_all(b"x").unwrap();
        // However busy the machine is, at least once.
        assert!((0..1000).any(|_| takes() < LOOK));
    }
}
