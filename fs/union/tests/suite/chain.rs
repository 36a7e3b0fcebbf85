//! The merged index of a chain: the same answers as without, and nothing believed that is not right.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mille_union::{Access, Attr, Chain, Make, NodeRef, Ownership, SetAttr, Time, View};
use rustix::fs::{FileType, RenameFlags, XattrFlags};

use crate::kit::{Random, Stage, bytes, is_root, me, names, node};

/// Everything that can be asked about one object.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    path: PathBuf,
    attr: Attr,
    target: Option<OsString>,
    xattrs: Vec<(OsString, Vec<u8>)>,
    bytes: Option<Vec<u8>>,
}

/// Asks a view everything.
fn survey(view: &View) -> Vec<Told> {
    let mut told = vec![tell(view, &view.root(), PathBuf::new())];
    let mut todo = vec![(view.root(), PathBuf::new())];
    while let Some((dir, path)) = todo.pop() {
        let mut entries = view.list(&dir).unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let path = path.join(&entry.name);
            let one = tell(view, &entry.node, path.clone());
            assert_eq!(one.attr.ino, entry.attr.ino);
            told.push(one);
            if entry.node.is_dir() {
                todo.push((entry.node, path));
            }
        }
        for absent in ["", ".wh.a", "zz", "a\u{1}"] {
            if !absent.is_empty() {
                assert!(view.lookup(&dir, OsStr::new(absent)).unwrap().is_none());
            }
        }
    }
    told
}

fn tell(view: &View, node: &NodeRef, path: PathBuf) -> Told {
    let mut attr = view.attr(node).unwrap();
    // Reading renews it.
    attr.atime = Time::default();
    for (name, allowed) in [
        ("user.none", false),
        ("trusted.none", false),
        ("system.posix_acl_access", true),
    ] {
        let value = view.get_xattr(node, OsStr::new(name)).unwrap();
        assert!(value.is_none() || allowed, "{name} of {}", path.display());
    }
    let odd = view.get_xattr(node, OsStr::new("odd.family"));
    assert_eq!(odd.unwrap_err().errno(), libc::EOPNOTSUPP);
    let target = (attr.kind == FileType::Symlink).then(|| view.read_link(node).unwrap());
    let bytes = (attr.kind == FileType::RegularFile).then(|| {
        let mut bytes = Vec::new();
        view.open_read(node)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    });
    Told {
        path,
        target,
        xattrs: view.xattrs(node).unwrap(),
        attr,
        bytes,
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A script that fills one layer: all kinds of objects and marks, names that clash with those of other layers.
fn layer(random: &mut Random, layer: usize) -> String {
    use std::fmt::Write;
    let space = if is_root() { "trusted" } else { "user" };
    let mut script = format!("cd l{layer}\n");
    for step in 0..10 {
        let name = |random: &mut Random| NAMES[random.index(NAMES.len())];
        let (top, sub, leaf) = (name(random), name(random), name(random));
        let path = match random.below(3) {
            0 => top.to_owned(),
            1 => format!("{top}/{sub}"),
            _ => format!("{top}/{sub}/{leaf}"),
        };
        let make = match random.below(12) {
            0..=2 => format!(
                "echo {layer}.{step} > {path}; chmod {:o} {path}",
                random.below(0o777) | 0o400
            ),
            3 => format!("mkdir {path}; chmod 1755 {path}"),
            4 => format!("mkdir {path}; setfattr -n {space}.overlay.opaque -v y {path}"),
            5 => format!("mkdir {path}; setfattr -n {space}.overlay.implied -v y {path}"),
            6 | 7 => format!("mknod {path} c 0 0"),
            8 => format!("ln -s to/{step} {path}"),
            9 => format!("mkfifo {path}"),
            10 => format!(
                "echo {step} > {path}; setfattr -n user.x -v {step} {path}; touch -d @{step} {path}"
            ),
            _ => format!(
                "echo {step} > {path}; ln {path} hard{layer}_{step}; ln {path} {top}/other{step}"
            ),
        };
        writeln!(
            script,
            "p={path}; ([ ! -e {path} ] && [ ! -L {path} ] && {make}) 2>/dev/null || mkdir -p ${{p%/*}} 2>/dev/null || true"
        )
        .unwrap();
    }
    if is_root() && random.below(2) == 0 {
        script.push_str("for f in *; do chown -h 5:6 \"$f\"; break; done\n");
    }
    script
}

fn random_stage(seed: u64) -> (Stage, Random) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let lowers = 1 + random.index(6);
    let script: String = (1..=lowers)
        .map(|each| format!("({})\n", layer(&mut random, each)))
        .collect();
    let mut stage = Stage::new(lowers, &script);
    stage.features.volatile = true;
    (stage, random)
}

/// How many of the lowest layers an index speaks of.
fn indexed(stage: &mut Stage, layers: usize) {
    stage.indexed = layers;
}

#[test]
fn random_stacks_are_the_same_with_an_index() {
    random_stacks(1..=8);
}

#[test]
fn soak_random_stacks_are_the_same_with_an_index() {
    random_stacks(9..=60);
}

fn random_stacks(seeds: RangeInclusive<u64>) {
    for seed in seeds {
        let (mut stage, mut random) = random_stage(seed);
        let plain = survey(&stage.base());
        let all = stage.lowers;
        for layers in [all, 1 + random.index(all)] {
            indexed(&mut stage, layers);
            assert_eq!(
                survey(&stage.base()),
                plain,
                "seed {seed}, {layers} of {all} layers"
            );
        }
    }
}

/// One change by random; whether it succeeds is told.
fn change(view: &View, random: &mut Random) -> String {
    let nodes: Vec<(NodeRef, OsString, NodeRef)> = {
        let mut all = Vec::new();
        let mut todo = vec![view.root()];
        while let Some(dir) = todo.pop() {
            let mut entries = view.list(&dir).unwrap();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                if entry.node.is_dir() {
                    todo.push(entry.node.clone());
                }
                all.push((dir.clone(), entry.name, entry.node));
            }
        }
        all
    };
    if nodes.is_empty() {
        return String::new();
    }
    let (parent, name, object) = &nodes[random.index(nodes.len())];
    let (other, _, _) = &nodes[random.index(nodes.len())];
    let new = OsString::from(NAMES[random.index(NAMES.len())]);
    let errno = |result: mille_union::Result<()>| result.map_err(|error| error.errno());
    let chmod = SetAttr {
        mode: Some(0o640 + u32::try_from(random.below(8)).unwrap()),
        ..SetAttr::default()
    };
    let done = match random.below(9) {
        0 => errno(view.set_attr(object, &chmod)),
        1 => errno(view.unlink(parent, name)),
        2 => errno(view.rmdir(parent, name)),
        3 | 4 => errno(view.rename(parent, name, other, &new, RenameFlags::empty())),
        5 => errno(
            view.make(other, &new, Make::Dir { mode: 0o755 }, 0, me())
                .map(drop),
        ),
        6 => errno(view.link(object, other, &new)),
        7 => errno(view.prepare_write(object, false)),
        _ => errno(view.set_xattr(object, OsStr::new("user.y"), b"1", XattrFlags::empty())),
    };
    format!("{done:?}")
}

