//! The life of images in a store: import, names, save, load elsewhere, removal, damage.

use std::io::{Cursor, Read, Write};

use mille_layer::index::{Record, Writer};
use mille_store::{
    Error, ImageId, ImageUse, ImportOptions, LoadError, LoadEvent, Reference, RemoveOptions,
    Removed, ResolveError, SaveItem, Severity, Source, Store,
};

use crate::kit::{store, tar_of, try_store};

fn import(store: &Store, name: &str, files: &[(&str, &str)]) -> ImageId {
    let options = ImportOptions {
        name: Some(Reference::parse(name).unwrap()),
        ..ImportOptions::default()
    };
    store.import(Cursor::new(tar_of(files)), &options).unwrap()
}

fn save(store: &Store, names: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    store
        .save(&store.save_items(names).unwrap(), &mut out)
        .unwrap();
    out
}

fn load(store: &Store, archive: Vec<u8>) -> Result<Vec<LoadEvent>, Error> {
    let mut events = Vec::new();
    store.load(
        Source::Stream(Box::new(Cursor::new(archive))),
        &mut |event| events.push(event),
    )?;
    Ok(events)
}

#[test]
fn an_image_goes_elsewhere_and_back_with_the_same_bytes() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here, there) = (store(here.path()), store(there.path()));
    let id = import(&here, "bb:1", &[("a", "one"), ("d/b", "two")]);
    let archive = save(&here, &["bb:1"]);
    assert_eq!(
        archive,
        save(&here, &["bb:1"]),
        "two saves of one image differ"
    );
    let events = load(&there, archive.clone()).unwrap();
    assert_eq!(
        events.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Loaded image: bb:1"]
    );
    assert_eq!(there.resolve("bb:1").unwrap(), id);
    assert_eq!(there.image(&id).unwrap().raw, here.image(&id).unwrap().raw);
    assert_eq!(save(&there, &["bb:1"]), archive);
    assert!(there.fsck(&[]).unwrap().findings.is_empty());
    // Saved by id: no name in it.
    let nameless = save(&here, &[&id.short()]);
    let third = tempfile::tempdir().unwrap();
    let third = store(third.path());
    assert_eq!(load(&third, nameless).unwrap(), [LoadEvent::LoadedId(id)]);
}

#[test]
fn ids_are_told_only_of_an_archive_without_any_name() {
    let here = tempfile::tempdir().unwrap();
    let here = store(here.path());
    let (a, b) = (
        import(&here, "a:1", &[("a", "1")]),
        import(&here, "b:1", &[("b", "2")]),
    );
    for (items, want) in [
        (
            [a.short(), b.short()],
            vec![LoadEvent::LoadedId(a), LoadEvent::LoadedId(b)],
        ),
        (
            [a.short(), "b:1".to_owned()],
            vec![LoadEvent::Loaded(Reference::parse("b:1").unwrap())],
        ),
    ] {
        let there = tempfile::tempdir().unwrap();
        let there = store(there.path());
        let archive = save(&here, &[&items[0], &items[1]]);
        assert_eq!(load(&there, archive).unwrap(), want);
        assert_eq!(there.images().unwrap().len(), 2);
    }
}

#[test]
fn what_a_killed_commit_has_added_is_collected_by_its_mark() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let work = store.begin().unwrap();
    let layer = store
        .add_layer(Cursor::new(tar_of(&[("a", "1")])), None)
        .unwrap();
    assert!(!store.has_leftovers().unwrap(), "its maker lives");
    // What a killed process leaves: its directory without its lock.
    std::mem::forget(work);
    let staging = directory.path().join("staging");
    let mark = std::fs::read_dir(&staging)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    std::fs::remove_dir(mark.path()).unwrap();
    std::fs::create_dir(mark.path()).unwrap();
    assert!(store.has_leftovers().unwrap());
    let collected = store.collect(&[]).unwrap();
    assert_eq!(
        (collected.layers, collected.staging),
        (vec![layer.diff_id], 1)
    );
    assert!(!store.has_leftovers().unwrap());
}

#[test]
fn compressed_archives_and_layers_are_taken() {
    let here = tempfile::tempdir().unwrap();
    let here = store(here.path());
    let plain = import(&here, "bb:1", &[("a", "one")]);
    let archive = save(&here, &["bb:1"]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&archive).unwrap();
    let zst = zstd::encode_all(Cursor::new(&archive), 1).unwrap();
    for packed in [gz.finish().unwrap(), zst] {
        let there = tempfile::tempdir().unwrap();
        let there = store(there.path());
        load(&there, packed).unwrap();
        assert_eq!(there.resolve("bb:1").unwrap(), plain);
    }
    let zst = zstd::encode_all(Cursor::new(tar_of(&[("a", "one")])), 1).unwrap();
    let added = here.add_layer(Cursor::new(zst), None).unwrap();
    assert_eq!(
        Some(&added.diff_id),
        here.image(&plain).unwrap().layers.first()
    );
}

