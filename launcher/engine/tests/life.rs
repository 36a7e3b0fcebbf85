//! The life of a container through the library, as root, on a busybox tree. Needs /dev/fuse and busybox-static.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what went wrong by failing"
)]

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mille_engine::{
    ClientIo, CommitOptions, CreateOptions, DifferenceKind, Ended, Engine, EngineOptions, Error,
    ExecOptions, HostConfig, LogOptions, RemoveOptions, StartOptions, Status, StopOptions, Streams,
};
use mille_store::ImportOptions;
use mille_store::config::ContainerConfig;

/// A store of its own with one image, `bb`; at the end nothing may be mounted below it.
struct House {
    directory: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let house = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let tree = house.directory.path().join("tree");
        std::fs::create_dir_all(tree.join("bin")).unwrap();
        std::fs::create_dir_all(tree.join("etc")).unwrap();
        std::fs::copy("/bin/busybox", tree.join("bin/busybox"))
            .expect("busybox-static is installed");
        for applet in [
            "sh", "cat", "echo", "sleep", "ls", "rm", "mkdir", "true", "head", "yes",
        ] {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        std::fs::write(tree.join("etc/issue"), "busybox\n").unwrap();
        let tar = Command::new("tar")
            .arg("-C")
            .arg(&tree)
            .args(["-c", "."])
            .output()
            .unwrap();
        let options = ImportOptions {
            name: Some("bb".parse().unwrap()),
            ..ImportOptions::default()
        };
        house
            .engine()
            .store()
            .import(tar.stdout.as_slice(), &options)
            .unwrap();
        house
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn engine(&self) -> Engine {
        let options = EngineOptions {
            root: Some(self.root()),
            ..EngineOptions::default()
        };
        Engine::open(options).unwrap()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = self.root();
        let left: Vec<_> = mounts
            .lines()
            .filter(|line| line.contains(root.to_str().unwrap()))
            .collect();
        assert!(left.is_empty() || std::thread::panicking(), "{left:?}");
    }
}

fn options(name: &str, command: &[&str]) -> CreateOptions {
    CreateOptions {
        name: Some(name.to_owned()),
        image: "bb".to_owned(),
        config: ContainerConfig {
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            ..ContainerConfig::default()
        },
        host_config: HostConfig::default(),
    }
}

const ALL: Streams = Streams {
    stdin: false,
    stdout: true,
    stderr: true,
};

fn client<'fd>(stdout: &'fd impl AsFd) -> ClientIo<'fd> {
    ClientIo {
        stdin: None,
        stdout: Some(stdout.as_fd()),
        stderr: None,
        terminal: false,
        detach_keys: Vec::new(),
        forward_signals: false,
    }
}

/// Runs a container to its end and returns what it wrote.
fn run(engine: &Engine, options: CreateOptions) -> (Ended, String) {
    let id = engine.create(options).unwrap();
    let session = engine
        .start(&id, StartOptions { attach: Some(ALL) })
        .unwrap()
        .unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let ended = session.run(&client(&writer)).unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (ended, text)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn root_fuse_run_diff_commit_and_run_again() {
    let house = House::new();
    let engine = house.engine();
    let script = "echo out; echo x > /new; rm /etc/issue; exit 3";
    let (ended, text) = run(&engine, options("work", &["sh", "-c", script]));
    assert_eq!((ended, text.as_str()), (Ended::Exited(3), "out\n"));
    let container = engine.find("work").unwrap();
    assert_eq!(
        (container.state.status, container.state.exit_code),
        (Status::Exited, 3)
    );
    let lines: Vec<_> = engine.diff(&container.id).unwrap();
    let lines: Vec<_> = lines
        .iter()
        .map(|line| (line.kind, line.path.to_str().unwrap()))
        .collect();
    let want = [
        (DifferenceKind::Changed, "/etc"),
        (DifferenceKind::Deleted, "/etc/issue"),
        (DifferenceKind::Added, "/new"),
    ];
    assert_eq!(lines, want);
    let commit = CommitOptions {
        reference: Some("bb2".parse().unwrap()),
        ..CommitOptions::default()
    };
    engine.commit(&container.id, &commit).unwrap();
    let again = CreateOptions {
        image: "bb2".into(),
        ..options("again", &["sh", "-c", "cat /new; ls /etc"])
    };
    let (_, text) = run(&engine, again);
    assert_eq!(text, "x\nhostname\nhosts\nmtab\nresolv.conf\n");
    let mut log = String::new();
    let mut sink = |line: &mille_engine::LogLine| {
        log.push_str(&line.text);
        Ok(())
    };
    engine
        .logs(&container.id, &LogOptions::default(), &mut sink)
        .unwrap();
    assert_eq!(log, "out\n");
}

#[test]
fn root_fuse_a_commit_of_nothing_makes_no_layer() {
    let house = House::new();
    let engine = house.engine();
    let id = engine.create(options("idle", &["true"])).unwrap();
    let image = engine.commit(&id, &CommitOptions::default()).unwrap();
    let image = engine.store().image(&image).unwrap();
    assert_eq!(image.layers.len(), 1);
    assert!(image.config.history.last().unwrap().empty_layer);
    assert!(engine.fsck().unwrap().findings.is_empty());
}

#[test]
fn root_fuse_start_errors_are_recorded_and_worded() {
    let house = House::new();
    let engine = house.engine();
    let id = engine.create(options("bad", &["nosuch"])).unwrap();
    let error = engine.start(&id, StartOptions::default()).unwrap_err();
    let text = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container \
                process: exec: \"nosuch\": executable file not found in $PATH: unknown";
    assert_eq!(
        (error.to_string().as_str(), error.run_exit_code()),
        (text, 127)
    );
    let state = engine.find("bad").unwrap().state;
    assert_eq!(
        (state.status, state.exit_code, state.error.as_str()),
        (Status::Created, 127, text)
    );
    assert_eq!(state.started_at, mille_engine::NEVER);
}

#[test]
fn root_fuse_exec_stop_and_remove() {
    let house = House::new();
    let engine = house.engine();
    let id = engine.create(options("box", &["sleep", "1000"])).unwrap();
    let exec = ExecOptions {
        command: ["sh", "-c", "echo inside; exit 5"].map(Into::into).to_vec(),
        ..ExecOptions::default()
    };
    let (mut reader, writer) = std::io::pipe().unwrap();
    let error = engine.exec(&id, &exec, &client(&writer)).unwrap_err();
    assert_eq!(error.to_string(), format!("Container {id} is not running"));
    engine.start(&id, StartOptions::default()).unwrap();
    engine.start(&id, StartOptions::default()).unwrap();
    assert_eq!(engine.exec(&id, &exec, &client(&writer)).unwrap(), 5);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "inside\n");
    let remove = RemoveOptions::default();
    assert!(matches!(
        engine.remove(&id, remove),
        Err(Error::RemoveRunning { .. })
    ));
    let stop = StopOptions {
        timeout_seconds: Some(0),
        ..StopOptions::default()
    };
    engine.stop(&id, &stop).unwrap();
    assert_eq!(engine.wait(&id).unwrap(), 137);
    engine.remove(&id, remove).unwrap();
    assert!(engine.containers().unwrap().is_empty());
}

