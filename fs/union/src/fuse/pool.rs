//! Threads for requests that take long.
//!
//! The serving threads handle a request on the spot, which is quickest for the usual microseconds. A request that copies
//! a large file, flushes to the disk or waits for another's copy would keep one of the few serving threads from
//! everything else: it moves here. Threads are made when there is nobody idle and go when there is nothing to do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::pace;

/// A request to be finished elsewhere.
type Job = Box<dyn FnOnce() + Send>;

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(10);

/// More threads than this are never made; further jobs wait for one. Jobs that wait for a copy only ever wait for one
/// that is running already, so that the limit cannot block for good.
const MOST: usize = 64;

/// Threads made on demand.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Mutex<Shared>>,
    sender: Sender<Job>,
}

struct Shared {
    jobs: Arc<Mutex<Receiver<Job>>>,
    idle: usize,
    threads: usize,
    queued: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Shared")
            .field("idle", &self.idle)
            .field("threads", &self.threads)
            .finish()
    }
}

impl Pool {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = channel();
        let jobs = Arc::new(Mutex::new(receiver));
        let shared = Shared {
            jobs,
            idle: 0,
            threads: 0,
            queued: 0,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            sender,
        }
    }

    /// Runs a job on a thread of the pool; on this one if there can be none.
    pub(crate) fn run(&self, job: Job) {
        let mut shared = self.shared.lock();
        if shared.idle <= shared.queued && shared.threads < MOST {
            let pool = self.shared.clone();
            let thread = std::thread::Builder::new().name("mille-slow".to_owned());
            match thread.spawn(move || work(&pool)) {
                Ok(_) => {
                    shared.threads += 1;
                    shared.idle += 1;
                }
                Err(error) => log::warn!("no thread for a slow request: {error}"),
            }
        }
        if shared.threads == 0 {
            drop(shared);
            return job();
        }
        shared.queued += 1;
        drop(shared);
        if let Err(unsent) = self.sender.send(job) {
            (unsent.0)();
        }
    }
}

/// A thread's life.
fn work(pool: &Mutex<Shared>) {
    pace::set_free();
    let jobs = pool.lock().jobs.clone();
    loop {
        let next = jobs.lock().recv_timeout(IDLE);
        match next {
            Ok(job) => {
                {
                    let mut shared = pool.lock();
                    shared.idle -= 1;
                    shared.queued -= 1;
                }
                job();
                pool.lock().idle += 1;
            }
            Err(RecvTimeoutError::Timeout) => {
                let mut shared = pool.lock();
                // A job may have been queued for this very thread since the wait ended.
                if shared.queued < shared.idle {
                    shared.idle -= 1;
                    shared.threads -= 1;
                    return;
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                let mut shared = pool.lock();
                shared.idle -= 1;
                shared.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_side_by_side() {
        let pool = Pool::new();
        let (second_ran, wait_for_second) = mpsc::channel();
        let (report, results) = mpsc::channel();
        // The first job can end only when the second has run.
        let first_report = report.clone();
        pool.run(Box::new(move || {
            let second = wait_for_second
                .recv_timeout(Duration::from_secs(5))
                .unwrap_or("late");
            first_report.send(second).unwrap();
        }));
        pool.run(Box::new(move || {
            second_ran.send("second ran").unwrap();
            report.send("second").unwrap();
        }));
        let mut seen: Vec<&str> = results.iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, ["second", "second ran"]);
    }
}