#[test]
fn names_and_prefixes() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let (a, b) = (
        import(&store, "a", &[("a", "1")]),
        import(&store, "b", &[("b", "2")]),
    );
    assert_eq!(store.resolve("a").unwrap(), a);
    assert_eq!(store.resolve("a:latest").unwrap(), a);
    assert_eq!(store.resolve(&a.to_string()).unwrap(), a);
    assert_eq!(store.resolve(&a.hex()[..12]).unwrap(), a);
    assert_eq!(
        store.resolve("nosuch").unwrap_err().to_string(),
        "No such image: nosuch:latest"
    );
    assert!(matches!(store.resolve("A"), Err(ResolveError::Invalid(_))));
    let name = Reference::parse("x:1").unwrap();
    assert_eq!(store.tag(&a, &name).unwrap(), None);
    assert_eq!(store.tag(&b, &name).unwrap(), Some(a));
    assert_eq!(store.image(&b).unwrap().repo_tags(), ["b:latest", "x:1"]);
    assert_eq!(
        store.save_items(&["x"]).unwrap(),
        [SaveItem {
            id: b,
            reference: Some(name.clone())
        }]
    );
    assert_eq!(store.untag(&name).unwrap(), Some(b));
}

#[test]
fn removal_follows_docker() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let id = import(&store, "a", &[("a", "1")]);
    store
        .tag(&id, &Reference::parse("other:v1").unwrap())
        .unwrap();
    let plain = RemoveOptions::default();
    let several = store
        .remove_image(&id.short(), &plain)
        .unwrap_err()
        .to_string();
    assert!(
        several.contains("(must be forced) - image is referenced in multiple repositories"),
        "{several}"
    );
    assert_eq!(
        store.remove_image("other:v1", &plain).unwrap(),
        [Removed::Untagged("other:v1".into())]
    );
    let layers = store.image(&id).unwrap().layers;
    let mut container = ImageUse {
        user: mille_store::User::Container("c".repeat(64)),
        image: Some(id),
        layers: layers.clone(),
        running: false,
    };
    let uses = [container.clone()];
    let used = store
        .remove_image(
            "a",
            &RemoveOptions {
                uses: &uses,
                ..plain
            },
        )
        .unwrap_err()
        .to_string();
    assert!(
        used.contains(
            "unable to remove repository reference \"a\" (must force) - container cccccccccccc"
        ),
        "{used}"
    );
    container.running = true;
    let uses = [container];
    let running = RemoveOptions {
        uses: &uses,
        force: true,
        ..plain
    };
    let refused = store
        .remove_image(&id.short(), &running)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("(cannot be forced) - image is being used by running container"),
        "{refused}"
    );
    let gone = store.remove_image("a", &plain).unwrap();
    assert_eq!(gone[0], Removed::Untagged("a:latest".into()));
    assert_eq!(gone[1], Removed::Deleted(id.to_string()));
    assert_eq!(gone.len(), 3);
    assert!(!store.has_layer(&layers[0]));
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn a_layer_of_two_images_stays_for_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let a = import(&store, "a", &[("a", "1")]);
    let options = ImportOptions {
        name: Some(Reference::parse("b").unwrap()),
        changes: vec!["CMD x".into()],
        ..ImportOptions::default()
    };
    store
        .import(Cursor::new(tar_of(&[("a", "1")])), &options)
        .unwrap();
    let layer = store.image(&a).unwrap().layers[0];
    store.remove_image("a", &RemoveOptions::default()).unwrap();
    assert!(store.has_layer(&layer));
    assert!(store.collect(&[]).unwrap().layers.is_empty());
    store.remove_image("b", &RemoveOptions::default()).unwrap();
    assert!(!store.has_layer(&layer));
}

#[test]
fn damage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let id = import(&store, "a", &[("a", "1")]);
    let layer = store.image(&id).unwrap().layers[0];
    std::fs::write(store.layer_dir(&layer).join("a"), "2").unwrap();
    let report = store.fsck(&[]).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|found| found.severity == Severity::Damage && found.subject == layer.to_string())
    );
    assert!(matches!(
        store.write_layer_tar(&layer, std::io::sink()),
        Err(Error::LayerDamaged { .. })
    ));
}

