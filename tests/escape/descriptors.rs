//! What is the launcher's: its program, its descriptors, its memory, its terminal.

use mille_tests::Store;
use mille_tests::program::require;

use crate::Verdict;
use crate::attack::{exec, image, running};

/// Runs inside whatever program loads it: tries to write to that program, and says what came of it.
const LIBRARY: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void attack(void) {
    int reader = open("/proc/self/exe", O_RDONLY);
    int writer = open("/proc/self/exe", O_WRONLY | O_TRUNC);
    int first = writer < 0 ? errno : 0;
    char path[64];
    sprintf(path, "/proc/self/fd/%d", reader);
    writer = open(path, O_WRONLY | O_TRUNC);
    printf("errno %d %d\n", first, writer < 0 ? errno : 0);
    fflush(stdout);
    _exit(0);
}
"#;

/// `EROFS` both times: with `O_TRUNC` the mount is asked before the file, which is busy.
const READ_ONLY: &str = "errno 30 30";

/// CVE-2019-5736. An image makes the launcher run inside the container, with the image's libraries. That the file is
/// busy (`ETXTBSY`) is not enough: it ends with the last process that runs it.
pub(crate) fn program_of_the_host(store: &Store) -> Verdict {
    require("gcc", "gcc");
    std::fs::write(store.file("evil.c"), LIBRARY).unwrap();
    let script = "printf '#!/proc/self/exe\\n' > evil; chmod 755 evil; gcc -shared -fPIC -o evil.so ../evil.c; \
                  ldd \"$mille\" | grep -o '/[^ ]*' | while read -r file; do mkdir -p .${file%/*}; cp -L $file .$file; done";
    image(store, script, &["ENV LD_PRELOAD=/evil.so"]);
    let run = store.line("run --rm evil /evil").out();
    running(store, "evil");
    let exec = store.line("exec c1 /evil").out();
    Verdict::of(
        run == READ_ONLY && exec == READ_ONLY,
        format!("{run}; {exec}"),
    )
}

/// CVE-2019-5736, the direct way.
pub(crate) fn command_through_a_link_of_procfs(store: &Store) -> Verdict {
    let refused = |line: &str| {
        let outcome = store.line(line);
        // What exec finds wrong stands on standard output, as with docker.
        let said = outcome.err() + &outcome.out();
        said.contains("leads through a link of procfs")
    };
    running(store, "bb");
    Verdict::of(
        refused("run --rm bb /proc/self/exe") && refused("exec c1 /proc/self/exe"),
        "the launcher executes itself",
    )
}

/// CVE-2024-21626, first half: nothing but the three streams is open, whatever the launcher was started with.
pub(crate) fn leaked_descriptors(store: &Store) -> Verdict {
    // Whole: a container that holds its file system's own descriptors would never end.
    let start = "env -u MILLE_WEAKEN \"$mille\" run -d --name c1 bb sleep 1000";
    store.script(start).ok();
    let open = |command: &str| {
        let inherit = "for n in $(seq 20 40); do eval \"exec $n</\"; done";
        store
            .script(&format!("{inherit}; \"$mille\" {command} ls /proc/self/fd"))
            .out()
    };
    // 3 is the directory ls itself reads.
    let want = "0\n1\n2\n3";
    let exec = open("exec c1");
    Verdict::of(exec == want, exec).and(|| {
        let run = open("run --rm bb");
        Verdict::of(run == want, run)
    })
}

/// CVE-2024-21626, second half: a working directory is no descriptor.
pub(crate) fn working_directory_by_descriptor(store: &Store) -> Verdict {
    running(store, "bb");
    for number in 3..14 {
        let outcome = store.line(&format!("exec -w /proc/self/fd/{number} c1 pwd"));
        if outcome.code == 0 {
            return Verdict::Broken(format!("{number} is {}", outcome.out()));
        }
    }
    let run = store.line("run --rm -w /proc/self/fd/3 bb pwd");
    Verdict::of(run.code != 0, run.out())
}

/// CVE-2016-9962. Before it is the command, what joins a container holds a socket to the launcher.
pub(crate) fn looking_into_who_joins(store: &Store) -> Verdict {
    let watch = "while :; do for p in /proc/[0-9]*; do ls -l $p/fd; done 2>/dev/null | grep socket: >> /data/seen; done";
    store
        .mille(["run", "-d", "--name", "c1", "bb", "sh", "-c", watch])
        .ok();
    for _ in 0..8 {
        store.line("exec c1 true").ok();
    }
    let seen = exec(store, "cat /data/seen");
    Verdict::of(seen.is_empty(), seen)
}

/// CVE-2016-2568, CVE-2017-5226 and their like: what has the launcher's terminal for a controlling one can type into it
/// (`TIOCSTI`).
pub(crate) fn session_of_the_launcher(store: &Store) -> Verdict {
    running(store, "bb");
    // The sixth field is the session, 0 when it is none of this pid namespace.
    let session = |words: &[&str]| {
        let stat = ["cat", "/proc/self/stat"];
        let out = store.mille(words.iter().chain(&stat)).out();
        out.split(' ').nth(5).unwrap_or_default().to_owned()
    };
    let (run, exec) = (session(&["run", "--rm", "bb"]), session(&["exec", "c1"]));
    Verdict::of(run == "1" && exec != "0", format!("{run}; {exec}"))
}
