//! What every command has: the global flags and the way to an engine.

use std::path::PathBuf;

use mille_engine::{Access, Engine, EngineOptions};

use crate::failure::Failure;

/// Flags before the command.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    /// `--root`, else `MILLE_ROOT`.
    pub(crate) root: Option<PathBuf>,
}

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Context {
    globals: Globals,
}

impl Context {
    /// Keeps the global flags.
    pub(crate) fn new(globals: Globals) -> Self {
        Context { globals }
    }

    /// Opens the engine for records and metadata only.
    pub(crate) fn records(&self) -> Result<Engine, Failure> {
        self.open(Access::Records)
    }

    /// Opens the engine for layers and root file systems; the process must still have one thread.
    pub(crate) fn layers(&self) -> Result<Engine, Failure> {
        self.open(Access::Layers)
    }

    /// As [`Context::layers`], to make and start a container that joins the namespaces of these.
    pub(crate) fn layers_beside(&self, joins: Vec<String>) -> Result<Engine, Failure> {
        self.open_with(EngineOptions {
            joins,
            ..EngineOptions::default()
        })
    }

    /// As [`Context::layers`], to start these containers.
    pub(crate) fn layers_to_start(&self, names: &[String]) -> Result<Engine, Failure> {
        self.open_with(EngineOptions {
            starts: names.to_vec(),
            ..EngineOptions::default()
        })
    }

    fn open(&self, access: Access) -> Result<Engine, Failure> {
        self.open_with(EngineOptions {
            access,
            ..EngineOptions::default()
        })
    }

    fn open_with(&self, options: EngineOptions) -> Result<Engine, Failure> {
        let options = EngineOptions {
            root: self.globals.root.clone(),
            ..options
        };
        Engine::open(options)
            .map_err(|error| Failure::plain(format!("mille: {}", crate::failure::chain(&error))))
    }
}
