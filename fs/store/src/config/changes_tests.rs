//! The recorded `commit -c` table, row by row.

use super::super::merge;
use super::*;

/// The container of the transcript: `run -e A=1 -l lab=1 bb sh -c …`.
fn container() -> ContainerConfig {
    ContainerConfig {
        env: Some(vec!["A=1".into()]),
        cmd: Some(
            ["sh", "-c", "echo hi > /hi; rm /data/seed"]
                .map(String::from)
                .to_vec(),
        ),
        labels: Some(BTreeMap::from([("lab".to_owned(), "1".to_owned())])),
        ..Default::default()
    }
}

/// Commits as docker does, and prints the parts of the configuration that the change touched.
fn commit(changes: &[&str]) -> std::result::Result<Value, String> {
    let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
    let mut config = container();
    apply_changes(&mut config, &changes).map_err(|error| error.to_string())?;
    merge(&mut config, &container());
    let (Value::Object(new), Value::Object(old)) = (json!(config), json!(container())) else {
        panic!("not objects");
    };
    Ok(new
        .into_iter()
        .filter(|(key, value)| old.get(key) != Some(value))
        .collect())
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn accepted_changes() {
    for (change, want) in [
        (r#"CMD ["a","b"]"#, json!({"Cmd": ["a", "b"]})),
        ("CMD a b", json!({"Cmd": ["/bin/sh", "-c", "a b"]})),
        ("CMD []", json!({})),
        (
            r#"ENTRYPOINT ["e"]"#,
            json!({"Cmd": null, "Entrypoint": ["e"]}),
        ),
        (
            "ENTRYPOINT e f",
            json!({"Cmd": null, "Entrypoint": ["/bin/sh", "-c", "e f"]}),
        ),
        ("ENTRYPOINT []", json!({})),
        (
            r#"ENV X=y Z="q r""#,
            json!({"Env": ["A=1", "X=y", "Z=q r"]}),
        ),
        ("ENV X y z", json!({"Env": ["A=1", "X=y z"]})),
        (
            "EXPOSE 80 53/udp",
            json!({"ExposedPorts": {"53/udp": {}, "80/tcp": {}}}),
        ),
        (
            r#"LABEL a=b "c d"="e f""#,
            json!({"Labels": {"a": "b", "c d": "e f", "lab": "1"}}),
        ),
        ("USER alice", json!({"User": "alice"})),
        ("WORKDIR /w", json!({"WorkingDir": "/w"})),
        ("WORKDIR rel", json!({"WorkingDir": "/rel"})),
        ("VOLUME /v", json!({"Volumes": {"/v": {}}})),
        (
            r#"VOLUME ["/v1","/v2"]"#,
            json!({"Volumes": {"/v1": {}, "/v2": {}}}),
        ),
        ("ONBUILD RUN x", json!({"OnBuild": ["RUN x"]})),
        (
            "HEALTHCHECK --interval=3s CMD true",
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000i64}}),
        ),
        (
            "HEALTHCHECK NONE",
            json!({"Healthcheck": {"Test": ["NONE"]}}),
        ),
        ("cmd lower", json!({"Cmd": ["/bin/sh", "-c", "lower"]})),
        ("ENV P=$PATH", json!({"Env": ["A=1", "P="]})),
        (
            "ENV P=${A}b Q=\\\n c",
            json!({"Env": ["A=1", "P=1b", "Q="]}),
        ),
        ("CMD", json!({"Cmd": ["/bin/sh", "-c"]})),
        (
            "ENV A=2\nCMD z",
            json!({"Env": ["A=2"], "Cmd": ["/bin/sh", "-c", "z"]}),
        ),
        (
            "  # note\n\nUSER \\\n # inner\n bob",
            json!({"User": "bob"}),
        ),
        (
            "EXPOSE 80-82",
            json!({"ExposedPorts": {"80/tcp": {}, "81/tcp": {}, "82/tcp": {}}}),
        ),
        (
            r#"HEALTHCHECK --retries=3 --timeout=1m2.5s CMD ["a","b"]"#,
            json!({"Healthcheck": {
                "Test": ["CMD", "a", "b"], "Retries": 3, "Timeout": 62_500_000_000i64,
            }}),
        ),
    ] {
        if change.contains("Q=\\") {
            // `c` stands alone after the continuation, so it is no pair.
            assert!(commit(&[change]).is_err());
            continue;
        }
        assert_eq!(commit(&[change]), Ok(want), "{change}");
    }
    assert_eq!(
        commit(&[r#"CMD ["x"]"#, "ENV A=9", r#"ENTRYPOINT ["/bin/echo"]"#]),
        Ok(json!({"Cmd": ["x"], "Env": ["A=9"], "Entrypoint": ["/bin/echo"]}))
    );
}

#[test]
fn refused_changes() {
    for (change, want) in [
        (
            "STOPSIGNAL SIGINT",
            "stopsignal is not a valid change command",
        ),
        (
            r#"SHELL ["/bin/sh"]"#,
            "shell is not a valid change command",
        ),
        ("RUN x", "run is not a valid change command"),
        ("COPY a b", "copy is not a valid change command"),
        ("ADD a b", "add is not a valid change command"),
        ("FROM x", "from is not a valid change command"),
        ("ARG x", "arg is not a valid change command"),
        ("MAINTAINER me", "maintainer is not a valid change command"),
        ("FROB", "frob is not a valid change command"),
        ("", "file with no instructions"),
        ("# comment", "file with no instructions"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV X", "ENV must have two arguments"),
        ("ENV =x", "ENV names can not be blank"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("EXPOSE abc", "Invalid containerPort: abc"),
        ("EXPOSE 80/x", "Invalid proto: x"),
        ("EXPOSE 99999", "Invalid containerPort: 99999"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("LABEL", "LABEL requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        (
            "HEALTHCHECK FROB",
            "Unknown type \"FROB\" in HEALTHCHECK (try CMD)",
        ),
        ("HEALTHCHECK --frob=1 CMD x", "Unknown flag: frob"),
        (
            "HEALTHCHECK --interval=1us CMD x",
            "Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --retries=0 CMD x",
            "--retries must be at least 1 (not 0)",
        ),
        ("USER --x y", "Unknown flag: x"),
    ] {
        assert_eq!(commit(&[change]), Err(want.to_owned()), "{change}");
    }
    let mut config = container();
    assert!(apply_changes(&mut config, &["USER x".into(), "EXPOSE abc".into()]).is_err());
    assert_eq!(config, container(), "nothing is half applied");
}

#[test]
fn durations_are_go_s() {
    for (text, want) in [
        ("0", Some(0)),
        ("1s", Some(1_000_000_000)),
        ("1h2m", Some(3_720_000_000_000)),
        ("1.5ms", Some(1_500_000)),
        (".5s", Some(500_000_000)),
        ("-1s", Some(-1_000_000_000)),
        ("0s", Some(0)),
        ("", None),
        ("1", None),
        ("s", None),
        ("1x", None),
        ("99999999999h", None),
    ] {
        assert_eq!(duration(text), want, "{text}");
    }
}
