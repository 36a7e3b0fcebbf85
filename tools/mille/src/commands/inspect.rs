//! `mille inspect`: everything known of containers and images, as JSON or through a template.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use mille_engine::{Engine, HOST_BASE, NEVER};
use mille_store::{Image, ResolveError, Store};
use serde::Serialize;

use super::version::BROKEN_TEMPLATE;
use super::{Arity, Verb, volume};
use crate::arguments::{self, is_on, switch, value};
use crate::context::Context;
use crate::failure::{Failure, chain, daemon};
use crate::output;
use crate::output::json::Tree;
use crate::output::template::{Data, Format, Missing};

/// The command for anything.
pub(crate) static VERB: Verb = Verb {
    name: "inspect",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on containers, images and volumes",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: |command| {
        size(format(command)).arg(value(
            "type",
            None,
            "string",
            "Only inspect objects of the given type: container, image, volume",
        ))
    },
    run: |context, matches| {
        let kind = match arguments::text(matches, "type").unwrap_or_default() {
            "" => Kind::Any,
            "container" => Kind::Container,
            "image" => Kind::Image,
            "volume" => Kind::Volume,
            other => {
                return Err(Failure::plain(format!(
                    "unknown type: {other:?}: must be one of \"container\", \"image\", \"volume\""
                )));
            }
        };
        run(context, matches, kind, is_on(matches, "size"))
    },
};

/// `mille container inspect`.
pub(crate) static CONTAINER: Verb = Verb {
    name: "container inspect",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Display detailed information on one or more containers",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: |command| size(format(command)),
    run: |context, matches| run(context, matches, Kind::Container, is_on(matches, "size")),
};

/// `mille image inspect`.
pub(crate) static IMAGE: Verb = Verb {
    name: "image inspect",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Display detailed information on one or more images",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: format,
    run: |context, matches| run(context, matches, Kind::Image, false),
};

/// `mille volume inspect`.
pub(crate) static VOLUME: Verb = Verb {
    name: "volume inspect",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Display detailed information on one or more volumes",
    arity: Arity::AtLeast(1),
    flags_first: false,
    flags: format,
    run: |context, matches| run(context, matches, Kind::Volume, false),
};

fn format(command: Command) -> Command {
    command.arg(value(
        "format",
        Some('f'),
        "string",
        "Format output: json or a Go template",
    ))
}

fn size(command: Command) -> Command {
    command.arg(switch(
        "size",
        Some('s'),
        "Display total file sizes if the type is container",
    ))
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Container,
    Image,
    Volume,
}

/// Keys of pointers that templates may read although the JSON leaves them out.
const ABSENT: &[&str] = &["SizeRootFs", "SizeRw"];

fn run(
    context: &Context,
    matches: &ArgMatches,
    kind: Kind,
    sizes: bool,
) -> Result<ExitCode, Failure> {
    let template = match arguments::text(matches, "format").unwrap_or_default() {
        "" | "json" => None,
        source => Some(
            Format::parse("", source, Missing::Key).map_err(|text| Failure::Plain {
                text: format!("template parsing error: {text}"),
                code: BROKEN_TEMPLATE,
            })?,
        ),
    };
    // How much a container takes is read from its files, which may belong to several users.
    let engine = if sizes {
        context.layers()?
    } else {
        context.records()?
    };
    let mut errors = Vec::new();
    let mut found = Vec::new();
    for typed in arguments::words(matches) {
        match look_up(&engine, &typed, kind, sizes) {
            Ok(tree) => found.push(tree),
            Err(text) => errors.push(text),
        }
    }
    let shown = match &template {
        Some(template) => render(template, &found, &mut errors),
        None if arguments::text(matches, "format") == Some("json") => {
            Tree::List(found).compact() + "\n"
        }
        None => Tree::List(found).pretty() + "\n",
    };
    output::emit(&shown)?;
    if errors.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::plain(errors.join("\n")))
    }
}

/// One line for each object; when there is none, docker prints an empty one.
fn render(template: &Format, found: &[Tree], errors: &mut Vec<String>) -> String {
    let mut text = String::new();
    for tree in found {
        match template.render(&Data::object(tree, ABSENT)) {
            Ok(line) => text.push_str(&(line + "\n")),
            Err(error) => errors.push(format!("template parsing error: {error}")),
        }
    }
    if text.is_empty() {
        "\n".to_owned()
    } else {
        text
    }
}