#[test]
fn broken_archives_leave_nothing() {
    let here = tempfile::tempdir().unwrap();
    let here = store(here.path());
    import(
        &here,
        "bb:1",
        &[("a", "some text to be found in the archive")],
    );
    let archive = save(&here, &["bb:1"]);
    let at = archive
        .windows(9)
        .position(|window| window == b"some text")
        .unwrap();
    let mut flipped = archive.clone();
    flipped[at] ^= 1;
    let rewrite = |from: &str, to: &str| {
        let mut bytes = archive.clone();
        let at = bytes
            .windows(from.len())
            .rposition(|window| window == from.as_bytes())
            .unwrap();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("truncated", archive[..archive.len() / 2].to_vec()),
        ("cut at the end", archive[..archive.len() - 1024].to_vec()),
        ("flipped bit", flipped),
        ("not json", rewrite("\"RepoTags\"", "\"RepoTags ")),
        (
            "noise",
            (0..5000u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
        ),
    ];
    for (name, bytes) in cases {
        let there = tempfile::tempdir().unwrap();
        let there = store(there.path());
        let error = load(&there, bytes).expect_err(name);
        assert!(!error.to_string().is_empty());
        assert!(
            there.images().unwrap().is_empty(),
            "{name}: an image is left"
        );
        assert!(
            there
                .fsck(&[])
                .unwrap()
                .findings
                .iter()
                .all(|found| found.severity == Severity::Leftover),
            "{name}"
        );
        assert_eq!(
            std::fs::read_dir(there.root().join("staging"))
                .unwrap()
                .count(),
            0,
            "{name}: staging is not empty"
        );
    }
}

#[test]
fn members_never_lead_outside() {
    let there = tempfile::tempdir().unwrap();
    let there = store(there.path());
    for member in ["../../etc/passwd", "/etc/passwd", ""] {
        let manifest = format!(r#"[{{"Config":"{member}","RepoTags":["a:1"],"Layers":[]}}]"#);
        let error = load(&there, tar_of(&[("manifest.json", &manifest)])).unwrap_err();
        assert!(
            matches!(error, Error::Load(LoadError::Escape { .. })),
            "{member}: {error}"
        );
    }
    let manifest = r#"[{"Config":"x.json","RepoTags":["a:1"],"Layers":["gone.tar"]}]"#;
    let error = load(&there, tar_of(&[("manifest.json", manifest)])).unwrap_err();
    assert!(error.to_string().contains("x.json"), "{error}");
}

/// A stream that gives a little and then an error.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::Error::other("the cable was cut"));
        }
        let count = buffer.len().min(self.0);
        self.0 -= count;
        buffer[..count].fill(0);
        Ok(count)
    }
}

