//! kill -9 at any step of any command that changes something, and of the monitors and servers it starts: the next
//! command works, the store is whole, and nothing is left of what was killed.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use mille_tests::tracer::{Victim, kill_at};
use mille_tests::{Store, Who, leftovers};

/// A command that changes something. Lines are words separated by blanks; `@` stands for the test's own directory.
struct Verb {
    /// Run before each attempt; must succeed.
    before: &'static [&'static str],
    line: &'static str,
    /// Takes back whatever was done; may fail.
    after: &'static [&'static str],
    /// It starts a process that outlives it.
    monitor: bool,
}

const fn verb(
    before: &'static [&'static str],
    line: &'static str,
    after: &'static [&'static str],
) -> Verb {
    Verb {
        before,
        line,
        after,
        monitor: false,
    }
}

const fn starts(
    before: &'static [&'static str],
    line: &'static str,
    after: &'static [&'static str],
) -> Verb {
    Verb {
        monitor: true,
        ..verb(before, line, after)
    }
}

const RUNS: &str = "run -d --name vv bb sleep 1000";
const HAS_WRITTEN: &str = "run --name vv bb cp -r /t /data/t";
const GONE: &[&str] = &["rm -f vv"];

const VERBS: &[Verb] = &[
    verb(&[], "create --name vv bb true", GONE),
    starts(&["create --name vv bb sleep 1000"], "start vv", GONE),
    starts(&[], "run --rm --name vv bb true", GONE),
    starts(&[], RUNS, GONE),
    verb(&[RUNS], "exec vv true", GONE),
    verb(&[RUNS], "stop -t 0 vv", GONE),
    verb(&[RUNS], "kill vv", GONE),
    verb(&[HAS_WRITTEN], "rm vv", GONE),
    verb(&[RUNS], "rm -f vv", GONE),
    verb(
        &["create --name vv bb true"],
        "rename vv ww",
        &["rm -f vv", "rm -f ww"],
    ),
    verb(&[HAS_WRITTEN], "commit vv new", &["rm -f vv", "rmi new"]),
    verb(&[RUNS], "commit vv new", &["rm -f vv", "rmi new"]),
    verb(&[], "save -o @/out.tar bb", &[]),
    verb(&[HAS_WRITTEN], "export -o @/out.tar vv", GONE),
    verb(&[], "import @/other.tar new", &["rmi new"]),
    verb(&[], "load -i @/other-image.tar", &["rmi other"]),
    verb(&[], "tag bb new", &["rmi new"]),
    verb(&["import @/other.tar new"], "rmi new", &["rmi new"]),
    starts(&[], "mount bb @/mnt", &["umount @/mnt"]),
    verb(&["mount bb @/mnt"], "umount @/mnt", &["umount @/mnt"]),
];

/// A store whose containers all carry its path in their environment, so that no process of one escapes the search.
struct House {
    store: Store,
}

impl House {
    fn new(who: Who) -> Self {
        let store = Store::new(who);
        let tar = store.file("bb.tar");
        std::fs::write(&tar, mille_tests::rootfs::busybox_tar()).unwrap();
        mille_tests::program::shell(&format!(
            "cd $(mktemp -d) && mkdir sub && echo other > sub/file && tar --numeric-owner -cf {0}/other.tar . && \
             rm -r \"$PWD\" && chmod 644 {0}/*.tar",
            store.file("").display()
        ));
        std::fs::create_dir(store.file("mnt")).unwrap();
        who.own(&store.file("mnt"));
        let mark = format!("ENV STORE={}", store.file("").display());
        let house = House { store };
        let import = ["import", "-c", &mark, tar.to_str().unwrap(), "bb"];
        house.store.mille(import).ok();
        house.line("import @/other.tar other").ok();
        house.line("save -o @/other-image.tar other").ok();
        house.line("rmi other").ok();
        house
    }

    fn words(&self, line: &str) -> Vec<String> {
        let directory = self.store.file("");
        let directory = directory.to_str().unwrap().trim_end_matches('/');
        line.split_whitespace()
            .map(|word| word.replace('@', directory))
            .collect()
    }

    fn line(&self, line: &str) -> mille_tests::Outcome {
        self.store.mille(self.words(line))
    }

    fn prepare(&self, verb: &Verb) {
        for line in verb.before {
            self.line(line).ok();
        }
    }

    fn take_back(&self, verb: &Verb) {
        for line in verb.after {
            self.line(line);
        }
    }

    /// Kills `victim` at `step` of one command and requires that all is well after the next one; returns whether there
    /// was anything to be killed.
    fn attempt(&self, verb: &Verb, victim: Victim, step: u32) -> bool {
        self.prepare(verb);
        let fate = kill_at(self.store.command(self.words(verb.line)), victim, step);
        self.recovered(&format!("{} ({victim:?} killed at step {step})", verb.line));
        self.take_back(verb);
        self.empty(&format!(
            "{} ({victim:?} killed at step {step}), taken back",
            verb.line
        ));
        fate.killed
    }

