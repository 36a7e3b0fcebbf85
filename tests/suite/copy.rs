//! `cp`, row by row by docker's table, into and out of containers that run and that do not, and what a hostile container
//! can make of it.

use std::os::unix::fs::{PermissionsExt, symlink};

use mille_tests::{Outcome, Store, Who};

/// Makes the source tree on the machine.
fn source_tree(store: &Store) {
    let script = "umask 022; mkdir -p s/dir/sub s/empty s/dirup; echo file > s/file; chmod 640 s/file; ln s/file s/hard
        echo in > s/dir/in; echo deep > s/dir/sub/deep; ln -s in s/dir/rel; ln -s /data s/dir/abs; chmod 2750 s/dir
        ln -s ../file s/dirup/up; ln -s nowhere s/lbroken; ln -s dir s/ldir; ln -s file s/lfile; mkfifo s/fifo";
    store.script(script).code(0);
}

/// An image `base` whose /d is docker's tree of destinations, and whose /s is the source tree.
fn base(store: &Store) {
    let script = "mkdir -p /d/ex /d/dir; echo x > /d/exfile; echo o > /d/dir/old; mkdir -p /data; echo s > /data/seed; ln -sf /data /datalink; ln -s ex /d/lex; ln -s exfile /d/lexfile
        ln -s missing /d/lmiss";
    store
        .mille(["run", "--name", "tt", "bb", "sh", "-c", script])
        .ok();
    source_tree(store);
    store.line("cp s tt:/s").ok();
    store.line("commit tt base").ok();
    store.line("rm tt").ok();
}

/// What `diff` says beyond the directories that were there.
fn changed(store: &Store, name: &str) -> String {
    let diff = store.line(&format!("diff {name}")).ok();
    let lines = diff
        .lines()
        .filter(|line| !["C /d", "C /d/ex", "C /d/dir", "C /data"].contains(line));
    let mut lines: Vec<_> = lines.collect();
    lines.sort_unstable();
    lines.join(" ")
}

/// The rules are the same for everybody: an ordinary user is shown a part of the table.
fn step(who: Who) -> usize {
    if who == Who::Root { 1 } else { 4 }
}

const DIR: &str = "A @ A @/abs A @/in A @/rel A @/sub A @/sub/deep";
const CONTENTS: &str = "A @/abs A @/in A @/rel A @/sub A @/sub/deep";

#[test]
fn root_fuse_copies_into_a_container_follow_dockers_table() {
    into_a_container(Who::Root);
}

#[test]
fn user_fuse_copies_into_a_container_follow_dockers_table() {
    into_a_container(Who::Ordinary);
}

