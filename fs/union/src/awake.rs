//! Keeping idle processors awake.
//!
//! Two processes that wait for each other by turns spend most of their time on waking processors: a halted virtual one takes
//! 50 to 100 microseconds. So for as long as such a conversation lasts the kernel is asked for wake-ups within 0 microseconds (Documentation/power/pm_qos_interface.rst): an idle processor
//! then waits awake instead of halting, and who computes loses nothing by it. The request ends with the descriptor it was
//! written to, however the server ends. Only root may ask; elsewhere processors sleep as they do.

use std::fs::File;
use std::io::Write;

use crate::sys::processor;

/// Where the kernel takes such requests: 32 bits in the machine's order, microseconds.
const LATENCY: &str = "/dev/cpu_dma_latency";

/// Not even the shallowest sleep: that of a virtual processor is said to take a microsecond, whatever it takes.
const NO_SLEEP: i32 = 0;

/// No request (`PM_QOS_DEFAULT_VALUE`).
const AS_USUAL: i32 = -1;

/// All idle processors of the machine stay awake, also those that nobody here waits for: on more than this the price would
/// be too high.
const MOST_PROCESSORS: usize = 4;

/// Who may keep processors awake. One descriptor, closed on exec.
#[derive(Debug)]
pub struct Awake(File);

/// As long as it lives processors stay awake. To be dropped in the process that made it: another that has inherited the
/// descriptor ends it too by that, and prolongs it by keeping the descriptor.
#[derive(Debug)]
pub struct Held<'a>(&'a Awake);

impl Awake {
    /// `None` where processors sleep as they do: not root, not of the first user namespace, or more than four processors.
    #[must_use]
    pub fn new() -> Option<Self> {
        if processor::online() > MOST_PROCESSORS {
            return None;
        }
        let latency = File::options().write(true).open(LATENCY);
        let latency = latency
            .inspect_err(|error| log::debug!("processors are not kept awake: {LATENCY}: {error}"));
        latency.ok().map(Self)
    }

    /// Keeps processors awake.
    #[must_use]
    pub fn hold(&self) -> Held<'_> {
        self.ask(NO_SLEEP);
        Held(self)
    }

    fn ask(&self, microseconds: i32) {
        if let Err(error) = (&self.0).write_all(&microseconds.to_ne_bytes()) {
            log::debug!("{LATENCY}: {error}");
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.ask(AS_USUAL);
    }
}
