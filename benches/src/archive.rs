//! import and load against `tar -x` of the same archive plus one sha256 pass.

use anyhow::Result;

use crate::rounds::{Comparison, Contender, Place};

/// What the goal is about, and the same made durable, as mille's commands leave it.
const PLAIN: [Contender; 2] = [
    Contender {
        name: "tar -x; sha256sum",
        before: "rm -rf x && mkdir x && sync",
        script: "tar -C x -xf $tar; sha256sum < $tar",
    },
    Contender {
        name: "tar -x, sync; sha256sum",
        before: "rm -rf x && mkdir x && sync",
        script: "tar -C x -xf $tar && sync -f x; sha256sum < $tar",
    },
];

const IMPORT: Contender = Contender {
    name: "mille import",
    before: "$bin/mille rmi big >/dev/null 2>&1 || true; sync",
    script: "$bin/mille import $tar big",
};

const LOAD: Contender = Contender {
    name: "mille load",
    script: "$bin/mille load -i saved.tar",
    ..IMPORT
};

/// Runs both comparisons on a Debian tree when `MILLE_BENCH_TAR` names one, else on the machine's own /usr/share and
/// /usr/lib/python3. Goal: at most 1.3 of the first contender.
pub fn compare(place: &Place, rounds: usize) -> Result<Vec<Comparison>> {
    let tar = match std::env::var("MILLE_BENCH_TAR") {
        Ok(tar) => tar,
        Err(_) => {
            place.shell("tar -C / -cf big.tar usr/share/doc usr/share/perl usr/share/zoneinfo usr/lib/x86_64-linux-gnu 2>/dev/null || test -s big.tar")?;
            place.path().join("big.tar").display().to_string()
        }
    };
    let with = |ours: Contender| -> Vec<Contender> {
        let named = |c: &Contender| Contender {
            script: Box::leak(c.script.replace("$tar", &tar).into_boxed_str()),
            ..*c
        };
        PLAIN.iter().chain([&ours]).map(named).collect()
    };
    let import = Comparison::run(place, "import", &with(IMPORT), rounds)?;
    place.shell("$bin/mille save -o saved.tar big")?;
    let load = Comparison::run(place, "load", &with(LOAD), rounds)?;
    Ok(vec![import, load])
}