fn into_a_container(who: Who) {
    let store = Store::with_busybox(who);
    base(&store);
    let missing = |path: &str| {
        format!("Error response from daemon: Could not find the file {path} in container ct")
    };
    let at = |pattern: &str, path: &str| Ok(pattern.replace('@', path));
    let says = |text: &str| Err(text.to_owned());
    let rows = [
        ("s/file ct:/d/new", at("A @", "/d/new")),
        ("s/file ct:/d/exfile", at("C @", "/d/exfile")),
        ("s/file ct:/d/ex", at("A @", "/d/ex/file")),
        ("s/file ct:/d/ex/.", at("A @", "/d/ex/file")),
        ("s/file ct:/d/new/", says("no such directory")),
        ("s/file ct:/d/exfile/", says("no such directory")),
        ("s/file ct:/d/nodir/x", Err(missing("/d/nodir"))),
        ("s/file ct:/d/lex", at("A @", "/d/ex/file")),
        ("s/file ct:/d/lexfile", at("C @", "/d/exfile")),
        ("s/file ct:/d/lmiss", at("A @", "/d/missing")),
        ("s/file ct:/", at("A @", "/file")),
        ("s/file ct:", says("no such directory")),
        ("s/file ct:d/new", at("A @", "/d/new")),
        ("s/dir ct:/d/new", at(DIR, "/d/new")),
        ("s/dir ct:/d/new/", at(DIR, "/d/new")),
        ("s/dir ct:/d/new/.", Err(missing("/d/new"))),
        ("s/dir ct:/d/ex", at(DIR, "/d/ex/dir")),
        ("s/dir ct:/d/dir", at(DIR, "/d/dir/dir")),
        ("s/dir ct:/d/exfile", says("cannot copy directory")),
        ("s/dir ct:/d/nodir/x", Err(missing("/d/nodir"))),
        ("s/dir ct:/d/lmiss", at(DIR, "/d/missing")),
        ("s/dir/. ct:/d/new", at(DIR, "/d/new")),
        ("s/dir/. ct:/d/ex", at(CONTENTS, "/d/ex")),
        ("s/dir/. ct:/d/exfile", says("cannot copy directory")),
        ("s/dir/ ct:/d/ex", at(DIR, "/d/ex/dir")),
        ("s/lfile ct:/d/ex", at("A @", "/d/ex/lfile")),
        ("s/lfile/ ct:/d/new", says("not a directory")),
        ("s/ldir ct:/d/ex", at("A @", "/d/ex/ldir")),
        ("s/ldir/ ct:/d/ex", at(DIR, "/d/ex/ldir")),
        ("s/ldir/. ct:/d/ex", at(CONTENTS, "/d/ex")),
        ("-L s/ldir ct:/d/new", at(DIR, "/d/new")),
        ("s/lbroken ct:/d/ex", at("A @", "/d/ex/lbroken")),
        (
            "-L s/lbroken ct:/d/ex",
            says("s/nowhere: no such file or directory"),
        ),
        ("s/fifo ct:/d/ex", at("A @", "/d/ex/fifo")),
        ("s/dirup ct:/d/ex", at("A @ A @/up", "/d/ex/dirup")),
        ("s/dirup/. ct:/d/ex", says("/ex/up\" -> \"../file\"")),
        (
            "s/nosuch ct:/d",
            says("s/nosuch: no such file or directory"),
        ),
        ("s/file ct:/datalink/x", at("A @", "/data/x")),
    ];
    for (arguments, want) in rows.into_iter().step_by(step(who)) {
        store.line("create --name ct base true").ok();
        let outcome = store.line(&format!("cp {arguments}"));
        match want {
            Ok(want) => {
                outcome.ok();
                assert_eq!(changed(&store, "ct"), want, "{arguments}");
            }
            Err(text) => drop(outcome.code(1).says(&text)),
        }
        store.line("rm ct").ok();
    }
    // Owners, modes and times are kept; hard links stay links; the tree runs afterwards.
    store.line("create --name ct base sh -c id").ok();
    store.line("cp s ct:/n").ok();
    store.line("commit ct copied").ok();
    let script = "cd /n; stat -c '%a %h' file hard; stat -c %a dir; readlink dir/rel; test -p fifo; stat -c %Y file";
    let seen = store
        .mille(["run", "--rm", "copied", "sh", "-c", script])
        .ok();
    let time = std::fs::metadata(store.file("s/file"))
        .unwrap()
        .modified()
        .unwrap();
    let seconds = time
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert_eq!(seen, format!("640 2\n640 2\n2750\nin\n{seconds}"));
}

#[test]
fn root_fuse_copies_out_of_a_container_follow_dockers_table() {
    out_of_a_container(Who::Root);
}

#[test]
fn user_fuse_copies_out_of_a_container_follow_dockers_table() {
    out_of_a_container(Who::Ordinary);
}

