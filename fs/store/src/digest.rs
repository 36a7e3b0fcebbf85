//! Digests and the ids made of them.
//!
//! Everything in the store is named by the sha256 of its bytes. Four newtypes keep apart what may never be
//! mixed: a [`DiffId`] names the uncompressed tar of one layer, a [`ChainId`] a stack of layers, an
//! [`ImageId`] the bytes of an image configuration, and a bare [`Digest`] any blob of an archive.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Why a text is not a digest this store can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `algorithm:` in front, or characters that are not lower-case hexadecimal.
    #[error("invalid checksum digest format: {0:?}")]
    Format(String),
    /// The hexadecimal part has the wrong number of digits.
    #[error("invalid checksum digest length: {0:?}")]
    Length(String),
    /// An algorithm other than sha256.
    #[error("unsupported digest algorithm: {0:?} (only sha256 is known)")]
    Algorithm(String),
}

/// The sha256 of some bytes; prints as `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Returns the 64 lower-case hexadecimal digits, without `sha256:`.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(DIGITS[usize::from(nibble)]));
            }
        }
        text
    }

    /// Reads exactly 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// [`DigestError::Length`] or [`DigestError::Format`].
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        if hex.len() != 64 {
            return Err(DigestError::Length(hex.to_owned()));
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (high, low) = (nibble(pair[0]), nibble(pair[1]));
            let (Some(high), Some(low)) = (high, low) else {
                return Err(DigestError::Format(hex.to_owned()));
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text
            .split_once(':')
            .ok_or_else(|| DigestError::Format(text.to_owned()))?;
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm(algorithm.to_owned()));
        }
        Self::from_hex(hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// Returns the 64 lower-case hexadecimal digits, without `sha256:`.
            pub fn hex(&self) -> String {
                self.0.hex()
            }

            /// Returns the first twelve hexadecimal digits, as tables show ids.
            pub fn short(&self) -> String {
                let mut hex = self.0.hex();
                hex.truncate(12);
                hex
            }

            /// Returns the digest itself.
            pub fn digest(&self) -> Digest {
                self.0
            }

            /// Reads exactly 64 lower-case hexadecimal digits.
            ///
            /// # Errors
            /// As [`Digest::from_hex`].
            pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
                Digest::from_hex(hex).map(Self)
            }
        }

        impl From<Digest> for $name {
            fn from(digest: Digest) -> Self {
                Self(digest)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// The digest of one layer's uncompressed tar.
    DiffId
}
id! {
    /// The digest of a stack of layers, bottom first.
    ChainId
}
id! {
    /// The digest of an image's configuration bytes.
    ImageId
}

impl DiffId {
    /// The 1024 zero bytes that an archive without entries consists of: a layer that changes nothing.
    pub const EMPTY_TAR: &'static str =
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

    /// Returns whether this is the layer that changes nothing.
    pub fn is_empty_tar(&self) -> bool {
        self.hex() == Self::EMPTY_TAR
    }
}

impl ChainId {
    /// Returns the chain ids of all stacks that `layers` (bottom first) pass through: the first is that of
    /// the bottom layer alone, the last that of the whole stack. Empty for no layers.
    pub fn chain(layers: &[DiffId]) -> Vec<ChainId> {
        let mut chain: Vec<ChainId> = Vec::with_capacity(layers.len());
        for layer in layers {
            let next = match chain.last() {
                None => ChainId(layer.0),
                Some(below) => ChainId(Digest::of(format!("{below} {layer}").as_bytes())),
            };
            chain.push(next);
        }
        chain
    }

    /// Returns the chain id of the whole stack, or `None` for no layers.
    pub fn of(layers: &[DiffId]) -> Option<ChainId> {
        Self::chain(layers).last().copied()
    }
}

/// A reader or writer that hashes what passes through it.
#[derive(Debug)]
pub struct Hashing<T> {
    inner: T,
    hasher: sha2::Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    /// Wraps `inner`.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: sha2::Sha256::new(),
            bytes: 0,
        }
    }

    /// Returns the digest and the number of the bytes that passed.
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.hasher.finalize().into()), self.bytes)
    }

    fn took(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.took(&buffer[..count]);
        Ok(count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.took(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_parse_and_print() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of(b""));
        for (text, why) in [
            ("", "format"),
            ("sha256", "format"),
            ("sha256:", "length"),
            ("sha256:aa", "length"),
            ("sha512:aa", "algorithm"),
            (&empty.to_uppercase(), "algorithm"),
            (&format!("sha256:{}", "G".repeat(64)), "format"),
            (&format!("sha256:{}", "A".repeat(64)), "format"),
            (&format!("sha256:{}", "ä".repeat(32)), "format"),
        ] {
            let found = match text.parse::<Digest>().unwrap_err() {
                DigestError::Format(_) => "format",
                DigestError::Length(_) => "length",
                DigestError::Algorithm(_) => "algorithm",
            };
            assert_eq!(found, why, "{text:?}");
        }
    }

    #[test]
    fn chain_ids_are_those_of_the_image_specification() {
        let a = DiffId::from(Digest::of(b"a"));
        let b = DiffId::from(Digest::of(b"b"));
        let chain = ChainId::chain(&[a, b]);
        assert_eq!(chain[0].digest(), a.digest());
        assert_eq!(chain[1].digest(), Digest::of(format!("{a} {b}").as_bytes()));
        assert_eq!(ChainId::of(&[]), None);
    }

    #[test]
    fn the_empty_tar_is_known() {
        assert!(DiffId::from(Digest::of(&[0; 1024])).is_empty_tar());
        assert!(!DiffId::from(Digest::of(b"")).is_empty_tar());
    }
}
