//! `--change`: the Dockerfile instructions that commit and import accept.
//!
//! All changes form one small Dockerfile, joined by newlines. What it accepts, and the words of its errors,
//! are docker's; see the recorded transcript of `commit -c`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::words::{self, Escape};
use super::{ContainerConfig, Healthcheck};

/// A change that docker refuses, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChangeError(String);

type Result<T> = std::result::Result<T, ChangeError>;

fn error<T>(text: impl Into<String>) -> Result<T> {
    Err(ChangeError(text.into()))
}

/// Applies `changes` to `config`: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, USER, VOLUME
/// and WORKDIR. No change at all is fine; on an error `config` is as it was.
///
/// # Errors
/// [`ChangeError`].
pub fn apply_changes(config: &mut ContainerConfig, changes: &[String]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let text = changes.join("\n");
    let (instructions, escape) = parse(&text);
    if instructions.is_empty() {
        return error("file with no instructions");
    }
    const ACCEPTED: [&str; 10] = [
        "cmd",
        "entrypoint",
        "env",
        "expose",
        "healthcheck",
        "label",
        "onbuild",
        "user",
        "volume",
        "workdir",
    ];
    for instruction in &instructions {
        if !ACCEPTED.contains(&&*instruction.word) {
            return error(format!(
                "{} is not a valid change command",
                instruction.word
            ));
        }
    }
    let mut changed = config.clone();
    let mut dispatch = Dispatch {
        config: &mut changed,
        escape,
        command_set: false,
    };
    for instruction in &instructions {
        dispatch.apply(instruction)?;
    }
    *config = changed;
    Ok(())
}

struct Instruction {
    /// Lower-case.
    word: String,
    /// Leading `--name=value` words, without the dashes.
    flags: Vec<String>,
    rest: String,
    /// The whole line, for ONBUILD.
    line: String,
}

/// Reads lines, comments, continuations and the escape directive.
fn parse(text: &str) -> (Vec<Instruction>, Escape) {
    let mut escape = '\\';
    let mut instructions = Vec::new();
    let mut pending = String::new();
    let mut directives = true;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix('#') {
            if let Some((name, value)) = comment.split_once('=')
                && directives
                && name.trim().eq_ignore_ascii_case("escape")
                && value.trim() == "`"
            {
                escape = '`';
            }
            continue;
        }
        directives = false;
        if trimmed.is_empty() {
            continue;
        }
        let line = if pending.is_empty() { trimmed } else { line };
        match line.trim_end().strip_suffix(escape) {
            Some(more) => pending.push_str(more),
            None => {
                pending.push_str(line);
                instructions.extend(instruction(&std::mem::take(&mut pending)));
            }
        }
    }
    instructions.extend(instruction(&pending));
    (instructions, escape)
}

fn instruction(line: &str) -> Option<Instruction> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    if word.is_empty() {
        return None;
    }
    let mut rest = rest.trim_start();
    let mut flags = Vec::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        if flag.is_empty() {
            break;
        }
        flags.push(flag.to_owned());
    }
    Some(Instruction {
        word: word.to_lowercase(),
        flags,
        rest: rest.to_owned(),
        line: line.to_owned(),
    })
}

/// Arguments of CMD and the like.
enum Arguments {
    /// A JSON list of texts.
    List(Vec<String>),
    /// Anything else, for a shell.
    Shell(String),
}

fn arguments(rest: &str) -> Result<Arguments> {
    match serde_json::from_str::<Vec<Value>>(rest) {
        Ok(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                _ => {
                    error("when using JSON array syntax, arrays must be comprised of strings only")
                }
            })
            .collect::<Result<_>>()
            .map(Arguments::List),
        Err(_) => Ok(Arguments::Shell(rest.to_owned())),
    }
}

struct Dispatch<'a> {
    config: &'a mut ContainerConfig,
    escape: Escape,
    /// Whether a CMD came before: then ENTRYPOINT keeps it.
    command_set: bool,
}

