//! Limits on single block devices: which file gets which text. The kernel knows a device by its number, which is looked up
//! when the container starts.

use std::path::Path;

use rustix::fs::{major, minor, stat};
use rustix::io::Errno;

use super::settings::{Setting, setting};
use super::trees::Version;
use crate::error::{Error, Result};
use crate::host_config::{Resources, ThrottleDevice};

/// A rate's list in the configuration, its file in version 1 and its word in the one file of version 2.
type Rate = (
    fn(&Resources) -> &[ThrottleDevice],
    &'static [&'static str],
    &'static str,
);

const RATES: [Rate; 4] = [
    (
        |resources| &resources.blkio_device_read_bps,
        &["blkio.throttle.read_bps_device"],
        "rbps",
    ),
    (
        |resources| &resources.blkio_device_write_bps,
        &["blkio.throttle.write_bps_device"],
        "wbps",
    ),
    (
        |resources| &resources.blkio_device_read_iops,
        &["blkio.throttle.read_iops_device"],
        "riops",
    ),
    (
        |resources| &resources.blkio_device_write_iops,
        &["blkio.throttle.write_iops_device"],
        "wiops",
    ),
];

/// Returns whether a device is limited at all.
pub(super) fn are_limited(resources: &Resources) -> bool {
    let rated = |(list, ..): &Rate| !list(resources).is_empty();
    !resources.blkio_weight_device.is_empty() || RATES.iter().any(rated)
}

/// Returns what is to be written, for a tree of this version.
///
/// # Errors
/// A device is not there.
pub(super) fn settings(resources: &Resources, version: Version) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    for device in &resources.blkio_weight_device {
        let text = format!("{} {}", number(&device.path)?, device.weight);
        all.push(match version {
            Version::One => setting(
                "blkio",
                &["blkio.weight_device", "blkio.bfq.weight_device"],
                text,
            ),
            Version::Two => setting("io", &["io.bfq.weight", "io.weight"], text),
        });
    }
    for (list, file, word) in RATES {
        for device in list(resources) {
            let number = number(&device.path)?;
            all.push(match (version, device.rate) {
                (Version::One, rate) => setting("blkio", file, format!("{number} {rate}")),
                // "No limit" is 0 in version 1 only.
                (Version::Two, 0) => setting("io", &["io.max"], format!("{number} {word}=max")),
                (Version::Two, rate) => {
                    setting("io", &["io.max"], format!("{number} {word}={rate}"))
                }
            });
        }
    }
    Ok(all)
}

/// `MAJOR:MINOR` of a node. One of no device is 0:0, which the kernel refuses.
fn number(path: &str) -> Result<String> {
    let stat = stat(Path::new(path)).map_err(|errno| match errno {
        Errno::NOENT => failed(path, "no such file or directory", 127),
        errno => failed(path, &std::io::Error::from(errno).to_string(), 125),
    })?;
    Ok(format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev)))
}

fn failed(path: &str, reason: &str, exit_code: i32) -> Error {
    Error::Start {
        text: format!("stat {path}: {reason}"),
        exit_code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_config::WeightDevice;

    fn limits() -> Resources {
        let rate = |rate| {
            vec![ThrottleDevice {
                path: "/dev/null".to_owned(),
                rate,
            }]
        };
        Resources {
            blkio_weight_device: vec![WeightDevice {
                path: "/dev/zero".to_owned(),
                weight: 300,
            }],
            blkio_device_read_bps: rate(1 << 20),
            blkio_device_write_bps: rate(0),
            blkio_device_read_iops: rate(7),
            blkio_device_write_iops: rate(8),
            ..Resources::default()
        }
    }

    #[test]
    fn each_device_in_both_interfaces() {
        let shown = |version| -> Vec<String> {
            let all = settings(&limits(), version).unwrap();
            let shown = all
                .iter()
                .map(|one| format!("{} {}={}", one.controller, one.files.join("|"), one.text));
            shown.collect()
        };
        assert_eq!(
            shown(Version::One),
            [
                "blkio blkio.weight_device|blkio.bfq.weight_device=1:5 300",
                "blkio blkio.throttle.read_bps_device=1:3 1048576",
                "blkio blkio.throttle.write_bps_device=1:3 0",
                "blkio blkio.throttle.read_iops_device=1:3 7",
                "blkio blkio.throttle.write_iops_device=1:3 8",
            ]
        );
        assert_eq!(
            shown(Version::Two),
            [
                "io io.bfq.weight|io.weight=1:5 300",
                "io io.max=1:3 rbps=1048576",
                "io io.max=1:3 wbps=max",
                "io io.max=1:3 riops=7",
                "io io.max=1:3 wiops=8",
            ]
        );
        assert!(are_limited(&limits()) && !are_limited(&Resources::default()));
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let mut limits = limits();
        limits.blkio_device_read_iops[0].path = "/dev/no-such".to_owned();
        let error = settings(&limits, Version::One).unwrap_err();
        assert_eq!(
            error.to_string(),
            "stat /dev/no-such: no such file or directory"
        );
        assert_eq!(error.run_exit_code(), 127);
    }
}
