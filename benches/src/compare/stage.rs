//! The layers that all contenders are given.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::contender::Contender;
use super::work::{Workload, shell};

/// Which file system the layers are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    Tmpfs,
    Disk,
}

impl Ground {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Tmpfs => "/dev/shm",
            Self::Disk => "/var/tmp",
        }
    }
}

/// A set of lower layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layers {
    /// Two layers of small files, headers, programs and a C project; the upper of the two changes, adds and hides some.
    Tree,
    /// One layer with a large file and Python's library.
    Data,
    /// One layer with a file of 512 MiB.
    Huge,
    /// One layer with a file of 1 GiB.
    Giant,
    /// One layer with a directory of 100,000 files.
    Many,
    /// So many layers, the lowest with the files that are looked up.
    Deep(usize),
}

/// Where the layers of one run are; removed at its end.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) ground: Ground,
    directory: tempfile::TempDir,
}

const TREE: &str = "mkdir -p tree.1 tree.2; cd tree.1
    mkdir -p bin inc path c
    for d in $(seq -w 40); do mkdir -p tree/d$d
        for f in $(seq -w 50); do head -c $((10#$f * 160)) /usr/bin/tar > tree/d$d/f$f; done; done
    for d in $(seq -w 20); do mkdir inc/$d; touch inc/$d/{a,b,c,d,e}.h; done
    for d in 1 2 3 4 5 6; do mkdir path/$d; touch path/$d/{1..20}; done
    cp /bin/true bin/
    for f in $(seq 12); do printf '#include <stdio.h>\\n#include \"h%s.h\"\\nint f%s(int x) { return printf(\"%%d\", x + N%s); }\\n' \\
        $f $f $f > c/f$f.c; echo \"#define N$f $f\" > c/h$f.h; done
    echo 'int main(void) { return 0; }' > c/main.c
    cd ../tree.2; for d in $(seq -w 40); do mkdir -p tree/d$d; echo new > tree/d$d/f01; echo new > tree/d$d/g; mknod tree/d$d/f02 c 0 0; done";

const DATA: &str = "mkdir -p data.1; cd data.1; head -c 64M /dev/urandom > big; cp -r /usr/lib/python3 py 2>/dev/null || mkdir py
    cp -r /usr/lib/python3.*/. py/";

const HUGE: &str = "mkdir huge.1; head -c 512M /dev/urandom > huge.1/huge";

const GIANT: &str = "mkdir giant.1; head -c 1G /dev/urandom > giant.1/giant";

const MANY: &str = "mkdir -p many.1/d; cd many.1/d; seq -f 'f%06g' 100000 | xargs touch";

impl Stage {
    /// Makes the layers that are wanted, each once.
    pub(super) fn new(ground: Ground, wanted: impl IntoIterator<Item = Layers>) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("mille-compare-")
            .tempdir_in(ground.directory())?;
        let stage = Self { ground, directory };
        for name in ["upper", "mount"] {
            std::fs::create_dir(stage.path().join(name))?;
        }
        let mut made: Vec<Layers> = Vec::new();
        for layers in wanted {
            if !made.contains(&layers) {
                stage.make(layers)?;
                made.push(layers);
            }
        }
        Ok(stage)
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn make(&self, layers: Layers) -> Result<()> {
        let script = match layers {
            Layers::Tree => TREE.to_owned(),
            Layers::Data => DATA.to_owned(),
            Layers::Huge => HUGE.to_owned(),
            Layers::Giant => GIANT.to_owned(),
            Layers::Many => MANY.to_owned(),
            Layers::Deep(count) => format!(
                "mkdir -p 0/tree; (cd 0/tree; touch $(seq -f 'f%03g' 500)); \
                 for l in $(seq {count}); do mkdir -p $l/tree; touch $l/tree/own$l; done"
            ),
        };
        shell(self.path(), &script)?;
        self.make_plain(layers)
    }

    /// The layers' names, the topmost first, relative to [`Self::path`]: five hundred fit into one page only like this.
    pub(super) fn lowers(&self, layers: Layers) -> Vec<String> {
        match layers {
            Layers::Tree => vec!["tree.2".to_owned(), "tree.1".to_owned()],
            Layers::Data => vec!["data.1".to_owned()],
            Layers::Huge => vec!["huge.1".to_owned()],
            Layers::Giant => vec!["giant.1".to_owned()],
            Layers::Many => vec!["many.1".to_owned()],
            Layers::Deep(count) => (0..count).rev().map(|layer| layer.to_string()).collect(),
        }
    }

    /// The directory that has what the merged layers show.
    pub(super) fn plain(&self, layers: Layers) -> PathBuf {
        let name = match layers {
            Layers::Tree => "tree.plain".to_owned(),
            Layers::Deep(count) => format!("{count}.plain"),
            // One layer: it is itself what shows, and nothing that is done to it is of any consequence.
            only => self.lowers(only).concat(),
        };
        self.path().join(name)
    }

    fn make_plain(&self, layers: Layers) -> Result<()> {
        let plain = self.plain(layers);
        let lowers = self.lowers(layers);
        if lowers.len() == 1 && self.path().join(&lowers[0]) == plain {
            return Ok(());
        }
        let script = format!(
            "rm -rf {plain}; mkdir {plain}; for l in {layers}; do cp -a $l/. {plain}/; done; \
             find {plain} -type c -delete",
            plain = plain.display(),
            layers = lowers
                .iter()
                .rev()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        );
        shell(self.path(), &script)
    }

    /// Nothing is left of what was written before.
    pub(super) fn clear_upper(&self) -> Result<()> {
        let upper = self.path().join("upper");
        std::fs::remove_dir_all(&upper)?;
        std::fs::create_dir_all(upper.join("u"))?;
        std::fs::create_dir_all(upper.join("w"))?;
        Ok(())
    }

    /// Before every sample: nothing is left of the one before.
    pub(super) fn refresh(&self, work: &Workload, contender: Contender) -> Result<()> {
        self.clear_upper()?;
        if work.changes && contender == Contender::Plain {
            self.make_plain(work.layers)?;
        }
        Ok(())
    }
}
