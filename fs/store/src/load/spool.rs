//! The members of an archive that comes as a stream, and names what it needs at its end.
//!
//! Layers are unpacked into the staging area as they come by, before anybody knows whether they are wanted: so even a
//! pipe is read once and written once. What is wrong with a member matters only when it is asked for.

use std::collections::HashMap;
use std::io::{self, Cursor, Read};

use super::members::{Blob, SMALL_BYTES, check_digest, check_size};
use super::tar_stream::{ARCHIVE, Content, Kind, TarStream};
use crate::compression::{Method, method, opened};
use crate::digest::{DiffId, Digest, Hashing};
use crate::error::{Error, LoadError};
use crate::progress::{Counted, Phase};
use crate::store::Store;
use crate::unpack::Pending;

/// Members an archive may have.
const MEMBER_LIMIT: usize = 100_000;
/// Memory for members that are not layers, in bytes.
const MEMORY_BYTES: u64 = 64 << 20;
/// Links that lead to one another.
const LINK_LIMIT: usize = 40;
/// A tar header: enough to tell one.
const HEAD_BYTES: usize = 512;

/// A member's name: its components.
type Name = Vec<Vec<u8>>;

/// Everything an archive had.
#[derive(Debug, Default)]
pub(super) struct Spool {
    members: HashMap<Name, Member>,
    memory: u64,
}

#[derive(Debug)]
enum Member {
    /// No layer: a manifest, a configuration.
    Bytes(Vec<u8>),
    /// A layer that is unpacked; taken once.
    Layer {
        blob: Digest,
        size: u64,
        diff_id: DiffId,
        pending: Option<Box<Pending>>,
    },
    /// A layer that is in the store already: only hashed.
    Known {
        digest: Digest,
        size: u64,
    },
    /// Neither small nor a layer, or a layer that could not be unpacked.
    Unusable(Option<Error>),
    Link(Vec<u8>),
    Alias(Name),
}

impl Spool {
    /// Reads an archive, compressed or not, to its end.
    pub(super) fn read(store: &Store, input: impl Read + Send) -> Result<Self, Error> {
        let mut stream = TarStream::new(opened(input, ARCHIVE)?.into_reader());
        let mut spool = Spool::default();
        while let Some(entry) = stream.next()? {
            let shown = String::from_utf8_lossy(&entry.path).into_owned();
            let name = components(&entry.path).ok_or_else(|| LoadError::Escape {
                member: shown.clone(),
                by: ARCHIVE.to_owned(),
            })?;
            let member = match entry.kind {
                Kind::Directory => continue,
                Kind::Other => Member::Unusable(Some(not_usable(&shown, "not a regular file"))),
                Kind::Symlink(target) => Member::Link(target),
                Kind::Hardlink(target) => match components(&target) {
                    Some(target) => Member::Alias(target),
                    None => Member::Unusable(Some(not_usable(&shown, "a link out of the archive"))),
                },
                Kind::File(size) => spool.file(store, &mut stream, &shown, size)?,
            };
            spool.members.insert(name, member);
            if spool.members.len() > MEMBER_LIMIT {
                let limit = format!("{MEMBER_LIMIT} members");
                return Err(LoadError::Limit {
                    member: ARCHIVE.to_owned(),
                    limit,
                }
                .into());
            }
        }
        stream.drain()?;
        if spool.members.is_empty() {
            return Err(LoadError::NotAnArchive(": it is empty").into());
        }
        Ok(spool)
    }

