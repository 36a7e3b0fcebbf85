//! `mille doctor`: what this host offers, what mille will use of it, and the command that would improve it.

use std::process::ExitCode;

use clap::ArgMatches;
use mille_engine::host::{self, CgroupControl, Fuse, Mapper, Passthrough, ProcMount, Report};

use super::{Arity, Verb};
use crate::context::Context;
use crate::failure::{Failure, chain};
use crate::output;

/// `mille doctor`.
pub(crate) const VERB: Verb = Verb {
    name: "doctor",
    usage: "",
    about: "Show what this host offers, what mille will use, and what would improve it",
    arity: Arity::None,
    flags_first: false,
    flags: |command| command,
    run: doctor,
};

/// Serious enough that containers cannot run.
const CANNOT_RUN: u8 = 1;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Lesser,
    Bad,
}

/// One line, and what would improve it.
#[derive(Debug)]
struct Line {
    mark: Mark,
    what: &'static str,
    finding: String,
    fix: Option<String>,
}

impl Line {
    fn good(what: &'static str, finding: impl Into<String>) -> Self {
        Line {
            mark: Mark::Good,
            what,
            finding: finding.into(),
            fix: None,
        }
    }

    fn lesser(what: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Line {
            mark: Mark::Lesser,
            what,
            finding: finding.into(),
            fix: Some(fix.into()),
        }
    }

    fn bad(what: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Line {
            mark: Mark::Bad,
            ..Line::lesser(what, finding, fix)
        }
    }
}

fn doctor(_context: &Context, _matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let report = host::inspect().map_err(Failure::plain)?;
    let root = report.uid == 0;
    let mut lines = vec![kernel(&report), fuse(&report.fuse)];
    if report.fuse == Fuse::Usable {
        lines.push(passthrough(report.passthrough));
    }
    lines.push(user_namespaces(&report, root));
    if !root {
        lines.push(subordinate_ids(&report));
        lines.extend(
            [
                ("newuidmap", &report.newuidmap),
                ("newgidmap", &report.newgidmap),
            ]
            .map(|(name, mapper)| self::mapper(name, mapper)),
        );
        lines.extend(report.proc_mount.map(proc_mount));
    }
    lines.push(cgroups(&report));
    lines.push(overlay(&report));
    lines.extend(capabilities(&report, root));
    for line in &lines {
        let mark = match line.mark {
            Mark::Good => "ok ",
            Mark::Lesser => "-- ",
            Mark::Bad => "NO ",
        };
        output::emit(&format!("{mark}{:<16} {}\n", line.what, line.finding))?;
        if let Some(fix) = &line.fix {
            output::emit(&format!("   {:<16} {fix}\n", ""))?;
        }
    }
    let bad = lines.iter().any(|line| line.mark == Mark::Bad);
    output::emit(&format!("\n{}\n", summary(&report, root, bad)))?;
    Ok(if bad {
        ExitCode::from(CANNOT_RUN)
    } else {
        ExitCode::SUCCESS
    })
}

fn summary(report: &Report, root: bool, bad: bool) -> &'static str {
    match (bad, root, has_range(report)) {
        (true, _, _) => "Containers cannot run here until the lines marked NO are mended.",
        (false, true, _) => {
            "Containers run as root, without a user namespace, on a FUSE mount made directly."
        }
        (false, false, true) => {
            "Containers run in a user namespace with the range of ids above; the union is mounted inside it."
        }
        (false, false, false) => {
            "Containers run in a user namespace with one id; owners are kept beside the files (user.containers.override_stat)."
        }
    }
}

fn has_range(report: &Report) -> bool {
    !report.sub_ids.uids.is_empty() && !report.sub_ids.gids.is_empty()
}

fn kernel(report: &Report) -> Line {
    let version = &report.host.kernel;
    if report.host.kernel_is_new_enough() {
        return Line::good("kernel", version);
    }
    Line::bad(
        "kernel",
        format!("{version}: too old"),
        "run a newer kernel",
    )
}

fn fuse(fuse: &Fuse) -> Line {
    const WHAT: &str = "/dev/fuse";
    match fuse {
        Fuse::Usable => Line::good(WHAT, "usable"),
        Fuse::Missing => Line::bad(WHAT, "missing", "sudo modprobe fuse"),
        Fuse::Denied { mode, uid, gid } => {
            let finding = format!("not open to this user (mode {mode:04o}, owner {uid}:{gid})");
            Line::bad(WHAT, finding, "sudo chmod 0666 /dev/fuse")
        }
        Fuse::Impostor => {
            let (major, minor) = host::FUSE_NUMBER;
            let fix = format!("sudo rm {WHAT} && sudo mknod -m 666 {WHAT} c {major} {minor}");
            Line::bad(WHAT, "something else than the FUSE device", fix)
        }
        Fuse::Broken { reason } => Line::bad(WHAT, reason, "sudo modprobe fuse"),
    }
}

