//! `mille events`.

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{Event, EventOptions};
use serde_json::Number;

use super::{Arity, Verb};
use crate::arguments::{list, text, texts, value};
use crate::context::Context;
use crate::failure::Failure;
use crate::moment;
use crate::output::Watched;
use crate::output::filter::Filters;
use crate::output::json::Tree;
use crate::output::template::{Data, Format, Missing};

/// `mille events`.
pub(crate) const VERB: Verb = Verb {
    name: "events",
    usage: "[OPTIONS]",
    about: "Get real time events of containers and images",
    arity: Arity::None,
    flags_first: false,
    flags: add_flags,
    run: events,
};

fn add_flags(command: Command) -> Command {
    command
        .arg(
            list(
                "filter",
                Some('f'),
                "Filter output based on conditions provided",
            )
            .value_name("filter"),
        )
        .arg(value(
            "format",
            None,
            "string",
            "Format output: json or a Go template",
        ))
        .arg(value(
            "since",
            None,
            "string",
            "Show all events created since timestamp",
        ))
        .arg(value(
            "until",
            None,
            "string",
            "Stream events until this timestamp",
        ))
}

fn events(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let format = text(matches, "format").unwrap_or_default();
    let format = Some(format).filter(|format| !format.is_empty());
    let parse = |source: &str| {
        Format::parse("", source, Missing::NoValue).map_err(|text| Failure::Plain {
            text: format!("Error parsing format: {text}"),
            code: 64,
        })
    };
    let json = format.is_some_and(|format| matches!(format, "json" | "{{json .}}"));
    let format = format.filter(|_| !json).map(parse).transpose()?;
    let filters = Filters::read_any(&VERB, &texts(matches, "filter"))?;
    let moment = |name: &str| {
        let text = text(matches, name).filter(|text| !text.is_empty());
        let read = text.map(moment::from_filter).transpose();
        // The client reads them: without the engine's prefix.
        read.map_err(|failure| match failure {
            Failure::Daemon(text) => Failure::plain(text),
            other => other,
        })
    };
    let options = EventOptions {
        since: moment("since")?,
        until: moment("until")?,
    };
    let engine = context.records()?;
    let mut stdout = Watched(std::io::stdout().lock());
    engine.events(options, &mut |event| {
        if !wanted(event, &filters) {
            return Ok(());
        }
        let line = match &format {
            None if json => tree(event).escaped(),
            None => plain(event),
            Some(format) => format
                .render(&Data::object(&fields(event), &[]))
                .map_err(std::io::Error::other)?,
        };
        stdout.write_all(format!("{line}\n").as_bytes())?;
        stdout.flush()
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Whether an event passes; unknown filters let everything pass, as docker's do.
fn wanted(event: &Event, filters: &Filters) -> bool {
    let any = |name: &str, fits: &dyn Fn(&str) -> bool| {
        !filters.has(name) || filters.values(name).any(fits)
    };
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let of = |kind: &str, fits: &dyn Fn(&str) -> bool| {
        any(kind, &|value| event.kind == kind && fits(value))
    };
    let action = event.action.split(':').next().unwrap_or_default();
    any("type", &|value| event.kind == value)
        && any("event", &|value| event.action == value || action == value)
        && any("scope", &|value| value == "local")
        && of("container", &|value| {
            event.id.starts_with(value)
                || attribute("name").is_some_and(|name| name.starts_with(value))
        })
        && of("volume", &|value| event.id == value)
        && of("network", &|value| attribute("name") == Some(value))
        && any("image", &|value| {
            attribute("image") == Some(value)
                || (event.kind == "image"
                    && (event.id.starts_with(value)
                        || event.id.trim_start_matches("sha256:").starts_with(value)
                        || attribute("name").is_some_and(|name| {
                            name == value || name.strip_suffix(":latest") == Some(value)
                        })))
        })
        && filters.labels(|key| attribute(key))
}

/// `TIME TYPE ACTION ID (k=v, k=v)`.
fn plain(event: &Event) -> String {
    let attributes: Vec<String> = event
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!(
        "{} {} {} {} ({})",
        moment::nanoseconds(&event.time.to_string()),
        event.kind,
        event.action,
        event.id,
        attributes.join(", ")
    )
}

/// Docker's JSON of an event. What only containers and images of old had comes first.
fn tree(event: &Event) -> Tree {
    let text = |text: &str| Tree::Text(text.to_owned());
    let attributes = event
        .attributes
        .iter()
        .map(|(key, value)| (key.clone(), text(value)))
        .collect();
    let nanoseconds = i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX);
    let from = match event.kind.as_str() {
        "container" => event.attributes.get("image").cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let fields = [
        ("status", text(&event.action)),
        ("id", text(&event.id)),
        ("from", Tree::Text(from)),
        ("Type", text(&event.kind)),
        ("Action", text(&event.action)),
        (
            "Actor",
            Tree::Map(vec![
                ("ID".to_owned(), text(&event.id)),
                ("Attributes".to_owned(), Tree::Map(attributes)),
            ]),
        ),
        ("scope", text("local")),
        ("time", Tree::Number(Number::from(event.time.as_second()))),
        ("timeNano", Tree::Number(Number::from(nanoseconds))),
    ];
    Tree::Map(
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

/// The same under the names of docker's Go fields, for templates.
fn fields(event: &Event) -> Tree {
    let Tree::Map(pairs) = tree(event) else {
        return Tree::Null;
    };
    let name = |name: String| match name.as_str() {
        "status" => "Status".to_owned(),
        "id" => "ID".to_owned(),
        "from" => "From".to_owned(),
        "scope" => "Scope".to_owned(),
        "time" => "Time".to_owned(),
        "timeNano" => "TimeNano".to_owned(),
        _ => name,
    };
    Tree::Map(
        pairs
            .into_iter()
            .map(|(key, value)| (name(key), value))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let attributes = [("image", "bb"), ("k", "v"), ("name", "ev")];
        Event {
            time: "2026-11-21T02:55:45.9998326Z".parse().unwrap(),
            kind: "container".into(),
            action: "exec_start: true ".into(),
            id: "0123456789".into(),
            attributes: attributes
                .map(|(key, value)| (key.into(), value.into()))
                .into(),
        }
    }

    #[test]
    fn a_line_is_dockers() {
        assert_eq!(
            plain(&event()),
            "2026-11-21T02:55:45.999832600Z container exec_start: true  0123456789 (image=bb, k=v, name=ev)"
        );
        assert_eq!(
            tree(&event()).compact(),
            "{\"status\":\"exec_start: true \",\"id\":\"0123456789\",\"from\":\"bb\",\"Type\":\"container\",\"Action\":\
             \"exec_start: true \",\"Actor\":{\"ID\":\"0123456789\",\"Attributes\":{\"image\":\"bb\",\"k\":\"v\",\"name\":\"ev\"}},\
             \"scope\":\"local\",\"time\":1795229745,\"timeNano\":1795229745999832600}"
        );
    }

    #[test]
    fn filters_are_dockers() {
        for (typed, want) in [
            (&["event=exec_start"][..], true),
            (&["event=start"], false),
            (&["event=start", "event=exec_start"], true),
            (&["type=container"], true),
            (&["type=image"], false),
            (&["container=e"], true),
            (&["container=0123"], true),
            (&["container=x"], false),
            (&["label=k=v"], true),
            (&["label=k=w"], false),
            (&["image=bb", "scope=local"], true),
            (&["volume=x"], false),
            (&["frob=1"], true),
        ] {
            let typed: Vec<String> = typed.iter().map(|&text| text.to_owned()).collect();
            let filters = Filters::read_any(&VERB, &typed).unwrap();
            assert_eq!(wanted(&event(), &filters), want, "{typed:?}");
        }
    }
}
