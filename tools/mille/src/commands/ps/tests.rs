use mille_engine::{ContainerId, HostConfig, State};
use mille_store::config::ContainerConfig;

use super::*;
use mille_engine::{ContainerMount, MountPoint, MountType};

fn sample(name: &str, words: &[&str], state: State) -> Container {
    let mut words = words.iter().map(|word| (*word).to_owned());
    Container {
        id: ContainerId::parse(&"0123456789abcdef".repeat(4)).unwrap(),
        name: name.to_owned(),
        created: "2026-11-21T02:29:51.9Z".to_owned(),
        ground: Ground::Host,
        layers: Vec::new(),
        on_host: true,
        image_name: "bb".to_owned(),
        path: words.next().unwrap(),
        args: words.collect(),
        config: ContainerConfig {
            labels: Some(
                [
                    ("k1".to_owned(), "v1".to_owned()),
                    ("k2".to_owned(), "v2".to_owned()),
                ]
                .into(),
            ),
            ..ContainerConfig::default()
        },
        host_config: HostConfig {
            network_mode: "none".to_owned(),
            ..HostConfig::default()
        },
        mounts: vec![bind("/w/w", "/host"), bind("/a/path/that/is/long", "/x")],
        state,
        restart_count: 0,
    }
}

fn bind(source: &str, destination: &str) -> ContainerMount {
    ContainerMount {
        point: MountPoint {
            kind: MountType::Bind,
            name: String::new(),
            source: source.to_owned(),
            destination: destination.to_owned(),
            driver: String::new(),
            mode: String::new(),
            rw: true,
            propagation: "rprivate".to_owned(),
        },
        anonymous: false,
        no_copy: false,
        non_recursive: false,
        make_source: true,
        spec: None,
    }
}

fn state(status: Status, exit_code: i32) -> State {
    let started = if status == Status::Created {
        NEVER
    } else {
        "2026-11-21T02:29:52.2Z"
    };
    State {
        status,
        running: matches!(status, Status::Running | Status::Paused),
        exit_code,
        started_at: started.to_owned(),
        finished_at: if status == Status::Exited {
            "2026-11-21T02:29:53Z"
        } else {
            NEVER
        }
        .to_owned(),
        ..State::default()
    }
}

fn now() -> Timestamp {
    "2026-11-21T02:30:00Z".parse().unwrap()
}

fn rows() -> Vec<Row> {
    [
        sample(
            "newline",
            &["sh", "-c", "echo a\necho b; sleep 1000"],
            state(Status::Running, 0),
        ),
        sample("paused1", &["sleep", "1000"], state(Status::Paused, 0)),
        sample("exited3", &["sh", "-c", "exit 3"], state(Status::Exited, 3)),
        sample("failed", &["nosuchcmd"], state(Status::Created, 127)),
    ]
    .iter()
    .map(|container| row(container, "bb".to_owned(), None, now(), true))
    .collect()
}

#[test]
fn tables_are_dockers() {
    assert_eq!(
        columns(false).sheet("").unwrap().lay_out(&rows()).unwrap(),
        "CONTAINER ID   IMAGE     COMMAND                   CREATED         STATUS                     PORTS     NAMES\n\
         0123456789ab   bb        \"sh -c 'echo a\\necho …\"   9 seconds ago   Up 7 seconds                         newline\n\
         0123456789ab   bb        \"sleep 1000\"              9 seconds ago   Up 7 seconds (Paused)                paused1\n\
         0123456789ab   bb        \"sh -c 'exit 3'\"          9 seconds ago   Exited (3) 7 seconds ago             exited3\n\
         0123456789ab   bb        \"nosuchcmd\"               9 seconds ago   Created                              failed\n"
    );
    assert_eq!(
        columns(true).sheet("").unwrap().lay_out(&[]).unwrap(),
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES     SIZE\n"
    );
}

#[test]
fn formats_are_dockers() {
    let sizes = Sizes {
        read_write_bytes: 123_456,
        root_fs_bytes: 2_107_850,
    };
    let container = sample("running1", &["sleep", "1000"], state(Status::Running, 0));
    let row = [row(&container, "bb".to_owned(), Some(sizes), now(), true)];
    let show = |format: &str| columns(false).sheet(format).unwrap().lay_out(&row).unwrap();
    assert_eq!(
        show("{{.Size}}|{{.Labels}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.Label \"k2\"}}"),
        "123kB (virtual 2.11MB)|k1=v1,k2=v2|/w/w,/a/path/that/i…|0|none|v2\n"
    );
    let raw = show("raw");
    assert!(raw.starts_with("container_id: 0123456789ab\nimage: bb\ncommand: \"sleep 1000\"\ncreated_at: 2026-11-21 "), "{raw}");
    assert!(
        raw.ends_with(
            "state: running\nstatus: Up 7 seconds\nnames: running1\nlabels: k1=v1,k2=v2\nports:\n\n"
        ),
        "{raw}"
    );
    let json = show("json");
    assert!(
        json.starts_with("{\"Command\":\"\\\"sleep 1000\\\"\",\"CreatedAt\":"),
        "{json}"
    );
    assert!(
        json.contains("\"Platform\":null,\"Ports\":\"\",\"RunningFor\":\"9 seconds ago\""),
        "{json}"
    );
}

#[test]
fn whole_widths_with_no_trunc() {
    let container = sample(
        "x",
        &["sh", "-c", "echo \"quoted\" $HOME; sleep 1000"],
        state(Status::Running, 0),
    );
    let row = [row(&container, "bb".to_owned(), None, now(), false)];
    let text = columns(false)
        .sheet("{{.ID}} {{.Command}} {{.Mounts}}")
        .unwrap()
        .lay_out(&row)
        .unwrap();
    let id = "0123456789abcdef".repeat(4);
    assert_eq!(
        text,
        format!(
            "{id} \"sh -c 'echo \\\"quoted\\\" $HOME; sleep 1000'\" /w/w,/a/path/that/is/long\n"
        )
    );
}
