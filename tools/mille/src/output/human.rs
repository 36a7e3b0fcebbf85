//! Numbers, times and texts as docker shows them to people.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Seconds of a minute, an hour and a day.
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// Hours of a day.
const DAY: u64 = 24;

/// A span of time in words: `3 minutes`, `About an hour`.
pub(crate) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    // Hours are rounded, everything else is cut: docker's own way.
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        _ => match seconds / MINUTE {
            1 => "About a minute".to_owned(),
            minutes if minutes < 60 => format!("{minutes} minutes"),
            _ => long_duration(hours, seconds / HOUR),
        },
    }
}

fn long_duration(rounded: u64, hours: u64) -> String {
    match rounded {
        0 | 1 => "About an hour".to_owned(),
        2..48 => format!("{rounded} hours"),
        _ if rounded < DAY * 7 * 2 => format!("{} days", rounded / DAY),
        _ if rounded < DAY * 30 * 2 => format!("{} weeks", rounded / DAY / 7),
        _ if rounded < DAY * 365 * 2 => format!("{} months", rounded / DAY / 30),
        _ => format!("{} years", hours / DAY / 365),
    }
}

/// How long ago something was, in words; a moment in the future was just now.
pub(crate) fn since(moment: Timestamp, now: Timestamp) -> String {
    let span = now.duration_since(moment);
    duration(Duration::try_from(span).unwrap_or_default())
}

/// `3 minutes ago`; `N/A` when nobody knows. Parts of a second do not count: docker keeps whole ones.
pub(crate) fn ago(moment: Option<Timestamp>, now: Timestamp) -> String {
    let whole = moment.and_then(|moment| Timestamp::from_second(moment.as_second()).ok());
    whole.map_or_else(
        || "N/A".to_owned(),
        |moment| format!("{} ago", since(moment, now)),
    )
}

/// Go's `time.String` of a whole second in local time: `2026-11-21 02:29:57 +0000 UTC`.
pub(crate) fn local_time(moment: Option<Timestamp>) -> String {
    formatted(moment, "%Y-%m-%d %H:%M:%S %z %Z")
}

/// RFC 3339 of a whole second in local time: `2026-11-21T02:25:04Z`.
pub(crate) fn rfc3339(moment: Option<Timestamp>) -> String {
    let text = formatted(moment, "%Y-%m-%dT%H:%M:%S%:z");
    text.strip_suffix("+00:00")
        .map_or_else(|| text.clone(), |utc| format!("{utc}Z"))
}

fn formatted(moment: Option<Timestamp>, format: &str) -> String {
    let Some(moment) = moment else {
        return "N/A".to_owned();
    };
    moment
        .to_zoned(TimeZone::system())
        .strftime(format)
        .to_string()
}

/// Bytes in decimal units with so many significant digits: `1.98MB` (3), `1.984MB` (4).
pub(crate) fn size(bytes: u64, digits: usize) -> String {
    scaled(
        bytes,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB"],
        digits,
    )
}

/// Bytes in binary units with four significant digits: `23.54GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(
        bytes,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
        4,
    )
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    #[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut number = bytes as f64;
    let mut units = units.iter().peekable();
    let mut unit = units.next().copied().unwrap_or_default();
    // What would be rounded up to a full unit moves on too, where docker falls into `1e+03kB`.
    while units.peek().is_some()
        && (number >= base
            || rounded(number, digits)
                .parse()
                .is_ok_and(|n: f64| n >= base))
    {
        number /= base;
        unit = units.next().copied().unwrap_or_default();
    }
    format!("{}{unit}", rounded(number, digits))
}

/// C's `%.{digits}g` without exponents.
fn rounded(number: f64, digits: usize) -> String {
    let whole = format!("{number:.0}").len();
    let text = format!("{number:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Cuts a text to so many terminal cells, `…` included.
pub(crate) fn ellipsis(text: &str, cells: usize) -> String {
    if text.chars().map(width).sum::<usize>() <= cells {
        return text.to_owned();
    }
    let mut used = 0;
    let kept = text.chars().take_while(|c| {
        used += width(*c);
        used < cells
    });
    kept.chain(['…']).collect()
}

/// Terminal cells of a character: East Asian wide ones and pictures take two.
fn width(c: char) -> usize {
    let wide = matches!(u32::from(c),
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60
        | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f900..=0x1f9ff | 0x2_0000..=0x3_fffd);
    if wide { 2 } else { 1 }
}

/// Go's `strconv.Quote`.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            ' ' => out.push(c),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || c.is_whitespace() => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_dockers() {
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (729 * 86400, "24 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), want, "{seconds}");
        }
    }

    #[test]
    fn sizes_are_dockers() {
        for (bytes, digits, want) in [
            (0, 3, "0B"),
            (2, 3, "2B"),
            (999, 3, "999B"),
            (1_984_394, 3, "1.98MB"),
            (1_984_394, 4, "1.984MB"),
            (2_084_400, 3, "2.08MB"),
            (100_000, 3, "100kB"),
            (123_456, 3, "123kB"),
            (21_500_000, 3, "21.5MB"),
            (999_600, 3, "1MB"),
            (1_000, 3, "1kB"),
            (1_500_000_000, 3, "1.5GB"),
        ] {
            assert_eq!(size(bytes, digits), want, "{bytes}");
        }
        assert_eq!(binary_size(25_276_000_000), "23.54GiB");
    }

    #[test]
    fn commands_are_cut_and_then_quoted() {
        for (command, want) in [
            (
                "sh -c 'echo a\necho b; sleep 1000'",
                "\"sh -c 'echo a\\necho …\"",
            ),
            (
                "sh -c 'echo ééééééééééééé; sleep 1000'",
                "\"sh -c 'echo ééééééé…\"",
            ),
            ("/bin/sleep 1000", "\"/bin/sleep 1000\""),
            (
                "sh -c 'echo \"quoted\" $HOME; sleep 1000'",
                "\"sh -c 'echo \\\"quoted…\"",
            ),
            ("sh -c 'sleep 0.1; exit 137'", "\"sh -c 'sleep 0.1; e…\""),
        ] {
            assert_eq!(quoted(&ellipsis(command, 20)), want);
        }
        assert_eq!(quoted("\u{1}\u{a0}\u{7f}é"), "\"\\x01\\u00a0\\x7fé\"");
        assert_eq!(ellipsis("漢字漢字", 5), "漢字…");
    }

    #[test]
    fn moments() {
        let moment: Timestamp = "2026-11-21T02:25:04.9Z".parse().unwrap();
        let now: Timestamp = "2026-11-21T02:25:05.1Z".parse().unwrap();
        assert_eq!(ago(Some(moment), now), "1 second ago");
        assert_eq!(since(moment, now), "Less than a second");
        assert_eq!(since(now, moment), "Less than a second");
        assert_eq!(ago(None, now), "N/A");
    }
}
