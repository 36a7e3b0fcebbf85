//! Archives that are cut off or altered anywhere: every one is refused by an error that names a member, and the store is
//! as it was.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use mille_store::{Error, ImportOptions, Reference, Source, Store};
use proptest::prelude::*;

use crate::kit::{store, tar_of};

const BLOCK: usize = 512;

/// The members of an archive of one image with two layers, docker's and OCI's at once.
fn members() -> BTreeMap<String, Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let options = ImportOptions {
        name: Some(Reference::parse("bb:1").unwrap()),
        ..ImportOptions::default()
    };
    let layer = tar_of(&[("a", &[b'a'; 700][..]), ("d/b", b"two")]);
    store.import(Cursor::new(layer), &options).unwrap();
    let mut archive = Vec::new();
    let items = store.save_items(&["bb:1"]).unwrap();
    store.save(&items, &mut archive).unwrap();
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(Cursor::new(archive)).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.insert(path, content);
        }
    }
    members
}

fn pack(members: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let files: Vec<_> = members
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    tar_of(&files)
}

/// The archive as docker 1.10 to 24 wrote it: a directory for each layer, nothing of OCI's.
fn of_old_docker(members: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&members["manifest.json"]).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let (config, layer) = (
        text(&manifest[0]["Config"]),
        text(&manifest[0]["Layers"][0]),
    );
    manifest[0]["Config"] = "image.json".into();
    manifest[0]["Layers"][0] = "1234/layer.tar".into();
    BTreeMap::from([
        ("image.json".into(), members[&config].clone()),
        ("1234/VERSION".into(), b"1.0".to_vec()),
        ("1234/layer.tar".into(), members[&layer].clone()),
        ("manifest.json".into(), manifest.to_string().into_bytes()),
    ])
}

fn of_oci(members: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut members = members.clone();
    members.remove("manifest.json").unwrap();
    members.remove("repositories");
    members
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn load(store: &Store, source: Source) -> Result<(), Error> {
    store.load(source, &mut |_| {}).map(drop)
}

fn stream(bytes: Vec<u8>) -> Source {
    Source::Stream(Box::new(Cursor::new(bytes)))
}

/// The error with all its causes.
fn text_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Requires that `store` is empty and that the error says where the fault is.
fn refused(store: &Store, outcome: Result<(), Error>, what: &str) {
    let text = text_of(&outcome.expect_err(what));
    let places = [
        "archive",
        "blobs/",
        "json",
        "layer",
        "oci-layout",
        "1234/",
        "repositories",
    ];
    assert!(
        places.iter().any(|place| text.contains(place)),
        "{what}: nothing is named: {text}"
    );
    assert!(store.images().unwrap().is_empty(), "{what}: an image");
    assert!(store.fsck(&[]).unwrap().findings.is_empty(), "{what}: fsck");
    let staging = std::fs::read_dir(store.root().join("staging")).unwrap();
    assert_eq!(staging.count(), 0, "{what}: staging");
}

#[test]
fn an_archive_cut_off_at_any_block_is_refused() {
    let all = members();
    for (name, archive) in [
        ("docker's and OCI's", pack(&all)),
        ("old docker's", pack(&of_old_docker(&all))),
        ("OCI's", pack(&of_oci(&all))),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        // Up to the end mark, which is two blocks of nothing.
        let content = archive.len() - 2 * BLOCK;
        for at in (0..content).step_by(BLOCK) {
            for at in [at, at + 1, at + BLOCK - 1] {
                let outcome = load(&store, stream(archive[..at].to_vec()));
                refused(&store, outcome, &format!("{name} cut at {at}"));
            }
        }
        load(&store, stream(archive)).unwrap();
        assert!(store.fsck(&[]).unwrap().findings.is_empty());
    }
}

#[test]
fn a_compressed_archive_cut_off_anywhere_is_refused() {
    let archive = pack(&members());
    let zstd = zstd::encode_all(Cursor::new(&archive), 1).unwrap();
    for (name, packed) in [("gzip", gzip(&archive)), ("zstd", zstd)] {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let step = (packed.len() / 40).max(1);
        let ends = [packed.len() - 1, packed.len() - 9];
        for at in (0..packed.len()).step_by(step).chain(ends) {
            let outcome = load(&store, stream(packed[..at].to_vec()));
            refused(&store, outcome, &format!("{name} cut at {at}"));
        }
        load(&store, stream(packed)).unwrap();
    }
}

#[test]
fn a_directory_with_a_member_cut_off_is_refused() {
    let all = members();
    for (kind, members) in [("OCI", of_oci(&all)), ("docker", of_old_docker(&all))] {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory.path().join("store"));
        let layout = directory.path().join("layout");
        for (name, content) in &members {
            let path = layout.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let load = || load(&store, Source::Dir(layout.clone()));
        for (name, content) in &members {
            // What says only of which version something is, or is a layer's end mark, may be missing.
            if matches!(name.as_str(), "oci-layout" | "1234/VERSION") {
                continue;
            }
            let path = layout.join(name);
            for at in (0..content.len()).step_by(BLOCK) {
                std::fs::write(&path, &content[..at]).unwrap();
                refused(&store, load(), &format!("{kind}: {name} cut at {at}"));
            }
            std::fs::remove_file(&path).unwrap();
            refused(&store, load(), &format!("{kind}: {name} missing"));
            std::fs::write(&path, content).unwrap();
        }
        load().unwrap();
        assert!(store.fsck(&[]).unwrap().findings.is_empty());
    }
}

#[test]
fn a_bare_tar_cut_off_anywhere_is_not_imported() {
    let layer = tar_of(&[("a", &[b'a'; 700][..]), ("d/b", b"two")]);
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    for at in (1..layer.len() - 2 * BLOCK).step_by(BLOCK / 2) {
        let outcome = store.import(Cursor::new(&layer[..at]), &ImportOptions::default());
        assert!(outcome.is_err(), "cut at {at}");
        assert!(store.fsck(&[]).unwrap().findings.is_empty(), "cut at {at}");
        assert!(store.images().unwrap().is_empty(), "cut at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever bytes are altered: the archive is refused, or what is stored is whole.
    #[test]
    fn an_altered_archive_does_not_spoil_the_store(changes in prop::collection::vec((0usize..1 << 20, any::<u8>()), 1..4)) {
        static ARCHIVE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut archive = ARCHIVE.get_or_init(|| pack(&members())).clone();
        for (at, byte) in changes {
            let at = at % archive.len();
            archive[at] = byte;
        }
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let outcome = load(&store, stream(archive));
        prop_assert!(store.fsck(&[]).unwrap().findings.is_empty());
        prop_assert_eq!(outcome.is_ok(), !store.images().unwrap().is_empty());
    }
}
