//! The only place of this crate with `unsafe`: one call per function, typed results, errors as the kernel gave them.

#![allow(
    unsafe_code,
    reason = "calls that nix and rustix lack, or offer as unsafe only"
)]

mod call;
mod process;

pub(crate) use call::{
    SetAttr, bring_loopback_up, close_from, close_on_exec_from, drop_from_bounding_set,
    install_seccomp, join_session_keyring, send_signal, set_mount_attributes,
};
pub(crate) use process::{
    CloneRequest, Forked, arrange_descriptors, clone_with_namespaces, exit_now, fork,
    reset_signal_handlers, unshare, wipe_arguments_and_environment,
};
