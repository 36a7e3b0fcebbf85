//! Names of images, by docker's grammar.
//!
//! A [`Reference`] is always complete inside: a registry host, a repository path, and a tag or a digest (or
//! both, or neither). People write and read the *familiar* form, in which `docker.io/`, `library/` are left
//! out: `debian:12` is `docker.io/library/debian:12`. Other hosts, `localhost` among them, stay visible.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

const DEFAULT_HOST: &str = "docker.io";
/// The host by which old clients know the default registry.
const LEGACY_HOST: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
/// Longest repository path, as registries limit it.
const PATH_LIMIT: usize = 255;
/// Longest tag.
const TAG_LIMIT: usize = 128;

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hexadecimal digits could be an id, so they cannot be a name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Hexadecimal(String),
    /// The repository path has more than 255 characters.
    #[error("repository name must not be more than {PATH_LIMIT} characters")]
    TooLong,
    /// The part after `@` is not a digest.
    #[error("invalid reference format: {0}")]
    Digest(#[from] DigestError),
}

/// A complete image name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name as a person types it; adds the default host, and nothing else.
    ///
    /// # Errors
    /// [`ReferenceError`], in docker's words.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if Digest::from_hex(text).is_ok() {
            return Err(ReferenceError::Hexadecimal(text.to_owned()));
        }
        let (host, rest) = split_host(text);
        let name_end = rest.find(':').unwrap_or(rest.len());
        let name = &rest[..name_end];
        if name.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(name.to_owned()));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (&*rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_host(host) || !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(ReferenceError::Format);
        }
        if path.len() > PATH_LIMIT {
            return Err(ReferenceError::TooLong);
        }
        let digest = digest.map(parse_digest).transpose()?;
        Ok(Self {
            host: host.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// Returns the registry's host, with its port if it has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the repository's path at its registry (`library/debian`).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the tag, if one is written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if one is written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns whether neither tag nor digest is written.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Adds `:latest` to a bare name.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Returns the same repository with another tag, and no digest.
    ///
    /// # Errors
    /// [`ReferenceError::Format`] if `tag` is not one.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self {
            host: self.host.clone(),
            path: self.path.clone(),
            tag: Some(tag.to_owned()),
            digest: None,
        })
    }

    /// Returns the same name without its digest, if it has a tag.
    pub(crate) fn only_tag(&self) -> Option<Self> {
        self.tag.as_deref()?;
        Some(Self {
            digest: None,
            ..self.clone()
        })
    }

    /// Returns the repository with its host: `docker.io/library/debian`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// Returns the repository as people read it: `debian`, `localhost:5000/team/app`.
    pub fn familiar_name(&self) -> String {
        if self.host != DEFAULT_HOST {
            return self.repository();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Returns the whole reference as people read it: `debian:12`.
    pub fn familiar(&self) -> String {
        self.finish(self.familiar_name())
    }

    fn finish(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

/// Prints the complete form: `docker.io/library/debian:12`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.finish(self.repository()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Splits the host off. The first component is a host only if it looks like one: it is `localhost`, has a
/// dot or a colon, or has upper-case letters (which no repository may have).
fn split_host(text: &str) -> (&str, std::borrow::Cow<'_, str>) {
    let (host, rest) = match text.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (
                if first == LEGACY_HOST {
                    DEFAULT_HOST
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_HOST, text),
    };
    if host == DEFAULT_HOST && !rest.contains('/') {
        return (host, format!("{OFFICIAL}{rest}").into());
    }
    (host, rest.into())
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    text.parse().map_err(|error| match error {
        DigestError::Algorithm(_) if grammatical_digest(text) => ReferenceError::Digest(error),
        // A malformed digest does not match the grammar, so docker has no more to say about it.
        _ => ReferenceError::Format,
    })
}

fn grammatical_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|first: char| first.is_ascii_alphabetic())
            && algorithm
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+._-".contains(c))
            && hex.len() >= 32
            && hex.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => return is_ipv6(address),
            Some((address, port)) => match port.strip_prefix(':') {
                Some(port) => return is_ipv6(address) && is_port(port),
                None => return false,
            },
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    port.is_none_or(is_port) && name.split('.').all(is_host_component)
}

fn is_ipv6(address: &str) -> bool {
    !address.is_empty()
        && address
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':')
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_host_component(component: &str) -> bool {
    !component.is_empty()
        && !component.starts_with('-')
        && !component.ends_with('-')
        && component
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_component)
}

