//! Moments as `--since` and `--until` take them: RFC 3339 and shorter forms in local time, seconds since 1970, or a
//! duration that lies in the past.

use clap::ArgMatches;
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use crate::arguments::text;
use crate::failure::Failure;

/// Reads a flag.
pub(crate) fn from_flag(matches: &ArgMatches, name: &str) -> Result<Option<Timestamp>, Failure> {
    let Some(text) = text(matches, name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let found = parse(text, Timestamp::now());
    let cause = || {
        format!("invalid value for {name:?}: failed to parse value as time or duration: {text:?}")
    };
    found.map(Some).ok_or_else(|| Failure::plain(cause()))
}

/// Reads a moment for a filter.
pub(crate) fn from_filter(text: &str) -> Result<Timestamp, Failure> {
    parse(text, Timestamp::now()).ok_or_else(|| {
        Failure::Daemon(format!(
            "failed to parse value as time or duration: {text:?}"
        ))
    })
}

fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    duration(text)
        .and_then(|ago| now.checked_sub(ago).ok())
        .or_else(|| text.parse().ok())
        .or_else(|| seconds(text))
        .or_else(|| local(text))
}

/// Go's durations: `1h30m`, `42m`, `1.5s`, `300ms`.
pub(crate) fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    let total = SignedDuration::try_from_secs_f64(total)
        .ok()
        .filter(|_| !text.is_empty())?;
    Some(if negative { -total } else { total })
}

/// `1700000000` or `1700000000.123456789`.
fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = format!("{fraction:0<9}");
    Timestamp::new(whole.parse().ok()?, nanoseconds.get(..9)?.parse().ok()?).ok()
}

/// A date and time without a zone is the machine's own.
fn local(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let moment: Option<civil::DateTime> = text.parse().ok();
    let moment = moment.or_else(|| {
        text.parse::<civil::Date>()
            .ok()
            .map(|date| date.at(0, 0, 0, 0))
    })?;
    moment
        .to_zoned(TimeZone::system())
        .ok()
        .map(|zoned| zoned.timestamp())
}

/// The log's time with all nine digits of its fraction, as `logs -t` shows it.
pub(crate) fn nanoseconds(time: &str) -> String {
    let Some(plain) = time.strip_suffix('Z') else {
        return time.to_owned();
    };
    let (seconds, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    format!("{seconds}.{fraction:0<9}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let now: Timestamp = "2026-11-21T02:33:25Z".parse().unwrap();
        for (text, want) in [
            ("1h", Some("2026-11-21T01:33:25Z")),
            ("1m30s", Some("2026-11-21T02:31:55Z")),
            ("2013-01-02T13:23:37Z", Some("2013-01-02T13:23:37Z")),
            ("1700000000", Some("2023-11-14T22:13:20Z")),
            ("1700000000.5", Some("2023-11-14T22:13:20.5Z")),
            ("abc", None),
            ("3x", None),
        ] {
            assert_eq!(
                parse(text, now).map(|moment| moment.to_string()),
                want.map(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn fractions_are_filled_up() {
        assert_eq!(
            nanoseconds("2026-11-21T02:33:37.59308183Z"),
            "2026-11-21T02:33:37.593081830Z"
        );
        assert_eq!(
            nanoseconds("2026-11-21T02:33:37Z"),
            "2026-11-21T02:33:37.000000000Z"
        );
    }
}
