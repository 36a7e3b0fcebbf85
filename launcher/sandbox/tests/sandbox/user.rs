//! An ordinary user: the namespaces of id 1000 and up.

use crate::kit::{PublicDriver, Run, Tree, eventually, is_alive, ordinary_user, run_of};
use nix::unistd::User;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

/// A tree, a user who owns it, and the program.
struct Setting {
    tree: Tree,
    user: User,
    driver: PublicDriver,
}

impl Setting {
    fn new() -> Self {
        let (tree, user) = (Tree::new(), ordinary_user());
        tree.give_to(&user);
        Self {
            tree,
            user,
            driver: PublicDriver::new(),
        }
    }

    fn run(&self, options: &[&str], script: &str) -> Run {
        let root = self.tree.path("");
        let mut args = options.to_vec();
        args.extend([root.to_str().unwrap(), "sh", "-c", script]);
        self.driver.run(&self.user, &args)
    }

    /// Starts a container and returns its launcher and its first process.
    fn start(&self, mode: &str) -> (Child, i32) {
        let mut launcher = self
            .driver
            .command(&self.user)
            .env("SHOW_PID", "1")
            .args(["--rootless", mode])
            .arg(self.tree.path(""))
            .args(["sleep", "100"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        (launcher, line.trim().parse().unwrap())
    }
}

#[test]
fn user_range() {
    let setting = Setting::new();
    let got = setting.run(
        &["--rootless", "range"],
        "id; cat /proc/self/uid_map; touch /data/mine; grep CapEff /proc/self/status; echo x > /dev/null; ls /dev/pts; \
         echo $$; ls /proc/self/fd; touch /sys/fs/cgroup/x",
    );
    let want = "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n         0          0          1\n         \
                1          1      65536\nCapEff:\t00000000a80425fb\nptmx\n1\n0\n1\n2\n3\n";
    assert_eq!(got.out, want, "{}", got.err);
    assert!(got.err.contains("touch: /sys/fs/cgroup/x:"), "{got:?}");
    let owner = fs::metadata(setting.tree.path("data/mine")).unwrap().uid();
    assert_eq!(owner, setting.user.uid.as_raw());
}

#[test]
fn user_range_other_ids() {
    let setting = Setting::new();
    fs::set_permissions(
        setting.tree.path("tmp"),
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )
    .unwrap();
    let got = setting.run(
        &["--rootless", "range", "--user", "alice"],
        "id; touch /tmp/hers; grep CapEff /proc/self/status",
    );
    let want =
        "uid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice)\nCapEff:\t0000000000000000\n";
    assert_eq!(got.out, want, "{}", got.err);
    let owner = fs::metadata(setting.tree.path("tmp/hers")).unwrap().uid();
    let first = first_sub_id(&setting.user.name);
    assert_eq!(
        owner,
        first + 999,
        "id 1000 is the thousandth of the range, which starts at 1"
    );
}

/// A pipe of the user's own, as a monitor makes it, is given to the container's user.
#[test]
fn user_stdout_can_be_opened_again() {
    let setting = Setting::new();
    let driver = setting.driver.command(&setting.user);
    let mut command = Command::new(driver.get_program());
    let (own, rest): (Vec<_>, Vec<_>) = driver
        .get_args()
        .partition(|arg| arg.to_string_lossy().starts_with("--"));
    command
        .args(own)
        .args(["sh", "-c", "\"$@\" | cat", "sh"])
        .args(rest);
    command
        .args(["--rootless", "range", "--user", "alice"])
        .arg(setting.tree.path(""));
    command.args(["sh", "-c", "echo again > /dev/stdout"]);
    let got = run_of(command.output().unwrap());
    assert_eq!(got.out, "again\n", "{}", got.err);
}

fn first_sub_id(name: &str) -> u32 {
    let file = fs::read_to_string("/etc/subuid").unwrap();
    let line = file
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")))
        .unwrap();
    line.split(':').nth(1).unwrap().parse().unwrap()
}

#[test]
fn user_one_id() {
    let setting = Setting::new();
    let got = setting.run(
        &["--rootless", "one"],
        "id; cat /proc/self/uid_map; tty; touch /data/x",
    );
    assert!(got.out.starts_with("uid=0(root) gid=0(root)"), "{got:?}");
    assert!(
        got.out.contains("\n         0          0          1\n"),
        "{got:?}"
    );
    assert_eq!(got.err, "", "no warning about groups nobody asked for");
    let got = setting.run(&["--rootless", "one", "--user", "alice"], "id");
    assert_eq!(got.code, 125);
    assert!(got.err.contains("gid 1000 is not in the id map"), "{got:?}");
    let got = setting.run(&["--rootless", "one", "--group-add", "users"], "true");
    assert!(
        got.err
            .contains("warning: supplementary groups were not set"),
        "{got:?}"
    );
}

#[test]
fn user_terminal_and_network() {
    let setting = Setting::new();
    let got = setting.run(
        &["--rootless", "auto", "--tty", "--net-none"],
        "tty; ip -o link | wc -l; grep -c ' /sys sysfs ro' /proc/mounts",
    );
    assert_eq!(got.out, "/dev/pts/0\r\n1\r\n1\r\n", "{}", got.err);
}

/// The command line of an ordinary user is outside of every namespace and must get into his containers all the same.
#[test]
fn user_exec_from_outside() {
    for mode in ["range", "one"] {
        let setting = Setting::new();
        let (mut launcher, init) = setting.start(mode);
        let pid = init.to_string();
        let got = setting.driver.run(
            &setting.user,
            &[
                "--exec",
                &pid,
                "sh",
                "-c",
                "id -u; cat /proc/1/comm; grep CapEff /proc/self/status; ls /proc/self/fd",
            ],
        );
        assert_eq!(
            got.out, "0\nsleep\nCapEff:\t00000000a80425fb\n0\n1\n2\n3\n",
            "{mode}: {got:?}"
        );
        let got = setting
            .driver
            .run(&setting.user, &["--exec", &pid, "--tty", "tty"]);
        assert_eq!(got.out, "/dev/pts/0\r\n", "{mode}: {got:?}");
        if mode == "range" {
            let args = ["--exec", &pid, "--user", "alice", "id", "-u"];
            assert_eq!(setting.driver.run(&setting.user, &args).out, "1000\n");
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), nix::sys::signal::SIGKILL)
            .unwrap();
        assert_eq!(launcher.wait().unwrap().code(), Some(137));
    }
}

/// Returns the launcher itself, which is below `timeout`: the parent of the container's first process.
fn launcher_of(init: i32) -> nix::unistd::Pid {
    let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap();
    let parent = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_ascii_whitespace()
        .nth(1)
        .unwrap();
    nix::unistd::Pid::from_raw(parent.parse().unwrap())
}

/// What a launcher sees in its namespaces, another process of the user can see: and make a container there.
#[test]
fn user_joins_the_namespaces_of_a_launcher() {
    for (mode, want) in [
        ("range", "Some(Range { uids: 65537, gids: 65537 })\n"),
        ("one", "Some(OneId)\n"),
    ] {
        let setting = Setting::new();
        let (mut launcher, init) = setting.start(mode);
        let pid = launcher_of(init).to_string();
        let got = setting.run(&["--join", &pid], "id -u");
        assert_eq!(got.out, format!("{want}0\n"), "{got:?}");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), nix::sys::signal::SIGKILL)
            .unwrap();
        launcher.wait().unwrap();
    }
}