impl Dispatch<'_> {
    fn apply(&mut self, instruction: &Instruction) -> Result<()> {
        if instruction.word != "healthcheck"
            && let Some(flag) = instruction.flags.first()
        {
            return error(format!(
                "Unknown flag: {}",
                flag.split('=').next().unwrap_or(flag)
            ));
        }
        let rest = &*instruction.rest;
        match &*instruction.word {
            "cmd" => self.cmd(rest),
            "entrypoint" => self.entrypoint(rest),
            "env" => self.env(rest),
            "label" => self.label(rest),
            "expose" => self.expose(rest),
            "user" => {
                self.config.user = self.single("USER", rest)?;
                Ok(())
            }
            "workdir" => self.workdir(rest),
            "volume" => self.volume(rest),
            "onbuild" => self.onbuild(instruction),
            "healthcheck" => {
                self.config.healthcheck = Some(healthcheck(instruction)?);
                Ok(())
            }
            other => error(format!("{other} is not a valid change command")),
        }
    }

    fn expand(&self, word: &str) -> Result<String> {
        words::expand(
            word,
            self.escape,
            self.config.env.as_deref().unwrap_or_default(),
        )
        .or_else(|text| error(format!("failed to process {word:?}: {text}")))
    }

    fn shell(&self, command: &str) -> Vec<String> {
        let mut shell = match &self.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        if !command.is_empty() {
            shell.push(command.to_owned());
        }
        shell
    }

    fn cmd(&mut self, rest: &str) -> Result<()> {
        let command = match arguments(rest)? {
            Arguments::List(list) => {
                self.command_set |= !list.is_empty();
                list
            }
            Arguments::Shell(text) => {
                self.command_set |= !text.is_empty();
                self.shell(&text)
            }
        };
        self.config.cmd = Some(command);
        Ok(())
    }

    fn entrypoint(&mut self, rest: &str) -> Result<()> {
        self.config.entrypoint = match arguments(rest)? {
            Arguments::List(list) if list.is_empty() => None,
            Arguments::List(list) => Some(list),
            Arguments::Shell(text) if text.is_empty() => None,
            Arguments::Shell(text) => Some(self.shell(&text)),
        };
        if !self.command_set {
            self.config.cmd = None;
        }
        Ok(())
    }

    /// Reads `a=b c=d`, or the old form `a rest of line`.
    fn pairs(&self, what: &str, rest: &str) -> Result<Vec<(String, String)>> {
        let words = words::split(rest, self.escape);
        let Some(first) = words.first() else {
            return error(format!("{what} requires at least one argument"));
        };
        let pairs: Vec<(&str, &str)> = if first.contains('=') {
            words
                .iter()
                .map(|word| {
                    word.split_once('=').ok_or_else(|| {
                        ChangeError(format!(
                            "Syntax error - can't find = in {word:?}. Must be of the form: \
                             name=value"
                        ))
                    })
                })
                .collect::<Result<_>>()?
        } else {
            match rest.split_once(char::is_whitespace) {
                Some((name, value)) => vec![(name, value.trim_start())],
                None => return error(format!("{what} must have two arguments")),
            }
        };
        let mut out = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let (name, value) = (self.expand(name)?, self.expand(value)?);
            if name.is_empty() {
                return error(format!("{what} names can not be blank"));
            }
            out.push((name, value));
        }
        Ok(out)
    }

    fn env(&mut self, rest: &str) -> Result<()> {
        // All values are expanded before any is set: `ENV a=1 b=$a` sees the old a.
        let pairs = self.pairs("ENV", rest)?;
        let env = self.config.env.get_or_insert_default();
        for (name, value) in pairs {
            let entry = format!("{name}={value}");
            match env
                .iter_mut()
                .find(|old| old.split('=').next() == Some(&name))
            {
                Some(old) => *old = entry,
                None => env.push(entry),
            }
        }
        Ok(())
    }

    fn label(&mut self, rest: &str) -> Result<()> {
        let pairs = self.pairs("LABEL", rest)?;
        self.config.labels.get_or_insert_default().extend(pairs);
        Ok(())
    }

    fn expose(&mut self, rest: &str) -> Result<()> {
        if rest.is_empty() {
            return error("EXPOSE requires at least one argument");
        }
        let env = self.config.env.as_deref().unwrap_or_default();
        let specs = words::expand_words(rest, self.escape, env).or_else(error)?;
        let mut ports = BTreeMap::new();
        for spec in &specs {
            for port in exposed(spec)? {
                ports.insert(port, json!({}));
            }
        }
        self.config.exposed_ports.extend(ports);
        Ok(())
    }

    fn single(&self, what: &str, rest: &str) -> Result<String> {
        if rest.is_empty() {
            return error(format!("{what} requires exactly one argument"));
        }
        self.expand(rest)
    }

    fn workdir(&mut self, rest: &str) -> Result<()> {
        let path = self.single("WORKDIR", rest)?;
        if path.is_empty() {
            return error("cannot normalize nothing");
        }
        self.config.working_dir = if path.starts_with('/') {
            path
        } else {
            clean(&format!("/{}/{path}", self.config.working_dir))
        };
        Ok(())
    }

    fn volume(&mut self, rest: &str) -> Result<()> {
        let list = match arguments(rest)? {
            Arguments::List(list) => list,
            Arguments::Shell(text) => text.split_whitespace().map(str::to_owned).collect(),
        };
        if list.is_empty() {
            return error("VOLUME requires at least one argument");
        }
        for path in list {
            let path = self.expand(&path)?.trim().to_owned();
            if path.is_empty() {
                return error("VOLUME specified can not be an empty string");
            }
            self.config
                .volumes
                .get_or_insert_default()
                .insert(path, json!({}));
        }
        Ok(())
    }

    fn onbuild(&mut self, instruction: &Instruction) -> Result<()> {
        let word = instruction
            .rest
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_uppercase();
        match &*word {
            "" => return error("ONBUILD requires at least one argument"),
            "ONBUILD" => {
                return error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
            }
            "MAINTAINER" | "FROM" => {
                return error(format!("{word} isn't allowed as an ONBUILD trigger"));
            }
            _ => {}
        }
        let (_, trigger) = instruction
            .line
            .split_once(char::is_whitespace)
            .unwrap_or_default();
        self.config
            .on_build
            .get_or_insert_default()
            .push(trigger.trim_start().to_owned());
        Ok(())
    }
}

