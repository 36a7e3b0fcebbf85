//! Tables for each rule, and random stacks against a model that merges by recursion.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One layer as a tree.
#[derive(Debug, Clone)]
enum Node {
    Whiteout,
    Other,
    File {
        metacopy: bool,
        redirect: Option<Redirect>,
    },
    Dir(Dir),
}

#[derive(Debug, Clone, Default)]
struct Dir {
    opaque: bool,
    implied: bool,
    redirect: Option<Redirect>,
    children: BTreeMap<Vec<u8>, Node>,
}

fn finding(node: Option<&Node>) -> Finding {
    match node {
        None => Finding::Absent,
        Some(Node::Whiteout) => Finding::Whiteout,
        Some(Node::Other) => Finding::Other,
        Some(Node::File { metacopy, redirect }) => Finding::File {
            metacopy: *metacopy,
            redirect: redirect.clone(),
        },
        Some(Node::Dir(dir)) => Finding::Dir {
            opaque: dir.opaque,
            redirect: dir.redirect.clone(),
            implied: dir.implied,
        },
    }
}

fn at<'t>(layer: &'t Dir, path: &[u8]) -> Option<&'t Node> {
    let (mut dir, mut node) = (layer, None);
    for name in path.split(|&byte| byte == b'/') {
        node = dir.children.get(name);
        match node {
            Some(Node::Dir(next)) => dir = next,
            _ => dir = Box::leak(Box::default()),
        }
    }
    node
}

fn run(mut lookup: Lookup<'_>, layers: &[Dir], parent: &[Place]) -> Resolution {
    let mut steps = 0;
    while let Some(next) = lookup.next() {
        steps += 1;
        assert!(steps < 1000, "must end");
        let found = match next {
            Next::Child { place, name } => {
                let place = parent[place].child(name);
                finding(at(&layers[place.layer], &place.path))
            }
            Next::Path { layer, components } => {
                finding(at(&layers[layer], &components.join(&b'/')))
            }
        };
        lookup.found(found);
    }
    lookup.finish()
}

/// Looks up a path name by name, as a filesystem does.
fn resolve(layers: &[Dir], path: &str, follow: Follow) -> Resolution {
    let mut places: Vec<Place> = (0..layers.len()).map(Place::root).collect();
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        let lookup = Lookup::new(&places, name.as_bytes(), layers.len(), follow);
        let resolution = run(lookup, layers, &places);
        match resolution {
            Resolution::Dir { places: next, .. } if names.peek().is_some() => places = next,
            last if names.peek().is_none() => return last,
            _ => return Resolution::Absent,
        }
    }
    Resolution::Absent
}

/// `NAME` file, `NAME/` directory, marks in brackets: `[o]paque`, `[i]mplied`, `[m]etacopy`, `[w]hiteout`, `[x]` other,
/// `[r=TARGET]` redirect.
fn layer(lines: &[&str]) -> Dir {
    let mut root = Dir::default();
    for line in lines {
        let (path, mark) = line.split_once(" [").unwrap_or((line, "]"));
        let mark = mark.strip_suffix(']').unwrap();
        let redirect = mark
            .split_once("r=")
            .map(|(_, target)| Redirect::parse(target.as_bytes()).unwrap());
        let flags = mark.split("r=").next().unwrap();
        let node = if path.ends_with('/') {
            Node::Dir(Dir {
                opaque: flags.contains('o'),
                implied: flags.contains('i'),
                redirect,
                children: BTreeMap::new(),
            })
        } else if flags.contains('w') {
            Node::Whiteout
        } else if flags.contains('x') {
            Node::Other
        } else {
            Node::File {
                metacopy: flags.contains('m'),
                redirect,
            }
        };
        let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let (name, dirs) = parts.split_last().unwrap();
        let mut dir = &mut root;
        for part in dirs {
            let child = dir.children.entry(part.as_bytes().to_vec());
            match child.or_insert_with(|| Node::Dir(Dir::default())) {
                Node::Dir(child) => dir = child,
                other => panic!("{other:?}"),
            }
        }
        dir.children.insert(name.as_bytes().to_vec(), node);
    }
    root
}

