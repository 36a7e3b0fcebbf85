//! `mille top`: the processes of a container as the machine's ps shows them.

use std::process::{Command as Program, ExitCode};

use clap::{ArgMatches, Command};

use super::{Arity, Verb};
use crate::arguments::words;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, table};

/// `mille top`.
pub(crate) const VERB: Verb = Verb {
    name: "top",
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    arity: Arity::AtLeast(1),
    flags_first: true,
    flags: |command: Command| command,
    run: top,
};

/// What docker gives ps.
const USUAL: &str = "-ef";
/// Least width of a column.
const LEAST_CELLS: usize = 20;

fn top(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = words(matches);
    let engine = context.records()?;
    let found = engine.find(words.first().map_or("", String::as_str))?;
    let processes = engine.processes(&found.id)?;
    let options: Vec<String> = match words.get(1..) {
        Some(options) if !options.is_empty() => options.to_vec(),
        _ => vec![USUAL.to_owned()],
    };
    let listed = list(&options, &processes)?;
    let rows = select(&listed, &processes).map_err(Failure::Daemon)?;
    let lines: Vec<String> = rows.iter().map(|row| row.join("\t")).collect();
    output::emit(&table::layout_at_least(
        &format!("{}\n", lines.join("\n")),
        LEAST_CELLS,
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs ps: for these processes alone where its other options allow it, else for all.
fn list(options: &[String], processes: &[i32]) -> Result<String, Failure> {
    let numbers: Vec<String> = processes.iter().map(ToString::to_string).collect();
    let ps = |narrow: bool| {
        let mut ps = Program::new("ps");
        ps.args(options);
        if narrow {
            ps.arg(format!("-q{}", numbers.join(",")));
        }
        let output = ps.output();
        output.map_err(|error| Failure::Daemon(format!("ps: {}", output::go_io_error(&error))))
    };
    let narrow = ps(true)?;
    let output = if narrow.status.success() {
        narrow
    } else {
        ps(false)?
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = said.lines().next().unwrap_or_default();
    Err(Failure::Daemon(format!("ps: {first}")))
}

/// Leaves the title and the lines of these processes, cut into as many cells as there are titles.
fn select(listed: &str, processes: &[i32]) -> Result<Vec<Vec<String>>, String> {
    let mut lines = listed.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let Some(place) = titles.iter().position(|title| title == "PID") else {
        return Err("Couldn't find PID field in ps output".to_owned());
    };
    let mut rows = vec![titles];
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = words.get(place).and_then(|word| word.parse().ok());
        if number.is_some_and(|number: i32| processes.contains(&number)) {
            let last = rows[0].len() - 1;
            let (cells, rest) = words.split_at(last.min(words.len()));
            let mut row: Vec<String> = cells.iter().map(|&cell| cell.to_owned()).collect();
            row.push(rest.join(" "));
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_number_and_cut_by_the_titles() {
        let listed = "UID   PID  CMD\nroot   7  sleep 1000\nroot  77  sh -c x\n";
        let rows = select(listed, &[77]).unwrap();
        assert_eq!(
            rows,
            [vec!["UID", "PID", "CMD"], vec!["root", "77", "sh -c x"]]
        );
        assert_eq!(
            select("COMMAND\nsleep\n", &[7]).unwrap_err(),
            "Couldn't find PID field in ps output"
        );
    }
}
