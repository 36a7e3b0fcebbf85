//! Names with a digest in them: nobody gets something else by a digest than what has it.

use std::io::{Cursor, Read};

use mille_store::{Digest, ImportOptions, LoadEvent, Reference, Source, Store};

use crate::kit::{store, tar_of};

/// A saved image as an OCI layout whose only name is `name`, with `DIGEST` in it standing for the manifest's.
fn layout(name: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let tar = tar_of(&[("a", "one")]);
    let options = ImportOptions::default();
    let id = store.import(Cursor::new(tar), &options).unwrap();
    let mut archive = Vec::new();
    let items = store.save_items(&[&id.to_string()]).unwrap();
    store.save(&items, &mut archive).unwrap();
    let mut members = Vec::new();
    for entry in tar::Archive::new(Cursor::new(archive)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if path == "index.json" {
            let mut index: serde_json::Value = serde_json::from_slice(&content).unwrap();
            let listed = &mut index["manifests"][0];
            let name = name.replace("DIGEST", listed["digest"].as_str().unwrap());
            listed["annotations"] =
                serde_json::json!({ "org.opencontainers.image.ref.name": name });
            content = index.to_string().into_bytes();
        }
        if entry.header().entry_type().is_file() && path != "manifest.json" {
            members.push((path, content));
        }
    }
    let members: Vec<_> = members
        .iter()
        .map(|(path, content)| (path.as_str(), content))
        .collect();
    tar_of(&members)
}

fn load(store: &Store, archive: Vec<u8>) -> Result<Vec<String>, String> {
    let mut events: Vec<LoadEvent> = Vec::new();
    let source = Source::Stream(Box::new(Cursor::new(archive)));
    store
        .load(source, &mut |event| events.push(event))
        .map_err(|error| error.to_string())?;
    Ok(events.iter().map(ToString::to_string).collect())
}

#[test]
fn the_digest_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let other = Digest::of(b"something else");
    for name in ["ghcr.io/a/b:1", "ghcr.io/a/b"] {
        let error = load(&store, layout(&format!("{name}@{other}"))).unwrap_err();
        assert!(
            error.starts_with("index.json: ") && error.contains(&other.to_string()),
            "{error}"
        );
        assert!(store.images().unwrap().is_empty());
    }
}

#[test]
fn the_right_digest_is_taken_and_not_written_into_another_archive() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let lines = load(&store, layout("ghcr.io/a/b:1@DIGEST")).unwrap();
    let [line] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    let name = line.strip_prefix("Loaded image: ").unwrap();
    assert!(Reference::parse(name).unwrap().digest().is_some(), "{name}");
    // The manifest that is saved is a new one, with another digest.
    let mut archive = Vec::new();
    let items = store.save_items(&[name]).unwrap();
    store.save(&items, &mut archive).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = crate::kit::store(elsewhere.path());
    let lines = load(&elsewhere, archive).unwrap();
    assert_eq!(lines, ["Loaded image: ghcr.io/a/b:1"]);
}

#[test]
fn dockers_part_of_an_archive_has_no_digests_to_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let digest = Digest::of(b"something else");
    let manifest = serde_json::json!([{
        "Config": "c.json", "RepoTags": [format!("a:1@{digest}")], "Layers": []
    }]);
    let config =
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let members = [
        ("manifest.json", manifest.to_string()),
        ("c.json", config.to_owned()),
    ];
    let error = load(&store, tar_of(&members)).unwrap_err();
    assert_eq!(error, "refusing to create a tag with a digest reference");
    assert!(store.images().unwrap().is_empty());
}