    fn file(
        &mut self,
        store: &Store,
        stream: &mut TarStream<'_>,
        name: &str,
        size: u64,
    ) -> Result<Member, Error> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let read = Content(stream)
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head);
        stream.check(read)?;
        match method(&head) {
            Method::Plain if is_tar(&head) && is_known(store, name) => {
                known_layer(store, stream, &head, name, size)
            }
            Method::Plain if is_tar(&head) => plain_layer(store, stream, &head, name, size),
            Method::Gzip | Method::Zstd => packed_layer(store, stream, &head, name, size),
            _ if size <= SMALL_BYTES => {
                self.memory += size;
                if self.memory > MEMORY_BYTES {
                    let limit = format!("{MEMORY_BYTES} bytes of members that are no layers");
                    return Err(LoadError::Limit {
                        member: ARCHIVE.to_owned(),
                        limit,
                    }
                    .into());
                }
                let read = Content(stream).read_to_end(&mut head);
                stream.check(read)?;
                Ok(Member::Bytes(head))
            }
            _ => Ok(Member::Unusable(Some(unpackable(name, &head)))),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        matches!(self.find(name, ""), Ok(found) if matches!(self.members.get(&found), Some(Member::Bytes(_))))
    }

    /// Returns a member that is no layer.
    pub(super) fn small(&mut self, name: &str, by: &str) -> Result<Vec<u8>, Error> {
        let found = self.find(name, by)?;
        match self.members.get_mut(&found) {
            Some(Member::Bytes(bytes)) => Ok(bytes.clone()),
            Some(Member::Unusable(error)) => Err(taken(error, name)),
            Some(_) => Err(not_usable(name, "an archive where JSON is expected")),
            None => Err(missing(name, by)),
        }
    }

    /// Checks what is announced of a layer that is here already.
    pub(super) fn check_layer(
        &mut self,
        wanted: &Blob,
        (item, expected): (&str, &DiffId),
        by: &str,
    ) -> Result<(), Error> {
        let name = &wanted.member;
        let found = self.find(name, by)?;
        let (digest, size, diff_id) = match self.members.get_mut(&found) {
            Some(Member::Layer {
                blob,
                size,
                diff_id,
                ..
            }) => (*blob, *size, *diff_id),
            Some(Member::Known { digest, size }) => (*digest, *size, DiffId::from(*digest)),
            Some(Member::Bytes(bytes)) => {
                let digest = Digest::of(bytes);
                (digest, bytes.len() as u64, DiffId::from(digest))
            }
            Some(Member::Unusable(error)) => return Err(taken(error, name)),
            Some(Member::Link(_) | Member::Alias(_)) | None => return Err(missing(name, by)),
        };
        check_size(wanted, size)?;
        check_announced(wanted, digest, item, expected)?;
        if diff_id == *expected {
            return Ok(());
        }
        Err(mismatch(item, expected, diff_id))
    }

    /// Returns an unpacked layer, and checks what is announced of it.
    pub(super) fn layer(
        &mut self,
        store: &Store,
        wanted: &Blob,
        layer: (&str, &DiffId),
        by: &str,
    ) -> Result<Pending, Error> {
        let name = &wanted.member;
        let (item, expected) = layer;
        let found = self.find(name, by)?;
        match self.members.get_mut(&found) {
            Some(Member::Layer {
                blob,
                size,
                diff_id,
                pending,
            }) => {
                check_size(wanted, *size)?;
                check_announced(wanted, *blob, item, expected)?;
                match pending.take() {
                    Some(pending) if *diff_id == *expected => Ok(*pending),
                    // It is one layer, and cannot be two.
                    _ => Err(mismatch(item, expected, *diff_id)),
                }
            }
            // Another digest than that of the store's, or removed from there while the archive was read.
            Some(Member::Known { digest, size }) => {
                check_size(wanted, *size)?;
                check_announced(wanted, *digest, item, expected)?;
                let reason = "its layer was removed while the archive was read; load it again";
                Err(not_usable(name, reason))
            }
            Some(Member::Bytes(bytes)) => {
                let pending = store.unpack(Cursor::new(bytes), name)?;
                pending.check(Some(expected), item)?;
                Ok(pending)
            }
            Some(Member::Unusable(error)) => Err(taken(error, name)),
            Some(Member::Link(_) | Member::Alias(_)) | None => Err(missing(name, by)),
        }
    }

    /// Follows links, in the archive only: `/` and `..` of a link mean the archive's root and never more.
    fn find(&self, name: &str, by: &str) -> Result<Name, Error> {
        let escape = || LoadError::Escape {
            member: name.to_owned(),
            by: by.to_owned(),
        };
        let path = name.as_bytes();
        if name.is_empty() || name.starts_with('/') {
            return Err(escape().into());
        }
        let mut rest: Vec<Vec<u8>> = components(path).ok_or_else(escape)?;
        rest.reverse();
        let mut found: Name = Vec::new();
        let mut links = 0;
        while let Some(component) = rest.pop() {
            match component.as_slice() {
                b"." | b"" => continue,
                b".." => {
                    found.pop();
                    continue;
                }
                _ => found.push(component),
            }
            let target = match self.members.get(&found) {
                Some(Member::Link(target)) => {
                    found.pop();
                    if target.first() == Some(&b'/') {
                        found.clear();
                    }
                    target
                        .split(|&byte| byte == b'/')
                        .map(<[u8]>::to_vec)
                        .collect()
                }
                Some(Member::Alias(target)) => {
                    found.clear();
                    target.clone()
                }
                _ => continue,
            };
            links += 1;
            if links > LINK_LIMIT {
                return Err(not_usable(name, "links that lead to one another"));
            }
            rest.extend(Vec::into_iter(target).rev());
        }
        Ok(found)
    }
}

