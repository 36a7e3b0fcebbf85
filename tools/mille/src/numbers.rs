//! Numbers as docker's flags take them.

/// docker's RAM sizes: `64m`, `1.5g`, `100`, powers of 1024; `None` if it is none.
pub(crate) fn ram_bytes(text: &str) -> Option<i64> {
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = lower[digits.len()..]
        .trim_start()
        .trim_end_matches('b')
        .trim_end_matches('i');
    let factor: f64 = match unit {
        "" => 1.0,
        "k" => 1024.0,
        "m" => 1024.0 * 1024.0,
        "g" => 1024.0 * 1024.0 * 1024.0,
        "t" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = digits
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    // Sizes far below 2^53: exact.
    Some((number * factor) as i64)
}

/// What Go says of a number that is none.
pub(crate) fn go_error(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {text:?}: invalid syntax")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("10m", Some(10 << 20)),
            ("1.5g", Some(3 << 29)),
            ("100", Some(100)),
            ("64MB", Some(64 << 20)),
            ("1KiB", Some(1024)),
            ("abc", None),
            ("", None),
            ("-1m", None),
        ] {
            assert_eq!(ram_bytes(text), want, "{text}");
        }
    }
}
