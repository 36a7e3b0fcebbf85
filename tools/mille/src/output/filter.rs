//! `--filter name=value`.

use regex_lite::Regex;

use crate::arguments;
use crate::commands::Verb;
use crate::failure::Failure;

/// The filters of one command: one name several times means any of its values, but for labels.
#[derive(Debug, Default)]
pub(crate) struct Filters(Vec<(String, String)>);

impl Filters {
    /// Reads what was typed and refuses names outside of `known`.
    pub(crate) fn read(
        verb: &'static Verb,
        typed: &[String],
        known: &[&str],
    ) -> Result<Filters, Failure> {
        let filters = Self::read_any(verb, typed)?;
        match filters
            .0
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            Some((name, _)) => Err(Failure::Daemon(format!("Invalid filter '{name}'"))),
            None => Ok(filters),
        }
    }

    /// Reads what was typed, whatever the names.
    pub(crate) fn read_any(verb: &'static Verb, typed: &[String]) -> Result<Filters, Failure> {
        let mut filters = Vec::new();
        for text in typed.iter().filter(|text| !text.is_empty()) {
            let Some((name, value)) = text.split_once('=') else {
                let flag = arguments::declared(verb, "filter");
                let text = format!(
                    "invalid argument {text:?} for {flag:?} flag: bad format of filter (expected name=value)"
                );
                return Err(Failure::Flag { verb, text });
            };
            filters.push((name.trim().to_lowercase(), value.trim().to_owned()));
        }
        Ok(Filters(filters))
    }

    /// The values given for a name.
    pub(crate) fn values<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a name was given at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// A name that takes `true` or `false`; `None` when it was not given.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        let values: Vec<&str> = self.values(name).collect();
        let read = |value: &&str| match *value {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        };
        match values.as_slice() {
            [] => Ok(None),
            [value] if read(value).is_some() => Ok(read(value)),
            values => Err(Failure::Daemon(format!(
                "Invalid filter '{name}=[{}]'",
                values.join(" ")
            ))),
        }
    }

    /// Whether a text matches one of the patterns given for a name (or none was given): docker's unanchored regular
    /// expressions; one that is none matches nothing but itself.
    pub(crate) fn matches(&self, name: &str, texts: &[&str]) -> bool {
        !self.has(name)
            || self.values(name).any(|pattern| {
                let regex = Regex::new(pattern).ok();
                texts.iter().any(|text| {
                    *text == pattern || regex.as_ref().is_some_and(|regex| regex.is_match(text))
                })
            })
    }

    /// Whether labels have all that was asked for: `label=key`, `label=key=value`.
    pub(crate) fn labels<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.values("label")
            .all(|wanted| match wanted.split_once('=') {
                Some((key, value)) => label(key) == Some(value),
                None => label(wanted).is_some(),
            })
    }
}

/// Go's `path.Match`: `*` and `?` stop at slashes, `[a-z]`, `[^a-z]`, `\` quotes. A malformed pattern matches nothing.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut expression = String::from("^");
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' | ']' | '-' | '^' => expression.push(letter),
            '\\' => expression.extend(
                letters
                    .next()
                    .map(|quoted| regex_lite::escape(&quoted.to_string())),
            ),
            other => expression.push_str(&regex_lite::escape(&other.to_string())),
        }
    }
    expression.push('$');
    Regex::new(&expression).is_ok_and(|regex| regex.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        Filters(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn names_are_unanchored_expressions() {
        for (pattern, want) in [
            ("run", true),
            ("^running1$", true),
            ("/running1", true),
            ("RUN", false),
            ("", true),
            ("nope", false),
            ("[", false),
        ] {
            assert_eq!(
                filters(&[("name", pattern)]).matches("name", &["running1", "/running1"]),
                want,
                "{pattern}"
            );
        }
        let either = filters(&[("name", "exited0"), ("name", "paused1")]);
        assert!(either.matches("name", &["paused1"]) && !either.matches("name", &["other"]));
    }

    #[test]
    fn all_labels_count() {
        let labels = |key: &str| {
            [("k1", "v1"), ("k2", "v2")]
                .iter()
                .find(|(k, _)| *k == key)
                .map(|(_, v)| *v)
        };
        for (wanted, want) in [
            (&[("label", "k1")][..], true),
            (&[("label", "k1=v1")], true),
            (&[("label", "k1=v2")], false),
            (&[("label", "k1"), ("label", "k2")], true),
            (&[("label", "k1"), ("label", "k3")], false),
        ] {
            assert_eq!(filters(wanted).labels(labels), want, "{wanted:?}");
        }
    }

    #[test]
    fn globs_are_gos() {
        for (pattern, text, want) in [
            ("b*", "bb", true),
            ("*/bb", "localhost:5000/team/bb", false),
            ("*/*/bb", "localhost:5000/team/bb", true),
            ("*h*", "hist", true),
            ("*:x", "localhost:5000/team/bb:x", false),
            ("b?", "bb", true),
            ("[a-c]b", "bb", true),
            ("a.b", "axb", false),
            ("[", "[", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}
