//! The rules of a profile, and what is left of them for one container on one machine.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::builtin;
use super::names::{Arch, NATIVE, OTHER};
use super::program;
use crate::{CapSet, Capability, SeccompProgram};

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// It fails with this errno.
    Errno(u16),
    KillThread,
    KillProcess,
    Trap,
    /// A tracer is told this word; without one, `ENOSYS`.
    Trace(u16),
    Log,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal under this mask.
    Masked(u64),
}

/// One argument compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

/// Where a rule holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    pub(super) capabilities: Vec<Capability>,
    /// docker's names of machines.
    pub(super) machines: Vec<Cow<'static, str>>,
    pub(super) kernel: Option<(u32, u32)>,
}

/// Some system calls and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) names: Vec<Cow<'static, str>>,
    pub(super) action: Action,
    /// All must hold.
    pub(super) conditions: Vec<Condition>,
    /// All must be so.
    pub(super) only: Circumstances,
    /// None may be so.
    pub(super) not: Circumstances,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub(super) default: Action,
    pub(super) rules: Vec<Rule>,
    /// libseccomp's names; empty: every interface the machine has.
    pub(super) architectures: Vec<String>,
}

/// What rules may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// The container's capabilities.
    pub capabilities: CapSet,
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
}

impl Rule {
    fn holds(&self, machine: &Machine) -> bool {
        let has = |capability: &Capability| machine.capabilities.contains(*capability);
        let here = |names: &[Cow<'static, str>]| names.iter().any(|name| name == NATIVE.docker);
        let only = &self.only;
        let not = &self.not;
        only.capabilities.iter().all(has)
            && (only.machines.is_empty() || here(&only.machines))
            && only.kernel.is_none_or(|least| machine.kernel >= least)
            && !not.capabilities.iter().any(has)
            && !here(&not.machines)
            && not.kernel.is_none_or(|least| machine.kernel < least)
    }
}

/// What happens to one system call: the first rule whose conditions hold, else the last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) conditional: Vec<(Vec<Condition>, Action)>,
    pub(super) otherwise: Action,
}

impl Verdict {
    /// A verdict that looks at no argument.
    pub(super) fn plain(action: Action) -> Self {
        Verdict {
            conditional: Vec::new(),
            otherwise: action,
        }
    }
}

/// Everything said of one interface, by number.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) arch: Arch,
    /// The x32 interface of an x86-64 machine is judged alike; else a call through it kills.
    pub(super) x32: bool,
    pub(super) default: Action,
    pub(super) verdicts: BTreeMap<u32, Verdict>,
    /// The newest system call that the profile mentions at all: what is newer does not exist.
    pub(super) newest: u32,
}

impl Profile {
    /// docker's default policy.
    pub fn builtin() -> Self {
        builtin::profile()
    }

    /// Compiles the policy for a container on this machine.
    pub fn program(&self, machine: &Machine) -> SeccompProgram {
        let judged: Vec<Judged> = [NATIVE, OTHER]
            .into_iter()
            .filter(|arch| arch.scmp == NATIVE.scmp || self.covers(arch.scmp))
            .map(|arch| self.judge(machine, arch))
            .collect();
        program::assemble(&judged)
    }

    /// True if the interface of this name is to be judged; a call through another kills.
    fn covers(&self, scmp: &str) -> bool {
        self.architectures.is_empty() || self.architectures.iter().any(|name| name == scmp)
    }

    /// Settles the rules for one interface of this machine.
    pub(super) fn judge(&self, machine: &Machine, arch: Arch) -> Judged {
        let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
        let mut newest = 0;
        for rule in &self.rules {
            let numbers = rule.names.iter().filter_map(|name| arch.number(name));
            let holds = rule.holds(machine);
            for number in numbers {
                newest = newest.max(number);
                if !holds {
                    continue;
                }
                let verdict = verdicts
                    .entry(number)
                    .or_insert_with(|| Verdict::plain(self.default));
                if rule.conditions.is_empty() {
                    verdict.otherwise = rule.action;
                } else {
                    verdict
                        .conditional
                        .extend(alternatives(&rule.conditions).map(|all| (all, rule.action)));
                }
            }
        }
        Judged {
            arch,
            x32: self.covers("SCMP_ARCH_X32"),
            default: self.default,
            verdicts,
            newest,
        }
    }
}

/// Conditions on different arguments must all hold. Of several on the same argument one is enough: libseccomp takes only
/// one comparison of an argument in a rule, so engines make a rule of each.
fn alternatives(conditions: &[Condition]) -> impl Iterator<Item = Vec<Condition>> {
    let repeated = conditions.iter().enumerate().any(|(at, one)| {
        conditions[..at]
            .iter()
            .any(|other| other.argument == one.argument)
    });
    let list: Vec<Vec<Condition>> = if repeated {
        conditions.iter().map(|one| vec![*one]).collect()
    } else {
        vec![conditions.to_vec()]
    };
    list.into_iter()
}
