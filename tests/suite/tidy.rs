//! The house rules that no compiler checks: who may depend on whom, what may be imported where, how large a file grows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Crate → crates of this workspace it may depend on: the arrows of ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("fs/layer", &[]),
    ("fs/union", &["mille-layer"]),
    ("fs/store", &["mille-layer"]),
    ("launcher/sandbox", &[]),
    (
        "launcher/engine",
        &["mille-store", "mille-union", "mille-sandbox", "mille-layer"],
    ),
    ("tools/mille", &["mille-engine", "mille-store"]),
    ("tools/millefs", &["mille-union"]),
    ("tests", &[]),
    ("benches", &[]),
];

/// Longest source file, tests included.
const LONGEST_FILE_LINES: usize = 800;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn sources() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for wing in ["fs", "launcher", "tools", "tests", "benches"] {
        collect(&workspace().join(wing), &mut found);
    }
    found
}

fn collect(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(
                path.strip_prefix(workspace()).unwrap().to_path_buf(),
                std::fs::read_to_string(&path).unwrap(),
            );
        }
    }
}

#[test]
fn arrows_point_where_the_house_says() {
    for (folder, allowed) in ARROWS {
        let manifest =
            std::fs::read_to_string(workspace().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        let ours = dependencies
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next());
        for name in ours.filter(|name| name.starts_with("mille")) {
            assert!(
                allowed.contains(&name),
                "{folder} must not depend on {name}"
            );
        }
    }
}

#[test]
fn union_policy_never_sees_fuser() {
    for (path, text) in sources() {
        let adapter =
            path.starts_with("fs/union/src/fuse") || path == Path::new("fs/union/src/fuse.rs");
        if path.starts_with("fs/union/src") && !adapter {
            assert!(
                !text.contains("fuser::"),
                "{} uses fuser outside the adapter",
                path.display()
            );
        }
        if !path.starts_with("fs/union") && !path.starts_with("tests") {
            assert!(!text.contains("fuser::"), "{} uses fuser", path.display());
        }
    }
}

#[test]
fn files_stay_small() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > LONGEST_FILE_LINES)
        .collect();
    let names: Vec<_> = long
        .iter()
        .map(|(path, text)| format!("{}: {}", path.display(), text.lines().count()))
        .collect();
    assert!(
        names.is_empty(),
        "over {LONGEST_FILE_LINES} lines: {names:?}"
    );
}

#[test]
fn nothing_is_called_utils() {
    for (path, _) in sources() {
        for part in path.iter() {
            let stem = Path::new(part)
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned();
            assert!(
                !["utils", "util", "common", "helpers", "helper", "misc"].contains(&stem.as_str()),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_code_stays_in_sys() {
    for (path, text) in sources() {
        let allows = text.contains("allow(unsafe_code") || text.contains("expect(unsafe_code");
        let sys = path.iter().any(|part| part == "sys" || part == "sys.rs");
        assert!(
            !allows || sys || path.iter().any(|part| part == "tests"),
            "{} allows unsafe code outside sys",
            path.display()
        );
    }
}

#[test]
fn only_the_command_line_prints() {
    for (path, text) in sources() {
        let library = path.starts_with("fs") || path.starts_with("launcher");
        let tests = path
            .iter()
            .any(|part| part == "tests" || part == "tests.rs" || part == "examples");
        if library && !tests {
            let prints = text.lines().any(|line| {
                let line = line.trim_start();
                line.starts_with("println!")
                    || line.starts_with("eprintln!")
                    || line.starts_with("print!")
            });
            assert!(!prints, "{} prints", path.display());
        }
    }
}

#[test]
fn every_suite_file_is_in_the_binary() {
    let main = std::fs::read_to_string(workspace().join("tests/suite/main.rs")).unwrap();
    for entry in std::fs::read_dir(workspace().join("tests/suite")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(
            module == "main" || main.contains(&format!("mod {module};")),
            "{name} is in no binary"
        );
    }
}

#[test]
fn licences_and_papers_are_there() {
    for paper in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "deny.toml",
        "justfile",
        ".ci/run",
    ] {
        assert!(workspace().join(paper).exists(), "{paper} is missing");
    }
}
