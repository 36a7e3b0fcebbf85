//! Opening the engine: where it works, as whom, and what the last ones left behind.

use std::env;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mille_layer::{MarkSpace, Ownership};
use mille_sandbox::outer::{self, OuterMode, Wish};
use mille_sandbox::weaken::{self, Hole};
use mille_store::{Store, StoreOptions};

use crate::engine::{Engine, Mode};
use crate::error::{Error, Result};
use crate::files;
use crate::init_layer::Dialect;
use crate::layout::Layout;
use crate::options::{Access, EngineOptions};
use crate::removal::{SweepOptions, sweep};
use crate::{joining, run_directory, served};

/// Opens the engine.
pub(crate) fn open(options: &EngineOptions) -> Result<Engine> {
    let real_root = nix::unistd::geteuid().is_root()
        && outer::current()?.is_none_or(|mode| mode == OuterMode::Root);
    let root = root_directory(options.root.as_deref(), real_root)?;
    // The canonical path names the run-time directory: however the root was typed, it is the same one.
    let root = fs::canonicalize(&root).map_err(Error::io("resolve", &root))?;
    let (run, new_run) = run_directory::ensure(&root)?;
    let layout = Layout { root, run };
    // Before the namespace is entered: these mounts are outside.
    served::sweep(&layout, if real_root { Mode::Root } else { Mode::Range })?;
    let (mode, inside) = enter(&layout, options, real_root)?;
    let store = Store::open(&layout.root, store_options(mode))?;
    for directory in [layout.containers(), layout.staging(), layout.names()] {
        files::make_directory(&directory, 0o700)?;
    }
    let privileged = inside || real_root;
    let options = SweepOptions {
        privileged,
        thorough: new_run,
    };
    sweep(&layout, options)?;
    let engine = Engine {
        layout,
        store,
        mode,
        inside,
    };
    if privileged {
        clear_store(&engine)?;
    }
    Ok(engine)
}

fn enter(layout: &Layout, options: &EngineOptions, real_root: bool) -> Result<(Mode, bool)> {
    if real_root {
        if options.access != Access::Records {
            check_root()?;
        }
        return Ok((Mode::Root, false));
    }
    let remembered = Remembered::read(layout)?;
    if options.access == Access::Records {
        return Ok((remembered.unwrap_or(Mode::Range), false));
    }
    let mode = match joining::outer_of(layout, &options.joins, &options.starts)? {
        Some(namespaces) => mode_of(outer::enter_beside(namespaces.user.as_fd())?),
        None => go_inside(remembered)?,
    };
    if remembered.is_none() {
        Remembered::write(layout, mode)?;
    }
    Ok((mode, mode != Mode::Root))
}

/// Root of an ordinary container looks like root and can mount nothing: better told at once than by whatever fails first.
fn check_root() -> Result<()> {
    if mille_sandbox::host::can_mount() {
        return Ok(());
    }
    Err(Error::Invalid(
        "root has no CAP_SYS_ADMIN here, so that nothing can be mounted: give it to the container or unit that this runs \
         in (--cap-add SYS_ADMIN), or be an ordinary user; `mille doctor` tells more"
            .to_owned(),
    ))
}

/// Removes what a killed command left in the store, unless somebody is at work there: nobody waits for that.
fn clear_store(engine: &Engine) -> Result<()> {
    if engine.store.has_leftovers()?
        && let Some(_lock) = engine.store.try_lock_exclusive()?
    {
        let collected = crate::images::collect(engine)?;
        log::debug!("cleared {} leftovers of the store", collected.staging);
    }
    Ok(())
}

/// Enters the user namespace in a process whose engine was opened for records only.
pub(crate) fn go_inside_for(engine: &Engine) -> Result<Mode> {
    go_inside(Remembered::read(&engine.layout)?)
}

