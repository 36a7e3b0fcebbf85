//! The pure half: a [`Spec`] and the facts of the host become an ordered list of [`Step`]s.

use crate::host::Host;
use crate::{PlanError, Spec};

/// One step of the new process on its way to the command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {}

/// An ordered list of steps and everything they need.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// Makes the plan. Does no I/O.
    ///
    /// # Errors
    /// The spec contradicts itself or asks for what the host lacks.
    pub fn new(spec: &Spec, host: &Host) -> Result<Self, PlanError> {
        if spec.args.is_empty() {
            return Err(PlanError::NoCommand);
        }
        if !host.kernel_is_new_enough() {
            return Err(PlanError::Kernel {
                release: host.kernel.clone(),
            });
        }
        Ok(Self { steps: Vec::new() })
    }

    /// Returns the steps in their order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}
