//! Files that are opened to write before they are copied up: see [`crate::copyup`].
//!
//! Such a file goes through the server, whatever others do: there is no backing file that has all its bytes. When it is
//! whole, those who have it open go on so, and who opens it when they have closed it goes past the server again. Readers
//! who were there before keep the lower's bytes under the old number, as with every copy-up.

use std::sync::Arc;

use fuser::INodeNo;

use super::faces::Way;
use super::pace;
use super::server::Server;
use crate::copyup::{Begun, Growing, lost};
use crate::error::Result;
use crate::node::{NodeId, NodeRef};

impl Server {
    /// Makes a file ready to be opened to write under a number.
    pub(crate) fn prepare_write(
        self: &Arc<Self>,
        node: &NodeRef,
        id: NodeId,
        truncate: bool,
    ) -> Result<()> {
        if let Some(least) = self.grows_from
            && !truncate
        {
            match self.view.begin_growing(node, least)? {
                Begun::Whole => {}
                Begun::Known => {
                    if self.view.growth.of(node).is_some_and(|it| it.join(id)) {
                        return Ok(());
                    }
                }
                Begun::Growing(growing) => {
                    growing.join(id);
                    self.let_grow(growing);
                    return Ok(());
                }
            }
        }
        self.view.prepare_write(node, truncate)
    }

    /// Has the rest copied on a thread of its own: those of the pool may all be waiting for it.
    fn let_grow(self: &Arc<Self>, growing: Arc<Growing>) {
        let (this, its) = (self.clone(), growing.clone());
        let thread = std::thread::Builder::new().name("mille-grow".to_owned());
        let begun = thread.spawn(move || {
            pace::set_free();
            this.grow(&its);
        });
        if let Err(error) = begun {
            log::warn!("no thread for a copy-up: {error}");
            self.grow(&growing);
        }
    }

    fn grow(&self, growing: &Growing) {
        let failed = || {
            for id in growing.numbers() {
                self.faces.of(id).lock().lost = true;
            }
        };
        let grown = self.view.grow(growing, failed);
        if let Err(error) = &grown {
            log::error!(
                "{}: what was written is lost: {error}",
                growing.link.name.display()
            );
        }
        let mut numbers = growing.numbers();
        numbers.push(growing.node.id());
        for id in numbers {
            match &grown {
                Ok(()) => self.attributes_changed(id),
                Err(_) => self.bytes_changed(id),
            }
        }
    }

    /// Tells the kernel that what it knows of a file is old. Waits for those who read or write its pages.
    fn bytes_changed(&self, id: NodeId) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(id.0), 0, 0)
        {
            log::debug!("invalidate {}: {error}", id.0);
        }
    }

    /// The bytes that a number shows, if they are growing: not to those who read the lower's since before.
    pub(crate) fn growing(&self, node: &NodeRef, id: NodeId) -> Option<Arc<Growing>> {
        let growing = self.view.growth.of(node)?;
        let face = self.faces.known(id);
        let reads_old = face.is_some_and(
            |face| matches!(&face.lock().way, Way::Direct(backing) if !backing.in_upper),
        );
        (!reads_old).then_some(growing)
    }

    /// Refuses to go on with a file some of whose writes are lost, until all who have it open have closed it.
    pub(crate) fn refuse_lost(&self, id: NodeId, op: &'static str) -> Result<()> {
        match self.faces.known(id) {
            Some(face) if face.lock().lost => Err(lost(op)),
            _ => Ok(()),
        }
    }
}
