//! What programs do.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::stage::Layers::{Data, Tree};
use super::work::Step::{Call, Nothing, Shell};
use super::work::Workload;

const GIT: &str = "export GIT_CONFIG_GLOBAL=/dev/null; git init -q . && git add tree";

const IMPORT: &str = "/usr/bin/python3 -I -S -c 'import sys; sys.path = [\"py\", \"py/lib-dynload\"]; import asyncio, \
    email.mime.multipart, unittest, xml.dom.minidom, http.server, logging.config, multiprocessing.pool, ctypes, decimal'";

const SQLITE: &str = "sqlite3 db 'create table t(a, b)'; for i in $(seq 100); do echo \"insert into t values($i, 'some text');\"; done | sqlite3 db";

const COMPILE: &str = "cd c; for f in *.c; do gcc -O0 -c $f -o ${f%.c}.o; done; gcc *.o -o program";

pub(super) fn workloads() -> Vec<Workload> {
    let status = Shell("git status --porcelain > /dev/null");
    vec![
        Workload::reading("fork+exec 1,000 times", Tree, Nothing, Call(execute)),
        Workload::reading("python import, cold", Data, Nothing, Shell(IMPORT)),
        Workload::reading("python import, warm", Data, Shell(IMPORT), Shell(IMPORT)),
        Workload::changing("git add", Tree, Nothing, Shell(GIT)),
        Workload::changing("git status", Tree, Shell(GIT), status),
        Workload::changing("sqlite transactions", Tree, Nothing, Shell(SQLITE)),
        Workload::changing("compile a C project", Tree, Nothing, Shell(COMPILE)),
    ]
}

fn execute(at: &Path) -> Result<()> {
    let program = at.join("bin/true");
    for _ in 0..1000 {
        ensure!(Command::new(&program).status()?.success(), "true fails");
    }
    Ok(())
}