/// `0:a 2:b @1` = directory of these places, attributes from the second; `0:a` object; `0:a>2:b` data elsewhere.
fn show(resolution: &Resolution) -> String {
    let place = |place: &Place| format!("{}:{}", place.layer, String::from_utf8_lossy(&place.path));
    match resolution {
        Resolution::Absent => "-".into(),
        Resolution::Dir { places, attributes } => {
            format!(
                "{} @{attributes}",
                places.iter().map(place).collect::<Vec<_>>().join(" ")
            )
        }
        Resolution::Object {
            place: object,
            data: Some(data),
        } if object == data => place(object),
        Resolution::Object {
            place: object,
            data,
        } => {
            format!(
                "{}>{}",
                place(object),
                data.as_ref().map_or("?".into(), place)
            )
        }
        Resolution::Refused { place: object } => format!("refused {}", place(object)),
    }
}

/// Rule, layers from the top, path, answer.
type Case = (
    &'static str,
    &'static [&'static [&'static str]],
    &'static str,
    &'static str,
);

const CASES: &[Case] = &[
    ("top wins", &[&["a"], &["a"]], "a", "0:a"),
    ("looks further down", &[&[], &["a"]], "a", "1:a"),
    ("file hides directory", &[&["a"], &["a/"]], "a", "0:a"),
    (
        "directories merge",
        &[&["a/"], &["a/"], &[], &["a/"]],
        "a",
        "0:a 1:a 3:a @0",
    ),
    (
        "file ends a merge",
        &[&["a/"], &["a"], &["a/"]],
        "a",
        "0:a @0",
    ),
    (
        "other ends a merge",
        &[&["a/"], &["a [x]"], &["a/"]],
        "a",
        "0:a @0",
    ),
    (
        "whiteout ends a merge",
        &[&["a/"], &["a [w]"], &["a/"]],
        "a",
        "0:a @0",
    ),
    ("whiteout hides", &[&["a [w]"], &["a"]], "a", "-"),
    ("opaque hides", &[&["a/ [o]"], &["a/"]], "a", "0:a @0"),
    ("child of opaque", &[&["a/ [o]"], &["a/b"]], "a/b", "-"),
    (
        "opaque in the middle",
        &[&["a/"], &["a/ [o]"], &["a/"]],
        "a",
        "0:a 1:a @0",
    ),
    (
        "implied attributes",
        &[&["a/ [i]"], &["a/ [i]"], &["a/"]],
        "a",
        "0:a 1:a 2:a @2",
    ),
    (
        "all implied",
        &[&["a/ [i]"], &["a/ [i]"]],
        "a",
        "0:a 1:a @0",
    ),
    (
        "sibling redirect",
        &[&["b/ [r=a]"], &["a/"], &["a/", "b/"]],
        "b",
        "0:b 1:a 2:a @0",
    ),
    (
        "sibling redirect, again",
        &[&["c/ [r=b]"], &["b/ [r=a]"], &["a/"]],
        "c",
        "0:c 1:b 2:a @0",
    ),
    (
        "absolute redirect",
        &[&["d/b/ [r=/e/a]"], &["e/a/"], &["e/a/"]],
        "d/b",
        "0:d/b 1:e/a 2:e/a @0",
    ),
    (
        "absolute past opaque",
        &[&["d/ [o]", "d/b/ [r=/a]"], &["a/"]],
        "d/b",
        "0:d/b 1:a @0",
    ),
    (
        "opaque redirect is dead",
        &[&["b/ [or=a]"], &["a/"]],
        "b",
        "0:b @0",
    ),
    (
        "whiteout on the way",
        &[&["b/ [r=/x/a]"], &["x [w]"], &["x/a/"]],
        "b",
        "0:b @0",
    ),
    (
        "file on the way",
        &[&["b/ [r=/x/a]"], &["x"], &["x/a/"]],
        "b",
        "0:b @0",
    ),
    (
        "opaque on the way",
        &[&["b/ [r=/x/a]"], &["x/ [o]", "x/a/"], &["x/a/"]],
        "b",
        "0:b 1:x/a @0",
    ),
    (
        "opaque on the way, absent",
        &[&["b/ [r=/x/a]"], &["x/ [o]"], &["x/a/"]],
        "b",
        "0:b @0",
    ),
    (
        "redirect on the way",
        &[&["b/ [r=/x/a]"], &["x/ [r=y]"], &["y/a/"]],
        "b",
        "0:b 2:y/a @0",
    ),
    (
        "two redirects on the way",
        &[
            &["b/ [r=/x/y/a]"],
            &["x/ [r=/m/n]", "x/y/ [r=z]"],
            &["m/n/z/a/"],
        ],
        "b",
        "0:b 2:m/n/z/a @0",
    ),
    (
        "absolute redirect past opaque on the way",
        &[&["b/ [r=/x/a]"], &["x/ [o]", "x/a/ [r=/y]"], &["y/"]],
        "b",
        "0:b 1:x/a 2:y @0",
    ),
    ("metacopy", &[&["a [m]"], &[], &["a"]], "a", "0:a>2:a"),
    (
        "metacopy chain",
        &[&["a [m]"], &["a [m]"], &["a"]],
        "a",
        "0:a>2:a",
    ),
    (
        "metacopy renamed",
        &[&["b [mr=a]"], &["a"], &["b"]],
        "b",
        "0:b>1:a",
    ),
    (
        "metacopy moved",
        &[&["b [mr=/x/a]"], &["x/a"]],
        "b",
        "0:b>1:x/a",
    ),
    (
        "metacopy without data",
        &[&["a [m]"], &["a/"], &["a"]],
        "a",
        "0:a>?",
    ),
    (
        "metacopy and whiteout",
        &[&["a [m]"], &["a [w]"], &["a"]],
        "a",
        "0:a>?",
    ),
    (
        "file's redirect without metacopy",
        &[&["b [r=a]"], &["a"]],
        "b",
        "0:b",
    ),
    ("other object", &[&["a [x]"], &["a/"]], "a", "0:a"),
];

#[test]
fn rules() {
    for (name, layers, path, want) in CASES {
        let layers: Vec<Dir> = layers.iter().map(|lines| layer(lines)).collect();
        assert_eq!(show(&resolve(&layers, path, Follow::ALL)), *want, "{name}");
    }
}

#[test]
fn marks_that_may_not_be_followed_refuse() {
    let layers = [
        layer(&["b/ [r=a]", "m [m]", "p/ [r=/b/x]"]),
        layer(&["a/", "m", "b/ [r=a]"]),
        layer(&["z/ [r=y]"]),
    ];
    let none = Follow {
        redirect: false,
        metacopy: false,
    };
    assert_eq!(show(&resolve(&layers, "b", none)), "refused 0:b");
    assert_eq!(show(&resolve(&layers, "m", none)), "refused 0:m");
    // In the lowest layer it has nothing to lead to.
    assert_eq!(show(&resolve(&layers, "z", none)), "2:z @0");
}

#[test]
fn lookups_from_the_root() {
    let layers = [layer(&["x/ [r=/y]"]), layer(&["y/a"])];
    let from_root = |path: &[&[u8]]| {
        let components = path.iter().map(|part| part.to_vec()).collect();
        show(&run(
            Lookup::from_root(components, 0, 2, Follow::ALL),
            &layers,
            &[],
        ))
    };
    assert_eq!(from_root(&[]), "0: 1: @0");
    assert_eq!(from_root(&[b"x"]), "0:x 1:y @0");
    assert_eq!(from_root(&[b"x", b"a"]), "1:y/a");
    assert_eq!(from_root(&[b"x", b"b"]), "-");
}

#[test]
fn redirects_are_parsed_strictly() {
    for (value, legal) in [
        ("a", true),
        ("/a", true),
        ("/a/b", true),
        ("..a", true),
        ("", false),
        ("/", false),
        ("a/b", false),
        ("/a//b", false),
        ("/a/", false),
        ("/../a", false),
        ("..", false),
        (".", false),
        ("/a/.", false),
        ("a\0", false),
    ] {
        let parsed = Redirect::parse(value.as_bytes());
        assert_eq!(parsed.is_some(), legal, "{value:?}");
        if let Some(redirect) = parsed {
            assert_eq!(redirect.to_value(), value.as_bytes());
        }
    }
}

/// The model: what layers from `from` on show at a path, by merging whole directories recursively.
#[derive(Debug, Clone)]
enum Merged<'t> {
    Absent,
    Dir(Vec<(Place, &'t Dir)>),
    File { place: Place, data: Option<Place> },
    Other(Place),
}

struct Model<'t>(&'t [Dir]);

impl<'t> Model<'t> {
    fn path(&self, from: usize, components: &[Vec<u8>]) -> Merged<'t> {
        let roots = (from..self.0.len())
            .map(|layer| (Place::root(layer), &self.0[layer]))
            .collect();
        let mut merged = Merged::Dir(roots);
        for name in components {
            merged = match merged {
                Merged::Dir(list) => self.child(&list, name),
                _ => return Merged::Absent,
            };
        }
        merged
    }

    /// What is below an object: under its redirect, or under the same name in what is left of the list.
    fn below(
        &self,
        list: &[(Place, &'t Dir)],
        layer: usize,
        name: &[u8],
        redirect: &Option<Redirect>,
    ) -> Merged<'t> {
        match redirect {
            Some(Redirect::Absolute(components)) => self.path(layer + 1, components),
            Some(Redirect::Sibling(sibling)) => self.child(list, sibling),
            None => self.child(list, name),
        }
    }

    fn child(&self, list: &[(Place, &'t Dir)], name: &[u8]) -> Merged<'t> {
        let Some(((place, dir), rest)) = list.split_first() else {
            return Merged::Absent;
        };
        let here = place.child(name);
        match dir.children.get(name) {
            None => self.child(rest, name),
            Some(Node::Whiteout) => Merged::Absent,
            Some(Node::Other) => Merged::Other(here),
            Some(Node::File {
                metacopy: false, ..
            }) => Merged::File {
                data: Some(here.clone()),
                place: here,
            },
            Some(Node::File {
                metacopy: true,
                redirect,
            }) => {
                let data = match self.below(rest, here.layer, name, redirect) {
                    Merged::File { data, .. } => data,
                    _ => None,
                };
                Merged::File { place: here, data }
            }
            Some(Node::Dir(child)) => {
                let mut merged = vec![(here.clone(), child)];
                if !child.opaque
                    && let Merged::Dir(more) = self.below(rest, here.layer, name, &child.redirect)
                {
                    merged.extend(more);
                }
                Merged::Dir(merged)
            }
        }
    }

    fn resolve(&self, path: &str) -> Resolution {
        let components: Vec<Vec<u8>> = path
            .split('/')
            .map(|part| part.as_bytes().to_vec())
            .collect();
        match self.path(0, &components) {
            Merged::Absent => Resolution::Absent,
            Merged::Other(place) => Resolution::Object {
                data: Some(place.clone()),
                place,
            },
            Merged::File { place, data } => Resolution::Object { place, data },
            Merged::Dir(list) => Resolution::Dir {
                attributes: list.iter().position(|(_, dir)| !dir.implied).unwrap_or(0),
                places: list.into_iter().map(|(place, _)| place).collect(),
            },
        }
    }
}

fn redirect_strategy() -> impl Strategy<Value = Option<Redirect>> {
    let name = || prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    prop_oneof![
        3 => Just(None),
        1 => name().prop_map(|name| Some(Redirect::Sibling(name))),
        1 => prop::collection::vec(name(), 1..4).prop_map(|parts| Some(Redirect::Absolute(parts))),
    ]
}

fn dir_strategy() -> impl Strategy<Value = Dir> {
    let leaf = prop_oneof![
        1 => Just(Node::Whiteout),
        1 => Just(Node::Other),
        2 => (any::<bool>(), redirect_strategy())
            .prop_map(|(metacopy, redirect)| Node::File { metacopy, redirect }),
    ];
    let name = || prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    let node = leaf.prop_recursive(3, 24, 3, move |inner| {
        let children = prop::collection::btree_map(name(), inner, 0..4);
        (
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.3),
            redirect_strategy(),
            children,
        )
            .prop_map(|(opaque, implied, redirect, children)| {
                Node::Dir(Dir {
                    opaque,
                    implied,
                    redirect,
                    children,
                })
            })
    });
    prop::collection::btree_map(name(), node, 0..4).prop_map(|children| Dir {
        children,
        ..Dir::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn lookups_agree_with_merging_by_recursion(layers in prop::collection::vec(dir_strategy(), 1..6)) {
        for depth in 1..4 {
            for index in 0..3usize.pow(depth) {
                let path: Vec<&str> =
                    (0..depth).map(|digit| ["a", "b", "c"][index / 3usize.pow(digit) % 3]).collect();
                let path = path.join("/");
                let want = Model(&layers).resolve(&path);
                prop_assert_eq!(show(&resolve(&layers, &path, Follow::ALL)), show(&want), "{}", path);
                let components = path.split('/').map(|part| part.as_bytes().to_vec()).collect();
                let from_root = Lookup::from_root(components, 0, layers.len(), Follow::ALL);
                prop_assert_eq!(show(&run(from_root, &layers, &[])), show(&want), "root {}", path);
            }
        }
    }
}
