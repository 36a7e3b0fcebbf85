//! Hostile images, and containers to attack from.

use mille_tests::Store;

/// Makes the image `evil`: the busybox root, changed by a shell script that runs in it, with `import -c` of each change.
pub(crate) fn image(store: &Store, script: &str, changes: &[&str]) {
    let flags: String = changes
        .iter()
        .map(|change| format!("-c '{change}' "))
        .collect();
    store
        .script(&format!(
            "set -e; mkdir tree; tar -C tree -xf bb.tar; (cd tree; {script}); \
             tar -C tree --numeric-owner -cf evil.tar .; \"$mille\" import {flags} evil.tar evil"
        ))
        .ok();
}

/// Makes the image `evil` of the busybox root with a configuration that no command of ours would write.
pub(crate) fn image_with_config(store: &Store, config: &str) {
    let script = r#"set -e
        layer=$(sha256sum < bb.tar | cut -d' ' -f1)
        printf '{"architecture":"amd64","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$config" "$layer" > config
        id=$(sha256sum < config | cut -d' ' -f1)
        mkdir archive; mv config archive/$id.json; cp bb.tar archive/layer.tar
        printf '[{"Config":"%s.json","RepoTags":["evil:latest"],"Layers":["layer.tar"]}]' $id > archive/manifest.json
        tar -C archive -cf archive.tar .; "$mille" load -i archive.tar"#;
    store.script(&format!("config='{config}'\n{script}")).ok();
}

/// A container `c1` of the image that runs until the store is dropped.
pub(crate) fn running(store: &Store, image: &str) {
    store
        .line(&format!("run -d --name c1 {image} sleep 1000"))
        .ok();
}

/// Runs a shell script in a new container with further options; what it wrote, whatever became of it.
pub(crate) fn sh(store: &Store, options: &str, script: &str) -> String {
    let mut words: Vec<_> = vec!["run", "--rm"];
    words.extend(options.split_whitespace());
    words.extend(["bb", "sh", "-c", script]);
    store.mille(words).out()
}

/// Runs a shell script in the container `c1`.
pub(crate) fn exec(store: &Store, script: &str) -> String {
    store.mille(["exec", "c1", "sh", "-c", script]).out()
}