/// Refuses a blob with another digest than its descriptor says; of a blob whose digest is its diff id, docker's words
/// name the layer.
fn check_announced(
    wanted: &Blob,
    found: Digest,
    item: &str,
    expected: &DiffId,
) -> Result<(), Error> {
    if wanted.digest == Some(expected.digest()) {
        return if found == expected.digest() {
            Ok(())
        } else {
            Err(mismatch(item, expected, found.into()))
        };
    }
    Ok(check_digest(wanted, found)?)
}

fn mismatch(item: &str, expected: &DiffId, found: DiffId) -> Error {
    Error::DiffIdMismatch {
        item: item.to_owned(),
        expected: *expected,
        found,
    }
}

/// Whether a member's name is the diff id of a layer that is here: `blobs/sha256/HEX`, or skopeo's `HEX.tar`.
fn is_known(store: &Store, name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    let hex = last.strip_suffix(".tar").unwrap_or(last);
    DiffId::from_hex(hex).is_ok_and(|layer| store.has_layer(&layer))
}

fn known_layer(
    store: &Store,
    stream: &mut TarStream<'_>,
    head: &[u8],
    name: &str,
    size: u64,
) -> Result<Member, Error> {
    let content = Cursor::new(head).chain(Content(stream));
    let content = Counted::new(content, &*store.progress, Phase::Read, name, Some(size));
    let mut hashing = Hashing::new(content);
    let read = io::copy(&mut hashing, &mut io::sink());
    let digest = hashing.finish().0;
    stream.check(read)?;
    Ok(Member::Known { digest, size })
}

/// A layer that is not compressed: its digest is its diff id.
fn plain_layer(
    store: &Store,
    stream: &mut TarStream<'_>,
    head: &[u8],
    name: &str,
    size: u64,
) -> Result<Member, Error> {
    let content = Cursor::new(head).chain(Content(stream));
    let content = Counted::new(content, &*store.progress, Phase::Extract, name, Some(size));
    let unpacked = store.unpack(content, name);
    keep(stream, unpacked, None, size)
}

/// A compressed one has a digest of its own.
fn packed_layer(
    store: &Store,
    stream: &mut TarStream<'_>,
    head: &[u8],
    name: &str,
    size: u64,
) -> Result<Member, Error> {
    let content = Cursor::new(head).chain(Content(stream));
    let content = Counted::new(content, &*store.progress, Phase::Extract, name, Some(size));
    let mut content = Hashing::new(content);
    let unpacked = store.unpack(&mut content, name);
    // What a decoder leaves unread belongs to the blob all the same. The archive's own faults are seen below.
    let blob = match io::copy(&mut content, &mut io::sink()) {
        Ok(_) => Some(content.finish().0),
        Err(_) => None,
    };
    keep(stream, unpacked, blob, size)
}

fn keep(
    stream: &mut TarStream<'_>,
    unpacked: Result<Pending, Error>,
    blob: Option<Digest>,
    size: u64,
) -> Result<Member, Error> {
    // An archive that ends early makes every reader fail: that is its fault, and not the layer's.
    stream.check(Ok(()))?;
    match unpacked {
        Ok(pending) => Ok(Member::Layer {
            blob: blob.unwrap_or(pending.diff_id.digest()),
            size,
            diff_id: pending.diff_id,
            pending: Some(Box::new(pending)),
        }),
        // Whatever else is in the archive, it cannot be kept either.
        Err(error) if is_ours(&error) => Err(error),
        Err(error) => Ok(Member::Unusable(Some(error))),
    }
}