/// Finds an object; errors are docker's texts.
fn look_up(engine: &Engine, typed: &str, kind: Kind, sizes: bool) -> Result<Tree, String> {
    if kind == Kind::Volume {
        let found = engine.volume(typed);
        return found
            .map(|volume| volume::object(&volume))
            .map_err(|error| daemon(chain(&error)));
    }
    if kind != Kind::Image {
        match engine.find(typed) {
            Ok(container) => {
                let inspected = engine
                    .inspect(&container, sizes)
                    .map_err(|error| daemon(chain(&error)))?;
                return tree(&inspected);
            }
            Err(mille_engine::Error::NoSuchContainer(_)) if kind == Kind::Any => {}
            Err(error) => return Err(daemon(chain(&error))),
        }
    }
    let store = engine.store();
    if typed == HOST_BASE {
        let refused = engine.resolve_image(typed).map(|_| ());
        return Err(refused.map_or_else(|error| daemon(chain(&error)), |()| String::new()));
    }
    let id = match (store.resolve(typed), kind) {
        (Ok(id), _) => id,
        (Err(ResolveError::NotFound(_) | ResolveError::Invalid(_)), Kind::Any) => {
            if let Ok(volume) = engine.volume(typed) {
                return Ok(volume::object(&volume));
            }
            return Err(format!("Error: No such object: {typed}"));
        }
        (Err(_), Kind::Image) if typed.is_empty() => {
            return Err("Error: No such image: ".to_owned());
        }
        (Err(error @ ResolveError::NotFound(_)), _) => {
            return Err(daemon(format!("no such image: {typed}: {error}")));
        }
        (Err(error), _) => return Err(daemon(chain(&error))),
    };
    let image = store.image(&id).map_err(|error| daemon(chain(&error)))?;
    if sizes {
        output::complain("WARNING: --size ignored for image");
    }
    tree(&image_object(store, &image))
}

fn tree(value: &impl Serialize) -> Result<Tree, String> {
    Tree::of(value).map_err(|failure| format!("{failure:?}"))
}

/// What inspect shows of an image, docker's keys in docker's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageObject {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: String,
    comment: String,
    created: String,
    container: String,
    container_config: Tree,
    docker_version: String,
    author: String,
    config: Tree,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    os_version: String,
    size: u64,
    virtual_size: u64,
    graph_driver: Driver,
    #[serde(rename = "RootFS")]
    root_fs: Layers,
    metadata: Metadata,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Driver {
    data: Directories,
    name: &'static str,
}

/// Where the layers lie.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directories {
    #[serde(skip_serializing_if = "String::is_empty")]
    lower_dir: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    upper_dir: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Layers {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

fn image_object(store: &Store, image: &Image) -> ImageObject {
    let config = &image.config;
    let part = |part: &Option<mille_store::ContainerConfig>| {
        // An image without a configuration shows an empty one.
        let part = part.clone().unwrap_or_default();
        Tree::of(&part).unwrap_or(Tree::Null)
    };
    let mut layers = image
        .layers
        .iter()
        .rev()
        .map(|layer| store.layer_dir(layer).to_string_lossy().into_owned());
    let upper_dir = layers.next().unwrap_or_default();
    let lower: Vec<String> = layers.collect();
    ImageObject {
        id: image.id.to_string(),
        repo_tags: image.repo_tags(),
        repo_digests: image.repo_digests(),
        parent: image
            .parent
            .map(|parent| parent.to_string())
            .unwrap_or_default(),
        comment: config.comment().to_owned(),
        created: config.created.clone(),
        container: config.container.clone(),
        container_config: part(&config.container_config),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        config: part(&config.config),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size: image.size,
        virtual_size: image.size,
        graph_driver: Driver {
            data: Directories {
                lower_dir: lower.join(":"),
                upper_dir,
            },
            name: "mille",
        },
        root_fs: Layers {
            kind: "layers",
            layers: image.layers.iter().map(ToString::to_string).collect(),
        },
        metadata: Metadata {
            last_tag_time: image
                .last_tagged
                .map_or_else(|| NEVER.to_owned(), |moment| moment.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_go_on_after_errors() {
        let found = [
            Tree::texts([("Name", "/plain".to_owned())]),
            Tree::texts([("Id", "x".to_owned())]),
        ];
        let template = Format::parse("", "{{.Name}}", Missing::Key).unwrap();
        let mut errors = Vec::new();
        assert_eq!(render(&template, &found, &mut errors), "/plain\n");
        let want = "template parsing error: template: :1:2: executing \"\" at <.Name>: map has no entry for key \"Name\"";
        assert_eq!(errors, [want]);
        assert_eq!(render(&template, &[], &mut errors), "\n");
        let sizes = Format::parse("", "{{.SizeRw}}", Missing::Key).unwrap();
        assert_eq!(render(&sizes, &found[..1], &mut Vec::new()), "<nil>\n");
    }

    #[test]
    fn nothing_found_is_an_empty_list() {
        assert_eq!(Tree::List(Vec::new()).pretty(), "[]");
    }
}
