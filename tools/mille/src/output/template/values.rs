//! Values for templates, and what Go would know of their types.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gotmpl::Value;

use super::super::json::Tree;

/// Keys whose objects are maps in docker's Go types.
const MAPS: &[&str] = &[
    "Annotations",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];
/// Those of them whose values are texts: a key that is not there is nothing, and no mistake.
pub(super) const TEXTS: &[&str] = &[
    "Annotations",
    "DriverOpts",
    "Labels",
    "Options",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
];
/// Keys whose absent value is nil, not an empty list.
const POINTERS: &[&str] = &[
    "Health",
    "Healthcheck",
    "IPAMConfig",
    "Init",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "Platform",
    "SizeRootFs",
    "SizeRw",
    "StopTimeout",
];

/// What an object is in docker's Go types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Struct,
    Map,
    List,
    /// One line of a list: its JSON is written by Go's `json.Marshal`.
    Row,
}

pub(super) type Known = HashMap<usize, (Tree, Shape)>;

/// Values for a template.
#[derive(Debug)]
pub(crate) struct Data {
    pub(super) value: Value,
    pub(super) known: Arc<Known>,
}

impl Data {
    /// An object as inspect shows it; `absent` are keys of pointers that are nil and left out of the JSON.
    pub(crate) fn object(tree: &Tree, absent: &[&str]) -> Data {
        let mut known = Known::new();
        let mut root = entries(tree, &mut known);
        for key in absent {
            root.entry(Arc::from(*key)).or_insert(Value::Nil);
        }
        Self::finish(tree.clone(), Shape::Struct, root, known)
    }

    /// One line of a list; `methods` take arguments and are left out of its JSON.
    pub(crate) fn row(tree: &Tree, methods: Vec<(&str, gotmpl::ValueFunc)>) -> Data {
        let mut known = Known::new();
        let mut root = entries(tree, &mut known);
        root.extend(
            methods
                .into_iter()
                .map(|(name, method)| (Arc::from(name), Value::Function(method))),
        );
        Self::finish(tree.clone(), Shape::Row, root, known)
    }

    fn finish(tree: Tree, shape: Shape, root: BTreeMap<Arc<str>, Value>, mut known: Known) -> Data {
        let root = Arc::new(root);
        known.insert(address(&root), (tree, shape));
        Data {
            value: Value::Map(root),
            known: Arc::new(known),
        }
    }
}

fn address<T: ?Sized>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).cast::<()>().addr()
}

fn entries(tree: &Tree, known: &mut Known) -> BTreeMap<Arc<str>, Value> {
    let Tree::Map(entries) = tree else {
        return BTreeMap::new();
    };
    entries
        .iter()
        .map(|(key, tree)| (Arc::from(key.as_str()), value(tree, key, known)))
        .collect()
}

/// Whether the object (or nothing) under a key is a map.
fn is_map(key: &str, tree: &Tree) -> bool {
    // The options of a log driver and the configuration of a container share their name.
    let options = |tree: &Tree| matches!(tree, Tree::Map(all) if all.iter().all(|(_, value)| matches!(value, Tree::Text(_))));
    MAPS.contains(&key) || key == "Config" && options(tree)
}

fn value(tree: &Tree, key: &str, known: &mut Known) -> Value {
    match tree {
        Tree::Null if POINTERS.contains(&key) => Value::Nil,
        Tree::Null if is_map(key, tree) => shared_map(BTreeMap::new(), tree, Shape::Map, known),
        Tree::Null => shared_list(Vec::new(), tree, known),
        Tree::Bool(value) => Value::Bool(*value),
        Tree::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::Int(number),
            (_, Some(number), _) => Value::Uint(number),
            (_, _, number) => Value::Float(number.unwrap_or_default()),
        },
        Tree::Text(text) => Value::String(Arc::from(text.as_str())),
        Tree::List(items) => {
            let items = items.iter().map(|item| value(item, key, known)).collect();
            shared_list(items, tree, known)
        }
        Tree::Map(_) => {
            let shape = if is_map(key, tree) {
                Shape::Map
            } else {
                Shape::Struct
            };
            shared_map(entries(tree, known), tree, shape, known)
        }
    }
}

fn shared_map(
    map: BTreeMap<Arc<str>, Value>,
    tree: &Tree,
    shape: Shape,
    known: &mut Known,
) -> Value {
    let map = Arc::new(map);
    known.insert(address(&map), (tree.clone(), shape));
    Value::Map(map)
}

fn shared_list(items: Vec<Value>, tree: &Tree, known: &mut Known) -> Value {
    let items: Arc<[Value]> = items.into();
    known.insert(address(&items), (tree.clone(), Shape::List));
    Value::List(items)
}

pub(super) fn find<'k>(known: &'k Known, value: &Value) -> Option<&'k (Tree, Shape)> {
    match value {
        Value::Map(map) => known.get(&address(map)),
        Value::List(items) => known.get(&address(items)),
        _ => None,
    }
}

/// Whether a value stands for an absent list or map.
pub(super) fn is_null(known: &Known, value: &Value) -> bool {
    matches!(find(known, value), Some((Tree::Null, _)))
}

/// The JSON of a value that a function made.
pub(super) fn plain_tree(value: &Value, known: &Known) -> Tree {
    if let Some((tree, _)) = find(known, value) {
        return tree.clone();
    }
    match value {
        Value::Bool(value) => Tree::Bool(*value),
        Value::Int(number) => Tree::Number((*number).into()),
        Value::Uint(number) => Tree::Number((*number).into()),
        Value::Float(number) => {
            serde_json::Number::from_f64(*number).map_or(Tree::Null, Tree::Number)
        }
        Value::String(text) => Tree::Text(text.to_string()),
        Value::List(items) => {
            Tree::List(items.iter().map(|item| plain_tree(item, known)).collect())
        }
        Value::Map(map) => Tree::Map(
            map.iter()
                .map(|(key, item)| (key.to_string(), plain_tree(item, known)))
                .collect(),
        ),
        _ => Tree::Null,
    }
}

/// How Go prints a value: `[a b]`, `map[k:v]`, `{a b}`.
pub(super) fn shown(tree: &Tree, key: &str, map: bool) -> String {
    let inner = |key: &str, tree: &Tree| shown(tree, key, is_map(key, tree));
    match tree {
        Tree::Null if map => "map[]".to_owned(),
        Tree::Null if POINTERS.contains(&key) => "<nil>".to_owned(),
        Tree::Null => "[]".to_owned(),
        Tree::Text(text) => text.clone(),
        Tree::List(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(item, key, false)).collect();
            format!("[{}]", items.join(" "))
        }
        Tree::Map(entries) if map => {
            let sorted: BTreeMap<&str, &Tree> = entries
                .iter()
                .map(|(key, value)| (key.as_str(), value))
                .collect();
            let entries: Vec<String> = sorted
                .iter()
                .map(|(key, value)| format!("{key}:{}", inner(key, value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
        Tree::Map(entries) => {
            let values: Vec<String> = entries
                .iter()
                .map(|(key, value)| inner(key, value))
                .collect();
            format!("{{{}}}", values.join(" "))
        }
        other => other.compact(),
    }
}
