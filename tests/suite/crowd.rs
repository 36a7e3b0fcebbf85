//! Several commands at once on one store: each does its work or says why not, and what is left is whole.

use std::time::{Duration, Instant};

use mille_tests::{Outcome, Store, Who, leftovers};

/// A generator that makes a failure repeatable by its seed (xorshift).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// What a refusal may say: each is the answer to something that another of the crowd has just done.
const REFUSALS: &[&str] = &[
    "No such container",
    "No such image",
    "is already in use by container",
    "is not running",
    "cannot remove a running container",
    "removal of container",
    "is in use by another command",
    "conflict: unable to",
    "already exists",
    "Cannot kill container",
    "image is being used by",
    "same name as its current name",
    "No such object",
];

const VERBS: &[&str] = &[
    "create --name NAME IMAGE sleep 1000",
    "run -d --name NAME IMAGE sleep 1000",
    "run --rm IMAGE true",
    "run --rm --name NAME IMAGE touch /data/x",
    "start NAME",
    "start NAME",
    "stop -t 0 NAME",
    "kill NAME",
    "rm NAME",
    "rm -f NAME",
    "rm -f NAME",
    "exec NAME touch /data/y",
    "commit NAME IMAGE",
    "diff NAME",
    "rename NAME NAME",
    "tag IMAGE IMAGE",
    "rmi IMAGE",
    "rmi -f IMAGE",
    "load -i ARCHIVE",
    "import TAR IMAGE",
    "ps -a",
    "images",
    "inspect NAME",
];

fn stress(who: Who, callers: u64, length: Duration) {
    let store = house(who);
    let (archive, tar) = (store.file("image.tar"), store.file("bb.tar"));
    let archive = archive.to_str().unwrap();
    store.mille(["save", "-o", archive, "bb"]).ok();
    let end = Instant::now() + length;
    let done: usize = std::thread::scope(|scope| {
        let crowd: Vec<_> = (1..=callers)
            .map(|seed| {
                let (store, tar) = (&store, tar.to_str().unwrap());
                scope.spawn(move || {
                    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    let mut count = 0;
                    while Instant::now() < end {
                        let verb = VERBS[dice.throw(VERBS.len())];
                        let words: Vec<_> = verb
                            .split(' ')
                            .map(|word| match word {
                                "NAME" => ["c1", "c2", "c3"][dice.throw(3)],
                                "IMAGE" => ["bb", "i1", "i2"][dice.throw(3)],
                                "ARCHIVE" => archive,
                                "TAR" => tar,
                                word => word,
                            })
                            .collect();
                        acceptable(&store.mille(words));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        crowd.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    assert!(done > 20, "only {done} commands");
    settled(&store);
}

/// A store whose image has a name that no test takes away.
fn house(who: Who) -> Store {
    let store = Store::with_busybox(who);
    store.line("tag bb keep").ok();
    store
}

#[track_caller]
fn acceptable(outcome: &Outcome) {
    // What fails inside a container is told on standard output, as docker does.
    let said = format!("{}{}", outcome.out(), outcome.err());
    // A container that is killed while a command runs in it, or while it is run: 137.
    let killed = matches!(outcome.code, 137 | 143);
    let refused = outcome.code != 0 && REFUSALS.iter().any(|text| said.contains(text));
    assert!(
        outcome.code == 0 || killed || refused,
        "{}: {}: {said}",
        outcome.what,
        outcome.code
    );
}

/// Everything is whole, and nothing of it is left when it is removed.
fn settled(store: &Store) {
    let checked = store.line("fsck").ok();
    assert_eq!(checked.lines().count(), 1, "{checked}");
    let ids = store.line("ps -aq").ok();
    for id in ids.lines() {
        store.line(&format!("rm -f {id}")).ok();
    }
    let found = leftovers::below(&store.file(""));
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(store.line("run --rm keep echo fine").ok(), "fine");
    for directory in ["staging", "containers/.staging"] {
        let left = std::fs::read_dir(store.root().join(directory)).unwrap();
        assert_eq!(left.count(), 0, "{directory}");
    }
    let names = std::fs::read_dir(store.root().join("container-names")).unwrap();
    assert_eq!(names.count(), 1, "names of nobody are left");
}

#[test]
fn root_fuse_any_commands_at_once() {
    stress(Who::Root, 4, Duration::from_secs(4));
}

#[test]
fn ci_user_fuse_any_commands_at_once() {
    stress(Who::Ordinary, 4, Duration::from_secs(20));
}

#[test]
fn soak_root_fuse_any_commands_at_once() {
    stress(Who::Root, 8, Duration::from_secs(180));
}

/// Runs the same line by several callers at the same time.
fn together(store: &Store, count: usize, line: &str) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..count)
            .map(|_| scope.spawn(|| store.line(line)))
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    })
}

#[test]
fn root_fuse_one_container_is_started_once() {
    let store = house(Who::Root);
    store.line("create --name c1 bb sleep 1000").ok();
    for outcome in together(&store, 4, "start c1") {
        outcome.code(0);
    }
    let inspect = store.line("inspect -f {{.State.Running}} c1").ok();
    assert_eq!(inspect, "true");
    for outcome in together(&store, 4, "rm -f c1") {
        assert!(
            outcome.code == 0 || outcome.err().contains("No such container"),
            "{}",
            outcome.err()
        );
    }
    settled(&store);
}

#[test]
fn root_fuse_rm_f_of_a_container_that_is_being_started() {
    let store = house(Who::Root);
    for _ in 0..6 {
        store.line("create --name c1 bb sleep 1000").ok();
        std::thread::scope(|scope| {
            let start = scope.spawn(|| store.line("start c1"));
            store.line("rm -f c1").code(0);
            acceptable(&start.join().unwrap());
        });
        assert_eq!(store.line("ps -aq").ok(), "");
    }
    settled(&store);
}

#[test]
fn root_one_archive_is_loaded_by_several_at_once() {
    let store = house(Who::Root);
    let archive = store.file("image.tar");
    let archive = archive.to_str().unwrap().to_owned();
    store.mille(["save", "-o", &archive, "bb"]).ok();
    store.line("rmi bb keep").ok();
    for outcome in together(&store, 4, &format!("load -i {archive}")) {
        assert_eq!(outcome.ok(), "Loaded image: bb:latest");
    }
    assert_eq!(store.line("images -q").ok().lines().count(), 1);
    store.line("tag bb keep").ok();
    settled(&store);
}
