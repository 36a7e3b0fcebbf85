//! From a container's record to the sandbox's spec.

use std::ffi::OsString;
use std::path::PathBuf;

use mille_sandbox::{
    CapSet, Capability, ExecSpec, IdMaps, Mount, MountKind, MountOptions, Network, Propagation,
    Rlimit, SharedNamespaces, Spec, WindowSize,
};

use mille_sandbox::weaken::{self, Hole};

use crate::container::Container;
use crate::devices;
use crate::error::{Error, Result};
use crate::hosts;
use crate::joining;
use crate::layout::Layout;
use crate::options::ExecOptions;
use crate::security::Security;

/// Docker's search path where the image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The IPC mode of a container that has no /dev/shm.
const WITHOUT_SHM: &str = "none";

/// Makes the spec of a container whose root is mounted.
///
/// # Errors
/// An option that does not parse; they were checked at creation, so only a record made by another version can fail.
pub(crate) fn spec(layout: &Layout, container: &Container, nested: bool) -> Result<Spec> {
    let (mut spec, security) = unfiltered(layout, container, nested)?;
    spec.mounts = mounts(layout, container)?;
    spec.joined = joining::joined(layout, container, nested)?;
    if !spec.joined.is_empty() {
        // Where there are user namespaces the other's is among them.
        spec.user_namespace = None;
    }
    spec.devices = devices::find(&container.host_config.resources.devices)?;
    spec.seccomp = security.filter(layout, spec.capabilities, spec.privileged);
    Ok(spec)
}

/// The spec without its seccomp filter, which is not needed to check it, and without its mounts and devices, which may not
/// be there yet.
fn unfiltered(layout: &Layout, container: &Container, nested: bool) -> Result<(Spec, Security)> {
    let host = &container.host_config;
    let config = &container.config;
    let args = std::iter::once(&container.path)
        .chain(&container.args)
        .map(OsString::from)
        .collect();
    let mut spec = Spec::new(layout.container(&container.id).merged(), args);
    spec.readonly_rootfs = host.readonly_rootfs;
    spec.env = environment(container);
    spec.cwd = PathBuf::from(&config.working_dir);
    spec.user.clone_from(&config.user);
    spec.extra_groups = host.group_add.clone().unwrap_or_default();
    spec.shared = shared(container)?;
    if !spec.shared.uts {
        spec.hostname = Some(config.hostname.clone());
        spec.domainname = Some(config.domainname.clone()).filter(|name| !name.is_empty());
    }
    spec.terminal = config.tty;
    let [rows, columns] = host.console_size;
    spec.window = (rows > 0 && columns > 0).then_some(WindowSize { rows, columns });
    spec.user_namespace = nested.then_some(IdMaps::Identity);
    spec.network = network(&host.network_mode)?;
    if let Some(masked) = &host.masked_paths
        && masked.len() != crate::DEFAULT_MASKED_PATHS.len()
    {
        spec.masked_paths = masked.iter().map(PathBuf::from).collect();
    }
    if let Some(readonly) = &host.readonly_paths {
        spec.readonly_paths = readonly.iter().map(PathBuf::from).collect();
    }
    let (capabilities, required) = capabilities(container)?;
    spec.capabilities = capabilities;
    spec.required_capabilities = required;
    spec.privileged = host.privileged;
    let security = security(container)?;
    spec.no_new_privileges = security.no_new_privileges;
    spec.rlimits = rlimits(container);
    spec.sysctls = host
        .sysctls
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    spec.oom_score_adj = i32::try_from(host.oom_score_adj)
        .ok()
        .filter(|score| *score != 0);
    spec.shm_size_bytes = u64::try_from(host.shm_size).unwrap_or_default();
    spec.without_shm = host.ipc_mode == WITHOUT_SHM;
    spec.session_keyring = Some(format!("_ses.{}", container.id));
    spec.init = host.init == Some(true);
    Ok((spec, security))
}

/// Makes the spec of one more command.
pub(crate) fn exec_spec(
    layout: &Layout,
    container: &Container,
    options: &ExecOptions,
) -> Result<ExecSpec> {
    let mut spec = ExecSpec::new(options.command.clone());
    let mut env = Environment::of(container, options.terminal);
    for entry in &options.env {
        env.set(entry.clone());
    }
    spec.env = env.entries;
    spec.cwd = options
        .workdir
        .clone()
        .unwrap_or_else(|| PathBuf::from(&container.config.working_dir));
    let user = options.user.clone().filter(|user| !user.is_empty());
    spec.user = user.unwrap_or_else(|| container.config.user.clone());
    spec.extra_groups = container.host_config.group_add.clone().unwrap_or_default();
    spec.terminal = options.terminal;
    spec.privileged = options.privileged || container.host_config.privileged;
    spec.capabilities = capabilities(container)?.0;
    let security = security(container)?;
    spec.no_new_privileges = security.no_new_privileges;
    spec.seccomp = security.filter(layout, spec.capabilities, spec.privileged);
    spec.rlimits = rlimits(container);
    spec.session_keyring = Some(format!("_ses.{}", container.id));
    Ok(spec)
}