/// Letters and digits, with single separators `.`, `_`, `__` or any number of `-` between them.
fn is_path_component(component: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    plain(first)
        && plain(last)
        && bytes.split(plain).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_LIMIT).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_completed_and_shown_familiar() {
        let digest = Digest::of(b"x");
        for (given, complete, familiar) in [
            ("bb", "docker.io/library/bb", "bb"),
            ("bb:v1", "docker.io/library/bb:v1", "bb:v1"),
            ("library/bb:v1", "docker.io/library/bb:v1", "bb:v1"),
            ("docker.io/bb:v1", "docker.io/library/bb:v1", "bb:v1"),
            (
                "docker.io/library/bb:v1",
                "docker.io/library/bb:v1",
                "bb:v1",
            ),
            ("index.docker.io/bb:v1", "docker.io/library/bb:v1", "bb:v1"),
            ("index.docker.io/library/bb", "docker.io/library/bb", "bb"),
            ("other/name:t", "docker.io/other/name:t", "other/name:t"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            (
                "example.com/a/b/c",
                "example.com/a/b/c",
                "example.com/a/b/c",
            ),
            (
                "localhost:5000/team/bb:x",
                "localhost:5000/team/bb:x",
                "localhost:5000/team/bb:x",
            ),
            ("localhost/bb", "localhost/bb", "localhost/bb"),
            (
                "host.tld:80",
                "docker.io/library/host.tld:80",
                "host.tld:80",
            ),
            ("HOST/bb", "HOST/bb", "HOST/bb"),
            ("[::1]:5000/bb", "[::1]:5000/bb", "[::1]:5000/bb"),
            ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f", "a__b/c--d.e_f"),
            (
                "sha256:aaaa",
                "docker.io/library/sha256:aaaa",
                "sha256:aaaa",
            ),
            ("bb:V_1.-", "docker.io/library/bb:V_1.-", "bb:V_1.-"),
        ] {
            let reference = Reference::parse(given).unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(reference.to_string(), complete, "{given}");
            assert_eq!(reference.familiar(), familiar, "{given}");
        }
        let pinned = Reference::parse(&format!("bb:v1@{digest}")).unwrap();
        assert_eq!((pinned.tag(), pinned.digest()), (Some("v1"), Some(digest)));
        assert_eq!(pinned.familiar(), format!("bb:v1@{digest}"));
        assert_eq!(
            Reference::parse("bb").unwrap().or_latest().familiar(),
            "bb:latest"
        );
    }

    #[test]
    fn errors_are_docker_s() {
        let hex = "a".repeat(64);
        let format = "invalid reference format";
        for (given, want) in [
            ("", format.to_owned()),
            ("bb:", format.to_owned()),
            ("bb:ba d", format.to_owned()),
            ("x:y:z", format.to_owned()),
            ("bb@sha256:aa", format.to_owned()),
            ("bb@", format.to_owned()),
            ("-bb", format.to_owned()),
            ("bb-", format.to_owned()),
            ("a___b", format.to_owned()),
            ("a..b", format.to_owned()),
            ("a//b", format.to_owned()),
            ("a/", format.to_owned()),
            ("/a", format.to_owned()),
            ("sha256:", format.to_owned()),
            ("b\nb", format.to_owned()),
            ("bä", format.to_owned()),
            ("-a.b/c", format.to_owned()),
            (&format!("bb:{}", "t".repeat(129)), format.to_owned()),
            (
                "BB:upper",
                "invalid reference format: repository name (library/BB) must be lowercase".into(),
            ),
            (
                "a.b/Cd:x",
                "invalid reference format: repository name (Cd) must be lowercase".into(),
            ),
            (
                &hex,
                format!(
                    "invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings"
                ),
            ),
            (
                &"a".repeat(256),
                "repository name must not be more than 255 characters".into(),
            ),
        ] {
            assert_eq!(
                Reference::parse(given).unwrap_err().to_string(),
                want,
                "{given:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_a_round_trip(text in "[a-cA.:/@_-]{0,20}|\\PC{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                for form in [reference.to_string(), reference.familiar()] {
                    prop_assert_eq!(&Reference::parse(&form).unwrap(), &reference);
                }
            }
        }

        #[test]
        fn every_grammatical_name_is_read(
            host in prop::option::of("localhost|[a-z]{1,5}\\.[a-z]{2,3}(:[0-9]{1,5})?"),
            path in "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}){0,3}",
            tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        ) {
            // A first part with a dot is read as a host, and a host has no underscore.
            let path = if host.is_none() { path.replacen('.', "-", 2) } else { path };
            let mut text = host.map(|host| host + "/").unwrap_or_default() + &path;
            if let Some(tag) = &tag {
                text = text + ":" + tag;
            }
            let reference = Reference::parse(&text).unwrap();
            prop_assert_eq!(reference.tag(), tag.as_deref());
            prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        }
    }
}