fn out_of_a_container(who: Who) {
    let store = Store::with_busybox(who);
    base(&store);
    store.line("create --name cs base true").ok();
    let fresh = "rm -rf out; mkdir -p out/ex out/dir; echo x > out/exfile; echo o > out/dir/old; ln -s ex out/lex
        ln -s exfile out/lexfile; ln -s missing out/lmiss";
    // What is new, or was a file of one byte more.
    let list = "find out -mindepth 1 ! -path out/ex ! -path out/dir ! -path out/dir/old ! -type l -o -path '*/abs' -o \
                -path '*/rel' -o -name lfile -o -name ldir -o -name lbroken -o -name up | sort | tr '\\n' ' '";
    let missing = |path: &str| {
        format!("Error response from daemon: Could not find the file {path} in container cs")
    };
    let dir = "@ @/abs @/in @/rel @/sub @/sub/deep";
    let contents = "@/abs @/in @/rel @/sub @/sub/deep";
    let at = |pattern: &str, path: &str| Ok(pattern.replace('@', path));
    let says = |text: &str| Err(text.to_owned());
    let rows = [
        ("cs:/s/file out/new", at("@", "out/new")),
        ("cs:/s/file out/exfile", Ok(String::new())),
        ("cs:/s/file out/ex", at("@", "out/ex/file")),
        ("cs:/s/file out/ex/", at("@", "out/ex/file")),
        ("cs:/s/file out/new/", says("no such directory")),
        (
            "cs:/s/file out/exfile/",
            says("out/exfile/: not a directory"),
        ),
        ("cs:/s/file out/nodir/x", says("out/nodir\" does not exist")),
        ("cs:/s/file out/lex", at("@", "out/ex/file")),
        ("cs:/s/file out/lmiss", at("@", "out/missing")),
        ("cs:/s/file out", at("@", "out/file")),
        ("cs:/s/dir out/new", at(dir, "out/new")),
        ("cs:/s/dir out/new/", at(dir, "out/new")),
        ("cs:/s/dir out/ex", at(dir, "out/ex/dir")),
        ("cs:/s/dir out/exfile", says("cannot copy directory")),
        ("cs:/s/dir/. out/new", at(dir, "out/new")),
        ("cs:/s/dir/. out/ex", at(contents, "out/ex")),
        ("cs:/s/lfile out/ex", at("@", "out/ex/lfile")),
        ("-L cs:/s/lfile out/new", at("@", "out/new")),
        ("cs:/s/ldir/ out/ex", at(dir, "out/ex/ldir")),
        ("-L cs:/s/lbroken out/ex", Err(missing("/s/nowhere"))),
        ("cs:/s/dirup/. out/ex", says("/ex/up\" -> \"../file\"")),
        ("cs:/datalink/seed out/ex", at("@", "out/ex/seed")),
        ("cs:/../../s/file out/ex", at("@", "out/ex/file")),
        ("cs:/nosuch out", Err(missing("/nosuch"))),
        ("cs:/s/file/ out", says("not a directory")),
        (
            "cs: out",
            says("Error response from daemon: bad parameter: pathcannot be empty"),
        ),
        (
            "nosuch:/x out",
            says("Error response from daemon: No such container: nosuch"),
        ),
        (
            "cs:/s/file cs:/d",
            says("copying between containers is not supported"),
        ),
        (
            "s/file out",
            says("must specify at least one container source"),
        ),
        ("- -", says("must specify at least one container source")),
    ];
    for (arguments, want) in rows.into_iter().step_by(step(who)) {
        store.script(fresh).code(0);
        let outcome = store.line(&format!("cp {arguments}"));
        match want {
            Ok(want) => {
                outcome.ok();
                let found = store.script(list).out();
                let found = found.replace("out/exfile ", "");
                assert_eq!(found.trim(), want, "{arguments}");
            }
            Err(text) => drop(outcome.code(1).says(&text)),
        }
    }
    // All of it belongs to the caller, with the modes of the container.
    store.script(fresh).code(0);
    store.line("cp -a cs:/s out/new").ok();
    let owner = who.account().map_or(0, |account| account.uid);
    let facts = store.script("stat -c '%u %a %h' out/new/file out/new/hard out/new/dir/sub");
    assert_eq!(
        facts.out(),
        format!("{owner} 640 2\n{owner} 640 2\n{owner} 755 2")
    );
    let usage = store.line("cp cs:/s/file").code(1);
    usage.says("mille: 'mille cp' requires 2 arguments\n\nUsage:  mille cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tmille cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH");
}

