//! Starting, ending, and what dies with what.

use crate::kit::{Running, Tree, driver, eventually, is_alive, need_root, plan, run, streams};
use mille_sandbox::{ExitStatus, Failure, Outcome, Stdio};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};

const PREFIX: &str = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
                      container process: ";

#[test]
fn root_exit_codes_and_texts() {
    let tree = Tree::new();
    for (name, text) in [
        ("garbage", "garbage"),
        ("orphan", "#!/nosuch/interpreter\n"),
    ] {
        tree.write(&format!("bin/{name}"), text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(tree.path(&format!("bin/{name}")), mode).unwrap();
    }
    for (args, code, text) in [
        (&["true"][..], 0, ""),
        (&["false"], 1, ""),
        (&["sh", "-c", "exit 255"], 255, ""),
        (
            &["nosuchcmd"],
            127,
            "exec: \"nosuchcmd\": executable file not found in $PATH",
        ),
        (&[""], 127, "exec: \"\": executable file not found in $PATH"),
        (
            &["/nosuch/cmd"],
            127,
            "exec: \"/nosuch/cmd\": stat /nosuch/cmd: no such file or directory",
        ),
        (&["/etc"], 126, "exec: \"/etc\": permission denied"),
        (
            &["/etc/passwd"],
            126,
            "exec: \"/etc/passwd\": permission denied",
        ),
        (&["garbage"], 126, "exec /bin/garbage: exec format error"),
        (
            &["orphan"],
            127,
            "exec /bin/orphan: no such file or directory",
        ),
        (
            &["/proc/self/exe"],
            126,
            "exec: \"/proc/self/exe\": permission denied (leads through a link of procfs)",
        ),
    ] {
        let got = run(&tree.command(args));
        let want = if text.is_empty() {
            String::new()
        } else {
            format!("{PREFIX}{text}: unknown")
        };
        assert_eq!((got.code, got.err), (code, want), "{args:?}");
    }
}

#[test]
fn root_signals_are_128_and_more() {
    let tree = Tree::new();
    let got = tree.sh("sh -c 'kill -9 $$'; echo $?; kill -9 $$; echo alive");
    assert_eq!(
        got.out, "137\nalive\n",
        "process 1 does not hear its own signals"
    );
    let mut child =
        mille_sandbox::spawn(&plan(&tree.command(&["sleep", "100"])), Stdio::default()).unwrap();
    child.signal(Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), 137);
    assert_eq!(
        child.wait().unwrap(),
        ExitStatus::Signaled {
            signal: 9,
            core: false
        }
    );
    assert!(child.signal(Signal::SIGKILL).is_err());
}

#[test]
fn root_prepared_waits_and_dies_when_dropped() {
    let tree = Tree::new();
    let (io, out, _err) = streams();
    let plan = plan(&tree.spec("echo ran > /data/ran; echo out"));
    let prepared = mille_sandbox::prepare(&plan, io).unwrap();
    let pid = prepared.pid().as_raw();
    assert!(is_alive(pid));
    assert!(!tree.path("data/ran").exists());
    drop(prepared);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "it is reaped");
    assert_eq!(crate::kit::read_all(out), "");
    assert!(!tree.path("data/ran").exists());
}

#[test]
fn root_errors_leave_no_process() {
    let tree = Tree::new();
    let children = || {
        fs::read_to_string(format!(
            "/proc/self/task/{}/children",
            nix::unistd::gettid()
        ))
        .unwrap()
    };
    let before = children();
    for args in [&["nosuch"][..], &["/etc"]] {
        let error =
            mille_sandbox::prepare(&plan(&tree.command(args)), Stdio::default()).unwrap_err();
        assert_ne!(error.outcome(), Outcome::Other);
    }
    let mut spec = tree.command(&["true"]);
    spec.rootfs = tree.path("nosuch");
    let error = mille_sandbox::prepare(&plan(&spec), Stdio::default()).unwrap_err();
    assert!(
        matches!(&error.failure, Failure::System { path: Some(path), .. } if *path == spec.rootfs)
    );
    assert_eq!(children(), before);
}

