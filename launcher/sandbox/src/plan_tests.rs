//! Table tests of [`super::Plan`]: what is there, and in which order.

use super::*;
use crate::{Capability, MountOptions, SharedNamespaces};

fn host() -> Host {
    let all = vec![IdMap {
        inside: 0,
        outside: 0,
        count: u32::MAX,
    }];
    Host {
        kernel: "6.1.0".to_owned(),
        capabilities: CapSet::ALL,
        initial_user_namespace: true,
        uid_map: all.clone(),
        gid_map: all,
        set_groups: true,
        cgroups: Cgroups::V2,
    }
}

fn rootless() -> Host {
    let range = vec![
        IdMap {
            inside: 0,
            outside: 1000,
            count: 1,
        },
        IdMap {
            inside: 1,
            outside: 100_000,
            count: 65536,
        },
    ];
    Host {
        initial_user_namespace: false,
        uid_map: range.clone(),
        gid_map: range,
        ..host()
    }
}

fn spec() -> Spec {
    Spec::new("/root/fs", vec!["true".into()])
}

fn plan(spec: &Spec) -> Plan {
    Plan::new(spec, &host()).unwrap()
}

/// Returns the names of the steps.
fn names(plan: &Plan) -> Vec<String> {
    let name = |step: &Step| {
        let text = format!("{step:?}");
        text.split([' ', '(', '{'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    plan.steps.iter().map(name).collect()
}

fn position(names: &[String], name: &str) -> usize {
    names
        .iter()
        .position(|n| n == name)
        .unwrap_or_else(|| panic!("no step {name} in {names:?}"))
}

fn filter() -> SeccompProgram {
    SeccompProgram {
        instructions: Vec::new(),
        flags: 0,
    }
}

fn bind(target: &str) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Bind {
            source: "/src".into(),
            recursive: true,
            propagation: Propagation::Private,
        },
        options: MountOptions::default(),
    }
}

#[test]
fn the_plain_plan() {
    let want = [
        "CgroupNamespace",
        "DetachMounts",
        "Stage",
        "Proc",
        "Dev",
        "Devices",
        "DevLinks",
        "Pts",
        "Ipc",
        "Sys",
        "Cgroups",
        "Root",
        "ReadonlyPaths",
        "MaskedPaths",
        "Pivot",
        "Keyring",
        "Session",
        "Identity",
        "Streams",
        "EnterCwd",
        "BoundingSet",
        "SwitchUser",
        "Capabilities",
        "Execute",
    ];
    assert_eq!(names(&plan(&spec())), want);
}

/// First, then, why.
const ORDER: &[(&str, &str, &str)] = &[
    (
        "CgroupNamespace",
        "Cgroups",
        "the mount shows the namespace's root",
    ),
    (
        "DetachMounts",
        "Stage",
        "nothing may be mounted on the host",
    ),
    ("Stage", "Proc", "targets are resolved in the stage"),
    (
        "Cgroups",
        "Root",
        "what is on the stage is attached to the root as a whole",
    ),
    ("Root", "Mount", "targets are resolved in the root"),
    ("Dev", "Devices", "nodes lie in /dev"),
    (
        "Pts",
        "Terminal",
        "the terminal is made in the container's devpts",
    ),
    ("Mount", "MakeCwd", "the directory may lie in a volume"),
    (
        "Mount",
        "MaskedPaths",
        "a volume must not uncover what is masked",
    ),
    ("Mount", "ReadonlyPaths", "same"),
    ("Proc", "Sysctl", "it is written through the new /proc"),
    ("Sysctl", "ReadonlyPaths", "/proc/sys becomes read-only"),
    (
        "MakeCwd",
        "ReadonlyRoot",
        "a directory cannot be made later",
    ),
    ("ReadonlyRoot", "Pivot", "all mounts are done before"),
    ("MaskedPaths", "Pivot", "the null device is the host's"),
    (
        "Pivot",
        "Identity",
        "the files of the container are read with the host out of reach",
    ),
    ("Pivot", "EnterCwd", "same"),
    (
        "Session",
        "Streams",
        "the terminal takes the place of the streams",
    ),
    ("Identity", "Streams", "the owner must be known"),
    ("Rlimits", "SwitchUser", "raising needs root"),
    ("EnterCwd", "SwitchUser", "docker enters it as root"),
    (
        "Seccomp",
        "BoundingSet",
        "without no_new_privs it needs CAP_SYS_ADMIN",
    ),
    ("BoundingSet", "SwitchUser", "dropping needs CAP_SETPCAP"),
    ("SwitchUser", "Capabilities", "a change of user clears them"),
    ("Capabilities", "Execute", "last"),
];

#[test]
fn order_of_everything() {
    let everything = Spec {
        terminal: true,
        hostname: Some("h".to_owned()),
        domainname: Some("d".to_owned()),
        network: Network::None,
        sysctls: vec![("net.ipv4.ip_forward".to_owned(), "1".to_owned())],
        cwd: "/w".into(),
        readonly_rootfs: true,
        mounts: vec![bind("/a")],
        rlimits: vec![Rlimit {
            name: "nofile".to_owned(),
            soft: Some(1),
            hard: Some(1),
        }],
        seccomp: Some(filter()),
        ..spec()
    };
    let names = names(&plan(&everything));
    for (first, then, why) in ORDER {
        assert!(
            position(&names, first) < position(&names, then),
            "{first} before {then}: {why}"
        );
    }
}

#[test]
fn seccomp_comes_last_with_no_new_privileges() {
    let spec = Spec {
        seccomp: Some(filter()),
        no_new_privileges: true,
        ..spec()
    };
    let plan = plan(&spec);
    assert!(!names(&plan).contains(&"Seccomp".to_owned()));
    assert!(matches!(
        plan.steps.last(),
        Some(Step::Execute {
            seccomp: Some(_),
            ..
        })
    ));
    assert!(position(&names(&plan), "NoNewPrivileges") < position(&names(&plan), "Execute"));
}

#[test]
fn privileged_masks_nothing() {
    let plan = plan(&Spec {
        privileged: true,
        ..spec()
    });
    let names = names(&plan);
    assert!(
        !names
            .iter()
            .any(|name| name == "MaskedPaths" || name == "ReadonlyPaths")
    );
    assert!(plan.steps.contains(&Step::Sys { readonly: false }));
    assert!(plan.steps.contains(&Step::Capabilities(CapSet::ALL)));
}

#[test]
fn namespaces_are_new_unless_shared() {
    use libc::{
        CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME, CLONE_NEWUSER,
        CLONE_NEWUTS,
    };
    let base = CLONE_NEWNS | CLONE_NEWTIME;
    let all_shared = SharedNamespaces {
        pid: true,
        ipc: true,
        uts: true,
        cgroup: true,
    };
    for (given, want) in [
        (spec(), base | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS),
        (
            Spec {
                shared: all_shared,
                ..spec()
            },
            base,
        ),
        (
            Spec {
                network: Network::None,
                user_namespace: Some(IdMaps::Identity),
                ..spec()
            },
            base | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWUSER,
        ),
    ] {
        assert_eq!(plan(&given).namespaces, u64::from(want.cast_unsigned()));
    }
    let shared = plan(&Spec {
        shared: all_shared,
        hostname: Some("x".to_owned()),
        ..spec()
    });
    assert!(!names(&shared).contains(&"CgroupNamespace".to_owned()));
    assert!(
        !names(&shared).contains(&"Hostname".to_owned()),
        "it would rename the host"
    );
}

#[test]
fn a_nested_namespace_maps_every_id_to_itself() {
    let spec = Spec {
        user_namespace: Some(IdMaps::Identity),
        ..spec()
    };
    let plan = Plan::new(&spec, &rootless()).unwrap();
    let text = plan.id_map.unwrap();
    assert_eq!(text.uids, "0 0 1\n1 1 65536\n");
    assert_eq!(text.gids, text.uids);
    assert!(plan.steps.contains(&Step::Pts { gid: Some(5) }));
    let nodes = plan.steps.iter().find_map(|step| match step {
        Step::Devices { nodes, .. } => Some(*nodes),
        _ => None,
    });
    assert_eq!(nodes, Some(Nodes::Bind));
}

#[test]
fn one_id_has_no_tty_group() {
    let one = vec![IdMap {
        inside: 0,
        outside: 1000,
        count: 1,
    }];
    let host = Host {
        uid_map: one.clone(),
        gid_map: one,
        set_groups: false,
        ..rootless()
    };
    let spec = Spec {
        user_namespace: Some(IdMaps::Identity),
        ..spec()
    };
    let plan = Plan::new(&spec, &host).unwrap();
    assert!(plan.steps.contains(&Step::Pts { gid: None }));
    assert!(plan.steps.contains(&Step::SwitchUser {
        set_groups: false,
        groups_wanted: false
    }));
}

fn with(edit: impl FnOnce(&mut Spec)) -> Spec {
    let mut spec = spec();
    edit(&mut spec);
    spec
}

fn sysctl(name: &str, network: Network) -> Spec {
    with(|s| {
        s.network = network;
        s.sysctls.push((name.to_owned(), "1".to_owned()));
    })
}

/// Specs of which no plan can be made, and how the reason starts.
fn refused() -> Vec<(Spec, &'static str)> {
    let limit = Rlimit {
        name: "frob".to_owned(),
        soft: None,
        hard: None,
    };
    let resource_only: CapSet = [Capability::SYS_RESOURCE].into_iter().collect();
    vec![
        (with(|s| s.args.clear()), "no command specified"),
        (
            with(|s| s.cwd = "relative".into()),
            "the working directory 'relative' is invalid, it needs to be an absolute path",
        ),
        (
            with(|s| s.args.push("a\0b".into())),
            "an argument contains a NUL byte",
        ),
        (
            with(|s| s.env.push("a\0b".into())),
            "an environment variable contains a NUL byte",
        ),
        (
            with(|s| s.mounts.push(bind("/a/.."))),
            "invalid mount: destination can't be '/'",
        ),
        (
            with(|s| s.mounts.push(bind("x"))),
            "the mount target \"x\" is not an absolute path",
        ),
        (
            sysctl("net.ipv4.ip_forward", Network::Host),
            "sysctl \"net.ipv4.ip_forward\" is not in a separate kernel namespace",
        ),
        (
            sysctl("kernel.core_pattern", Network::None),
            "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace",
        ),
        (
            sysctl("net.../../kernel/core_pattern", Network::None),
            "sysctl \"net.../../kernel/core_pattern\" is not in a separate kernel namespace",
        ),
        (with(|s| s.rlimits.push(limit)), "invalid ulimit type: frob"),
        (
            with(|s| s.hostname = Some("h".repeat(65))),
            "invalid hostname",
        ),
        (
            with(|s| s.required_capabilities = resource_only),
            "capability CAP_SYS_RESOURCE is not available on this host",
        ),
    ]
}

#[test]
fn refused_specs() {
    for (given, want) in refused() {
        let mut host = host();
        host.capabilities.remove(Capability::SYS_RESOURCE);
        let error = Plan::new(&given, &host).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }
    let old = Host {
        kernel: "5.10.0-8-amd64".to_owned(),
        ..host()
    };
    assert!(matches!(
        Plan::new(&spec(), &old),
        Err(PlanError::Kernel { .. })
    ));
}

#[test]
fn exec_touches_no_mount() {
    let spec = ExecSpec {
        terminal: true,
        ..ExecSpec::new(vec!["sh".into()])
    };
    let steps = exec_steps(&spec, true).unwrap();
    let plan = Plan {
        rootfs: PathBuf::from("/"),
        steps,
        namespaces: 0,
        joined: Vec::new(),
        id_map: None,
        cgroup: None,
        oom_score_adj: None,
    };
    let want = [
        "Terminal",
        "Keyring",
        "Session",
        "Identity",
        "Streams",
        "EnterCwd",
        "BoundingSet",
        "SwitchUser",
        "Capabilities",
        "Execute",
    ];
    assert_eq!(names(&plan), want);
}
