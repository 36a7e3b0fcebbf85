//! Runs a command in a directory: `sandbox [options] ROOTFS COMMAND…`, or in a running container: `sandbox --exec PID
//! [options] COMMAND…`. The tests drive it, as root and as an ordinary user.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]

use mille_sandbox::host::Host;
use mille_sandbox::outer::{self, OuterMode, Wish};
use mille_sandbox::{
    CapSet, ExecSpec, IdMaps, Mount, MountKind, MountOptions, Network, Plan, Propagation, Rlimit,
    Spec, Stdio,
};
use nix::unistd::Pid;
use rustix::fd::{AsFd, OwnedFd};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;

/// What the options say.
#[derive(Default)]
struct Options {
    exec: Option<i32>,
    rootless: Option<Wish>,
    join: Option<i32>,
    hold: bool,
    inspect: bool,
    rest: Vec<OsString>,
    edits: Vec<(String, String)>,
}

fn parse() -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        let Some(name) = arg.to_str().and_then(|text| text.strip_prefix("--")) else {
            options.rest.push(arg);
            options.rest.extend(args);
            break;
        };
        let mut value = || {
            args.next()
                .and_then(|v| v.into_string().ok())
                .ok_or("missing value")
        };
        match name {
            "exec" => options.exec = Some(value()?.parse().map_err(|_| "bad pid")?),
            "rootless" => {
                options.rootless = Some(match value()?.as_str() {
                    "one" => Wish::OneId,
                    "range" => Wish::Range,
                    _ => Wish::Auto,
                });
            }
            "join" => options.join = Some(value()?.parse().map_err(|_| "bad pid")?),
            "hold" => options.hold = true,
            "inspect" => options.inspect = true,
            "tty" | "ro" | "nnp" | "privileged" | "net-none" | "userns" | "pid-host" => {
                options.edits.push((name.to_owned(), String::new()));
            }
            _ => {
                let value = value()?;
                options.edits.push((name.to_owned(), value));
            }
        }
    }
    Ok(options)
}

fn edit_spec(spec: &mut Spec, edits: &[(String, String)]) -> Result<(), String> {
    spec.env = vec!["PATH=/usr/bin:/bin".into()];
    for (name, value) in edits {
        match name.as_str() {
            "tty" => spec.terminal = true,
            "ro" => spec.readonly_rootfs = true,
            "nnp" => spec.no_new_privileges = true,
            "privileged" => spec.privileged = true,
            "net-none" => spec.network = Network::None,
            "userns" => spec.user_namespace = Some(IdMaps::Identity),
            "pid-host" => spec.shared.pid = true,
            "user" => spec.user.clone_from(value),
            "group-add" => spec.extra_groups.push(value.clone()),
            "cwd" => spec.cwd = value.into(),
            "env" => spec.env.push(value.into()),
            "hostname" => spec.hostname = Some(value.clone()),
            "sysctl" => {
                let (key, value) = value.split_once('=').ok_or("sysctl k=v")?;
                spec.sysctls.push((key.to_owned(), value.to_owned()));
            }
            "nofile" => {
                let limit = value.parse().map_err(|_| "bad limit")?;
                let (soft, hard) = (Some(limit), Some(limit));
                spec.rlimits.push(Rlimit {
                    name: "nofile".to_owned(),
                    soft,
                    hard,
                });
            }
            "cgroup" => {
                spec.cgroup
                    .get_or_insert_default()
                    .procs_files
                    .push(value.into());
            }
            "bind" | "bind-ro" => {
                let (source, target) = value.split_once(':').ok_or("source:target")?;
                let propagation = Propagation::Private;
                spec.mounts.push(Mount {
                    target: target.into(),
                    kind: MountKind::Bind {
                        source: source.into(),
                        recursive: true,
                        propagation,
                    },
                    options: MountOptions {
                        readonly: name == "bind-ro",
                        ..Default::default()
                    },
                });
            }
            "tmpfs" => spec.mounts.push(Mount {
                target: value.into(),
                kind: MountKind::Tmpfs {
                    size_bytes: None,
                    mode: None,
                    data: Vec::new(),
                },
                options: MountOptions {
                    readonly: false,
                    nosuid: true,
                    nodev: true,
                    noexec: true,
                },
            }),
            other => return Err(format!("unknown option --{other}")),
        }
    }
    Ok(())
}