/// Returns the environment in docker's order: PATH, HOSTNAME, TERM with a terminal, then the container's own.
fn environment(container: &Container) -> Vec<OsString> {
    Environment::of(container, container.config.tty).entries
}

/// An environment in which an entry that is set again keeps its place.
struct Environment {
    entries: Vec<OsString>,
}

impl Environment {
    fn of(container: &Container, terminal: bool) -> Self {
        let mut env = Self {
            entries: Vec::new(),
        };
        env.set(format!("PATH={DEFAULT_PATH}").into());
        env.set(format!("HOSTNAME={}", container.config.hostname).into());
        if terminal {
            env.set("TERM=xterm".into());
        }
        for (name, value) in container.config.environment() {
            env.set(format!("{name}={value}").into());
        }
        if weaken::is_open(Hole::ImageEnv) {
            let names = container.config.env.iter().flatten();
            for (name, value) in names.filter_map(|name| Some((name, std::env::var(name).ok()?))) {
                env.set(format!("{name}={value}").into());
            }
        }
        env
    }

    fn set(&mut self, entry: OsString) {
        let name_of = |entry: &OsString| -> Vec<u8> {
            entry
                .as_encoded_bytes()
                .split(|&byte| byte == b'=')
                .next()
                .unwrap_or_default()
                .to_vec()
        };
        let name = name_of(&entry);
        match self.entries.iter_mut().find(|known| name_of(known) == name) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
    }
}

/// Parses the network mode.
///
/// # Errors
/// [`Error::NoSuchNetwork`].
pub(crate) fn network(mode: &str) -> Result<Network> {
    match mode {
        "" | "default" | "host" => Ok(Network::Host),
        "none" => Ok(Network::None),
        // Entered, not made.
        other if joining::named(other).is_some() => Ok(Network::Host),
        other => Err(Error::NoSuchNetwork(other.to_owned())),
    }
}

fn shared(container: &Container) -> Result<SharedNamespaces> {
    let host = &container.host_config;
    let is_host = |what: &str, mode: &str| match mode {
        "host" => Ok(true),
        "" | "private" => Ok(false),
        mode if what != "UTS" && joining::named(mode).is_some() => Ok(false),
        other => Err(Error::Invalid(format!("Invalid {what} mode: {other}"))),
    };
    let ipc = match host.ipc_mode.as_str() {
        "shareable" | WITHOUT_SHM => false,
        mode => is_host("IPC", mode)?,
    };
    Ok(SharedNamespaces {
        pid: is_host("PID", &host.pid_mode)?,
        ipc,
        uts: is_host("UTS", &host.uts_mode)?,
        cgroup: is_host("cgroup", &host.cgroupns_mode)?,
    })
}

/// The engine's own files, then what the user binds, then temporary file systems; parents before what lies in them.
fn mounts(layout: &Layout, container: &Container) -> Result<Vec<Mount>> {
    // Names go with the network.
    let named_by = joining::network_donor(container);
    let paths = layout.container(named_by.as_ref().unwrap_or(&container.id));
    let readonly = MountOptions {
        readonly: container.host_config.readonly_rootfs,
        ..MountOptions::default()
    };
    let own = hosts::FILES.iter().map(|name| Mount {
        target: PathBuf::from("/etc").join(name),
        kind: MountKind::Bind {
            source: paths.etc(name),
            recursive: false,
            propagation: Propagation::Private,
        },
        options: readonly,
    });
    let mut theirs = Vec::new();
    for mount in &container.mounts {
        theirs.push(mount.sandboxed(layout)?);
    }
    for (target, options) in &container.host_config.tmpfs {
        theirs.push(tmpfs(target, options)?);
    }
    theirs.sort_by_key(|mount| mount.target.components().count());
    // A file of ours that the user mounts over is left out: his is the one that counts.
    let mut all: Vec<_> = own
        .filter(|mount| theirs.iter().all(|their| their.target != mount.target))
        .collect();
    all.append(&mut theirs);
    Ok(all)
}

