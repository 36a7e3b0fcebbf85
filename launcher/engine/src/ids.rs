//! Container ids: 64 hexadecimal digits, drawn at random.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Length of a full id in hexadecimal digits.
const FULL: usize = 64;
/// Length of the short form that tables show and the default host name has.
const SHORT: usize = 12;

/// The full id of a container: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Draws a new id. As docker does, one whose short form is all digits is drawn again: it would be a bad host name.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn random() -> Result<Self> {
        loop {
            let mut bytes = [0_u8; FULL / 2];
            fill_random(&mut bytes)?;
            let hex = hex(&bytes);
            if hex.bytes().take(SHORT).any(|digit| !digit.is_ascii_digit()) {
                return Ok(Self(hex));
            }
        }
    }

    /// Parses a full id; `None` when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == FULL && text.bytes().all(hexadecimal)).then(|| Self(text.to_owned()))
    }

    /// Returns all 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first twelve digits.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..SHORT).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a container id"))
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// Fills `bytes` from the kernel's generator.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let got = rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::system("getrandom")(errno.into()))?;
        filled += got;
    }
    Ok(())
}

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        if write!(text, "{byte:02x}").is_err() {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_parses_and_shortens() {
        let id = ContainerId::random().unwrap();
        assert_eq!(ContainerId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(id.short().len(), 12);
        assert!(id.short().bytes().any(|b| !b.is_ascii_digit()));
    }

    #[test]
    fn only_full_lower_case_hex_is_an_id() {
        for text in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(ContainerId::parse(text), None, "{text}");
        }
    }
}
