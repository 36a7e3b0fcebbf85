//! Who the command is: user, groups, capabilities, limits, the owner of its streams, where it starts.

use super::{Context, Executor};
use crate::plan::resource;
use crate::weaken::{self, Hole};
use crate::{CapSet, Failure, Rlimit, Warning, sys, user};
use rustix::fs::{FileType, Gid, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::Rlimit as Limit;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::path::Path;

/// Takes everything that is not in `keep` out of the bounding set.
pub(super) fn cut_bounding_set(keep: CapSet) -> Result<(), Failure> {
    for capability in CapSet::from_bits(!keep.bits()).iter() {
        match sys::drop_from_bounding_set(capability.number()) {
            Ok(()) => {}
            // Past the last capability of this kernel.
            Err(Errno::INVAL) => break,
            Err(errno) => {
                let operation = format!("drop {capability} from the bounding set");
                return Err(Failure::system(operation, None, errno));
            }
        }
    }
    Ok(())
}

/// Some filesystems and id maps do not let a stream change hands; then it just cannot be opened again by name.
fn ignore_refused_chown(result: Result<(), Errno>) {
    match result {
        Ok(()) | Err(_) => {}
    }
}

impl Executor {
    pub(super) fn resolve_identity(
        &mut self,
        user: &str,
        extra_groups: &[String],
    ) -> Result<(), Failure> {
        let root = self.root()?;
        let passwd = root.read_account_file("/etc/passwd")?;
        let group = root.read_account_file("/etc/group")?;
        self.identity = match user::resolve(user, extra_groups, &passwd, &group) {
            Err(_) if weaken::is_open(Hole::User) => self.identity.clone(),
            other => other?,
        };
        Ok(())
    }

    /// Gives pipes and our own terminal to the user. Files and terminals of the caller keep their owner.
    pub(super) fn give_streams(&mut self) -> Result<(), Failure> {
        let is_ours = self.tty.take().is_some();
        let streams = [
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
            rustix::stdio::stderr(),
        ];
        for stream in streams {
            let stat = rustix::fs::fstat(stream).during("inspect the streams")?;
            let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
            if (is_pipe || is_ours) && stat.st_uid != self.identity.uid {
                let uid = Uid::from_raw(self.identity.uid);
                ignore_refused_chown(rustix::fs::fchown(stream, Some(uid), None));
            }
        }
        Ok(())
    }

    pub(super) fn set_limits(&mut self, limits: &[Rlimit]) -> Result<(), Failure> {
        for limit in limits {
            let Some(which) = resource(&limit.name) else {
                continue;
            };
            let wanted = Limit {
                current: limit.soft,
                maximum: limit.hard,
            };
            match rustix::process::setrlimit(which, wanted) {
                Err(Errno::PERM) => {}
                other => {
                    other.during(&format!("set the limit {}", limit.name))?;
                    continue;
                }
            }
            let ceiling = rustix::process::getrlimit(which)
                .maximum
                .unwrap_or(u64::MAX);
            let lower = |value: Option<u64>| Some(value.unwrap_or(u64::MAX).min(ceiling));
            let clamped = Limit {
                current: lower(limit.soft),
                maximum: lower(limit.hard),
            };
            rustix::process::setrlimit(which, clamped)
                .during(&format!("set the limit {}", limit.name))?;
            self.warn(Warning::RlimitClamped {
                name: limit.name.clone(),
                wanted: limit.hard.unwrap_or(u64::MAX),
                got: ceiling,
            });
        }
        Ok(())
    }

    /// Enters the working directory by a descriptor resolved in the root, without links of procfs: `/proc/self/fd/N`
    /// could be a directory of the host.
    pub(super) fn enter_cwd(&mut self, path: &Path) -> Result<(), Failure> {
        let failed = |errno: Errno| Failure::Chdir {
            cwd: path.to_owned(),
            errno: errno.raw_os_error(),
        };
        if weaken::is_open(Hole::Cwd) {
            return rustix::process::chdir(path).map_err(failed);
        }
        let opened = self.root()?.open(path, OFlags::PATH | OFlags::DIRECTORY);
        match opened.and_then(rustix::process::fchdir) {
            Ok(()) => {}
            Err(Errno::ACCESS) if self.pending_cwd.is_none() => {
                self.pending_cwd = Some(path.to_owned());
                return Ok(());
            }
            Err(errno) => return Err(failed(errno)),
        }
        // The kernel's getcwd says "(unreachable)/…" for a directory outside the root.
        let cwd = rustix::process::getcwd(Vec::new()).map_err(failed)?;
        if cwd.as_bytes().first() == Some(&b'/') {
            Ok(())
        } else {
            Err(Failure::CwdOutside {
                cwd: path.to_owned(),
            })
        }
    }

    pub(super) fn switch_user(
        &mut self,
        set_groups: bool,
        groups_wanted: bool,
    ) -> Result<(), Failure> {
        let (uid, gid) = (self.identity.uid, self.identity.gid);
        if set_groups && !weaken::is_open(Hole::Groups) {
            let groups: Vec<Gid> = self
                .identity
                .groups
                .iter()
                .map(|group| Gid::from_raw(*group))
                .collect();
            match rustix::thread::set_thread_groups(&groups) {
                Err(Errno::INVAL) => return Err(unmapped_group(&groups)),
                other => other.during("set the supplementary groups")?,
            }
        } else if groups_wanted {
            self.warn(Warning::Groups);
        }
        let raw_gid = Gid::from_raw(gid);
        match rustix::thread::set_thread_res_gid(raw_gid, raw_gid, raw_gid) {
            Err(Errno::INVAL) => return Err(not_mapped("gid", gid)),
            other => other.during("set the group")?,
        }
        let raw_uid = Uid::from_raw(uid);
        match rustix::thread::set_thread_res_uid(raw_uid, raw_uid, raw_uid) {
            Err(Errno::INVAL) => return Err(not_mapped("uid", uid)),
            other => other.during("set the user")?,
        }
        match self.pending_cwd.clone() {
            Some(path) => self.enter_cwd(&path),
            None => Ok(()),
        }
    }

    /// Gives root what it may have; another user has nothing, as after any change from root to a user.
    pub(super) fn set_capabilities(&mut self, wanted: CapSet) -> Result<(), Failure> {
        let given = if self.identity.uid == 0 {
            let has = rustix::thread::capabilities(None).during("read the capabilities")?;
            CapabilitySet::from_bits_retain(wanted.bits()) & has.permitted
        } else {
            CapabilitySet::empty()
        };
        rustix::thread::clear_ambient_capability_set().during("clear the ambient capabilities")?;
        let sets = CapabilitySets {
            effective: given,
            permitted: given,
            inheritable: if weaken::is_open(Hole::Inheritable) {
                given
            } else {
                CapabilitySet::empty()
            },
        };
        rustix::thread::set_capabilities(None, sets).during("set the capabilities")
    }
}

fn not_mapped(kind: &str, id: u32) -> Failure {
    Failure::IdNotMapped {
        kind: kind.to_owned(),
        id,
    }
}

/// Finds the group `setgroups` refused.
fn unmapped_group(groups: &[Gid]) -> Failure {
    let refused = |group: &&Gid| rustix::thread::set_thread_groups(&[**group]) == Err(Errno::INVAL);
    let id = groups
        .iter()
        .find(refused)
        .map_or(0, |group| group.as_raw());
    not_mapped("gid", id)
}
