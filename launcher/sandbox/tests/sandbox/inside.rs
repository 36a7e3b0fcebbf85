//! What a command finds.

use crate::kit::{Tree, run};
use mille_sandbox::{
    BpfInstruction, Device, DeviceKind, IdMap, IdMaps, Mount, MountKind, MountOptions, Network,
    Propagation, Rlimit, SeccompProgram, SharedNamespaces, Warning, WindowSize,
};
use std::fs;

#[test]
fn root_capabilities_and_flags() {
    let tree = Tree::new();
    let got = tree.sh("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status");
    let want = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\n";
    assert_eq!(got.out, want);
    let mut spec = tree.spec("grep -E '^(Cap(Inh|Prm|Eff|Bnd)|NoNew)' /proc/self/status");
    spec.user = "alice".to_owned();
    spec.no_new_privileges = true;
    let want = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n";
    assert_eq!(run(&spec).out, want);
}

#[test]
fn root_environment_user_and_home() {
    let tree = Tree::new();
    for (user, want) in [
        (
            "",
            "uid=0(root) gid=0(root) groups=0(root),10(wheel) /root\n",
        ),
        (
            "alice",
            "uid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice) /home/alice\n",
        ),
        (
            "1000:10",
            "uid=1000(alice) gid=10(wheel) groups=10(wheel) /home/alice\n",
        ),
        (
            ":users",
            "uid=0(root) gid=100(users) groups=100(users) /root\n",
        ),
        ("4242", "uid=4242 gid=0(root) groups=0(root) /\n"),
        ("4242:4343", "uid=4242 gid=4343 groups=4343 /\n"),
    ] {
        let mut spec = tree.spec("echo \"$(id) $HOME\"");
        spec.user = user.to_owned();
        assert_eq!(run(&spec).out, want, "{user}");
    }
    let mut spec = tree.command(&["env"]);
    spec.env = vec!["PATH=/bin".into(), "HOSTNAME=h".into(), "A=x y".into()];
    assert_eq!(run(&spec).out, "PATH=/bin\nHOSTNAME=h\nA=x y\nHOME=/root\n");
    let mut spec = tree.command(&["true"]);
    spec.user = "nosuch".to_owned();
    let got = run(&spec);
    assert_eq!(
        got.err,
        "unable to find user nosuch: no matching entries in passwd file"
    );
    assert_eq!(got.code, 125);
}

#[test]
fn root_every_namespace_is_new() {
    let tree = Tree::new();
    for (kind, network, want) in [
        ("mnt", Network::Host, true),
        ("pid", Network::Host, true),
        ("uts", Network::Host, true),
        ("ipc", Network::Host, true),
        ("cgroup", Network::Host, true),
        ("time", Network::Host, true),
        ("net", Network::Host, false),
        ("net", Network::None, true),
    ] {
        let mut spec = tree.spec(&format!("readlink /proc/self/ns/{kind}"));
        spec.network = network;
        let inside = run(&spec).out;
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(inside, "");
        assert_eq!(
            inside.trim() != outside.to_string_lossy(),
            want,
            "{kind} {network:?}"
        );
    }
}

#[test]
fn root_devices() {
    let tree = Tree::new();
    let got = tree.sh(
        "ls /dev; stat -c '%a %F %t:%T %n' /dev/null /dev/tty /dev/pts/ptmx; echo x > /dev/null",
    );
    let want = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
                666 character special file 1:3 /dev/null\n666 character special file 5:0 /dev/tty\n\
                666 character special file 5:2 /dev/pts/ptmx\n";
    // `core` is there where the kernel has /proc/kcore.
    assert_eq!(got.out.replacen("core\n", "", 1), want);
    assert_eq!(got.err, "");
    let mut spec = tree.spec("stat -c '%a %u:%g %F %t:%T' /dev/my /opt/deep/loop");
    let device = |path: &str, kind, major, minor| Device {
        path: path.into(),
        host_path: path.into(),
        kind,
        major,
        minor,
        mode: 0o640,
        uid: 0,
        gid: 10,
    };
    spec.devices = vec![
        device("/dev/my", DeviceKind::Char, 1, 5),
        device("/opt/deep/loop", DeviceKind::Block, 7, 0),
    ];
    let want = "640 0:10 character special file 1:5\n640 0:10 block special file 7:0\n";
    assert_eq!(run(&spec).out, want);
}

