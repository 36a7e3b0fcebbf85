//! Names of containers: their grammar, who has which, and names drawn for those who gave none.
//!
//! A name is claimed by making a symbolic link `container-names/NAME -> ID`: link creation is atomic, so no lock is
//! taken. The id is written in 43 letters instead of 64 digits: a link of less than 60 bytes is kept in its inode, and takes
//! no block of the disk. (Stores of before have digits, which are understood.) A link whose container is gone (its command was killed half-way) is stale; only clearing such a link takes
//! the directory's lock.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::{ContainerId, fill_random};
use crate::layout::Layout;
use crate::lock::Lock;
use crate::records;
use crate::words::{ADJECTIVES, CAKES};

/// How long a claim waits for another command that is clearing the same stale name.
const PATIENCE: Duration = Duration::from_secs(5);
/// Draws before a digit is added to a drawn name.
const DRAWS: usize = 6;

/// Checks the grammar `[a-zA-Z0-9][a-zA-Z0-9_.-]+`; a leading slash is dropped, as docker does.
///
/// # Errors
/// [`Error::InvalidName`] with the name as typed.
pub(crate) fn check(typed: &str) -> Result<&str> {
    let name = typed.strip_prefix('/').unwrap_or(typed);
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    // 255 is the longest file name; docker has no limit of its own.
    if first && rest && (2..=255).contains(&name.len()) {
        Ok(name)
    } else {
        Err(Error::InvalidName(typed.to_owned()))
    }
}

/// Claims a name for a container.
///
/// # Errors
/// [`Error::NameInUse`].
pub(crate) fn claim(layout: &Layout, name: &str, id: &ContainerId) -> Result<()> {
    if let Some(owner) = try_claim(layout, name, id)? {
        reclaim_stale(layout, name, id, owner)?;
    }
    Ok(())
}

/// Draws a free name and claims it.
///
/// # Errors
/// The names directory cannot be written.
pub(crate) fn claim_random(layout: &Layout, id: &ContainerId) -> Result<String> {
    for attempt in 0.. {
        let mut bytes = [0_u8; 5];
        fill_random(&mut bytes)?;
        let mut name = random_name(bytes);
        if attempt >= DRAWS {
            name.push_str(&(bytes[4]).to_string());
        }
        match claim(layout, &name, id) {
            Err(Error::NameInUse { .. }) => {}
            other => return other.map(|()| name),
        }
    }
    Err(Error::Invalid("no free name".to_owned()))
}

fn random_name(bytes: [u8; 5]) -> String {
    let pick = |list: &[&'static str], high: u8, low: u8| {
        let index = usize::from(u16::from_be_bytes([high, low])) % list.len();
        list.get(index).copied().unwrap_or_default()
    };
    format!(
        "{}_{}",
        pick(&ADJECTIVES, bytes[0], bytes[1]),
        pick(&CAKES, bytes[2], bytes[3])
    )
}

/// Returns the owner when the name is taken.
fn try_claim(layout: &Layout, name: &str, id: &ContainerId) -> Result<Option<String>> {
    let link = path(layout, name);
    match symlink(shortened(id), &link) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read_owner(&link) {
            Ok(owner) => Ok(Some(owner)),
            // Freed between the two calls: the caller looks again under the lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(String::new())),
            Err(error) => Err(Error::io("read link", &link)(error)),
        },
        Err(error) => Err(Error::io("create link", &link)(error)),
    }
}

/// Takes a name over from an owner that does not exist any more.
fn reclaim_stale(layout: &Layout, name: &str, id: &ContainerId, owner: String) -> Result<()> {
    let in_use = |owner: String| {
        Err(Error::NameInUse {
            name: name.to_owned(),
            id: owner,
        })
    };
    if is_owner(layout, name, &owner)? {
        return in_use(owner);
    }
    let lock_path = layout.names().join(".lock");
    let Some(_lock) = Lock::take_within(&lock_path, PATIENCE)? else {
        return in_use(owner);
    };
    // Only under the lock may a link be taken away, and it must still be the stale one.
    let link = path(layout, name);
    if let Ok(current) = read_owner(&link) {
        if is_owner(layout, name, &current)? {
            return in_use(current);
        }
        fs::remove_file(&link).map_err(Error::io("remove stale name", &link))?;
    }
    match try_claim(layout, name, id)? {
        None => Ok(()),
        Some(owner) => in_use(owner),
    }
}

/// Returns whether the container `owner` exists (or is being made) and goes by `name`.
fn is_owner(layout: &Layout, name: &str, owner: &str) -> Result<bool> {
    let Some(id) = ContainerId::parse(owner) else {
        return Ok(false);
    };
    let has_name = || Ok(records::read(layout, &id)?.map(|record| record.name == name));
    if let Some(found) = has_name()? {
        return Ok(found);
    }
    if Lock::is_held(&layout.staged(&id).lock())? {
        return Ok(true);
    }
    // Between the two questions it may have come out of staging.
    has_name().map(|found| found.unwrap_or(false))
}

