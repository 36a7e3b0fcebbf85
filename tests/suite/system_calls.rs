//! Seccomp: what a container may ask of the kernel, as root and as an ordinary user.

use mille_tests::program::require;
use mille_tests::{Store, Who, rootfs};

/// A store whose image `bb` has the program at /call.
fn store(who: Who) -> Store {
    require("gcc", "gcc");
    let store = Store::with_busybox(who);
    let source = store.file("call.c");
    std::fs::write(&source, rootfs::CALL).unwrap();
    who.own(&source);
    store
        .script("mkdir c && gcc -static -O -o c/call call.c && tar -C c -cf call.tar call && cp bb.tar all.tar && tar -Af all.tar call.tar && $mille import all.tar bb")
        .ok();
    store
}

// Numbers of x86-64 (asm/unistd_64.h).
const SOCKET: u32 = 41;
const PERSONALITY: u32 = 135;
const UNSHARE: u32 = 272;
const KEYCTL: u32 = 250;
const CLONE3: u32 = 435;
/// Greater than any number yet.
const FUTURE: u32 = 600;

const EPERM: &str = "1";
const ENOSYS: &str = "38";

fn errno(store: &Store, run: &str, call: &str) -> String {
    store.line(&format!("{run} /call {call}")).ok()
}

fn default_policy(who: Who) {
    let store = store(who);
    let run = "run --rm bb";
    assert_eq!(errno(&store, run, &format!("{KEYCTL} 0 0 0")), EPERM);
    assert_eq!(errno(&store, run, &format!("{UNSHARE} 0x10000000")), EPERM);
    assert_eq!(errno(&store, run, &format!("{SOCKET} 38 5 0")), EPERM);
    assert_eq!(
        errno(&store, run, &format!("{SOCKET} 0x100000026 5 0")),
        EPERM
    );
    assert_eq!(errno(&store, run, &format!("{SOCKET} 1 1 0")), "0");
    assert_eq!(
        errno(&store, run, &format!("{PERSONALITY} 0xffffffff")),
        "0"
    );
    assert_eq!(errno(&store, run, &format!("{PERSONALITY} 0x40000")), EPERM);
    assert_eq!(errno(&store, run, &format!("{CLONE3} 0 0")), ENOSYS);
    assert_eq!(errno(&store, run, &FUTURE.to_string()), ENOSYS);
    let open = "run --rm --security-opt seccomp=unconfined bb";
    assert_eq!(errno(&store, open, &format!("{UNSHARE} 0x10000000")), "0");
    let status = store
        .line("run --rm bb grep Seccomp: /proc/self/status")
        .ok();
    assert!(status.ends_with('2'), "{status}");
    let status = store
        .line("run --rm --privileged bb grep Seccomp: /proc/self/status")
        .ok();
    assert!(status.ends_with('0'), "{status}");
}

#[test]
fn root_fuse_dockers_policy_holds() {
    default_policy(Who::Root);
}

#[test]
fn user_fuse_dockers_policy_holds() {
    default_policy(Who::Ordinary);
}

#[test]
fn root_fuse_more_commands_are_filtered_alike() {
    let store = store(Who::Root);
    store.line("run -d --name work bb sleep 100").ok();
    assert_eq!(
        errno(&store, "exec work", &format!("{UNSHARE} 0x10000000")),
        EPERM
    );
    assert_eq!(
        errno(
            &store,
            "exec --privileged work",
            &format!("{UNSHARE} 0x10000000")
        ),
        "0"
    );
    store
        .line("run -d --name free --cap-add SYS_ADMIN bb sleep 100")
        .ok();
    assert_eq!(
        errno(&store, "exec free", &format!("{UNSHARE} 0x20000")),
        "0"
    );
    store.line("rm -f work free").ok();
}

#[test]
fn root_fuse_a_profile_file_is_obeyed() {
    let store = store(Who::Root);
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99,
                      "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]
    }"#;
    std::fs::write(store.file("profile.json"), profile).unwrap();
    let run = "run --security-opt seccomp=profile.json --name kept bb";
    assert_eq!(errno(&store, run, &format!("{SOCKET} 1 1 0")), "99");
    // It is kept with the container, not read again.
    std::fs::remove_file(store.file("profile.json")).unwrap();
    assert_eq!(store.line("start -a kept").ok(), "99");
    let recorded = store
        .line("inspect -f {{.HostConfig.SecurityOpt}} kept")
        .ok();
    assert!(
        recorded.starts_with(r#"[seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names""#),
        "{recorded}"
    );
    store.line("run --rm --security-opt seccomp=profile.json bb true").code(125)
        .says("opening seccomp profile (profile.json) failed: open profile.json: no such file or directory");
    std::fs::write(store.file("bad.json"), "{").unwrap();
    store
        .line("run --rm --security-opt seccomp=bad.json bb true")
        .code(125)
        .says("compacting json for seccomp profile (bad.json) failed");
    store
        .line("run --rm --security-opt apparmor=docker-default bb true")
        .code(125)
        .says("no apparmor protection");
}

#[test]
fn root_fuse_all_system_paths_can_be_asked_for() {
    let store = Store::with_busybox(Who::Root);
    let bound = |options: &str| {
        let mounts = store
            .line(&format!("run --rm {options} bb cat /proc/mounts"))
            .ok();
        mounts
            .lines()
            .filter(|line| line.contains(" /proc/sys "))
            .count()
    };
    assert_eq!(bound(""), 1);
    assert_eq!(bound("--security-opt systempaths=unconfined"), 0);
}
