use super::super::names::{NATIVE, OTHER};
use super::super::profile::{Machine, Profile};
use super::*;
use crate::{CapSet, Capability};

/// What a program says of one system call, step by step as bpf(2) would.
fn run(program: &SeccompProgram, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&audit.to_ne_bytes());
    for (at, argument) in arguments.iter().enumerate() {
        data[16 + 8 * at..24 + 8 * at].copy_from_slice(&argument.to_ne_bytes());
    }
    let (mut at, mut held) = (0usize, 0u32);
    loop {
        let one = program.instructions[at];
        at += 1;
        let choose = |yes: bool| usize::from(if yes { one.jump_true } else { one.jump_false });
        match one.code {
            LOAD => {
                let from = one.operand as usize;
                held = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
            }
            AND => held &= one.operand,
            JUMP => at += one.operand as usize,
            JUMP_EQUAL => at += choose(held == one.operand),
            JUMP_GREATER => at += choose(held > one.operand),
            JUMP_GREATER_OR_EQUAL => at += choose(held >= one.operand),
            JUMP_SET => at += choose(held & one.operand != 0),
            RETURN => return one.operand,
            other => panic!("no such instruction {other:#x}"),
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn machine(capabilities: CapSet) -> Machine {
    Machine {
        capabilities,
        kernel: (6, 1),
    }
}

fn default_program(capabilities: CapSet) -> SeccompProgram {
    Profile::builtin().program(&machine(capabilities))
}

fn native(program: &SeccompProgram, name: &str, arguments: [u64; 6]) -> u32 {
    run(
        program,
        NATIVE.audit,
        NATIVE.number(name).unwrap(),
        arguments,
    )
}

#[test]
fn dockers_policy_allows_and_refuses_what_docker_does() {
    let program = default_program(CapSet::DEFAULT);
    for name in [
        "read", "openat", "execve", "futex", "socket", "ptrace", "chroot",
    ] {
        assert_eq!(native(&program, name, [0; 6]), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "add_key",
        "userfaultfd",
        "io_uring_setup",
        "open_by_handle_at",
        "kexec_load",
        "reboot",
        "init_module",
        "perf_event_open",
        "swapon",
        "move_mount",
        "pidfd_getfd",
        "mbind",
    ] {
        assert_eq!(native(&program, name, [0; 6]), EPERM, "{name}");
    }
    assert_eq!(native(&program, "clone3", [0; 6]), ENOSYS);
}

#[test]
fn arguments_decide_where_they_should() {
    let program = default_program(CapSet::DEFAULT);
    let first = |name: &str, value: u64| native(&program, name, [value, 7, 7, 7, 7, 7]);
    assert_eq!(first("clone", 0x0001_1200 | 17), ALLOW);
    assert_eq!(first("clone", 0x1000_0000), EPERM);
    assert_eq!(first("clone", 0x0002_0011), EPERM);
    assert_eq!(first("socket", 2), ALLOW);
    assert_eq!(first("socket", 16), ALLOW);
    assert_eq!(first("socket", 38), EPERM);
    assert_eq!(first("socket", 40), EPERM);
    // The kernel takes the family from the lower half of the register.
    assert_eq!(first("socket", 0x1_0000_0000 | 38), EPERM);
    assert_eq!(first("personality", 0xffff_ffff), ALLOW);
    assert_eq!(first("personality", 0x2_0008), ALLOW);
    // ADDR_NO_RANDOMIZE
    assert_eq!(first("personality", 0x4_0000), EPERM);
}

#[test]
fn capabilities_open_what_they_stand_for() {
    let mut more = CapSet::DEFAULT;
    more.insert(Capability::SYS_ADMIN);
    let program = default_program(more);
    for name in ["mount", "unshare", "setns", "clone", "clone3", "bpf"] {
        assert_eq!(native(&program, name, [u64::MAX; 6]), ALLOW, "{name}");
    }
    let mut less = CapSet::DEFAULT;
    less.remove(Capability::SYS_CHROOT);
    assert_eq!(native(&default_program(less), "chroot", [0; 6]), EPERM);
}

#[test]
fn what_is_newer_than_the_profile_does_not_exist() {
    let program = default_program(CapSet::DEFAULT);
    let audit = NATIVE.audit;
    for number in [600, 4000, X32_BIT - 1] {
        assert_eq!(run(&program, audit, number, [0; 6]), ENOSYS);
    }
    assert_eq!(run(&program, 0xdead_beef, 0, [0; 6]), KILL);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_other_interfaces_are_judged_alike() {
    let program = default_program(CapSet::DEFAULT);
    let old = |name: &str| {
        let number = OTHER.number(name).unwrap();
        run(&program, OTHER.audit, number, [0; 6])
    };
    assert_eq!(old("mmap2"), ALLOW);
    assert_eq!(old("mount"), EPERM);
    assert_eq!(old("clone3"), ENOSYS);
    let x32 = |name: &str| {
        let number = NATIVE.number(name).unwrap() | X32_BIT;
        run(&program, NATIVE.audit, number, [0; 6])
    };
    assert_eq!(x32("getpid"), ALLOW);
    assert_eq!(x32("mount"), EPERM);
    let only = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}"#;
    let only = Profile::from_json(only.as_bytes())
        .unwrap()
        .program(&machine(CapSet::ALL));
    assert_eq!(run(&only, OTHER.audit, 1, [0; 6]), KILL);
    assert_eq!(run(&only, NATIVE.audit, X32_BIT | 1, [0; 6]), KILL);
    assert_eq!(run(&only, NATIVE.audit, 9999, [0; 6]), ALLOW);
}

/// Every comparison on values around both halves' edges, against its meaning.
#[test]
fn comparisons_are_of_64_bits() {
    let edges = [
        0,
        1,
        0x7fff_ffff,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        u64::MAX - 1,
        u64::MAX,
    ];
    type Meaning = fn(u64, u64) -> bool;
    let meanings: [(&str, Meaning); 7] = [
        ("EQ", |a, b| a == b),
        ("NE", |a, b| a != b),
        ("LT", |a, b| a < b),
        ("LE", |a, b| a <= b),
        ("GT", |a, b| a > b),
        ("GE", |a, b| a >= b),
        ("MASKED_EQ", |a, b| a & 0xff_0000_00ff == b),
    ];
    for (op, holds) in meanings {
        for value in edges {
            let (operand, second) = if op == "MASKED_EQ" {
                (0xff_0000_00ffu64, value)
            } else {
                (value, 0)
            };
            let text = format!(
                r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                    "args": [{{"index": 1, "value": {operand}, "valueTwo": {second}, "op": "SCMP_CMP_{op}"}},
                             {{"index": 5, "value": 3, "op": "SCMP_CMP_EQ"}}]}}]}}"#
            );
            let program = Profile::from_json(text.as_bytes())
                .unwrap()
                .program(&machine(CapSet::EMPTY));
            for given in edges {
                let seen = native(&program, "read", [9, given, 9, 9, 9, 3]);
                assert_eq!(
                    seen == ALLOW,
                    holds(given, value),
                    "{given:#x} {op} {value:#x}"
                );
                assert_eq!(native(&program, "read", [9, given, 9, 9, 9, 4]), EPERM);
            }
        }
    }
}

/// The tree of comparisons says the same as the list of verdicts, for every number.
#[test]
fn the_tree_finds_every_verdict() {
    let profile = Profile::builtin();
    let here = machine(CapSet::DEFAULT);
    let program = profile.program(&here);
    for arch in [NATIVE, OTHER] {
        let judged = profile.judge(&here, arch);
        for number in 0..=judged.newest + 10 {
            let want = match judged.verdicts.get(&number) {
                Some(verdict) if verdict.conditional.is_empty() => leave(verdict.otherwise).operand,
                Some(_) => continue,
                None if number > judged.newest => ENOSYS,
                None => EPERM,
            };
            assert_eq!(
                run(&program, arch.audit, number, [0; 6]),
                want,
                "{arch:?} {number}"
            );
        }
    }
    assert!(
        program.instructions.len() < 1000,
        "{}",
        program.instructions.len()
    );
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}]}"#;
    let program = Profile::from_json(text.as_bytes())
        .unwrap()
        .program(&machine(CapSet::EMPTY));
    let seen = [0, 1, 2, 3].map(|value| native(&program, "read", [value; 6]) == ALLOW);
    assert_eq!(seen, [false, true, true, false]);
}
