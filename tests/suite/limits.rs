//! Limits: what a container may take, what happens when it takes more, and what is left of its control groups.

use mille_tests::{Store, Who};

/// Directories of the groups of this test's containers that are still there.
fn left(id: &str) -> String {
    mille_tests::program::shell(&format!(
        "find /sys/fs/cgroup -maxdepth 6 -type d -name '{id}' 2>/dev/null || true"
    ))
}

/// A program that ends in a moment unless it may not have `$1` bytes.
const EAT: &str = "exec dd if=/dev/zero of=/dev/null count=1 bs=";

#[test]
fn root_fuse_limits_are_set_where_the_container_is() {
    let store = Store::with_busybox(Who::Root);
    let id = store
        .line("run -d --name c1 -m 64m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 20 --blkio-weight 500 bb sleep 1000")
        .ok();
    // The container sees its own group as the root of each tree.
    let read = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes \
                cpu/cpu.cfs_quota_us cpu/cpu.shares cpuset/cpuset.cpus pids/pids.max blkio/blkio.*weight";
    let want = "67108864\n134217728\n50000\n512\n0\n20\n500";
    assert_eq!(store.mille(["exec", "c1", "sh", "-c", read]).ok(), want);
    // A further command is in the same groups.
    let mine = store.line("exec c1 cat /proc/self/cgroup").ok();
    for controller in ["memory", "cpu", "cpuset", "pids"] {
        assert!(
            mine.lines()
                .any(|line| line.ends_with(&format!(":{controller}:/"))),
            "{mine}"
        );
    }
    assert!(!left(&id).is_empty());
    let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
    let seen = store.mille(["inspect", "-f", format, "c1"]).ok();
    assert_eq!(seen, "67108864 134217728 500000000 20");
    // Its share of the machine is what the limit leaves of it.
    let figures = store
        .line("stats --no-stream --format {{.MemUsage}}|{{.PIDs}} c1")
        .ok();
    assert!(figures.ends_with("iB / 64MiB|1"), "{figures}");
    store.line("rm -f c1").ok();
    assert_eq!(left(&id), "");
    // Without limits there is no group.
    let id = store.line("run -d --name c2 bb sleep 1000").ok();
    assert_eq!(left(&id), "");
    store.line("rm -f c2").ok();
}

/// Some whole disk of the machine's.
fn disk() -> String {
    let disks = std::fs::read_dir("/sys/block").unwrap();
    let nodes = disks.map(|disk| format!("/dev/{}", disk.unwrap().file_name().display()));
    let mut nodes = nodes.filter(|node| std::path::Path::new(node).exists());
    nodes.next().expect("this machine has a disk with a node")
}

#[test]
fn root_fuse_single_devices_are_limited() {
    let store = Store::with_busybox(Who::Root);
    let disk = disk();
    let number = mille_tests::program::shell(&format!("stat -c %Hr:%Lr {disk}"));
    let line = format!(
        "run -d --name c1 --device-read-bps {disk}:1mb --device-write-bps {disk}:2mb --device-read-iops {disk}:30 \
         --device-write-iops {disk}:40 bb sleep 1000"
    );
    store.line(&line).ok();
    let read = "cd /sys/fs/cgroup/blkio; for i in bps iops; do cat blkio.throttle.read_${i}_device \
                blkio.throttle.write_${i}_device; done";
    let number = number.trim();
    let want = format!("{number} 1048576\n{number} 2097152\n{number} 30\n{number} 40");
    assert_eq!(store.mille(["exec", "c1", "sh", "-c", read]).ok(), want);
    let format = "{{json .HostConfig.BlkioDeviceReadBps}}{{json .HostConfig.BlkioDeviceWriteIOps}}";
    assert_eq!(
        store.mille(["inspect", "-f", format, "c1"]).ok(),
        format!("[{{\"Path\":\"{disk}\",\"Rate\":1048576}}][{{\"Path\":\"{disk}\",\"Rate\":40}}]")
    );
    // What cannot be limited is an error, and so is what is not there.
    store
        .line("run --rm --device-read-bps /dev/null:1mb bb true")
        .code(125)
        .says("blkio.throttle.read_bps_device cannot be set to 1:3 1048576: ");
    store
        .line("run --rm --device-write-iops /dev/no-such:1 bb true")
        .code(127)
        .says("Error response from daemon: stat /dev/no-such: no such file or directory");
    store
        .line("create --blkio-weight-device sda:300 bb")
        .code(125)
        .says(
            "invalid argument \"sda:300\" for \"--blkio-weight-device\" flag: bad format for device path: sda:300",
        );
}