#[test]
fn an_upper_is_the_same_on_layers_with_and_without_an_index() {
    random_uppers(100..=103);
}

#[test]
fn soak_an_upper_is_the_same_on_layers_with_and_without_an_index() {
    random_uppers(104..=140);
}

fn random_uppers(seeds: RangeInclusive<u64>) {
    for seed in seeds {
        let (mut stage, mut random) = random_stage(seed);
        let before = stage.lowers_fingerprint();
        let all = stage.lowers;
        for round in 0..4 {
            let layers = [0, all, 1 + random.index(all), 0][round];
            indexed(&mut stage, layers);
            let view = stage.view();
            for _ in 0..6 {
                let _told = change(&view, &mut random);
            }
            drop(view);
            let with = survey_again(&stage);
            indexed(&mut stage, all - layers);
            let other = survey_again(&stage);
            assert_eq!(with, other, "seed {seed}, round {round}");
        }
        assert_eq!(stage.lowers_fingerprint(), before);
    }
}

/// As another mount tells it. Opening the upper may change its root.
fn survey_again(stage: &Stage) -> Vec<Told> {
    let mut told = survey(&stage.view());
    told[0].attr.ctime = Time::default();
    told
}

/// The same changes on the same layers have the same results, errnos and differences.
#[test]
fn changes_go_the_same_way_with_and_without_an_index() {
    random_changes(200..=203);
}

#[test]
fn soak_changes_go_the_same_way_with_and_without_an_index() {
    random_changes(204..=240);
}

fn random_changes(seeds: RangeInclusive<u64>) {
    for seed in seeds {
        let run = |with_index: bool| {
            let (mut stage, mut random) = random_stage(seed);
            let all = stage.lowers;
            indexed(&mut stage, if with_index { all } else { 0 });
            let view = stage.view();
            let told: Vec<String> = (0..20).map(|_| change(&view, &mut random)).collect();
            let changes = |merged: &View, base: &View| -> Vec<String> {
                let found = mille_union::changes::changes(merged, base).unwrap();
                let found = found.iter();
                found
                    .map(|one| format!("{:?} {:?}", one.kind, one.absolute_path()))
                    .collect()
            };
            let differences = changes(&view, &stage.base());
            // A view with an index compared with one without.
            indexed(&mut stage, if with_index { 0 } else { all });
            assert_eq!(changes(&view, &stage.base()), differences, "seed {seed}");
            (told, differences)
        };
        assert_eq!(run(false), run(true), "seed {seed}");
    }
}

