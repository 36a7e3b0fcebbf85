//! docker's default policy, as facts: what is allowed to everybody, and what a capability opens.

use std::borrow::Cow;

use super::profile::{Action, Circumstances, Comparison, Condition, Profile, Rule};
use crate::Capability;

/// Allowed to everybody.
const ALLOWED: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 \
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv \
    futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups \
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 \
    getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid \
    gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch \
    io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit \
    ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat \
    listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise \
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap \
    mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease \
    pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall \
    riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam \
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop \
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 \
    setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 \
    setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area \
    set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 \
    sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync \
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat \
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed on one kind of machine.
const ON_MACHINES: &[(&[&str], &str)] = &[
    (&["amd64"], "arch_prctl modify_ldt"),
    (&["x86"], "modify_ldt"),
    (
        &["arm", "arm64"],
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ),
];

/// Allowed to whoever has the capability.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    (
        "SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("SYS_PACCT", "acct"),
    (
        "SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("SYS_RAWIO", "iopl ioperm"),
    (
        "SYS_TIME",
        "clock_settime clock_settime64 settimeofday stime",
    ),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

/// From here on a traced process cannot get around a filter (the kernel's seccomp_filter document).
const PTRACE_IS_SAFE: (u32, u32) = (4, 8);

/// `personality(2)`: Linux, 32-bit Linux, either with `UNAME26`, and the question which it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Families with a history of holes that no container needs: `AF_ALG` and `AF_VSOCK`.
const REFUSED_FAMILIES: [u64; 2] = [38, 40];

/// The flags of clone(2) that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Returns the policy.
pub(super) fn profile() -> Profile {
    let mut rules = vec![
        allow(ALLOWED),
        Rule {
            only: Circumstances {
                kernel: Some(PTRACE_IS_SAFE),
                ..Circumstances::default()
            },
            ..allow("process_vm_readv process_vm_writev ptrace")
        },
    ];
    // The family is an int: the upper half of the register does not count, and must not hide it.
    rules.extend(REFUSED_FAMILIES.map(|family| Rule {
        action: Action::Errno(NOT_PERMITTED),
        ..when("socket", 0, Comparison::Masked(u64::from(u32::MAX)), family)
    }));
    rules.push(allow("socket"));
    rules.extend(PERSONALITIES.map(|value| when("personality", 0, Comparison::Equal, value)));
    rules.extend(ON_MACHINES.iter().map(|(machines, names)| Rule {
        only: Circumstances {
            machines: machines.iter().map(|name| Cow::Borrowed(*name)).collect(),
            ..Circumstances::default()
        },
        ..allow(names)
    }));
    rules.extend(WITH_CAPABILITY.iter().map(|(name, names)| Rule {
        only: with(name),
        ..allow(names)
    }));
    rules.push(Rule {
        not: with("SYS_ADMIN"),
        ..when("clone", 0, Comparison::Masked(NAMESPACE_FLAGS), 0)
    });
    // Its flags are in memory, where a filter cannot look: libraries fall back to clone.
    rules.push(Rule {
        action: Action::Errno(NO_SUCH_CALL),
        not: with("SYS_ADMIN"),
        ..allow("clone3")
    });
    Profile {
        default: Action::Errno(NOT_PERMITTED),
        rules,
        architectures: Vec::new(),
    }
}

const NOT_PERMITTED: u16 = 1;
const NO_SUCH_CALL: u16 = 38;

fn allow(names: &'static str) -> Rule {
    Rule {
        names: names.split_ascii_whitespace().map(Cow::Borrowed).collect(),
        action: Action::Allow,
        conditions: Vec::new(),
        only: Circumstances::default(),
        not: Circumstances::default(),
    }
}

fn when(name: &'static str, argument: u8, comparison: Comparison, value: u64) -> Rule {
    Rule {
        conditions: vec![Condition {
            argument,
            comparison,
            value,
        }],
        ..allow(name)
    }
}

fn with(capability: &str) -> Circumstances {
    Circumstances {
        capabilities: Capability::from_name(capability).into_iter().collect(),
        ..Circumstances::default()
    }
}
