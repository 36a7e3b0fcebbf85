//! Who a command runs as: docker's `-u` grammar against the container's own passwd and group files. Pure.

use crate::Failure;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Largest id docker accepts.
const MAX_ID: i64 = 0x7fff_ffff;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// Every group, the primary one first (it has to be among them, or a process could shed it to pass a negative
    /// group permission).
    pub(crate) groups: Vec<u32>,
    /// Home directory; `/` where the user is unknown.
    pub(crate) home: OsString,
}

/// One line of passwd or group, split at colons.
pub(crate) struct Entry<'a>(Vec<&'a [u8]>);

impl<'a> Entry<'a> {
    pub(crate) fn field(&self, index: usize) -> &'a [u8] {
        self.0.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn number(&self, index: usize) -> Option<i64> {
        std::str::from_utf8(self.field(index)).ok().and_then(number)
    }

    /// Returns an id. One that is no number or out of range must never pass for 0.
    fn id(&self, index: usize) -> Result<u32, Failure> {
        self.number(index)
            .and_then(in_range)
            .ok_or(Failure::IdOutOfRange)
    }
}

/// Returns the number a text is, as Go's `Atoi` reads it: a sign and decimal digits, no blanks, 64 bits.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn in_range(id: i64) -> Option<u32> {
    (0..=MAX_ID)
        .contains(&id)
        .then(|| u32::try_from(id).ok())
        .flatten()
}

/// The lines of passwd(5) or group(5) that are not empty.
pub(crate) fn entries(file: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    file.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| Entry(line.split(|byte| *byte == b':').collect()))
}

/// Whether an entry is meant by `wanted`: a number means an id and never a name.
fn is_meant(entry: &Entry<'_>, wanted: &str) -> bool {
    match number(wanted) {
        Some(id) => entry.number(2) == Some(id),
        None => entry.field(0) == wanted.as_bytes(),
    }
}

/// Resolves `spec` (`user`, `user:group`, `:group` or nothing) and the groups to be added.
///
/// # Errors
/// A name is not in its file; an id is not within 0-2147483647.
pub(crate) fn resolve(
    spec: &str,
    extra_groups: &[String],
    passwd: &[u8],
    group: &[u8],
) -> Result<Identity, Failure> {
    // As docker does, parts after a second colon are ignored.
    let mut parts = spec.split(':');
    let user = parts.next().unwrap_or_default();
    let group_part = parts.next().unwrap_or_default();
    let wanted = if user.is_empty() { "0" } else { user };
    let found = entries(passwd).find(|entry| is_meant(entry, wanted));
    let (uid, mut gid, home, name) = match &found {
        Some(entry) => {
            let home = entry.field(5);
            let home = if home.is_empty() { b"/" } else { home };
            (
                entry.id(2)?,
                entry.id(3)?,
                home.to_vec(),
                Some(entry.field(0)),
            )
        }
        None => {
            let id = number(wanted).ok_or_else(|| Failure::NoSuchUser {
                user: user.to_owned(),
            })?;
            (
                in_range(id).ok_or(Failure::IdOutOfRange)?,
                0,
                b"/".to_vec(),
                None,
            )
        }
    };
    let mut others = Vec::new();
    if !group_part.is_empty() {
        gid = group_id(group_part, group)?.ok_or_else(|| Failure::NoSuchGroup {
            group: group_part.to_owned(),
        })?;
    } else if let Some(name) = name {
        for entry in entries(group).filter(|entry| is_member(entry, name)) {
            others.push(entry.id(2)?);
        }
    }
    for extra in extra_groups {
        let id = group_id(extra, group)?;
        others.push(id.ok_or_else(|| Failure::NoSuchExtraGroup {
            group: extra.clone(),
        })?);
    }
    let mut groups = vec![gid];
    for id in others {
        if !groups.contains(&id) {
            groups.push(id);
        }
    }
    Ok(Identity {
        uid,
        gid,
        groups,
        home: OsString::from_vec(home),
    })
}

/// Returns the user and group id of a user in any of docker's forms, by the texts of a container's passwd and group files.
///
/// # Errors
/// As when a command is to run as this user.
pub fn ids_of(user: &str, passwd: &[u8], group: &[u8]) -> Result<(u32, u32), Failure> {
    resolve(user, &[], passwd, group).map(|identity| (identity.uid, identity.gid))
}

fn is_member(entry: &Entry<'_>, name: &[u8]) -> bool {
    entry
        .field(3)
        .split(|byte| *byte == b',')
        .any(|member| member == name)
}