    /// What must hold after the next command.
    fn recovered(&self, what: &str) {
        let listing = self.line("ps -a --no-trunc");
        assert_eq!(listing.code, 0, "{what}: ps: {}", listing.err());
        assert_eq!(listing.err(), "", "{what}: ps");
        let fsck = self.line("fsck");
        assert!(
            fsck.code == 0 && fsck.out().lines().count() == 1,
            "{what}: {}{}",
            fsck.out(),
            fsck.err()
        );
        for directory in ["staging", "containers/.staging"] {
            let directory = self.store.root().join(directory);
            let left = names(&directory);
            assert!(left.is_empty(), "{what}: {}: {left:?}", directory.display());
        }
        let strange: Vec<_> = names(self.store.root())
            .into_iter()
            .filter(|name| name.contains("new"))
            .collect();
        assert!(strange.is_empty(), "{what}: {strange:?}");
        let listed = listing.out();
        let containers = names(&self.store.root().join("containers"));
        for id in containers.iter().filter(|name| *name != ".staging") {
            assert!(listed.contains(id), "{what}: {id} is not listed: {listed}");
        }
        // Every claimed name is somebody's.
        let container_names = names(&self.store.root().join("container-names"));
        for name in container_names.iter().filter(|name| *name != ".lock") {
            assert!(
                listed.lines().any(|line| line.ends_with(name.as_str())),
                "{what}: nobody has the name {name}: {listed}"
            );
        }
        let aside: Vec<_> = names(&self.store.file(""))
            .into_iter()
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(aside.is_empty(), "{what}: {aside:?}");
    }

    /// What must hold when no container is left.
    fn empty(&self, what: &str) {
        assert_eq!(self.line("ps -aq").out(), "", "{what}");
        let start = Instant::now();
        loop {
            let left = leftovers::now(&self.store.file(""));
            if left.is_empty() {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{what}: {left:#?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let run = self.store.run_directory();
        let left: Vec<_> = names(&run)
            .into_iter()
            .filter(|name| name.len() == 64)
            .collect();
        assert!(left.is_empty(), "{what}: {}: {left:?}", run.display());
    }
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Kills at `count` moments spread over each command, and over each monitor it starts; `shift` chooses others of them.
fn everywhere(who: Who, count: u32, shift: u32) {
    let house = House::new(who);
    for verb in VERBS {
        let victims: &[Victim] = if verb.monitor {
            &[Victim::Itself, Victim::Monitor]
        } else {
            &[Victim::Itself]
        };
        for &victim in victims {
            house.prepare(verb);
            let whole = kill_at(
                house.store.command(house.words(verb.line)),
                Victim::Itself,
                u32::MAX,
            );
            house.take_back(verb);
            let steps = match victim {
                Victim::Monitor => 2 * whole.steps,
                _ => whole.steps,
            };
            assert!(whole.status.success(), "{}: {whole:?}", verb.line);
            assert!(steps > 20, "{}: {steps} steps", verb.line);
            for n in 0..count {
                let step = 1 + (steps * n + shift % steps) / count;
                house.attempt(verb, victim, step);
            }
        }
    }
    house.line("run --rm bb true").ok();
}

#[test]
fn root_fuse_any_command_may_die_at_any_step() {
    everywhere(Who::Root, 2, 60);
}

/// Between the claim of the second name, the record and the release of the first: a name too many was left.
#[test]
fn root_fuse_a_rename_may_die_at_any_step() {
    let house = House::new(Who::Root);
    let rename = VERBS
        .iter()
        .find(|verb| verb.line == "rename vv ww")
        .unwrap();
    house.prepare(rename);
    let command = house.store.command(house.words(rename.line));
    let whole = kill_at(command, Victim::Itself, u32::MAX);
    house.take_back(rename);
    // The last calls of a command are about what it is for.
    for step in (1..45).rev().step_by(2) {
        house.attempt(rename, Victim::Itself, whole.steps - step);
    }
}

#[test]
fn user_fuse_the_starting_of_a_container_may_die_at_any_step() {
    let house = House::new(Who::Ordinary);
    let start = VERBS.iter().find(|verb| verb.line == RUNS).unwrap();
    for step in [150, 900] {
        house.attempt(start, Victim::Itself, step);
        house.attempt(start, Victim::Monitor, step);
    }
}

#[test]
fn root_fuse_the_mount_of_a_killed_server_goes_with_the_next_command() {
    killed_server(Who::Root);
}

#[test]
fn user_fuse_the_mount_of_a_killed_server_goes_with_the_next_command() {
    killed_server(Who::Ordinary);
}

fn killed_server(who: Who) {
    let house = House::new(who);
    house.line("mount bb @/mnt").ok();
    if who == Who::Root {
        // One upon the other.
        house.line("mount bb @/mnt").ok();
    }
    // Root itself may not look into the mount of somebody else; and only what the kernel has not kept asks the server.
    let seen = || house.store.script("stat -f mnt").code == 0;
    assert!(seen());
    for line in leftovers::now(&house.store.file("")) {
        if let Some(pid) = line.strip_prefix("process ") {
            let pid = pid.split(':').next().unwrap().parse().unwrap();
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }
    // The kernel ends the connection when the last thread has gone.
    let start = Instant::now();
    while seen() && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!seen(), "it is still served");
    house.recovered("a killed server");
    house.empty("a killed server");
    assert_eq!(house.store.script("ls -A mnt").ok(), "");
}

#[test]
fn ci_root_fuse_any_command_may_die_at_any_step() {
    everywhere(Who::Root, 7, 7);
}

#[test]
fn ci_user_fuse_any_command_may_die_at_any_step() {
    everywhere(Who::Ordinary, 5, 13);
}

#[test]
fn soak_root_fuse_any_command_may_die_at_any_step() {
    everywhere(Who::Root, 400, 1);
}

#[test]
fn soak_user_fuse_any_command_may_die_at_any_step() {
    everywhere(Who::Ordinary, 200, 1);
}
