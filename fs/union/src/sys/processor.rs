//! Which processors threads run on.

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A set of processors.
#[derive(Clone, Debug)]
pub(crate) struct Processors(CpuSet);

impl Processors {
    pub(crate) fn only(processor: u32) -> Self {
        let mut set = CpuSet::new();
        set.set(processor as usize);
        Self(set)
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.count()
    }

    pub(crate) fn has(&self, processor: u32) -> bool {
        let processor = processor as usize;
        processor < CpuSet::MAX_CPU && self.0.is_set(processor)
    }
}

/// How many processors of the machine are running.
#[expect(unsafe_code, reason = "rustix has no sysconf")]
pub(crate) fn online() -> usize {
    // SAFETY: takes a number and touches no memory.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(usize::MAX)
}

/// The processors that this thread may run on. `EINVAL` where there are more than a set can hold.
pub(crate) fn allowed() -> Result<Processors, Errno> {
    sched_getaffinity(None).map(Processors)
}

/// Has this thread run on these processors alone. `EINVAL` if none of them may be used.
pub(crate) fn bind(to: &Processors) -> Result<(), Errno> {
    sched_setaffinity(None, &to.0)
}

/// The processor that a thread runs on, or ran on last; `None` if it is gone or hidden.
pub(crate) fn of_thread(thread: u32) -> Option<u32> {
    /// Place of the processor among what follows the name, see proc_pid_stat(5): field 39, and the name is the second.
    const PROCESSOR: usize = 36;
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    // The name may contain anything, also blanks and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(PROCESSOR)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_thread_is_found_where_it_is_bound_to() {
        let free = allowed().unwrap();
        let thread = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        for processor in (0..1024).filter(|one| free.has(*one)) {
            bind(&Processors::only(processor)).unwrap();
            assert_eq!(of_thread(thread), Some(processor));
        }
        bind(&free).unwrap();
        assert_eq!(allowed().unwrap().count(), free.count());
        assert!(!free.has(u32::MAX));
        assert!(free.count() as usize <= online());
        assert_eq!(of_thread(u32::MAX), None);
    }
}
