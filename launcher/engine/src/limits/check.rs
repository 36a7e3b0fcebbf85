//! Limits that make no sense, refused in docker's words before a container is made.

use std::collections::BTreeSet;
use std::fs;

use crate::error::{Error, Result};
use crate::host_config::{DEFAULT_SHM_SIZE_BYTES, HostConfig, Resources};

/// Docker's least memory, in bytes.
const LEAST_MEMORY: i64 = 6 << 20;

/// Checks the limits of a container that is about to be made, and fills in what docker fills in.
///
/// # Errors
/// Docker's texts.
pub(crate) fn adapt(host: &mut HostConfig) -> Result<()> {
    let resources = &mut host.resources;
    if resources.memory > 0 && resources.memory_swap == 0 {
        resources.memory_swap = resources.memory.saturating_mul(2);
    }
    check(resources)?;
    // As docker: nothing is the usual size, and not no limit.
    match host.shm_size {
        0 => host.shm_size = DEFAULT_SHM_SIZE_BYTES,
        size if size < 0 => {
            return Err(Error::Invalid("SHM size can not be less than 0".to_owned()));
        }
        _ => {}
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::Invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    Ok(())
}

/// Checks limits by themselves.
///
/// # Errors
/// Docker's texts.
pub(crate) fn check(resources: &Resources) -> Result<()> {
    memory(resources)?;
    cpu(resources)?;
    for (what, file, asked) in [
        (
            "CPUs",
            "/sys/devices/system/cpu/online",
            &resources.cpuset_cpus,
        ),
        (
            "memory nodes",
            "/sys/devices/system/node/online",
            &resources.cpuset_mems,
        ),
    ] {
        if !asked.is_empty() {
            // Without the file there is one of them.
            let online = fs::read_to_string(file).unwrap_or_else(|_| "0".to_owned());
            cpuset(what, asked, online.trim())?;
        }
    }
    if resources.blkio_weight > 0 && !(10..=1000).contains(&resources.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    Ok(())
}

/// Checks whether limits fit those that a container has: docker's rules, as odd as they are (without a swap limit there
/// can be no memory limit later, unless both are given).
pub(super) fn check_update(now: &Resources, asked: &Resources) -> Result<(), &'static str> {
    let conflicts = [
        (
            asked.nano_cpus > 0 && now.cpu_period > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            asked.nano_cpus > 0 && now.cpu_quota > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            asked.cpu_quota > 0 && now.nano_cpus > 0,
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            asked.cpu_period > 0 && now.nano_cpus > 0,
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        (
            asked.memory > now.memory_swap && asked.memory_swap == 0 && asked.memory != 0,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ),
    ];
    let found = conflicts.into_iter().find(|(conflicts, _)| *conflicts);
    found.map_or(Ok(()), |(_, text)| Err(text))
}

fn refuse(text: &str) -> Result<()> {
    Err(Error::Invalid(text.to_owned()))
}

fn memory(resources: &Resources) -> Result<()> {
    let (memory, swap) = (resources.memory, resources.memory_swap);
    if memory != 0 && memory < LEAST_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if memory > 0 && swap > 0 && swap < memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if memory == 0 && swap > 0 {
        return refuse(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    let reservation = resources.memory_reservation;
    if reservation != 0 && reservation < LEAST_MEMORY {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && reservation > memory {
        return refuse(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    match resources.memory_swappiness {
        Some(value) if !(-1..=100).contains(&value) => refuse(&format!(
            "Invalid value: {value}, valid memory swappiness range is 0-100"
        )),
        _ => Ok(()),
    }
}

fn cpu(resources: &Resources) -> Result<()> {
    if resources.nano_cpus != 0 {
        for (value, what) in [
            (resources.cpu_period, "CPU Period"),
            (resources.cpu_quota, "CPU Quota"),
        ] {
            if value > 0 {
                return refuse(&format!(
                    "Conflicting options: Nano CPUs and {what} cannot both be set."
                ));
            }
        }
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let cpus = numbers(online.trim()).map_or(1, |cpus| cpus.len().max(1));
        let most = i64::try_from(cpus)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000_000);
        if !(10_000_000..=most).contains(&resources.nano_cpus) {
            return refuse(&format!(
                "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            ));
        }
    }
    let period = resources.cpu_period;
    if period != 0 && !(1000..=1_000_000).contains(&period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    let rt_period = resources.cpu_realtime_period;
    if rt_period != 0 && resources.cpu_realtime_runtime > rt_period {
        return refuse("cpu real-time runtime cannot be higher than cpu real-time period");
    }
    if resources.cpu_quota > 0 && resources.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    match resources.cpu_shares {
        shares if shares < 0 || shares == 1 => refuse("the minimum allowed cpu-shares is 2"),
        shares if shares > 262_144 => refuse("the maximum allowed cpu-shares is 262144"),
        _ => Ok(()),
    }
}

fn cpuset(what: &str, asked: &str, online: &str) -> Result<()> {
    let Some(wanted) = numbers(asked) else {
        let kind = if what == "CPUs" { "cpus" } else { "mems" };
        return refuse(&format!("Invalid value {asked} for cpuset {kind}"));
    };
    let there = numbers(online).unwrap_or_default();
    if wanted.is_subset(&there) {
        return Ok(());
    }
    refuse(&format!(
        "Requested {what} are not available - requested {asked}, available: {online}"
    ))
}

/// Reads `0-2,5`.
fn numbers(text: &str) -> Option<BTreeSet<u32>> {
    /// More processors than any kernel knows.
    const MOST: u32 = 8192;
    let mut all = BTreeSet::new();
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (low.parse::<u32>().ok()?, high.parse::<u32>().ok()?);
        if low > high || high > MOST {
            return None;
        }
        all.extend(low..=high);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        let default = Resources::default;
        for (given, want) in [
            (
                Resources {
                    memory: 1,
                    ..default()
                },
                "Minimum memory limit allowed is 6MB",
            ),
            (
                Resources {
                    memory: 20 << 20,
                    memory_swap: 10 << 20,
                    ..default()
                },
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (
                Resources {
                    memory_swap: 10 << 20,
                    ..default()
                },
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (
                Resources {
                    nano_cpus: 1_000_000_000,
                    cpu_quota: 5000,
                    ..default()
                },
                "Conflicting options: Nano CPUs and CPU Quota cannot both be set.",
            ),
            (
                Resources {
                    cpuset_cpus: "0-".into(),
                    ..default()
                },
                "Invalid value 0- for cpuset cpus",
            ),
            (
                Resources {
                    cpu_shares: 1,
                    ..default()
                },
                "the minimum allowed cpu-shares is 2",
            ),
            (
                Resources {
                    blkio_weight: 5,
                    ..default()
                },
                "Range of blkio weight is from 10 to 1000",
            ),
        ] {
            assert_eq!(check(&given).unwrap_err().to_string(), want);
        }
        let error = cpuset("CPUs", "99", "0-1").unwrap_err().to_string();
        assert_eq!(
            error,
            "Requested CPUs are not available - requested 99, available: 0-1"
        );
        assert!(cpuset("CPUs", "1", "0-1").is_ok());
    }

    #[test]
    fn an_update_has_to_fit_what_is_there() {
        let default = Resources::default;
        let cpus = || Resources {
            nano_cpus: 1,
            ..default()
        };
        let quota = || Resources {
            cpu_quota: 5000,
            ..default()
        };
        let memory = |memory, memory_swap| Resources {
            memory,
            memory_swap,
            ..default()
        };
        for (now, asked, want) in [
            (cpus(), quota(), "CPU Quota cannot be updated as NanoCPUs"),
            (quota(), cpus(), "Nano CPUs cannot be updated as CPU Quota"),
            (
                default(),
                memory(50, 0),
                "update the memoryswap at the same time",
            ),
            (
                memory(10, -1),
                memory(50, 0),
                "update the memoryswap at the same time",
            ),
            (memory(10, 20), memory(50, 60), ""),
            (memory(10, 20), memory(20, 0), ""),
            (memory(10, 20), memory(0, 30), ""),
            (default(), cpus(), ""),
        ] {
            let text = check_update(&now, &asked).err().unwrap_or_default();
            assert!(
                text.contains(want) && text.is_empty() == want.is_empty(),
                "{text}"
            );
        }
    }

    #[test]
    fn swap_is_twice_the_memory_unless_said() {
        let mut host = HostConfig::default();
        host.resources.memory = 10 << 20;
        adapt(&mut host).unwrap();
        assert_eq!(host.resources.memory_swap, 20 << 20);
        host.shm_size = 0;
        adapt(&mut host).unwrap();
        assert_eq!(host.shm_size, DEFAULT_SHM_SIZE_BYTES);
        host.oom_score_adj = 2000;
        assert_eq!(
            adapt(&mut host).unwrap_err().to_string(),
            "Invalid value 2000, range for oom score adj is [-1000, 1000]"
        );
    }
}
