//! Docker's own words: commands, output and exit codes recorded from a real engine (client 28.2, engine 20.10), which
//! `mille` is to repeat to the letter. The files of `tests/golden` hold
//!
//! ```text
//! ! command                a preparation; what it says does not matter
//! $ command                as typed, with `docker` standing for `mille`
//! its standard output
//! 2> its standard error
//! => its exit code
//! ```
//! Ids are `<id>`, `<dir>` is the directory of the test, and one blank stands for several. Where `mille` differs on purpose
//! README.md says so. Of the recording of builds nothing is here, since there is no build; of that of help texts what is
//! the same to the letter, else the names of the flags.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use mille_tests::{Outcome, Store, Who, program};

/// One recorded command.
#[derive(Debug, Default)]
struct Entry {
    command: String,
    out: Vec<String>,
    err: Vec<String>,
    /// None: a preparation.
    code: Option<i32>,
}

fn read(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ").or(line.strip_prefix("! ")) {
            entries.push(Entry {
                command: command.to_owned(),
                ..Entry::default()
            });
            continue;
        }
        let Some(entry) = entries.last_mut().filter(|entry| entry.code.is_none()) else {
            continue;
        };
        if let Some(code) = line.strip_prefix("=> ") {
            entry.code = Some(code.parse().unwrap());
        } else if let Some(text) = line.strip_prefix("2>") {
            entry
                .err
                .push(text.strip_prefix(' ').unwrap_or(text).to_owned());
        } else {
            entry.out.push(line.to_owned());
        }
    }
    entries
}

/// What does not depend on the run: ids, how often a blank is repeated, the name of the program.
fn plain(text: &str) -> Vec<String> {
    let lines = text.trim_matches('\n').lines();
    let plain = lines.map(|line| {
        let mut plain = String::new();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for part in line.split_inclusive(|c| !word(c)) {
            let end = part.trim_end_matches(|c| !word(c));
            let id = [12, 64].contains(&end.len())
                && end
                    .bytes()
                    .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
            plain.push_str(match end {
                _ if id => "<id>",
                "mille" => "docker",
                end => end,
            });
            let rest = &part[end.len()..];
            if rest != " " || !plain.ends_with(' ') {
                plain.push_str(rest);
            }
        }
        plain.trim_end().to_owned()
    });
    plain.collect()
}

/// A store with the image, and `docker` in the search path.
struct Stage(Store);

impl Stage {
    fn new() -> Self {
        let store = Store::with_busybox(Who::Root);
        let docker = store.file("docker");
        let (mille, root) = (store.program(), store.root().display().to_string());
        let script = format!("#!/bin/sh\nexec {} --root {root} \"$@\"\n", mille.display());
        std::fs::write(&docker, script).unwrap();
        std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
        Stage(store)
    }

    fn run(&self, command: &str) -> Outcome {
        let path = std::env::var("PATH").unwrap();
        let directory = self.0.file("");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .env("PATH", format!("{}:{path}", directory.display()))
            .env_remove("MILLE_ROOT")
            .current_dir(&directory);
        program::run(shell, b"")
    }
}

/// Runs all commands of a file and requires what was recorded.
fn repeats(text: &str) {
    let (stage, mut differences) = (Stage::new(), String::new());
    let directory = stage.0.file("").display().to_string();
    let directory = directory.trim_end_matches('/');
    for entry in read(text) {
        let outcome = stage.run(&entry.command);
        let Some(code) = entry.code else {
            continue;
        };
        let shown = |text: String| plain(&text.replace(directory, "<dir>"));
        let (out, err) = (shown(outcome.out()), shown(outcome.err()));
        if (&out, &err, outcome.code) != (&entry.out, &entry.err, code) {
            writeln!(
                differences,
                "$ {}\nwant {code} {:#?} {:#?}\ngot {} {out:#?} {err:#?}",
                entry.command, entry.out, entry.err, outcome.code
            )
            .unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

macro_rules! golden {
    ($($test:ident: $file:literal;)*) => {$(
        #[test]
        fn $test() {
            repeats(include_str!(concat!("../golden/", $file)));
        }
    )*};
}

golden! {
    ci_root_fuse_commit_is_dockers: "commit.txt";
    ci_root_fuse_copies_are_dockers: "cp.txt";
    ci_root_fuse_diff_is_dockers: "diff.txt";
    ci_root_fuse_exec_is_dockers: "exec.txt";
    ci_root_fuse_help_has_dockers_flags: "help.txt";
    ci_root_fuse_images_are_dockers: "images.txt";
    ci_root_fuse_inside_is_dockers: "inside.txt";
    ci_root_fuse_inspect_is_dockers: "inspect.txt";
    ci_root_fuse_life_cycle_is_dockers: "lifecycle.txt";
    ci_root_fuse_logs_are_dockers: "logs.txt";
    ci_root_fuse_odds_and_ends_are_dockers: "misc.txt";
    ci_root_fuse_ps_is_dockers: "ps.txt";
}

#[test]
fn what_depends_on_the_run_is_made_plain() {
    let id = "0123456789ab";
    for (given, want) in [
        (
            format!("mille: No such container: {id}\n"),
            "docker: No such container: <id>",
        ),
        (format!("{id}   bb   \"true\""), "<id> bb \"true\""),
        (
            format!("sha256:{}", id.repeat(6)[..64].to_owned()),
            "sha256:<id>",
        ),
        (
            "mille-x 0123456789AB deadbeef".to_owned(),
            "docker-x 0123456789AB deadbeef",
        ),
    ] {
        assert_eq!(plain(&given), [want]);
    }
}