#[test]
fn root_mounts_and_masks() {
    let tree = Tree::new();
    let got = tree.sh(
        "grep -E ' /(proc|sys|dev/(pts|shm|mqueue)) ' /proc/mounts | while read a b c d e; do echo $b $c ${d%%,*}; \
         done; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic; \
         touch /sys/firmware/x /sys/x /sys/fs/cgroup/x",
    );
    let want = "/proc proc rw\n/dev/pts devpts rw\n/dev/shm tmpfs rw\n/dev/mqueue mqueue rw\n/sys sysfs ro\n0\n0\n";
    assert_eq!(got.out, want);
    let refusals = got.err.matches("Read-only file system").count();
    assert_eq!(refusals, 4, "{}", got.err);
}

#[test]
fn root_terminal() {
    let tree = Tree::new();
    let mut spec =
        tree.spec("tty; stty size; echo e >&2; ls -1 /dev/pts; stat -c '%t:%T %U' /dev/console");
    spec.terminal = true;
    spec.window = Some(WindowSize {
        rows: 40,
        columns: 100,
    });
    let got = run(&spec);
    assert_eq!(
        got.out, "/dev/pts/0\r\n40 100\r\ne\r\n0\r\nptmx\r\n88:0 root\r\n",
        "{got:?}"
    );
    spec.user = "alice".to_owned();
    let got = run(&spec);
    assert!(got.out.ends_with("88:0 alice\r\n"), "{got:?}");
}

#[test]
fn root_stdout_can_be_opened_again_by_a_user() {
    let tree = Tree::new();
    let mut spec = tree.spec("echo again > /dev/stdout; echo too > /dev/stderr");
    spec.user = "alice".to_owned();
    let got = run(&spec);
    assert_eq!((got.out.as_str(), got.err.as_str()), ("again\n", "too\n"));
}

#[test]
fn root_working_directory() {
    let tree = Tree::new();
    std::os::unix::fs::symlink("/data", tree.path("datalink")).unwrap();
    for (cwd, want) in [
        ("", "/\n"),
        ("/data", "/data\n"),
        ("/datalink", "/data\n"),
        ("/datalink/new", "/data/new\n"),
        ("/a/b/../c", "/a/c\n"),
        ("/root", "/root\n"),
    ] {
        let mut spec = tree.command(&["pwd"]);
        spec.cwd = cwd.into();
        spec.user = "alice".to_owned();
        assert_eq!(run(&spec).out, want, "{cwd}");
    }
    let mut spec = tree.spec("stat -c '%a %u:%g' /new /new/dir");
    spec.cwd = "/new/dir".into();
    spec.user = "alice".to_owned();
    assert_eq!(run(&spec).out, "755 0:0\n755 0:0\n");
    spec.cwd = "/etc/passwd".into();
    let got = run(&spec);
    assert_eq!(
        (got.code, got.err.as_str()),
        (125, "Cannot mkdir: /etc/passwd is not a directory")
    );
}

#[test]
fn root_readonly_root() {
    let tree = Tree::new();
    let mut spec = tree.spec("touch /x; touch /dev/yes && echo dev; touch /tmp/t && echo tmp");
    spec.readonly_rootfs = true;
    spec.mounts.push(tmpfs("/tmp"));
    let got = run(&spec);
    assert_eq!(got.out, "dev\ntmp\n");
    assert_eq!(got.err, "touch: /x: Read-only file system\n");
}

