//! How many system calls the server makes for a request: what it costs beside the request itself, in numbers that no
//! machine's noise touches.

use std::path::Path;

use mille_tests::program::{self, built};
use mille_tests::{Who, leftovers};

/// Made, written, changed and removed, or looked up, so many times; the marks are names that the server looks for in vain.
const WORK: &str = r#"
import os, sys
TIMES = 200

def times(name, work):
    os.path.exists("m/begin-" + name)
    for i in range(TIMES):
        work(i)
    os.path.exists("m/end-" + name)

def cycle(i):
    fd = os.open(f"m/new/{i}", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, b"x")
    os.close(fd)
    os.unlink(f"m/new/{i}")

os.mkdir("m/new")
times("cycle", cycle)
times("lookup", lambda i: os.stat(f"m/deep/f{i}"))
times("chmod", lambda i: os.chmod(f"m/made/{i}", 0o600))
"#;

/// Calls between two marks, without those that take requests and answer them, or look
/// for the next one and where the caller runs.
fn calls(log: &str, name: &str) -> Vec<String> {
    let mark = |end: &str| format!("\"{end}-{name}\"");
    let (begin, end) = (mark("begin"), mark("end"));
    // Only the thread that looks at the pace of requests sleeps.
    let keeper = log.lines().find(|line| line.contains(" clock_nanosleep("));
    let keeper = keeper.and_then(|line| line.split(' ').next());
    let serves = |line: &&str| line.split(' ').next() != keeper;
    let between = log
        .lines()
        .skip_while(|line| !line.contains(&begin))
        .take_while(|line| !line.contains(&end))
        .filter(serves);
    let call = |line: &str| {
        let rest = line.split_once(' ')?.1.trim_start();
        let (call, _) = rest.split_once('(')?;
        let transport = [
            "<", "read", "writev", "poll", "ppoll", "sched_", "futex", "madvise", "mprotect",
            "brk", "mmap", "munmap", // A debug build's look at what it closes.
            "fcntl",
        ];
        let own =
            !transport.iter().any(|other| call.starts_with(other)) && !rest.contains("\"/proc/");
        own.then(|| call.to_owned())
    };
    between.filter_map(call).collect()
}

#[test]
fn root_fuse_system_calls_of_a_request() {
    let directory = tempfile::Builder::new()
        .prefix("mille-c-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let script = "mkdir -p u w m l{0..19}/deep l0/made; touch l0/deep/f{0..199} l0/made/{0..199}; for l in {1..19}; do touch l$l/deep/own$l; done
                  strace -f -qq -s 64 -o log \"$millefs\" -f -o lowerdir=$(echo l{19..0} | tr ' ' :),upperdir=u,workdir=w,metacopy=on m & server=$!
                  for try in $(seq 1000); do mountpoint -q m && break; sleep 0.02; done
                  status=0; touch m/made/{0..199}; /usr/bin/python3 -I -c \"$work\" || status=$?
                  umount m; wait $server; exit $status";
    let mut command = Who::Root.command(Path::new("/bin/bash"));
    command
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory.path())
        .env("millefs", built("millefs"))
        .env("work", WORK);
    program::run(command, b"").ok();
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    // For all 200, and some for what is done once or again because the kernel has forgotten something.
    for (name, each) in [("cycle", 14), ("lookup", 4), ("chmod", 8)] {
        let calls = calls(&log, name);
        let most = each * 200 + 500;
        assert!(
            calls.len() <= most,
            "{name}: {} instead of {most}\n{:?}",
            calls.len(),
            &calls[calls.len() / 2..][..40]
        );
        assert!(calls.len() >= 100, "{name}: {}", calls.len());
    }
    assert_eq!(leftovers::below(directory.path()), Vec::<String>::new());
}
