//! Where a container stands in its life: docker's `State`.

use serde::{Deserialize, Serialize};

use crate::health::Health;

/// Docker's "never": what `StartedAt` and `FinishedAt` say before they happened.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never ran (or its start failed).
    #[default]
    Created,
    /// Its first process lives.
    Running,
    /// Frozen.
    Paused,
    /// Waiting to be started again.
    Restarting,
    /// Being removed.
    Removing,
    /// Ran and ended.
    Exited,
    /// Half removed.
    Dead,
}

impl Status {
    /// Returns the word docker shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
}

/// The state of a container, with docker's keys in docker's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// One word for all of it.
    pub status: Status,
    /// Its first process lives (also while paused).
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Waiting to be started again.
    pub restarting: bool,
    /// The kernel killed it for memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Half removed.
    pub dead: bool,
    /// Its first process as the host numbers it; 0 when none.
    pub pid: i32,
    /// Of the last run; 125, 126 or 127 when a start failed.
    pub exit_code: i32,
    /// Why the last start failed, or why the end is not the command's own.
    pub error: String,
    /// RFC 3339 with nanoseconds, UTC; [`NEVER`] before.
    pub started_at: String,
    /// RFC 3339 with nanoseconds, UTC; [`NEVER`] before.
    pub finished_at: String,
    /// Whether it is well; nothing without a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::Created,
            running: false,
            paused: false,
            restarting: false,
            oom_killed: false,
            dead: false,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            started_at: NEVER.to_owned(),
            finished_at: NEVER.to_owned(),
            health: None,
        }
    }
}

impl State {
    /// Notes that the first process runs.
    pub(crate) fn begin(&mut self, pid: i32, now: String) {
        *self = Self {
            status: Status::Running,
            running: true,
            pid,
            started_at: now,
            finished_at: std::mem::take(&mut self.finished_at),
            ..Self::default()
        };
    }

    /// Notes that it was paused, or goes on.
    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.status = if paused {
            Status::Paused
        } else {
            Status::Running
        };
    }

    /// Notes the end of a run that is followed by another: docker counts a waiting container as running.
    pub(crate) fn set_restarting(&mut self, exit_code: i32, now: String) {
        self.end(exit_code, String::new(), now);
        self.status = Status::Restarting;
        self.running = true;
        self.restarting = true;
    }

    /// Notes the end of a run.
    pub(crate) fn end(&mut self, exit_code: i32, error: String, now: String) {
        *self = Self {
            status: Status::Exited,
            exit_code,
            error,
            started_at: std::mem::take(&mut self.started_at),
            finished_at: now,
            oom_killed: self.oom_killed,
            // As docker: what does not run is not well.
            health: self.health.take().map(|health| Health {
                status: "unhealthy".to_owned(),
                ..health
            }),
            ..Self::default()
        };
    }

    /// Notes that a start failed: the status stays what it was before.
    pub(crate) fn fail(&mut self, exit_code: i32, error: String) {
        self.running = false;
        self.restarting = false;
        self.pid = 0;
        self.exit_code = exit_code;
        self.error = error;
        self.status = if self.finished_at == NEVER {
            Status::Created
        } else {
            Status::Exited
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_dockers() {
        let mut state = State::default();
        state.begin(7, "2026-11-21T02:38:19.090077187Z".into());
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            "{\"Status\":\"running\",\"Running\":true,\"Paused\":false,\"Restarting\":false,\"OOMKilled\":false,\
             \"Dead\":false,\"Pid\":7,\"ExitCode\":0,\"Error\":\"\",\"StartedAt\":\"2026-11-21T02:38:19.090077187Z\",\
             \"FinishedAt\":\"0001-01-01T00:00:00Z\"}"
        );
    }

    #[test]
    fn a_failed_first_start_stays_created() {
        let mut state = State::default();
        state.fail(127, "no".into());
        assert_eq!((state.status, state.exit_code), (Status::Created, 127));
    }
}
