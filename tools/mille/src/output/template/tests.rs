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
fn templates_are_parsed_as_go_does() {
    for (source, want) in [
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if .Name}}x", "unexpected EOF"),
        (
            "{{range .Args}}{{else}}{{else}}{{end}}",
            "expected end; found {{else}}",
        ),
        ("{{}}", "missing value for command"),
        ("{{if}}x{{end}}", "missing value for if"),
        ("{{if .Name}}{{else if}}{{end}}", "missing value for if"),
        ("{{()}}", "missing value for parenthesized pipeline"),
        ("{{.Name}", "bad character U+007D '}'"),
        ("{{.Name }", "unexpected \"}\" in operand"),
        ("{{.Name | | .Path}}", "unexpected \"|\" in command"),
        ("{{.Name := 1}}", "unexpected \":=\" in operand"),
        ("{{,}}", "unexpected \",\" in command"),
        ("{{.Name,.Path}}", "unexpected \",\" in operand"),
        ("{{$x}}", "undefined variable \"$x\""),
        (
            "{{if .Name}}{{$x := 1}}{{end}}{{$x}}",
            "undefined variable \"$x\"",
        ),
        ("{{$a, $b := .Args}}", "too many declarations in command"),
        (
            "{{range $a, .Args}}{{end}}",
            "range can only initialize variables",
        ),
        ("{{\"abc}}", "unterminated quoted string"),
        ("{{`abc}}", "unterminated raw quoted string"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{.Name)}}", "unexpected right paren"),
        ("{{a:b}}", "function \"a\" not defined"),
        ("{{.Name:}}", "expected :="),
        ("{{break}}", "{{break}} outside {{range}}"),
        (
            "{{.Name | 3}}",
            "non executable command in pipeline stage 2",
        ),
        ("{{1.Foo}}", "bad number syntax: \"1.F\""),
        ("{{nil.Foo}}", "unexpected . after term \"nil\""),
        ("{{/* x", "unclosed comment"),
        ("{{/* x */ }}", "comment ends before closing delimiter"),
        ("{{template}}", "unexpected \"}}\" in template clause"),
        ("{{define}}{{end}}", "unexpected \"}}\" in define clause"),
        ("{{.Name}}{{end if}}", "unexpected <if> in end"),
        (
            "{{len .Name extraordinary}}",
            "function \"extraordinary\" not defined",
        ),
        ("{{.Name \"a long text\"$}}", "unexpected \"$\" in operand"),
    ] {
        let want = format!("template: :1: {want}");
        assert_eq!(render(source).unwrap_err(), want, "{source}");
    }
    assert_eq!(
        render("x{{.Name\n\n").unwrap_err(),
        "template: :3: unclosed action started at :1"
    );
    assert_eq!(
        render("x{{.Name\n \"").unwrap_err(),
        "template: :2: unterminated quoted string in action started at :1"
    );
}

#[test]
fn what_go_parses_is_parsed() {
    for (source, want) in [
        ("{{/* said */}}a{{- /* more */ -}} b", "ab"),
        ("a {{- .Path -}} b", "ashb"),
        ("{{if false}}a{{else if true}}b{{else}}c{{end}}", "b"),
        ("{{with false}}a{{else with .Path}}b{{.}}{{end}}", "bsh"),
        (
            "{{range $i, $a := .Args}}{{if $i}} {{end}}{{$i}}:{{$a}}{{end}}",
            "0:-c 1:exit 0",
        ),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        (
            "{{range .Args}}{{break}}{{end}}{{range .ExecIDs}}x{{else}}none{{end}}",
            "none",
        ),
        (
            "{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .Path}}",
            "<sh>",
        ),
        ("{{block \"t\" .Path}}[{{.}}]{{end}}", "[sh]"),
        (
            "{{print 0x10 1_000 'a' 1.5 -2 `raw` \"q\\t\"}}",
            "16 1000 97 1.5 -2rawq\t",
        ),
        (
            "{{(index .Mounts 0).Type}}{{$.Path}}{{$m := index .Mounts 0}}{{$m.Type}}",
            "bindshbind",
        ),
        ("{{not .State.Running | printf \"%v\" | len}}", "4"),
        (
            "{{and .Path .State.ExitCode}}{{or .State.ExitCode .Path}}",
            "0sh",
        ),
        ("{{.Path\n| upper}}", "SH"),
    ] {
        assert_eq!(render(source).as_deref(), Ok(want), "{source}");
    }
}

/// Each of them, and Go's text without its beginning.
fn fails(cases: &[(&str, &str)]) {
    for (source, want) in cases {
        let want = format!("template: :{want}");
        assert_eq!(render(source).unwrap_err(), want, "{source}");
    }
}

