//! Many layers, long directories, and mounting.

use std::path::Path;

use anyhow::{Result, ensure};

use super::stage::Layers::{Deep, Many, Tree};
use super::work::Step::{Call, Mount, Nothing};
use super::work::Workload;

pub(super) fn workloads() -> Vec<Workload> {
    let mut list = vec![
        Workload::reading("mount and unmount", Tree, Nothing, Mount),
        Workload::reading("list 100,000 entries, cold", Many, Nothing, Call(list_many)),
        Workload::reading(
            "list 100,000 entries, warm",
            Many,
            Call(list_many),
            Call(list_many),
        ),
    ];
    for count in [1, 8, 32, 128, 500] {
        let name = format!("lookups in {count} layers");
        list.push(Workload::reading(
            &name,
            Deep(count),
            Nothing,
            Call(look_up),
        ));
    }
    list
}

fn list_many(at: &Path) -> Result<()> {
    let count = at.join("d").read_dir()?.count();
    ensure!(count == 100_000, "{count} entries");
    Ok(())
}

/// Every file of the lowest layer by its name.
fn look_up(at: &Path) -> Result<()> {
    for number in 1..=500 {
        at.join(format!("tree/f{number:03}")).metadata()?;
    }
    Ok(())
}