/// Parses one `--tmpfs` entry: docker's defaults are rw, noexec, nosuid, nodev.
pub(crate) fn tmpfs(target: &str, options: &str) -> Result<Mount> {
    if !target.starts_with('/') {
        return Err(Error::Invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let mut flags = MountOptions {
        readonly: false,
        nosuid: true,
        nodev: true,
        noexec: true,
    };
    let (mut size_bytes, mut mode, mut data) = (None, None, Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let refused = || Error::Invalid(format!("invalid tmpfs option [{option:?}]"));
        match option.split_once('=') {
            None => match option {
                "ro" => flags.readonly = true,
                "rw" => flags.readonly = false,
                "suid" => flags.nosuid = false,
                "nosuid" => flags.nosuid = true,
                "dev" => flags.nodev = false,
                "nodev" => flags.nodev = true,
                "exec" => flags.noexec = false,
                "noexec" => flags.noexec = true,
                _ => return Err(refused()),
            },
            Some(("size", value)) => {
                size_bytes = Some(crate::logs::write::parse_size(value).ok_or_else(refused)?);
            }
            Some(("mode", value)) => {
                mode = Some(u32::from_str_radix(value, 8).map_err(|_| refused())?);
            }
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol", _)) => {
                data.push(option.to_owned());
            }
            Some(_) => return Err(refused()),
        }
    }
    Ok(Mount {
        target: PathBuf::from(target),
        kind: MountKind::Tmpfs {
            size_bytes,
            mode,
            data,
        },
        options: flags,
    })
}

/// Returns the capabilities to give, and those that were asked for by name.
///
/// # Errors
/// Docker's text for an unknown name.
pub(crate) fn capabilities(container: &Container) -> Result<(CapSet, CapSet)> {
    let host = &container.host_config;
    let parse = |what: &str, list: &Option<Vec<String>>| -> Result<(bool, CapSet)> {
        let (mut all, mut set) = (false, CapSet::EMPTY);
        for name in list.iter().flatten() {
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if bare == "ALL" {
                all = true;
                continue;
            }
            let known = Capability::from_name(bare).map_err(|_| {
                Error::Invalid(format!(
                    "invalid {what}: unknown capability: \"CAP_{bare}\""
                ))
            })?;
            set.insert(known);
        }
        Ok((all, set))
    };
    let (add_all, add) = parse("CapAdd", &host.cap_add)?;
    let (drop_all, drop) = parse("CapDrop", &host.cap_drop)?;
    let base = match (add_all, drop_all) {
        (true, _) => CapSet::ALL.difference(drop),
        (false, true) => CapSet::EMPTY,
        (false, false) => CapSet::DEFAULT.difference(drop),
    };
    Ok((base.union(add), add))
}

fn security(container: &Container) -> Result<Security> {
    Security::parse(
        container
            .host_config
            .security_opt
            .as_deref()
            .unwrap_or_default(),
    )
}

fn rlimits(container: &Container) -> Vec<Rlimit> {
    let limits = container.host_config.resources.ulimits.iter();
    // docker writes -1 for unlimited.
    let limit = |value: i64| u64::try_from(value).ok();
    limits
        .map(|one| Rlimit {
            name: one.name.clone(),
            soft: limit(one.soft),
            hard: limit(one.hard),
        })
        .collect()
}

/// Checks everything [`spec`] will need, before a container is made of it.
pub(crate) fn check(layout: &Layout, container: &Container) -> Result<()> {
    let directory = &container.config.working_dir;
    if !directory.is_empty() && !directory.starts_with('/') {
        return Err(Error::RelativeWorkdir(directory.clone()));
    }
    if !container.config.stop_signal.is_empty() {
        crate::signals::parse(&container.config.stop_signal)?;
    }
    unfiltered(layout, container, false)?;
    for (target, options) in &container.host_config.tmpfs {
        tmpfs(target, options)?;
    }
    crate::logs::write::rotation(&container.host_config.log_config)?;
    crate::restart::check(&container.host_config.restart_policy)?;
    crate::health::check(container.config.healthcheck.as_ref())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::sample;

    #[test]
    fn environment_is_in_dockers_order_and_overriding_keeps_the_place() {
        let mut container = sample();
        container.config.hostname = "h".into();
        container.config.tty = true;
        container.config.env = Some(vec![
            "A=1".into(),
            "PATH=/only".into(),
            "B=x y".into(),
            "A=2".into(),
        ]);
        let want = ["PATH=/only", "HOSTNAME=h", "TERM=xterm", "A=2", "B=x y"];
        assert_eq!(environment(&container), want);
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let mut container = sample();
        container.host_config.cap_drop = Some(vec!["ALL".into()]);
        container.host_config.cap_add = Some(vec!["net_admin".into()]);
        let (set, required) = capabilities(&container).unwrap();
        assert_eq!((set, set.iter().count()), (required, 1));
        container.host_config.cap_add = Some(vec!["frob".into()]);
        let error = capabilities(&container).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid CapAdd: unknown capability: \"CAP_FROB\""
        );
    }

    #[test]
    fn tmpfs_options() {
        let mount = tmpfs("/x", "size=1m,mode=700,exec").unwrap();
        assert!(!mount.options.noexec && mount.options.nosuid);
        let want = MountKind::Tmpfs {
            size_bytes: Some(1 << 20),
            mode: Some(0o700),
            data: vec![],
        };
        assert_eq!(mount.kind, want);
        assert_eq!(
            tmpfs("/x", "frob").unwrap_err().to_string(),
            "invalid tmpfs option [\"frob\"]"
        );
    }
}
