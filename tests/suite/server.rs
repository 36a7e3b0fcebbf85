//! A `millefs` server in hard places: few descriptors, nobody to hear it, a mount in use, a mount point
//! among its own layers, callers that are killed while they wait.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mille_tests::own_mounts;
use mille_tests::program::{built, run_within, shell};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here takes longer. A hang is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mount whose server is our child.
struct Stage {
    directory: tempfile::TempDir,
    server: Option<Child>,
    point: PathBuf,
}

impl Stage {
    /// Directories `l`, `u`, `w`, `m`, and what a script puts there.
    fn new(script: &str) -> Self {
        own_mounts();
        let directory = tempfile::Builder::new()
            .prefix("mille-s-")
            .tempdir_in("/var/tmp")
            .unwrap();
        shell(&format!(
            "cd {} && mkdir l u w m && {script}",
            directory.path().display()
        ));
        let point = directory.path().join("m");
        Self {
            directory,
            server: None,
            point,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Mounts `l` at the point with further options, the server started by a shell command that ends in `"$@"`.
    fn mount(&mut self, options: &str, how: &str) {
        let at = self.directory.path().display().to_string();
        let options = format!("lowerdir={at}/l,upperdir={at}/u,workdir={at}/w{options}");
        self.mount_as(&options, how);
    }

    fn mount_as(&mut self, options: &str, how: &str) {
        let mut command = Command::new("bash");
        command
            .args(["-c", how, "bash"])
            .arg(built("millefs"))
            .args(["-f", "-o", options])
            .arg(&self.point);
        self.server = Some(command.stdin(Stdio::null()).spawn().unwrap());
        self.wait_until("the mount", |this| {
            assert!(!this.has_ended(), "the server has ended");
            this.is_mounted()
        });
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        mounts.lines().any(|line| {
            let mut words = line.split(' ');
            words.next() == Some("millefs") && words.next() == self.point.to_str()
        })
    }

    fn has_ended(&mut self) -> bool {
        self.server
            .as_mut()
            .is_none_or(|server| server.try_wait().unwrap().is_some())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.server.as_ref().unwrap().id().cast_signed())
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Runs a script in the mount, within a time.
    #[track_caller]
    fn inside(&self, script: &str) -> String {
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(&self.point);
        run_within(command, b"", PATIENCE * 4).ok()
    }

    fn wait_until(&mut self, what: &str, there: impl Fn(&mut Self) -> bool) {
        let start = Instant::now();
        while !there(self) {
            assert!(start.elapsed() < PATIENCE, "{what} does not come");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Unmounts and requires that the server ends by itself.
    fn unmount(&mut self) {
        shell(&format!("umount {}", self.point.display()));
        self.wait_until("the server's end", Self::has_ended);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.is_mounted() {
            nix::mount::umount2(&self.point, nix::mount::MntFlags::MNT_DETACH).ok();
        }
        if let Some(server) = &mut self.server {
            server.kill().ok();
            server.wait().ok();
        }
    }
}

const PLAIN: &str = "exec \"$@\"";

#[test]
fn root_fuse_a_deaf_standard_error_ends_no_mount() {
    let mut stage = Stage::new("echo x > l/a");
    // A word that is not known is reported, at once.
    stage.mount(",wombat=1", "exec \"$@\" 2> /dev/full");
    assert_eq!(stage.inside("cat a"), "x");
    stage.unmount();
    stage.mount(",wombat=1", "exec \"$@\" 2> >(exec true)");
    assert_eq!(stage.inside("cat a"), "x");
    stage.unmount();
}

#[test]
fn root_fuse_more_files_are_open_than_the_server_has_descriptors() {
    let mut stage = Stage::new(
        "cd l; for i in $(seq 600); do echo $i > f$i; done; mkdir -p d{1..100}/e; cd ..",
    );
    stage.mount(",passthrough=off", "ulimit -n 256; exec \"$@\"");
    let low: Vec<File> = (1..=600)
        .map(|i| File::open(stage.path(&format!("m/f{i}"))).unwrap())
        .collect();
    let new: Vec<File> = (1..=300)
        .map(|i| {
            let file = File::create_new(stage.path(&format!("m/n{i}"))).unwrap();
            file.write_all_at(b"first", 0).unwrap();
            file
        })
        .collect();
    for (file, i) in low.iter().zip(1..) {
        let mut text = String::new();
        (&mut &*file).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{i}\n"));
    }
    for file in &new {
        file.write_all_at(b"again", 5).unwrap();
    }
    stage.inside(
        "for i in {1..100}; do test -d d$i/e; touch d$i/e/x; done; test $(cat n1) = firstagain",
    );
    drop((low, new));
    stage.unmount();
}

#[test]
fn ci_root_fuse_little_address_space_is_enough() {
    for passthrough in ["", ",passthrough=off"] {
        let mut stage = Stage::new(
            "cd l; for i in $(seq 2000); do echo $i > f$i; done; mkdir -p d{1..50}/e; head -c 64M /dev/urandom > big; cd ..",
        );
        // KiB. What it reserves when it may is half as much again.
        stage.mount(passthrough, "ulimit -v 262144; exec \"$@\"");
        stage.inside(
            "for n in 1 2 3 4; do find . -type f -size -1M -exec cat {} + > /dev/null & done; wait; cmp big ../l/big; \
             echo x >> big; test $(stat -c %s big) = 67108866; cp big copy; cmp big copy; \
             for i in $(seq 500); do echo $i > n$i; mv n$i d1/n$i; done; rm -r d1; test $(ls | wc -l) = 2051",
        );
        stage.unmount();
    }
}

#[test]
fn root_fuse_removed_files_held_beyond_the_limit_are_refused_clearly() {
    let mut stage = Stage::new("true");
    stage.mount(",passthrough=off", "ulimit -n 256; exec \"$@\"");
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < 1000, "no limit was met");
        let path = stage.path(&format!("m/n{}", held.len()));
        let made = File::create_new(&path).and_then(|file| {
            fs::remove_file(&path)?;
            Ok(file)
        });
        match made {
            Ok(file) => held.push(file),
            Err(error) => break error,
        }
    };
    // Each of them needs a descriptor of the server's: there is no other way to a file without a name.
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EMFILE), "{refused}");
    assert!(held.len() > 100, "{}", held.len());
    drop(held);
    // Closed files are told of after a while.
    let start = Instant::now();
    while stage.path("m/again").metadata().is_err() {
        assert!(start.elapsed() < PATIENCE);
        File::create_new(stage.path("m/again")).map(drop).ok();
        std::thread::sleep(Duration::from_millis(20));
    }
    stage.unmount();
}

