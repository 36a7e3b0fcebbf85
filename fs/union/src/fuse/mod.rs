//! The view as a FUSE mount.
//!
//! The only place that knows the FUSE library. `adapter` turns its calls into calls of `Server`, which keeps what the
//! kernel has been told (node numbers, open files) and leaves every decision about layers to the [`View`].

mod adapter;
mod attrs;
mod bare;
mod convert;
mod counters;
mod faces;
mod files;
mod growth;
mod io;
mod ioctl;
mod kernel;
mod listing;
mod mount;
mod names;
mod options;
mod pace;
mod pool;
mod readers;
mod server;
mod tidy;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use parking_lot::Mutex;

pub use options::{MountOptions, Passthrough, Via};

use crate::error::{Context, Error, Result};
use crate::view::View;
use adapter::Adapter;
use counters::Counters;
use server::Server;

/// Threads of a mount, unless told otherwise: more than four were slower even with callers for all of them.
const MOST_THREADS: usize = 4;
const FEWEST_THREADS: usize = 2;

/// How long a drop waits for the end of serving, which takes about a millisecond unless somebody has a copy of the mount.
const PATIENCE: Duration = Duration::from_millis(200);

/// Between two looks at whether it has ended.
const POLL: Duration = Duration::from_micros(200);

/// Mounts a view and serves it on threads in the background. When this returns, the mount answers.
///
/// # Errors
/// `/dev/fuse` cannot be opened, or the kernel or fusermount3 refuses the mount.
pub fn mount(view: Arc<View>, mountpoint: &Path, options: &MountOptions) -> Result<Mounted> {
    let read_only = !view.is_writable();
    let (server, counters) = server(view, options);
    let adapter = Adapter(server.clone());
    let mut config = config(options);
    let session = match options.via {
        Via::Direct => {
            let device = mount::direct(mountpoint, options, read_only)?;
            let session = Session::from_fd(adapter, device, SessionACL::All, config);
            session.inspect_err(|_| {
                if let Err(errno) = mount::unmount(mountpoint) {
                    log::error!("unmount {}: {errno}", mountpoint.display());
                }
            })
        }
        Via::Fusermount => {
            config.acl = if options.allow_other {
                SessionACL::All
            } else {
                SessionACL::Owner
            };
            config.mount_options = library_options(options, read_only);
            Session::new(adapter, mountpoint, &config)
        }
    };
    let session = session.on("start FUSE session on", mountpoint)?;
    let mount_id = mount::mount_id(mountpoint).ok();
    begin(session, &server, mountpoint, options, mount_id, counters)
}

