//! The suite: what must hold of the built programs. Names say what a test needs and when it runs:
//! `root_` needs uid 0, `user_` the ordinary user, `fuse_` /dev/fuse; `ci_` runs in CI and soak only, `soak_` in soak
//! only, everything else is quick.

mod at_host;
mod bad_input;
mod budget;
mod clients;
mod completion;
mod conformance;
mod copy;
mod crash;
mod crowd;
mod differential;
mod docker_engine;
mod durability;
mod faults;
mod full_disk;
mod golden;
mod housekeeping;
mod inspect;
mod life_cycle;
mod limits;
mod look;
mod messages;
mod mount_options;
mod mount_program;
mod namespaces;
mod one_id;
mod peers;
mod progress;
mod readers;
mod scale;
mod server;
mod server_calls;
mod sudden;
mod system_calls;
mod tidy;
mod volumes;
mod walkthrough;