/// `--rm` and `rm -f` take the same container away at the same time.
#[test]
fn root_fuse_a_container_that_removes_itself_can_be_removed() {
    let house = House::new();
    let engine = house.engine();
    let force = RemoveOptions {
        force: true,
        ..RemoveOptions::default()
    };
    for _ in 0..5 {
        let mut options = options("brief", &["sleep", "1000"]);
        options.host_config.auto_remove = true;
        let id = engine.create(options).unwrap();
        engine.start(&id, StartOptions::default()).unwrap();
        engine.remove(&id, force).unwrap();
        wait_until("the container is gone", || {
            engine.containers().unwrap().is_empty()
        });
    }
}

#[test]
fn root_fuse_a_killed_monitor_is_swept() {
    let house = House::new();
    let engine = house.engine();
    for (name, auto_remove) in [("kept", false), ("gone", true)] {
        let mut options = options(name, &["sleep", "1000"]);
        options.host_config.auto_remove = auto_remove;
        let id = engine.create(options).unwrap();
        engine.start(&id, StartOptions::default()).unwrap();
        let init = engine.find(name).unwrap().state.pid;
        let monitor = monitor(&house.root(), id.as_str());
        kill(monitor);
        wait_until("the container dies with its monitor", || !runs(init));
        // The container may be dead before the last thread of its monitor has let go of the lock.
        wait_until("the monitor is gone", || {
            !runs(monitor) && threads(monitor) < 2
        });
    }
    let engine = house.engine();
    assert!(matches!(
        engine.find("gone"),
        Err(Error::NoSuchContainer(_))
    ));
    let state = engine.find("kept").unwrap().state;
    assert_eq!((state.status, state.exit_code), (Status::Exited, 137));
    let id = engine.find("kept").unwrap().id;
    engine.start(&id, StartOptions::default()).unwrap();
    let force = RemoveOptions {
        force: true,
        volumes: false,
    };
    engine.remove(&id, force).unwrap();
}

/// Reads who the monitor of a container is.
fn monitor(root: &Path, id: &str) -> i32 {
    let state = std::fs::read(root.join("containers").join(id).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    i32::try_from(state["monitor"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Threads of a process that the kernel still knows; one that waits to be reaped has one.
fn threads(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Whether a process executes anything; one that nobody has reaped yet does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn root_fuse_a_client_that_leaves_does_not_hold_the_container() {
    let house = House::new();
    let engine = house.engine();
    let script = "head -c 4000000 /dev/zero; echo end > /end; sleep 1000";
    let id = engine
        .create(options("loud", &["sh", "-c", script]))
        .unwrap();
    let session = engine
        .start(&id, StartOptions { attach: Some(ALL) })
        .unwrap()
        .unwrap();
    // Never read: the queue runs full, and then the client goes away.
    std::thread::sleep(Duration::from_millis(300));
    drop(session);
    let upper = house
        .root()
        .join("containers")
        .join(id.as_str())
        .join("upper/end");
    wait_until("the container goes on", || upper.exists());
    let force = RemoveOptions {
        force: true,
        volumes: false,
    };
    engine.remove(&id, force).unwrap();
}
