//! The flags that say how a container's health is checked.

use clap::ArgMatches;
use mille_store::config::Healthcheck;

use super::values::{integer, invalid};
use crate::arguments::{is_on, text};
use crate::commands::Verb;
use crate::failure::Failure;
use crate::moment;

/// Reads the flags; `None` leaves the image's own check.
pub(super) fn read(
    verb: &'static Verb,
    matches: &ArgMatches,
) -> Result<Option<Healthcheck>, Failure> {
    let command = text(matches, "health-cmd").filter(|text| !text.is_empty());
    let check = Healthcheck {
        test: command
            .map(|text| vec!["CMD-SHELL".to_owned(), text.to_owned()])
            .unwrap_or_default(),
        interval: nanoseconds(verb, matches, "health-interval")?,
        timeout: nanoseconds(verb, matches, "health-timeout")?,
        start_period: nanoseconds(verb, matches, "health-start-period")?,
        retries: integer(verb, matches, "health-retries")?.unwrap_or_default(),
        ..Healthcheck::default()
    };
    let given = check != Healthcheck::default();
    if is_on(matches, "no-healthcheck") {
        if given {
            let text = "--no-healthcheck conflicts with --health-* options".to_owned();
            return Err(super::refused(verb, text));
        }
        return Ok(Some(Healthcheck {
            test: vec!["NONE".to_owned()],
            ..Healthcheck::default()
        }));
    }
    for (name, value) in [
        ("--health-interval", check.interval),
        ("--health-timeout", check.timeout),
        ("--health-retries", check.retries),
        ("--health-start-period", check.start_period),
    ] {
        if value < 0 {
            return Err(super::refused(verb, format!("{name} cannot be negative")));
        }
    }
    Ok(given.then_some(check))
}

fn nanoseconds(verb: &'static Verb, matches: &ArgMatches, name: &str) -> Result<i64, Failure> {
    let Some(text) = text(matches, name) else {
        return Ok(0);
    };
    let read = if text == "0" {
        Some(0)
    } else {
        moment::duration(text).and_then(|span| i64::try_from(span.as_nanos()).ok())
    };
    read.ok_or_else(|| {
        invalid(
            verb,
            name,
            text,
            &format!("time: invalid duration {text:?}"),
        )
    })
}
