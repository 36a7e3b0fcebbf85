//! What is the host's kernel's: its files, its devices, its calls.

use mille_tests::Store;
use mille_tests::program::require;

use crate::Verdict;
use crate::attack::{exec, image, running, sh};

/// What the host has of docker's masked files shows nothing.
pub(crate) fn masked_paths(store: &Store) -> Verdict {
    let script = "for f in /proc/kcore /proc/keys /proc/interrupts /proc/timer_list /proc/sched_debug; do \
                  [ ! -e $f ] || head -c 9 $f; done; ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v :";
    let seen = sh(store, "", script);
    Verdict::of(seen.trim().is_empty(), seen)
}

/// Parameters of the kernel are not the container's to set.
pub(crate) fn parameters_of_the_kernel(store: &Store) -> Verdict {
    // Opening alone changes nothing, should it succeed.
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity; do \
                  (: >> $f) 2>/dev/null && echo $f; done";
    let writable = sh(store, "", script);
    Verdict::of(writable.is_empty(), writable)
}

/// CVE-2023-25809 and CVE-2022-0492: a writable control group (`release_agent`) is a command on the host.
pub(crate) fn control_groups(store: &Store) -> Verdict {
    let script = "cd /sys/fs/cgroup && for d in . *; do mkdir $d/escape && rmdir $d/escape && echo $d; done 2>/dev/null";
    let writable = sh(store, "", script);
    Verdict::of(writable.is_empty(), writable)
}

/// The container's root may make device nodes (`CAP_MKNOD`) and yet use none of its own: neither a disk of the host nor
/// the FUSE device, whose server could hold up whoever looks.
pub(crate) fn device_nodes(store: &Store) -> Verdict {
    std::fs::create_dir(store.file("volume")).unwrap();
    let options = format!(
        "--tmpfs /tmp2:dev -v {}:/volume",
        store.file("volume").display()
    );
    let script = "ls /dev/fuse; for d in /dev /tmp /dev/shm /tmp2 /volume; do \
                  mknod $d/fuse c 10 229 && (exec 3<>$d/fuse) && echo $d; done 2>/dev/null";
    let opened = sh(store, &options, script);
    Verdict::of(opened.is_empty(), opened)
}

/// CVE-2026-31431 (`AF_ALG`) and what a filter stands for: `EPERM`.
pub(crate) fn system_calls(store: &Store) -> Verdict {
    require("gcc", "gcc");
    std::fs::write(store.file("call.c"), mille_tests::rootfs::CALL).unwrap();
    image(store, "gcc -static -O -o call ../call.c", &[]);
    running(store, "evil");
    let mut verdict = Verdict::Holds;
    // socket(AF_ALG), socket(AF_VSOCK), unshare(CLONE_NEWUSER), keyctl, bpf, userfaultfd: x86-64's numbers.
    for call in [
        "41 38 5 0",
        "41 40 1 0",
        "272 0x10000000",
        "250 0 0 0",
        "321 0 0 0",
        "323 1",
    ] {
        for line in ["run --rm evil", "exec c1"] {
            verdict = verdict.and(|| {
                let errno = store.line(&format!("{line} /call {call}")).out();
                Verdict::of(errno == "1", format!("{line}: {call}: errno {errno}"))
            });
        }
    }
    verdict
}

/// The file system's server and the monitor are processes of the host: nobody in the container sees them.
pub(crate) fn processes_of_the_host(store: &Store) -> Verdict {
    running(store, "bb");
    let first = sh(store, "", "echo $$");
    let seen = exec(store, "grep -l [m]ille /proc/[0-9]*/cmdline");
    Verdict::of(
        first == "1" && seen.is_empty(),
        format!("process {first}; {seen}"),
    )
}

/// CVE-2025-65105: a protection that was asked for and cannot be given is an error.
pub(crate) fn security_options(store: &Store) -> Verdict {
    let mut verdict = Verdict::Holds;
    for option in [
        "apparmor=docker-default",
        "label=type:x",
        "seccomp={}",
        "frob",
    ] {
        verdict = verdict.and(|| {
            let ran = sh(store, &format!("--security-opt {option}"), "echo ran");
            Verdict::of(ran.is_empty(), format!("{option}: {ran}"))
        });
    }
    verdict
}