fn passthrough(passthrough: Passthrough) -> Line {
    const WHAT: &str = "passthrough";
    match passthrough {
        Passthrough::Likely => Line::good(WHAT, "file data goes straight to the layers"),
        Passthrough::OldKernel => Line::lesser(
            WHAT,
            "none: file data goes through the server",
            "run a kernel from 6.9 on",
        ),
        Passthrough::NotRoot => Line::lesser(
            WHAT,
            "none: the kernel grants it to root of the first user namespace only; file data is cached",
            "run as root where that matters",
        ),
    }
}

fn user_namespaces(report: &Report, root: bool) -> Line {
    const WHAT: &str = "user namespaces";
    match &report.user_namespaces {
        Ok(()) => Line::good(
            WHAT,
            if root {
                "allowed (not needed as root)"
            } else {
                "allowed"
            },
        ),
        Err(error) if root => Line::lesser(WHAT, "refused (not needed as root)", chain(error)),
        Err(error) => Line::bad(WHAT, "refused", chain(error)),
    }
}

fn subordinate_ids(report: &Report) -> Line {
    const WHAT: &str = "subuid, subgid";
    let count = |ranges: &[(u32, u32)]| {
        ranges
            .iter()
            .map(|(_, count)| u64::from(*count))
            .sum::<u64>()
    };
    if has_range(report) {
        let (uids, gids) = (count(&report.sub_ids.uids), count(&report.sub_ids.gids));
        return Line::good(WHAT, format!("{uids} user ids and {gids} group ids"));
    }
    Line::lesser(
        WHAT,
        "no range of ids for this user: one id only",
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
    )
}

fn mapper(name: &'static str, mapper: &Mapper) -> Line {
    match mapper {
        Mapper::Usable(path) => Line::good(name, path.display().to_string()),
        Mapper::Missing => Line::lesser(
            name,
            "not installed: one id only",
            "sudo apt-get install uidmap",
        ),
        Mapper::Powerless(path) => {
            let fix = format!("sudo chmod u+s {}", path.display());
            Line::lesser(
                name,
                format!("{} has no privilege: one id only", path.display()),
                fix,
            )
        }
    }
}

fn proc_mount(mount: ProcMount) -> Line {
    const WHAT: &str = "/proc inside";
    let fix =
        "outer container: run it with an unmasked /proc (--security-opt systempaths=unconfined)";
    match mount {
        ProcMount::Full => Line::good(WHAT, "a new one"),
        ProcMount::ProcessesOnly => Line::lesser(WHAT, "a new one with processes only", fix),
        ProcMount::HostOnly => {
            Line::lesser(WHAT, "the host's: process ids will be wrong inside", fix)
        }
    }
}

fn cgroups(report: &Report) -> Line {
    const WHAT: &str = "cgroups";
    match &report.cgroup_control {
        CgroupControl::Root => Line::good(WHAT, "usable as root"),
        CgroupControl::Delegated { controllers } => {
            Line::good(WHAT, format!("delegated: {}", controllers.join(" ")))
        }
        CgroupControl::ReadOnly => Line::lesser(
            WHAT,
            "not to be written by this user: no limits, and a commit cannot freeze its container",
            "log in through systemd with delegation, or run as root with all capabilities",
        ),
        CgroupControl::None => Line::lesser(
            WHAT,
            "not mounted",
            "sudo mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

fn overlay(report: &Report) -> Line {
    let there = if report.overlayfs {
        "there"
    } else {
        "not there"
    };
    Line::good("overlayfs", format!("{there}, and not needed"))
}

fn capabilities(report: &Report, root: bool) -> Option<Line> {
    if root && !host::can_mount() {
        return Some(Line::bad(
            "capabilities",
            "root without CAP_SYS_ADMIN: nothing can be mounted",
            "give it to the container or unit this shell runs in (--cap-add SYS_ADMIN), or be an ordinary user",
        ));
    }
    let missing: Vec<_> = report
        .missing_capabilities
        .iter()
        .map(ToString::to_string)
        .collect();
    let finding = format!("not to be had here: {}", missing.join(" "));
    (root && !missing.is_empty()).then(|| {
        Line::lesser(
            "capabilities",
            finding,
            "give them to the container or unit this shell runs in",
        )
    })
}
