//! The command line: `millefs [-f] [--debug] [SOURCE] MOUNTPOINT -o OPTION[,OPTION…]`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) foreground: bool,
    pub(crate) debug: bool,
    pub(crate) mountpoint: PathBuf,
    /// As given by mount(8); shown in the mount table.
    pub(crate) source: Option<String>,
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
    pub(crate) passthrough: Option<bool>,
    pub(crate) threads: Option<usize>,
    /// Words for the kernel.
    pub(crate) kernel: Vec<String>,
    /// Words that mean nothing here; reported, then ignored.
    pub(crate) ignored: Vec<String>,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    let mut places = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-f" | "--foreground" => options.foreground = true,
            "-d" | "--debug" => {
                options.debug = true;
                options.foreground = true;
            }
            "-s" | "-n" => {}
            "-o" => {
                let list = arguments.next().context("-o needs an argument")?;
                parse_list(&list, &mut options)?;
            }
            other if other.starts_with("-o") => parse_list(&other[2..], &mut options)?,
            other if other.starts_with('-') && other.len() > 1 => bail!("unknown option {other}"),
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
        (Some(_), Some(_), Some(extra)) => bail!("one argument too many: {extra}"),
    }
    if options.lowers.is_empty() && options.upper.is_none() {
        bail!("no layers: -o lowerdir=… is missing");
    }
    if options.upper.is_some() != options.work.is_some() {
        bail!("upperdir and workdir go together");
    }
    Ok(options)
}

fn parse_list(list: &str, options: &mut Options) -> Result<()> {
    for word in split(list, ',') {
        if word.is_empty() {
            continue;
        }
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (&*word, None),
        };
        parse_word(key, value, &word, options).with_context(|| format!("option {word}"))?;
    }
    Ok(())
}

fn parse_word(key: &str, value: Option<&str>, word: &str, options: &mut Options) -> Result<()> {
    let given = || value.context("needs a value");
    match key {
        "lowerdir" => {
            let lowers = split(given()?, ':');
            options.lowers = lowers.iter().map(|path| unescape(path).into()).collect();
            if options
                .lowers
                .iter()
                .any(|path| path.as_os_str().is_empty())
            {
                bail!("an empty path among the layers");
            }
        }
        "upperdir" => options.upper = Some(unescape(given()?).into()),
        "workdir" => options.work = Some(unescape(given()?).into()),
        "redirect_dir" => {
            options.redirect_dir = match given()? {
                "on" | "follow" => Some(true),
                "off" | "nofollow" => Some(false),
                _ => bail!("on or off"),
            };
        }
        "metacopy" => options.metacopy = Some(on_or_off(given()?)?),
        "userxattr" => options.userxattr = true,
        "volatile" => options.volatile = true,
        "fsync" => options.volatile = !number_switch(given()?)?,
        "noacl" => options.acl = Some(false),
        "acl" => options.acl = Some(true),
        "allow_other" => options.allow_other = Some(true),
        "noallow_other" => options.allow_other = Some(false),
        "passthrough" => options.passthrough = Some(on_or_off(given()?)?),
        "threads" => options.threads = Some(given()?.parse().context("needs a number")?),
        "ro" => options.read_only = true,
        "fsname" => options.source = Some(given()?.to_owned()),
        // Words of mount(8) and fusermount that change nothing.
        "rw"
        | "dev"
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
        | "sync" | "dirsync" => options.kernel.push(word.to_owned()),
        "context" | "fscontext" | "defcontext" | "rootcontext" | "max_read" => {
            options.kernel.push(word.to_owned());
        }
        // What they ask for is always so: link counts and inode numbers are right, hard links are kept.
        "index" | "xino" | "nfs_export" | "static_nlink" | "ino32" | "fast_ino" | "threaded"
        | "big_writes" | "writeback" | "timeout" | "lazy_fsync" => {}
        _ if word.starts_with("x-") || word.starts_with("comment=") => {}
        _ => options.ignored.push(word.to_owned()),
    }
    Ok(())
}

fn on_or_off(value: &str) -> Result<bool> {
    match value {
        "on" | "1" | "yes" | "true" => Ok(true),
        "off" | "0" | "no" | "false" => Ok(false),
        _ => bail!("on or off"),
    }
}

fn number_switch(value: &str) -> Result<bool> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => bail!("0 or 1"),
    }
}

/// Splits at a separator, except where it follows a backslash. The backslashes stay.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        let ends = character == separator && !escaped;
        escaped = character == '\\' && !escaped;
        if ends {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

/// Takes the backslash from before a separator or another backslash.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\\'
            && let Some(next) = characters.next_if(|next| matches!(next, ':' | ',' | '\\'))
        {
            plain.push(next);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Options {
        parse(line.iter().map(ToString::to_string)).unwrap()
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
        assert_eq!(options.source.as_deref(), Some("src"));
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
    fn contradictions_are_refused() {
        for line in [
            &["-o", "lowerdir=/a"][..],
            &["/m"],
            &["-o", "lowerdir=/a,upperdir=/u", "/m"],
            &["-o", "lowerdir=/a::/b", "/m"],
            &["-o", "lowerdir=/a,metacopy=maybe", "/m"],
            &["-x", "-o", "lowerdir=/a", "/m"],
        ] {
            assert!(
                parse(line.iter().map(ToString::to_string)).is_err(),
                "{line:?}"
            );
        }
    }
}
