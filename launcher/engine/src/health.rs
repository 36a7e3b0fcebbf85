//! Whether a container is well: docker's rules for what a probe's result means.

use std::time::Duration;

use mille_store::config::Healthcheck;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Results that are kept.
const KEPT: usize = 5;
/// Between probes, and for one of them, where nothing is said.
const USUAL: Duration = Duration::from_secs(30);
/// Failures in a row where nothing is said.
const USUAL_RETRIES: i64 = 3;
/// The shortest time that can be asked for, in nanoseconds.
const SHORTEST: i64 = 1_000_000;

/// `State.Health` of inspect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last results, oldest first.
    pub log: Vec<ProbeResult>,
}

/// What one probe came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProbeResult {
    /// RFC 3339, UTC.
    pub start: String,
    /// RFC 3339, UTC.
    pub end: String,
    /// The command's own; -1 when it took too long or could not be started.
    pub exit_code: i32,
    /// What it wrote, cut.
    pub output: String,
}

/// How a container is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The command.
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) retries: i64,
}

impl Check {
    /// Reads the merged configuration; `None` when nothing is to be checked.
    pub(crate) fn of(check: Option<&Healthcheck>) -> Option<Self> {
        let check = check?;
        let (kind, rest) = check.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" if !rest.is_empty() => rest.to_vec(),
            "CMD-SHELL" => ["/bin/sh", "-c"]
                .into_iter()
                .map(str::to_owned)
                .chain(rest.iter().take(1).cloned())
                .collect(),
            _ => return None,
        };
        let time = |nanoseconds: i64, usual: Duration| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => usual,
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        Some(Self {
            command,
            interval: time(check.interval, USUAL),
            timeout: time(check.timeout, USUAL),
            start_period: time(check.start_period, Duration::ZERO),
            retries: if check.retries > 0 {
                check.retries
            } else {
                USUAL_RETRIES
            },
        })
    }
}

/// Checks a configuration.
///
/// # Errors
/// Docker's texts.
pub(crate) fn check(config: Option<&Healthcheck>) -> Result<()> {
    let Some(config) = config else { return Ok(()) };
    for (name, nanoseconds) in [
        ("Interval", config.interval),
        ("Timeout", config.timeout),
        ("StartPeriod", config.start_period),
    ] {
        if nanoseconds != 0 && nanoseconds < SHORTEST {
            return Err(Error::Invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    Ok(())
}

impl Health {
    /// Before the first probe.
    pub(crate) fn starting() -> Self {
        Self {
            status: "starting".to_owned(),
            failing_streak: 0,
            log: Vec::new(),
        }
    }

    /// Takes one result in; `early` while failures do not count yet.
    pub(crate) fn take(&mut self, result: ProbeResult, check: &Check, early: bool) {
        let failed = result.exit_code != 0;
        self.log.push(result);
        let extra = self.log.len().saturating_sub(KEPT);
        self.log.drain(..extra);
        if !failed {
            self.failing_streak = 0;
            self.status = "healthy".to_owned();
        } else if !(early && self.status == "starting") {
            self.failing_streak += 1;
            if self.failing_streak >= check.retries {
                self.status = "unhealthy".to_owned();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> ProbeResult {
        ProbeResult {
            start: String::new(),
            end: String::new(),
            exit_code,
            output: String::new(),
        }
    }

    fn config(test: &[&str]) -> Healthcheck {
        Healthcheck {
            test: test.iter().map(|&word| word.to_owned()).collect(),
            retries: 2,
            ..Healthcheck::default()
        }
    }

    #[test]
    fn results_make_docker_s_states() {
        let check = Check::of(Some(&config(&["CMD-SHELL", "x"]))).unwrap();
        let mut health = Health::starting();
        for (code, early, want) in [
            (1, true, ("starting", 0)),
            (1, false, ("starting", 1)),
            (1, false, ("unhealthy", 2)),
            (1, true, ("unhealthy", 3)),
            (0, false, ("healthy", 0)),
            (1, true, ("healthy", 1)),
            (1, false, ("unhealthy", 2)),
        ] {
            health.take(result(code), &check, early);
            assert_eq!((health.status.as_str(), health.failing_streak), want);
        }
        assert_eq!(health.log.len(), KEPT);
    }

    #[test]
    fn commands_come_in_dockers_forms() {
        let command = |test: &[&str]| Check::of(Some(&config(test))).map(|check| check.command);
        assert_eq!(command(&["CMD", "a", "b"]).unwrap(), ["a", "b"]);
        assert_eq!(
            command(&["CMD-SHELL", "a b"]).unwrap(),
            ["/bin/sh", "-c", "a b"]
        );
        assert_eq!(command(&["NONE"]), None);
        assert_eq!(command(&[]), None);
        let short = Healthcheck {
            interval: 1000,
            ..config(&["CMD", "a"])
        };
        assert_eq!(
            super::check(Some(&short)).unwrap_err().to_string(),
            "Interval in Healthcheck cannot be less than 1ms"
        );
    }
}
