//! What a container's monitor and its clients say to each other over its socket.
//!
//! ```text
//! client                                monitor
//!   Attach(streams)            ──►
//!                              ◄──       Stdout | Stderr …            (streams that were asked for)
//!   Stdin | StdinEnd | Resize | Signal ──►   (any number, any order)
//!                              ◄──       Exit                          (last; then the monitor closes)
//!
//!   Watch                      ──►                                     (like Attach to no stream)
//!   Namespaces                 ──►
//!                              ◄──       Namespaces + two descriptors: user and mount namespace
//!   Sync                       ──►
//!                              ◄──       Done | Failed
//!   Freeze                     ──►                                     (thawed when this client goes away)
//!                              ◄──       Done | Failed
//!   Pause | Unpause            ──►
//!                              ◄──       Done | Failed
//!   Observe                    ──►
//!                              ◄──       Observed | Failed             (what its processes use)
//!   Last                       ──►                                     (it is not started again after this end)
//!   Keep                       ──►                                     (not removed at this end, though made with --rm)
//! ```
//!
//! A frame is one byte of kind, four bytes of length (little endian) and that many bytes.

use crate::options::Streams;

/// Longest payload: what one read of a stream gives.
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;
/// Bytes before the payload.
const HEAD: usize = 5;

/// One message of the protocol above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Attach(Streams),
    Watch,
    Namespaces,
    Sync,
    Freeze,
    Stdin(Vec<u8>),
    StdinEnd,
    Resize { rows: u16, columns: u16 },
    Signal(i32),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exit(i32),
    Done,
    Failed(String),
    Pause,
    Unpause,
    Keep,
    Last,
    Observe,
    Observed(String),
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub(crate) struct Malformed;

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Message::Attach(_) => 1,
            Message::Watch => 2,
            Message::Namespaces => 3,
            Message::Sync => 4,
            Message::Freeze => 5,
            Message::Stdin(_) => 6,
            Message::StdinEnd => 7,
            Message::Resize { .. } => 8,
            Message::Signal(_) => 9,
            Message::Stdout(_) => 10,
            Message::Stderr(_) => 11,
            Message::Exit(_) => 12,
            Message::Done => 13,
            Message::Failed(_) => 14,
            Message::Pause => 15,
            Message::Unpause => 16,
            Message::Keep => 17,
            Message::Last => 18,
            Message::Observe => 19,
            Message::Observed(_) => 20,
        }
    }

    /// Appends the frame of this message.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Attach(streams) => {
                let bits = u8::from(streams.stdin)
                    | u8::from(streams.stdout) << 1
                    | u8::from(streams.stderr) << 2;
                frame(out, self.kind(), &[bits]);
            }
            Message::Stdin(bytes) | Message::Stdout(bytes) | Message::Stderr(bytes) => {
                frame(out, self.kind(), bytes);
            }
            Message::Failed(text) | Message::Observed(text) => {
                let bytes = text.as_bytes();
                frame(out, self.kind(), bytes.get(..MAX_PAYLOAD).unwrap_or(bytes));
            }
            Message::Resize { rows, columns } => {
                let mut payload = rows.to_le_bytes().to_vec();
                payload.extend_from_slice(&columns.to_le_bytes());
                frame(out, self.kind(), &payload);
            }
            Message::Signal(number) | Message::Exit(number) => {
                frame(out, self.kind(), &number.to_le_bytes());
            }
            Message::Watch
            | Message::Namespaces
            | Message::Sync
            | Message::Freeze
            | Message::StdinEnd
            | Message::Pause
            | Message::Unpause
            | Message::Keep
            | Message::Last
            | Message::Observe
            | Message::Done => frame(out, self.kind(), &[]),
        }
    }

    /// Takes one message from the front of `bytes`: the message and how long its frame was, or `None` when it is not
    /// all there yet.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_PAYLOAD {
            return Err(Malformed);
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        Ok(Some((Self::parse(kind, payload)?, HEAD + length)))
    }

    fn parse(kind: u8, payload: &[u8]) -> Result<Self, Malformed> {
        let number = || {
            payload
                .try_into()
                .map(i32::from_le_bytes)
                .map_err(|_| Malformed)
        };
        Ok(match (kind, payload) {
            (1, &[bits]) => Message::Attach(Streams {
                stdin: bits & 1 != 0,
                stdout: bits & 2 != 0,
                stderr: bits & 4 != 0,
            }),
            (2, []) => Message::Watch,
            (3, []) => Message::Namespaces,
            (4, []) => Message::Sync,
            (5, []) => Message::Freeze,
            (6, bytes) => Message::Stdin(bytes.to_vec()),
            (7, []) => Message::StdinEnd,
            (8, &[a, b, c, d]) => Message::Resize {
                rows: u16::from_le_bytes([a, b]),
                columns: u16::from_le_bytes([c, d]),
            },
            (9, _) => Message::Signal(number()?),
            (10, bytes) => Message::Stdout(bytes.to_vec()),
            (11, bytes) => Message::Stderr(bytes.to_vec()),
            (12, _) => Message::Exit(number()?),
            (13, []) => Message::Done,
            (14, bytes) => Message::Failed(String::from_utf8_lossy(bytes).into_owned()),
            (15, []) => Message::Pause,
            (16, []) => Message::Unpause,
            (17, []) => Message::Keep,
            (18, []) => Message::Last,
            (19, []) => Message::Observe,
            (20, bytes) => Message::Observed(String::from_utf8_lossy(bytes).into_owned()),
            _ => return Err(Malformed),
        })
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    // MAX_PAYLOAD fits by far.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.push(kind);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Message> {
        vec![
            Message::Attach(Streams {
                stdin: true,
                stdout: false,
                stderr: true,
            }),
            Message::Watch,
            Message::Namespaces,
            Message::Sync,
            Message::Freeze,
            Message::Stdin(b"in".to_vec()),
            Message::StdinEnd,
            Message::Resize {
                rows: 25,
                columns: 80,
            },
            Message::Signal(15),
            Message::Stdout(vec![0; MAX_PAYLOAD]),
            Message::Stderr(Vec::new()),
            Message::Exit(-1),
            Message::Done,
            Message::Failed("no".into()),
            Message::Pause,
            Message::Unpause,
            Message::Keep,
            Message::Last,
            Message::Observe,
            Message::Observed("{}".into()),
        ]
    }

    #[test]
    fn every_message_survives_the_wire() {
        for message in all() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(
                Message::decode(&bytes),
                Ok(Some((message.clone(), bytes.len())))
            );
            assert_eq!(
                Message::decode(&bytes[..bytes.len() - 1]),
                Ok(None),
                "{message:?}"
            );
        }
    }

    #[test]
    fn odd_bytes_are_refused() {
        for bytes in [
            &[0, 0, 0, 0, 0][..],
            &[1, 0, 0, 0, 0],
            &[6, 255, 255, 255, 255],
            &[9, 1, 0, 0, 0, 1],
        ] {
            assert_eq!(Message::decode(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