fn edit_exec(spec: &mut ExecSpec, edits: &[(String, String)]) -> Result<(), String> {
    spec.env = vec!["PATH=/usr/bin:/bin".into()];
    for (name, value) in edits {
        match name.as_str() {
            "tty" => spec.terminal = true,
            "privileged" => spec.privileged = true,
            "user" => spec.user.clone_from(value),
            "cwd" => spec.cwd = value.into(),
            "env" => spec.env.push(value.into()),
            "caps" => spec.capabilities = CapSet::from_bits(value.parse().map_err(|_| "caps")?),
            other => return Err(format!("unknown option --{other}")),
        }
    }
    Ok(())
}

/// Takes the three streams of this process.
fn own_streams() -> std::io::Result<Stdio> {
    Ok(Stdio {
        stdin: Some(std::io::stdin().as_fd().try_clone_to_owned()?),
        stdout: Some(std::io::stdout().as_fd().try_clone_to_owned()?),
        stderr: Some(std::io::stderr().as_fd().try_clone_to_owned()?),
    })
}

/// Copies the terminal's output to ours until it hangs up.
fn pump(pty: OwnedFd) {
    let mut pty = std::fs::File::from(pty);
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = pty.read(&mut buffer) {
        if std::io::stdout().write_all(&buffer[..len]).is_err() {
            break;
        }
    }
}

fn run() -> Result<u8, String> {
    let options = parse()?;
    if options.inspect {
        println!(
            "{:#?}",
            mille_sandbox::host::inspect().map_err(|error| error.to_string())?
        );
        return Ok(0);
    }
    if let Some(wish) = options.rootless {
        outer::enter(wish).map_err(|error| error.to_string())?;
    }
    if let Some(pid) = options.join {
        outer::join(Pid::from_raw(pid)).map_err(|error| error.to_string())?;
        let namespaces = outer::namespaces().map_err(|error| error.to_string())?;
        println!("{:?}", outer::current().map_err(|error| error.to_string())?);
        drop(namespaces);
    }
    let io = own_streams().map_err(|error| error.to_string())?;
    let prepared = if let Some(pid) = options.exec {
        let mut spec = ExecSpec::new(options.rest);
        edit_exec(&mut spec, &options.edits)?;
        mille_sandbox::prepare_exec(Pid::from_raw(pid), &spec, io)
    } else {
        let mut rest = options.rest.into_iter();
        let mut spec = Spec::new(rest.next().ok_or("no root")?, rest.collect());
        edit_spec(&mut spec, &options.edits)?;
        if !matches!(outer::current(), Ok(Some(OuterMode::Root))) {
            spec.user_namespace = Some(IdMaps::Identity);
        }
        let host = Host::probe().map_err(|error| error.to_string())?;
        let plan = Plan::new(&spec, &host).map_err(|error| error.to_string())?;
        mille_sandbox::prepare(&plan, io)
    };
    let mut prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("{error}");
            return Ok(u8::try_from(error.exit_code()).unwrap_or(125));
        }
    };
    for warning in prepared.warnings() {
        eprintln!("warning: {warning}");
    }
    if options.hold {
        println!("{}", prepared.pid());
        std::thread::sleep(std::time::Duration::from_secs(600));
    }
    let pty = prepared.take_pty();
    let mut child = match prepared.start() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{error}");
            return Ok(u8::try_from(error.exit_code()).unwrap_or(125));
        }
    };
    if std::env::var_os("SHOW_PID").is_some() {
        println!("{}", child.pid());
    }
    pty.into_iter().for_each(pump);
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(u8::try_from(status.code()).unwrap_or(255))
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(125)
        }
    }
}
