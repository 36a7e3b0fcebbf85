//! docker's functions for templates.

use std::sync::Arc;

use gotmpl::parse::{Expr, Number};
use gotmpl::{Template, TemplateError, Value};

use super::values::{Known, Shape, find, is_null, plain_tree, shown};

/// docker's own.
pub(super) const OURS: &[&str] = &[
    "join", "json", "lower", "pad", "split", "title", "truncate", "upper",
];
/// Shows a value as Go prints it; no name a user could type.
pub(super) const SHOW: &str = " show";

/// What a function takes in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Anything,
    Text,
    Integer,
    Texts,
}

impl Expected {
    /// Go's name of the type.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Expected::Anything => "interface {}",
            Expected::Text => "string",
            Expected::Integer => "int",
            Expected::Texts => "[]string",
        }
    }

    /// Whether it takes a value.
    pub(super) fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Expected::Anything, _)
            | (Expected::Text, Value::String(_))
            | (Expected::Integer, Value::Int(_) | Value::Uint(_)) => true,
            (Expected::Texts, Value::List(items)) => {
                items.iter().all(|item| matches!(item, Value::String(_)))
            }
            _ => false,
        }
    }

    /// Go's words where the template itself has something else there, written as `words`.
    pub(super) fn refuses(self, arg: &Expr, words: &str) -> Option<String> {
        let text = match (self, arg) {
            (Expected::Anything, _) => return None,
            (Expected::Text | Expected::Integer, Expr::Nil(_)) => {
                format!("cannot assign nil to {}", self.shown())
            }
            (Expected::Text, Expr::Number(..) | Expr::Bool(..)) => {
                format!("expected string; found {words}")
            }
            (Expected::Integer, Expr::String(..) | Expr::Bool(..))
            | (Expected::Integer, Expr::Number(_, Number::Float(_))) => {
                format!("expected integer; found {words}")
            }
            (Expected::Texts, Expr::String(..) | Expr::Number(..) | Expr::Bool(..)) => {
                format!("can't handle {words} for arg of type []string")
            }
            _ => return None,
        };
        Some(text)
    }
}

/// What a function takes.
pub(super) struct Signature {
    types: &'static [Expected],
    /// How many there are at least where there may be more.
    least: Option<usize>,
}

impl Signature {
    /// What it takes in one place.
    pub(super) fn of(&self, index: usize) -> Expected {
        let expected = self.types.get(index).copied();
        expected.unwrap_or(Expected::Anything)
    }

    /// Go's words where the number of arguments is wrong.
    pub(super) fn miscounted(&self, name: &str, args: usize, piped: bool) -> Option<String> {
        let given = args + usize::from(piped);
        match self.least {
            Some(least) if given < least => Some(format!(
                "wrong number of args for {name}: want at least {least} got {args}"
            )),
            None if given != self.types.len() => Some(format!(
                "wrong number of args for {name}: want {} got {given}",
                self.types.len()
            )),
            _ => None,
        }
    }
}

/// Returns what a function takes.
pub(super) fn signature(name: &str) -> Signature {
    use Expected::{Anything, Integer, Text, Texts};
    let (types, least): (&[Expected], _) = match name {
        "json" | "len" | "not" => (&[Anything], None),
        "lower" | "title" | "upper" => (&[Text], None),
        "split" => (&[Text, Text], None),
        "join" => (&[Texts, Text], None),
        "truncate" => (&[Text, Integer], None),
        "pad" => (&[Text, Integer, Integer], None),
        "ge" | "gt" | "le" | "lt" | "ne" => (&[Anything, Anything], None),
        "printf" => (&[Text], Some(1)),
        "and" | "call" | "eq" | "index" | "or" | "slice" => (&[], Some(1)),
        _ => (&[], Some(0)),
    };
    Signature { types, least }
}

/// `nil` as of [`with_show`].
pub(super) fn docker_functions(
    template: Template,
    known: &Arc<Known>,
    nil: &'static str,
) -> Template {
    let originals = Arc::clone(known);
    let template = template
        .func("json", move |args| Ok(text(json(first(args), &originals))))
        .func("split", |args| {
            let pieces: Vec<Value> = words(args, 0)
                .split(words(args, 1).as_str())
                .map(|piece| text(piece.to_owned()))
                .collect();
            Ok(Value::List(pieces.into()))
        })
        .func("join", |args| {
            let items: Vec<String> = match first(args) {
                Value::List(items) => items.iter().map(ToString::to_string).collect(),
                _ => Vec::new(),
            };
            Ok(text(items.join(&words(args, 1))))
        })
        .func("title", |args| Ok(text(title(&words(args, 0)))))
        .func("lower", |args| Ok(text(words(args, 0).to_lowercase())))
        .func("upper", |args| Ok(text(words(args, 0).to_uppercase())))
        .func("pad", |args| {
            Ok(text(pad(&words(args, 0), number(args, 1), number(args, 2))))
        })
        .func("truncate", |args| {
            Ok(text(words(args, 0).chars().take(number(args, 1)).collect()))
        })
        .func("len", len);
    let nulls = Arc::clone(known);
    let template = template.func("index", move |args| index(args, &nulls));
    with_show(template, known, nil)
}

