//! `--format`: Go templates with docker's functions over JSON values.
//!
//! Values are docker's JSON, so what Go knows of types is told by the names of keys: which objects are Go maps (shown as
//! `map[k:v]`) and which are structs (`{a b}`), and what an absent value is (an empty list, an empty map, nil). The order of
//! keys is kept beside the values, found again by the address of the shared object.

mod functions;
mod syntax;
mod values;

use gotmpl::parse::{ListNode, Parser};
use gotmpl::{MissingKey, Template, TemplateError};

use self::functions::{OURS, docker_functions, first, with_show};
use self::syntax::{first_read, reads_whole, rewrite_list, unknown_function};
pub(crate) use self::values::Data;
use self::values::TEXTS;

/// What is said of a field that is not there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Missing {
    /// As of a map.
    Key,
    /// Nothing: `<no value>` stands in its place, as in docker's maps of texts.
    NoValue,
    /// As of a Go type.
    Field(&'static str),
}

impl Missing {
    /// What is shown of nothing.
    fn nil(self) -> &'static str {
        match self {
            Missing::NoValue => "<no value>",
            Missing::Key | Missing::Field(_) => "<nil>",
        }
    }
}

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Format {
    name: &'static str,
    source: String,
    missing: Missing,
    /// The template itself first, then those it defines.
    trees: Vec<(String, ListNode)>,
}

impl Format {
    /// Parses a template; errors are Go's texts, `template: :1: unclosed action`.
    pub(crate) fn parse(
        name: &'static str,
        source: &str,
        missing: Missing,
    ) -> Result<Format, String> {
        let parsed = Parser::new(source, "{{", "}}").and_then(Parser::parse);
        let (main, defined) = parsed.map_err(|error| parse_error(name, &error))?;
        let mut trees = vec![(MAIN.to_owned(), main)];
        trees.extend(
            defined
                .into_iter()
                .map(|define| (define.name.to_string(), define.body)),
        );
        for (_, tree) in &mut trees {
            if let Some((line, function)) = unknown_function(tree) {
                return Err(format!(
                    "template: {name}:{line}: function \"{function}\" not defined"
                ));
            }
            rewrite_list(tree);
        }
        Ok(Format {
            name,
            source: source.to_owned(),
            missing,
            trees,
        })
    }

    /// Returns whether the template reads a field of the outermost value (or of any).
    pub(crate) fn reads(&self, field: &str) -> bool {
        self.trees
            .iter()
            .any(|(_, tree)| first_read(tree, field).is_some())
    }

    /// Returns whether the template takes its value as a whole: `{{json .}}`.
    pub(crate) fn reads_all(&self) -> bool {
        self.trees.iter().any(|(_, tree)| reads_whole(tree))
    }

    /// Fills in the template; errors are Go's texts.
    pub(crate) fn render(&self, data: &Data) -> Result<String, String> {
        let run = |missing: Missing| {
            let template = docker_functions(Template::new(self.name), &data.known, missing.nil());
            self.run(template, data, missing)
        };
        let shown = match (run(self.missing), self.missing) {
            // A map of texts lacks a key in Go's types as well: nothing, and no mistake.
            (Err(TemplateError::MissingKey { key }), Missing::Key) if self.reads_text(&key) => {
                run(Missing::NoValue)
            }
            (shown, _) => shown,
        };
        shown.map_err(|error| self.explain(error))
    }

    /// Whether a key is read of what is a map of texts in docker's Go types: `.Config.Labels.key`.
    fn reads_text(&self, key: &str) -> bool {
        let mut reads = self
            .trees
            .iter()
            .filter_map(|(_, tree)| first_read(tree, key));
        reads.any(|(_, expression)| {
            let mut parts = expression.rsplit('.');
            parts.next() == Some(key) && parts.next().is_some_and(|map| TEXTS.contains(&map))
        })
    }

    /// Fills in the names of columns: functions leave them as they are.
    pub(crate) fn render_header(&self, data: &Data) -> Result<String, String> {
        let mut template = Template::new(self.name);
        for name in OURS {
            template = template.func(name, |args| Ok(first(args).clone()));
        }
        let template = with_show(template, &data.known, self.missing.nil());
        let shown = self.run(template, data, self.missing);
        shown.map_err(|error| self.explain(error))
    }

    fn run(
        &self,
        template: Template,
        data: &Data,
        missing: Missing,
    ) -> Result<String, TemplateError> {
        let missing = match missing {
            Missing::NoValue => MissingKey::Invalid,
            Missing::Key | Missing::Field(_) => MissingKey::Error,
        };
        let mut template = template.missing_key(missing);
        for (name, tree) in &self.trees {
            template = template.add_parse_tree(name, tree.clone());
        }
        template.execute_template_to_string(MAIN, &data.value)
    }

    /// Go's text for an error of execution; where it happened is found again by the field's name.
    fn explain(&self, error: TemplateError) -> String {
        let name = self.name;
        match error {
            TemplateError::MissingKey { key } => {
                let text = match self.missing {
                    Missing::Key | Missing::NoValue => {
                        format!("map has no entry for key \"{key}\"")
                    }
                    Missing::Field(kind) => format!("can't evaluate field {key} in type {kind}"),
                };
                let read = self
                    .trees
                    .iter()
                    .find_map(|(_, tree)| first_read(tree, &key));
                let Some((place, expression)) = read else {
                    return format!("template: {name}: {text}");
                };
                let (line, column) = self.position(place);
                format!(
                    "template: {name}:{line}:{column}: executing \"{name}\" at <{expression}>: {text}"
                )
            }
            TemplateError::Exec(text) => format!("template: {name}: executing \"{name}\": {text}"),
            other => format!("template: {name}: executing \"{name}\": {other}"),
        }
    }

    /// Line and column of an offset as Go counts them: lines from 1, columns from 0.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.source.get(..offset).unwrap_or(&self.source);
        let line = before.matches('\n').count() + 1;
        (
            line,
            before.len() - before.rfind('\n').map_or(0, |newline| newline + 1),
        )
    }
}

/// The name under which the template itself is kept; no name a user could define.
const MAIN: &str = "\0";

fn parse_error(name: &str, error: &TemplateError) -> String {
    match error {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            format!("template: {name}:{line}: {message}")
        }
        other => format!("template: {name}:1: {other}"),
    }
}

#[cfg(test)]
mod tests;
