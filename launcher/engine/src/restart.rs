//! When a container is started again by itself. Its monitor does it: after a reboot nothing starts by itself.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::host_config::RestartPolicy;

/// The wait before the first restart; each one after it takes twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length counts as a success: the waits begin anew.
const SUCCESS: Duration = Duration::from_secs(10);

/// The waits between restarts.
#[derive(Debug, Default)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    /// Returns how long to wait after a run of this length.
    pub(crate) fn next(&mut self, ran: Duration) -> Duration {
        self.0 = if self.0.is_zero() || ran >= SUCCESS {
            FIRST
        } else {
            (self.0 * 2).min(LONGEST)
        };
        self.0
    }
}

/// Returns whether a container that ended with `code` after `count` restarts is started again.
pub(crate) fn wants(policy: &RestartPolicy, code: i32, count: u32) -> bool {
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let most = policy.maximum_retry_count;
            code != 0 && (most <= 0 || i64::from(count) < most)
        }
        _ => false,
    }
}

/// Checks a policy.
///
/// # Errors
/// Docker's texts.
pub(crate) fn check(policy: &RestartPolicy) -> Result<()> {
    let refused = |text: String| Err(Error::Invalid(text));
    match policy.name.as_str() {
        "always" | "unless-stopped" | "no" if policy.maximum_retry_count != 0 => refused(format!(
            "maximum retry count cannot be used with restart policy '{}'",
            policy.name
        )),
        "on-failure" if policy.maximum_retry_count < 0 => {
            refused("maximum retry count cannot be negative".to_owned())
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => refused(format!("invalid restart policy '{other}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, most: i64) -> RestartPolicy {
        RestartPolicy {
            name: name.into(),
            maximum_retry_count: most,
        }
    }

    #[test]
    fn policies_decide_by_code_and_count() {
        for (name, most, code, count, want) in [
            ("no", 0, 1, 0, false),
            ("", 0, 1, 0, false),
            ("always", 0, 0, 99, true),
            ("unless-stopped", 0, 0, 0, true),
            ("on-failure", 0, 0, 0, false),
            ("on-failure", 0, 3, 99, true),
            ("on-failure", 2, 3, 1, true),
            ("on-failure", 2, 3, 2, false),
        ] {
            assert_eq!(
                wants(&policy(name, most), code, count),
                want,
                "{name}:{most}"
            );
        }
    }

    #[test]
    fn bad_policies_are_refused_in_dockers_words() {
        for (name, most, want) in [
            ("frob", 0, "invalid restart policy 'frob'"),
            (
                "always",
                3,
                "maximum retry count cannot be used with restart policy 'always'",
            ),
            ("on-failure", -1, "maximum retry count cannot be negative"),
        ] {
            assert_eq!(check(&policy(name, most)).unwrap_err().to_string(), want);
        }
        assert!(check(&policy("on-failure", 3)).is_ok());
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_long_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        assert_eq!(backoff.next(short).as_millis(), 100);
        assert_eq!(backoff.next(short).as_millis(), 200);
        for _ in 0..20 {
            backoff.next(short);
        }
        assert_eq!(backoff.next(short), LONGEST);
        assert_eq!(backoff.next(SUCCESS), FIRST);
    }
}
