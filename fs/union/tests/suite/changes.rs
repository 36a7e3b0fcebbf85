//! What differs, against transcripts of docker's `diff`; and the archive of it.

use mille_layer::encode::Encoder;
use mille_union::archive::{write_changes, write_tree};
use mille_union::changes::{ChangeKind, changes};

use crate::kit::{Stage, require_root};

const LOWER: &str = "cd l1 && mkdir t && cd t && for f in a b c d e f g h i j k l m; do echo $f > $f; done
    mkdir -p dir/sub dir2 dir3/x emptydir; for f in p q r; do echo $f > dir/$f; echo $f > dir2/$f; done
    echo deep > dir/sub/deep; echo z > dir3/x/z; ln -s a sl; ln m m2
    cd ..; mkdir tmp; find . -exec touch -h -d @1700000000 {} +";

/// Runs a script in the mounted tree's `/t` and gives docker's lines.
fn diff_after(script: &str) -> Vec<String> {
    let stage = Stage::new(1, LOWER);
    let mounted = stage.mount();
    stage.shell(&format!("cd m/t && {script}"));
    drop(mounted);
    let (merged, base) = (stage.view(), stage.base());
    changes(&merged, &base)
        .unwrap()
        .iter()
        .filter_map(|change| {
            let letter = match change.kind {
                ChangeKind::Added => 'A',
                ChangeKind::Modified => 'C',
                ChangeKind::Deleted => 'D',
                ChangeKind::Touched => return None,
            };
            Some(format!("{letter} {}", change.absolute_path().display()))
        })
        .collect()
}

/// What is done in `/t`, and what docker says then.
const TABLE: &[(&str, &[&str])] = &[
    ("true", &[]),
    ("cat a >/dev/null; ls -R . >/dev/null", &[]),
    ("echo n > new", &["C /t", "A /t/new"]),
    ("touch ../new", &["A /new"]),
    ("echo n >> a", &["C /t", "C /t/a"]),
    ("echo a > a", &["C /t", "C /t/a"]),
    ("exec 3<>a; exec 3>&-", &[]),
    ("chmod 600 a", &["C /t", "C /t/a"]),
    ("chmod 644 a", &[]),
    ("chown 5:6 a", &["C /t", "C /t/a"]),
    ("chown 0:0 a", &[]),
    ("touch a", &["C /t", "C /t/a"]),
    ("touch -d @1700000000 a", &[]),
    ("rm a", &["C /t", "D /t/a"]),
    ("rm -r dir", &["C /t", "D /t/dir"]),
    ("rm a; echo other > a", &["C /t", "C /t/a"]),
    (
        "rm -r dir; mkdir dir",
        &[
            "C /t",
            "C /t/dir",
            "D /t/dir/p",
            "D /t/dir/q",
            "D /t/dir/r",
            "D /t/dir/sub",
        ],
    ),
    (
        "rm -r dir; mkdir dir; echo p > dir/p; echo n > dir/new",
        &[
            "C /t",
            "C /t/dir",
            "A /t/dir/new",
            "C /t/dir/p",
            "D /t/dir/q",
            "D /t/dir/r",
            "D /t/dir/sub",
        ],
    ),
    (
        "rm a; mkdir a; echo x > a/x",
        &["C /t", "C /t/a", "A /t/a/x"],
    ),
    ("rm -r dir; echo x > dir", &["C /t", "C /t/dir"]),
    ("rm -r dir; ln -s dir2 dir", &["C /t", "C /t/dir"]),
    ("rmdir emptydir", &["C /t", "D /t/emptydir"]),
    ("rmdir emptydir; mkdir emptydir", &[]),
    ("mv a z", &["C /t", "A /t/z", "D /t/a"]),
    ("mv a b", &["C /t", "D /t/a"]),
    ("mv a dir/a", &["C /t", "C /t/dir", "A /t/dir/a", "D /t/a"]),
    (
        "mv dir dirnew",
        &[
            "C /t",
            "A /t/dirnew",
            "A /t/dirnew/p",
            "A /t/dirnew/q",
            "A /t/dirnew/r",
            "A /t/dirnew/sub",
            "A /t/dirnew/sub/deep",
            "D /t/dir",
        ],
    ),
    (
        "mkdir n1; echo x > n1/f; mv n1 n2",
        &["C /t", "A /t/n2", "A /t/n2/f"],
    ),
    ("mv a z; mv z a", &[]),
    ("ln a hl", &["C /t", "A /t/hl"]),
    ("ln -s a newsl", &["C /t", "A /t/newsl"]),
    ("rm sl; ln -s b sl", &["C /t", "C /t/sl"]),
    (
        "mkfifo fifo; mknod nul c 1 3",
        &["C /t", "A /t/fifo", "A /t/nul"],
    ),
    (
        "echo n > dir/sub/new",
        &["C /t", "C /t/dir", "C /t/dir/sub", "A /t/dir/sub/new"],
    ),
    (
        "rm dir/sub/deep",
        &["C /t", "C /t/dir", "C /t/dir/sub", "D /t/dir/sub/deep"],
    ),
    ("chmod 700 dir", &["C /t", "C /t/dir"]),
    ("touch dir", &[]),
    ("touch tmpf; rm tmpf; mkdir tmpd; rmdir tmpd", &[]),
    (
        "touch /var/tmp/x; touch ../tmp/x; mkdir ../newroot; touch ../newroot/y",
        &["A /newroot", "A /newroot/y", "C /tmp", "A /tmp/x"],
    ),
    ("setfattr -n user.x -v 1 a", &[]),
    ("setcap cap_net_raw+ep b", &["C /t", "C /t/b"]),
    // Ours keeps both names of a file, docker's breaks the link and shows one.
    ("touch m", &["C /t", "C /t/m", "C /t/m2"]),
];