#[test]
fn root_fuse_a_container_killed_for_memory_says_so() {
    let store = Store::with_busybox(Who::Root);
    let eat = format!("{EAT}200M");
    store
        .mille(["run", "--name", "c1", "-m", "20m", "bb", "sh", "-c", &eat])
        .code(137);
    let format = "{{.State.OOMKilled}} {{.State.ExitCode}}";
    assert_eq!(
        store.mille(["inspect", "-f", format, "c1"]).ok(),
        "true 137"
    );
    let eat = format!("{EAT}1M");
    store
        .mille(["run", "--name", "c2", "-m", "20m", "bb", "sh", "-c", &eat])
        .ok();
    assert_eq!(store.mille(["inspect", "-f", format, "c2"]).ok(), "false 0");
}

#[test]
fn root_fuse_a_running_container_gets_other_limits() {
    let store = Store::with_busybox(Who::Root);
    // One without a group gets one, with all that runs in it.
    let id = store.line("run -d --name c1 bb sleep 1000").ok();
    store.line("exec -d c1 sleep 1000").ok();
    store
        .line("update -m 100m --memory-swap 200m --pids-limit 50 c1")
        .ok();
    let own = left(&id);
    let memory = own.lines().find(|path| path.contains("/memory/")).unwrap();
    let value = |file: &str| std::fs::read_to_string(format!("{memory}/{file}")).unwrap();
    assert_eq!(value("memory.limit_in_bytes"), "104857600\n");
    assert_eq!(value("memory.memsw.limit_in_bytes"), "209715200\n");
    assert_eq!(value("cgroup.procs").lines().count(), 2);
    // Up, beyond what swap allows, both at once; down again by itself.
    store
        .line("update -m 300m c1")
        .code(1)
        .says(&format!(
            "Error response from daemon: Cannot update container {id}: Memory limit should be smaller than already set \
             memoryswap limit, update the memoryswap at the same time"
        ));
    store.line("update -m 300m --memory-swap 400m c1").ok();
    assert_eq!(value("memory.limit_in_bytes"), "314572800\n");
    store.line("update -m 50m c1").ok();
    assert_eq!(value("memory.limit_in_bytes"), "52428800\n");
    let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}}";
    let seen = store.mille(["inspect", "-f", format, "c1"]).ok();
    assert_eq!(seen, "52428800 419430400 50");
    store
        .line("update -m 1m c1")
        .code(1)
        .says("Minimum memory limit allowed is 6MB");
    store.line("rm -f c1").ok();
    assert_eq!(left(&id), "");
}

#[test]
fn root_fuse_groups_are_made_below_a_parent() {
    let store = Store::with_busybox(Who::Root);
    let top = format!("mille-t-{}", std::process::id());
    let parent = format!("/{top}/sub");
    // Somebody has set a limit there, which holds for what is below.
    let memory = std::path::Path::new("/sys/fs/cgroup/memory").join(&top);
    std::fs::create_dir(&memory).unwrap();
    std::fs::write(memory.join("memory.limit_in_bytes"), "30M").unwrap();
    let eat = format!("{EAT}200M");
    let run = format!("run --rm --cgroup-parent {parent} bb sh -c");
    store.mille(run.split(' ').chain([eat.as_str()])).code(137);
    let run = format!("run -d --name c1 --cgroup-parent {parent} -m 20m bb sleep 1000");
    let id = store.line(&run).ok();
    assert_eq!(
        store
            .line("inspect -f {{.HostConfig.CgroupParent}} c1")
            .ok(),
        parent
    );
    let made = left(&id);
    let trees = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert_eq!(made.lines().count(), trees.lines().count(), "{made}");
    assert!(
        made.lines()
            .all(|group| group.ends_with(&format!("{parent}/{id}")))
    );
    // A further command is there, too, and so is what `update` sets.
    store.line("exec -d c1 sleep 1000").ok();
    store.line("update -m 25m --memory-swap 50m c1").ok();
    let own = memory.join("sub").join(&id);
    let read = |file: &str| std::fs::read_to_string(own.join(file)).unwrap();
    assert_eq!(read("memory.limit_in_bytes"), "26214400\n");
    assert_eq!(read("cgroup.procs").lines().count(), 2);
    store.line("rm -f c1").ok();
    assert_eq!(left(&id), "");
    let parents = format!(
        "find /sys/fs/cgroup -maxdepth 3 -depth -type d -path '*/{top}*' -exec rmdir {{}} +"
    );
    mille_tests::program::shell(&parents);
}

