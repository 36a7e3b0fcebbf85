//! What a terminal shows of long operations, and that nothing of it is written anywhere else.

use mille_tests::{Store, Who};

const LOAD: &str = "$mille load -i save.tar";
const IMPORT: &str = "$mille import bb.tar again";
const SAVE: &str = "$mille save -o save.tar bb";
const EXPORT: &str = "$mille export -o export.tar work";

/// What comes at a terminal of the command's own.
fn at_a_terminal(store: &Store, line: &str) -> String {
    let script = format!("export TERM=xterm mille; script -qec '{line}' /dev/null </dev/null");
    store.script(&script).ok().replace(['\r', '\n'], " ")
}

/// Requires that the command shows these words at a terminal, and nothing on any other standard error.
#[track_caller]
fn shows(store: &Store, line: &str, words: &[&str]) {
    let shown = at_a_terminal(store, line);
    for word in words {
        assert!(shown.contains(word), "{line}: no {word:?} in {shown}");
    }
    assert!(!shown.contains("MiB"), "{line}: {shown}");
    let plain = store.script(line);
    assert_eq!(plain.err(), "", "{line}");
    plain.ok();
}

#[test]
fn root_fuse_bars_are_drawn_on_terminals_only() {
    let store = Store::with_busybox(Who::Root);
    store.line("create --name work bb true").ok();
    shows(&store, SAVE, &["Writing ", "[", "MB"]);
    shows(&store, EXPORT, &["Writing export.tar", "MB"]);
    // A layer that is there already is not written to the disk again.
    for (line, archive, words) in [
        (
            LOAD,
            "save.tar",
            ["Extracting ", "[", "MB", "Writing to disk"],
        ),
        (
            IMPORT,
            "bb.tar",
            ["Extracting import", "[", "MB", "Writing to disk"],
        ),
    ] {
        let other = Store::new(Who::Root);
        std::fs::copy(store.file(archive), other.file(archive)).unwrap();
        shows(&other, line, &words);
    }
}