#[test]
fn root_fuse_diff_says_what_docker_says() {
    require_root();
    for (script, lines) in TABLE {
        assert_eq!(diff_after(script), *lines, "after: {script}");
    }
}

/// The names in a tar with their kinds, as GNU tar lists them.
fn listing(tar: &[u8]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.tar");
    std::fs::write(&path, tar).unwrap();
    let output = std::process::Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let mode = words.next().unwrap().chars().next().unwrap();
            let rest: Vec<&str> = words.skip(4).collect();
            format!("{mode} {}", rest.join(" "))
        })
        .collect()
}

#[test]
fn root_fuse_a_layer_tar_says_all_without_the_other_layers() {
    require_root();
    let stage = Stage::new(1, LOWER);
    let mounted = stage.mount();
    stage.shell(
        "cd m/t && mv dir dirnew && rm -r dir2 && mkdir dir2 && echo n > dir2/n && rm a && chmod 600 b && touch m",
    );
    drop(mounted);
    let mut encoder = Encoder::new(Vec::new());
    write_changes(&stage.view(), &stage.base(), &mut encoder).unwrap();
    let tar = encoder.finish().unwrap();
    assert_eq!(
        listing(&tar),
        [
            "d t/",
            "- t/b",
            "d t/dir2/",
            "- t/dir2/.wh..wh..opq",
            "- t/dir2/n",
            "d t/dirnew/",
            "- t/dirnew/p",
            "- t/dirnew/q",
            "- t/dirnew/r",
            "d t/dirnew/sub/",
            "- t/dirnew/sub/deep",
            "- t/m",
            "h t/m2 link to t/m",
            "- t/.wh.a",
            "- t/.wh.dir",
        ]
    );
    // Metadata-only in the upper, but with its data in the tar.
    std::fs::write(stage.path("layer.tar"), &tar).unwrap();
    assert_eq!(stage.shell("tar -xOf layer.tar t/b"), "b\n");
}

#[test]
fn root_fuse_a_whole_tree_comes_out_as_it_is_seen() {
    require_root();
    let stage = Stage::new(1, LOWER);
    let mounted = stage.mount();
    stage.shell("cd m/t && mv dir dirnew && rm a && echo new > b && chown 5:6 c && ln b bb && touch -d @5.5 d");
    let mut encoder = Encoder::new(Vec::new());
    drop(mounted);
    write_tree(&stage.view(), &mut encoder).unwrap();
    std::fs::write(stage.path("tree.tar"), encoder.finish().unwrap()).unwrap();
    let mounted = stage.mount();
    stage.shell("mkdir out && tar -C out -xpf tree.tar && diff -r --no-dereference m out");
    let print = "find . -mindepth 1 -printf '%p %y %m %U:%G %n %T@ %l\\n' | sed 's/^\\(.* d [0-9]* [0-9:]*\\) [0-9]*/\\1/' | sort";
    let left = stage.shell(&format!("cd m && {print}"));
    let right = stage.shell(&format!("cd out && {print}"));
    assert_eq!(left, right);
    drop(mounted);
}
