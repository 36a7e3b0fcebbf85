//! PAX records, read strictly and written by length.
//!
//! tar-core stops silently at a record whose length it cannot read, takes only whole, positive seconds, and is told to
//! pass over values it cannot parse; so all records of an entry are read once more here, and what is wrong is an error.

use crate::encode::Time;

/// What this crate reads of an entry's records by itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    /// `mtime`, with its fraction.
    pub(crate) mtime: Option<Time>,
    /// `size`.
    pub(crate) size: Option<u64>,
    /// `GNU.sparse.major` is 1: the map stands before the content.
    pub(crate) sparse_map_in_content: bool,
}

/// Reads all records.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(raw: &[u8]) -> Result<Records, String> {
    let mut records = Records::default();
    let mut rest = raw;
    while !rest.is_empty() {
        let (key, value, after) = record(rest).ok_or("malformed PAX record")?;
        rest = after;
        let number = || {
            digits(value).ok_or_else(|| {
                let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
                format!("PAX {key} is not a number: {value:?}")
            })
        };
        match key {
            b"mtime" => {
                let time = decimal_time(value);
                let shown = String::from_utf8_lossy(value);
                records.mtime = Some(time.ok_or_else(|| format!("PAX mtime: {shown:?}"))?);
            }
            b"size" => records.size = Some(number()?),
            b"GNU.sparse.major" => records.sparse_map_in_content = number()? == 1,
            b"uid"
            | b"gid"
            | b"GNU.sparse.minor"
            | b"GNU.sparse.size"
            | b"GNU.sparse.realsize"
            | b"GNU.sparse.offset"
            | b"GNU.sparse.numbytes" => {
                number()?;
            }
            _ => {}
        }
    }
    Ok(records)
}

/// Takes one `LENGTH KEY=VALUE\n` off the front.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = data.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(digits(&data[..blank])?).ok()?;
    let body = data.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    (equals > 0).then(|| (&body[..equals], &body[equals + 1..], &data[length..]))
}

/// A decimal number of digits only.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads `[-]SECONDS[.FRACTION]`; digits below the nanosecond are cut towards the past.
fn decimal_time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let sec = i64::try_from(digits(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nsec = 0u32;
    for index in 0..9 {
        nsec = nsec * 10
            + fraction
                .get(index)
                .map_or(0, |digit| u32::from(digit - b'0'));
    }
    let rest_is_zero = fraction.iter().skip(9).all(|&digit| digit == b'0');
    if !negative {
        return Some(Time { sec, nsec });
    }
    let nsec = if rest_is_zero { nsec } else { nsec + 1 };
    Some(match nsec {
        0 => Time { sec: -sec, nsec: 0 },
        1_000_000_000 => Time {
            sec: (-sec).checked_sub(1)?,
            nsec: 0,
        },
        _ => Time {
            sec: (-sec).checked_sub(1)?,
            nsec: 1_000_000_000 - nsec,
        },
    })
}

/// Writes a time as `decimal_time` reads it, as short as possible.
pub(crate) fn format_time(time: Time) -> String {
    let (sign, sec, nsec) = if time.sec < 0 && time.nsec > 0 {
        (
            "-",
            (time.sec + 1).unsigned_abs(),
            1_000_000_000u32.saturating_sub(time.nsec),
        )
    } else if time.sec < 0 {
        ("-", time.sec.unsigned_abs(), 0)
    } else {
        ("", time.sec.unsigned_abs(), time.nsec)
    };
    let mut text = format!("{sign}{sec}");
    if nsec > 0 {
        let fraction = format!("{nsec:09}");
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text
}

/// Appends one record; its length counts its own digits.
pub(crate) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + decimal_width(length) > length {
        length = body + decimal_width(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_width(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, sec, nsec) in [
            ("0", 0, 0),
            ("1234567890.5", 1_234_567_890, 500_000_000),
            ("1.000000001", 1, 1),
            ("-1", -1, 0),
            ("-0.5", -1, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-1.000000001", -2, 999_999_999),
        ] {
            let time = Time { sec, nsec };
            assert_eq!(decimal_time(text.as_bytes()), Some(time), "{text}");
            assert_eq!(format_time(time), text);
        }
        for (text, sec, nsec) in [
            ("1.", 1, 0),
            ("1.0000000019", 1, 1),
            ("-1.0000000001", -2, 999_999_999),
            ("-1.9999999999", -2, 0),
            ("-0", 0, 0),
        ] {
            assert_eq!(
                decimal_time(text.as_bytes()),
                Some(Time { sec, nsec }),
                "{text}"
            );
        }
        for text in [
            "",
            "-",
            ".5",
            "+1",
            "1e3",
            "1.-5",
            " 1",
            "9223372036854775808",
        ] {
            assert_eq!(decimal_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn record_lengths_count_themselves() {
        for value_length in (0..200).chain(9980..10020) {
            let mut out = Vec::new();
            push_record(&mut out, b"k", &vec![b'\n'; value_length]);
            let (key, value, rest) = record(&out).unwrap();
            assert_eq!((key, value.len(), rest.len()), (&b"k"[..], value_length, 0));
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        for raw in [
            &b"x"[..],
            b"5 a=b\n",
            b"6 a=b",
            b"6 a=b\nx",
            b"+6 a=b\n",
            b"0 \n",
            b"3 \n",
            b"4 =\n",
            b"99 a=b\n",
            b"10 size=-1\n",
            b"10 mtime=x\n",
            b"99999999999999999999 a=b\n",
        ] {
            assert!(parse(raw).is_err(), "{:?}", String::from_utf8_lossy(raw));
        }
        let records = parse(b"6 a=b\n11 size=77\n14 mtime=-1.5\n").unwrap();
        assert_eq!(records.size, Some(77));
        assert_eq!(
            records.mtime,
            Some(Time {
                sec: -2,
                nsec: 500_000_000
            })
        );
    }
}