/// Serves a mount that somebody else made and takes away: `device` is its descriptor, `mountpoint` only its name.
///
/// This is how the layers of a user namespace are shown outside of it: mounted by fusermount3 there, served from inside.
///
/// # Errors
/// The kernel does not begin the conversation: the mount is gone.
pub fn serve(
    view: Arc<View>,
    device: OwnedFd,
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<Mounted> {
    let (server, counters) = server(view, options);
    let adapter = Adapter(server.clone());
    let session = Session::from_fd(adapter, device, SessionACL::All, config(options));
    let session = session.on("start FUSE session on", mountpoint)?;
    begin(session, &server, mountpoint, options, None, counters)
}

fn server(view: Arc<View>, options: &MountOptions) -> (Arc<Server>, Arc<Counters>) {
    let counters = Arc::new(Counters::new());
    let server = Server::new(view, counters.clone(), options);
    (Arc::new(server), counters)
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(threads(options.threads));
    config
}

/// Lets the threads of a session run.
fn begin(
    session: Session<Adapter>,
    server: &Server,
    mountpoint: &Path,
    options: &MountOptions,
    mount_id: Option<u64>,
    counters: Arc<Counters>,
) -> Result<Mounted> {
    if server.notifier.set(session.notifier()).is_err() {
        log::debug!("notifier set twice");
    }
    let device = session.as_fd().try_clone_to_owned();
    if let Err(_second) = server
        .device
        .set(device.on("duplicate device of", mountpoint)?)
    {
        log::debug!("device set twice");
    }
    let session = session.spawn().on("serve", mountpoint)?;
    Ok(Mounted {
        session: Mutex::new(Some(session)),
        mountpoint: mountpoint.to_owned(),
        mount_id: Mutex::new(mount_id),
        direct: options.via == Via::Direct,
        counters,
        view: Arc::downgrade(&server.view),
    })
}

fn threads(asked: usize) -> usize {
    if asked > 0 {
        return asked;
    }
    let processors = std::thread::available_parallelism().map_or(FEWEST_THREADS, usize::from);
    processors.clamp(FEWEST_THREADS, MOST_THREADS)
}

fn library_options(options: &MountOptions, read_only: bool) -> Vec<MountOption> {
    let mut list = vec![
        MountOption::FSName(options.fsname.clone()),
        MountOption::Subtype(options.subtype.clone()),
        MountOption::DefaultPermissions,
    ];
    if read_only || options.read_only {
        list.push(MountOption::RO);
    }
    for word in &options.kernel_options {
        list.push(match word.as_str() {
            "nosuid" => MountOption::NoSuid,
            "nodev" => MountOption::NoDev,
            "noexec" => MountOption::NoExec,
            "noatime" => MountOption::NoAtime,
            // fusermount3 forces these on ordinary users and refuses the words.
            "rw" | "suid" | "dev" | "exec" | "atime" | "async" => continue,
            other => MountOption::CUSTOM(other.to_owned()),
        });
    }
    list
}

/// True once serving has ended, false if it does not within [`PATIENCE`].
fn ends_soon(session: &BackgroundSession) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !session.guard.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// Waits for the end of serving. Dropped, fuser 0.18 would unmount once more what it has mounted itself (it takes the device's
/// error for a mount that is there), and by then that may be what somebody else has mounted at the place. What is not dropped
/// is a descriptor of a connection that has ended.
fn join_without_unmounting(session: BackgroundSession) -> std::io::Result<()> {
    let mut session = std::mem::ManuallyDrop::new(session);
    let serving = std::mem::replace(&mut session.guard, std::thread::spawn(|| Ok(())));
    match serving.join() {
        Ok(ended) => ended,
        Err(_panic) => Err(std::io::Error::other("the serving thread panicked")),
    }
}

/// A mounted view. Dropped, it is unmounted; what is being served is served to its end.
///
/// A program that made a mount namespace of its own meanwhile has a copy of the mount, which is served on while this
/// process lives: the drop does not wait for that. When the process ends, whoever looks at such a copy gets ENOTCONN.
#[derive(Debug)]
pub struct Mounted {
    session: Mutex<Option<BackgroundSession>>,
    mountpoint: PathBuf,
    /// Taken once the mount has been taken out of the tree.
    mount_id: Mutex<Option<u64>>,
    direct: bool,
    counters: Arc<Counters>,
    view: Weak<View>,
}

impl Mounted {
    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Unmounts: at once if nobody uses the mount, else detached from the tree, and served until the last user has gone.
    /// Nothing is done if it is unmounted already, also by somebody else.
    ///
    /// # Errors
    /// The kernel or fusermount3 refuses.
    pub fn unmount(&self) -> Result<()> {
        self.detach().map(|_| ())
    }

    /// As [`Self::unmount`]; true if nobody used the mount, so that serving ends at once.
    fn detach(&self) -> Result<bool> {
        let Some(id) = self.mount_id.lock().take() else {
            return Ok(true);
        };
        if mount::mount_id(&self.mountpoint) != Ok(id) {
            return Ok(true);
        }
        if self.direct {
            return mount::unmount(&self.mountpoint).on("unmount", &self.mountpoint);
        }
        let status = std::process::Command::new("fusermount3")
            .args(["-u", "-z", "-q", "--"])
            .arg(&self.mountpoint)
            .status()
            .on("run fusermount3 for", &self.mountpoint)?;
        if status.success() {
            Ok(false)
        } else {
            Err(Error::Config(format!(
                "fusermount3 -u {}: {status}",
                self.mountpoint.display()
            )))
        }
    }

    /// Waits until the mount is gone, whoever unmounts it, and everything is served.
    ///
    /// # Errors
    /// Serving ended with an error.
    pub fn wait(&self) -> Result<()> {
        let session = self.session.lock().take();
        let result = match session {
            Some(session) if self.direct => session.join().on("serve", &self.mountpoint),
            Some(session) => join_without_unmounting(session).on("serve", &self.mountpoint),
            None => Ok(()),
        };
        // Gone: there is nothing left for the drop to unmount.
        self.mount_id.lock().take();
        self.settle();
        result
    }

    /// Waits for the copy-ups of files that were written to before they were copied.
    fn settle(&self) {
        if let Some(view) = self.view.upgrade() {
            view.settle_all();
        }
    }

    /// Requests served so far, by kind.
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.counters.snapshot()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        match self.detach() {
            Ok(true) => {
                if let Some(session) = self.session.lock().take()
                    && ends_soon(&session)
                    && let Err(error) = session.join()
                {
                    log::error!("serving {} ended: {error}", self.mountpoint.display());
                }
            }
            // Whoever still uses it is served on.
            Ok(false) => {}
            Err(error) => log::error!("{error}"),
        }
        self.settle();
    }
}
