//! An attached client: its streams against a container's monitor.

use crate::error::{Error, Result};
use crate::options::{ClientIo, Ended};

/// A connection to a container's monitor, made by start or attach.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Carries the streams until the container ends or the client detaches.
    ///
    /// # Errors
    /// The monitor went away without a word.
    pub fn run(self, _io: &ClientIo<'_>) -> Result<Ended> {
        Err(Error::Invalid("not implemented yet".to_owned()))
    }
}
