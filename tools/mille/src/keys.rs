//! `--detach-keys`: `ctrl-p,ctrl-q`, `a,b,ctrl-@`.

use clap::ArgMatches;
use mille_engine::DEFAULT_DETACH_KEYS;

use crate::arguments::text;
use crate::failure::Failure;

/// The bytes that leave an attached terminal; docker's default without the flag.
pub(crate) fn from_flag(matches: &ArgMatches) -> Result<Vec<u8>, Failure> {
    match text(matches, "detach-keys") {
        None | Some("") => Ok(DEFAULT_DETACH_KEYS.to_vec()),
        Some(keys) => parse(keys)
            .ok_or_else(|| Failure::Daemon(format!("Invalid escape keys ({keys}) provided"))),
    }
}

fn parse(text: &str) -> Option<Vec<u8>> {
    text.split(',').map(key).collect()
}

fn key(word: &str) -> Option<u8> {
    if let Some(name) = word.strip_prefix("ctrl-") {
        return match name.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            b"@" => Some(0),
            b"[" => Some(27),
            b"\\" => Some(28),
            b"]" => Some(29),
            b"^" => Some(30),
            b"_" => Some(31),
            _ => None,
        };
    }
    match word.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        for (text, want) in [
            ("ctrl-p,ctrl-q", Some(vec![16, 17])),
            ("a,ctrl-@,ctrl-]", Some(vec![b'a', 0, 29])),
            ("frob", None),
            ("ctrl-A", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
