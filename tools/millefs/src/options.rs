//! The command line: `millefs [-f] [--debug] [SOURCE] MOUNTPOINT -o OPTION[,OPTION…]`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) foreground: bool,
    pub(crate) debug: bool,
    pub(crate) mountpoint: PathBuf,
    /// As given by mount(8); shown in the mount table.
    pub(crate) source: Option<OsString>,
    /// Topmost first.
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) upper: Option<PathBuf>,
    pub(crate) work: Option<PathBuf>,
    pub(crate) redirect_dir: Option<bool>,
    pub(crate) metacopy: Option<bool>,
    pub(crate) userxattr: bool,
    pub(crate) volatile: bool,
    pub(crate) acl: Option<bool>,
    pub(crate) allow_other: Option<bool>,
    pub(crate) read_only: bool,
    /// Only the flags of a mount that is there are to change.
    pub(crate) remount: bool,
    pub(crate) passthrough: Option<bool>,
    pub(crate) threads: Option<usize>,
    /// Words for the kernel.
    pub(crate) kernel: Vec<OsString>,
    /// Words that mean nothing here; reported, then ignored.
    pub(crate) ignored: Vec<OsString>,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Options> {
    let mut options = Options::default();
    let mut places = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_bytes() {
            b"-f" | b"--foreground" => options.foreground = true,
            b"-d" | b"--debug" => {
                options.debug = true;
                options.foreground = true;
            }
            b"-s" | b"-n" => {}
            b"-o" => {
                let list = arguments.next().context("-o needs an argument")?;
                parse_list(list.as_bytes(), &mut options)?;
            }
            other if other.starts_with(b"-o") => parse_list(&other[2..], &mut options)?,
            other if other.starts_with(b"-") && other.len() > 1 => {
                bail!("unknown option {}", argument.display())
            }
            _ => places.push(argument),
        }
    }
    let mut places = places.into_iter();
    match (places.next(), places.next(), places.next()) {
        (Some(mountpoint), None, _) => options.mountpoint = mountpoint.into(),
        (Some(source), Some(mountpoint), None) => {
            options.source = Some(source);
            options.mountpoint = mountpoint.into();
        }
        (None, _, _) => bail!("no mount point given"),
        (Some(_), Some(_), Some(extra)) => bail!("one argument too many: {}", extra.display()),
    }
    if options.remount {
        return Ok(options);
    }
    if options.lowers.is_empty() && options.upper.is_none() {
        bail!("no layers: -o lowerdir=… is missing");
    }
    if options.upper.is_some() != options.work.is_some() {
        bail!("upperdir and workdir go together");
    }
    Ok(options)
}

fn parse_list(list: &[u8], options: &mut Options) -> Result<()> {
    for word in split(list, b',') {
        if word.is_empty() {
            continue;
        }
        let (key, value) = match word.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&word[..equals], Some(&word[equals + 1..])),
            None => (&word[..], None),
        };
        let key = String::from_utf8_lossy(key);
        let text = OsStr::from_bytes(&word).display();
        parse_word(&key, value, &word, options).with_context(|| format!("option {text}"))?;
    }
    Ok(())
}

