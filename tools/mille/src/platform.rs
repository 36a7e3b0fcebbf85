//! `--platform` of commands on an image that is here: it says what the image has to be of.

use clap::{Arg, ArgMatches};
use mille_engine::{Engine, Error};
use mille_store::Platform;
use mille_store::config::host_architecture;

use crate::arguments::{text, value};

/// The flag.
pub(crate) fn flag() -> Arg {
    value(
        "platform",
        None,
        "string",
        "Refuse an image that is not of this platform: os[/arch[/variant]]",
    )
}

/// Requires the platform that was asked for, if one was, of an image as it was typed.
///
/// # Errors
/// No platform; an image that is not there or of another one: docker's texts.
pub(crate) fn check(engine: &Engine, matches: &ArgMatches, typed: &str) -> Result<(), Error> {
    let Some(wanted) = text(matches, "platform").filter(|text| !text.is_empty()) else {
        return Ok(());
    };
    let wanted = read(wanted).map_err(Error::Invalid)?;
    let image = engine.store().image(&engine.resolve_image(typed)?)?;
    let actual = Platform {
        os: image.config.os,
        architecture: image.config.architecture,
        variant: image.config.variant,
    };
    // A variant that one of them leaves open is the other's.
    let same_variant = [&wanted.variant, &actual.variant]
        .iter()
        .any(|one| one.is_empty())
        || wanted.variant == actual.variant;
    if (&wanted.os, &wanted.architecture) == (&actual.os, &actual.architecture) && same_variant {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "image with reference {typed} was found but does not match the specified platform: wanted {}, actual: {}",
        shown(&wanted),
        shown(&actual)
    )))
}

fn shown(platform: &Platform) -> String {
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    let parts: Vec<&str> = parts.iter().map(|part| part.as_str()).collect();
    parts.join("/").trim_end_matches('/').to_owned()
}

/// Reads `os[/arch[/variant]]`; one word may be either of the first two.
///
/// # Errors
/// Docker's text.
pub(crate) fn read(text: &str) -> Result<Platform, String> {
    let host = host_architecture();
    let parts: Vec<&str> = text.split('/').collect();
    let (os, architecture, variant) = match parts.as_slice() {
        ["linux"] => ("linux", host, ""),
        [architecture] => ("linux", *architecture, ""),
        [os, architecture] => (*os, *architecture, ""),
        [os, architecture, variant] => (*os, *architecture, *variant),
        _ => return Err(unknown(text)),
    };
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "" | "v8" | "8") => ("arm64", ""),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("i386" | "i486" | "i586" | "i686", variant) => ("386", variant),
        other => other,
    };
    let known = [
        "386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64", "ppc64le", "riscv64",
        "s390x",
    ];
    if os != "linux" || !known.contains(&architecture) {
        return Err(unknown(text));
    }
    Ok(Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
    })
}

fn unknown(text: &str) -> String {
    format!("{text:?}: unknown operating system or architecture: invalid argument")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let host = host_architecture();
        for (given, want) in [
            ("linux", ("linux", host, "")),
            ("aarch64", ("linux", "arm64", "")),
            ("linux/x86_64", ("linux", "amd64", "")),
            ("linux/arm64/v8", ("linux", "arm64", "")),
            ("linux/arm", ("linux", "arm", "v7")),
            ("linux/arm/v6", ("linux", "arm", "v6")),
        ] {
            let found = read(given).unwrap();
            assert_eq!(
                (
                    found.os.as_str(),
                    found.architecture.as_str(),
                    found.variant.as_str()
                ),
                want,
                "{given}"
            );
        }
        assert_eq!(
            read("frob").unwrap_err(),
            "\"frob\": unknown operating system or architecture: invalid argument"
        );
        assert!(read("windows/amd64").is_err());
        assert!(read("a/b/c/d").is_err());
    }
}