#[test]
fn root_try_wait() {
    let tree = Tree::new();
    let mut child =
        mille_sandbox::spawn(&plan(&tree.command(&["sleep", "0.2"])), Stdio::default()).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    eventually("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap(), ExitStatus::Exited(0));
}

/// A process with many threads that allocate all the time must be able to start containers.
#[test]
fn root_many_threads_of_the_launcher() {
    need_root();
    let tree = Tree::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(std::hint::black_box(vec![0u8; 3000]));
                    drop(std::hint::black_box(std::env::var("PATH")));
                }
            });
        }
        let workers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| (0..40).all(|_| tree.sh("echo x").out == "x\n")))
            .collect();
        let done: Vec<_> = workers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(done.into_iter().all(Result::unwrap));
    });
}

/// A launcher in a process of its own, and the container's first process.
struct Launcher {
    process: Child,
    init: i32,
}

impl Launcher {
    fn start(tree: &Tree, options: &[&str], command: &[&str]) -> Self {
        need_root();
        let mut process = Command::new(driver())
            .env("SHOW_PID", "1")
            .args(options)
            .arg(tree.path(""))
            .args(command)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let init = line.trim().parse().unwrap();
        Self { process, init }
    }

    /// Returns the guard: the launcher's other child.
    fn guard(&self) -> i32 {
        let pid = self.process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let mut others = children
            .split_ascii_whitespace()
            .map(|child| child.parse::<i32>().unwrap())
            .filter(|child| *child != self.init);
        others.next().unwrap()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn root_container_dies_with_its_launcher() {
    let tree = Tree::new();
    let mut launcher = Launcher::start(&tree, &[], &["sh", "-c", "sleep 100 & sleep 100"]);
    let guard = launcher.guard();
    assert!(is_alive(launcher.init) && is_alive(guard));
    launcher.kill();
    eventually("the container's end", || !is_alive(launcher.init));
    eventually("the guard's end", || !is_alive(guard));
}

/// Executing a set-id program clears the death signal: the guard is what is left.
#[test]
fn root_set_id_container_dies_with_its_launcher() {
    let tree = Tree::new();
    fs::copy(tree.path("bin/busybox"), tree.path("bin/setid")).unwrap();
    fs::set_permissions(tree.path("bin/setid"), fs::Permissions::from_mode(0o4755)).unwrap();
    let mut launcher =
        Launcher::start(&tree, &["--user", "alice"], &["/bin/setid", "sleep", "100"]);
    launcher.kill();
    eventually("the container's end", || !is_alive(launcher.init));
}

/// Without its guard a container goes on, and still dies with its launcher by the death signal.
#[test]
fn root_container_without_guard() {
    let tree = Tree::new();
    let mut launcher = Launcher::start(&tree, &[], &["sleep", "100"]);
    let guard = nix::unistd::Pid::from_raw(launcher.guard());
    nix::sys::signal::kill(guard, Signal::SIGKILL).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(is_alive(launcher.init));
    launcher.kill();
    eventually("the container's end", || !is_alive(launcher.init));
}

#[test]
fn root_guard_holds_nothing_open() {
    let tree = Tree::new();
    let mut launcher = Launcher::start(&tree, &[], &["sleep", "100"]);
    let guard = launcher.guard();
    eventually("two descriptors", || {
        fs::read_dir(format!("/proc/{guard}/fd")).unwrap().count() == 2
    });
    for fd in fs::read_dir(format!("/proc/{guard}/fd")).unwrap() {
        let target = fs::read_link(fd.unwrap().path()).unwrap();
        assert!(target.to_string_lossy().contains("pidfd"), "{target:?}");
    }
    launcher.kill();
}

#[test]
fn root_started_thread_state_is_default() {
    let tree = Tree::new();
    let got = tree.sh("grep -E '^Sig(Blk|Ign)' /proc/self/status; umask");
    assert_eq!(
        got.out,
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0022\n"
    );
}

#[test]
fn root_cgroups_are_joined_before_their_namespace() {
    let tree = Tree::new();
    let group =
        std::path::PathBuf::from(format!("/sys/fs/cgroup/pids/mille-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let mut spec = tree.command(&["sleep", "100"]);
    spec.cgroup
        .get_or_insert_default()
        .procs_files
        .push(group.join("cgroup.procs"));
    let running = Running::start(&spec);
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(members.trim(), running.child.pid().to_string());
    let seen = running.exec("grep pids /proc/1/cgroup; ls /sys/fs/cgroup/pids/cgroup.procs");
    assert!(seen.out.contains(":pids:/\n"), "{seen:?}");
    drop(running);
    eventually("an empty group", || fs::remove_dir(&group).is_ok());
}
