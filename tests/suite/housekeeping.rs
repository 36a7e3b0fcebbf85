//! What is counted, pruned and noted: `system df`, `prune`, `events`.

use mille_tests::{Store, Who};

#[test]
fn root_fuse_prune_df_and_events() {
    prune_df_and_events(Who::Root);
}

#[test]
fn user_fuse_prune_df_and_events() {
    prune_df_and_events(Who::Ordinary);
}

#[test]
fn root_fuse_a_commit_is_told_of_between_the_pause_and_the_end_of_it() {
    let store = Store::with_busybox(Who::Root);
    store.line("run -d --name c1 bb sleep 1000").ok();
    store.line("commit c1 made").ok();
    store.line("commit --pause=false c1 made2").ok();
    let events = store
        .line("events --since 2h --until 0s -f container=c1 -f type=container --format {{.Action}}")
        .ok();
    assert!(
        events.ends_with("\npause\ncommit\nunpause\ncommit"),
        "{events}"
    );
}

fn prune_df_and_events(who: Who) {
    let store = Store::with_busybox(who);
    // No name is the beginning of an id, which filters take as well.
    store.line("run --name one -l k=v bb touch /made").ok();
    store.line("exec one true").code(1);
    store.line("rename one nine").ok();
    store.line("commit nine made").ok();
    store.line("run -d --name two bb sleep 1000").ok();
    store.line("exec two true").ok();
    store.line("pause two").ok();
    store.line("unpause two").ok();
    let df = store
        .line("system df --format {{.Type}}|{{.TotalCount}}|{{.Active}}")
        .ok();
    assert_eq!(
        df,
        "Images|2|1\nContainers|2|1\nLocal Volumes|0|0\nBuild Cache|0|0"
    );
    let asked = store.line("container prune").ok();
    assert_eq!(
        asked,
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
    );
    assert_eq!(
        store.line("container prune -f --filter label=k=w").ok(),
        "Total reclaimed space: 0B"
    );
    let id = store.line("inspect -f {{.Id}} nine").ok();
    assert_eq!(
        store.line("container prune -f").ok(),
        format!("Deleted Containers:\n{id}\n\nTotal reclaimed space: 0B")
    );
    let images = store.line("image prune -a -f").ok();
    assert!(
        images.starts_with("Deleted Images:\nuntagged: made:latest\ndeleted: sha256:"),
        "{images}"
    );
    for (line, text) in [
        (
            "container prune -f --filter frob=1",
            "Invalid filter 'frob'",
        ),
        (
            "system prune -f --filter until=abc",
            "failed to parse value as time or duration: \"abc\"",
        ),
    ] {
        store
            .line(line)
            .code(1)
            .says(&format!("Error response from daemon: {text}"));
    }
    store.line("rm -f two").ok();
    store.line("system prune -af").ok();
    assert_eq!(store.line("images -q").ok(), "");
    let events = |more: &str| {
        let format = "--format {{.Type}}:{{.Action}}:{{.Actor.Attributes.name}}";
        let line = format!("events --since 2h --until 0s {more} {format}");
        store.line(&line).ok()
    };
    assert_eq!(
        events("-f container=one -f type=container"),
        "container:create:one\ncontainer:attach:one\ncontainer:start:one\ncontainer:die:one"
    );
    assert_eq!(
        events("-f container=nine"),
        "container:rename:nine\ncontainer:commit:nine\ncontainer:destroy:nine"
    );
    let pruned = store.line("events --since 2h --until 0s -f event=prune --format {{.Type}}:{{.Actor.Attributes.reclaimed}}");
    let pruned = pruned.ok();
    assert!(
        pruned.starts_with("container:0\ncontainer:0\nimage:"),
        "{pruned}"
    );
    assert_eq!(
        events(
            "-f container=two -f event=start -f event=exec_start -f event=exec_die -f event=pause -f event=unpause -f event=die -f event=destroy"
        ),
        "container:start:two\ncontainer:exec_start: true :two\ncontainer:exec_die:two\ncontainer:pause:two\n\
         container:unpause:two\ncontainer:die:two\ncontainer:destroy:two"
    );
    let plain = store
        .line("events --since 2h --until 0s -f event=die -f label=k=v")
        .ok();
    assert!(
        plain.contains(&format!(
            " container die {id} (exitCode=0, image=bb, k=v, name=one)"
        )),
        "{plain}"
    );
    store
        .line("events --since abc --until 0s")
        .code(1)
        .says("failed to parse value as time or duration: \"abc\"");
}

#[test]
fn root_fuse_volumes_are_counted_pruned_and_noted() {
    let store = Store::with_busybox(Who::Root);
    let script = "head -c 5000 /dev/zero > /v/file";
    let run = [
        "run",
        "--name",
        "dfc",
        "-v",
        "dfv:/v",
        "-v",
        "/anonymous",
        "bb",
    ];
    store.mille(run.iter().chain(&["sh", "-c", script])).ok();
    let volume = "{{range .Volumes}}{{if eq .Name \"dfv\"}}{{.Links}} {{.Size}}{{end}}{{end}}";
    let used = store.mille(["system", "df", "-v", "--format", volume]).ok();
    assert_eq!(used, "1 5kB");
    let table = store.line("system df -v").ok();
    for line in [
        "Images space usage:",
        "REPOSITORY   TAG       IMAGE ID       CREATED        SIZE      SHARED SIZE   UNIQUE SIZE   CONTAINERS",
        "Local Volumes space usage:",
        "dfv",
        "CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED",
    ] {
        let found = |shown: &str| {
            shown.split_whitespace().eq(line.split_whitespace()) || shown.starts_with(line)
        };
        assert!(table.lines().any(found), "{line} in {table}");
    }
    store
        .line("system prune -f --volumes --filter until=24h")
        .code(1)
        .says("ERROR: The \"until\" filter is not supported with \"--volumes\"");
    let asked = store.line("system prune --volumes --filter label!=x").ok();
    assert!(
        asked.contains("  - all anonymous volumes not used by at least one container\n")
            && asked.contains("\n\n  Items to be pruned will be filtered with:\n  - label!=x\n"),
        "{asked}"
    );
    // Only what nobody gave a name.
    let pruned = store.line("system prune -f --volumes").ok();
    assert!(
        pruned.contains("Deleted Volumes:\n") && !pruned.contains("dfv"),
        "{pruned}"
    );
    assert_eq!(store.line("volume ls -q").ok(), "dfv");
    store.line("volume rm dfv").ok();
    let format = "--format {{.Action}}:{{.Actor.Attributes.destination}}";
    let events = format!("events --since 2h --until 0s -f volume=dfv {format}");
    let none = "<no value>";
    assert_eq!(
        store.line(&events).ok(),
        format!("create:{none}\nmount:/v\nunmount:{none}\ndestroy:{none}")
    );
}
