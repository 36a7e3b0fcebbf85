//! Runs cases on a union and on a plain directory and compares.

use std::fs;
use std::path::{Path, PathBuf};

use mille_union::fuse::{MountOptions, Mounted};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::{Gid, Uid};

use super::call::Call;
use super::fixture::{Caller, Layers, Part, USER, settle};
use super::snapshot::Snapshot;
use crate::kit::Stage;

/// Objects, who calls, and what.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) parts: Vec<Part>,
    pub(super) caller: Caller,
    pub(super) calls: Vec<Call>,
}

/// How the union is mounted.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) options: MountOptions,
    pub(super) metacopy: bool,
    /// Whether overlayfs is to see the same in the upper.
    pub(super) overlayfs: bool,
    /// Everything in /var/tmp; else in memory, where no copy-up waits for a disk.
    pub(super) on_disk: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            options: MountOptions::default(),
            metacopy: true,
            overlayfs: true,
            on_disk: false,
        }
    }
}

/// Two trees with a directory for each case.
pub(super) struct Arena {
    stage: Stage,
    cases: Vec<Case>,
    /// Of each case before its calls, in the plain tree.
    plain_first: Vec<Snapshot>,
    faults: Vec<String>,
}

/// So many differences are shown.
const SHOWN: usize = 30;

impl Arena {
    /// Builds the trees, makes the calls, compares; fails if anything differs.
    pub(super) fn run(cases: Vec<Case>, setting: &Setting) {
        let mut stage = match setting.on_disk {
            true => Stage::new(2, "mkdir p; chmod 755 ."),
            false => Stage::in_memory(2, "mkdir p; chmod 755 ."),
        };
        stage.features.metacopy = setting.metacopy;
        let mut arena = Self {
            stage,
            cases,
            plain_first: Vec::new(),
            faults: Vec::new(),
        };
        arena.build();
        let lowers = arena.stage.lowers_fingerprint();
        let mounted = arena.stage.mount_with(&setting.options);
        arena.prepare();
        let after = arena.make_calls();
        mounted.unmount().unwrap();
        mounted.wait().unwrap();
        let again: Mounted = arena.stage.mount_with(&setting.options);
        arena.compare_again(&after);
        again.unmount().unwrap();
        again.wait().unwrap();
        if setting.overlayfs {
            arena.compare_overlayfs();
        }
        assert_eq!(lowers, arena.stage.lowers_fingerprint());
        arena.compare_below(setting);
        let faults = &arena.faults;
        assert!(
            faults.is_empty(),
            "{} of {} cases differ:\n{}",
            faults.len(),
            arena.cases.len(),
            faults[..faults.len().min(SHOWN)].join("\n")
        );
    }

    fn at(&self, tree: &str, case: usize) -> PathBuf {
        self.stage.path(tree).join(format!("c{case}"))
    }

    fn build(&self) {
        for (number, case) in self.cases.iter().enumerate() {
            let dirs = ["p", "l1", "l2", "u"].map(|tree| self.at(tree, number));
            for dir in &dirs {
                fs::create_dir(dir).unwrap();
            }
            let [plain, bottom, top, upper] = &dirs;
            let layers = Layers { bottom, top, upper };
            for part in &case.parts {
                part.build_plain(plain);
                part.build(&layers);
            }
            for dir in &dirs {
                settle(dir, case.caller, true);
            }
        }
    }

    /// Copies up what is to be.
    fn prepare(&self) {
        for (number, case) in self.cases.iter().enumerate() {
            for tree in ["p", "m"] {
                let dir = self.at(tree, number);
                for part in &case.parts {
                    part.touch(&dir);
                }
            }
        }
    }

