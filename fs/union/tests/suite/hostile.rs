//! Requests no kernel would send: the test plays the kernel and speaks to the server over a socket.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use mille_union::Access;
use mille_union::fuse::{MountOptions, Mounted, Passthrough, serve};

use crate::kit::{Random, Stage};

/// A server that believes to serve a kernel.
struct Kernel {
    socket: UnixDatagram,
    /// Never ended: a server of a mount waits for the kernel to say that it is gone, which a socket cannot.
    _mounted: ManuallyDrop<Mounted>,
    next: u64,
    /// Node ids that were told.
    told: Vec<u64>,
}

/// Request names, from fuse_kernel.h.
mod op {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const INIT: u32 = 26;
    pub(super) const CREATE: u32 = 35;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const READDIRPLUS: u32 = 44;
}

/// Kinds of requests with a body to be filled at random: number, and the body's words of 32 bits before the names.
const REQUESTS: &[(u32, usize, usize)] = &[
    (op::LOOKUP, 0, 1),
    (op::GETATTR, 4, 0),
    (4, 22, 0), // SETATTR
    (5, 0, 0),  // READLINK
    (6, 0, 2),  // SYMLINK
    (8, 4, 1),  // MKNOD
    (9, 2, 1),  // MKDIR
    (10, 0, 1), // UNLINK
    (11, 0, 1), // RMDIR
    (12, 2, 2), // RENAME
    (13, 2, 1), // LINK
    (op::OPEN, 2, 0),
    (op::READ, 10, 0),
    (16, 10, 1), // WRITE, with a name for its data
    (17, 0, 0),  // STATFS
    (op::RELEASE, 6, 0),
    (20, 4, 0),  // FSYNC
    (21, 2, 1),  // SETXATTR
    (22, 2, 1),  // GETXATTR
    (23, 2, 0),  // LISTXATTR
    (24, 0, 1),  // REMOVEXATTR
    (25, 6, 0),  // FLUSH
    (27, 2, 0),  // OPENDIR
    (28, 10, 0), // READDIR
    (29, 6, 0),  // RELEASEDIR
    (30, 4, 0),  // FSYNCDIR
    (34, 2, 0),  // ACCESS
    (op::CREATE, 4, 1),
    (op::READDIRPLUS, 10, 0),
    (45, 4, 2), // RENAME2
    (46, 6, 0), // LSEEK
];

impl Kernel {
    fn new(stage: &Stage) -> Self {
        let (socket, theirs) = UnixDatagram::pair().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // INIT: protocol 7.40, readahead, all flags; sent before anybody listens.
        let init: Vec<u8> = [7u32, 40, 128 << 10, u32::MAX, 0]
            .into_iter()
            .chain([0; 11])
            .flat_map(u32::to_le_bytes)
            .collect();
        socket.send(&message(op::INIT, 1, 0, &init)).unwrap();
        let options = MountOptions {
            passthrough: Passthrough::Off,
            ..MountOptions::default()
        };
        let view = stage.try_view(Access::Exclusive).unwrap();
        let mounted = serve(view, OwnedFd::from(theirs), Path::new("/nowhere"), &options).unwrap();
        let mut this = Self {
            socket,
            _mounted: ManuallyDrop::new(mounted),
            next: 2,
            told: vec![1],
        };
        assert_eq!(this.receive(1).0, 0, "INIT");
        this
    }

    /// Sends a request; error and body of the answer.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
        let unique = self.send(opcode, node, body);
        self.receive(unique)
    }

    fn send(&mut self, opcode: u32, node: u64, body: &[u8]) -> u64 {
        self.next += 2;
        self.socket
            .send(&message(opcode, self.next, node, body))
            .unwrap();
        self.next
    }

    fn receive(&mut self, unique: u64) -> (i32, Vec<u8>) {
        let mut buffer = vec![0; 2 << 20];
        loop {
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("no answer to request {unique}: {error}"),
            };
            let word = |at: usize| u64::from_le_bytes(buffer[at..at + 8].try_into().unwrap());
            if word(8) == 0 {
                // A notification.
                continue;
            }
            assert_eq!(word(8), unique, "an answer to something else");
            let error = i32::from_le_bytes(buffer[4..8].try_into().unwrap());
            return (error, buffer[16..length].to_vec());
        }
    }

    fn lookup(&mut self, parent: u64, name: &str) -> u64 {
        let (error, body) = self.ask(op::LOOKUP, parent, format!("{name}\0").as_bytes());
        assert_eq!(error, 0, "lookup of {name}");
        u64::from_le_bytes(body[..8].try_into().unwrap())
    }

    fn is_known(&mut self, node: u64) -> bool {
        self.ask(op::GETATTR, node, &[0; 16]).0 == 0
    }
}

