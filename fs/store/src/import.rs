//! `import`: a bare root filesystem becomes an image of one layer.

use std::io::Read;

use crate::config::{ContainerConfig, apply_changes, host_architecture, import_config};
use crate::digest::ImageId;
use crate::error::Error;
use crate::names::check_name;
use crate::progress::{Counted, Phase};
use crate::store::Store;
use crate::types::ImportOptions;

/// What docker says whatever the source was.
const COMMENT: &str = "Imported from -";
/// What messages call the stream.
const ITEM: &str = "import";

impl Store {
    /// Imports a tar, which may be compressed; names the image if a name is given. Holds the shared lock once the tar has
    /// been read.
    ///
    /// # Errors
    /// A change or a name that is not accepted (nothing is read then); a tar that cannot be unpacked.
    pub fn import(&self, tar: impl Read + Send, options: &ImportOptions) -> Result<ImageId, Error> {
        let mut config = ContainerConfig::default();
        apply_changes(&mut config, &options.changes)?;
        options.name.as_ref().map_or(Ok(()), check_name)?;
        let tar = Counted::new(tar, &*self.progress, Phase::Extract, ITEM, options.bytes);
        let layer = self.unpack(tar, ITEM)?;
        layer.check(None, ITEM)?;
        let comment = options.message.as_deref().unwrap_or(COMMENT);
        let platform = options.platform.as_ref();
        let platform = platform.map_or(("linux", host_architecture(), ""), |platform| {
            (
                platform.os.as_str(),
                platform.architecture.as_str(),
                platform.variant.as_str(),
            )
        });
        let created = options.created.unwrap_or_else(jiff::Timestamp::now);
        let config = import_config(config, layer.diff_id, comment, platform, created);
        let _lock = self.lock_shared()?;
        let _work = self.begin()?;
        self.place_layers(vec![layer])?;
        let id = self.add_image(&config, None)?;
        if let Some(name) = &options.name {
            self.tag(&id, name)?;
        }
        Ok(id)
    }
}
