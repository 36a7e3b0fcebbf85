//! Names and attributes.

use std::path::Path;

use anyhow::Result;

use super::stage::Layers::Tree;
use super::work::Step::{Call, Callers, Nothing, Shell};
use super::work::Workload;

const TAR: &str = "tar -cf - tree | cat > /dev/null";

pub(super) fn workloads() -> Vec<Workload> {
    let stat = Call(stat_all);
    let mut list = vec![
        Workload::reading("stat every file, cold", Tree, Nothing, stat),
        Workload::reading("stat every file, warm", Tree, stat, Call(stat_often)),
        Workload::reading("tar of the tree, cold", Tree, Nothing, Shell(TAR)),
        Workload::reading("tar of the tree, warm", Tree, Shell(TAR), Shell(TAR)),
        Workload::reading(
            "failed lookups, PATH",
            Tree,
            Call(along_path),
            Call(path_often),
        ),
        Workload::reading(
            "failed lookups, include",
            Tree,
            Nothing,
            Call(along_includes),
        ),
        Workload::reading(
            "open-read-close, warm",
            Tree,
            Call(read_all),
            Call(read_all),
        ),
    ];
    for count in [2, 4, 8] {
        let callers = Callers(count, "stat");
        let name = |what: &str| format!("stat, {what}, {count} processes");
        list.push(Workload::reading(&name("cold"), Tree, Nothing, callers));
        list.push(Workload::reading(&name("warm"), Tree, stat, callers));
    }
    list
}

fn visit(dir: &Path, see: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in dir.read_dir()? {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() {
            visit(&path, see)?;
        } else {
            see(&path)?;
        }
    }
    Ok(())
}

/// One lstat of each of two thousand files.
pub(super) fn stat_all(at: &Path) -> Result<()> {
    visit(&at.join("tree"), &mut |_| Ok(()))
}

/// Often enough that it takes some milliseconds.
fn stat_often(at: &Path) -> Result<()> {
    (0..5).try_for_each(|_| stat_all(at))
}

fn read_all(at: &Path) -> Result<()> {
    visit(&at.join("tree"), &mut |path| {
        std::fs::read(path)?;
        Ok(())
    })
}

fn missing(dirs: &[std::path::PathBuf], names: usize) {
    for name in 0..names {
        for dir in dirs {
            // Whether it is there is the question; that it is not is no failure.
            std::hint::black_box(dir.join(format!("no{name}")).exists());
        }
    }
}

fn children(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut paths = Vec::new();
    for entry in dir.read_dir()? {
        paths.push(entry?.path());
    }
    Ok(paths)
}

/// As a shell looks for commands: the same names again and again.
fn along_path(at: &Path) -> Result<()> {
    missing(&children(&at.join("path"))?, 50);
    Ok(())
}

fn path_often(at: &Path) -> Result<()> {
    (0..20).try_for_each(|_| along_path(at))
}

/// As a compiler looks for headers: every name for the first time.
fn along_includes(at: &Path) -> Result<()> {
    missing(&children(&at.join("inc"))?, 100);
    Ok(())
}
