//! The probes of a container's health: commands that its monitor runs in it, one at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use mille_sandbox::{Child, ExecSpec, Stdio};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::container::Container;
use crate::error::Result;
use crate::events::Subject;
use crate::exec_events::ExecEvents;
use crate::health::{Check, ProbeResult};
use crate::layout::Layout;
use crate::limits::Groups;
use crate::options::ExecOptions;
use crate::relay::read_once;
use crate::{launch, process, records};

/// Output that is kept of a probe, in bytes.
const OUTPUT_BYTES: usize = 4096;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Exit code of a probe that has none.
const NO_CODE: i32 = -1;

/// Probes one run of a container.
#[derive(Debug)]
pub(super) struct Prober {
    pub(super) check: Check,
    spec: ExecSpec,
    layout: Layout,
    subject: Subject,
    init: Pid,
    started: Instant,
    next: Instant,
    probe: Option<Probe>,
}

/// A probe under way.
#[derive(Debug)]
struct Probe {
    child: Child,
    /// What is told of it; `None`: nothing could be.
    events: Option<ExecEvents>,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    start: String,
    deadline: Instant,
}

impl Prober {
    /// Makes the prober of a container that has just been started; `None` without a check.
    pub(super) fn new(layout: &Layout, container: &Container, init: Pid) -> Result<Option<Self>> {
        let Some(check) = Check::of(container.config.healthcheck.as_ref()) else {
            return Ok(None);
        };
        let options = ExecOptions {
            command: check.command.iter().map(Into::into).collect(),
            ..ExecOptions::default()
        };
        let mut spec = launch::exec_spec(layout, container, &options)?;
        spec.cgroup = Groups::of_command(container, init.as_raw());
        let started = Instant::now();
        Ok(Some(Self {
            spec,
            next: started + check.interval,
            check,
            layout: layout.clone(),
            subject: Subject::from(container),
            init,
            started,
            probe: None,
        }))
    }

    /// Returns whether failures do not count yet.
    pub(super) fn is_early(&self) -> bool {
        self.started.elapsed() < self.check.start_period
    }

    /// Returns how long nothing has to be done unless a descriptor has something.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let moment = self
            .probe
            .as_ref()
            .map_or(self.next, |probe| probe.deadline);
        moment.saturating_duration_since(now)
    }

    /// Returns what to wait for.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let child = self.probe.iter().map(|probe| probe.child.pidfd());
        let output = self.probe.iter().filter_map(|probe| probe.output.as_ref());
        child.chain(output.map(AsFd::as_fd))
    }

    /// Does what is to be done now; returns a result when there is one. In a paused container nothing new is begun.
    pub(super) fn step(&mut self, paused: bool) -> Option<ProbeResult> {
        let now = Instant::now();
        let Some(probe) = &mut self.probe else {
            if now >= self.next && paused {
                self.next = now + self.check.interval;
            }
            return (now >= self.next).then(|| self.begin(now)).flatten();
        };
        let ended = probe.read().and_then(|()| probe.child.try_wait());
        let (code, text) = match ended {
            Ok(None) if now < probe.deadline => return None,
            Ok(None) => {
                let shown = go_duration(self.check.timeout);
                (
                    NO_CODE,
                    Some(format!("Health check exceeded timeout ({shown})")),
                )
            }
            Ok(Some(status)) => (status.code(), None),
            Err(error) => (NO_CODE, Some(error.to_string())),
        };
        let mut probe = self.probe.take()?;
        self.next = Instant::now() + self.check.interval;
        let text = text.unwrap_or_else(|| probe.finish());
        probe.end();
        Some(result(probe.start, code, text))
    }

    /// Starts a probe; its result, when it cannot be started.
    fn begin(&mut self, now: Instant) -> Option<ProbeResult> {
        let start = records::now();
        match self.launch() {
            Ok((child, output)) => {
                let subject = self.subject.clone();
                let words: Vec<_> = self.check.command.iter().map(Into::into).collect();
                self.probe = Some(Probe {
                    child,
                    events: ExecEvents::begin(&self.layout, subject, &words).ok(),
                    output: Some(output),
                    text: Vec::new(),
                    start,
                    deadline: now + self.check.timeout,
                });
                None
            }
            Err(text) => {
                self.next = Instant::now() + self.check.interval;
                Some(result(start, NO_CODE, text))
            }
        }
    }

    fn launch(&self) -> Result<(Child, OwnedFd), String> {
        let pipe = || -> io::Result<(OwnedFd, OwnedFd, OwnedFd)> {
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&reader, true)?;
            let copy = rustix::io::fcntl_dupfd_cloexec(&writer, 3)?;
            Ok((reader, writer, copy))
        };
        let (reader, stdout, stderr) = pipe().map_err(|error| error.to_string())?;
        let stdio = Stdio {
            stdout: Some(stdout),
            stderr: Some(stderr),
            ..Stdio::default()
        };
        let entrance = process::entrance(self.init.as_raw());
        let child = mille_sandbox::exec(Pid::from_raw(entrance.pid), &self.spec, stdio);
        Ok((child.map_err(|error| error.to_string())?, reader))
    }
}

impl Probe {
    /// Takes what is there; more than is kept is dropped.
    fn read(&mut self) -> io::Result<()> {
        while let Some(output) = &self.output {
            match read_once(output, READ_BYTES)? {
                None => return Ok(()),
                Some(bytes) if bytes.is_empty() => self.output = None,
                Some(bytes) => {
                    let room = (OUTPUT_BYTES + 1).saturating_sub(self.text.len());
                    self.text.extend(bytes.into_iter().take(room));
                }
            }
        }
        Ok(())
    }

    /// What it wrote, as far as it is kept.
    fn finish(&mut self) -> String {
        if let Err(error) = self.read() {
            log::debug!("probe: {error}");
        }
        let cut = self.text.len() > OUTPUT_BYTES;
        self.text.truncate(OUTPUT_BYTES);
        let text = String::from_utf8_lossy(&self.text);
        if cut {
            format!("{text}...")
        } else {
            text.into_owned()
        }
    }

    /// Ends it if it has not ended.
    fn end(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Err(error) = self.child.signal(Signal::SIGKILL)
        {
            log::debug!("probe: {error}");
        }
        let code = match self.child.wait() {
            Ok(status) => status.code(),
            Err(error) => {
                log::debug!("probe: {error}");
                records::KILLED
            }
        };
        if let Some(events) = self.events.take() {
            events.end(code);
        }
    }
}

fn result(start: String, exit_code: i32, output: String) -> ProbeResult {
    ProbeResult {
        start,
        end: records::now(),
        exit_code,
        output,
    }
}

/// A duration as Go shows it: `200ms`, `1.5s`, `1m30s`, `1h0m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let part = f64::from(duration.subsec_millis()) / 1000.0;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{}ms", duration.as_millis()),
        (0, 0, rest) => format!("{}s", rest as f64 + part),
        (0, minutes, rest) => format!("{minutes}m{}s", rest as f64 + part),
        (hours, minutes, rest) => format!("{hours}h{minutes}m{}s", rest as f64 + part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (milliseconds, want) in [
            (200, "200ms"),
            (1500, "1.5s"),
            (30_000, "30s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), want);
        }
    }
}
