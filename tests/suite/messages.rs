//! Errors say where the fault is and what helps.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use mille_tests::{Store, Who};

#[test]
fn root_archives_are_named_and_what_is_cut_off_is_called_so() {
    let store = Store::with_busybox(Who::Root);
    store.line("save -o good.tar bb").ok();
    let bytes = std::fs::read(store.file("good.tar")).unwrap();
    std::fs::create_dir(store.file("empty")).unwrap();
    let other = Store::new(Who::Root);
    let cases: [(&str, &[u8], &str); 4] = [
        ("nothing", b"", "cut off"),
        ("short", b"noise", "cut off"),
        ("half", &bytes[..bytes.len() / 2], "cut off"),
        ("noise", &[b'x'; 4096], "tar"),
    ];
    for (name, content, word) in cases {
        let file = other.file(name);
        std::fs::write(&file, content).unwrap();
        let outcome = other.line(&format!("load -i {}", file.display())).code(1);
        outcome.says(&format!("{}: ", file.display())).says(word);
    }
    other
        .line(&format!("load -i {}", store.file("empty").display()))
        .code(1)
        .says(&format!(
            "{}: not an image archive",
            store.file("empty").display()
        ));
    // Before the first entry there is none to name.
    let outcome = other.line("import noise x").code(1);
    let text = outcome.err();
    assert!(
        text.contains("at byte 0") && !text.contains("after"),
        "{text}"
    );
}

#[test]
fn root_a_store_on_a_read_only_file_system_gets_the_advice_of_others() {
    let store = Store::with_busybox(Who::Root);
    for line in ["run --rm bb true", "tag bb other", "volume create vol"] {
        let script = format!(
            "mount --bind root root && mount -o remount,ro,bind root && cd . && $mille {line}"
        );
        let outcome = store.script(&format!("unshare -m bash -c '{script}'"));
        assert_ne!(outcome.code, 0, "{line}");
        let text = outcome.err();
        let advice = "choose another place with --root or MILLE_ROOT";
        assert!(text.contains(advice), "{line}: {text}");
        assert_eq!(text.matches("Read-only").count(), 1, "{line}: {text}");
    }
}

#[test]
fn root_fuse_a_layer_without_its_files_is_called_damage() {
    let store = Store::with_busybox(Who::Root);
    store.script("rm -r root/layers/*/tree").ok();
    store
        .line("run --rm bb true")
        .code(125)
        .says("the store is damaged: `mille fsck`");
    store
        .line("save -o saved.tar bb")
        .code(1)
        .says("is damaged: ");
    assert!(!store.file("saved.tar").exists());
    assert_ne!(store.line("fsck").code, 0);
    store.line("rmi bb").ok();
    store.line("import bb.tar bb").ok();
    store.line("run --rm bb true").ok();
}

#[test]
fn root_the_machines_own_root_is_called_no_image() {
    let store = Store::new(Who::Root);
    for line in [
        "save -o x.tar @host",
        "rmi @host",
        "tag @host other",
        "inspect @host",
        "history @host",
    ] {
        store
            .line(line)
            .code(1)
            .says("@host is the root of this machine, not an image");
    }
}

#[test]
fn root_arguments_that_are_not_unicode_are_named() {
    let store = Store::new(Who::Root);
    store
        .mille([OsStr::new("images"), OsStr::from_bytes(b"caf\xe9")])
        .code(125)
        .says("the argument \"caf\u{fffd}\" is not valid UTF-8");
}

#[test]
fn root_the_host_is_no_container_to_commit() {
    Store::new(Who::Root)
        .line("commit @host kept")
        .code(1)
        .says("@host is the root of this machine, not a container: run something on it")
        .says("and commit NAME");
}