/// `nil` is what is shown of nothing.
pub(super) fn with_show(template: Template, known: &Arc<Known>, nil: &'static str) -> Template {
    let originals = Arc::clone(known);
    template.func(SHOW, move |args| {
        let value = first(args);
        Ok(match find(&originals, value) {
            None if matches!(value, Value::Nil) => text(nil.to_owned()),
            Some((tree, shape)) if *shape != Shape::Row => {
                text(shown(tree, "", *shape == Shape::Map))
            }
            _ => value.clone(),
        })
    })
}

pub(super) fn first(args: &[Value]) -> &Value {
    args.first().unwrap_or(&Value::Nil)
}

pub(super) fn text(text: String) -> Value {
    Value::String(Arc::from(text))
}

pub(super) fn words(args: &[Value], place: usize) -> String {
    args.get(place).map(ToString::to_string).unwrap_or_default()
}

fn number(args: &[Value], place: usize) -> usize {
    args.get(place)
        .and_then(Value::as_int)
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(0)
}

/// Upper case for the first letter of each word.
fn title(text: &str) -> String {
    let mut previous = ' ';
    let letters = text.chars().flat_map(|letter| {
        let begins = !(previous.is_alphanumeric() || previous == '_' || previous == '\'');
        previous = letter;
        let upper: Vec<char> = if begins {
            letter.to_uppercase().collect()
        } else {
            vec![letter]
        };
        upper
    });
    letters.collect()
}

/// Blanks around a text that is not empty.
fn pad(text: &str, before: usize, after: usize) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{}{text}{}", " ".repeat(before), " ".repeat(after))
    }
}

fn failed<T>(text: String) -> gotmpl::Result<T> {
    Err(TemplateError::Exec(text))
}

/// Go's `len`.
fn len(args: &[Value]) -> gotmpl::Result<Value> {
    let value = first(args);
    match value.len().and_then(|len| i64::try_from(len).ok()) {
        Some(len) => Ok(Value::Int(len)),
        None if matches!(value, Value::Nil) => failed("len of nil pointer".to_owned()),
        None => failed(format!("len of type {}", value.type_name())),
    }
}

/// Go's `index`; in a map of texts an absent key is the empty text.
fn index(args: &[Value], known: &Known) -> gotmpl::Result<Value> {
    let mut value = first(args).clone();
    for key in args.get(1..).unwrap_or_default() {
        if matches!(value, Value::Nil) || is_null(known, &value) {
            return failed("index of untyped nil".to_owned());
        }
        value = match (&value, key) {
            (Value::Map(map), Value::String(key)) => {
                let texts = map.values().all(|value| matches!(value, Value::String(_)));
                let absent = || {
                    if texts {
                        text(String::new())
                    } else {
                        Value::Nil
                    }
                };
                map.get(key).cloned().unwrap_or_else(absent)
            }
            (Value::Map(_), Value::Nil) => {
                return failed("value is nil; should be of type string".to_owned());
            }
            (Value::Map(_), key) => {
                let kind = key.type_name();
                return failed(format!("value has type {kind}; should be string"));
            }
            (Value::List(_) | Value::String(_), Value::Int(number)) => {
                // Go's own check lets the first index that is too large through.
                let len = value.len().and_then(|len| i64::try_from(len).ok());
                if len == Some(*number) {
                    return failed("reflect: slice index out of range".to_owned());
                }
                value.index(key)?
            }
            (Value::List(_) | Value::String(_), Value::Nil) => {
                return failed("cannot index slice/array with nil".to_owned());
            }
            (Value::List(_) | Value::String(_), key) => {
                let kind = key.type_name();
                return failed(format!("cannot index slice/array with type {kind}"));
            }
            (other, _) => return failed(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

fn json(value: &Value, known: &Known) -> String {
    match find(known, value) {
        Some((tree, Shape::Row)) => tree.escaped(),
        Some((tree, _)) => tree.compact(),
        None => plain_tree(value, known).compact(),
    }
}
