//! Limits on single block devices, `PATH:NUMBER`, as docker's client reads them.

use clap::ArgMatches;
use mille_engine::{ThrottleDevice, WeightDevice};

use super::values::invalid;
use crate::arguments::texts;
use crate::commands::Verb;
use crate::failure::Failure;
use crate::numbers::ram_bytes;

/// `--blkio-weight-device`.
pub(super) fn weights(
    verb: &'static Verb,
    matches: &ArgMatches,
) -> Result<Vec<WeightDevice>, Failure> {
    all(verb, matches, "blkio-weight-device", weight)
}

/// `--device-read-bps` and `--device-write-bps`.
pub(super) fn bytes(
    verb: &'static Verb,
    matches: &ArgMatches,
    flag: &str,
) -> Result<Vec<ThrottleDevice>, Failure> {
    all(verb, matches, flag, bytes_a_second)
}

/// `--device-read-iops` and `--device-write-iops`.
pub(super) fn requests(
    verb: &'static Verb,
    matches: &ArgMatches,
    flag: &str,
) -> Result<Vec<ThrottleDevice>, Failure> {
    all(verb, matches, flag, requests_a_second)
}

fn all<T>(
    verb: &'static Verb,
    matches: &ArgMatches,
    flag: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Failure> {
    let texts = texts(matches, flag).into_iter();
    let read = |text: String| read(&text).map_err(|cause| invalid(verb, flag, &text, &cause));
    texts.map(read).collect()
}

/// The path and what is after the first colon.
fn parts(text: &str) -> Result<(&str, &str), String> {
    let Some((path, number)) = text.split_once(':').filter(|(path, _)| !path.is_empty()) else {
        return Err(format!("bad format: {text}"));
    };
    if path.starts_with("/dev/") {
        Ok((path, number))
    } else {
        Err(format!("bad format for device path: {text}"))
    }
}

fn weight(text: &str) -> Result<WeightDevice, String> {
    let (path, number) = parts(text)?;
    match unsigned::<u16>(number) {
        Some(weight @ (0 | 10..=1000)) => Ok(WeightDevice {
            path: path.to_owned(),
            weight,
        }),
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

fn bytes_a_second(text: &str) -> Result<ThrottleDevice, String> {
    let (path, number) = parts(text)?;
    let rate = ram_bytes(number).and_then(|rate| u64::try_from(rate).ok());
    throttle(path, rate).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })
}

fn requests_a_second(text: &str) -> Result<ThrottleDevice, String> {
    let (path, number) = parts(text)?;
    throttle(path, unsigned(number)).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive \
             integer"
        )
    })
}

fn throttle(path: &str, rate: Option<u64>) -> Option<ThrottleDevice> {
    Some(ThrottleDevice {
        path: path.to_owned(),
        rate: rate?,
    })
}

/// Go's ParseUint: digits and nothing else.
fn unsigned<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_docker_does() {
        let bytes = "The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is \
                     optional and can be kb, mb, or gb";
        let requests =
            "The correct format is <device-path>:<number>. Number must be a positive integer";
        for (given, want_bytes, want_requests) in [
            ("/dev/a:100", Ok(100), Ok(100)),
            ("/dev/a:0", Ok(0), Ok(0)),
            ("/dev/a:1mb", Ok(1 << 20), Err(requests)),
            ("/dev/a:2KB", Ok(2048), Err(requests)),
            ("/dev/a:-1", Err(bytes), Err(requests)),
            ("/dev/a:+1", Ok(1), Err(requests)),
            ("/dev/a:", Err(bytes), Err(requests)),
            ("/dev/a:1:2", Err(bytes), Err(requests)),
        ] {
            let want = |want: Result<u64, &str>| {
                let refused = |format| format!("invalid rate for device: {given}. {format}");
                want.map_err(refused)
            };
            let rate = |device: ThrottleDevice| (device.path == "/dev/a").then_some(device.rate);
            let got = |device: Result<_, _>| device.map(|device| rate(device).unwrap());
            assert_eq!(got(bytes_a_second(given)), want(want_bytes), "{given}");
            assert_eq!(
                got(requests_a_second(given)),
                want(want_requests),
                "{given}"
            );
        }
    }

    #[test]
    fn weights_are_read_as_docker_does() {
        for (given, want) in [
            ("/dev/a:10", Ok(10)),
            ("/dev/a:1000", Ok(1000)),
            ("/dev/a:0", Ok(0)),
            ("/dev/a:9", Err("invalid weight for device: /dev/a:9")),
            ("/dev/a:1001", Err("invalid weight for device: /dev/a:1001")),
            ("/dev/a:x", Err("invalid weight for device: /dev/a:x")),
            ("/dev/a", Err("bad format: /dev/a")),
            (":10", Err("bad format: :10")),
            ("sda:10", Err("bad format for device path: sda:10")),
        ] {
            let got = weight(given).map(|device| device.weight);
            assert_eq!(got, want.map_err(str::to_owned), "{given}");
        }
    }
}
