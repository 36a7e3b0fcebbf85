//! Restart, pause and unpause, with docker's words for what cannot be done.

use std::time::{Duration, Instant};

use mille_tests::{Store, Who};

#[test]
fn root_fuse_a_paused_container_stands_still() {
    paused(Who::Root);
}

#[test]
fn user_fuse_a_paused_container_stands_still() {
    paused(Who::Ordinary);
}

/// The CPU time a container's processes have used and that they still count, seen in a file they write.
fn counted(store: &Store) -> u64 {
    let lines = store.line("logs --tail 1 c1").ok();
    lines.trim().parse().unwrap_or_default()
}

fn wait_for_count(store: &Store, above: u64) -> u64 {
    let start = Instant::now();
    loop {
        let now = counted(store);
        if now > above {
            return now;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it does not run");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn paused(who: Who) {
    let store = Store::with_busybox(who);
    // A child of the first process counts: both must stand still.
    let script = "(i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done) & wait";
    let id = store
        .mille(["run", "-d", "--name", "c1", "bb", "sh", "-c", script])
        .ok();
    wait_for_count(&store, 0);
    let daemon = "Error response from daemon:";
    store
        .line("unpause c1")
        .code(1)
        .says(&format!("{daemon} Container {id} is not paused"));
    assert_eq!(store.line("pause c1").ok(), "c1");
    // What was in the pipe is logged before it is looked at.
    std::thread::sleep(Duration::from_millis(200));
    let still = counted(&store);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counted(&store), still, "it goes on while paused");
    let state = "{{.State.Status}} {{.State.Running}} {{.State.Paused}}";
    let of = |name: &str| store.mille(["inspect", "-f", state, name]).ok();
    assert_eq!(of("c1"), "paused true true");
    let status = store.line("ps --format {{.Status}}|{{.State}}").ok();
    assert!(
        status.starts_with("Up ") && status.ends_with(" (Paused)|paused"),
        "{status}"
    );
    for (line, code, says) in [
        (
            "pause c1",
            1,
            format!("{daemon} Container {id} is already paused"),
        ),
        (
            "exec c1 true",
            1,
            format!("{daemon} Container c1 is paused, unpause the container before exec"),
        ),
        (
            "start c1",
            1,
            format!(
                "{daemon} cannot start a paused container, try unpause instead\nError: failed to start containers: c1"
            ),
        ),
        (
            "attach c1",
            1,
            "You cannot attach to a paused container, unpause it first".to_owned(),
        ),
        (
            "rm c1",
            1,
            format!(
                "{daemon} You cannot remove a paused container {id}. Unpause and then stop the container before \
                 attempting removal or force remove"
            ),
        ),
        (
            "pause nosuch",
            1,
            format!("{daemon} No such container: nosuch"),
        ),
    ] {
        store.line(line).code(code).says(&says);
    }
    // A commit holds a container still and lets it go again; a paused one stays paused.
    store.line("commit c1 still").ok();
    assert_eq!(of("c1"), "paused true true");
    assert_eq!(store.line("unpause c1").ok(), "c1");
    assert_eq!(of("c1"), "running true false");
    wait_for_count(&store, still);
    // Stopped and killed while paused: it ends, as under docker.
    store.line("pause c1").ok();
    store.line("kill c1").ok();
    let ended = "{{.State.Status}} {{.State.Paused}} {{.State.ExitCode}}";
    assert_eq!(
        store.mille(["inspect", "-f", ended, "c1"]).ok(),
        "exited false 137"
    );
    store
        .line("pause c1")
        .code(1)
        .says(&format!("{daemon} Container {id} is not running"));
    store.line("start c1").ok();
    store.line("pause c1").ok();
    assert_eq!(store.line("restart -t 0 c1").ok(), "c1");
    assert_eq!(of("c1"), "running true false");
    store.line("pause c1").ok();
    assert_eq!(store.line("rm -f c1").ok(), "c1");
}

#[test]
fn root_fuse_restart_stops_and_starts() {
    restarted(Who::Root);
}

#[test]
fn user_fuse_restart_stops_and_starts() {
    restarted(Who::Ordinary);
}

fn restarted(who: Who) {
    let store = Store::with_busybox(who);
    let script = "echo up; trap 'echo down; exit 3' TERM; while :; do sleep 0.05; done";
    store
        .mille(["run", "-d", "--name", "c1", "bb", "sh", "-c", script])
        .ok();
    let up = |count: usize| {
        let start = Instant::now();
        while store.line("logs c1").ok().matches("up").count() < count {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    up(1);
    assert_eq!(store.line("restart c1").ok(), "c1");
    up(2);
    assert_eq!(store.line("logs c1").ok(), "up\ndown\nup");
    let facts = "{{.State.Status}} {{.RestartCount}}";
    assert_eq!(
        store.mille(["inspect", "-f", facts, "c1"]).ok(),
        "running 0"
    );
    // One that does not run is started; good ones go on, and what is wrong comes after.
    store.line("stop -t 0 c1").ok();
    let both = store.line("restart -t 0 nosuch c1").code(1);
    assert_eq!(both.out(), "c1");
    both.says("Error response from daemon: No such container: nosuch");
    up(3);
    store.line("rm -f c1").ok();
    // A container of --rm outlives its restart, and not its end.
    store.line("run -d --rm --name c2 bb sleep 1000").ok();
    assert_eq!(store.line("restart -t 0 c2").ok(), "c2");
    assert_eq!(store.line("ps --format {{.Names}}").ok(), "c2");
    store.line("kill c2").ok();
    assert_eq!(store.line("ps -aq").ok(), "");
    let usage = store.line("restart").code(1);
    usage.says(
        "mille: 'mille restart' requires at least 1 argument\n\nUsage:  mille restart [OPTIONS] CONTAINER \
         [CONTAINER...]\n\nSee 'mille restart --help' for more information",
    );
}

/// Waits until a template says something of a container.
#[track_caller]
fn wait_for(store: &Store, name: &str, template: &str, want: &str) {
    let start = Instant::now();
    loop {
        let found = store.mille(["inspect", "-f", template, name]).ok();
        if found == want {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{name}: {found}, not {want}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn root_fuse_a_policy_starts_a_container_again() {
    restart_policies(Who::Root);
}

#[test]
fn user_fuse_a_policy_starts_a_container_again() {
    restart_policies(Who::Ordinary);
}

fn restart_policies(who: Who) {
    let store = Store::with_busybox(who);
    let facts = "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}";
    // The client returns after the first end.
    let run = "run --restart on-failure:2 --name c1 bb sh -c";
    let mut words: Vec<&str> = run.split(' ').collect();
    words.push("echo run; exit 3");
    store.mille(words).code(3);
    wait_for(&store, "c1", facts, "2 exited 3");
    assert_eq!(store.line("logs c1").ok(), "run\nrun\nrun");
    store
        .line("run -d --restart on-failure --name c2 bb true")
        .ok();
    wait_for(&store, "c2", facts, "0 exited 0");
    // Killed by somebody: that is its end. Killed by nobody's wish: it is started again.
    store
        .line("run -d --restart always --name c3 bb sleep 1000")
        .ok();
    store.line("kill c3").ok();
    wait_for(&store, "c3", facts, "0 exited 137");
    store.line("start c3").ok();
    let pid = store.line("inspect -f {{.State.Pid}} c3").ok();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_for(&store, "c3", facts, "1 running 0");
    assert_eq!(store.line("exec c3 echo here").ok(), "here");
    assert_eq!(store.line("update --restart no c3").ok(), "c3");
    store.line("stop -t 0 c3").ok();
    // While it waits, everybody is told so, and it can be ended.
    store
        .line("run -d --restart always --name c4 bb false")
        .ok();
    wait_for(
        &store,
        "c4",
        "{{.State.Restarting}} {{.State.Running}}",
        "true true",
    );
    wait_for(
        &store,
        "c4",
        "{{ge .RestartCount 4}} {{.State.Status}}",
        "true restarting",
    );
    let daemon = "Error response from daemon:";
    store.line("exec c4 true").code(1).says(&format!(
        "{daemon} Container c4 is restarting, wait until the container is running"
    ));
    store
        .line("attach c4")
        .code(1)
        .says("You cannot attach to a restarting container, wait until it is running");
    assert_eq!(store.line("stop c4").ok(), "c4");
    wait_for(
        &store,
        "c4",
        "{{.State.Status}} {{.State.ExitCode}}",
        "exited 1",
    );
    for (line, text) in [
        (
            "--restart frob",
            format!("{daemon} invalid restart policy 'frob'"),
        ),
        (
            "--restart always:3",
            format!("{daemon} maximum retry count cannot be used with restart policy 'always'"),
        ),
        (
            "--restart on-failure:x",
            "invalid restart policy format: maximum retry count must be an integer".to_owned(),
        ),
        (
            "--restart on-failure:-1",
            format!("{daemon} maximum retry count cannot be negative"),
        ),
        (
            "--restart always --rm",
            "conflicting options: cannot specify both --restart and --rm".to_owned(),
        ),
    ] {
        store
            .line(&format!("run {line} bb true"))
            .code(125)
            .says(&format!("mille: {text}\n\nRun 'mille run --help'"));
    }
    store
        .line("update c1")
        .code(1)
        .says("you must provide one or more flags when using this command");
}

#[test]
fn root_fuse_init_reaps_and_passes_signals_on() {
    init(Who::Root);
}

#[test]
fn user_fuse_init_reaps_and_passes_signals_on() {
    init(Who::Ordinary);
}

fn init(who: Who) {
    let store = Store::with_busybox(who);
    let run = |script: &str| store.mille(["run", "--rm", "--init", "bb", "sh", "-c", script]);
    // What a process 1 would ignore ends it.
    run("kill -9 $$").code(137);
    run("exit 7").code(7);
    assert_eq!(run("echo $$; cat /proc/1/comm").ok(), "2\nmille-init");
    // Nothing of the launcher is to be seen.
    let first = run("tr -d '\\0' < /proc/1/cmdline; readlink /proc/1/exe");
    assert_eq!(first.code(1).out(), "mille-init");
    // An orphan is reaped: nobody else would.
    let orphan = "(sleep 0.1 & ) ; sleep 0.5; ps | grep -c '\\[sleep\\]'";
    assert_eq!(run(orphan).out(), "0");
    let script = "trap 'echo got; exit 4' TERM; echo up; while :; do sleep 0.05; done";
    store
        .mille([
            "run", "-d", "--init", "--name", "c1", "bb", "sh", "-c", script,
        ])
        .ok();
    let start = Instant::now();
    while store.line("logs c1").ok() != "up" {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Into the container leads another way than its first process, into which nobody may look.
    assert_eq!(store.line("exec c1 cat /proc/1/comm").ok(), "mille-init");
    store.line("cp c1:/etc/passwd copied").ok();
    store
        .line("run -d --init --name c2 --health-cmd true --health-interval 100ms bb sleep 1000")
        .ok();
    wait_for(&store, "c2", "{{.State.Health.Status}}", "healthy");
    store.line("rm -f c2").ok();
    store.line("stop c1").ok();
    assert_eq!(store.line("logs c1").ok(), "up\ngot");
    assert_eq!(
        store
            .line("inspect -f {{.State.ExitCode}},{{.HostConfig.Init}} c1")
            .ok(),
        "4,true"
    );
    store
        .line("run --init bb nosuch")
        .code(127)
        .says("exec: \"nosuch\": executable file not found in $PATH");
}

#[test]
fn root_fuse_top_stats_and_port() {
    top_stats_and_port(Who::Root);
}

#[test]
fn user_fuse_top_stats_and_port() {
    top_stats_and_port(Who::Ordinary);
}

fn top_stats_and_port(who: Who) {
    let store = Store::with_busybox(who);
    let script = "sleep 1001 & exec sleep 1000";
    store
        .mille(["run", "-d", "--name", "c1", "bb", "sh", "-c", script])
        .ok();
    let start = Instant::now();
    let listed = loop {
        let listed = store.line("top c1 -o pid,cmd").ok();
        let words: Vec<_> = listed.split_whitespace().collect();
        // Between fork and exec a process still has the shell's words.
        if words.contains(&"1001") && words.contains(&"1000") && !words.contains(&"exec") {
            break listed;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{listed}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(listed.starts_with("PID                 CMD\n"), "{listed}");
    assert_eq!(listed.lines().count(), 3);
    let usual = store.line("top c1").ok();
    let titles: Vec<_> = usual.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        titles,
        ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    );
    store
        .line("top c1 -o comm")
        .code(1)
        .says("Error response from daemon: Couldn't find PID field in ps output");
    let stats = store
        .line("stats --no-stream --format {{.Name}}|{{.PIDs}}|{{.NetIO}} c1")
        .ok();
    assert_eq!(stats, "c1|2|0B / 0B");
    let table = store.line("stats --no-stream").ok();
    assert!(
        table.starts_with("CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT"),
        "{table}"
    );
    assert_eq!(store.line("port c1").ok(), "");
    store
        .line("port c1 82")
        .code(1)
        .says("Error: No public port '82' published for c1");
    let id = store.line("inspect -f {{.Id}} c1").ok();
    store.line("kill c1").ok();
    store.line("top c1").code(1).says(&format!(
        "Error response from daemon: Container {id} is not running"
    ));
    assert_eq!(
        store
            .line("stats --no-stream --format {{.MemUsage}}|{{.PIDs}} c1")
            .ok(),
        "0B / 0B|0"
    );
    for line in ["top nosuch", "stats --no-stream nosuch", "port nosuch"] {
        store
            .line(line)
            .code(1)
            .says("Error response from daemon: No such container: nosuch");
    }
}

#[test]
fn root_fuse_a_detached_command_is_told_of_to_its_end() {
    detached_command(Who::Root);
}

#[test]
fn user_fuse_a_detached_command_is_told_of_to_its_end() {
    detached_command(Who::Ordinary);
}

fn detached_command(who: Who) {
    let store = Store::with_busybox(who);
    store.line("run -d --name c1 bb sleep 1000").ok();
    store.line("exec -d c1 sh -c sleep${IFS}1000;true").ok();
    // With a terminal that nobody reads it gets as far as without.
    let flood = ["exec", "-d", "-t", "c1", "sh", "-c", "seq 20000; exit 4"];
    store.mille(flood).ok();
    let ends =
        "events --since 1h --until 0s -f event=exec_die --format {{.Actor.Attributes.exitCode}}";
    let start = Instant::now();
    while store.line(ends).ok() != "4" {
        assert!(start.elapsed() < Duration::from_secs(60), "no exec_die");
        std::thread::sleep(Duration::from_millis(20));
    }
    store
        .line("exec -d c1 nosuch")
        .code(1)
        .says("exec: \"nosuch\": executable file not found in $PATH");
    let tried = "events --since 1h --until 0s -f event=exec_start --format {{.Action}}";
    let tried = store.line(tried).ok();
    assert_eq!(tried.lines().last(), Some("exec_start: nosuch "), "{tried}");
    // The one that runs is listed under the id its events have, and ends before the container does.
    let listed = store
        .mille(["inspect", "-f", "{{index .ExecIDs 0}}", "c1"])
        .ok();
    store.line("rm -f c1").ok();
    let told = "events --since 1h --until 0s --format {{.Action}}|{{.Actor.Attributes.execID}}|{{.Actor.Attributes.exitCode}}";
    let want = format!("exec_die|{listed}|137");
    while !store.line(told).ok().lines().any(|line| line == want) {
        assert!(start.elapsed() < Duration::from_secs(60), "no {want}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn root_fuse_health_is_probed() {
    health(Who::Root);
}

#[test]
fn user_fuse_health_is_probed() {
    health(Who::Ordinary);
}

fn health(who: Who) {
    let store = Store::with_busybox(who);
    let words = "run -d --name c1 --health-interval 100ms --health-retries 2 --health-cmd";
    let mut words: Vec<&str> = words.split(' ').collect();
    words.extend(["echo looking; test -f /ok", "bb", "sleep", "1000"]);
    store.mille(words).ok();
    wait_for(&store, "c1", "{{.State.Health.Status}}", "unhealthy");
    let first = "{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}";
    wait_for(&store, "c1", first, "1 looking");
    let status = |line: &str| store.line(line).ok();
    let shown = status("ps --format {{.Status}}|{{.HealthStatus}}");
    assert!(shown.ends_with(" (unhealthy)|unhealthy"), "{shown}");
    store.line("exec c1 touch /ok").ok();
    wait_for(
        &store,
        "c1",
        "{{.State.Health.Status}} {{.State.Health.FailingStreak}}",
        "healthy 0",
    );
    assert_eq!(status("ps -f health=healthy --format {{.Names}}"), "c1");
    assert_eq!(status("ps -f health=none --format {{.Names}}"), "");
    // The event is written after the state.
    let start = Instant::now();
    let line = "events --since 1h --until 0s -f event=health_status --format {{.Action}}";
    while status(line) != "health_status: unhealthy\nhealth_status: healthy" {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{}",
            status(line)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    // A probe is a command as any other.
    let line = "events --since 1h --until 0s -f event=exec_create -f event=exec_start -f event=exec_die --format \
                {{.Action}}|{{.Actor.Attributes.exitCode}}";
    let probes = status(line);
    let probes: Vec<_> = probes.lines().take(3).collect();
    let command = "/bin/sh -c echo looking; test -f /ok|<no value>";
    assert_eq!(
        probes,
        [
            format!("exec_create: {command}"),
            format!("exec_start: {command}"),
            "exec_die|1".to_owned()
        ]
    );
    store.line("stop -t 0 c1").ok();
    wait_for(
        &store,
        "c1",
        "{{.State.Health.Status}} {{.State.Status}}",
        "unhealthy exited",
    );
    // The check of an image, one that takes too long, and none.
    let check = "HEALTHCHECK --interval=100ms --timeout=200ms --retries=1 CMD sleep 1000";
    store.mille(["commit", "-c", check, "c1", "checked"]).ok();
    store.line("run -d --name c2 checked sleep 1000").ok();
    let late = "{{.State.Health.Status}} {{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}";
    wait_for(&store, "c2", "{{.State.Health.Status}}", "unhealthy");
    wait_for(
        &store,
        "c2",
        late,
        "unhealthy -1 Health check exceeded timeout (200ms)",
    );
    store
        .line("run -d --name c3 --no-healthcheck checked sleep 1000")
        .ok();
    assert_eq!(
        status("inspect -f {{.Config.Healthcheck.Test}} c3"),
        "[NONE]"
    );
    assert_eq!(status("ps -f name=c3 --format {{.HealthStatus}}"), "");
    let tail = "Run 'mille run --help' for more information";
    for (flags, says) in [
        (
            "--health-interval 1us",
            "mille: Error response from daemon: Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            "--health-interval abc",
            "invalid argument \"abc\" for \"--health-interval\" flag: time: invalid duration \"abc\"",
        ),
        (
            "--no-healthcheck --health-cmd x",
            "mille: --no-healthcheck conflicts with --health-* options",
        ),
    ] {
        let refused = store.line(&format!("run {flags} bb true")).code(125);
        refused.says(says).says(tail);
    }
}

#[test]
fn root_fuse_a_container_takes_the_place_of_another() {
    let store = Store::with_busybox(Who::Root);
    let first = store.line("run -d --name c1 bb sleep 100").ok();
    store.line("run --name c1 bb true").code(125);
    // What is wrong is found before the old one goes.
    store.line("run --replace --name c1 nosuch true").code(125);
    store
        .line("run --replace bb true")
        .code(125)
        .says("--replace needs --name");
    assert_eq!(store.line("ps -q --no-trunc").ok(), first);
    assert_eq!(
        store.line("run --replace --name c1 bb echo new").ok(),
        "new"
    );
    store.line("create --replace --name c1 bb true").ok();
    assert_eq!(store.line("ps -aq").ok().lines().count(), 1);
    assert_eq!(
        store.line("create --replace --name c2 bb true").ok().len(),
        64
    );
}

#[test]
fn root_fuse_an_image_of_another_platform_is_refused() {
    let store = Store::with_busybox(Who::Root);
    let own = store.line("inspect -f {{.Os}}/{{.Architecture}} bb").ok();
    let other = if own == "linux/s390x" {
        "linux/arm64"
    } else {
        "linux/s390x"
    };
    store
        .line(&format!("run --rm -q --platform {own} bb true"))
        .ok();
    let says = format!(
        "Error response from daemon: image with reference bb was found but does not match the specified platform: \
         wanted {other}, actual: {own}"
    );
    for (line, code) in [
        ("run --rm --platform OTHER bb true", 125),
        ("create --platform OTHER bb true", 1),
        ("history --platform OTHER bb", 1),
        ("save --platform OTHER -o x.tar bb", 1),
        ("rmi --platform OTHER bb", 1),
    ] {
        store
            .line(&line.replace("OTHER", other))
            .code(code)
            .says(&says);
    }
    store
        .line("create --platform frob bb true")
        .code(1)
        .says("\"frob\": unknown operating system or architecture: invalid argument");
    let tree = store.line("images --tree").ok();
    let lines: Vec<Vec<&str>> = tree
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0].join(" "), "IMAGE ID DISK USAGE CONTENT SIZE EXTRA");
    assert_eq!(
        (lines[1][0], lines[2][..2].join(" ")),
        ("bb:latest", format!("└─ {own}"))
    );
    store
        .line("images --tree -q")
        .code(1)
        .says("--quiet is not yet supported with --tree");
    // A blank stands where the details of a line would.
    store.line("run --name says bb echo hi").ok();
    assert_eq!(store.line("logs --details says").out(), " hi");
    store.line("commit --no-pause says kept").ok();
}