#[test]
fn user_fuse_a_parent_of_others_is_refused() {
    let store = Store::with_busybox(Who::Ordinary);
    store
        .line("run --rm --cgroup-parent /mille-t bb true")
        .code(125)
        .says("unable to apply cgroup configuration: create control group /sys/fs/cgroup/")
        .says("systemd-run --user --scope -p Delegate=yes");
}

/// How much real time the control group of this process has in a period, in microseconds.
fn real_time_here() -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers
            .split(',')
            .any(|name| name == "cpu")
            .then_some(path)
    });
    let file = format!(
        "/sys/fs/cgroup/cpu{}/cpu.rt_runtime_us",
        own.unwrap_or_default()
    );
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

#[test]
fn root_fuse_real_time_is_limited() {
    let store = Store::with_busybox(Who::Root);
    let run = |name: &str| {
        let line = format!(
            "run -d --name {name} --cpu-rt-period 500000 --cpu-rt-runtime 10000 bb sleep 1000"
        );
        store.line(&line)
    };
    if real_time_here() < 100_000 {
        // A kernel without CONFIG_RT_GROUP_SCHED, or a group that was given no real time.
        run("c1")
            .code(125)
            .says("cpu.rt_runtime_us cannot be set to 10000: ");
        return;
    }
    for name in ["c1", "c2"] {
        run(name).ok();
        let read = "cd /sys/fs/cgroup/cpu; cat cpu.rt_period_us cpu.rt_runtime_us";
        let seen = store.mille(["exec", name, "sh", "-c", read]).ok();
        assert_eq!(seen, "500000\n10000");
    }
    store.line("update --cpu-rt-runtime 20000 c2").ok();
    let read = "exec c2 cat /sys/fs/cgroup/cpu/cpu.rt_runtime_us";
    assert_eq!(store.line(read).ok(), "20000");
    let format = "{{.HostConfig.CpuRealtimePeriod}} {{.HostConfig.CpuRealtimeRuntime}}";
    let seen = store.mille(["inspect", "-f", format, "c2"]).ok();
    assert_eq!(seen, "500000 20000");
}

#[test]
fn root_fuse_pids_are_limited() {
    let store = Store::with_busybox(Who::Root);
    let fork = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait";
    let seen = store.mille(["run", "--rm", "--pids-limit", "4", "bb", "sh", "-c", fork]);
    assert!(seen.err().contains("can't fork"), "{}", seen.err());
}

