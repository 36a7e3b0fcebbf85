//! The command line: `millefs [-f] [--debug] [SOURCE] MOUNTPOINT -o OPTION[,OPTION…]`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mille_union::{IdMap, IdRange, Owners};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Usage: millefs [-f] [--debug] -o lowerdir=TOP:BOTTOM[,upperdir=U,workdir=W][,OPTION...] MOUNTPOINT
       mount -t fuse.millefs SOURCE MOUNTPOINT -o lowerdir=...

Mounts the layers as one tree; without upperdir read-only. Ends when unmounted (umount, fusermount3 -u).

  -f, --foreground         stay in the foreground
  -d, --debug              log every refused request to standard error; implies -f
  -V, --version            print the version
  -h, --help               print this

  lowerdir=A:B[::D]        read-only layers, the topmost first; \\: and \\, are escapes; D holds only data
  upperdir=U,workdir=W     writable layer and its scratch directory, on one file system
  redirect_dir=on|off      rename directories with lower parts by a mark, or refuse with EXDEV
  metacopy=on|off          change attributes of lower files without copying their data
  userxattr                keep marks in user.overlay.*, as always for ordinary users
  volatile, fsync=0        never wait for the disk
  uidmapping=A:B:N[:...]   show stored users A... as B..., N of them; gidmapping= for groups
  squash_to_root           everything belongs to 0:0; squash_to_uid=, squash_to_gid= for others
  xattr_permissions=1|2    keep owners, modes and devices in user.containers.override_stat
  static_nlink             every directory has one name
  noacl                    no POSIX access control lists
  timeout=SECONDS          how long the kernel believes names and attributes (default: for ever)
  passthrough=off          read and write through the server only
  block_copyup=off|BYTES   length from which files are written to while they are copied up (default: 64 MiB)
  threads=N                serving threads
  allow_other, ro, nodev, nosuid, noexec, noatime, context=LABEL
                           as mount(8) has them
";

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
    /// Those after `::`.
    pub(crate) data_lowers: Vec<PathBuf>,
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
    /// `Some(None)`: no file is written to before it is copied up.
    pub(crate) block_copyup: Option<Option<u64>>,
    pub(crate) threads: Option<usize>,
    pub(crate) owners: Owners,
    /// Owner, mode and kind of what the upper holds are kept in an attribute.
    pub(crate) xattr_permissions: bool,
    pub(crate) static_nlink: bool,
    pub(crate) timeout: Option<Duration>,
    /// Words for the kernel.
    pub(crate) kernel: Vec<OsString>,
    /// Words for the kernel's SELinux, where there is one.
    pub(crate) labels: Vec<OsString>,
    /// Words that mean nothing here; reported, then ignored.
    pub(crate) ignored: Vec<OsString>,
}

/// Their values may stand in double quotes, inside of which a comma separates nothing.
const LABELS: [&str; 4] = ["context=", "fscontext=", "defcontext=", "rootcontext="];

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
    let off = options.redirect_dir == Some(false) || options.metacopy == Some(false);
    if !options.data_lowers.is_empty() && off {
        bail!("layers of data need redirect_dir=on and metacopy=on");
    }
    if options.upper.is_some() != options.work.is_some() {
        bail!("upperdir and workdir go together");
    }
    Ok(options)
}