#[test]
fn root_fuse_who_waits_can_be_killed() {
    let mut stage = Stage::new("echo x > l/a; echo y > l/b; head -c 3000000 /dev/zero > l/big");
    stage.mount(",passthrough=off", PLAIN);
    for script in ["cat a", "ls -l", "truncate -s 2000000 big", "mv b c"] {
        stage.signal(Signal::SIGSTOP);
        // A request that a thread has taken on its last breath could not be given up: the kernel waits for its answer.
        stage.wait_until("the stop", |stage| {
            let tasks = fs::read_dir(format!("/proc/{}/task", stage.pid())).unwrap();
            tasks.map(Result::unwrap).all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap();
                stat.rsplit_once(") ").unwrap().1.starts_with('T')
            })
        });
        let words: Vec<&str> = script.split(' ').collect();
        let mut waiting = Command::new("env")
            .arg(format!("--chdir={}", stage.point.display()))
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(
            waiting.try_wait().unwrap().is_none(),
            "{script}: did not wait"
        );
        waiting.kill().unwrap();
        let start = Instant::now();
        while waiting.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "{script}: cannot be killed");
            std::thread::sleep(Duration::from_millis(5));
        }
        stage.signal(Signal::SIGCONT);
        assert_eq!(stage.inside("cat a"), "x", "after {script}");
    }
    // Whatever was asked for was done whole or not at all.
    stage.inside("test $(stat -c %s big) -ge 2000000; if test -e b; then test ! -e c; else test $(cat c) = y; fi; echo z >> a");
    stage.unmount();
    assert_eq!(
        shell(&format!(
            "find {}/work -mindepth 1 ! -name '#whiteout'",
            stage.path("w").display()
        )),
        ""
    );
}

#[test]
fn root_fuse_a_mount_in_use_is_busy_and_lives_until_the_last_file_closes() {
    let mut stage = Stage::new("echo low > l/a; mkdir l/d");
    stage.mount("", PLAIN);
    let held = File::open(stage.path("m/a")).unwrap();
    let written = File::create_new(stage.path("m/d/new")).unwrap();
    let error = nix::mount::umount(&stage.point).unwrap_err();
    assert_eq!(error, nix::errno::Errno::EBUSY);
    assert_eq!(stage.inside("cat a"), "low");
    shell(&format!("umount -l {}", stage.point.display()));
    assert!(!stage.is_mounted());
    let mut text = String::new();
    (&held).read_to_string(&mut text).unwrap();
    assert_eq!(text, "low\n");
    written.write_all_at(b"kept", 0).unwrap();
    drop(held);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!stage.has_ended(), "one file is still open");
    drop(written);
    stage.wait_until("the server's end", Stage::has_ended);
    assert_eq!(fs::read(stage.path("u/d/new")).unwrap(), b"kept");
    stage.mount("", PLAIN);
    assert_eq!(stage.inside("cat d/new"), "kept");
    stage.unmount();
}