fn message(opcode: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(40 + body.len()).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(length.to_le_bytes());
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(std::process::id().to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

const LAYERS: &str = "mkdir -p l1/d/e l2/d; for f in a b d/a d/e/a; do echo $f > l1/$f; done; ln l1/a l1/d/l; ln -s a l1/s
    mknod l2/d/a c 0 0; head -c 300000 /dev/zero > l1/big; echo 2 > l2/d/b";

/// A body of random words, few of them reasonable, and names.
fn body(random: &mut Random, kernel: &Kernel, words: usize, names: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < words * 4 {
        let word = match random.below(8) {
            0 => u64::MAX >> random.below(64),
            1 => 1 << random.below(64),
            2 => kernel.told[random.index(kernel.told.len())],
            3 => random.below(5000),
            _ => random.below(3),
        };
        if words * 4 - bytes.len() >= 8 && random.below(2) == 0 {
            bytes.extend(word.to_le_bytes());
        } else {
            bytes.extend(u32::try_from(word & 0xffff_ffff).unwrap().to_le_bytes());
        }
    }
    let long = "n".repeat(300);
    for _ in 0..names {
        let name = [
            "a",
            "b",
            "d",
            "e",
            "l",
            "s",
            "big",
            "",
            ".",
            "..",
            "a/b",
            ".wh.a",
            "\u{fffd}",
            &long[..255],
            &long,
            "system.posix_acl_access",
            "trusted.overlay.opaque",
            "user.x",
        ][random.index(18)];
        bytes.extend(name.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn storm(seed: u64, requests: usize) {
    let stage = Stage::new(2, LAYERS);
    let before = stage.lowers_fingerprint();
    let mut kernel = Kernel::new(&stage);
    let mut random = Random(seed);
    let mut kinds = BTreeSet::new();
    for _ in 0..requests {
        let node = match random.below(8) {
            0 => u64::MAX >> random.below(64),
            1 => 1,
            _ => kernel.told[random.index(kernel.told.len())],
        };
        if random.below(6) == 0 {
            // More than was given, less, or of what was never told. There is no answer.
            let count = [1, 1, 2, u64::MAX, 0][random.index(5)];
            if random.below(2) == 0 {
                kernel.send(op::FORGET, node, &count.to_le_bytes());
            } else {
                let one = [node, count, node, 1]
                    .into_iter()
                    .flat_map(u64::to_le_bytes);
                let batch: Vec<u8> = [2u32, 0]
                    .into_iter()
                    .flat_map(u32::to_le_bytes)
                    .chain(one)
                    .collect();
                kernel.send(op::BATCH_FORGET, node, &batch);
            }
            continue;
        }
        let (opcode, words, names) = REQUESTS[random.index(REQUESTS.len())];
        let mut body = body(&mut random, &kernel, words, names);
        if opcode == 4 {
            // Nanoseconds; a kernel makes them less than a second.
            body[56..68].fill(0);
        }
        if matches!(opcode, op::READ | 28 | op::READDIRPLUS) {
            // A datagram holds no more.
            body[18..20].fill(0);
        }
        if opcode == 16 || opcode == 21 {
            // The size of the data is part of the protocol, not of what is tested.
            let data = 4096u32;
            let at = if opcode == 16 { 16 } else { 0 };
            body[at..at + 4].copy_from_slice(&data.to_le_bytes());
            body.resize(body.len() + 4096, b'x');
            if opcode == 16 {
                body.truncate(40 + 4096);
            }
        }
        let (error, answer) = kernel.ask(opcode, node, &body);
        if error == 0 {
            kinds.insert(opcode);
        }
        if error == 0 && matches!(opcode, op::LOOKUP | 6 | 8 | 9 | 13 | op::CREATE) {
            let node = u64::from_le_bytes(answer[..8].try_into().unwrap());
            if node != 0 {
                kernel.told.push(node);
            }
        }
    }
    assert!(kernel.is_known(1));
    assert!(
        kinds.len() > 15,
        "too few kinds of requests ever succeed: {kinds:?}"
    );
    drop(kernel);
    assert_eq!(stage.lowers_fingerprint(), before);
}

#[test]
fn root_requests_no_kernel_would_send_are_answered() {
    for seed in 1..5 {
        storm(seed, 4000);
    }
}

#[test]
fn soak_root_requests_no_kernel_would_send_are_answered() {
    for seed in 100..140 {
        storm(seed, 20_000);
    }
}

#[test]
fn root_what_is_forgotten_is_gone_and_nothing_else() {
    let stage = Stage::new(2, LAYERS);
    let mut kernel = Kernel::new(&stage);
    let dir = kernel.lookup(1, "d");
    let file = kernel.lookup(dir, "l");
    assert_eq!(kernel.lookup(1, "a"), file, "hard links are one node");
    kernel.send(op::FORGET, file, &1u64.to_le_bytes());
    assert!(kernel.is_known(file), "told twice, forgotten once");
    kernel.send(op::FORGET, dir, &1u64.to_le_bytes());
    assert!(!kernel.is_known(dir));
    assert!(kernel.is_known(file), "its directory was forgotten");
    kernel.send(op::FORGET, file, &7u64.to_le_bytes());
    assert!(!kernel.is_known(file));
    kernel.send(op::FORGET, file, &7u64.to_le_bytes());
    kernel.send(op::FORGET, 1, &7u64.to_le_bytes());
    assert!(kernel.is_known(1));
    // Met again it has the number it had.
    assert_eq!(kernel.lookup(1, "d"), dir);
    assert_eq!(kernel.lookup(dir, "l"), file);
}

#[test]
fn root_a_file_closed_too_often_can_still_be_opened() {
    let stage = Stage::new(1, "echo hello > l1/a");
    let mut kernel = Kernel::new(&stage);
    let file = kernel.lookup(1, "a");
    for _ in 0..3 {
        assert_eq!(kernel.ask(op::OPEN, file, &[0; 8]).0, 0);
        for _ in 0..3 {
            assert_eq!(kernel.ask(op::RELEASE, file, &[0; 24]).0, 0);
        }
    }
    assert_eq!(kernel.ask(op::OPEN, file, &[0; 8]).0, 0);
    let mut read = [0; 40];
    read[16] = 5;
    assert_eq!(kernel.ask(op::READ, file, &read), (0, b"hello".to_vec()));
    assert!(kernel.socket.as_raw_fd() > 2);
}
