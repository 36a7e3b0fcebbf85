//! What the shells are told may follow on a command line.

use mille_tests::{Store, Who};

fn completes(who: Who) {
    let store = Store::with_busybox(who);
    store.line("tag bb tools/box:v1").ok();
    store.line("create --name made bb true").ok();
    store.line("run -d --name runs bb sleep 1000").ok();
    store.line("volume create kept").ok();
    let ask = |line: &str| {
        let words = line.split(' ');
        let words = std::iter::once("__complete").chain(words);
        store.mille(words).ok().replace('\n', " ")
    };
    for (line, want) in [
        ("run ", "bb:latest tools/box:v1"),
        ("run --rm -it too", "tools/box:v1"),
        ("exec ", "runs"),
        ("start ", "made"),
        ("rm -f m", "made"),
        ("container stop ", "runs"),
        ("inspect ", "bb:latest made runs tools/box:v1"),
        ("volume rm ", "kept"),
        ("run --name ", ""),
        ("run --env-file ", ":files"),
        ("rena", "rename"),
    ] {
        assert_eq!(ask(line), want, "{line:?}");
    }
    // bash takes a colon for the end of a word; what it gets is the rest.
    let bash = r#"source <("$mille" completion bash); COMP_WORDS=("$mille" run tools/box : v); COMP_CWORD=4; _mille; echo "${COMPREPLY[@]}""#;
    assert_eq!(store.script(bash).ok(), "v1");
    let zsh = r#"compdef() { :; }; compadd() { shift; print -r -- "$@"; }; _files() { print -r -- files; }
        source <("$mille" completion zsh); words=("$mille" run tools/b); CURRENT=3; _mille
        words=("$mille" run --env-file ''); CURRENT=4; _mille"#;
    assert_eq!(
        store
            .script(&format!("zsh -fc '{}'", zsh.replace('\'', r"'\''")))
            .ok(),
        "tools/box:v1\nfiles"
    );
    let fish = r#"PATH="$(dirname "$mille"):$PATH" HOME=$PWD fish --no-config -c 'mille completion fish | source; complete -C "mille exec "; complete -C "mille run too"'"#;
    assert_eq!(store.script(fish).ok(), "runs\ntools/box:v1");
    store.line("rm -f made runs").ok();
}

#[test]
fn root_fuse_names_are_completed() {
    completes(Who::Root);
}

#[test]
fn user_fuse_names_are_completed() {
    completes(Who::Ordinary);
}

#[test]
fn scripts_are_for_three_shells() {
    let store = Store::new(Who::Root);
    for (shell, start) in [
        ("bash", "# source <(mille"),
        ("zsh", "#compdef mille"),
        ("fish", "# mille completion fish"),
    ] {
        let script = store.mille(["completion", shell]).ok();
        assert!(script.starts_with(start), "{script}");
    }
    store
        .line("completion csh")
        .code(1)
        .says("unknown shell \"csh\"");
}

#[test]
fn every_command_has_a_manual_page() {
    let store = Store::new(Who::Root);
    let directory = store.file("man");
    store.mille(["__man", directory.to_str().unwrap()]).ok();
    for page in ["mille.1", "mille-run.1", "mille-volume-create.1"] {
        let text = std::fs::read_to_string(directory.join(page)).unwrap();
        assert!(text.starts_with(".TH \"MILLE"), "{text}");
    }
}