/// Looks a name up; `None` when nobody has it.
pub(crate) fn lookup(layout: &Layout, name: &str) -> Result<Option<ContainerId>> {
    if check(name).is_err() {
        return Ok(None);
    }
    let link = path(layout, name);
    match read_owner(&link) {
        Ok(owner) => Ok(ContainerId::parse(&owner)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read link", &link)(error)),
    }
}

/// Gives a name back, if it still belongs to `id`.
pub(crate) fn release(layout: &Layout, name: &str, id: &ContainerId) -> Result<()> {
    let link = path(layout, name);
    match read_owner(&link) {
        Ok(owner) if owner == id.as_str() => crate::files::tolerate_missing(fs::remove_file(&link))
            .map_err(Error::io("remove", &link)),
        _ => Ok(()),
    }
}

/// Gives back every name that belongs to `id`, where nobody knows which it had.
pub(crate) fn release_all(layout: &Layout, id: &ContainerId) -> Result<()> {
    let directory = layout.names();
    for entry in fs::read_dir(&directory).map_err(Error::io("read", &directory))? {
        let name = entry.map_err(Error::io("read", &directory))?.file_name();
        release(layout, &name.to_string_lossy(), id)?;
    }
    Ok(())
}

/// Takes away names whose containers are gone: what a command leaves that was killed between claim and container.
pub(crate) fn prune(layout: &Layout) -> Result<()> {
    let directory = layout.names();
    let lock_path = directory.join(".lock");
    let Some(_lock) = Lock::take_within(&lock_path, PATIENCE)? else {
        return Ok(());
    };
    for entry in fs::read_dir(&directory).map_err(Error::io("read", &directory))? {
        let path = entry.map_err(Error::io("read", &directory))?.path();
        let (Ok(owner), Some(name)) = (read_owner(&path), path.file_name()) else {
            continue;
        };
        if !is_owner(layout, &name.to_string_lossy(), &owner)? {
            crate::files::tolerate_missing(fs::remove_file(&path))
                .map_err(Error::io("remove stale name", &path))?;
        }
    }
    Ok(())
}

fn path(layout: &Layout, name: &str) -> PathBuf {
    layout.names().join(name)
}

/// Six bits each.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// An id as links have it: two letters for three digits, one for the last.
fn shortened(id: &ContainerId) -> String {
    let mut text = String::new();
    let letter = |bits: u32| LETTERS.get(bits as usize % LETTERS.len()).copied();
    for digits in id.as_str().as_bytes().chunks(3) {
        let digit = |all: u32, digit: &u8| all * 16 + char::from(*digit).to_digit(16).unwrap_or(0);
        let value = digits.iter().fold(0, digit);
        let high = (digits.len() > 1).then_some(value / 64);
        text.extend(
            high.into_iter()
                .chain([value])
                .filter_map(letter)
                .map(char::from),
        );
    }
    text
}

/// The digits of what [`shortened`] wrote; `None` for anything else.
fn lengthened(text: &str) -> Option<ContainerId> {
    let value = |letter: &u8| LETTERS.iter().position(|known| known == letter);
    let mut digits = String::new();
    for letters in text.as_bytes().chunks(2) {
        digits += &match letters {
            [high, low] => format!("{:03x}", value(high)? * 64 + value(low)?),
            _ => format!("{:x}", value(letters.first()?)?),
        };
    }
    ContainerId::parse(&digits)
}

/// The id a link points at, in digits; whatever else it points at, as it stands there.
fn read_owner(link: &Path) -> io::Result<String> {
    let text = fs::read_link(link)?.to_string_lossy().into_owned();
    Ok(lengthened(&text).map_or(text, String::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar_is_dockers() {
        for (typed, want) in [
            ("web", Some("web")),
            ("/web", Some("web")),
            ("a1", Some("a1")),
            ("A_b.c-d", Some("A_b.c-d")),
            ("q", None),
            ("", None),
            ("-ab", None),
            ("a/b", None),
            ("bad name", None),
            ("..", None),
        ] {
            assert_eq!(check(typed).ok(), want, "{typed:?}");
        }
    }

    #[test]
    fn ids_are_short_enough_for_an_inode_and_whole() {
        for _ in 0..200 {
            let id = ContainerId::random().unwrap();
            let text = shortened(&id);
            assert_eq!(text.len(), 43);
            assert_eq!(lengthened(&text), Some(id));
        }
        let digits = "0".repeat(64);
        for other in [
            "",
            "A",
            &digits,
            &"A".repeat(42),
            &"_".repeat(43),
            &"!".repeat(43),
        ] {
            assert_eq!(lengthened(other), None, "{other}");
        }
    }

    #[test]
    fn links_of_before_are_understood() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout {
            root: directory.path().to_path_buf(),
            run: directory.path().join("run"),
        };
        fs::create_dir(layout.names()).unwrap();
        let id = ContainerId::random().unwrap();
        symlink(id.as_str(), path(&layout, "old")).unwrap();
        claim(&layout, "new", &id).unwrap();
        for name in ["old", "new"] {
            assert_eq!(lookup(&layout, name).unwrap(), Some(id.clone()), "{name}");
            release(&layout, name, &id).unwrap();
            assert_eq!(lookup(&layout, name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn drawn_names_are_valid_names() {
        for seed in 0..=255_u8 {
            check(&random_name([
                seed,
                seed.wrapping_mul(7),
                seed.wrapping_mul(3),
                seed,
                seed,
            ]))
            .unwrap();
        }
    }
}
