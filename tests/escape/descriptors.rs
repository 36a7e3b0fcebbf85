//! What is the launcher's: its program, its descriptors, its memory, its terminal.

use mille_tests::Store;

use crate::Verdict;
use crate::attack::{exec, image, running};

/// Tries to write to the program of a process, both by the link and by a descriptor of the file; says what came of it.
const OVERWRITE: &str = r#"exec 3< "$exe"; (: > "$exe"); (: > /proc/self/fd/3); true"#;

/// CVE-2019-5736. An image makes the launcher run inside the container, where it waits for a pipe that the image has in
/// place of its store, while another process goes for its file. That the file is busy (`ETXTBSY`) is not enough: it ends
/// with the last process that runs it.
pub(crate) fn program_of_the_host(store: &Store) -> Verdict {
    let script = "printf '#!/proc/self/exe images\n' > evil; chmod 755 evil; mkdir store; mkfifo store/format";
    image(store, script, &["ENV MILLE_ROOT=/store"]);
    store.line("run -d --name c1 evil /evil").ok();
    let run = overwrite(store, "c1");
    store.line("run -d --name c2 evil sleep 1000").ok();
    store.line("exec -d c2 /evil").ok();
    let exec = overwrite(store, "c2");
    // With O_TRUNC the mount is asked before the file, which is busy.
    let refused = |said: &str| said.matches("Read-only file system").count() == 2;
    Verdict::of(refused(&run) && refused(&exec), format!("{run}; {exec}"))
}

/// Looks in a container for the process that is the launcher, and goes for its file.
fn overwrite(store: &Store, container: &str) -> String {
    let script = format!(
        "while :; do for p in /proc/[0-9]*; do \
         grep -q image[s] $p/cmdline && exe=$p/exe && {{ {OVERWRITE}; }} 2>&1 && exit; done; done"
    );
    let words = ["exec", container, "timeout", "20", "sh", "-c", &script];
    store.mille(words).out()
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
