//! More commands in a running container.

use crate::kit::{Running, Tree, exec_spec, run_exec};
use mille_sandbox::Failure;
use nix::sys::signal::Signal;

const PREFIX: &str = "OCI runtime exec failed: exec failed: unable to start container process: ";

fn sleeping(tree: &Tree) -> Running {
    let mut spec = tree.command(&["sleep", "100"]);
    spec.hostname = Some("box".to_owned());
    spec.network = mille_sandbox::Network::None;
    Running::start(&spec)
}

#[test]
fn root_exec_is_in_every_namespace() {
    let tree = Tree::new();
    let running = sleeping(&tree);
    let got = running.exec(
        "for n in mnt pid uts ipc net cgroup time user; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) \
         ] || echo $n; done; hostname; ls -d /data; cat /proc/1/comm",
    );
    assert_eq!(got.out, "box\n/data\nsleep\n", "{got:?}");
    let got = running.exec("grep ^Cap /proc/self/status");
    assert!(got.out.contains("CapEff:\t00000000a80425fb"), "{got:?}");
    assert!(got.out.contains("CapInh:\t0000000000000000"), "{got:?}");
}

#[test]
fn root_exec_texts() {
    let tree = Tree::new();
    let running = sleeping(&tree);
    for (args, text) in [
        (
            &["nosuchcmd"][..],
            "exec: \"nosuchcmd\": executable file not found in $PATH",
        ),
        (
            &["/nosuch/cmd"],
            "exec: \"/nosuch/cmd\": stat /nosuch/cmd: no such file or directory",
        ),
        (&["/etc"], "exec: \"/etc\": permission denied"),
        (&["--"], "exec: \"--\": executable file not found in $PATH"),
    ] {
        let got = running.exec_spec(&exec_spec(args));
        assert_eq!(
            (got.code, got.err),
            (126, format!("{PREFIX}{text}: unknown"))
        );
    }
    for (cwd, want) in [
        (
            "/nosuch",
            format!(
                "{PREFIX}chdir to cwd (\"/nosuch\") set in config.json failed: no such file or directory: unknown"
            ),
        ),
        (
            "rel",
            "OCI runtime exec failed: exec failed: Cwd must be an absolute path: unknown"
                .to_owned(),
        ),
    ] {
        let mut spec = exec_spec(&["pwd"]);
        spec.cwd = cwd.into();
        assert_eq!(running.exec_spec(&spec).err, want);
    }
    for (user, want) in [
        (
            "nosuch",
            "unable to find user nosuch: no matching entries in passwd file",
        ),
        (
            "alice:nosuch",
            "unable to find group nosuch: no matching entries in group file",
        ),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
    ] {
        let mut spec = exec_spec(&["true"]);
        spec.user = user.to_owned();
        assert_eq!(running.exec_spec(&spec).err, want);
    }
}

#[test]
fn root_exec_codes() {
    let tree = Tree::new();
    let running = sleeping(&tree);
    for (script, code) in [("exit 5", 5), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(running.exec(script).code, code, "{script}");
    }
}

#[test]
fn root_exec_user_terminal_and_privileges() {
    let tree = Tree::new();
    let running = sleeping(&tree);
    let mut spec = exec_spec(&["sh", "-c", "tty; id; pwd; echo $HOME"]);
    spec.terminal = true;
    spec.user = "alice".to_owned();
    spec.cwd = "/data".into();
    let want = "/dev/pts/0\r\nuid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice)\r\n/data\r\n/home/alice\r\n";
    assert_eq!(running.exec_spec(&spec).out, want);
    let mut spec = exec_spec(&["grep", "CapEff", "/proc/self/status"]);
    spec.privileged = true;
    let all = rustix::thread::capabilities(None).unwrap().permitted.bits();
    assert_eq!(
        running.exec_spec(&spec).out,
        format!("CapEff:\t{all:016x}\n")
    );
}

/// Names in /dev/pts that the container has changed do not matter: the terminal is a descriptor.
#[test]
fn root_exec_terminal_with_hostile_dev() {
    let tree = Tree::new();
    let running = sleeping(&tree);
    let got = running.exec("rm /dev/ptmx /dev/console; ln -s /etc/passwd /dev/console; echo ok");
    assert_eq!(got.out, "ok\n");
    let mut spec = exec_spec(&["tty"]);
    spec.terminal = true;
    assert_eq!(running.exec_spec(&spec).out, "/dev/pts/0\r\n");
}

#[test]
fn root_exec_of_what_has_ended() {
    let tree = Tree::new();
    let mut running = sleeping(&tree);
    let pid = running.child.pid();
    running.child.signal(Signal::SIGKILL).unwrap();
    let status = running.child.wait().unwrap();
    assert_eq!(status.code(), 137);
    std::mem::forget(running);
    let (io, _out, _err) = crate::kit::streams();
    let error = mille_sandbox::exec(pid, &exec_spec(&["true"]), io).unwrap_err();
    assert_eq!(error.failure, Failure::NotRunning);
    assert_eq!(
        run_exec(pid, &exec_spec(&["true"])).err,
        "container is not running"
    );
}

/// The end of the container is the end of everything in it. (The kernel tells of the first process's end only when every
/// other process of the pid namespace has been reaped, so the others come first.)
#[test]
fn root_exec_dies_with_the_container() {
    let tree = Tree::new();
    let running = sleeping(&tree);
    let (io, _out, _err) = crate::kit::streams();
    let mut more =
        mille_sandbox::exec(running.child.pid(), &exec_spec(&["sleep", "100"]), io).unwrap();
    running.child.signal(Signal::SIGKILL).unwrap();
    assert_eq!(more.wait().unwrap().code(), 137);
}