/// Returns the id of a group; `None`: a name that is not in the file.
fn group_id(wanted: &str, file: &[u8]) -> Result<Option<u32>, Failure> {
    if let Some(entry) = entries(file).find(|entry| is_meant(entry, wanted)) {
        return entry.id(2).map(Some);
    }
    match number(wanted) {
        Some(id) => in_range(id).map(Some).ok_or(Failure::IdOutOfRange),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nalice:x:1000:1000::/home/alice:\n\
                          bob:x:1001:100::/home/bob:/bin/sh\n1abc:x:1005:1005::/home/1abc:\n77:x:1006:1006::/h77:\n\
                          huge:x:4294967296:0::/:\nneg:x:-5:0::/:\nbad:x:abc:0::/:\nbadgid:x:1007:zz::/:\n\
                          nohome:x:1008:1008:::\n";
    const GROUP: &str = "root:x:0:\ndaemon:x:1:\nwheel:x:10:root,alice\nusers:x:100:\nalice:x:1000:\nhugeg:x:4294967296:\n";

    fn show(spec: &str, extra: &[&str]) -> String {
        let extra: Vec<String> = extra.iter().map(|group| (*group).to_owned()).collect();
        match resolve(spec, &extra, PASSWD.as_bytes(), GROUP.as_bytes()) {
            Ok(id) => {
                let groups: Vec<String> = id.groups.iter().map(u32::to_string).collect();
                format!(
                    "{}:{} {} {}",
                    id.uid,
                    id.gid,
                    groups.join(","),
                    id.home.display()
                )
            }
            Err(failure) => failure.to_string(),
        }
    }

    const RANGE: &str = "uids and gids must be in range 0-2147483647";

    #[test]
    fn grammar_of_the_user_option() {
        for (spec, want) in [
            ("", "0:0 0,10 /root"),
            ("root", "0:0 0,10 /root"),
            ("0", "0:0 0,10 /root"),
            ("0:", "0:0 0,10 /root"),
            (":", "0:0 0,10 /root"),
            ("alice", "1000:1000 1000,10 /home/alice"),
            ("alice:", "1000:1000 1000,10 /home/alice"),
            ("1000", "1000:1000 1000,10 /home/alice"),
            ("1000:", "1000:1000 1000,10 /home/alice"),
            ("+1000", "1000:1000 1000,10 /home/alice"),
            ("bob", "1001:100 100 /home/bob"),
            ("1001", "1001:100 100 /home/bob"),
            ("4242", "4242:0 0 /"),
            ("007", "7:0 0 /"),
            ("65534", "65534:0 0 /"),
            ("2147483647", "2147483647:0 0 /"),
            ("1000:1000", "1000:1000 1000 /home/alice"),
            ("1000:10", "1000:10 10 /home/alice"),
            ("alice:users", "1000:100 100 /home/alice"),
            ("alice:10", "1000:10 10 /home/alice"),
            (":10", "0:10 10 /root"),
            (":5", "0:5 5 /root"),
            (":users", "0:100 100 /root"),
            ("0:1000", "0:1000 1000 /root"),
            ("4242:4343", "4242:4343 4343 /"),
            ("daemon", "1:1 1 /"),
            ("1abc", "1005:1005 1005 /home/1abc"),
            ("nohome", "1008:1008 1008 /"),
            // A number is an id also where a user has it as a name.
            ("77", "77:0 0 /"),
        ] {
            assert_eq!(show(spec, &[]), want, "{spec:?}");
        }
    }

    #[test]
    fn refused_users() {
        let nosuch =
            |user: &str| format!("unable to find user {user}: no matching entries in passwd file");
        let nogroup = |group: &str| {
            format!("unable to find group {group}: no matching entries in group file")
        };
        for (spec, want) in [
            ("nosuch", nosuch("nosuch")),
            ("alice:nosuch", nogroup("nosuch")),
            ("4294967295", RANGE.to_owned()),
            ("4294967296", RANGE.to_owned()),
            ("2147483648", RANGE.to_owned()),
            ("-1", RANGE.to_owned()),
            ("0:-1", RANGE.to_owned()),
            ("0:4294967296", RANGE.to_owned()),
            ("99999999999999999999", nosuch("99999999999999999999")),
            ("a:b", nosuch("a")),
            ("a:b:c", nosuch("a")),
            ("a b", nosuch("a b")),
            ("1000 ", nosuch("1000 ")),
            (" 1000", nosuch(" 1000")),
            ("1_000", nosuch("1_000")),
            ("0x3e8", nosuch("0x3e8")),
            ("-", nosuch("-")),
            ("+", nosuch("+")),
            // Lines whose ids are no ids must never turn into root.
            ("huge", RANGE.to_owned()),
            ("neg", RANGE.to_owned()),
            ("bad", RANGE.to_owned()),
            ("badgid", RANGE.to_owned()),
            ("alice:hugeg", RANGE.to_owned()),
        ] {
            assert_eq!(show(spec, &[]), want, "{spec:?}");
        }
    }

    #[test]
    fn groups_to_be_added() {
        for (spec, extra, want) in [
            ("", &["wheel", "777"][..], "0:0 0,10,777 /root"),
            ("alice", &["users"], "1000:1000 1000,10,100 /home/alice"),
            ("1000:10", &["100"], "1000:10 10,100 /home/alice"),
            (
                "",
                &["nosuch"],
                "Unable to find group nosuch: no matching entries in group file",
            ),
            ("", &["4294967296"], RANGE),
        ] {
            assert_eq!(show(spec, extra), want, "{spec:?} {extra:?}");
        }
    }

    #[test]
    fn files_of_a_scratch_image_are_empty() {
        assert_eq!(resolve("", &[], b"", b"").unwrap().groups, [0]);
        assert_eq!(
            resolve("1:2", &["3".to_owned()], b"", b"").unwrap().groups,
            [2, 3]
        );
        assert!(resolve("root", &[], b"", b"").is_err());
    }
}