/// The mount point hides a layer, lies in it or above it: layers are reached by what was opened before.
#[test]
fn root_fuse_a_mount_point_among_its_own_layers() {
    for point in ["l", "l/sub", "l2", "u", "u/sub", "w", "", "l/sub/deep"] {
        let mut stage = Stage::new(
            "mkdir -p l/sub/deep l2/sub u/sub; echo low > l/a; echo two > l2/b; echo up > u/c; ln l/a l/sub/link",
        );
        if point.is_empty() {
            stage.point = stage.directory.path().to_owned();
        } else {
            stage.point = stage.path(point);
        }
        let at = stage.directory.path().display().to_string();
        stage.mount_as(
            &format!("lowerdir={at}/l2:{at}/l,upperdir={at}/u,workdir={at}/w"),
            PLAIN,
        );
        // As for any program, a directory on which something is mounted cannot be moved.
        let moved = if point == "u/sub" {
            "if mv sub new/moved 2>/dev/null; then exit 1; fi"
        } else {
            "mv sub new/moved; ls new/moved/deep"
        };
        let seen = stage.inside(&format!("cat a b c; echo more >> a; cat sub/link; chmod 600 b; mkdir new; {moved}; rm c; echo n > c; ls; rm -r new"));
        let stays = if point == "u/sub" { "\nsub" } else { "" };
        let wanted = format!("low\ntwo\nup\nlow\nmore\na\nb\nc\nnew{stays}");
        assert_eq!(seen, wanted, "mounted at {point:?}");
        // Through the host's paths too, from which the mount may be met: nothing waits for itself.
        let mut command = Command::new("find");
        command.arg(stage.directory.path());
        run_within(command, b"", PATIENCE).code(0);
        stage.unmount();
        assert_eq!(fs::read(stage.path("l/a")).unwrap(), b"low\n");
        assert_eq!(fs::read(stage.path("u/a")).unwrap(), b"low\nmore\n");
    }
}

#[test]
fn ci_root_fuse_many_layers() {
    for (count, set) in [(128, "128"), (500, "500")] {
        let mut stage = Stage::new(&format!(
            "for i in $(seq {count}); do mkdir -p x$i/d/only$i; echo $i > x$i/d/f; echo $i > x$i/f$i; done; mkdir x{count}/q; touch x1/gone; mknod x{count}/gone c 0 0"
        ));
        let at = stage.directory.path().display().to_string();
        let lowers: Vec<String> = (1..=count).rev().map(|i| format!("{at}/x{i}")).collect();
        stage.mount_as(
            &format!(
                "lowerdir={},upperdir={at}/u,workdir={at}/w",
                lowers.join(":")
            ),
            PLAIN,
        );
        assert_eq!(stage.inside("cat d/f; ls d | wc -l; cat f1; test ! -e gone; echo new >> d/f; mv d e; ls e | wc -l; rm -r e/only*; ls e"), format!("{set}\n{}\n1\n{}\nf", count + 1, count + 1));
        stage.unmount();
        stage.mount_as(
            &format!(
                "lowerdir={},upperdir={at}/u,workdir={at}/w",
                lowers.join(":")
            ),
            PLAIN,
        );
        assert_eq!(stage.inside("cat e/f; ls e"), format!("{set}\nnew\nf"));
        stage.unmount();
    }
}