#[test]
fn root_fuse_copies_as_streams() {
    streams(Who::Root);
}

#[test]
fn user_fuse_copies_as_streams() {
    streams(Who::Ordinary);
}

fn streams(who: Who) {
    let store = Store::with_busybox(who);
    base(&store);
    store.line("create --name ct base true").ok();
    let run = |script: &str| -> Outcome { store.script(script) };
    let names = |path: &str| {
        run(&format!("$mille cp ct:{path} - | tar tf - | tr '\\n' ' '"))
            .out()
            .trim()
            .to_owned()
    };
    assert_eq!(
        names("/s/dir"),
        "dir/ dir/abs dir/in dir/rel dir/sub/ dir/sub/deep"
    );
    assert_eq!(names("/s/dir/."), "./ ./abs ./in ./rel ./sub/ ./sub/deep");
    assert_eq!(names("/s/lfile"), "lfile");
    for (script, want) in [
        ("tar -C s -c dir file | $mille cp - ct:/d/ex", "dir/in:file"),
        (
            "rm -rf got; tar -C s -cz dir file | $mille cp -a - ct:/d/dir",
            "dir/in:file",
        ),
    ] {
        run(script).code(0);
        let place = script.rsplit(':').next().unwrap();
        for name in want.split(':') {
            let found = names(&format!("{place}/{name}"));
            assert_eq!(found, name.rsplit('/').next().unwrap(), "{script}");
        }
    }
    run("tar -C s -c file | $mille cp - ct:/d/new")
        .code(1)
        .says("destination \"ct:/d/new\" must be a directory");
    run("echo garbage | $mille cp - ct:/d/ex")
        .code(1)
        .says("Error response from daemon: Error processing tar file(exit status 1): ");
    run("$mille cp - ct:/d/ex < /dev/null").code(0);
}

#[test]
fn root_fuse_copies_of_a_running_container() {
    running(Who::Root);
}

#[test]
fn user_fuse_copies_of_a_running_container() {
    running(Who::Ordinary);
}

fn running(who: Who) {
    let store = Store::with_busybox(who);
    source_tree(&store);
    let vol = store.file("vol");
    std::fs::create_dir(&vol).unwrap();
    std::fs::set_permissions(&vol, std::fs::Permissions::from_mode(0o777)).unwrap();
    let bind = format!("{0}:/vol -v {0}:/ro:ro", vol.display());
    store
        .line(&format!("run -d --name cr -v {bind} bb sleep 1000"))
        .ok();
    store.line("cp s/file cr:/made").ok();
    assert_eq!(store.line("exec cr cat /made").ok(), "file");
    store.line("exec cr sh -c cat</made>/data/here").ok();
    store.line("cp cr:/made back").ok();
    assert_eq!(
        std::fs::read_to_string(store.file("back")).unwrap(),
        "file\n"
    );
    store.line("cp s/file cr:/vol/cp").ok();
    assert_eq!(store.line("exec cr cat /vol/cp").ok(), "file");
    assert!(vol.join("cp").exists());
    store
        .line("cp s/file cr:/ro/x")
        .code(1)
        .says("Error response from daemon: mounted volume is marked read-only");
    for path in ["/proc/version", "/proc/self/status", "/sys/kernel/mm"] {
        store
            .line(&format!("cp cr:{path} out"))
            .code(1)
            .says(&format!(
                "Error response from daemon: Could not find the file {path} in container cr"
            ));
    }
    store
        .line("cp s/file cr:/etc/hosts")
        .code(1)
        .says("unlinkat /etc/hosts: device or resource busy");
    // A paused container takes copies too; one that does not run has its volumes all the same.
    store.line("pause cr").ok();
    store.line("cp s/file cr:/paused").ok();
    store.line("unpause cr").ok();
    assert_eq!(store.line("exec cr cat /paused").ok(), "file");
    store.line("stop -t 0 cr").ok();
    store.line("cp s/file cr:/vol/after").ok();
    assert!(vol.join("after").exists());
    store
        .line("run -d --name cro --read-only bb sleep 1000")
        .ok();
    store
        .line("cp s/file cro:/x")
        .code(1)
        .says("Error response from daemon: container rootfs is marked read-only");
}

