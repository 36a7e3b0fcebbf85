//! How many requests a rootless mount costs its user, told by the program itself, and what a start of a container does.
//! What every single operation may cost is in the union's own tests.

use std::path::Path;

use mille_tests::program::{self, built, require};
use mille_tests::{Store, Who, leftovers, tree};

/// Single system calls, each done once before it is counted, and again if somebody else's use of the machine made the
/// kernel forget meanwhile. `say` makes the server report.
const CALLS: &str = r#"
import os, signal, sys, time
server = int(sys.argv[1])

def reports():
    return [line for line in open("log") if "requests" in line]

def requests():
    n = len(reports())
    os.kill(server, signal.SIGUSR1)
    while len(reports()) == n or not open("log").read().endswith("\n"):
        time.sleep(0.001)
    pairs = [word.split("=") for word in reports()[-1].split()[2:]]
    return {kind: int(count) for kind, count in pairs if kind not in ("release", "forget")}

def read():
    fd = os.open("m/d/big", os.O_RDONLY)
    while os.read(fd, 1 << 16):
        pass
    os.close(fd)

def walk():
    for entry in os.scandir("m/d"):
        entry.stat()

def missing():
    assert not os.path.exists("m/d/missing")

def costs(name, work, most):
    for attempt in range(20):
        work()
        before = requests()
        work()
        after = requests()
        spent = {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] != before.get(kind, 0)}
        if sum(spent.values()) <= most:
            print(name, sum(spent.values()))
            return
    sys.exit(f"{name}: {spent}")

costs("stat", lambda: os.stat("m/d/big"), 0)
costs("missing", missing, 0)
costs("walk", walk, 0)
costs("read", read, 2)
fd = os.open("m/new", os.O_CREAT | os.O_WRONLY)
costs("write", lambda: os.write(fd, b"x"), 1)
"#;

#[test]
fn user_fuse_budget_of_a_rootless_mount() {
    let directory = tempfile::Builder::new()
        .prefix("mille-b-")
        .tempdir_in("/var/tmp")
        .unwrap();
    tree::set_mode(directory.path(), 0o755);
    Who::Ordinary.own(directory.path());
    let script = "mkdir -p l/d u w m; head -c 300000 /dev/zero > l/d/big; touch l/d/{a,b,c}\n\
                  \"$millefs\" -f -o lowerdir=l,upperdir=u,workdir=w m 2> log & server=$!\n\
                  for try in $(seq 1000); do mountpoint -q m && break; sleep 0.02; done\n\
                  status=0; /usr/bin/python3 -I -c \"$calls\" $server || status=$?\n\
                  fusermount3 -u m; wait $server; exit $status";
    let mut command = Who::Ordinary.command(Path::new("/bin/bash"));
    command
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory.path())
        .env("millefs", built("millefs"))
        .env("calls", CALLS);
    let seen = program::run(command, b"").ok();
    assert_eq!(seen, "stat 0\nmissing 0\nwalk 0\nread 1\nwrite 1");
    assert_eq!(leftovers::below(directory.path()), Vec::<String>::new());
}

/// The calls of one start that make something, in their order.
fn calls_of_a_start(store: &Store) -> Vec<String> {
    store
        .script(
            "strace -f -qq -o calls -e trace=execve,clone,mount,mknodat $mille run --rm bb true",
        )
        .ok();
    let calls = std::fs::read_to_string(store.file("calls")).unwrap();
    calls.lines().map(str::to_owned).collect()
}

#[test]
fn root_fuse_budget_of_a_start() {
    require("strace", "strace");
    let store = Store::with_busybox(Who::Root);
    let made_on_disk = |calls: &[String]| calls.iter().any(|call| call.contains("\"#whiteout\""));
    assert!(made_on_disk(&calls_of_a_start(&store)));
    let calls = calls_of_a_start(&store);
    // The disk has been tried out by the first.
    assert!(!made_on_disk(&calls), "{calls:#?}");
    // The program, once more from a sealed place, and the command.
    let executed = calls.iter().filter(|call| call.contains(" execve("));
    assert_eq!(executed.count(), 3, "{calls:#?}");
    // The container's processes are on their way before its root is mounted.
    let mounted = calls
        .iter()
        .position(|call| call.contains("\"fuse.mille\""));
    let before = &calls[..mounted.unwrap()];
    let process = |call: &String| call.split_whitespace().next().map(str::to_owned);
    let monitor = process(&calls[before.len()]);
    let forks = |call: &&String| process(call) == monitor && call.contains(" clone(");
    assert!(before.iter().any(|call| forks(&call)), "{calls:#?}");
}