#[test]
fn root_fuse_the_longest_names_and_paths() {
    // Sixteen times 254 bytes and a slash, and one name to make 4095.
    let script = "
import os, sys
def name(i): return (str(i) + 'n' * 254)[:254]
def deep(root, make):
    fd = os.open(root, os.O_RDONLY)
    for i in range(16):
        if make: os.mkdir(name(i), dir_fd=fd)
        fd = os.open(name(i), os.O_RDONLY, dir_fd=fd)
    if make: os.close(os.open('f' * 15, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    return fd
";
    let mut stage = Stage::new("true");
    let python = |stage: &Stage, more: &str| {
        let mut command = Command::new("python3");
        command
            .args(["-c", &format!("{script}{more}")])
            .current_dir(stage.directory.path());
        run_within(command, b"", PATIENCE).ok()
    };
    python(&stage, "deep('l', True)");
    stage.mount("", PLAIN);
    let said = python(
        &stage,
        "
os.chdir('m')
path = '/'.join(name(i) for i in range(16)) + '/' + 'f' * 15
assert len(path) == 4095, len(path)
os.stat(path); os.chmod(path, 0o600); open(path, 'w').write('x')
try: os.stat(path + 'g'); print('too long')
except OSError as e: print(e.errno)
long = 'x' * 255
for make in (lambda n: open(n, 'w').close(), os.mkdir, lambda n: os.symlink('t', n), os.mkfifo, lambda n: os.rename('s', n)):
    open('s', 'w').close()
    make(long); os.lstat(long)
    os.rename(long, 'y' * 255); assert long not in os.listdir('.') and 'y' * 255 in os.listdir('.')
    (os.rmdir if os.path.isdir('y' * 255) else os.unlink)('y' * 255)
    open('s', 'w').close()
    try: make(long + 'x'); print('too long')
    except OSError as e: assert e.errno == 36, e
os.rename(name(0), 'z' * 255)
fd = os.open('z' * 255, os.O_RDONLY)
for i in range(1, 16): fd = os.open(name(i), os.O_RDONLY, dir_fd=fd)
print(os.listdir(fd), os.stat('f' * 15, dir_fd=fd).st_size)
os.chdir('..'); import shutil; shutil.rmtree('m/' + 'z' * 255)
print(os.listdir('m'))
",
    );
    assert_eq!(said, "36\n['fffffffffffffff'] 1\n['s']");
    stage.unmount();
}

#[test]
fn ci_root_fuse_a_hundred_thousand_entries() {
    let mut stage = Stage::new("mkdir l/d; cd l/d; seq -f low%g 100000 | xargs touch; cd ../..");
    stage.mount("", PLAIN);
    for step in [
        "test $(ls -f d | wc -l) = 100002; test $(ls -f d | sort -u | wc -l) = 100002; test $(find d -type f | wc -l) = 100000",
        "mkdir n; cd n; python3 -c 'import os; [os.close(os.open(\"new%d\" % i, os.O_CREAT | os.O_WRONLY)) for i in range(20000)]'",
        "test $(ls -f n | sort -u | wc -l) = 20002",
        "cd d; seq -f new%g 5000 | xargs touch; seq -f low%g 95001 100000 | xargs rm; test $(ls -f . | sort -u | wc -l) = 100002",
        "rm -r n; test $(ls) = d",
    ] {
        stage.inside(step);
    }
    stage.unmount();
}

/// The kernel holds what it has been told of until it is short of memory; then all of that must go again.
fn memory_comes_back(warming: u32, rounds: u32) {
    let mut stage = Stage::new(
        "cd l; python3 -c 'import os
for d in range(100):
    os.mkdir(\"d%d\" % d)
    for f in range(1000): os.close(os.open(\"d%d/a-usual-name-%d.txt\" % (d, f), os.O_CREAT))
'; cd ..",
    );
    stage.mount("", PLAIN);
    let status = PathBuf::from(format!("/proc/{}/status", stage.pid()));
    let resident = |path: &Path| -> u64 {
        let text = fs::read_to_string(path).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let round = || {
        stage.inside("test $(find . -size -1G -type f | wc -l) = 100000");
        let full = resident(&status);
        // Drops what nobody uses, in every mount: a listing is enough to have it back.
        let start = Instant::now();
        let mut least = full;
        while start.elapsed() < Duration::from_secs(5) {
            fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
            std::thread::sleep(Duration::from_millis(1500));
            least = least.min(resident(&status));
        }
        (full, least)
    };
    let (_, mut baseline) = round();
    for _ in 1..warming {
        (_, baseline) = round();
    }
    let (mut full, mut after) = round();
    for _ in 1..rounds {
        (full, after) = round();
    }
    // On a busy machine the kernel takes its time to tell what it has forgotten.
    let patience = Instant::now() + Duration::from_secs(60);
    while after > baseline + baseline / 10 && Instant::now() < patience {
        after = after.min(round().1);
    }
    let node = (full - after) * 1024 / 100_000;
    assert!(
        after <= baseline + baseline / 10,
        "{baseline} kB, then {after} kB"
    );
    assert!(
        (50..260).contains(&node),
        "{node} bytes for each file: {full} kB, then {after} kB"
    );
    stage.unmount();
}

#[test]
fn ci_root_fuse_memory_comes_back_when_the_kernel_forgets() {
    memory_comes_back(2, 1);
}

/// A million files looked up, and more names, when the allocator's heaps have their size: each thread's grows a little in
/// the first rounds.
#[test]
fn soak_root_fuse_memory_comes_back_after_a_million_lookups() {
    memory_comes_back(5, 10);
}