/// Removes `.`, `..` and doubled slashes, by text alone.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Returns the container ports (`80/tcp`) that one port specification names.
fn exposed(spec: &str) -> Result<Vec<String>> {
    let (ports, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let protocol = match &*protocol.to_lowercase() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return error(format!("Invalid proto: {protocol}")),
    };
    let container = ports.rsplit(':').next().unwrap_or_default();
    if container.is_empty() {
        return error(format!("No port specified: {spec}<empty>"));
    }
    let (first, last) = container.split_once('-').unwrap_or((container, container));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
        return error(format!("Invalid containerPort: {container}"));
    };
    if first > last {
        return error(format!("Invalid containerPort: {container}"));
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn healthcheck(instruction: &Instruction) -> Result<Healthcheck> {
    let rest = &*instruction.rest;
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let mut check = Healthcheck::default();
    match &*kind.to_uppercase() {
        "" => return error("HEALTHCHECK requires at least one argument"),
        "NONE" => {
            if !command.is_empty() {
                return error("HEALTHCHECK NONE takes no arguments");
            }
            check.test = vec!["NONE".to_owned()];
        }
        "CMD" => {
            check.test = match arguments(command)? {
                Arguments::List(list) if !list.is_empty() => {
                    std::iter::once("CMD".to_owned()).chain(list).collect()
                }
                Arguments::Shell(text) if !text.is_empty() => vec!["CMD-SHELL".to_owned(), text],
                _ => return error("Missing command after HEALTHCHECK CMD"),
            };
        }
        other => {
            return error(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)"));
        }
    }
    for flag in &instruction.flags {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let field = match name {
            "interval" => &mut check.interval,
            "timeout" => &mut check.timeout,
            "start-period" => &mut check.start_period,
            "start-interval" => &mut check.start_interval,
            "retries" => {
                check.retries = retries(value)?;
                continue;
            }
            _ => return error(format!("Unknown flag: {name}")),
        };
        if !flag.contains('=') {
            return error(format!("Missing a value on flag: {name}"));
        }
        *field = interval(name, value)?;
    }
    Ok(check)
}

fn retries(value: &str) -> Result<i64> {
    match value.parse::<i32>() {
        Ok(count) if count >= 1 => Ok(count.into()),
        Ok(count) => error(format!("--retries must be at least 1 (not {count})")),
        Err(_) => error(format!(
            "strconv.ParseInt: parsing {value:?}: invalid syntax"
        )),
    }
}

/// Returns nanoseconds; less than a millisecond is refused, zero inherits.
fn interval(name: &str, value: &str) -> Result<i64> {
    if value.is_empty() {
        return Ok(0);
    }
    let Some(nanoseconds) = duration(value) else {
        return error(format!("time: invalid duration {value:?}"));
    };
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        return error(format!("Interval {name:?} cannot be less than 1ms"));
    }
    Ok(nanoseconds)
}

/// Reads a Go duration (`1h2m3.5s`, `300ms`, `0`) as nanoseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() || total == 0 {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
        let part: i128 = if fraction.is_empty() {
            0
        } else {
            fraction.parse().ok()?
        };
        total = total
            .checked_add(whole.checked_mul(unit)?)?
            .checked_add(part * unit / scale)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    i64::try_from(total * sign).ok()
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
