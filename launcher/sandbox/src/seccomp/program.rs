//! From verdicts to classic BPF.
//!
//! The program looks at the architecture, then finds the number in a tree of comparisons over ranges of equal verdict,
//! then compares arguments where a verdict asks for it. A verdict that looks at no argument is found without touching the
//! arguments, so that the kernel (5.11 and newer) remembers it per number and does not run the program at all.

use super::names::X32_BIT;
use super::profile::{Action, Comparison, Condition, Judged, Verdict};
use crate::{BpfInstruction, SeccompProgram};

// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

// Opcodes (linux/bpf_common.h): class, size or operation, source.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Keeps the processor's speculation as it is (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`): a filter is no reason to slow a program
/// down, and runc does the same.
const FLAGS: u32 = 1 << 2;

type Code = Vec<BpfInstruction>;

/// Joins the programs of all interfaces; a system call through any other kills the process.
pub(super) fn assemble(interfaces: &[Judged]) -> SeccompProgram {
    let mut code = vec![load(ARCHITECTURE)];
    for judged in interfaces {
        let body = interface(judged);
        code.push(jump(JUMP_EQUAL, judged.arch.audit, 1, 0));
        code.push(skip(body.len()));
        code.extend(body);
    }
    code.push(leave(Action::KillProcess));
    SeccompProgram {
        instructions: code,
        flags: FLAGS,
    }
}

fn interface(judged: &Judged) -> Code {
    let mut code = vec![load(NUMBER)];
    if judged.arch.carries_x32 {
        code.push(jump(JUMP_SET, X32_BIT, 0, 1));
        code.push(match judged.x32 {
            true => mask(!X32_BIT),
            false => leave(Action::KillProcess),
        });
    }
    code.extend(search(&ranges(judged)));
    code
}

/// Verdicts by the first number they hold for, each up to the next one's.
fn ranges(judged: &Judged) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut add = |from: u32, verdict: Verdict| {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((from, verdict));
        }
    };
    add(0, Verdict::plain(judged.default));
    for (&number, verdict) in &judged.verdicts {
        add(number, verdict.clone());
        if !judged.verdicts.contains_key(&(number + 1)) {
            add(number + 1, Verdict::plain(judged.default));
        }
    }
    let unknown = u16::try_from(libc::ENOSYS).map(Action::Errno);
    if judged.default != Action::Allow
        && let Ok(unknown) = unknown
    {
        add(judged.newest + 1, Verdict::plain(unknown));
    }
    // A verdict for number 0 itself replaces the first range.
    ranges.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1.clone();
        }
        same
    });
    ranges
}

fn search(ranges: &[(u32, Verdict)]) -> Code {
    match ranges {
        [] => Code::new(),
        [(_, verdict)] => judge(verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let below = search(low);
            let mut code = branch(JUMP_GREATER_OR_EQUAL, high[0].0, below.len());
            code.extend(below);
            code.extend(search(high));
            code
        }
    }
}

/// Skips `distance` instructions if the comparison holds. A conditional jump reaches 255 instructions, a plain one any.
fn branch(comparison: u16, operand: u32, distance: usize) -> Code {
    match u8::try_from(distance) {
        Ok(distance) => vec![jump(comparison, operand, distance, 0)],
        Err(_) => vec![jump(comparison, operand, 0, 1), skip(distance)],
    }
}

fn judge(verdict: &Verdict) -> Code {
    let mut code = Code::new();
    for (conditions, action) in &verdict.conditional {
        code.extend(guarded(conditions, *action));
    }
    code.push(leave(verdict.otherwise));
    code
}

/// Leaves with the action if all conditions hold, else goes on behind.
fn guarded(conditions: &[Condition], action: Action) -> Code {
    let mut code = vec![leave(action)];
    for condition in conditions.iter().rev() {
        // Everything so far is what to skip when this one fails: at most six comparisons of nine instructions.
        let beyond = u8::try_from(code.len()).unwrap_or(u8::MAX);
        let mut test = compare(condition, beyond);
        test.extend(code);
        code = test;
    }
    code
}

/// Compares one argument, both halves. Falls through if it holds, else skips `beyond` instructions.
fn compare(condition: &Condition, beyond: u8) -> Code {
    let at = ARGUMENTS + 8 * u32::from(condition.argument);
    let (low_at, high_at) = if cfg!(target_endian = "little") {
        (at, at + 4)
    } else {
        (at + 4, at)
    };
    let (low, high) = halves(condition.value);
    let equal = |masks: Option<(u32, u32)>, holds_if_equal: bool| {
        let mut code = vec![load(high_at)];
        code.extend(masks.map(|(_, high)| mask(high)));
        let second = 2 + u8::from(masks.is_some());
        let (differs, same) = if holds_if_equal {
            (beyond + second, 0)
        } else {
            (second, 0)
        };
        code.push(jump(JUMP_EQUAL, high, same, differs));
        code.push(load(low_at));
        code.extend(masks.map(|(low, _)| mask(low)));
        code.push(if holds_if_equal {
            jump(JUMP_EQUAL, low, 0, beyond)
        } else {
            jump(JUMP_EQUAL, low, beyond, 0)
        });
        code
    };
    // Greater in the high half decides; equal there leaves it to the low half.
    let ordered = |low_comparison: u16, holds: bool| {
        let (yes, no) = (3, beyond + 3);
        let (greater, less) = if holds { (yes, no) } else { (no, yes) };
        let (met, unmet) = if holds { (0, beyond) } else { (beyond, 0) };
        vec![
            load(high_at),
            jump(JUMP_GREATER, high, greater, 0),
            jump(JUMP_EQUAL, high, 0, less - 1),
            load(low_at),
            jump(low_comparison, low, met, unmet),
        ]
    };
    match condition.comparison {
        Comparison::Equal => equal(None, true),
        Comparison::NotEqual => equal(None, false),
        Comparison::Masked(bits) => equal(Some(halves(bits)), true),
        Comparison::Greater => ordered(JUMP_GREATER, true),
        Comparison::GreaterOrEqual => ordered(JUMP_GREATER_OR_EQUAL, true),
        Comparison::Less => ordered(JUMP_GREATER_OR_EQUAL, false),
        Comparison::LessOrEqual => ordered(JUMP_GREATER, false),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves are the point"
)]
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

fn load(offset: u32) -> BpfInstruction {
    jump(LOAD, offset, 0, 0)
}

fn mask(bits: u32) -> BpfInstruction {
    jump(AND, bits, 0, 0)
}

fn skip(distance: usize) -> BpfInstruction {
    jump(JUMP, u32::try_from(distance).unwrap_or(u32::MAX), 0, 0)
}

fn leave(action: Action) -> BpfInstruction {
    // SECCOMP_RET_* (linux/seccomp.h).
    let value = match action {
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => 0,
        Action::Trap => 0x0003_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Action::Trace(word) => 0x7ff0_0000 | u32::from(word),
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    };
    jump(RETURN, value, 0, 0)
}

fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> BpfInstruction {
    BpfInstruction {
        code,
        jump_true,
        jump_false,
        operand,
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
