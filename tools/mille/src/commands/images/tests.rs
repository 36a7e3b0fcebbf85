use mille_store::config::{ContainerConfig, ImageConfig};
use mille_store::{Digest, ImageId};

use super::*;

fn image(seed: &str, created: &str, names: &[&str], parent: Option<&str>) -> Image {
    let id = |seed: &str| ImageId::from(Digest::of(seed.as_bytes()));
    let labels = (seed == "labelled").then(|| [("a".to_owned(), "b".to_owned())].into());
    Image {
        id: id(seed),
        config: ImageConfig {
            created: created.to_owned(),
            config: Some(ContainerConfig {
                labels,
                ..ContainerConfig::default()
            }),
            ..ImageConfig::default()
        },
        raw: Vec::new(),
        names: names
            .iter()
            .map(|name| Reference::parse(name).unwrap())
            .collect(),
        size: 1_984_394,
        layers: Vec::new(),
        parent: parent.map(id),
        last_tagged: None,
    }
}

fn store() -> Vec<Image> {
    vec![
        image("base", "2026-11-21T02:25:00Z", &["bb:latest"], None),
        image("middle", "2026-11-21T02:25:01Z", &[], Some("base")),
        image(
            "labelled",
            "2026-11-21T02:25:02Z",
            &["bb:v1", "localhost:5000/team/bb:x"],
            Some("middle"),
        ),
        image("loose", "2026-11-21T02:25:03Z", &[], None),
    ]
}

fn shown(filters: &[&str], patterns: &[&str], all: bool, format: &str) -> String {
    let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
    let filters = Filters::read(&VERB, &filters, FILTERS).unwrap();
    let now = "2026-11-21T02:25:04Z".parse().unwrap();
    let look = Look {
        truncate: true,
        digests: false,
        now,
    };
    let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
    let images = select(store(), &filters, all, &Window::default()).unwrap();
    let rows: Vec<Row> = images
        .iter()
        .flat_map(|image| rows(image, &patterns, look))
        .collect();
    columns(false)
        .sheet(format)
        .unwrap()
        .lay_out(&rows)
        .unwrap()
}

#[test]
fn tables_are_dockers() {
    let ids: Vec<String> = store().iter().map(|image| image.id.short()).collect();
    assert_eq!(
        shown(&[], &[], false, ""),
        format!(
            "REPOSITORY               TAG       IMAGE ID       CREATED         SIZE\n\
             <none>                   <none>    {}   1 second ago    1.98MB\n\
             bb                       v1        {}   2 seconds ago   1.98MB\n\
             localhost:5000/team/bb   x         {}   2 seconds ago   1.98MB\n\
             bb                       latest    {}   4 seconds ago   1.98MB\n",
            ids[3], ids[2], ids[2], ids[0]
        )
    );
    assert_eq!(
        columns(true).sheet("").unwrap().lay_out(&[]).unwrap(),
        "REPOSITORY   TAG       DIGEST    IMAGE ID   CREATED   SIZE\n"
    );
}

#[test]
fn filters_are_dockers() {
    let format = "{{.Repository}}:{{.Tag}}";
    for (filters, patterns, all, want) in [
        (&[][..], &["b*"][..], false, "bb:v1\nbb:latest\n"),
        (&[], &["bb:v1"], false, "bb:v1\n"),
        (&[], &["*/*/bb"], false, "localhost:5000/team/bb:x\n"),
        (&[], &["*/bb"], false, ""),
        (&["dangling=true"], &[], false, "<none>:<none>\n"),
        (&["dangling=false"], &["bb"], false, "bb:v1\nbb:latest\n"),
        (&["label=a"], &["bb"], false, "bb:v1\n"),
        (&["label=a=c"], &[], false, ""),
        (
            &[],
            &[],
            true,
            "<none>:<none>\nbb:v1\nlocalhost:5000/team/bb:x\n<none>:<none>\nbb:latest\n",
        ),
    ] {
        assert_eq!(
            shown(filters, patterns, all, format),
            want,
            "{filters:?} {patterns:?}"
        );
    }
    let refused = |filter: &str| match Filters::read(&VERB, &[filter.to_owned()], FILTERS)
        .and_then(|filters| select(store(), &filters, false, &Window::default()))
    {
        Err(Failure::Daemon(text) | Failure::Flag { text, .. }) => text,
        other => format!("{other:?}"),
    };
    assert_eq!(refused("frob=1"), "Invalid filter 'frob'");
    assert_eq!(
        refused("dangling=maybe"),
        "Invalid filter 'dangling=[maybe]'"
    );
    assert_eq!(
        refused("frob"),
        "invalid argument \"frob\" for \"-f, --filter\" flag: bad format of filter (expected name=value)"
    );
}

#[test]
fn json_is_dockers() {
    let now = "2026-11-21T02:25:04Z".parse().unwrap();
    let loose = &store()[3];
    let rows = rows(
        loose,
        &[],
        Look {
            truncate: true,
            digests: false,
            now,
        },
    );
    let json = columns(false)
        .sheet("json")
        .unwrap()
        .lay_out(&rows)
        .unwrap();
    assert!(
        json.starts_with("{\"Containers\":\"N/A\",\"CreatedAt\":\"2026-11-21 "),
        "{json}"
    );
    assert!(json.ends_with(",\"SharedSize\":\"N/A\",\"Size\":\"1.98MB\",\"Tag\":\"\\u003cnone\\u003e\",\"UniqueSize\":\"N/A\",\"VirtualSize\":\"1.984MB\"}\n"), "{json}");
}