#[test]
fn a_reader_that_fails_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let error = store
        .import(Broken(100), &ImportOptions::default())
        .unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    assert!(text.contains("the cable was cut"), "{text}");
    assert_eq!(
        std::fs::read_dir(store.root().join("staging"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_collection_takes_what_nobody_needs_and_withholds_what_it_cannot_know() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let a = import(&store, "a", &[("a", "1")]);
    let add = |content| {
        let tar = Cursor::new(tar_of(&[("x", content)]));
        store.add_layer(tar, None).unwrap().diff_id
    };
    let (pinned, free) = (add("pinned"), add("free"));
    let chains = mille_store::ChainId::chain(&store.image(&a).unwrap().layers);
    let kept = store.chain_index(&chains[0]);
    let gone = store.chain_index(&mille_store::ChainId::chain(&[free])[0]);
    let index = Writer::new(Vec::new(), &Record::default())
        .finish()
        .unwrap();
    store.put_chain_index(&chains[0], &index).unwrap();
    std::fs::write(&gone, "").unwrap();
    // While an image cannot be read, any layer may be one of its own; leftovers are none.
    let config = directory
        .path()
        .join("images")
        .join(a.hex())
        .join("config.json");
    let whole = std::fs::read(&config).unwrap();
    std::fs::write(&config, "{").unwrap();
    std::fs::create_dir(directory.path().join("staging/s-killed")).unwrap();
    let collected = store.collect(&[pinned]).unwrap();
    assert!(collected.withheld.is_some() && collected.layers.is_empty());
    assert_eq!(collected.staging, 1);
    assert!(store.has_layer(&free));
    std::fs::write(&config, whole).unwrap();
    let collected = store.collect(&[pinned]).unwrap();
    assert_eq!((collected.layers, collected.withheld), (vec![free], None));
    assert!(store.has_layer(&pinned) && kept.exists() && !gone.exists());
    assert!(
        store
            .fsck(&[])
            .unwrap()
            .findings
            .iter()
            .all(|found| found.severity == Severity::Leftover)
    );
}

#[test]
fn an_index_with_one_wrong_byte_is_found_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let a = import(&store, "a", &[("a", "1")]);
    let chain = mille_store::ChainId::chain(&store.image(&a).unwrap().layers)[0];
    let mut index = Writer::new(b"stamp".to_vec(), &Record::default())
        .finish()
        .unwrap();
    store.put_chain_index(&chain, &index).unwrap();
    assert!(store.fsck(&[]).unwrap().findings.is_empty());
    *index.last_mut().unwrap() ^= 1;
    store.put_chain_index(&chain, &index).unwrap();
    let findings = store.fsck(&[]).unwrap().findings;
    assert_eq!(findings[0].severity, Severity::Damage);
    assert!(findings[0].detail.contains("digest"), "{findings:?}");
    assert!(!store.chain_index(&chain).exists());
    assert!(store.fsck(&[]).unwrap().findings.is_empty());
}

/// The only layer of a store.
fn only_layer(store: &Store) -> std::path::PathBuf {
    let layers = std::fs::read_dir(store.root().join("layers")).unwrap();
    layers.map(|entry| entry.unwrap().path()).next().unwrap()
}

fn findings(store: &Store) -> Vec<String> {
    let report = store.fsck(&[]).unwrap();
    let damage = report.findings.into_iter();
    damage
        .filter(|finding| finding.severity == Severity::Damage)
        .map(|finding| format!("{}: {}", finding.subject, finding.detail))
        .collect()
}

/// Only files with content are made part of the tar again; fsck looks at everything else, too.
#[test]
fn fsck_finds_what_no_digest_covers() {
    for name in ["d/gone", "empty"] {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory.path().join("store"));
        let files = [("a", "one"), ("d/.wh.gone", ""), ("empty", "")];
        import(&store, "bb:1", &files);
        assert_eq!(findings(&store), Vec::<String>::new());
        let lost = only_layer(&store).join("tree").join(name);
        std::fs::rename(lost, directory.path().join("aside")).unwrap();
        let found = findings(&store);
        assert!(
            found.len() == 1 && found[0].contains("is damaged: in its directory, "),
            "{found:?}"
        );
        let staging = std::fs::read_dir(store.root().join("staging")).unwrap();
        assert_eq!(staging.count(), 0, "fsck left something");
    }
}

#[test]
fn fsck_lists_missing_and_damaged_records_with_what_to_do() {
    type Damage = fn(&std::path::Path);
    fn first(path: std::path::PathBuf) -> std::path::PathBuf {
        let mut entries = std::fs::read_dir(path).unwrap();
        entries.next().unwrap().unwrap().path()
    }
    let cases: [(Damage, &str); 5] = [
        (
            |root| std::fs::remove_file(first(root.join("images")).join("config.json")).unwrap(),
            "its config.json is missing; remove the image and load it again",
        ),
        (
            |root| std::fs::write(first(root.join("images")).join("meta.json"), "{").unwrap(),
            "its meta.json is damaged: ",
        ),
        (
            |root| std::fs::remove_file(first(root.join("images")).join("meta.json")).unwrap(),
            "its meta.json is missing; remove the image and load it again",
        ),
        (
            |root| std::fs::remove_file(first(root.join("layers")).join("meta.json")).unwrap(),
            "its meta.json is missing; load the images that use it again",
        ),
        (
            |root| std::fs::write(first(root.join("names")), "{").unwrap(),
            "; remove the file and tag the image again",
        ),
    ];
    for (damage, wanted) in cases {
        let directory = tempfile::tempdir().unwrap();
        import(&store(directory.path()), "bb:1", &[("a", "one")]);
        assert_eq!(findings(&store(directory.path())), Vec::<String>::new());
        damage(directory.path());
        let found = findings(&store(directory.path()));
        let text = found.join("\n");
        assert!(text.contains(wanted), "{wanted}: {text}");
        assert!(!text.contains("fsck"), "{text}");
    }
}

#[test]
fn a_store_of_unknown_format_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    // Without layers nothing can be misread: it is made whole.
    let made = store(root);
    std::fs::remove_file(root.join("format")).unwrap();
    drop(store(root));
    import(&made, "bb:1", &[("a", "one")]);
    std::fs::remove_file(root.join("format")).unwrap();
    let error = try_store(root).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("missing from a store that has layers"),
        "{text}"
    );
    assert!(!root.join("format").exists(), "somebody has guessed");
    // What it advises works.
    let command = text.split('`').nth(1).unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", command])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(findings(&store(root)), Vec::<String>::new());
}