fn parse_list(list: &[u8], options: &mut Options) -> Result<()> {
    for word in split(list, b',', &LABELS) {
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
    if parse_owners(key, value, options)? {
        return Ok(());
    }
    let given = || value.context("needs a value");
    let whole = || OsStr::from_bytes(word).to_owned();
    match key {
        "lowerdir" => (options.lowers, options.data_lowers) = lowers(given()?)?,
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
        "block_copyup" => {
            options.block_copyup = match given()? {
                b"off" | b"0" => Some(None),
                b"on" => None,
                bytes => Some(Some(number(bytes)?)),
            };
        }
        "threads" => options.threads = Some(number(given()?)?),
        "static_nlink" => options.static_nlink = true,
        "timeout" => {
            let seconds: f64 = number(given()?)?;
            options.timeout = Some(Duration::try_from_secs_f64(seconds)?);
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
        | "sync" | "dirsync" | "max_read" => options.kernel.push(whole()),
        "context" | "fscontext" | "defcontext" | "rootcontext" => options.labels.push(whole()),
        // What they ask for is always so: link counts and inode numbers are right, hard links are kept.
        "index" | "xino" | "nfs_export" | "fast_ino" | "ino32_t" | "threaded" | "big_writes"
        | "writeback" => {}
        "debug" => {
            options.debug = true;
            options.foreground = true;
        }
        _ if word.starts_with(b"x-") || word.starts_with(b"comment=") => {}
        _ => options.ignored.push(whole()),
    }
    Ok(())
}

/// The layers before `::`, and those after it, each with another `::` before it.
fn lowers(list: &[u8]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut merged, mut data) = (Vec::new(), Vec::new());
    let mut parts = split(list, b':', &[]).into_iter();
    while let Some(part) = parts.next() {
        let data_only = part.is_empty() && !merged.is_empty();
        let part = if data_only { parts.next() } else { Some(part) };
        let path = part
            .filter(|part| !part.is_empty())
            .context("an empty path among the layers")?;
        match (data_only, data.is_empty()) {
            (true, _) => data.push(unescape(&path)),
            (false, true) => merged.push(unescape(&path)),
            (false, false) => bail!("a layer of the tree after one of data"),
        }
    }
    Ok((merged, data))
}

/// The words about owners; false for another.
fn parse_owners(key: &str, value: Option<&[u8]>, options: &mut Options) -> Result<bool> {
    let given = || value.context("needs a value");
    match key {
        "uidmapping" => options.owners.uids = id_map(given()?)?,
        "gidmapping" => options.owners.gids = id_map(given()?)?,
        // A certain id has precedence over root, in whatever order they are given.
        "squash_to_root" => {
            options.owners.squash_uid.get_or_insert(0);
            options.owners.squash_gid.get_or_insert(0);
        }
        "squash_to_uid" => options.owners.squash_uid = Some(number(given()?)?),
        "squash_to_gid" => options.owners.squash_gid = Some(number(given()?)?),
        "xattr_permissions" => {
            options.xattr_permissions = match given()? {
                b"0" => false,
                b"1" | b"2" => true,
                _ => bail!("0, 1 or 2"),
            };
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn switch(value: &[u8]) -> Result<bool> {
    match value {
        b"on" | b"1" | b"yes" | b"true" => Ok(true),
        b"off" | b"0" | b"no" | b"false" => Ok(false),
        _ => bail!("on or off"),
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .context("needs a number")
}

/// `STORED:SHOWN:LENGTH[:STORED:SHOWN:LENGTH…]`: ids in the layers, ids that callers see, and how many of them.
fn id_map(text: &[u8]) -> Result<IdMap> {
    let numbers: Vec<u32> = text
        .split(|&byte| byte == b':')
        // podman begins with a colon.
        .filter(|word| !word.is_empty())
        .map(number)
        .collect::<Result<_>>()?;
    let (ranges, rest) = numbers.as_chunks::<3>();
    if !rest.is_empty() {
        bail!("ranges of three numbers each, STORED:SHOWN:LENGTH");
    }
    let range = |&[stored, shown, length]: &[u32; 3]| IdRange {
        stored,
        shown,
        length,
    };
    Ok(IdMap(ranges.iter().map(range).collect()))
}

/// Splits at a separator, except where it follows a backslash or stands in the quotes of a part that begins with one of
/// the words that may be quoted. The backslashes and quotes stay.
fn split(text: &[u8], separator: u8, quotable: &[&str]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut escaped = false;
    let mut quoted = false;
    for &byte in text {
        if byte == separator && !escaped && !quoted {
            parts.push(std::mem::take(&mut part));
        } else {
            if byte == b'"'
                && quotable
                    .iter()
                    .any(|word| part.starts_with(word.as_bytes()))
            {
                quoted = !quoted;
            }
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
    fn block_copyup() {
        for (word, from) in [
            ("", None),
            (",block_copyup=on", None),
            (",block_copyup=off", Some(None)),
            (",block_copyup=65536", Some(Some(65536))),
        ] {
            let options = parsed(&["-o", &format!("lowerdir=/a{word}"), "/m"]);
            assert_eq!(options.block_copyup, from, "{word}");
        }
    }

    #[test]
    fn layers_of_data() {
        let options = parsed(&["-o", "lowerdir=/a:/b::/c::/d", "/m"]);
        assert_eq!(options.lowers, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(options.data_lowers, ["/c", "/d"].map(PathBuf::from));
    }

    #[test]
    fn labels_keep_their_commas_and_quotes() {
        let label = r#"context="system_u:object_r:container_file_t:s0:c1,c2""#;
        let options = parsed(&["-o", &format!("{label},lowerdir=/a\"b,nodev"), "/m"]);
        assert_eq!(options.labels, [label]);
        assert_eq!(options.kernel, ["nodev"]);
        assert_eq!(options.lowers, [PathBuf::from("/a\"b")]);
    }

    #[test]
    fn owners() {
        let options = parsed(&[
            "-o",
            "lowerdir=/a,uidmapping=0:1000:1:1:110000:65536,gidmapping=:0:5:1,squash_to_uid=7,squash_to_root",
            "/m",
        ]);
        let range = |stored, shown, length| IdRange {
            stored,
            shown,
            length,
        };
        let uids = IdMap(vec![range(0, 1000, 1), range(1, 110_000, 65536)]);
        assert_eq!(options.owners.uids, uids);
        assert_eq!(options.owners.gids, IdMap(vec![range(0, 5, 1)]));
        assert_eq!(options.owners.squash_uid, Some(7));
        assert_eq!(options.owners.squash_gid, Some(0));
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
            &["-o", "lowerdir=::/b", "/m"],
            &["-o", "lowerdir=/a::", "/m"],
            &["-o", "lowerdir=/a::/b:/c", "/m"],
            &["-o", "lowerdir=/a::/b,metacopy=off", "/m"],
            &["-o", "lowerdir=/a,metacopy=maybe", "/m"],
            &["-x", "-o", "lowerdir=/a", "/m"],
            &["-o", "lowerdir=/a,uidmapping=0:1", "/m"],
            &["-o", "lowerdir=/a,uidmapping=0:x:1", "/m"],
            &["-o", "lowerdir=/a,timeout=-1", "/m"],
            &["-o", "lowerdir=/a,xattr_permissions=3", "/m"],
        ] {
            assert!(parse(line.iter().map(OsString::from)).is_err(), "{line:?}");
        }
    }
}
