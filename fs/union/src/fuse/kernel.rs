//! What is agreed with the kernel when a session starts.

use fuser::{InitFlags, KernelConfig};

use super::server::Server;

/// Largest WRITE: the kernel's own limit is 256 pages.
const MAX_WRITE: u32 = 1 << 20;

/// Requests the kernel may have under way in the background (read-ahead, mostly) before it holds callers back.
const MAX_BACKGROUND: u16 = 64;

/// Asks for what makes the mount right and quick; an old kernel gives what it has.
pub(crate) fn negotiate(server: &Server, config: &mut KernelConfig) {
    let mut wanted = InitFlags::FUSE_ASYNC_READ
        // The umask is ours to apply: a default ACL of the parent replaces it.
        | InitFlags::FUSE_DONT_MASK
        // Entries come with their attributes, always: "automatic" falls back to one LOOKUP per entry.
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_ASYNC_DIO
        // We clear set-id bits; without this the kernel asks for a file capability before every write.
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
    if server.opens_unseen {
        wanted |= InitFlags::FUSE_NO_OPEN_SUPPORT;
    } else {
        // OPEN tells of O_TRUNC, so that bytes about to be cut are not copied up.
        wanted |= InitFlags::FUSE_ATOMIC_O_TRUNC;
    }
    if !server.mutable {
        wanted |= InitFlags::FUSE_CACHE_SYMLINKS;
    }
    if server.acl {
        wanted |= InitFlags::FUSE_POSIX_ACL;
    }
    if server.passthrough() && !server.opens_unseen {
        wanted |= InitFlags::FUSE_PASSTHROUGH;
    }
    for flag in wanted.iter() {
        if config.add_capabilities(flag).is_err() {
            log::info!("the kernel has no {flag:?}");
            if flag == InitFlags::FUSE_PASSTHROUGH {
                server
                    .passthrough
                    .store(false, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
    // One level: an overlay may still be mounted on top of us (containers in a container).
    for outcome in [
        config.set_max_stack_depth(1),
        config.set_max_write(MAX_WRITE),
    ] {
        if let Err(nearest) = outcome {
            log::debug!("the library allows only {nearest}");
        }
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        log::debug!("the library allows only {nearest}");
    }
}