/// Whether an error is of this machine and not of the archive.
fn is_ours(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Splits a name at slashes; `None` if it leads out of the archive.
fn components(path: &[u8]) -> Option<Name> {
    let parts = path.split(|&byte| byte == b'/');
    let named: Name = parts
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(<[u8]>::to_vec)
        .collect();
    (!named.iter().any(|part| part == b"..")).then_some(named)
}

/// Whether a member begins like a tar: a header whose checksum is right, or the end mark of one without entries.
fn is_tar(head: &[u8]) -> bool {
    if head.len() < HEAD_BYTES {
        return false;
    }
    if head.iter().all(|&byte| byte == 0) {
        return true;
    }
    let field: String = head[148..156]
        .iter()
        .map(|&byte| char::from(byte))
        .filter(char::is_ascii_digit)
        .collect();
    let sum: u32 = head
        .iter()
        .enumerate()
        .map(|(at, &byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(byte)
            }
        })
        .sum();
    u32::from_str_radix(&field, 8) == Ok(sum)
}

fn taken(error: &mut Option<Error>, name: &str) -> Error {
    error
        .take()
        .unwrap_or_else(|| not_usable(name, "it cannot be used"))
}

fn unpackable(name: &str, head: &[u8]) -> Error {
    // Tells xz and bzip2 by their own error.
    match opened(Cursor::new(head.to_vec()), name) {
        Err(error) => error,
        Ok(_) => LoadError::Limit {
            member: name.to_owned(),
            limit: format!("{SMALL_BYTES} bytes for what is no layer"),
        }
        .into(),
    }
}

fn not_usable(member: &str, reason: &str) -> Error {
    LoadError::Member {
        member: member.to_owned(),
        reason: reason.to_owned(),
    }
    .into()
}

fn missing(member: &str, by: &str) -> Error {
    LoadError::Missing {
        member: member.to_owned(),
        by: by.to_owned(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(members: &[(&str, Member)]) -> Spool {
        let mut spool = Spool::default();
        for (name, member) in members {
            let member = match member {
                Member::Bytes(bytes) => Member::Bytes(bytes.clone()),
                Member::Link(target) => Member::Link(target.clone()),
                Member::Alias(target) => Member::Alias(target.clone()),
                _ => panic!("not used here"),
            };
            spool
                .members
                .insert(components(name.as_bytes()).unwrap(), member);
        }
        spool
    }

    #[test]
    fn links_stay_in_the_archive() {
        let link = |target: &str| Member::Link(target.into());
        let spool = spool(&[
            ("real.tar", Member::Bytes(vec![1])),
            ("a/layer.tar", link("../real.tar")),
            ("b/layer.tar", link("../../../../real.tar")),
            ("c", link("/a")),
            ("loop", link("loop")),
            (
                "hard",
                Member::Alias(vec![b"a".to_vec(), b"layer.tar".to_vec()]),
            ),
            ("passwd", link("/etc/passwd")),
        ]);
        for (name, there) in [
            ("real.tar", true),
            ("./real.tar", true),
            ("a/layer.tar", true),
            ("b/layer.tar", true),
            ("c/layer.tar", true),
            ("hard", true),
            ("loop", false),
            ("passwd", false),
            ("a", false),
            ("../real.tar", false),
            ("a/../../real.tar", false),
            ("/real.tar", false),
            ("", false),
        ] {
            assert_eq!(spool.has(name), there, "{name}");
        }
    }

    #[test]
    fn tars_are_told_by_their_checksum() {
        let mut header = tar::Header::new_ustar();
        header.set_path("x").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert!(is_tar(header.as_bytes()));
        assert!(is_tar(&[0; 512]));
        assert!(!is_tar(&[0; 511]));
        assert!(!is_tar(&[b'{'; 512]));
    }
}