#[test]
fn names_and_attributes_need_no_layer_and_files_only_their_own() {
    let mut stage = Stage::new(
        3,
        "mkdir -p l1/d/s l2/d l3/d; echo 1 > l1/d/a; echo 2 > l2/d/b; ln -s target l2/d/l; echo 3 > l3/top",
    );
    stage.indexed = 3;
    let view = stage.base();
    // No layer is there any more: whoever looked into one would fail.
    stage.shell("mkdir away; mv l1 l2 l3 away/");
    assert_eq!(names(&view, ""), ["d", "top"]);
    assert_eq!(names(&view, "d"), ["a", "b", "l", "s"]);
    assert_eq!(view.attr(&node(&view, "d/a")).unwrap().size, 2);
    assert_eq!(view.read_link(&node(&view, "d/l")).unwrap(), "target");
    assert!(view.xattrs(&node(&view, "d")).unwrap().is_empty());
    assert!(view.open_read(&node(&view, "d/b")).is_err());
    // Only the layer that is read is opened.
    stage.shell("mv away/l2 .");
    assert_eq!(bytes(&view, "d/b"), b"2\n");
    assert!(view.open_read(&node(&view, "top")).is_err());
    // Another directory in a layer's place is not taken for it.
    stage.shell("mkdir l3; echo other > l3/top");
    let error = view.open_read(&node(&view, "top")).unwrap_err();
    assert_eq!(error.errno(), libc::ESTALE);
    stage.shell("rm -r l3; mv away/l1 away/l3 .");
    assert_eq!(bytes(&view, "top"), b"3\n");
}

#[test]
fn an_index_that_is_not_right_is_refused_and_made_anew() {
    let stage = Stage::new(2, "echo 1 > l1/a; echo 2 > l2/b");
    let layers = [stage.path("l2"), stage.path("l1")];
    let chain = Chain {
        layers: &layers,
        space: stage.space,
        ownership: stage.ownership,
    };
    let file = stage.path("index");
    let write = |bytes: &[u8]| {
        fs::write(stage.path("new"), bytes).unwrap();
        fs::rename(stage.path("new"), &file).unwrap();
    };
    assert_eq!(chain.open(&file).unwrap_err().errno(), libc::ENOENT);
    let good = chain.build().unwrap();
    write(&good);
    chain.open(&file).unwrap();
    for bad in [&b""[..], &good[..good.len() - 1], &good[1..], &[0; 512]] {
        write(bad);
        chain.open(&file).unwrap_err();
    }
    write(&good);
    chain.open(&file).unwrap();
    // Read in another way, in another order, or fewer of them.
    let ownership = Ownership::Override;
    Chain { ownership, ..chain }.open(&file).unwrap_err();
    let turned = [stage.path("l1"), stage.path("l2")];
    let layers = &turned[..];
    Chain { layers, ..chain }.open(&file).unwrap_err();
    let layers = &turned[1..];
    Chain { layers, ..chain }.open(&file).unwrap_err();
    // A layer that was unpacked again has other inodes.
    stage.shell("cp -a l1 again; rm -r l1; mv again l1");
    chain.open(&file).unwrap_err();
    write(&chain.build().unwrap());
    chain.open(&file).unwrap();
    // A layer that is gone.
    stage.shell("mv l1 gone");
    chain.open(&file).unwrap_err();
    chain.build().unwrap_err();
}

/// The digest is not looked at when an index is opened: whatever a broken disk made of it, there is an answer or an error.
#[test]
fn a_damaged_index_gives_errors_and_ends_nobody() {
    let stage = Stage::new(
        2,
        "mkdir -p l1/d/s l2/d; echo 1 > l1/d/s/a; echo 2 > l2/d/b; ln -s t l2/d/l",
    );
    let layers = [stage.path("l2"), stage.path("l1")];
    let chain = Chain {
        layers: &layers,
        space: stage.space,
        ownership: stage.ownership,
    };
    let good = chain.build().unwrap();
    let file = stage.path("index");
    let mut refused = 0;
    for at in (64..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        fs::write(stage.path("new"), &bad).unwrap();
        fs::rename(stage.path("new"), &file).unwrap();
        let Ok(index) = chain.open(&file) else {
            continue;
        };
        let view = stage.base_with(chain.lowers(), index);
        let Ok(view) = view else {
            refused += 1;
            continue;
        };
        let mut todo = vec![(view.root(), 0)];
        while let Some((dir, depth)) = todo.pop() {
            let listed = view.list(&dir);
            refused += usize::from(listed.is_err());
            for entry in listed.unwrap_or_default() {
                refused += usize::from(view.attr(&entry.node).is_err());
                let _target = view.read_link(&entry.node);
                let _bytes = view.open_read(&entry.node);
                if entry.node.is_dir() && depth < 4 {
                    todo.push((entry.node, depth + 1));
                }
            }
        }
    }
    assert!(refused > 0);
}

