//! `mille info`: what there is and where.

use std::fs;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{Engine, Mode, Status};
use serde::Serialize;

use super::version::formatted;
use super::{Arity, Verb};
use crate::arguments::{self, value};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Tree;
use crate::output::template::Missing;
use crate::output::{self, human};

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "info",
    usage: "[OPTIONS]",
    about: "Display system-wide information",
    arity: Arity::None,
    flags_first: false,
    flags: |command: Command| {
        command.arg(value(
            "format",
            Some('f'),
            "string",
            "Format output: json or a Go template",
        ))
    },
    run,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What docker's info shows, as far as there is such a thing here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Facts {
    containers: usize,
    containers_running: usize,
    containers_paused: usize,
    containers_stopped: usize,
    images: usize,
    driver: &'static str,
    driver_status: Vec<(&'static str, String)>,
    logging_driver: &'static str,
    cgroup_version: &'static str,
    kernel_version: String,
    operating_system: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: String,
    #[serde(rename = "NCPU")]
    ncpu: usize,
    mem_total: u64,
    docker_root_dir: String,
    name: String,
    server_version: &'static str,
    security_options: Vec<&'static str>,
    client_info: ClientInfo,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ClientInfo {
    debug: bool,
    version: &'static str,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let format = arguments::text(matches, "format").unwrap_or_default();
    let facts = facts(&context.records()?)?;
    let text = if format.is_empty() {
        text(&facts)
    } else {
        formatted(
            "",
            format,
            Missing::Field("system.dockerInfo"),
            &Tree::of(&facts)?,
        )?
    };
    output::emit(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn facts(engine: &Engine) -> Result<Facts, Failure> {
    let containers = engine.containers()?;
    let count = |status: &[Status]| {
        containers
            .iter()
            .filter(|container| status.contains(&container.state.status))
            .count()
    };
    let (running, paused) = (
        count(&[Status::Running, Status::Restarting]),
        count(&[Status::Paused]),
    );
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let memory = rustix::system::sysinfo();
    Ok(Facts {
        containers: containers.len(),
        containers_running: running,
        containers_paused: paused,
        containers_stopped: containers.len() - running - paused,
        images: engine.store().images()?.len(),
        driver: "mille",
        driver_status: vec![
            ("Backing Filesystem", backing(engine)),
            ("Mode", mode(engine.mode()).to_owned()),
        ],
        logging_driver: "json-file",
        cgroup_version: if fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false) {
            "2"
        } else {
            "1"
        },
        kernel_version: text(uname.release()),
        operating_system: operating_system(
            &fs::read_to_string("/etc/os-release").unwrap_or_default(),
        ),
        os_type: "linux",
        architecture: text(uname.machine()),
        ncpu: std::thread::available_parallelism().map_or(1, usize::from),
        mem_total: memory.totalram * u64::from(memory.mem_unit),
        docker_root_dir: engine.root().to_string_lossy().into_owned(),
        name: text(uname.nodename()),
        server_version: VERSION,
        security_options: if engine.mode() == Mode::Root {
            vec!["name=seccomp,profile=builtin"]
        } else {
            vec!["name=seccomp,profile=builtin", "name=rootless"]
        },
        client_info: ClientInfo {
            debug: false,
            version: VERSION,
        },
    })
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Root => "root",
        Mode::Range => "rootless, subordinate ids",
        Mode::OneId => "rootless, one id",
    }
}

/// The file system of the store, as docker calls it.
fn backing(engine: &Engine) -> String {
    let Ok(found) = rustix::fs::statfs(engine.root()) else {
        return "unknown".to_owned();
    };
    match found.f_type {
        0xef53 => "extfs".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x794c_7630 => "overlayfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        0x6969 => "nfs".to_owned(),
        0x6573_5546 => "fuse".to_owned(),
        other => format!("unknown ({other:#x})"),
    }
}

/// The name in an os-release file.
fn operating_system(release: &str) -> String {
    let find = |key: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let name = find("PRETTY_NAME")
        .or_else(|| find("NAME"))
        .unwrap_or("Linux");
    name.trim_matches(['"', '\'']).to_owned()
}

fn text(facts: &Facts) -> String {
    let driver: String = facts
        .driver_status
        .iter()
        .map(|(key, value)| format!("  {key}: {value}\n"))
        .collect();
    let security: String = facts
        .security_options
        .iter()
        .map(|option| {
            let lines = option
                .trim_start_matches("name=")
                .replace(",profile=", "\n   Profile: ");
            format!("  {lines}\n")
        })
        .collect();
    let security = if security.is_empty() {
        security
    } else {
        format!(" Security Options:\n{security}")
    };
    format!(
        "Client:\n Version:    {VERSION}\n Debug Mode: {}\n\nServer:\n Containers: {}\n  Running: {}\n  Paused: {}\n  \
         Stopped: {}\n Images: {}\n Server Version: {}\n Storage Driver: {}\n{driver} Logging Driver: {}\n \
         Cgroup Version: {}\n{security} Kernel Version: {}\n Operating System: {}\n OSType: {}\n Architecture: {}\n CPUs: {}\n \
         Total Memory: {}\n Name: {}\n Docker Root Dir: {}\n\n",
        facts.client_info.debug,
        facts.containers,
        facts.containers_running,
        facts.containers_paused,
        facts.containers_stopped,
        facts.images,
        facts.server_version,
        facts.driver,
        facts.logging_driver,
        facts.cgroup_version,
        facts.kernel_version,
        facts.operating_system,
        facts.os_type,
        facts.architecture,
        facts.ncpu,
        human::binary_size(facts.mem_total),
        facts.name,
        facts.docker_root_dir,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems() {
        for (release, want) in [
            (
                "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
                "Debian GNU/Linux 12 (bookworm)",
            ),
            ("NAME=Alpine\n", "Alpine"),
            ("", "Linux"),
        ] {
            assert_eq!(operating_system(release), want);
        }
    }

    #[test]
    fn layout_is_dockers() {
        let facts = Facts {
            containers: 3,
            containers_running: 2,
            containers_paused: 0,
            containers_stopped: 1,
            images: 1,
            driver: "mille",
            driver_status: vec![("Backing Filesystem", "extfs".to_owned())],
            logging_driver: "json-file",
            cgroup_version: "2",
            kernel_version: "6.18.44".to_owned(),
            operating_system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            os_type: "linux",
            architecture: "x86_64".to_owned(),
            ncpu: 2,
            mem_total: 25_276_000_000,
            docker_root_dir: "/w/D".to_owned(),
            name: "vm".to_owned(),
            server_version: VERSION,
            security_options: vec!["name=seccomp,profile=builtin", "name=rootless"],
            client_info: ClientInfo {
                debug: false,
                version: VERSION,
            },
        };
        let shown = text(&facts);
        for part in [
            "\n Debug Mode: false\n\nServer:\n Containers: 3\n  Running: 2\n  Paused: 0\n  Stopped: 1\n Images: 1\n Server Version: ",
            "\n Storage Driver: mille\n  Backing Filesystem: extfs\n Logging Driver: json-file\n Cgroup Version: 2\n Security Options:\n  seccomp\n   Profile: builtin\n  rootless\n",
            "\n CPUs: 2\n Total Memory: 23.54GiB\n Name: vm\n Docker Root Dir: /w/D\n\n",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        let tree = Tree::of(&facts).unwrap();
        let line = formatted(
            "",
            "{{.Driver}} {{.NCPU}} {{.ContainersRunning}}",
            Missing::Key,
            &tree,
        )
        .unwrap();
        assert_eq!(line, "mille 2 2\n");
    }
}