fn parse_word(key: &str, value: Option<&[u8]>, word: &[u8], options: &mut Options) -> Result<()> {
    let given = || value.context("needs a value");
    let whole = || OsStr::from_bytes(word).to_owned();
    match key {
        "lowerdir" => {
            let lowers = split(given()?, b':');
            options.lowers = lowers.iter().map(|path| unescape(path)).collect();
            if options
                .lowers
                .iter()
                .any(|path| path.as_os_str().is_empty())
            {
                bail!("an empty path among the layers");
            }
        }
        "upperdir" => options.upper = Some(unescape(given()?)),
        "workdir" => options.work = Some(unescape(given()?)),
        "redirect_dir" => {
            options.redirect_dir = match given()? {
                b"on" | b"follow" => Some(true),
                b"off" | b"nofollow" => Some(false),
                _ => bail!("on or off"),
            };
        }
        "metacopy" => options.metacopy = Some(switch(given()?)?),
        "userxattr" => options.userxattr = true,
        "volatile" => options.volatile = true,
        "fsync" => options.volatile = !switch(given()?)?,
        "noacl" => options.acl = Some(false),
        "acl" => options.acl = Some(true),
        "allow_other" => options.allow_other = Some(true),
        "noallow_other" => options.allow_other = Some(false),
        "passthrough" => options.passthrough = Some(switch(given()?)?),
        "threads" => {
            let number = std::str::from_utf8(given()?).context("needs a number")?;
            options.threads = Some(number.parse().context("needs a number")?);
        }
        "ro" => options.read_only = true,
        "rw" => options.read_only = false,
        "remount" => options.remount = true,
        "fsname" => options.source = Some(OsStr::from_bytes(given()?).to_owned()),
        // Words of mount(8) and fusermount that change nothing.
        "dev"
        | "suid"
        | "exec"
        | "async"
        | "auto"
        | "noauto"
        | "user"
        | "nouser"
        | "users"
        | "defaults"
        | "nofail"
        | "_netdev"
        | "default_permissions"
        | "subtype" => {}
        "nodev" | "nosuid" | "noexec" | "noatime" | "nodiratime" | "relatime" | "strictatime"
        | "sync" | "dirsync" | "context" | "fscontext" | "defcontext" | "rootcontext"
        | "max_read" => options.kernel.push(whole()),
        // What they ask for is always so: link counts and inode numbers are right, hard links are kept.
        "index" | "xino" | "nfs_export" | "static_nlink" | "fast_ino" | "threaded"
        | "big_writes" | "writeback" | "timeout" | "lazy_fsync" => {}
        _ if word.starts_with(b"x-") || word.starts_with(b"comment=") => {}
        _ => options.ignored.push(whole()),
    }
    Ok(())
}

fn switch(value: &[u8]) -> Result<bool> {
    match value {
        b"on" | b"1" | b"yes" | b"true" => Ok(true),
        b"off" | b"0" | b"no" | b"false" => Ok(false),
        _ => bail!("on or off"),
    }
}

/// Splits at a separator, except where it follows a backslash. The backslashes stay.
fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut escaped = false;
    for &byte in text {
        if byte == separator && !escaped {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(byte);
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(part);
    parts
}

/// Takes the backslash from before a separator or another backslash.
fn unescape(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match bytes.next_if(|next| byte == b'\\' && matches!(next, b':' | b',' | b'\\')) {
            Some(escaped) => plain.push(escaped),
            None => plain.push(byte),
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Options {
        parse(line.iter().map(OsString::from)).unwrap()
    }

    #[test]
    fn layers_with_escapes() {
        let options = parsed(&[
            "-o",
            r"lowerdir=/a\:b:/c\,d:/e\\f,upperdir=/u\,v,workdir=/w",
            "/m",
        ]);
        assert_eq!(options.lowers, ["/a:b", "/c,d", r"/e\f"].map(PathBuf::from));
        assert_eq!(options.upper, Some("/u,v".into()));
        assert_eq!(options.mountpoint, PathBuf::from("/m"));
    }

    #[test]
    fn as_mount_calls_it() {
        let options = parsed(&["src", "/m", "-o", "rw,dev,suid,lowerdir=/a,nosuid,x-y"]);
        assert_eq!(options.source, Some("src".into()));
        assert_eq!(options.kernel, ["nosuid"]);
        assert!(options.ignored.is_empty());
    }

    #[test]
    fn unknown_words_are_kept_for_the_report() {
        let options = parsed(&["-olowerdir=/a,wombat=3", "/m", "-f"]);
        assert_eq!(options.ignored, ["wombat=3"]);
        assert!(options.foreground);
    }

    #[test]
    fn a_remount_needs_no_layers() {
        let options = parsed(&["none", "/m", "-o", "rw,nosuid,user_id=0,remount,ro"]);
        assert!(options.remount && options.read_only);
        assert_eq!(options.kernel, ["nosuid"]);
        assert!(!parsed(&["none", "/m", "-o", "ro,remount,rw"]).read_only);
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            &["-o", "lowerdir=/a"][..],
            &["/m"],
            &["-o", "lowerdir=/a,upperdir=/u", "/m"],
            &["-o", "lowerdir=/a::/b", "/m"],
            &["-o", "lowerdir=/a,metacopy=maybe", "/m"],
            &["-x", "-o", "lowerdir=/a", "/m"],
        ] {
            assert!(parse(line.iter().map(OsString::from)).is_err(), "{line:?}");
        }
    }
}
