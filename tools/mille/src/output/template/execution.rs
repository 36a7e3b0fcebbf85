//! What happens at the places of a template while it is executed, and Go's words for what goes wrong there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gotmpl::parse::SmolStr;
use gotmpl::{Template, TemplateError, Value};

use super::Missing;
use super::functions::{Expected, first};
use super::places::Place;
use super::values::{Known, TEXTS, find, is_null};

/// Begins a text that is complete: no text of gotmpl's does.
const COMPLETE: char = '\0';
/// No function is being called.
const NONE: usize = usize::MAX;

/// The places of a template while it is executed once.
#[derive(Debug, Clone)]
pub(super) struct Execution {
    places: Arc<Vec<Place>>,
    known: Arc<Known>,
    missing: Missing,
    /// Only the names of columns are filled in: they have no types.
    names: bool,
    /// The function that was called last.
    called: Arc<AtomicUsize>,
}

impl Execution {
    pub(super) fn new(
        places: &Arc<Vec<Place>>,
        known: &Arc<Known>,
        missing: Missing,
        names: bool,
    ) -> Self {
        Self {
            places: Arc::clone(places),
            known: Arc::clone(known),
            missing,
            names,
            called: Arc::new(AtomicUsize::new(NONE)),
        }
    }

    /// Gives a template the functions of its places.
    pub(super) fn prepare(&self, mut template: Template) -> Template {
        for number in 0..self.places.len() {
            let execution = self.clone();
            let pass = move |args: &[Value]| execution.pass(number, args);
            template = template.func(&Place::function(number), pass);
        }
        template
    }

    fn pass(&self, number: usize, args: &[Value]) -> gotmpl::Result<Value> {
        let value = first(args);
        match self.places.get(number) {
            Some(Place::Fail(text)) => Err(complete("", text)),
            Some(Place::Fields {
                fields,
                concrete,
                at,
            }) => self.fields(fields, *concrete, at, args),
            Some(Place::Typed { expected, at }) if !self.names => {
                let null = matches!(value, Value::Nil) || is_null(&self.known, value);
                if expected.takes(value) || null && *expected == Expected::Texts {
                    return Ok(value.clone());
                }
                let (expected, got) = (expected.shown(), self.type_of(value));
                let text = format!("wrong type for value; expected {expected}; got {got}");
                Err(complete(at, &text))
            }
            Some(Place::Range { at })
                if matches!(
                    value,
                    Value::Bool(_) | Value::String(_) | Value::Float(_) | Value::Function(_)
                ) =>
            {
                Err(complete(at, &format!("range can't iterate over {value}")))
            }
            Some(Place::Call { .. }) => {
                self.called.store(number, Ordering::Relaxed);
                Ok(value.clone())
            }
            _ => Ok(value.clone()),
        }
    }

    fn fields(
        &self,
        fields: &[SmolStr],
        concrete: bool,
        at: &str,
        args: &[Value],
    ) -> gotmpl::Result<Value> {
        let mut value = first(args).clone();
        let given = args.get(1..).unwrap_or_default();
        for (index, field) in fields.iter().enumerate() {
            let given = if index + 1 == fields.len() {
                given
            } else {
                &[]
            };
            let failed = |text: &str| Err(complete(at, text));
            let found = match &value {
                Value::Map(map) if !is_null(&self.known, &value) => {
                    map.get(field.as_str()).cloned()
                }
                value if matches!(value, Value::Nil) || is_null(&self.known, value) => {
                    match self.missing {
                        Missing::Key => {
                            let text = format!("nil pointer evaluating interface {{}}.{field}");
                            return failed(&text);
                        }
                        Missing::NoValue | Missing::Field(_) => return Ok(Value::Nil),
                    }
                }
                other => {
                    let kind = match self.missing {
                        Missing::Key if index > 0 || !concrete => "interface {}",
                        _ => self.type_of(other),
                    };
                    return failed(&format!("can't evaluate field {field} in type {kind}"));
                }
            };
            value = match found {
                Some(Value::Function(method)) if given.len() == 1 => return method(given),
                Some(Value::Function(_)) => return failed(&miscounted(field, 1, given.len())),
                Some(_) if !given.is_empty() => {
                    return failed(&match self.missing {
                        Missing::Field(_) => miscounted(field, 0, given.len()),
                        _ => format!("{field} is not a method but has arguments"),
                    });
                }
                Some(found) => found,
                None => self.absent(fields, index, at)?,
            };
        }
        Ok(value)
    }

    /// A field that is not there.
    fn absent(&self, fields: &[SmolStr], index: usize, at: &str) -> gotmpl::Result<Value> {
        let Some(field) = fields.get(index) else {
            return Ok(Value::Nil);
        };
        let map = index.checked_sub(1).and_then(|before| fields.get(before));
        match self.missing {
            Missing::NoValue => Ok(Value::Nil),
            // A map of texts lacks a key in Go's types as well: nothing, and no mistake.
            Missing::Key if map.is_some_and(|map| TEXTS.contains(&map.as_str())) => {
                Err(TemplateError::MissingKey {
                    key: field.to_string(),
                })
            }
            Missing::Key => {
                let text = format!("map has no entry for key {:?}", field.as_str());
                Err(complete(at, &text))
            }
            Missing::Field(kind) => {
                let text = format!("can't evaluate field {field} in type {kind}");
                Err(complete(at, &text))
            }
        }
    }

    /// Go's type of a value: what its JSON was decoded to, or what a column has.
    fn type_of(&self, value: &Value) -> &'static str {
        let decoded = matches!(self.missing, Missing::Key | Missing::NoValue);
        match value {
            value if is_null(&self.known, value) => "interface {}",
            Value::Nil => "interface {}",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::List(_) if decoded && find(&self.known, value).is_some() => "[]interface {}",
            Value::List(_) => "[]string",
            Value::Map(_) if decoded => "map[string]interface {}",
            Value::Map(_) => match self.missing {
                Missing::Field(kind) => kind,
                _ => "map[string]string",
            },
            Value::Int(_) | Value::Uint(_) | Value::Float(_) if decoded => "json.Number",
            other => other.type_name(),
        }
    }

    /// Go's text for an error.
    pub(super) fn explain(&self, name: &str, error: TemplateError) -> String {
        let text = match error {
            TemplateError::Exec(text) => match text.strip_prefix(COMPLETE) {
                Some(complete) => return complete.to_owned(),
                None => text,
            },
            TemplateError::IndexOutOfRange { index } => format!("index out of range: {index}"),
            TemplateError::ArgCount { .. } => "missing argument for comparison".to_owned(),
            TemplateError::RecursionLimit => {
                return format!("template: {name}: exceeded maximum template depth");
            }
            other => other.to_string(),
        };
        // What gotmpl adds to Go's words.
        let text = [
            "incompatible types for comparison",
            "invalid type for comparison",
        ]
        .into_iter()
        .find(|start| text.starts_with(start))
        .map_or(text.clone(), str::to_owned);
        match self.places.get(self.called.load(Ordering::Relaxed)) {
            Some(Place::Call { function, at }) => format!("{at}error calling {function}: {text}"),
            _ => format!("template: {name}: executing {name:?}: {text}"),
        }
    }
}

fn complete(at: &str, text: &str) -> TemplateError {
    TemplateError::Exec(format!("{COMPLETE}{at}{text}"))
}

fn miscounted(name: &str, wanted: usize, given: usize) -> String {
    format!("wrong number of args for {name}: want {wanted} got {given}")
}
