//! JSON that keeps the order of its keys, printed the way docker prints it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

use crate::failure::Failure;

/// A JSON value; keys in the order in which they came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Tree>),
    /// An object.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Makes a tree of anything that can be serialised.
    pub(crate) fn of(value: &impl Serialize) -> Result<Tree, Failure> {
        let text = serde_json::to_string(value).map_err(Failure::plain)?;
        serde_json::from_str(&text).map_err(Failure::plain)
    }

    /// Makes an object of texts.
    pub(crate) fn texts<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Tree {
        Tree::Map(
            pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), Tree::Text(value)))
                .collect(),
        )
    }

    /// On one line, without blanks.
    pub(crate) fn compact(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None);
        out
    }

    /// As Go's `json.Marshal`: `<`, `>` and `&` as numbers.
    pub(crate) fn escaped(&self) -> String {
        let text = self.compact();
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    }

    /// Indented by four blanks.
    pub(crate) fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out
    }

    fn write(&self, out: &mut String, depth: Option<usize>) {
        match self {
            Tree::Null => out.push_str("null"),
            Tree::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Tree::Number(number) => out.push_str(&number.to_string()),
            Tree::Text(text) => write_text(out, text),
            Tree::List(items) => {
                write_items(out, ('[', ']'), depth, items.iter(), |out, item, depth| {
                    item.write(out, depth);
                });
            }
            Tree::Map(entries) => write_items(
                out,
                ('{', '}'),
                depth,
                entries.iter(),
                |out, (key, value), depth| {
                    write_text(out, key);
                    out.push_str(if depth.is_some() { ": " } else { ":" });
                    value.write(out, depth);
                },
            ),
        }
    }
}

fn write_items<T>(
    out: &mut String,
    (open, close): (char, char),
    depth: Option<usize>,
    items: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut String, T, Option<usize>),
) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    let empty = items.len() == 0;
    out.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        if let Some(depth) = depth {
            line(out, depth + 1);
        }
        write(out, item, depth.map(|depth| depth + 1));
    }
    if let (Some(depth), false) = (depth, empty) {
        line(out, depth);
    }
    out.push(close);
}

/// Go's way: control characters as `\u0001`, the two line separators of Unicode as well.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\0'..'\x20' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => serializer.serialize_unit(),
            Tree::Bool(value) => serializer.serialize_bool(*value),
            Tree::Number(number) => number.serialize(serializer),
            Tree::Text(text) => serializer.serialize_str(text),
            Tree::List(items) => items.serialize(serializer),
            Tree::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_layout_stay() {
        let text = r#"{"b":1,"a":[],"c":{},"d":["<x>",null,-2,1.5],"e":{"k":"\u0001\n"}}"#;
        let tree: Tree = serde_json::from_str(text).unwrap();
        assert_eq!(tree.compact(), text);
        assert_eq!(
            tree.escaped(),
            text.replace('<', "\\u003c").replace('>', "\\u003e")
        );
        assert_eq!(
            tree.pretty(),
            "{\n    \"b\": 1,\n    \"a\": [],\n    \"c\": {},\n    \"d\": [\n        \"<x>\",\n        null,\n        -2,\n        \
             1.5\n    ],\n    \"e\": {\n        \"k\": \"\\u0001\\n\"\n    }\n}"
        );
    }
}