#[test]
fn root_fuse_a_container_cannot_lead_a_copy_out_of_itself() {
    hostile(Who::Root);
}

#[test]
fn user_fuse_a_container_cannot_lead_a_copy_out_of_itself() {
    hostile(Who::Ordinary);
}

fn hostile(who: Who) {
    let store = Store::with_busybox(who);
    source_tree(&store);
    let outside = store.file("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    let path = outside.display().to_string();
    let up = format!("/..{}", "/..".repeat(30));
    let script = format!(
        "ln -s {path} /abs; ln -s {up}{path} /up; ln -s {path}/secret /file; ln -s /proc/1/root /magic; mkdir /d
         ln -s {path} /d/in; ln -s {path}/new /new"
    );
    for running in [true, false] {
        let name = if running { "cr" } else { "cs" };
        store
            .mille(
                ["run", "-d", "--name", name, "bb", "sh", "-c"]
                    .into_iter()
                    .chain([format!("{script}; touch /ready; exec sleep 1000").as_str()]),
            )
            .ok();
        let start = std::time::Instant::now();
        while store.line(&format!("exec {name} test -e /ready")).code != 0 {
            assert!(start.elapsed() < std::time::Duration::from_secs(60));
        }
        if !running {
            store.line(&format!("stop -t 0 {name}")).ok();
        }
        for target in [
            "/abs", "/abs/", "/abs/x", "/up/x", "/new", "/d/in/x", "/magic/x",
        ] {
            // Refused or made inside: never outside.
            store.line(&format!("cp s/file {name}:{target}"));
            store.line(&format!("cp s {name}:{target}"));
        }
        let kept: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        for source in [
            "/abs/secret",
            "/up/secret",
            "/d/in/secret",
            "/magic/etc/shadow",
        ] {
            store.line(&format!("cp {name}:{source} got")).code(1);
            store.line(&format!("cp -L {name}:{source} got")).code(1);
        }
        store.line(&format!("cp -L {name}:/file got")).code(1);
        // A link that is copied as a link is no way out either: the second copy replaces it.
        store.line(&format!("cp {name}:/file got")).ok();
        assert!(store.file("got").symlink_metadata().unwrap().is_symlink());
        std::fs::remove_file(store.file("got")).unwrap();
        // What is in the way in the container is taken away, not followed.
        let trap = store.file("trap");
        std::fs::create_dir_all(&trap).unwrap();
        std::fs::write(trap.join("in"), "mine").unwrap();
        who.own(&trap);
        store.line(&format!("cp trap/. {name}:/d")).ok();
        assert_eq!(
            std::fs::read_to_string(outside.join("secret")).unwrap(),
            "secret"
        );
        assert!(!outside.join("in").exists());
    }
    // A tar that tries the same.
    let evil = store.file("evil");
    std::fs::create_dir(&evil).unwrap();
    symlink(&outside, evil.join("link")).unwrap();
    let script = "cd evil; tar -cf ../evil.tar link; mkdir x; echo y > x/y; tar -rf ../evil.tar --transform 's,x/y,link/y,' x/y
        tar -rf ../evil.tar -P --transform 's,x/y,../../../../y,' x/y; cd ..; $mille cp - cs:/d < evil.tar";
    who.own(&evil);
    store.script(script);
    assert!(!outside.join("y").exists());
}
