//! `millefs`: mounts layers as one tree.

mod log_to_stderr;
mod options;
mod sys;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use mille_union::fuse::{MountOptions, Passthrough, Via, mount};
use mille_union::{Access, Config, Features, Lower, MarkSpace, Ownership, Upper, View};
use options::Options;
use sys::Starter;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the program's one way to speak")]
fn complain(text: &str) {
    eprintln!("millefs: {text}");
}

fn run() -> Result<()> {
    let options = options::parse(std::env::args().skip(1))?;
    for word in &options.ignored {
        complain(&format!("option {word} is not known and ignored"));
    }
    log_to_stderr::start(options.debug);
    let mut starter = if options.foreground {
        Starter::foreground()
    } else {
        sys::background()?
    };
    let served = serve(options, &mut starter);
    match served {
        // The starting process prints it.
        Err(error) if starter.failed(&error) => std::process::exit(1),
        other => other,
    }
}

fn serve(options: Options, starter: &mut Starter) -> Result<()> {
    let root = rustix_is_root();
    let space = if options.userxattr || !trusted_marks_allowed() {
        MarkSpace::User
    } else {
        MarkSpace::Trusted
    };
    let mountpoint = std::fs::canonicalize(&options.mountpoint)
        .with_context(|| format!("mount point {}", options.mountpoint.display()))?;
    let mount_options = MountOptions {
        fsname: options
            .source
            .clone()
            .unwrap_or_else(|| "millefs".to_owned()),
        allow_other: options.allow_other.unwrap_or(root),
        read_only: options.read_only,
        threads: options.threads.unwrap_or(0),
        passthrough: match options.passthrough {
            Some(false) => Passthrough::Off,
            Some(true) | None => Passthrough::Auto,
        },
        via: if root { Via::Direct } else { Via::Fusermount },
        acl: options.acl.unwrap_or(true),
        kernel_options: options.kernel.clone(),
        ..MountOptions::default()
    };
    let view = View::open(config(options, space))?;
    let mounted = mount(Arc::clone(&view), &mountpoint, &mount_options)?;
    drop(view);
    starter.ready()?;
    mounted.wait()?;
    Ok(())
}

fn config(options: Options, space: MarkSpace) -> Config {
    let lowers = options
        .lowers
        .into_iter()
        .map(|path| Lower {
            aufs: true,
            ..Lower::at(path)
        })
        .collect();
    let upper = options.upper.zip(options.work).map(|(dir, work)| Upper {
        dir,
        work,
        access: Access::Exclusive,
    });
    Config {
        lowers,
        upper,
        space,
        ownership: Ownership::Real,
        features: Features {
            redirect_dir: options.redirect_dir.unwrap_or(space == MarkSpace::Trusted),
            metacopy: options.metacopy.unwrap_or(false),
            volatile: options.volatile,
            reserve_wh_names: true,
        },
    }
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `trusted.` attributes belong to root of the first user namespace.
fn trusted_marks_allowed() -> bool {
    let all_ids = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    rustix_is_root() && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(all_ids)
}