#[test]
fn root_fuse_groups_of_a_killed_monitor_are_cleared_by_the_next_command() {
    let store = Store::with_busybox(Who::Root);
    let id = store.line("run -d --name c1 -m 64m bb sleep 1000").ok();
    let state =
        std::fs::read_to_string(store.root().join("containers").join(&id).join("state.json"))
            .unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let monitor = i32::try_from(state["monitor"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(monitor),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    store.line("wait c1").ok();
    store.line("ps -a").ok();
    assert_eq!(left(&id), "");
    store.line("start c1").ok();
    assert!(!left(&id).is_empty());
    store.line("rm -f c1").ok();
    assert_eq!(left(&id), "");
}

#[test]
fn user_fuse_a_limit_that_cannot_be_set_is_an_error() {
    let store = Store::with_busybox(Who::Ordinary);
    store
        .line("run --rm -m 64m bb true")
        .code(125)
        .says("memory.limit_in_bytes cannot be set to 67108864")
        .says("systemd-run --user --scope -p Delegate=yes");
    assert_eq!(store.line("run --rm bb echo fine").ok(), "fine");
}

#[test]
fn root_fuse_settings_beside_limits() {
    let store = Store::with_busybox(Who::Root);
    let read = "cat /proc/self/oom_score_adj /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward";
    let seen = store.mille([
        "run",
        "--rm",
        "--network",
        "none",
        "--oom-score-adj",
        "500",
        "--sysctl",
        "kernel.msgmax=9000",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "bb",
        "sh",
        "-c",
        read,
    ]);
    assert_eq!(seen.ok(), "500\n9000\n1");
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    for (flag, kind, shared) in [
        (&[][..], "cgroup", false),
        (&["--cgroupns", "host"], "cgroup", true),
        (&["--ipc", "host"], "ipc", true),
        (&["--uts", "host"], "uts", true),
        (&["--pid", "host"], "pid", true),
        (&["--userns", "host"], "user", true),
        (&["--ipc", "none"], "ipc", false),
    ] {
        let link = format!("/proc/self/ns/{kind}");
        let command = ["bb", "readlink", &link];
        let words = ["run", "--rm"].iter().chain(flag).chain(&command);
        let seen = store.mille(words).ok();
        assert_eq!(
            seen == own(kind).to_str().unwrap(),
            shared,
            "{flag:?}: {seen}"
        );
    }
    // A namespace of its own, and no memory to share in it.
    let kept =
        "create --name kept --annotation a=b --isolation default --volume-driver local bb true";
    store.line(kept).ok();
    assert_eq!(
        store
            .mille(["inspect", "-f", "{{.HostConfig.Annotations.a}}", "kept"])
            .ok(),
        "b"
    );
    let list = ["run", "--rm", "--ipc", "none", "bb", "ls", "/dev"];
    let seen = store.mille(list).ok();
    assert!(seen.contains("mqueue") && !seen.contains("shm"), "{seen}");
    for (args, want) in [
        (
            &["--gpus", "all"][..],
            "mille: --gpus all: could not select device driver",
        ),
        (
            &["--isolation", "hyperv"],
            "mille: --isolation hyperv: only default is known here",
        ),
        (
            &["--storage-opt", "size=1g"],
            "mille: --storage-opt size=1g: the root has no size",
        ),
        (
            &["--use-api-socket"],
            "mille: --use-api-socket=true: there is no daemon",
        ),
        (
            &["--disable-content-trust=false"],
            "mille: --disable-content-trust=false: no image is ever verified",
        ),
        (
            &["--cpu-rt-period", "1000", "--cpu-rt-runtime", "2000"],
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ),
        (
            &["--memory-swappiness", "101"],
            "mille: invalid value: 101. Valid memory swappiness range is 0-100",
        ),
        (&["--shm-size", "-1"], "invalid size: '-1'"),
        (
            &["--ipc", "frob"],
            "Error response from daemon: Invalid IPC mode: frob",
        ),
        (
            &["-m", "5m"],
            "Error response from daemon: Minimum memory limit allowed is 6MB",
        ),
        (&["--cpus", "1000"], "Range of CPUs is from 0.01 to "),
        (
            &["--cpuset-cpus", "99"],
            "Requested CPUs are not available - requested 99, available: ",
        ),
        (
            &["--cpus", "abc"],
            "invalid argument \"abc\" for \"--cpus\" flag: failed to parse abc as a rational number",
        ),
        (
            &["-m", "abc"],
            "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'",
        ),
        (
            &["--oom-score-adj", "2000"],
            "Invalid value 2000, range for oom score adj is [-1000, 1000]",
        ),
        (
            &["--sysctl", "vm.swappiness=1"],
            "sysctl 'vm.swappiness=1' is not allowed",
        ),
        (
            &["--sysctl", "net.ipv4.ip_forward=1"],
            "net.ipv4.ip_forward",
        ),
        (&["--pid", "frob"], "mille: --pid: invalid PID mode"),
    ] {
        let words = ["run", "--rm"].iter().chain(args).chain(&["bb", "true"]);
        store.mille(words).code(125).says(want);
    }
}

#[test]
fn root_fuse_a_device_of_the_host_is_given() {
    devices(Who::Root);
}

#[test]
fn user_fuse_a_device_of_the_host_is_given() {
    devices(Who::Ordinary);
}

fn devices(who: Who) {
    let store = Store::with_busybox(who);
    let line = "stat -c '%F %t,%T' /dev/xzero /other/full; head -c 3 /dev/xzero | wc -c";
    let seen = store.mille([
        "run",
        "--rm",
        "--device",
        "/dev/zero:/dev/xzero",
        "--device",
        "/dev/full:/other/full:rwm",
        "bb",
        "sh",
        "-c",
        line,
    ]);
    assert_eq!(
        seen.ok(),
        "character special file 1,5\ncharacter special file 1,7\n3"
    );
    for (device, code, want) in [
        (
            "/nosuch",
            127,
            "while adding custom device \"/nosuch\": no such file or directory",
        ),
        (
            "/etc/passwd",
            125,
            "while adding custom device \"/etc/passwd\": not a device node",
        ),
        (
            "/dev/null:/dev/xnull:frob",
            125,
            "mille: bad mode specified: frob",
        ),
        (
            "/dev/null:r",
            125,
            "rights other than rwm (r) need a device control group",
        ),
    ] {
        store
            .mille(["run", "--rm", "--device", device, "bb", "true"])
            .code(code)
            .says(want);
    }
}
