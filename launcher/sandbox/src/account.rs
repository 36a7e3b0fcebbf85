//! The caller's own entry among the accounts of this machine.

use crate::user::entries;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where accounts of this machine are listed.
const PASSWD: &str = "/etc/passwd";

/// Asks every source of accounts that nsswitch.conf(5) names, in a process of its own: this program is linked statically,
/// and the C library's modules for those sources can be loaded safely only by one that is not.
const GETENT: &str = "/usr/bin/getent";

/// A line of passwd(5), as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

/// Returns the account of a user id: that of `/etc/passwd`, else what `getent passwd` knows. `None`: nobody knows it.
pub fn account(uid: u32) -> Option<Account> {
    let local = std::fs::read(PASSWD).unwrap_or_default();
    find(&local, uid).or_else(|| find(&ask(uid), uid))
}

/// Returns the lines that `getent` has for a user id: none where there is no such program.
fn ask(uid: u32) -> Vec<u8> {
    let mut getent = Command::new(GETENT);
    getent.arg("passwd").arg(uid.to_string());
    let output = getent.stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| output.stdout).unwrap_or_default()
}

fn find(passwd: &[u8], uid: u32) -> Option<Account> {
    let entry = entries(passwd).find(|entry| entry.number(2) == Some(i64::from(uid)))?;
    Some(Account {
        name: String::from_utf8(entry.field(0).to_vec()).ok()?,
        home: OsString::from_vec(entry.field(5).to_vec()).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_found_by_its_number() {
        let passwd = b"root:x:0:0::/root:/bin/sh\n# 7\n1000:x:7:7::/h:\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n";
        let ann = Account {
            name: "ann".to_owned(),
            home: "/home/ann".into(),
        };
        assert_eq!(find(passwd, 1000), Some(ann));
        assert_eq!(find(passwd, 8), None);
    }

    #[test]
    fn the_accounts_of_this_machine_are_what_getent_says() {
        let root = account(0).unwrap();
        assert_eq!(root.name, "root");
        assert_eq!(find(&ask(0), 0), Some(root));
        assert_eq!(account(0x7fff_0001), None);
    }
}
