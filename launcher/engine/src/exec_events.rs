//! The events of one more command in a container: that it was made, started, and how it ended.

use std::ffi::OsString;

use crate::error::Result;
use crate::events::Subject;
use crate::ids::ContainerId;
use crate::layout::Layout;

/// Tells of one command. What is dropped without [`ExecEvents::end`] has an end that nobody saw.
#[derive(Debug)]
pub(crate) struct ExecEvents {
    layout: Layout,
    subject: Subject,
    id: ContainerId,
}

impl ExecEvents {
    /// Notes that it is made and started; docker has its words in the action.
    ///
    /// # Errors
    /// No random numbers.
    pub(crate) fn begin(layout: &Layout, subject: Subject, command: &[OsString]) -> Result<Self> {
        let id = ContainerId::random()?;
        let mut words = command.iter().map(|word| word.to_string_lossy());
        let program = words.next().unwrap_or_default();
        let arguments: Vec<_> = words.collect();
        let events = Self {
            layout: layout.clone(),
            subject,
            id,
        };
        for action in ["exec_create", "exec_start"] {
            let action = format!("{action}: {program} {}", arguments.join(" "));
            events.note(&action, &[]);
        }
        Ok(events)
    }

    /// The command's id.
    pub(crate) fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Notes its end.
    pub(crate) fn end(self, code: i32) {
        self.note("exec_die", &[("exitCode", code.to_string())]);
    }

    fn note(&self, action: &str, more: &[(&str, String)]) {
        let mut all = vec![("execID", self.id.to_string())];
        all.extend_from_slice(more);
        self.subject.note(&self.layout, action, &all);
    }
}
