//! A sequence carried out on all trees at once, and what counts as the same.
//!
//! Our answer must be the plain directory's; where it is not, the deviation must be one of those named here, which the
//! documentation of the union names too. The kernel's overlayfs vouches for the expectations: where it answers otherwise
//! than the plain directory, it leaves the comparison if the states differ from then on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::arena::{Arena, Kind, Layers};
use super::crew::Crew;
use super::hand::{Answer, Hand};
use super::moments::Watch;
use super::op::Op;
use super::survey::{Identity, Times, difference, survey};

const EXDEV: i32 = 18;
const ENODATA: i32 = 61;
const EOPNOTSUPP: i32 = 95;
const ENOTEMPTY: i32 = 39;
const EEXIST: i32 = 17;

/// Lower files larger than this are read past the server, so that those who hold one open go on seeing its old bytes.
const SHARED_UP_TO: u64 = 128 * 1024;

/// Operations between two looks at the whole trees.
const LOOK_EVERY: usize = 100;

/// What a run was, beside right.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Operations carried out.
    pub operations: usize,
    /// Of these, with the kernel's overlayfs still in the same state.
    pub with_kernel: usize,
}

/// Carries out `operations` on fresh mounts; `Err` tells the first difference.
pub fn hold(operations: &[Op], layers: &Layers, kind: Kind) -> Result<Tally, String> {
    let arena = Arena::new(layers);
    let mut trees = Trees::new(&arena);
    let mut case = Case::new(&arena, Path::new(""), kind, members(operations));
    trees.look()?;
    for (step, operation) in operations.iter().enumerate() {
        case.timed_step(step, operation)?;
        if (step + 1) % LOOK_EVERY == 0 {
            trees.times.longest_step = case.longest_step;
            trees
                .look()
                .map_err(|error| format!("after step {step}: {error}"))?;
        }
    }
    trees.times.longest_step = case.longest_step;
    trees.look()?;
    Ok(case.tally)
}

