//! What limits mean in the two interfaces: which file gets which text. Pure.

use crate::host_config::Resources;

use super::trees::Version;

/// One file of a control group and what is to stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Whose it is.
    pub(super) controller: &'static str,
    /// Names it may have; the first that is there counts.
    pub(super) files: &'static [&'static str],
    /// The text.
    pub(super) text: String,
    /// Asked for by name: that it cannot be set is an error.
    pub(super) required: bool,
}

/// One that was asked for by name.
pub(super) fn setting(
    controller: &'static str,
    files: &'static [&'static str],
    text: String,
) -> Setting {
    Setting {
        controller,
        files,
        text,
        required: true,
    }
}

/// The period docker takes for `--cpus`, in microseconds.
const PERIOD_US: i64 = 100_000;
const NANO: i64 = 1_000_000_000;

/// How long real-time processes of a group may run in a period, in microseconds.
pub(super) const RT_RUNTIME: &str = "cpu.rt_runtime_us";
/// That period, in microseconds.
pub(super) const RT_PERIOD: &str = "cpu.rt_period_us";

/// Returns the controllers that limits need.
pub(super) fn controllers(resources: &Resources) -> Vec<&'static str> {
    let mut names: Vec<_> = settings(resources, |_| Version::Two)
        .iter()
        .map(|setting| setting.controller)
        .collect();
    // What only version 1 has is not among them.
    names.extend((resources.oom_kill_disable == Some(true)).then_some("memory"));
    let real_time = resources.cpu_realtime_period != 0 || resources.cpu_realtime_runtime != 0;
    names.extend(real_time.then_some("cpu"));
    names.dedup();
    names
}