#[test]
fn user_container_dies_with_its_launcher() {
    let setting = Setting::new();
    let (mut launcher, init) = setting.start("range");
    nix::sys::signal::kill(launcher_of(init), nix::sys::signal::SIGKILL).unwrap();
    eventually("the container's end", || !is_alive(init));
    launcher.wait().unwrap();
}

/// Where the host's /proc is covered in part, the kernel refuses a new one.
#[test]
fn user_proc_ladder() {
    let setting = Setting::new();
    let driver = setting.driver.command(&setting.user);
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none /proc/sys && exec \"$@\"",
        "sh",
    ]);
    command.arg(driver.get_program()).args(driver.get_args());
    command
        .args(["--rootless", "auto"])
        .arg(setting.tree.path(""));
    command.args(["sh", "-c", "test -r /proc/self/status && echo works"]);
    let got = run_of(command.output().unwrap());
    assert_eq!((got.code, got.out.as_str()), (0, "works\n"), "{got:?}");
    assert!(
        got.err
            .starts_with("warning: /proc: a new one was refused, using"),
        "{got:?}"
    );
}

#[test]
fn user_without_a_range_is_told_how_to_get_one() {
    let (tree, driver) = (Tree::new(), PublicDriver::new());
    // In no passwd file and in no list of ranges.
    let nobody = User {
        uid: 54321.into(),
        gid: 54321.into(),
        ..ordinary_user()
    };
    let mut command = Command::new("setpriv");
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]);
    command.args(
        driver
            .command(&nobody)
            .get_args()
            .skip_while(|arg| *arg != "timeout"),
    );
    command
        .args(["--rootless", "range"])
        .arg(tree.path(""))
        .arg("true");
    let got = run_of(command.output().unwrap());
    assert_eq!(got.code, 125);
    let want = "/etc/subuid has no range for 54321: run `sudo usermod --add-subuids ";
    assert!(got.err.starts_with(want), "{got:?}");
}

#[test]
fn user_inspection() {
    let (user, driver) = (ordinary_user(), PublicDriver::new());
    let got = driver.run(&user, &["--inspect"]);
    for want in [
        "mode: None",
        "user_namespaces: Ok(",
        "proc_mount: Some(\n        Full",
        "name: Some(",
        "passthrough: NotRoot",
    ] {
        assert!(got.out.contains(want), "{want}: {got:?}");
    }
}

#[test]
fn root_inspection_tries_everything() {
    crate::kit::need_root();
    let report = mille_sandbox::host::inspect().unwrap();
    assert_eq!(report.mode, Some(mille_sandbox::outer::OuterMode::Root));
    assert!(report.user_namespaces.is_ok());
    assert_eq!(
        report.proc_mount,
        Some(mille_sandbox::host::ProcMount::Full)
    );
    assert_eq!(
        report.cgroup_control,
        mille_sandbox::host::CgroupControl::Root
    );
    assert!(matches!(
        report.newuidmap,
        mille_sandbox::host::Mapper::Usable(_)
    ));
}
