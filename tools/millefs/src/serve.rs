//! Mounting and serving until the mount ends.

use std::sync::Arc;

use anyhow::{Context, Result};
use log::{LevelFilter, Log, Metadata, Record};
use mille_union::fuse::{MountOptions, Mounted, Passthrough, Via, mount};
use mille_union::{
    Access, Config, Features, Lower, LowerOwnership, MarkSpace, Ownership, Upper, View,
};
use nix::sys::signal::{SigSet, Signal};

use crate::background;
use crate::options::Options;

/// Mounts as asked and returns when the file system is unmounted.
pub(crate) fn serve(options: Options, in_background: bool) -> Result<()> {
    log::set_logger(&Stderr).context("set up messages")?;
    log::set_max_level(if options.debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Warn
    });
    for word in &options.ignored {
        log::warn!("option {} is not known and ignored", word.display());
    }
    // Before any thread exists, so that all inherit the mask and only the waiting thread sees them.
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, REPORT]
        .into_iter()
        .collect();
    signals.thread_block().context("block signals")?;
    let mountpoint = std::path::absolute(&options.mountpoint)
        .with_context(|| options.mountpoint.display().to_string())?;
    let mount_options = mount_options(&options);
    let view = View::open(config(options))?;
    // When this returns, the mount answers; only then may the caller go on.
    let mounted = mount(view, &mountpoint, &mount_options)?;
    if in_background {
        background::detach()?;
        background::ready()?;
    }
    wait(mounted, signals)
}

fn config(options: Options) -> Config {
    let privileged = is_first_user_namespace() && nix::unistd::geteuid().is_root();
    let space = if privileged && !options.userxattr {
        MarkSpace::Trusted
    } else {
        MarkSpace::User
    };
    // Data-only layers mean nothing without the marks that lead to them.
    let composed = !options.data_lowers.is_empty();
    let redirects = options
        .redirect_dir
        .unwrap_or(composed || space == MarkSpace::Trusted);
    let upper = match (options.upper, options.work) {
        (Some(dir), Some(work)) => Some(Upper {
            dir,
            work,
            access: Access::Exclusive,
            // fuse-overlayfs writes some into its uppers.
            aufs: true,
            fit: false,
        }),
        _ => None,
    };
    let lower = |path| Lower {
        aufs: true,
        // A layer of a storage that was made with a mask (podman's force_mask) says so at its root.
        ownership: LowerOwnership::AsItsRootSays,
        ..Lower::at(path)
    };
    let data = |path| Lower {
        data_only: true,
        ..Lower::at(path)
    };
    let merged = options.lowers.into_iter().map(lower);
    Config {
        lowers: merged
            .chain(options.data_lowers.into_iter().map(data))
            .collect(),
        upper,
        space,
        ownership: if options.xattr_permissions {
            Ownership::Override
        } else {
            Ownership::Real
        },
        owners: options.owners,
        chain: None,
        features: Features {
            redirect_dir: redirects,
            metacopy: options.metacopy.unwrap_or(composed),
            volatile: options.volatile,
            // The layers below may be in a form where these names are whiteouts.
            reserve_wh_names: true,
            null_devices: true,
        },
    }
}

fn mount_options(options: &Options) -> MountOptions {
    let root = nix::unistd::geteuid().is_root();
    let name = |word: &std::ffi::OsString| word.to_string_lossy().into_owned();
    let usual = MountOptions::default();
    MountOptions {
        fsname: options
            .source
            .as_ref()
            .map_or_else(|| "millefs".to_owned(), name),
        subtype: "millefs".to_owned(),
        allow_other: options.allow_other.unwrap_or(root),
        read_only: options.read_only || options.upper.is_none(),
        threads: options.threads.unwrap_or(0),
        passthrough: match options.passthrough {
            Some(false) => Passthrough::Off,
            Some(true) | None => Passthrough::Auto,
        },
        via: if root { Via::Direct } else { Via::Fusermount },
        acl: options.acl.unwrap_or(true),
        static_nlink: options.static_nlink,
        timeout: options.timeout,
        grows_from: options.block_copyup.unwrap_or(usual.grows_from),
        kernel_options: kernel_options(options),
    }
}

/// Words for the kernel. Labels only where it has SELinux: any other refuses the mount because of them.
fn kernel_options(options: &Options) -> Vec<String> {
    let text = |word: &std::ffi::OsString| word.to_string_lossy().into_owned();
    let mut words: Vec<String> = options.kernel.iter().map(text).collect();
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        words.extend(options.labels.iter().map(text));
    } else if !options.labels.is_empty() {
        log::info!("this kernel has no SELinux: labels are ignored");
    }
    words
}

/// The first user namespace maps every id to itself.
fn is_first_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Asks for the number of requests served so far.
const REPORT: Signal = Signal::SIGUSR1;

/// Serves until somebody unmounts, or a signal asks for it.
fn wait(mounted: Mounted, signals: SigSet) -> Result<()> {
    let mounted = Arc::new(mounted);
    let asked = Arc::clone(&mounted);
    let watcher = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while let Ok(signal) = signals.wait() {
                if signal == REPORT {
                    crate::complain(&requests(&asked));
                    continue;
                }
                log::info!("{signal}: unmounting");
                if let Err(error) = asked.unmount() {
                    log::error!("unmount: {error}");
                }
                return;
            }
        });
    watcher.context("start the signal thread")?;
    mounted.wait()?;
    Ok(())
}

/// `requests lookup=3 open=1`: what was served so far, kinds that never came left out.
fn requests(mounted: &Mounted) -> String {
    let counts = mounted.requests().into_iter().filter(|(_, n)| *n > 0);
    counts.fold("requests".to_owned(), |line, (kind, n)| {
        format!("{line} {kind}={n}")
    })
}

/// Messages go to standard error, which is gone once in the background.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // What the library says of an answer that the kernel no longer waits for: somebody gave up, or has had another.
        let too_late = record.target().starts_with("fuser")
            && record.args().to_string().ends_with("(os error 2)");
        if self.enabled(record.metadata()) && !too_late {
            crate::complain(&record.args());
        }
    }

    fn flush(&self) {}
}
