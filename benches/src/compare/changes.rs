//! Making, changing and removing files.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

use super::stage::Layers::{Huge, Tree};
use super::work::Step::{Call, Callers, Nothing, Shell};
use super::work::Workload;

const ARCHIVE: &str = "mkdir src; cd src; for d in $(seq 100); do mkdir $d; (cd $d; for f in $(seq 100); do echo $d $f > $f; done); done
    tar -cf ../archive.tar .; cd ..; rm -r src";

const CHANGE_SOME: &str =
    "for d in tree/*; do echo changed > $d/f03; touch $d/f04 $d/new; rm $d/f05; done";

pub(super) fn workloads() -> Vec<Workload> {
    let remove = Shell("rm -rf tree");
    let mut list = vec![
        Workload::changing(
            "create-write-close-unlink 5,000",
            Tree,
            Nothing,
            Call(five_thousand),
        ),
        Workload::changing(
            "unpack 10,000 files",
            Tree,
            Shell(ARCHIVE),
            Shell("mkdir un; tar -C un -xf archive.tar"),
        ),
        Workload::changing(
            "rm -rf, upper",
            Tree,
            Shell("cp -r tree made"),
            Shell("rm -rf made"),
        ),
        Workload::changing("rm -rf, lower", Tree, Nothing, remove),
        Workload::changing("rm -rf, merged", Tree, Shell(CHANGE_SOME), remove),
        Workload::changing("chmod of every lower file", Tree, Nothing, Call(chmod_all)),
        Workload::reading("append to 512 MiB", Huge, Nothing, Call(append)),
    ];
    for count in [2, 4, 8] {
        let name = format!("create-unlink, {count} processes");
        list.push(Workload::changing(
            &name,
            Tree,
            Nothing,
            Callers(count, "create"),
        ));
    }
    list
}

/// So many files in a new directory, which stays.
pub(super) fn create_and_unlink(dir: &Path, count: usize) -> Result<()> {
    std::fs::create_dir(dir)?;
    for number in 0..count {
        let path = dir.join(number.to_string());
        File::create(&path)?.write_all(b"some bytes")?;
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

fn five_thousand(at: &Path) -> Result<()> {
    create_and_unlink(&at.join("work"), 5000)
}

fn chmod_all(at: &Path) -> Result<()> {
    for dir in at.join("tree").read_dir()? {
        for entry in dir?.path().read_dir()? {
            std::fs::set_permissions(entry?.path(), Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

fn append(at: &Path) -> Result<()> {
    let mut file = OpenOptions::new().append(true).open(at.join("huge"))?;
    file.write_all(b"x")?;
    Ok(())
}
