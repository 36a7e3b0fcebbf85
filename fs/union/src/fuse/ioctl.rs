//! The ioctls of chattr(1) and lsattr(1). The kernel judges who may set what before it asks.

use std::sync::Arc;

use fuser::{Errno, INodeNo, ReplyIoctl};

use super::server::Server;
use crate::error::Result;

/// Numbers of linux/fs.h. The two of `int` are declared with `long`, in the number only.
const GET_FLAGS: u32 = 0x8008_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const GET_EXTENDED: u32 = 0x801c_581f;

impl Server {
    pub(crate) fn ioctl(
        self: &Arc<Self>,
        ino: INodeNo,
        command: u32,
        argument: &[u8],
        reply: ReplyIoctl,
    ) {
        let answer = match command {
            GET_FLAGS | GET_EXTENDED => self.read_flags(ino, command),
            SET_FLAGS => {
                let Some(flags) = argument.first_chunk::<4>() else {
                    return reply.error(Errno::EINVAL);
                };
                let flags = u32::from_ne_bytes(*flags);
                let slow = self.node(ino).is_ok_and(|node| self.is_slow(&node, false));
                return self.run(slow, move |server| {
                    let node = server.node(ino);
                    match node.and_then(|node| server.view.set_flags(&node, flags)) {
                        Ok(()) => reply.ioctl(0, &[]),
                        Err(error) => reply.error(server.refusal("ioctl", &error)),
                    }
                });
            }
            _ => return reply.error(Errno::ENOTTY),
        };
        match answer {
            Ok(bytes) => reply.ioctl(0, &bytes),
            Err(error) => reply.error(self.refusal("ioctl", &error)),
        }
    }

    fn read_flags(&self, ino: INodeNo, command: u32) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        if command == GET_FLAGS {
            return Ok(self.view.flags(&node)?.to_ne_bytes().to_vec());
        }
        let words = self.view.extended_flags(&node)?;
        Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
    }
}