fn tmpfs(target: &str) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Tmpfs {
            size_bytes: None,
            mode: None,
            data: Vec::new(),
        },
        options: MountOptions {
            readonly: false,
            nosuid: true,
            nodev: true,
            noexec: true,
        },
    }
}

pub(crate) fn bind(source: &std::path::Path, target: &str, readonly: bool) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Bind {
            source: source.into(),
            recursive: true,
            propagation: Propagation::Private,
        },
        options: MountOptions {
            readonly,
            ..MountOptions::default()
        },
    }
}

#[test]
fn root_mounts_of_the_user() {
    let (tree, volume) = (Tree::new(), tempfile::tempdir().unwrap());
    fs::write(volume.path().join("f"), "volume\n").unwrap();
    let mut spec = tree.spec(
        "cat /vol/f /new/deep/file; touch /vol/x; touch /ro/x; stat -c '%a %n' /home/alice /fresh; \
         grep -c ' /ro .*ro,' /proc/mounts",
    );
    spec.mounts = vec![
        bind(volume.path(), "/vol", false),
        bind(volume.path(), "/ro", true),
        bind(&volume.path().join("f"), "/new/deep/file", false),
        tmpfs("/home/alice"),
        tmpfs("/fresh"),
    ];
    let got = run(&spec);
    assert_eq!(got.out, "volume\nvolume\n755 /home/alice\n1777 /fresh\n1\n");
    assert_eq!(got.err, "touch: /ro/x: Read-only file system\n");
    assert!(volume.path().join("x").exists());
    spec.mounts = vec![bind(volume.path(), "/etc/passwd", false)];
    let got = run(&spec);
    assert!(
        got.err
            .contains("error mounting to \"/etc/passwd\": not a directory"),
        "{got:?}"
    );
    assert!(
        got.err.ends_with("exists and is the expected type"),
        "{got:?}"
    );
}

/// Version 2 alone, as most hosts have it.
#[test]
fn root_cgroup2() {
    let tree = Tree::new();
    for options in ["", "--userns --net-none", "--userns"] {
        let script = format!(
            "umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup; exec {} {options} {} sh -c \
             'tail -n 1 /sys/fs/cgroup/cgroup.controllers > /dev/null && grep /sys/fs/cgroup /proc/mounts | tail -n 1; \
             touch /sys/fs/cgroup/x'",
            crate::kit::driver().display(),
            tree.path("").display(),
        );
        crate::kit::need_root();
        let mut command = std::process::Command::new("unshare");
        let got = crate::kit::run_of(
            command
                .args(["--mount", "sh", "-c", &script])
                .output()
                .unwrap(),
        );
        let want = " /sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec,relatime 0 0\n";
        assert!(got.out.ends_with(want), "{options}: {got:?}");
        assert_eq!(
            got.err, "touch: /sys/fs/cgroup/x: Read-only file system\n",
            "{options}"
        );
    }
}

#[test]
fn root_network_none_has_lo_up() {
    let tree = Tree::new();
    let mut spec = tree.spec(
        "hostname; ip -o link | grep -c .; ip link show lo; cat /proc/sys/net/ipv4/ip_forward",
    );
    spec.network = Network::None;
    spec.hostname = Some("hh".to_owned());
    spec.sysctls = vec![("net.ipv4.ip_forward".to_owned(), "1".to_owned())];
    let got = run(&spec);
    assert!(
        got.out.starts_with("hh\n1\n1: lo: <LOOPBACK,UP,LOWER_UP>"),
        "{got:?}"
    );
    assert!(got.out.ends_with("\n1\n"), "{got:?}");
}