/// Carries out sequences at the same time, each in a directory of its own of the same mounts.
pub fn hold_together(
    sequences: &[(&str, Vec<Op>)],
    layers: &Layers,
    kind: Kind,
) -> Result<(), String> {
    let arena = Arena::new(layers);
    let mut trees = Trees::new(&arena);
    trees.look()?;
    let outcomes: Vec<Result<Duration, String>> = std::thread::scope(|scope| {
        let run = |(place, operations): &(&str, Vec<Op>)| {
            let mut case = Case::new(&arena, Path::new(place), kind, members(operations));
            for (step, operation) in operations.iter().enumerate() {
                case.timed_step(step, operation)
                    .map_err(|error| format!("{place}, {error}"))?;
            }
            Ok(case.longest_step)
        };
        let threads: Vec<_> = sequences
            .iter()
            .map(|sequence| scope.spawn(move || run(sequence)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for outcome in outcomes {
        trees.times.longest_step = trees.times.longest_step.max(outcome?);
    }
    trees.look()
}

/// Our tree and the plain one, looked at as wholes.
pub struct Trees {
    ours: PathBuf,
    plain: PathBuf,
    times: Times,
    identity: Identity,
}

impl Trees {
    /// The trees of these mounts, as they begin.
    pub fn new(arena: &Arena<'_>) -> Self {
        Trees {
            ours: arena.ours(),
            plain: arena.plain(),
            times: Times {
                start: SystemTime::now(),
                longest_step: Duration::ZERO,
            },
            identity: Identity::default(),
        }
    }

    /// Times may differ by what a step took.
    pub fn allow(&mut self, longest_step: Duration) {
        self.times.longest_step = self.times.longest_step.max(longest_step);
    }

    /// Other layers have other numbers.
    pub fn forget_numbers(&mut self) {
        self.identity = Identity::default();
    }

    /// Compares everything; `Err` tells the first difference.
    pub fn look(&mut self) -> Result<(), String> {
        let ours = survey(&self.ours)?;
        let plain = survey(&self.plain)?;
        if let Some(difference) = difference(&ours, &plain, self.times) {
            return Err(difference);
        }
        self.identity.check(&ours, &plain)
    }
}

/// Who carries out operations in a tree.
enum Actor {
    /// This process.
    Own(Hand),
    /// Others.
    Crew(Crew),
}

impl Actor {
    fn new(root: PathBuf, members: usize) -> Self {
        match members {
            0 => Actor::Own(Hand::new(root)),
            members => Actor::Crew(Crew::new(root, members)),
        }
    }

    fn root(&self) -> &Path {
        match self {
            Actor::Own(hand) => hand.root(),
            Actor::Crew(crew) => crew.root(),
        }
    }

    fn apply(&mut self, operation: &Op) -> Answer {
        match self {
            Actor::Own(hand) => hand.apply(operation),
            Actor::Crew(crew) => crew.apply(operation),
        }
    }

    /// The size of the file that an operation has just opened in a slot.
    fn opened(&self, slot: usize) -> u64 {
        match self {
            Actor::Own(hand) => hand.held_size(slot).unwrap_or(0),
            Actor::Crew(crew) => crew.opened(),
        }
    }
}

/// True if a path leads to a directory.
fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// True if two paths lead to one object.
fn are_one(one: &Path, other: &Path) -> bool {
    let number = |path: &Path| path.symlink_metadata().map(|meta| meta.ino()).ok();
    number(one).is_some() && number(one) == number(other)
}

/// How many processes a sequence speaks of.
fn members<'a>(operations: impl IntoIterator<Item = &'a Op>) -> usize {
    let members = operations.into_iter().filter_map(Op::member);
    members.max().map_or(0, |last| last + 1)
}

/// One sequence on all trees.
pub struct Case {
    kind: Kind,
    ours: Actor,
    kernel: Option<Actor>,
    plain: Actor,
    upper: PathBuf,
    /// Slots, and whose, that were opened to read a large file.
    reads_old: Vec<(Option<usize>, usize)>,
    /// The longest time that an operation took in all trees together.
    pub longest_step: Duration,
    tally: Tally,
}

impl Case {
    /// Works in one directory of the trees, in this process or with so many others in each tree.
    pub fn new(arena: &Arena<'_>, place: &Path, kind: Kind, members: usize) -> Self {
        let actor = |root: PathBuf| Actor::new(root.join(place), members);
        Case {
            kind,
            ours: actor(arena.ours()),
            kernel: arena.kernel().map(actor),
            plain: actor(arena.plain()),
            upper: arena.upper().join(place),
            reads_old: Vec::new(),
            longest_step: Duration::ZERO,
            tally: Tally::default(),
        }
    }

    /// Compares ours with the plain tree only.
    pub fn leave_the_kernel_out(&mut self) {
        self.kernel = None;
    }

    /// Carries out one operation; `Err` tells the difference.
    pub fn timed_step(&mut self, step: usize, operation: &Op) -> Result<(), String> {
        let start = Instant::now();
        self.step(operation)
            .map_err(|error| format!("step {step}, {operation:?}: {error}"))?;
        self.longest_step = self.longest_step.max(start.elapsed());
        Ok(())
    }

    fn step(&mut self, operation: &Op) -> Result<(), String> {
        self.tally.operations += 1;
        let is_dir = self.moves_dir(operation);
        let watch = Watch::new(operation, self.ours.root(), self.plain.root(), &self.upper);
        let ours = self.ours.apply(operation);
        if ours == Err(EOPNOTSUPP) && matches!(operation.act(), Op::Tmpfile { .. }) {
            // Nameless files have no request that the FUSE library knows; documented.
            return Ok(());
        }
        if let Op::RenameWhiteout { from, to } = operation.act() {
            // A plain directory does it. On an overlay it is EINVAL, or what is found out before; for two names of one
            // object it is nothing, though not to a kernel without an index, for which they are two.
            let kernel = self.kernel.as_mut().map(|hand| hand.apply(operation));
            let right = match &ours {
                Ok(_) => are_one(&self.plain.root().join(from), &self.plain.root().join(to)),
                Err(_) => kernel.as_ref().is_none_or(|kernel| *kernel == ours),
            };
            return match right {
                true => Ok(()),
                false => Err(format!("\n  ours   {ours:?}\n  kernel {kernel:?}")),
            };
        }
        let kernel = self.kernel.as_mut().map(|hand| hand.apply(operation));
        if ours == Err(EXDEV) && is_dir && !self.kind.redirects() {
            return match kernel {
                Some(Err(EXDEV)) | None => Ok(()),
                Some(other) => Err(format!("EXDEV, but the kernel {other:?}")),
            };
        }
        let before = self.mode_without_acl(operation);
        let plain = self.plain.apply(operation);
        if ours == Err(ENODATA)
            && plain.is_ok()
            && self.mode_without_acl(operation) != before
            && let Some((path, mode)) = before
        {
            mille_tests::tree::set_mode(&path, mode);
        }
        if plain.is_ok() {
            self.note_slots(operation);
        }
        let same = ours == plain || self.may_differ(operation, &ours, &plain);
        if !same {
            return Err(format!(
                "\n  ours   {ours:?}\n  plain  {plain:?}\n  kernel {kernel:?}"
            ));
        }
        if ours == plain {
            watch.compare(operation, self.ours.root(), self.plain.root())?;
        }
        match kernel {
            Some(kernel) if kernel == plain => self.tally.with_kernel += 1,
            Some(_) if changes(operation) => self.kernel = None,
            _ => {}
        }
        Ok(())
    }

    /// The mode of what is to lose an ACL in the plain tree: where there is none, a tmpfs takes a set-group-id bit, and no
    /// overlay is changed.
    fn mode_without_acl(&self, operation: &Op) -> Option<(PathBuf, u32)> {
        let Op::RemoveAcl { path, .. } = operation.act() else {
            return None;
        };
        let path = self.plain.root().join(path);
        let mode = path.metadata().ok()?.mode() & 0o7777;
        Some((path, mode))
    }

    /// True for the move of a directory.
    fn moves_dir(&self, operation: &Op) -> bool {
        let is_dir = |path: &str| is_dir(&self.plain.root().join(path));
        match operation.act() {
            Op::Rename { from, .. } | Op::RenameNoReplace { from, .. } => is_dir(from),
            Op::Exchange { from, to } => is_dir(from) || is_dir(to),
            _ => false,
        }
    }

    fn note_slots(&mut self, operation: &Op) {
        if let Op::Open { slot, write, .. } = operation.act() {
            let whose = (operation.member(), *slot);
            self.reads_old.retain(|old| *old != whose);
            if !write && self.ours.opened(*slot) > SHARED_UP_TO {
                self.reads_old.push(whose);
            }
        }
    }

    /// The deviations that are known and named.
    fn may_differ(&self, operation: &Op, ours: &Answer, plain: &Answer) -> bool {
        match operation.act() {
            // A descriptor for reading a large lower file shows the old bytes after a copy-up.
            Op::ReadHandle(slot) => {
                let whose = (operation.member(), *slot);
                self.reads_old.contains(&whose) && ours.is_ok() && plain.is_ok()
            }
            // It may be past the new end then, and must fit what is read.
            Op::Seek { slot, .. } => {
                let whose = (operation.member(), *slot);
                self.reads_old.contains(&whose) && *ours == Ok(super::handle::RIGHT.to_owned())
            }
            // POSIX allows either, and file systems differ.
            Op::Rename { .. } | Op::Rmdir(_) => *ours == Err(ENOTEMPTY) && *plain == Err(EEXIST),
            // Where there is none: success on a disk file system, ENODATA on any overlay.
            Op::RemoveAcl { .. } => *ours == Err(ENODATA) && plain.is_ok(),
            _ => false,
        }
    }
}

/// Whether a differing result of this operation may mean a differing state.
fn changes(operation: &Op) -> bool {
    !matches!(
        operation.act(),
        Op::Stat(_)
            | Op::List(_)
            | Op::Read(_)
            | Op::ReadLink(_)
            | Op::Access { .. }
            | Op::ReadHandle(_)
            | Op::StatHandle(_)
            | Op::Seek { .. }
            | Op::ListHandle(_)
            // Removed where there is none.
            | Op::RemoveAcl { .. }
    )
}