/// With an index no layer is opened; it is refused all the same, wherever it lies.
#[test]
fn an_upper_in_the_way_of_a_layer_with_an_index_is_refused() {
    let stage = Stage::new(
        0,
        "mkdir -p s/l/a/tree/in s/l/b/tree s/l/b/deep/tree/in/it w2",
    );
    let layers = ["s/l/b/deep/tree", "s/l/b/tree", "s/l/a/tree"].map(|name| stage.path(name));
    let chain = Chain {
        layers: &layers,
        space: stage.space,
        ownership: stage.ownership,
    };
    let index = stage.path("index");
    fs::write(&index, chain.build().unwrap()).unwrap();
    let open = |upper: &str, work: &str| {
        let mut given = stage.upper(Access::Exclusive);
        (given.dir, given.work) = (stage.path(upper), stage.path(work));
        stage.view_with(chain.lowers(), chain.open(&index).unwrap(), given)
    };
    for bad in [
        ".",
        "s",
        "s/l",
        "s/l/a",
        "s/l/b",
        "s/l/b/deep",
        "s/l/a/tree",
        "s/l/b/tree",
        "s/l/b/deep/tree",
        "s/l/a/tree/in",
        "s/l/b/deep/tree/in/it",
    ] {
        let is_overlap = |error: mille_union::Error| {
            assert!(error.to_string().ends_with(" overlap"), "{bad}: {error}");
        };
        is_overlap(open(bad, "w2").unwrap_err());
        is_overlap(open("u", bad).unwrap_err());
    }
    stage.shell("mkdir s/l/c s/u");
    for (good, work) in [("s/l/c", "s/u"), ("s/u", "w"), ("u", "s/l/c")] {
        open(good, work).unwrap();
    }
}

#[test]
fn layers_that_refer_to_one_another_get_no_index() {
    let space = if is_root() { "trusted" } else { "user" };
    for marked in ["l1", "l2"] {
        let stage = Stage::new(
            2,
            &format!(
                "mkdir l1/a l2/b {marked}/c; setfattr -n {space}.overlay.redirect -v /a {marked}/c"
            ),
        );
        let layers = [stage.path("l2"), stage.path("l1")];
        let chain = Chain {
            layers: &layers,
            space: stage.space,
            ownership: stage.ownership,
        };
        chain.build().unwrap_err();
    }
}

#[test]
fn five_hundred_layers_are_one_to_look_at_and_none_to_open() {
    let mut stage = Stage::new(
        500,
        "for l in l*; do mkdir $l/d; echo $l > $l/d/$l; echo $l > $l/d/same; done",
    );
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let plain = survey(&stage.base());
    stage.indexed = 500;
    let before = open();
    let view = stage.base();
    // Other tests of this process may open some meanwhile; not five hundred.
    assert!(open() < before + 250, "layers were opened");
    assert_eq!(survey(&view), plain);
}

/// The view of what a stage's upper shows, as the engine opens it for `diff`.
#[test]
fn an_observer_and_its_server_need_not_both_have_an_index() {
    let mut stage = Stage::new(
        3,
        "mkdir -p l1/d/s l2/d/s l3/d; echo 1 > l1/d/s/f; echo 2 > l3/d/g",
    );
    let view = stage.view();
    view.set_attr(
        &node(&view, "d/s/f"),
        &SetAttr {
            mode: Some(0o600),
            ..SetAttr::default()
        },
    )
    .unwrap();
    stage.indexed = 3;
    let seen = stage.try_view(Access::Observe).unwrap();
    assert_eq!(survey(&seen), survey(&view));
    let list = mille_union::changes::changes(&seen, &stage.base()).unwrap();
    let paths: Vec<_> = list.iter().map(|one| one.path.as_slice()).collect();
    assert_eq!(paths, [&b"d"[..], b"d/s", b"d/s/f"]);
    assert_eq!(OsStr::from_bytes(paths[2]), Path::new("d/s/f").as_os_str());
}
