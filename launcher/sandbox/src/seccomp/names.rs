//! The system call interfaces that a filter can judge, and the numbers their calls have.

use std::fmt;

/// One system call interface of a machine.
#[derive(Clone, Copy)]
pub(super) struct Arch {
    /// The value of `seccomp_data.arch` (`linux/audit.h`).
    pub(super) audit: u32,
    /// libseccomp's name, as profiles have it.
    pub(super) scmp: &'static str,
    /// docker's name, as the conditions of rules have it: that of the machine, also for its other interfaces.
    pub(super) docker: &'static str,
    /// The calls of x32 come through this interface, with [`X32_BIT`] in their number.
    pub(super) carries_x32: bool,
    /// The number of a system call, if this interface has it.
    numbers: fn(&str) -> Option<usize>,
}

impl Arch {
    /// Returns the number of a system call, if this interface has it.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        (self.numbers)(name).and_then(|number| u32::try_from(number).ok())
    }
}

impl fmt::Debug for Arch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.scmp)
    }
}

/// Set in the number of a system call of the x32 interface, whose other numbers are those of x86-64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::Arch;

    pub(in super::super) const NATIVE: Arch = Arch {
        audit: 0xc000_003e,
        scmp: "SCMP_ARCH_X86_64",
        docker: "amd64",
        carries_x32: true,
        numbers: |name| Some(name.parse::<syscalls::x86_64::Sysno>().ok()?.id() as usize),
    };

    pub(in super::super) const OTHER: Arch = Arch {
        audit: 0x4000_0003,
        scmp: "SCMP_ARCH_X86",
        docker: "x86",
        carries_x32: false,
        numbers: |name| Some(name.parse::<syscalls::x86::Sysno>().ok()?.id() as usize),
    };
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::Arch;

    pub(in super::super) const NATIVE: Arch = Arch {
        audit: 0xc000_00b7,
        scmp: "SCMP_ARCH_AARCH64",
        docker: "arm64",
        carries_x32: false,
        numbers: |name| Some(name.parse::<syscalls::aarch64::Sysno>().ok()?.id() as usize),
    };

    pub(in super::super) const OTHER: Arch = Arch {
        audit: 0x4000_0028,
        scmp: "SCMP_ARCH_ARM",
        docker: "arm",
        carries_x32: false,
        numbers: |name| Some(name.parse::<syscalls::arm::Sysno>().ok()?.id() as usize),
    };
}

pub(super) use machine::{NATIVE, OTHER};
