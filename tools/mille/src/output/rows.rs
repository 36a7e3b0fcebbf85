//! Lists: a table with a header, or each row through a template.

use std::sync::Arc;

use gotmpl::{Value, ValueFunc};

use super::json::Tree;
use super::table;
use super::template::{Data, Format, Missing};
use crate::failure::Failure;

/// What a command lists.
#[derive(Debug)]
pub(crate) struct List {
    /// The template of the plain table.
    pub(crate) table: String,
    /// What `--format raw` gives.
    pub(crate) raw: &'static str,
    /// The titles of the fields.
    pub(crate) titles: &'static [(&'static str, &'static str)],
    /// docker's Go type of a row, for errors.
    pub(crate) kind: &'static str,
    /// What comes before the text of a template that does not parse, and of one that fails.
    pub(crate) errors: (&'static str, &'static str),
}

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its fields, sorted by name.
    pub(crate) fields: Tree,
    /// Its labels, for `.Label "name"`.
    pub(crate) labels: Option<std::collections::BTreeMap<String, String>>,
}

impl Row {
    /// Gives a field another text.
    pub(crate) fn set(&mut self, name: &str, text: String) {
        if let Tree::Map(fields) = &mut self.fields {
            let place = fields.iter_mut().find(|(field, _)| field == name);
            if let Some((_, value)) = place {
                *value = Tree::Text(text);
            }
        }
    }
}

/// A list whose format has been read.
#[derive(Debug)]
pub(crate) struct Sheet<'l> {
    list: &'l List,
    format: Format,
    is_table: bool,
    /// The format is the user's own, not a name.
    custom: bool,
}

impl List {
    /// Reads what the user said about the format; empty takes the table.
    pub(crate) fn sheet(&self, format: &str) -> Result<Sheet<'_>, Failure> {
        let named = format.strip_prefix("table").map(str::trim);
        let (source, is_table, custom) = match (format, named) {
            ("", _) | (_, Some("")) => (self.table.as_str(), true, false),
            (_, Some(columns)) => (columns, true, true),
            ("json", _) => ("{{json .}}", false, false),
            ("raw", _) => (self.raw, false, false),
            (template, _) => (template, false, true),
        };
        let source = source.replace("\\t", "\t").replace("\\n", "\n");
        let format = Format::parse("", &source, Missing::Field(self.kind));
        let format = format.map_err(|text| Failure::plain(format!("{}{text}", self.errors.0)))?;
        Ok(Sheet {
            list: self,
            format,
            is_table,
            custom,
        })
    }

    /// A sheet that shows one field a line and nothing else.
    pub(crate) fn quiet(&self, field: &'static str) -> Result<Sheet<'_>, Failure> {
        self.sheet(&format!("{{{{.{field}}}}}"))
    }
}

impl Sheet<'_> {
    /// Returns whether the user's own template reads a field, by its name or with all of the row.
    pub(crate) fn asks_for(&self, field: &str) -> bool {
        self.custom && (self.format.reads(field) || self.format.reads_all())
    }

    /// Complains of fields that no row has, also where there is no row.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let shown = self.format.render(&self.titles());
        shown
            .map(drop)
            .map_err(|text| Failure::plain(format!("{}{text}", self.list.errors.1)))
    }

    /// Lays the rows out.
    pub(crate) fn lay_out(&self, rows: &[Row]) -> Result<String, Failure> {
        let failed = |text| Failure::plain(format!("{}{text}", self.list.errors.1));
        let mut text = String::new();
        for row in rows {
            let label = row.labels.clone().map(|labels| -> ValueFunc {
                Arc::new(move |args| {
                    let name = args.first().map(ToString::to_string).unwrap_or_default();
                    Ok(Value::String(
                        labels.get(&name).map_or("", String::as_str).into(),
                    ))
                })
            });
            let methods = label.map(|label| ("Label", label)).into_iter().collect();
            text.push_str(
                &self
                    .format
                    .render(&Data::row(&row.fields, methods))
                    .map_err(failed)?,
            );
            text.push('\n');
        }
        if !self.is_table {
            return Ok(text);
        }
        let header = self.format.render_header(&self.titles()).map_err(failed)?;
        Ok(table::layout(&format!("{header}\n{text}")))
    }

    fn titles(&self) -> Data {
        let titles = self
            .list
            .titles
            .iter()
            .map(|(field, title)| (*field, (*title).to_owned()));
        let label: ValueFunc = Arc::new(|args| {
            let name = args.first().map(ToString::to_string).unwrap_or_default();
            let last = name.rsplit('.').next().unwrap_or_default();
            Ok(Value::String(last.replace(['-', '_'], " ").into()))
        });
        Data::row(&Tree::texts(titles), vec![("Label", label)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        List {
            table: "table {{.ID}}\\t{{.Names}}"
                .trim_start_matches("table ")
                .to_owned(),
            raw: "id: {{.ID}}\\n",
            titles: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
            kind: "*formatter.ContainerContext",
            errors: ("failed to parse template: ", "failed to execute template: "),
        }
    }

    fn rows() -> Vec<Row> {
        let fields = Tree::texts([
            ("ID", "0123456789ab".to_owned()),
            ("Names", "running1".to_owned()),
        ]);
        vec![Row {
            fields,
            labels: Some([("k1".to_owned(), "v1".to_owned())].into()),
        }]
    }

    #[test]
    fn formats_are_dockers() {
        for (format, want) in [
            ("", "CONTAINER ID   NAMES\n0123456789ab   running1\n"),
            ("table", "CONTAINER ID   NAMES\n0123456789ab   running1\n"),
            (
                "table {{.Names}}\\t{{.Label \"k1\"}}",
                "NAMES      k1\nrunning1   v1\n",
            ),
            ("table{{upper .Names}}", "NAMES\nRUNNING1\n"),
            ("{{.Label \"k1\"}}/{{.Label \"nope\"}}", "v1/\n"),
            ("json", "{\"ID\":\"0123456789ab\",\"Names\":\"running1\"}\n"),
            ("raw", "id: 0123456789ab\n\n"),
            ("literal\\ttext\\n", "literal\ttext\n\n"),
        ] {
            assert_eq!(
                list().sheet(format).unwrap().lay_out(&rows()).unwrap(),
                want,
                "{format}"
            );
        }
        assert_eq!(
            list().sheet("").unwrap().lay_out(&[]).unwrap(),
            "CONTAINER ID   NAMES\n"
        );
        assert_eq!(
            list().quiet("ID").unwrap().lay_out(&rows()).unwrap(),
            "0123456789ab\n"
        );
        assert!(
            list()
                .sheet("{{.Names}} {{.Size}}")
                .unwrap()
                .asks_for("Size")
        );
        assert!(list().sheet("{{json .}}").unwrap().asks_for("Size"));
        assert!(!list().sheet("{{.Names}}").unwrap().asks_for("Size"));
        assert!(!list().sheet("json").unwrap().asks_for("Size"));
    }

    #[test]
    fn errors_are_dockers() {
        let text = |failure| match failure {
            Failure::Plain { text, code } => (text, code),
            other => (format!("{other:?}"), 0),
        };
        let parse = list().sheet("{{.Names").map(|_| ()).unwrap_err();
        assert_eq!(
            text(parse),
            (
                "failed to parse template: template: :1: unclosed action".to_owned(),
                1
            )
        );
        let run = list()
            .sheet("{{.Nope}}")
            .unwrap()
            .lay_out(&rows())
            .unwrap_err();
        let want = "failed to execute template: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in \
                    type *formatter.ContainerContext";
        assert_eq!(text(run), (want.to_owned(), 1));
    }
}
