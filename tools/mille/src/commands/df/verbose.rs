//! `mille system df --verbose`: each image, container and volume.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use mille_engine::{Container, Engine, Sizes, Volume};
use mille_store::{DiffId, Image};

use crate::commands::{images, ps, volume};
use crate::failure::Failure;
use crate::output::human;
use crate::output::json::Tree;
use crate::output::rows::{List, Row};
use crate::output::template::{Data, Format, Missing};

/// What all takes, one row each.
pub(super) struct Details {
    images: Vec<Row>,
    containers: Vec<Row>,
    volumes: Vec<Row>,
}

impl Details {
    /// Measures everything; ids are cut for tables only.
    pub(super) fn of(engine: &Engine, truncate: bool) -> Result<Self, Failure> {
        let now = Timestamp::now();
        let containers = engine.containers()?;
        Ok(Self {
            images: image_rows(engine, truncate, now)?,
            containers: containers
                .iter()
                .map(|container| container_row(engine, container, truncate, now))
                .collect::<Result<_, _>>()?,
            volumes: engine
                .volumes()?
                .iter()
                .map(|volume| volume_row(engine, volume))
                .collect::<Result<_, _>>()?,
        })
    }

    /// As docker lays them out.
    pub(super) fn tables(&self) -> Result<String, Failure> {
        let section = |title: &str, list: &List, table: &str, rows: &[Row]| {
            let laid_out = list.sheet(&format!("table {table}"))?.lay_out(rows)?;
            Ok::<_, Failure>(format!("{title}\n\n{laid_out}\n"))
        };
        let images = section(
            "Images space usage:",
            &images::columns(false),
            "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
            &self.images,
        )?;
        let containers = section(
            "Containers space usage:",
            &ps::columns(true),
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
            &self.containers,
        )?;
        let volumes = section(
            "Local Volumes space usage:",
            &volume::columns(),
            "{{.Name}}\t{{.Links}}\t{{.Size}}",
            &self.volumes,
        )?;
        Ok(format!(
            "{images}{containers}{volumes}Build cache usage: 0B\n\n\
             CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n"
        ))
    }

    /// Through the user's own template, or as JSON.
    pub(super) fn formatted(self, format: &str) -> Result<String, Failure> {
        let list = |rows: Vec<Row>| Tree::List(rows.into_iter().map(|row| row.fields).collect());
        let all = Tree::Map(vec![
            ("Images".to_owned(), list(self.images)),
            ("Containers".to_owned(), list(self.containers)),
            ("Volumes".to_owned(), list(self.volumes)),
            ("BuildCache".to_owned(), Tree::List(Vec::new())),
        ]);
        if format == "json" {
            return Ok(format!("{}\n", all.escaped()));
        }
        let failed = |text| Failure::plain(format!("template parsing error: {text}"));
        let missing = Missing::Field("*formatter.diskUsageContext");
        let format = Format::parse("", format, missing).map_err(failed)?;
        let text = format.render(&Data::object(&all, &[])).map_err(failed)?;
        Ok(format!("{text}\n"))
    }
}

fn image_rows(engine: &Engine, truncate: bool, now: Timestamp) -> Result<Vec<Row>, Failure> {
    let images = images::newest_first(engine.store().images()?);
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for id in engine.images_in_use()? {
        *users.entry(id.to_string()).or_default() += 1;
    }
    let mut owners: BTreeMap<DiffId, usize> = BTreeMap::new();
    for image in &images {
        for layer in image.layers.iter().collect::<BTreeSet<_>>() {
            *owners.entry(*layer).or_default() += 1;
        }
    }
    let mut rows = Vec::new();
    for image in &images {
        let shared = shared_bytes(engine, image, &owners)?;
        for mut row in images::every_name(image, truncate, now) {
            row.set("Digest", String::new());
            row.set("SharedSize", human::size(shared, 4));
            row.set(
                "UniqueSize",
                human::size(image.size.saturating_sub(shared), 4),
            );
            let count = users.get(&image.id.to_string()).copied();
            row.set("Containers", count.unwrap_or_default().to_string());
            rows.push(row);
        }
    }
    Ok(rows)
}

/// What an image has in common with others.
fn shared_bytes(
    engine: &Engine,
    image: &Image,
    owners: &BTreeMap<DiffId, usize>,
) -> Result<u64, Failure> {
    let mut bytes = 0;
    for layer in &image.layers {
        if owners.get(layer).is_some_and(|count| *count > 1) {
            bytes += engine.store().layer_size(layer)?;
        }
    }
    Ok(bytes)
}

fn container_row(
    engine: &Engine,
    container: &Container,
    truncate: bool,
    now: Timestamp,
) -> Result<Row, Failure> {
    let written = Sizes {
        root_fs_bytes: 0,
        ..engine.sizes(container)?
    };
    let image = ps::image(engine, container, truncate);
    Ok(ps::row(container, image, Some(written), now, truncate))
}

fn volume_row(engine: &Engine, of: &Volume) -> Result<Row, Failure> {
    let mut row = volume::row(of);
    row.set("Links", engine.volume_users(&of.name)?.len().to_string());
    row.set("Size", human::size(engine.volume_bytes(of)?, 3));
    Ok(row)
}
