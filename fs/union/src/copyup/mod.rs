//! Bringing lower objects into the upper.

use crate::error::{Error, Result};
use crate::getattr::Handle;
use crate::node::NodeRef;
use crate::view::View;
use rustix::io::Errno;

/// Hard links of lower layers.
#[derive(Debug, Default)]
pub(crate) struct LinkIndex {}

impl View {
    pub(crate) fn replay_intents(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses a change of a view that cannot be written.
    pub(crate) fn require_writable(&self, op: &'static str) -> Result<()> {
        if self.work.is_some() {
            Ok(())
        } else {
            Err(Error::refused(op, Errno::ROFS))
        }
    }

    /// The upper object of a node whose attributes are about to change.
    pub(crate) fn upper_for_change(&self, node: &NodeRef) -> Result<Handle> {
        self.require_writable("change")?;
        self.upper_object(node)?
            .ok_or(Error::refused("copy up", Errno::NOSYS))
    }
}