/// Returns what is to be written, for trees of these versions.
pub(super) fn settings(
    resources: &Resources,
    version: impl Fn(&'static str) -> Version,
) -> Vec<Setting> {
    let mut all = match version("memory") {
        Version::One => memory_one(resources),
        Version::Two => memory_two(resources),
    };
    match version("cpu") {
        Version::One => cpu_one(resources, &mut all),
        Version::Two => cpu_two(resources, &mut all),
    }
    for (file, text) in [
        (&["cpuset.cpus"], &resources.cpuset_cpus),
        (&["cpuset.mems"], &resources.cpuset_mems),
    ] {
        if !text.is_empty() {
            all.push(setting("cpuset", file, text.clone()));
        }
    }
    if let Some(limit) = resources.pids_limit.filter(|limit| *limit != 0) {
        let text = if limit > 0 {
            limit.to_string()
        } else {
            "max".to_owned()
        };
        // "No limit" is what a group has anyway.
        all.push(Setting {
            required: limit > 0,
            ..setting("pids", &["pids.max"], text)
        });
    }
    let weight = i64::from(resources.blkio_weight);
    if weight > 0 {
        all.push(match version("blkio") {
            Version::One => setting(
                "blkio",
                &["blkio.weight", "blkio.bfq.weight"],
                weight.to_string(),
            ),
            Version::Two => setting("io", &["io.bfq.weight", "io.weight"], weight.to_string()),
        });
    }
    all
}

/// The swap limit was not asked for: docker's twice the memory.
fn swap_is_implied(resources: &Resources) -> bool {
    resources.memory_swap == resources.memory.saturating_mul(2)
}

fn memory_one(resources: &Resources) -> Vec<Setting> {
    let mut all = Vec::new();
    let number = |file, value: i64| setting("memory", file, value.to_string());
    if resources.memory > 0 {
        all.push(number(&["memory.limit_in_bytes"], resources.memory));
    }
    if resources.memory_swap != 0 {
        all.push(Setting {
            required: !swap_is_implied(resources),
            ..number(&["memory.memsw.limit_in_bytes"], resources.memory_swap)
        });
    }
    if resources.memory_reservation > 0 {
        all.push(number(
            &["memory.soft_limit_in_bytes"],
            resources.memory_reservation,
        ));
    }
    if let Some(swappiness) = resources.memory_swappiness.filter(|value| *value >= 0) {
        all.push(number(&["memory.swappiness"], swappiness));
    }
    if resources.oom_kill_disable == Some(true) {
        all.push(number(&["memory.oom_control"], 1));
    }
    all
}

fn memory_two(resources: &Resources) -> Vec<Setting> {
    let mut all = Vec::new();
    let text = |file, text: String| setting("memory", file, text);
    if resources.memory > 0 {
        all.push(text(&["memory.max"], resources.memory.to_string()));
    }
    // Here the limit is on swap alone.
    if resources.memory_swap != 0 {
        let swap = if resources.memory_swap < 0 {
            "max".to_owned()
        } else {
            resources
                .memory_swap
                .saturating_sub(resources.memory)
                .to_string()
        };
        all.push(Setting {
            required: !swap_is_implied(resources),
            ..text(&["memory.swap.max"], swap)
        });
    }
    if resources.memory_reservation > 0 {
        all.push(text(
            &["memory.low"],
            resources.memory_reservation.to_string(),
        ));
    }
    all
}

/// Quota and period in microseconds, as far as they were given.
fn bandwidth(resources: &Resources) -> (Option<i64>, Option<i64>) {
    if resources.nano_cpus > 0 {
        let quota = resources.nano_cpus.saturating_mul(PERIOD_US) / NANO;
        return (Some(quota), Some(PERIOD_US));
    }
    let given = |value: i64| Some(value).filter(|value| *value != 0);
    (given(resources.cpu_quota), given(resources.cpu_period))
}

fn cpu_one(resources: &Resources, all: &mut Vec<Setting>) {
    if resources.cpu_shares > 0 {
        all.push(setting(
            "cpu",
            &["cpu.shares"],
            resources.cpu_shares.to_string(),
        ));
    }
    let (quota, period) = bandwidth(resources);
    if let Some(period) = period {
        all.push(setting("cpu", &["cpu.cfs_period_us"], period.to_string()));
    }
    if let Some(quota) = quota {
        all.push(setting("cpu", &["cpu.cfs_quota_us"], quota.to_string()));
    }
    for (file, value) in [
        (&[RT_PERIOD], resources.cpu_realtime_period),
        (&[RT_RUNTIME], resources.cpu_realtime_runtime),
    ] {
        if value != 0 {
            all.push(setting("cpu", file, value.to_string()));
        }
    }
}

fn cpu_two(resources: &Resources, all: &mut Vec<Setting>) {
    if resources.cpu_shares > 0 {
        // 2..=262144 onto 1..=10000, as runc does it.
        let shares = resources.cpu_shares.clamp(2, 262_144);
        let weight = 1 + (shares - 2) * 9999 / 262_142;
        all.push(setting("cpu", &["cpu.weight"], weight.to_string()));
    }
    let (quota, period) = bandwidth(resources);
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        let period = period.unwrap_or(PERIOD_US);
        all.push(setting("cpu", &["cpu.max"], format!("{quota} {period}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(resources: &Resources, version: Version) -> Vec<String> {
        settings(resources, |_| version)
            .iter()
            .map(|setting| format!("{}={}", setting.files[0], setting.text))
            .collect()
    }

    #[test]
    fn each_limit_in_both_interfaces() {
        let none = Resources::default();
        assert!(shown(&none, Version::One).is_empty() && shown(&none, Version::Two).is_empty());
        let all = Resources {
            memory: 100 << 20,
            memory_swap: 150 << 20,
            memory_reservation: 50 << 20,
            nano_cpus: 500_000_000,
            cpu_shares: 512,
            cpuset_cpus: "0-1".into(),
            cpuset_mems: "0".into(),
            pids_limit: Some(9),
            blkio_weight: 300,
            ..Resources::default()
        };
        assert_eq!(
            shown(&all, Version::One),
            [
                "memory.limit_in_bytes=104857600",
                "memory.memsw.limit_in_bytes=157286400",
                "memory.soft_limit_in_bytes=52428800",
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=9",
                "blkio.weight=300",
            ]
        );
        assert_eq!(
            shown(&all, Version::Two),
            [
                "memory.max=104857600",
                "memory.swap.max=52428800",
                "memory.low=52428800",
                "cpu.weight=20",
                "cpu.max=50000 100000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=9",
                "io.bfq.weight=300",
            ]
        );
        assert_eq!(controllers(&all), ["memory", "cpu", "cpuset", "pids", "io"]);
    }

    #[test]
    fn no_limit_has_its_own_words() {
        let resources = Resources {
            memory: 1 << 30,
            memory_swap: -1,
            cpu_period: 50_000,
            pids_limit: Some(-1),
            ..Resources::default()
        };
        assert_eq!(
            shown(&resources, Version::Two),
            [
                "memory.max=1073741824",
                "memory.swap.max=max",
                "cpu.max=max 50000",
                "pids.max=max"
            ]
        );
        assert_eq!(
            shown(&resources, Version::One),
            [
                "memory.limit_in_bytes=1073741824",
                "memory.memsw.limit_in_bytes=-1",
                "cpu.cfs_period_us=50000",
                "pids.max=max"
            ]
        );
    }

    #[test]
    fn swap_nobody_asked_for_is_not_required() {
        let implied = Resources {
            memory: 1 << 30,
            memory_swap: 2 << 30,
            ..Resources::default()
        };
        for version in [Version::One, Version::Two] {
            let all = settings(&implied, |_| version);
            assert_eq!(
                all.iter().map(|s| s.required).collect::<Vec<_>>(),
                [true, false]
            );
        }
    }
}
