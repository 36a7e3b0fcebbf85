use std::sync::Arc;

use super::functions::{text, words};
use super::*;
use crate::output::json::Tree;

const CONTAINER: &str = r#"{"Id":"0123","Created":"2026-11-21T02:38:18Z","Path":"sh","Args":["-c","exit 0"],
    "State":{"Status":"exited","Running":false,"ExitCode":0},"Name":"/plain","ExecIDs":null,
    "HostConfig":{"Binds":["/w/w:/host:ro"],"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},
    "RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"Memory":52428800,"CapAdd":null,"PidsLimit":null},
    "Mounts":[{"Type":"bind","Name":"","Source":"/w/w"}],
    "Config":{"Env":["A=1","B=two words"],"Cmd":null,"Labels":{"lab":"<val>","nolab":""},"Volumes":{"/anon":{}},"Image":"bb"},
    "NetworkSettings":{"IPAddress":"","Ports":{"53/udp":[{"HostIp":"0.0.0.0","HostPort":"32769"}],"99/tcp":null},
    "Networks":{"none":{"IPAddress":"10.77.0.9"}}}}"#;

fn container() -> Data {
    Data::object(&serde_json::from_str(CONTAINER).unwrap(), &["SizeRw"])
}

fn render(source: &str) -> Result<String, String> {
    Format::parse("", source, Missing::Key)?.render(&container())
}

#[test]
fn templates_are_dockers() {
    for (source, want) in [
        ("{{.Name}}", "/plain"),
        (
            "{{.State.Running}} {{.State.ExitCode}} {{.HostConfig.Memory}}",
            "false 0 52428800",
        ),
        ("{{.NetworkSettings.IPAddress}}", ""),
        (
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            "10.77.0.9",
        ),
        (
            "{{range $k,$v := .NetworkSettings.Ports}}{{$k}}={{$v}} {{end}}",
            "53/udp=[{0.0.0.0 32769}] 99/tcp=[] ",
        ),
        (
            "{{(index (index .NetworkSettings.Ports \"53/udp\") 0).HostPort}}",
            "32769",
        ),
        (
            "{{.Args}} {{.ExecIDs}} {{.HostConfig.RestartPolicy}} {{.HostConfig.PidsLimit}}",
            "[-c exit 0] [] {on-failure 3} <nil>",
        ),
        (
            "{{.Config.Env}} {{.Config.Labels}} {{.HostConfig.Binds}}",
            "[A=1 B=two words] map[lab:<val> nolab:] [/w/w:/host:ro]",
        ),
        (
            "{{.Config.Labels.lab}}|{{.Config.Labels.none}}",
            "<val>|<no value>",
        ),
        (
            "{{.Config.Volumes}} {{.Mounts}} {{.HostConfig.LogConfig}}",
            "map[/anon:{}] [{bind  /w/w}] {json-file map[max-size:1m]}",
        ),
    ] {
        assert_eq!(render(source).as_deref(), Ok(want), "{source}");
    }
}

#[test]
fn functions_are_dockers() {
    for (source, want) in [
        (
            "{{json .State}}{{json .ExecIDs}}",
            "{\"Status\":\"exited\",\"Running\":false,\"ExitCode\":0}null",
        ),
        (
            "{{json .Config.Labels}}",
            "{\"lab\":\"<val>\",\"nolab\":\"\"}",
        ),
        (
            "{{json .Name}} {{json .State.ExitCode}} {{json (split .Path \"h\")}}",
            "\"/plain\" 0 [\"s\",\"\"]",
        ),
        (
            "{{index .Config.Labels \"lab\"}}|{{index .Config.Labels \"none\"}}",
            "<val>|",
        ),
        (
            "{{if .State.Running}}yes{{else}}no{{end}} {{eq .State.ExitCode 0}} {{printf \"%s-%d\" .Name .State.ExitCode}}",
            "no true /plain-0",
        ),
        (
            "{{len .Config.Env}} {{range .Config.Env}}[{{.}}]{{end}}",
            "2 [A=1][B=two words]",
        ),
        (
            "{{join .Config.Env \",\"}} {{upper .Path}} {{title .Path}} {{pad .Path 2 3}}| {{truncate .Path 1}} {{split .Path \"h\"}} {{println .Path}}",
            "A=1,B=two words SH Sh   sh   | s [s ] sh\n",
        ),
        ("{{.SizeRw}}", "<nil>"),
        (
            "{{with .Config}}{{.Image}}{{end}} {{$x := .Path}}{{$x}}",
            "bb sh",
        ),
        ("{{upper .Path}} {{.Path | printf \"%-6s|\"}}", "SH sh    |"),
    ] {
        assert_eq!(render(source).as_deref(), Ok(want), "{source}");
    }
    assert_eq!(
        render("{{json .}}").unwrap(),
        serde_json::from_str::<Tree>(CONTAINER).unwrap().compact()
    );
}

#[test]
fn errors_are_gos() {
    for (source, want) in [
        (
            "{{.Nope}}",
            "template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{.State.Nope}}",
            "template: :1:8: executing \"\" at <.State.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{.state.running}}",
            "template: :1:8: executing \"\" at <.state.running>: map has no entry for key \"state\"",
        ),
        (
            "{{.State.Health.Status}}",
            "template: :1:8: executing \"\" at <.State.Health.Status>: map has no entry for key \"Health\"",
        ),
        (
            "x\n {{.Nope}}",
            "template: :2:3: executing \"\" at <.Nope>: map has no entry for key \"Nope\"",
        ),
        ("{{.Names", "template: :1: unclosed action"),
        ("{{", "template: :1: unclosed action"),
        (
            "{{frob .Name}}",
            "template: :1: function \"frob\" not defined",
        ),
    ] {
        assert_eq!(render(source).unwrap_err(), want, "{source}");
    }
}

#[test]
fn rows_have_methods_and_escaped_json() {
    let tree = Tree::texts([("ID", "0123".to_owned()), ("Tag", "<none>".to_owned())]);
    let label: gotmpl::ValueFunc = Arc::new(|args| Ok(text(format!("label {}", words(args, 0)))));
    let data = Data::row(&tree, vec![("Label", label)]);
    let render = |source| {
        Format::parse("", source, Missing::Field("*formatter.ContainerContext"))
            .unwrap()
            .render(&data)
    };
    assert_eq!(
        render("{{.Label \"k1\"}} {{json .Tag}}").unwrap(),
        "label k1 \"<none>\""
    );
    assert_eq!(
        render("{{json .}}").unwrap(),
        "{\"ID\":\"0123\",\"Tag\":\"\\u003cnone\\u003e\"}"
    );
    assert_eq!(
        render("{{.Nope}}").unwrap_err(),
        "template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *formatter.ContainerContext"
    );
}
