//! `--format`: Go templates with docker's functions over JSON values.
//!
//! Values are docker's JSON, so what Go knows of types is told by the names of keys: which objects are Go maps (shown as
//! `map[k:v]`) and which are structs (`{a b}`), and what an absent value is (an empty list, an empty map, nil). The order of
//! keys is kept beside the values, found again by the address of the shared object.

mod execution;
mod functions;
mod lexer;
mod parser;
mod pipelines;
mod places;
mod syntax;
mod values;

use std::sync::Arc;

use gotmpl::parse::{ListNode, SmolStr};
use gotmpl::{MissingKey, Template, TemplateError};

use self::execution::Execution;
use self::functions::{OURS, docker_functions, first, with_show};
use self::places::{Finder, Place};
use self::syntax::{is_function, reads_field, reads_whole};
pub(crate) use self::values::Data;

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
    missing: Missing,
    /// The template itself first, then those it defines.
    trees: Vec<ListNode>,
    /// The same as they are executed.
    executed: Vec<(SmolStr, ListNode)>,
    places: Arc<Vec<Place>>,
}

impl Format {
    /// Parses a template; errors are Go's texts, `template: :1: unclosed action`.
    pub(crate) fn parse(
        name: &'static str,
        source: &str,
        missing: Missing,
    ) -> Result<Format, String> {
        let parsed = parser::parse(name, source, is_function)?;
        let mut names = vec![SmolStr::new(MAIN)];
        let mut trees = vec![parsed.main];
        for define in parsed.defined {
            names.push(define.name);
            trees.push(define.body);
        }
        let mut places = Vec::new();
        let executed = names.iter().zip(&trees).map(|(tree_name, tree)| {
            let mut finder = Finder {
                name,
                executing: if tree_name == MAIN { name } else { tree_name },
                source,
                literals: &parsed.literals,
                defined: &names,
                concrete: false,
                places: &mut places,
            };
            (tree_name.clone(), finder.list(tree))
        });
        let executed = executed.collect();
        Ok(Format {
            name,
            missing,
            trees,
            executed,
            places: Arc::new(places),
        })
    }

    /// Returns whether the template reads a field of the outermost value (or of any).
    pub(crate) fn reads(&self, field: &str) -> bool {
        self.trees.iter().any(|tree| reads_field(tree, field))
    }

    /// Returns whether the template takes its value as a whole: `{{json .}}`.
    pub(crate) fn reads_all(&self) -> bool {
        self.trees.iter().any(reads_whole)
    }

    /// Fills in the template; errors are Go's texts.
    pub(crate) fn render(&self, data: &Data) -> Result<String, String> {
        match self.fill_in(data, self.missing) {
            // A key that is nothing and no mistake.
            Err(None) => self
                .fill_in(data, Missing::NoValue)
                .map_err(Option::unwrap_or_default),
            shown => shown.map_err(Option::unwrap_or_default),
        }
    }

    /// An error of `None`: a key of a map of texts is missing.
    fn fill_in(&self, data: &Data, missing: Missing) -> Result<String, Option<String>> {
        let execution = Execution::new(&self.places, &data.known, missing, false);
        let template = docker_functions(Template::new(self.name), &data.known, missing.nil());
        let shown = self.run(template, &execution, data);
        shown.map_err(|error| match error {
            TemplateError::MissingKey { .. } => None,
            error => Some(execution.explain(self.name, error)),
        })
    }

    /// Fills in the names of columns: functions leave them as they are.
    pub(crate) fn render_header(&self, data: &Data) -> Result<String, String> {
        let execution = Execution::new(&self.places, &data.known, self.missing, true);
        let mut template = Template::new(self.name);
        for name in OURS {
            template = template.func(name, |args| Ok(first(args).clone()));
        }
        let template = with_show(template, &data.known, self.missing.nil());
        let shown = self.run(template, &execution, data);
        shown.map_err(|error| execution.explain(self.name, error))
    }

    fn run(
        &self,
        template: Template,
        execution: &Execution,
        data: &Data,
    ) -> Result<String, TemplateError> {
        // Fields are read by the places; nothing else meets a missing key.
        let template = template.missing_key(MissingKey::Invalid);
        let mut template = execution.prepare(template);
        for (name, tree) in &self.executed {
            template = template.add_parse_tree(name, tree.clone());
        }
        template.execute_template_to_string(MAIN, &data.value)
    }
}

/// The name under which the template itself is kept; no name a user could define.
const MAIN: &str = "\0";

#[cfg(test)]
mod tests;
