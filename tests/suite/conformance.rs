//! POSIX conformance by a suite of others: pjdfstest (its rewrite in Rust, which `tests/run ci` installs) on `millefs` as
//! mount(8) mounts it. Its working directory is a merged one, with files in two lowers and the upper.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use mille_tests::program::{ORDINARY_USER, built, run, shared_copy};
use mille_tests::{Outcome, Who, leftovers, tree};

/// The version `tests/run` installs.
const SUITE: &str = "pjdfstest 0.2.2";

/// What the suite is told: every feature that Linux has, two users, short naps. `REMOUNT` says whether its tests of
/// read-only file systems run.
const CONFIG: &str = "
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
stat_st_birthtime = {}
[settings]
naptime = 0.02
allow_remount = REMOUNT
[dummy_auth]
entries = [['nobody', 'nogroup'], ['USER', 'USER']]
";

/// In a mount namespace of its own, where `millefs` is in a directory that mount(8)'s helper searches: `$1` is the
/// program's directory, `$2` a file system for the layers, `$3` further options, the rest the suite's arguments.
const SCRIPT: &str = "
mount --bind \"$1\" /usr/local/sbin; base=$2 options=$3; shift 3
mkdir b m sec; chmod 755 . b m
case $base in tmpfs) mount -t tmpfs -o size=500M none b ;; ext4) ;; esac
mkdir -p b/top/merged b/low/merged b/u/merged b/w
for layer in top low u; do touch b/$layer/merged/in-$layer; done
mount -t tmpfs -o size=10M none sec
mount -t fuse.millefs none \"$PWD/m\" -o \"lowerdir=$PWD/b/top:$PWD/b/low,upperdir=$PWD/b/u,workdir=$PWD/b/w,allow_other$options\"
\"$@\" -p \"$PWD/m/merged\" -s \"$PWD/sec\" && code=0 || code=$?
umount m sec; [ $base = ext4 ] || umount -l b
exit $code
";

/// In a user namespace, where the suite runs on a plain directory first: `$1` is `millefs`, the rest the suite's arguments.
const NAMESPACE_SCRIPT: &str = "
millefs=$1; shift
mkdir b m sec; mount -t tmpfs -o size=300M none b; mount -t tmpfs -o size=10M none sec
mkdir -p b/top/merged b/low/merged b/u/merged b/plain/merged b/w; chmod 755 b b/*
for layer in top low u plain; do touch b/$layer/merged/in-$layer; done
\"$@\" -p \"$PWD/b/plain/merged\" -s \"$PWD/sec\" 2>/dev/null || true
echo; echo THE UNION
\"$millefs\" -o \"lowerdir=$PWD/b/top:$PWD/b/low,upperdir=$PWD/b/u,workdir=$PWD/b/w,allow_other\" m
\"$@\" -p \"$PWD/m/merged\" -s \"$PWD/sec\" || true
umount m sec; umount -l b
";

/// Where `tests/run ci` puts the suite.
fn suite() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let target = here.ancestors().nth(3).unwrap();
    let program = target.join("peers/bin/pjdfstest");
    assert!(
        program.exists(),
        "{} is missing: run `tests/run ci`",
        program.display()
    );
    let version = run(
        {
            let mut command = Command::new(&program);
            command.arg("--version");
            command
        },
        b"",
    );
    assert_eq!(version.ok(), SUITE);
    program
}

/// Makes the suite's configuration. `remount`: see [`CONFIG`].
fn write_config(path: &Path, remount: bool) {
    let text = CONFIG
        .replace("REMOUNT", if remount { "true" } else { "false" })
        .replace("USER", ORDINARY_USER);
    std::fs::write(path, text).unwrap();
}

/// Runs the tests whose names contain `filter` on a fresh mount.
fn conforms(base: &str, options: &str, remount: bool, filter: &[&str]) -> Outcome {
    let program = suite();
    let directory = tempfile::Builder::new()
        .prefix("mille-posix-")
        .tempdir_in("/var/tmp")
        .unwrap();
    tree::set_mode(directory.path(), 0o755);
    let config = directory.path().join("config.toml");
    write_config(&config, remount);
    let millefs = built("millefs");
    let mut command = Command::new("unshare");
    command
        .args([
            "-m",
            "--propagation",
            "private",
            "bash",
            "-euo",
            "pipefail",
            "-c",
            SCRIPT,
            "-",
        ])
        .arg(millefs.parent().unwrap())
        .args([base, options])
        .arg(program)
        .arg("-c")
        .arg(config)
        .args(filter)
        .current_dir(directory.path());
    let outcome = run(command, b"");
    assert_clean(directory.path());
    outcome
}

/// The server has ended with its mount.
fn assert_clean(directory: &Path) {
    let left = leftovers::below(directory);
    leftovers::clear(directory);
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Requires that no test of the suite failed, and that many were run.
#[track_caller]
fn assert_conforms(outcome: &Outcome, least: usize) {
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.out(), outcome.err());
    let out = outcome.out();
    let passed = out.lines().filter(|line| line.contains(" ok")).count();
    assert!(passed >= least, "only {passed} tests were run:\n{out}");
    assert!(!out.contains("FAILED"), "{out}");
}

#[test]
fn ci_root_fuse_pjdfstest_finds_no_fault() {
    assert_conforms(&conforms("ext4", "", false, &[]), 380);
}

#[test]
fn ci_root_fuse_pjdfstest_finds_no_fault_on_tmpfs_with_metacopy() {
    assert_conforms(&conforms("tmpfs", ",metacopy=on", false, &[]), 380);
}

#[test]
fn ci_root_fuse_pjdfstest_finds_no_fault_without_passthrough() {
    assert_conforms(&conforms("ext4", ",passthrough=off", false, &[]), 380);
}

/// By themselves: other tests of the suite leave files open for writing, and then no file system becomes read-only.
#[test]
fn ci_root_fuse_pjdfstest_remounts_read_only() {
    assert_conforms(&conforms("ext4", "", true, &["erofs"]), 13);
}

/// Root of a user namespace cannot make devices anywhere: what a plain directory has to fail there, and no more.
#[test]
fn ci_user_namespace_fuse_pjdfstest_finds_no_more_than_in_a_plain_directory() {
    let program = shared_copy(&suite(), "pjdfstest");
    let directory = tempfile::Builder::new()
        .prefix("mille-posix-")
        .tempdir_in("/var/tmp")
        .unwrap();
    tree::set_mode(directory.path(), 0o755);
    Who::Ordinary.own(directory.path());
    let config = directory.path().join("config.toml");
    write_config(&config, false);
    let mut command = Who::Ordinary.command(Path::new("unshare"));
    command
        .args(["--user", "--mount", "--map-root-user", "--map-auto"])
        .args(["bash", "-euo", "pipefail", "-c", NAMESPACE_SCRIPT, "-"])
        .args([&built("millefs"), &program])
        .arg("-c")
        .arg(config)
        .current_dir(directory.path());
    let outcome = run(command, b"").code(0);
    assert_clean(directory.path());
    let out = outcome.out();
    let (plain, union) = out.split_once("THE UNION").unwrap();
    let tests = |part: &str, verdict: &str| -> BTreeSet<String> {
        let lines = part.lines().filter_map(|line| line.strip_suffix(verdict));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    let (failed, expected) = (tests(union, "FAILED"), tests(plain, "FAILED"));
    let more: Vec<_> = failed.difference(&expected).collect();
    assert!(more.is_empty(), "{more:?}\n{}", outcome.err());
    let passed = tests(union, " ok").len();
    assert!(passed >= 330, "only {passed} tests passed:\n{union}");
}