fn go_inside(remembered: Option<Mode>) -> Result<Mode> {
    // Owners in a store are kept in one way only: what it began with, it goes on with.
    let wish = match remembered {
        Some(Mode::Range) => Wish::Range,
        Some(Mode::OneId) => Wish::OneId,
        Some(Mode::Root) | None => Wish::Auto,
    };
    Ok(mode_of(outer::enter(wish)?))
}

fn mode_of(outer: OuterMode) -> Mode {
    match outer {
        OuterMode::Root => Mode::Root,
        OuterMode::Range { .. } => Mode::Range,
        OuterMode::OneId => Mode::OneId,
    }
}

fn store_options(mode: Mode) -> StoreOptions {
    let dialect = dialect(mode);
    StoreOptions {
        space: dialect.space,
        ownership: dialect.ownership,
    }
}

/// Returns how a store of this mode keeps marks and owners.
pub(crate) fn dialect(mode: Mode) -> Dialect {
    match mode {
        Mode::Root => Dialect {
            space: MarkSpace::Trusted,
            ownership: Ownership::Real,
        },
        Mode::Range => Dialect {
            space: MarkSpace::User,
            ownership: Ownership::Real,
        },
        Mode::OneId => Dialect {
            space: MarkSpace::User,
            ownership: Ownership::Override,
        },
    }
}

/// How the owners in a user's store are kept: a store made with one id must not be read with a range.
struct Remembered;

impl Remembered {
    const FILE: &'static str = "id-map";

    fn read(layout: &Layout) -> Result<Option<Mode>> {
        let path = layout.root.join(Self::FILE);
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == "range" => Ok(Some(Mode::Range)),
            Ok(text) if text.trim() == "one" => Ok(Some(Mode::OneId)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    fn write(layout: &Layout, mode: Mode) -> Result<()> {
        let word = if mode == Mode::OneId {
            "one\n"
        } else {
            "range\n"
        };
        files::replace(&layout.root, Self::FILE, word.as_bytes(), 0o600)
    }
}

/// Finds the store's root and makes it: `--root`, `MILLE_ROOT`, or the user's own place.
fn root_directory(given: Option<&Path>, real_root: bool) -> Result<PathBuf> {
    let from_environment = || {
        env::var_os("MILLE_ROOT")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let root = match given.map(Path::to_path_buf).or_else(from_environment) {
        Some(root) => std::path::absolute(&root).map_err(Error::io("resolve", &root))?,
        None if real_root => PathBuf::from("/var/lib/mille"),
        None => data_home()?.join("mille"),
    };
    let unusable = |reason: &dyn std::fmt::Display| Error::RunDirectory {
        path: root.clone(),
        reason: format!(
            "cannot be the store: {reason}: choose another place with --root or MILLE_ROOT"
        ),
    };
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent).map_err(|error| {
            unusable(&format!("create directory {}: {error}", parent.display()))
        })?;
    }
    // What others could enter they could execute set-id programs of images in.
    let mode = if weaken::is_open(Hole::StoreMode) {
        0o755
    } else {
        0o700
    };
    match files::make_directory(&root, mode) {
        Err(Error::Io { source, .. }) => return Err(unusable(&source)),
        other => other?,
    };
    let meta = fs::metadata(&root).map_err(Error::io("stat", &root))?;
    if !meta.is_dir() {
        return Err(unusable(&"it is not a directory"));
    }
    // Somebody else's store could be read here but never rightly written.
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        let reason = "this store belongs to another user: choose your own with --root".to_owned();
        return Err(Error::RunDirectory { path: root, reason });
    }
    Ok(root)
}

fn data_home() -> Result<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(path) = absolute("XDG_DATA_HOME") {
        return Ok(path);
    }
    let own = || mille_sandbox::account(nix::unistd::geteuid().as_raw());
    let home = absolute("HOME").or_else(|| own().map(|account| account.home));
    let home = home.ok_or_else(|| {
        Error::Invalid("no home directory is known: give --root or set HOME".to_owned())
    })?;
    Ok(home.join(".local/share"))
}
