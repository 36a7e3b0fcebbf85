//! Samples, ratios, means.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::contender::{CONTENDERS, Contender};
use super::stage::Ground;
use crate::machine::Machine;
use crate::rounds::median;

/// One workload on one file system.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) place: &'static str,
    pub(super) workload: String,
    /// Of each contender, in the order of the rounds; `None`: it cannot do it.
    samples_ms: BTreeMap<&'static str, Option<Vec<f64>>>,
    /// Of `millefs`, by kind.
    pub(super) requests: BTreeMap<String, u64>,
}

impl Measured {
    pub(super) fn new(ground: Ground, workload: &str) -> Self {
        let samples = CONTENDERS.iter().map(|one| (one.name(), Some(Vec::new())));
        Self {
            place: ground.name(),
            workload: workload.to_owned(),
            samples_ms: samples.collect(),
            requests: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, contender: usize, milliseconds: f64) {
        if let Some(Some(samples)) = self.samples_ms.get_mut(CONTENDERS[contender].name()) {
            samples.push(milliseconds);
        }
    }

    pub(super) fn fail(&mut self, contender: usize) {
        self.samples_ms.insert(CONTENDERS[contender].name(), None);
    }

    pub(super) fn has_failed(&self, contender: usize) -> bool {
        self.samples_ms[CONTENDERS[contender].name()].is_none()
    }

    fn median(&self, contender: Contender) -> Option<f64> {
        let samples = self.samples_ms[contender.name()].as_ref()?;
        (!samples.is_empty()).then(|| median(samples))
    }

    /// Time of a contender as a multiple of overlayfs's.
    pub(super) fn ratio(&self, contender: Contender) -> Option<f64> {
        Some(self.median(contender)? / self.median(Contender::Overlayfs)?)
    }

    fn requests(&self) -> String {
        let pairs = self.requests.iter().map(|(kind, n)| format!("{kind} {n}"));
        pairs.collect::<Vec<_>>().join(", ")
    }

    /// A row of the table.
    pub(super) fn line(&self) -> String {
        let base = self
            .median(Contender::Overlayfs)
            .map_or_else(|| "-".to_owned(), |median| format!("{median:.2}"));
        let ratio = |contender| {
            self.ratio(contender)
                .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        format!(
            "| {} | {} | {base} | {} | {} | {} | {} |",
            self.workload,
            self.place,
            ratio(Contender::Millefs),
            ratio(Contender::FuseOverlayfs),
            ratio(Contender::Plain),
            self.requests()
        )
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    rounds: usize,
    pub(super) results: Vec<Measured>,
}

impl Report {
    pub(super) fn new(rounds: usize) -> Result<Self> {
        Ok(Self {
            machine: Machine::here()?,
            rounds,
            results: Vec::new(),
        })
    }

    /// Name, and the ratios of `millefs` and fuse-overlayfs where there are both.
    pub(super) fn ratios(&self) -> Vec<(String, f64, Option<f64>)> {
        let row = |one: &Measured| {
            let ours = one.ratio(Contender::Millefs)?;
            let theirs = one.ratio(Contender::FuseOverlayfs);
            Some((format!("{}, {}", one.workload, one.place), ours, theirs))
        };
        self.results.iter().filter_map(row).collect()
    }

    fn mean(&self, place: Option<Ground>, contender: Contender) -> f64 {
        let of_place = |one: &&Measured| place.is_none_or(|place| one.place == place.name());
        let ratios: Vec<f64> = self
            .results
            .iter()
            .filter(of_place)
            .filter_map(|one| one.ratio(contender))
            .collect();
        let logs: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
        (logs / ratios.len() as f64).exp()
    }

    /// The table and the geometric means.
    pub(super) fn print(&self) {
        println!(
            "\n| workload | on | overlayfs ms | millefs | fuse-overlayfs | plain | requests of millefs |"
        );
        println!("|---|---|---:|---:|---:|---:|---|");
        for one in &self.results {
            println!("{}", one.line());
        }
        for place in [Some(Ground::Tmpfs), Some(Ground::Disk), None] {
            println!(
                "| **geometric mean** | {} | | **{:.2}** | **{:.2}** | **{:.2}** | |",
                place.map_or("both", Ground::name),
                self.mean(place, Contender::Millefs),
                self.mean(place, Contender::FuseOverlayfs),
                self.mean(place, Contender::Plain)
            );
        }
    }

    /// Writes the raw samples with the machine they come from.
    pub(super) fn save(&self, file: &Path) -> Result<()> {
        std::fs::write(file, serde_json::to_string(self)? + "\n")
            .with_context(|| file.display().to_string())
    }
}
