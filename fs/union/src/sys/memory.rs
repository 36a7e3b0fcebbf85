//! Memory towards the system.
#![allow(unsafe_code, reason = "the allocator's own call has no wrapper")]

/// Gives pages that the allocator keeps for later back to the system. Free memory between what is still used stays with a
/// process otherwise, however much it is.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
