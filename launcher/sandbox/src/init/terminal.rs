//! The terminal of a command, and its session.

use super::mounts::{attach, clone_tree};
use super::{Context, Executor};
use crate::message::Message;
use crate::rootfs::{DEVPTS_MAGIC, filesystem_magic, is_char_device};
use crate::weaken::{self, Hole};
use crate::{Failure, WindowSize};
use rustix::fd::AsFd;
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::path::Path;

impl Executor {
    /// Makes a terminal in the container's devpts. Both sides are descriptors from here on: what the container does to
    /// the names in /dev/pts changes nothing.
    pub(super) fn make_terminal(
        &mut self,
        window: Option<WindowSize>,
        console: bool,
    ) -> Result<(), Failure> {
        let path = Path::new("/dev/pts/ptmx");
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = self
            .root()?
            .open_strict(path, flags)
            .during_at("open", path)?;
        let stat = rustix::fs::fstat(&master).during_at("inspect", path)?;
        let magic = filesystem_magic(master.as_fd()).during_at("inspect", path)?;
        if !is_char_device(&stat, 5, 2) || magic != DEVPTS_MAGIC {
            return Err(Failure::MountTarget {
                target: path.to_owned(),
                reason: "not the multiplexer of a devpts".to_owned(),
            });
        }
        rustix::pty::unlockpt(&master).during("unlock the terminal")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).during("open the terminal")?;
        if let Some(WindowSize { rows, columns }) = window {
            let size = Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(&master, size).during("size the terminal")?;
        }
        if console {
            let path = Path::new("/dev/console");
            let target = self.root()?.make_file(path).during_at("make", path)?;
            let tree = clone_tree(peer.as_fd(), Path::new(""), false)
                .during_at("clone the mount", path)?;
            attach(tree.as_fd(), target.as_fd()).during_at("bind", path)?;
        }
        self.channel
            .send(&Message::Terminal, Some(master.as_fd()))
            .during("hand the terminal over")?;
        self.tty = Some(peer);
        Ok(())
    }

    /// Starts a session of its own, with the terminal as the controlling one and as the three streams.
    pub(super) fn start_session(&mut self) -> Result<(), Failure> {
        if !weaken::is_open(Hole::Session) {
            rustix::process::setsid().during("start a session")?;
        }
        if let Some(tty) = &self.tty {
            rustix::process::ioctl_tiocsctty(tty)
                .during("make the terminal the controlling one")?;
            rustix::stdio::dup2_stdin(tty).during("set up the streams")?;
            rustix::stdio::dup2_stdout(tty).during("set up the streams")?;
            rustix::stdio::dup2_stderr(tty).during("set up the streams")?;
        }
        Ok(())
    }
}