#[test]
fn root_limits_are_clamped_with_a_warning() {
    let tree = Tree::new();
    let mut spec = tree.spec("ulimit -n");
    let limit = |value| Rlimit {
        name: "nofile".to_owned(),
        soft: Some(value),
        hard: Some(value),
    };
    spec.rlimits = vec![limit(100)];
    assert_eq!(run(&spec).out, "100\n");
    spec.rlimits = vec![limit(1 << 19)];
    let got = run(&spec);
    let bound =
        rustix::thread::capability_is_in_bounding_set(rustix::thread::CapabilitySet::SYS_RESOURCE);
    if bound.unwrap() {
        assert_eq!(got.out, format!("{}\n", 1 << 19));
    } else {
        let has = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .maximum
            .unwrap();
        assert_eq!(got.out, format!("{has}\n"));
        assert!(
            matches!(got.warnings.as_slice(), [Warning::RlimitClamped { .. }]),
            "{got:?}"
        );
    }
}

/// A filter that refuses `mkdir` with EPERM.
fn no_mkdir() -> SeccompProgram {
    let op = |code, jump_true, jump_false, operand| BpfInstruction {
        code,
        jump_true,
        jump_false,
        operand,
    };
    let mkdir = u32::try_from(libc::SYS_mkdir).unwrap();
    SeccompProgram {
        instructions: vec![
            op(0x20, 0, 0, 0),
            op(0x15, 0, 1, mkdir),
            op(0x06, 0, 0, 0x0005_0001),
            op(0x06, 0, 0, 0x7fff_0000),
        ],
        flags: 0,
    }
}

#[test]
fn root_seccomp_filter() {
    let tree = Tree::new();
    for no_new_privileges in [false, true] {
        let mut spec = tree.spec("mkdir /data/d; grep Seccomp: /proc/self/status");
        spec.seccomp = Some(no_mkdir());
        spec.no_new_privileges = no_new_privileges;
        spec.cwd = "/made/before".into();
        let got = run(&spec);
        assert_eq!(got.out, "Seccomp:\t2\n");
        assert!(got.err.contains("Operation not permitted"), "{got:?}");
    }
}

#[test]
fn root_shared_namespaces() {
    let tree = Tree::new();
    let mut spec = tree.spec("echo $$; readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts");
    spec.shared = SharedNamespaces {
        pid: true,
        ipc: true,
        uts: true,
        cgroup: true,
    };
    let got = run(&spec);
    let ours = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let mut lines = got.out.lines();
    assert_ne!(lines.next(), Some("1"), "{got:?}");
    assert_eq!(lines.next(), ours("ipc").to_str());
    assert_eq!(lines.next(), ours("uts").to_str());
}

#[test]
fn root_privileged() {
    let tree = Tree::new();
    let mut spec =
        tree.spec("grep CapEff /proc/self/status; grep -c ' /sys sysfs rw' /proc/mounts");
    spec.privileged = true;
    let all = rustix::thread::capabilities(None).unwrap().permitted.bits();
    assert_eq!(run(&spec).out, format!("CapEff:\t{all:016x}\n1\n"));
}

#[test]
fn root_user_namespace_with_ranges() {
    let tree = Tree::new();
    let range = vec![IdMap {
        inside: 0,
        outside: 300_000,
        count: 65536,
    }];
    let mut spec = tree
        .spec("id -u; cat /proc/self/uid_map; touch /data/f; stat -c %u /data/f; ls -ln /dev/null");
    spec.user_namespace = Some(IdMaps::Ranges {
        uids: range.clone(),
        gids: range,
    });
    std::os::unix::fs::chown(tree.path("data"), Some(300_000), Some(300_000)).unwrap();
    let got = run(&spec);
    assert!(
        got.out
            .starts_with("0\n         0     300000      65536\n0\n"),
        "{got:?}"
    );
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(tree.path("data/f")).unwrap());
    assert_eq!(owner, 300_000);
}

#[test]
fn root_of_nothing_but_one_program() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new();
    fs::copy(tree.path("bin/busybox"), dir.path().join("busybox")).unwrap();
    let mut spec = tree.command(&["/busybox", "echo", "hello"]);
    spec.rootfs = dir.path().into();
    let got = run(&spec);
    assert_eq!((got.code, got.out.as_str()), (0, "hello\n"), "{got:?}");
}
