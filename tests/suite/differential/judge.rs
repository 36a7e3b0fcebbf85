//! A sequence carried out on all trees at once, and what counts as the same.
//!
//! Our answer must be the plain directory's; where it is not, the deviation must be one of those named here, which the
//! documentation of the union names too. The kernel's overlayfs vouches for the expectations: where it answers otherwise
//! than the plain directory, it leaves the comparison if the states differ from then on.

use std::time::{Duration, Instant, SystemTime};

use super::arena::{Arena, Kind, Layers};
use super::hand::{Answer, Hand};
use super::op::Op;
use super::survey::{Identity, Times, difference, survey};

const EXDEV: i32 = 18;
const ENODATA: i32 = 61;
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
    let mut case = Case {
        ours: Hand::new(arena.ours()),
        kernel: arena.kernel().map(Hand::new),
        plain: Hand::new(arena.plain()),
        arena: &arena,
        kind,
        reads_old: Vec::new(),
        times: Times {
            start: SystemTime::now(),
            longest_step: Duration::ZERO,
        },
        identity: Identity::default(),
        tally: Tally::default(),
    };
    case.look()?;
    for (step, operation) in operations.iter().enumerate() {
        let start = Instant::now();
        case.step(operation)
            .map_err(|error| format!("step {step}, {operation:?}: {error}"))?;
        case.times.longest_step = case.times.longest_step.max(start.elapsed());
        if (step + 1) % LOOK_EVERY == 0 {
            case.look()
                .map_err(|error| format!("after step {step}: {error}"))?;
        }
    }
    case.look()?;
    Ok(case.tally)
}

struct Case<'a> {
    arena: &'a Arena<'a>,
    kind: Kind,
    ours: Hand,
    kernel: Option<Hand>,
    plain: Hand,
    /// Slots that were opened to read a large file.
    reads_old: Vec<usize>,
    times: Times,
    identity: Identity,
    tally: Tally,
}

impl Case<'_> {
    fn step(&mut self, operation: &Op) -> Result<(), String> {
        self.tally.operations += 1;
        let is_dir = self.moves_dir(operation);
        let ours = self.ours.apply(operation);
        let kernel = self.kernel.as_mut().map(|hand| hand.apply(operation));
        if ours == Err(EXDEV) && is_dir && !self.kind.redirects() {
            return match kernel {
                Some(Err(EXDEV)) | None => Ok(()),
                Some(other) => Err(format!("EXDEV, but the kernel {other:?}")),
            };
        }
        let plain = self.plain.apply(operation);
        if plain.is_ok() {
            self.note_slots(operation);
        }
        let same = ours == plain || self.may_differ(operation, &ours, &plain);
        if !same {
            return Err(format!(
                "\n  ours   {ours:?}\n  plain  {plain:?}\n  kernel {kernel:?}"
            ));
        }
        match kernel {
            Some(kernel) if kernel == plain => self.tally.with_kernel += 1,
            Some(_) if changes(operation) => self.kernel = None,
            _ => {}
        }
        Ok(())
    }

    /// True for the move of a directory.
    fn moves_dir(&self, operation: &Op) -> bool {
        match operation.act() {
            Op::Rename { from, .. } | Op::RenameNoReplace { from, .. } => self.plain.is_dir(from),
            Op::Exchange { from, to } => self.plain.is_dir(from) || self.plain.is_dir(to),
            _ => false,
        }
    }

    fn note_slots(&mut self, operation: &Op) {
        if let Op::Open { slot, write, .. } = operation.act() {
            self.reads_old.retain(|old| old != slot);
            let large = |hand: &Hand| {
                hand.held_size(*slot)
                    .is_some_and(|size| size > SHARED_UP_TO)
            };
            if !write && large(&self.ours) {
                self.reads_old.push(*slot);
            }
        }
    }

    /// The deviations that are known and named.
    fn may_differ(&self, operation: &Op, ours: &Answer, plain: &Answer) -> bool {
        match operation.act() {
            // A descriptor for reading a large lower file shows the old bytes after a copy-up.
            Op::ReadHandle(slot) => self.reads_old.contains(slot) && ours.is_ok() && plain.is_ok(),
            // POSIX allows either, and file systems differ.
            Op::Rename { .. } | Op::Rmdir(_) => *ours == Err(ENOTEMPTY) && *plain == Err(EEXIST),
            // Where there is none: success on a disk file system, ENODATA on any overlay.
            Op::RemoveAcl { .. } => *ours == Err(ENODATA) && plain.is_ok(),
            _ => false,
        }
    }

    fn look(&mut self) -> Result<(), String> {
        let ours = survey(&self.arena.ours())?;
        let plain = survey(&self.arena.plain())?;
        if let Some(difference) = difference(&ours, &plain, self.times) {
            return Err(difference);
        }
        self.identity.check(&ours, &plain)
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
            | Op::ListHandle(_)
            // Removed where there is none.
            | Op::RemoveAcl { .. }
    )
}