#[test]
fn what_is_called_wrongly_fails_where_go_says() {
    fails(&[
        (
            "{{nil}}",
            "1:2: executing \"\" at <nil>: nil is not a command",
        ),
        (
            "{{len}}",
            "1:2: executing \"\" at <len>: wrong number of args for len: want 1 got 0",
        ),
        (
            "{{upper .Path .Path}}",
            "1:2: executing \"\" at <upper>: wrong number of args for upper: want 1 got 2",
        ),
        (
            "{{.Path | split}}",
            "1:10: executing \"\" at <split>: wrong number of args for split: want 2 got 1",
        ),
        (
            "{{index}}",
            "1:2: executing \"\" at <index>: wrong number of args for index: want at least 1 got 0",
        ),
        (
            "{{index .Args 9}}",
            "1:2: executing \"\" at <index .Args 9>: error calling index: index out of range: 9",
        ),
        (
            "{{index .Args 2}}",
            "1:2: executing \"\" at <index .Args 2>: error calling index: reflect: slice index out of range",
        ),
        (
            "{{index (index .NetworkSettings.Ports \"80/tcp\") 0}}",
            "1:2: executing \"\" at <index (index .NetworkSettings.Ports \"80/tcp\") 0>: error calling index: index of \
             untyped nil",
        ),
        (
            "{{index .Config.Cmd 0}}",
            "1:2: executing \"\" at <index .Config.Cmd 0>: error calling index: index of untyped nil",
        ),
        (
            "{{index .Args \"a\"}}",
            "1:2: executing \"\" at <index .Args \"a\">: error calling index: cannot index slice/array with type string",
        ),
    ]);
}

#[test]
fn what_is_not_there_fails_where_go_says() {
    fails(&[
        (
            "{{range .Name}}{{end}}",
            "1:8: executing \"\" at <.Name>: range can't iterate over /plain",
        ),
        (
            "{{range $i, $v := .State.Running}}{{end}}",
            "1:24: executing \"\" at <.State.Running>: range can't iterate over false",
        ),
        (
            "{{.Name.Foo}}",
            "1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type interface {}",
        ),
        (
            "{{with .Name}}{{.Foo}}{{end}}",
            "1:16: executing \"\" at <.Foo>: can't evaluate field Foo in type string",
        ),
        (
            "{{range .Args}}{{.Foo}}{{end}}",
            "1:17: executing \"\" at <.Foo>: can't evaluate field Foo in type interface {}",
        ),
        (
            "{{$x := .Name}}{{$x.Foo}}",
            "1:19: executing \"\" at <$x.Foo>: can't evaluate field Foo in type string",
        ),
        (
            "{{(index .Args 0).Foo}}",
            "1:15: executing \"\" at <0>: can't evaluate field Foo in type string",
        ),
        (
            "{{.HostConfig.CapAdd.Foo}}",
            "1:13: executing \"\" at <.HostConfig.CapAdd.Foo>: nil pointer evaluating interface {}.Foo",
        ),
        (
            "{{range .Mounts}}{{.Nope}}{{end}}",
            "1:19: executing \"\" at <.Nope>: map has no entry for key \"Nope\"",
        ),
    ]);
}

#[test]
fn what_has_another_type_fails_where_go_says() {
    fails(&[
        (
            "{{upper .State.ExitCode}}",
            "1:14: executing \"\" at <.State.ExitCode>: wrong type for value; expected string; got json.Number",
        ),
        (
            "{{join .Mounts \",\"}}",
            "1:7: executing \"\" at <.Mounts>: wrong type for value; expected []string; got []interface {}",
        ),
        (
            "{{upper 5}}",
            "1:8: executing \"\" at <5>: expected string; found 5",
        ),
        (
            "{{truncate .Path \"x\"}}",
            "1:17: executing \"\" at <\"x\">: expected integer; found \"x\"",
        ),
        (
            "{{.Name \"x\"}}",
            "1:2: executing \"\" at <.Name>: Name is not a method but has arguments",
        ),
        (
            "{{true 1}}",
            "1:2: executing \"\" at <true>: can't give argument to non-function true",
        ),
        (
            "{{eq .Path}}",
            "1:2: executing \"\" at <eq .Path>: error calling eq: missing argument for comparison",
        ),
        (
            "{{if eq .Path 1}}{{end}}",
            "1:5: executing \"\" at <eq .Path 1>: error calling eq: incompatible types for comparison",
        ),
        (
            "{{len .State.Running}}",
            "1:2: executing \"\" at <len .State.Running>: error calling len: len of type bool",
        ),
        (
            "{{define \"t\"}}\n{{.Nope}}{{end}}{{template \"t\" .}}",
            "2:2: executing \"t\" at <.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{template \"x\"}}",
            "1:11: executing \"\" at <{{template \"x\"}}>: template \"x\" not defined",
        ),
    ]);
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
    for (source, want) in [
        (
            "{{.Label}}",
            "at <.Label>: wrong number of args for Label: want 1 got 0",
        ),
        (
            "{{.Tag 1}}",
            "at <.Tag>: wrong number of args for Tag: want 0 got 1",
        ),
        (
            "{{.Tag.Nope}}",
            "at <.Tag.Nope>: can't evaluate field Nope in type string",
        ),
    ] {
        let error = render(source).unwrap_err();
        assert!(error.ends_with(want), "{source}: {error}");
    }
}
