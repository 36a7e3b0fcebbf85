//! Where the container of a running monitor stands, and its record on disk.

use crate::error::Result;
use crate::ids::ContainerId;
use crate::layout::ContainerPaths;
use crate::records::{self, StateRecord};
use crate::state::State;

/// The state of a running container; its monitor is the only writer.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) id: ContainerId,
    paths: ContainerPaths,
    pub(super) record: StateRecord,
}

impl Standing {
    /// Goes on from what has been written.
    pub(super) fn new(id: ContainerId, paths: ContainerPaths, record: StateRecord) -> Self {
        Self { id, paths, record }
    }

    /// Changes the state and writes it down; what cannot be written is not changed either.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut next = self.record.clone();
        change(&mut next.state);
        records::write_state(&self.paths, &next)?;
        self.record = next;
        Ok(())
    }
}
