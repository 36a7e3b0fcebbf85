//! The life of a container: create, start, exec, stop, commit, export, remove.
//!
//! The engine joins the store (images and layers), the union (a container's root) and the sandbox (its processes).
//! There is no daemon: each running container has one monitor process of its own, forked from the command that starts
//! it; everything a later command must know lies in small files. The library never touches the terminal beyond the
//! descriptors it is given.

mod chain;
mod changes;
mod channel;
mod commit;
mod container;
mod container_mounts;
mod copy;
mod create;
mod devices;
mod engine;
mod error;
mod events;
mod exec;
mod exec_events;
mod exec_records;
mod files;
mod filters;
mod freeze;
mod fuse_device;
mod health;
mod host_config;
mod hosts;
mod ids;
mod images;
mod init_layer;
mod inspect;
mod joining;
mod launch;
mod layout;
mod limits;
mod lock;
mod logs;
mod message;
mod monitor;
mod mount_spec;
mod mounts;
mod names;
mod open;
mod options;
mod pause;
mod process;
mod records;
mod relay;
mod removal;
mod restart;
mod rootfs;
mod run_directory;
mod security;
mod served;
mod session;
mod signals;
mod start;
mod state;
mod stop;
mod stragglers;
mod sys;
mod terminal;
mod update;
mod usage;
mod volumes;
mod words;
mod workdir;

pub use container::{Container, Ground};
pub use container_mounts::{ContainerMount, MountPoint, MountType};
pub use copy::CopyOptions;
pub use devices::DeviceMapping;
pub use engine::{Difference, DifferenceKind, Engine, Mode, Sizes};
pub use error::{Error, Result};
pub use events::{Event, EventOptions};
pub use health::{Health, ProbeResult};
pub use host_config::{
    DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, DEFAULT_SHM_SIZE_BYTES, HostConfig, LogConfig,
    Resources, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};
pub use ids::ContainerId;
pub use inspect::{Endpoint, GraphData, GraphDriver, Inspect, NetworkSettings};
pub use logs::{LogLine, LogStream};
/// What this machine offers, tried out: for `doctor`.
pub use mille_sandbox::{IPC_SYSCTLS, host, outer, run_sealed};
pub use mille_store::Removed;
pub use mount_spec::{BindOptions, DriverConfig, MountSpec, TmpfsOptions, VolumeMountOptions};
pub use options::{
    Access, ClientIo, CommitOptions, CreateOptions, DEFAULT_DETACH_KEYS, Ended, EngineOptions,
    ExecOptions, HOST_BASE, LogOptions, MountSource, RemoveImageOptions, RemoveOptions,
    StartOptions, StopOptions, Streams,
};
pub use session::Session;
pub use state::{NEVER, State, Status};
pub use terminal::terminal_size;
pub use update::UpdateOptions;
pub use usage::Usage;
pub use volumes::{PrunedVolumes, Volume, VolumeOptions};
