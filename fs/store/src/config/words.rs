//! Words of an instruction: splitting, quotes, and variables.

/// What a `\` continues or escapes; a Dockerfile can choose the backtick instead.
pub(super) type Escape = char;

/// Splits `A=b "C D"='e f'` into words; quotes and escapes stay in the words.
pub(super) fn split(text: &str, escape: Escape) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape && quote != Some('\'') => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes off a word and replaces its variables.
///
/// # Errors
/// A text in docker's words.
pub(super) fn expand(word: &str, escape: Escape, env: &[String]) -> Result<String, String> {
    let mut expansion = Expansion {
        rest: word,
        escape,
        env,
        out: Vec::new(),
    };
    expansion.run(None)?;
    Ok(expansion.out.into_iter().map(|(c, _)| c).collect())
}

/// As [`expand`], but unquoted blanks that came out of it separate words.
///
/// # Errors
/// As [`expand`].
pub(super) fn expand_words(
    text: &str,
    escape: Escape,
    env: &[String],
) -> Result<Vec<String>, String> {
    let mut expansion = Expansion {
        rest: text,
        escape,
        env,
        out: Vec::new(),
    };
    expansion.run(None)?;
    let mut words = vec![String::new()];
    for (c, quoted) in expansion.out {
        match words.last_mut() {
            Some(last) if quoted || !c.is_whitespace() => last.push(c),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    Ok(words)
}

struct Expansion<'a> {
    rest: &'a str,
    escape: Escape,
    env: &'a [String],
    /// Characters, and whether quotes protect them from splitting.
    out: Vec<(char, bool)>,
}

impl Expansion<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Works up to `stop` (taken off) or the end of the text.
    fn run(&mut self, stop: Option<char>) -> Result<(), String> {
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == stop => return Ok(()),
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                '$' => self.variable(false)?,
                c if c == self.escape => {
                    // An escape at the very end stands for itself.
                    let c = self.next().unwrap_or(c);
                    self.out.push((c, true));
                }
                c => self.out.push((c, false)),
            }
        }
        match stop {
            Some(stop) => Err(format!(
                "unexpected end of statement while looking for '{stop}'"
            )),
            None => Ok(()),
        }
    }

    fn single_quoted(&mut self) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => self.out.push((c, true)),
                None => {
                    return Err("unexpected end of statement while looking for matching \
                                single-quote"
                        .to_owned());
                }
            }
        }
    }

    fn double_quoted(&mut self) -> Result<(), String> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(true)?,
                Some(c) if c == self.escape => match self.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.out.push((next, true));
                    }
                    Some(next) => self.out.extend([(c, true), (next, true)]),
                    None => self.out.push((c, true)),
                },
                Some(c) => self.out.push((c, true)),
                None => {
                    return Err("unexpected end of statement while looking for matching \
                                double-quote"
                        .to_owned());
                }
            }
        }
    }

    fn variable(&mut self, quoted: bool) -> Result<(), String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                self.out.push(('$', quoted));
            } else {
                let value = self.value(&name).unwrap_or_default().to_owned();
                self.put(&value, quoted);
            }
            return Ok(());
        }
        self.next();
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".to_owned());
        }
        let value = self.value(&name).map(str::to_owned);
        let (colon, operator) = match self.next() {
            Some('}') => {
                self.put(&value.unwrap_or_default(), quoted);
                return Ok(());
            }
            Some(':') => (true, self.next()),
            other => (false, other),
        };
        let alternative = self.alternative()?;
        let given = value.filter(|value| !(colon && value.is_empty()));
        let result = match operator {
            Some('-') => given.unwrap_or(alternative),
            Some('+') => given.map(|_| alternative).unwrap_or_default(),
            Some('?') => given.ok_or_else(|| format!("{name}: {alternative}"))?,
            Some(other) => {
                return Err(format!("unsupported modifier ({other}) in substitution"));
            }
            None => return Err("syntax error: missing '}'".to_owned()),
        };
        self.put(&result, quoted);
        Ok(())
    }

    /// Reads and expands what stands between an operator and the closing brace.
    fn alternative(&mut self) -> Result<String, String> {
        let before = std::mem::take(&mut self.out);
        self.run(Some('}'))?;
        let word = std::mem::replace(&mut self.out, before);
        Ok(word.into_iter().map(|(c, _)| c).collect())
    }

    fn put(&mut self, text: &str, quoted: bool) {
        self.out.extend(text.chars().map(|c| (c, quoted)));
    }

    fn name(&mut self) -> String {
        let end = match self.peek() {
            Some(c) if c.is_ascii_digit() || "@*#$!?-".contains(c) && c != '-' => c.len_utf8(),
            _ => self
                .rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(self.rest.len()),
        };
        let name = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        name
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|entry| match entry.split_once('=') {
                Some((key, value)) if key == name => Some(value),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_outside_quotes() {
        for (text, want) in [
            ("", vec![]),
            ("a=b  c=d", vec!["a=b", "c=d"]),
            (r#"X=y Z="q r""#, vec!["X=y", r#"Z="q r""#]),
            (r"a\ b c", vec![r"a\ b", "c"]),
            (r#""c d"="e f""#, vec![r#""c d"="e f""#]),
            ("'a\\' b'c", vec!["'a\\'", "b'c"]),
        ] {
            assert_eq!(split(text, '\\'), want, "{text}");
        }
    }

    #[test]
    fn variables_and_quotes() {
        let env = ["A=1".to_owned(), "E=".to_owned(), "B=x y".to_owned()];
        for (word, want) in [
            ("plain", "plain"),
            ("$A", "1"),
            ("${A}2", "12"),
            ("$NO", ""),
            ("${NO:-d}", "d"),
            ("${E:-d}", "d"),
            ("${E-d}", ""),
            ("${A:+s}", "s"),
            ("${NO:+s}", ""),
            ("${NO:-${A}b}", "1b"),
            (r"\$A", "$A"),
            ("'$A'", "$A"),
            (r#""$A b""#, "1 b"),
            (r#""\$A \x""#, r"$A \x"),
            ("a$", "a$"),
            ("$A-b", "1-b"),
        ] {
            assert_eq!(expand(word, '\\', &env).unwrap(), want, "{word}");
        }
        for word in ["'a", "\"a", "${A", "${}", "${A:*b}", "${NO:?msg}"] {
            assert!(expand(word, '\\', &env).is_err(), "{word}");
        }
        assert_eq!(
            expand_words("$B \"$B\"", '\\', &env).unwrap(),
            ["x", "y", "x y"]
        );
    }
}
