//! docker's functions for templates.

use std::sync::Arc;

use gotmpl::{Template, TemplateError, Value};

use super::values::{Known, Shape, find, plain_tree, shown};

/// docker's own.
pub(super) const OURS: &[&str] = &[
    "join", "json", "lower", "pad", "split", "title", "truncate", "upper",
];
/// Shows a value as Go prints it; no name a user could type.
pub(super) const SHOW: &str = " show";

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
        .func("join", |args| match first(args) {
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                Ok(text(items.join(&words(args, 1))))
            }
            other => Err(TemplateError::Exec(format!(
                "error calling join: expected a list, got {}",
                other.type_name()
            ))),
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
        .func("index", index);
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

/// Go's `index`; in a map of texts an absent key is the empty text.
fn index(args: &[Value]) -> gotmpl::Result<Value> {
    let mut value = first(args).clone();
    for key in args.get(1..).unwrap_or_default() {
        let texts = matches!(&value, Value::Map(map) if map.values().all(|value| matches!(value, Value::String(_))));
        value = match value.index(key)? {
            Value::Nil if texts => text(String::new()),
            found => found,
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
