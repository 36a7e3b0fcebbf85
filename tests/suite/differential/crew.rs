//! Processes that carry out operations in one tree, each with descriptors, a working directory and a umask of its own.
//!
//! A member is this test program, started again. It is told the number of an operation and tells its answer, so whoever
//! gives the orders decides what happens before what: the outcome is the same in every tree.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::Mode;

use super::hand::{Answer, Hand};
use super::op::Op;

/// Where each member of a crew stands, below the root of its tree. The last two may be moved and removed under it.
pub const STANDS: &[&str] = &["", "dir", "dir/sub"];

/// What each of them has taken from the modes of what it makes.
const UMASKS: &[&str] = &["022", "077", "0"];

/// Set for a member, to its umask. It is started where it stands, and its standard input is the line to who gives orders.
const UMASK: &str = "MILLE_CREW_UMASK";

/// As the test program lists the test that is a member.
const MEMBER: &str =
    "differential::crew::root_processes_have_descriptors_and_directories_of_their_own";

/// Processes in one tree.
#[derive(Debug)]
pub struct Crew {
    root: PathBuf,
    members: Vec<Member>,
    /// The size of the file that the last operation opened.
    opened: u64,
}

#[derive(Debug)]
struct Member {
    process: Child,
    line: BufReader<UnixStream>,
}

impl Crew {
    /// Starts `count` processes in the tree at `root`.
    pub fn new(root: PathBuf, count: usize) -> Self {
        let stands = STANDS.iter().zip(UMASKS).take(count);
        let members = stands.map(|(stand, umask)| Member::start(&root.join(stand), umask));
        Crew {
            members: members.collect(),
            root,
            opened: 0,
        }
    }

    /// The tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The size of the file that the last operation opened, if it opened one.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Has an operation carried out by the member it names.
    pub fn apply(&mut self, operation: &Op) -> Answer {
        let Op::By { member, number, .. } = operation else {
            panic!("for no member of a crew: {operation:?}");
        };
        let (opened, answer) = self.members[*member].order(*number);
        self.opened = opened;
        answer
    }
}

impl Member {
    fn start(stand: &Path, umask: &str) -> Self {
        let (line, theirs) = UnixStream::pair().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", MEMBER, "--nocapture"])
            .env(UMASK, umask)
            .current_dir(stand)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let line = BufReader::new(line);
        Member { process, line }
    }

    fn order(&mut self, number: u64) -> (u64, Answer) {
        writeln!(self.line.get_mut(), "{number}").unwrap();
        let mut told = String::new();
        self.line.read_line(&mut told).unwrap();
        let mut parts = told.trim_end_matches('\n').splitn(3, ' ');
        let mut part = || {
            let part = parts.next();
            part.unwrap_or_else(|| panic!("operation {number} ended the process: {told:?}"))
        };
        let opened = part().parse().unwrap();
        let answer = match part() {
            "0" => Ok(part().to_owned()),
            errno => Err(errno.parse().unwrap()),
        };
        (opened, answer)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.line.get_ref().shutdown(std::net::Shutdown::Both).ok();
        self.process.wait().ok();
    }
}

/// What a member does until nobody gives it orders any more.
fn obey(umask: &str) {
    let umask = u32::from_str_radix(umask, 8).unwrap();
    rustix::process::umask(Mode::from_raw_mode(umask));
    let line = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut line = BufReader::new(UnixStream::from(line));
    // Every path from where this process stands.
    let mut hand = Hand::new(PathBuf::new());
    let mut order = String::new();
    while line.read_line(&mut order).unwrap() > 0 {
        let operation = Op::numbered(order.trim_end().parse().unwrap());
        let answer = hand.apply(&operation);
        let opened = match operation.act() {
            Op::Open { slot, .. } => hand.held_size(*slot).unwrap_or(0),
            _ => 0,
        };
        let (errno, text) = match answer {
            Ok(text) => (0, text.escape_debug().to_string()),
            Err(errno) => (errno, String::new()),
        };
        writeln!(line.get_mut(), "{opened} {errno} {text}").unwrap();
        order.clear();
    }
}

#[test]
fn root_processes_have_descriptors_and_directories_of_their_own() {
    if let Ok(umask) = std::env::var(UMASK) {
        return obey(&umask);
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = directory.path();
    std::fs::create_dir_all(root.join("dir")).unwrap();
    let mut crew = Crew::new(root.to_owned(), 2);
    let mut by = |member, wanted: &dyn Fn(&Op) -> bool| {
        let number = (0..).find(|number| wanted(&Op::numbered(*number))).unwrap();
        crew.apply(&Op::by(member, number))
    };
    // What the first has open, the second has not; each finds names from where it stands.
    let new =
        |op: &Op| matches!(op, Op::OpenNew { slot: 1, path: "a", mode } if *mode & 0o400 != 0);
    let held = |op: &Op| matches!(op, Op::StatHandle(1));
    by(0, &new).unwrap();
    assert!(root.join("a").exists());
    assert!(by(0, &held).unwrap().contains("links 1"));
    assert_eq!(by(1, &held), Ok(String::new()));
    by(1, &new).unwrap();
    assert!(root.join("dir/a").exists());
    assert_eq!(by(1, &new), Err(17));
}