    /// Makes all calls in both trees; what is there afterwards in the union.
    fn make_calls(&mut self) -> Vec<Snapshot> {
        let mut after = Vec::new();
        for number in 0..self.cases.len() {
            let case = self.cases[number].clone();
            let (plain, union) = (self.at("p", number), self.at("m", number));
            let (plain_first, union_first) = (Snapshot::of(&plain), Snapshot::of(&union));
            let _held = (plain_first.hold(&plain), union_first.hold(&union));
            let mut faults = differences(
                &plain_first.lines(&plain_first),
                &union_first.lines(&union_first),
            );
            let answers = |dir: &Path| as_caller(case.caller, || answers(&case.calls, dir));
            faults.extend(differences(&answers(&plain), &answers(&union)));
            let (plain_after, union_after) = (Snapshot::of(&plain), Snapshot::of(&union));
            faults.extend(differences(
                &plain_after.lines(&plain_first),
                &union_after.lines(&union_first),
            ));
            self.note(number, "", faults);
            self.plain_first.push(plain_first);
            after.push(union_after);
        }
        after
    }

    fn note(&mut self, number: usize, when: &str, faults: Vec<String>) {
        if !faults.is_empty() {
            let case = &self.cases[number];
            let faults = faults.join("\n    ");
            self.faults
                .push(format!("{number}{when}: {case:?}\n    {faults}"));
        }
    }

    /// After another mount: the same view, the same numbers.
    fn compare_again(&mut self, before: &[Snapshot]) {
        for (number, before) in before.iter().enumerate() {
            let plain = Snapshot::of(&self.at("p", number));
            let union = Snapshot::of(&self.at("m", number));
            let mut faults = differences(&plain.lines(&plain), &union.lines(&union));
            if before.numbers() != union.numbers() {
                faults.push(format!(
                    "numbers {:?} became {:?}",
                    before.numbers(),
                    union.numbers()
                ));
            }
            self.note(number, " mounted again", faults);
        }
    }

    /// The upper becomes a lower, below an empty upper: the same view.
    fn compare_below(&mut self, setting: &Setting) {
        self.stage.shell("mv u l3; mkdir u; rm -r w; mkdir w");
        self.stage.lowers = 3;
        let mounted = self.stage.mount_with(&setting.options);
        for number in 0..self.cases.len() {
            let plain = Snapshot::of(&self.at("p", number));
            let union = Snapshot::of(&self.at("m", number));
            let faults = differences(&plain.lines(&plain), &union.lines(&union));
            self.note(number, " as a lower", faults);
        }
        mounted.unmount().unwrap();
    }

    /// What we wrote is read by the kernel.
    fn compare_overlayfs(&mut self) {
        let path = |name| self.stage.path(name).display().to_string();
        let (top, bottom, upper, work) = (path("l2"), path("l1"), path("u"), path("w"));
        let options = format!(
            "lowerdir={top}:{bottom},upperdir={upper},workdir={work},redirect_dir=on,metacopy=on,xino=off"
        );
        let options = std::ffi::CString::new(options).unwrap();
        let mount = self.stage.path("m");
        rustix::mount::mount(
            "overlay",
            &mount,
            "overlay",
            MountFlags::empty(),
            Some(&*options),
        )
        .unwrap();
        for number in 0..self.cases.len() {
            let plain = Snapshot::of(&self.at("p", number));
            let union = Snapshot::of(&self.at("m", number));
            let faults = differences(&plain.lines(&plain), &union.lines(&union));
            self.note(number, " under overlayfs", faults);
        }
        rustix::mount::unmount(&mount, UnmountFlags::empty()).unwrap();
    }
}

/// Answers of calls made one after the other.
fn answers(calls: &[Call], dir: &Path) -> Vec<String> {
    calls
        .iter()
        .map(|call| match call.make(dir) {
            Ok(answer) => format!("{call:?}: {answer}"),
            Err(errno) => format!("{call:?}: {errno:?}"),
        })
        .collect()
}

/// Runs something in a thread of its own with the caller's ids.
fn as_caller<T: Send>(caller: Caller, act: impl FnOnce() -> T + Send) -> T {
    if caller.is_root() {
        return act();
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// Lines that only one side has.
fn differences(plain: &[String], union: &[String]) -> Vec<String> {
    let missing = plain.iter().filter(|line| !union.contains(line));
    let extra = union.iter().filter(|line| !plain.contains(line));
    missing
        .map(|line| format!("plain: {line}"))
        .chain(extra.map(|line| format!("union: {line}")))
        .collect()
}
