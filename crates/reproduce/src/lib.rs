//! The paper's experiment in miniature: does a linear map from a frozen image encoder into a frozen text-only language
//! model carry more, the more language the encoder saw?
//!
//! ```text
//! OUT/plan.json                      sizes and seeds; another plan in the same folder is refused
//! OUT/run.json                       when it began
//! OUT/world/{train,val}/             scenes, as `limber shapes` draws them
//! OUT/features/<condition>/          features of every scene, standardised, and what undoes that
//! OUT/runs/<condition>/seed-<n>/     log and stitch of a run, what it said of the held-out scenes
//! OUT/report.md, report.html, files/ tables, curves, samples, findings
//! ```
//!
//! Each stage leaves its result whole or not at all and is passed over where that is there, so a run that was cut short
//! goes on. Everything is a function of the plan and the configs.

mod blocks;
mod conditions;
mod encode;
mod figures;
mod findings;
mod fit;
mod measure;
mod plan;
mod record;
mod report;
mod say;
mod scenes;

pub use conditions::{CONDITIONS, Condition};
pub use findings::{Finding, Verdict, findings};
pub use measure::{Compared, Row, ScoreName, Table, Value};
pub use plan::Plan;

use anyhow::{Context, Result, bail, ensure};
use limber_config::{self as config, Config};
use limber_core::Registry;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What a reproduction is told from outside.
pub struct Options<'a> {
    /// The folder of all results.
    pub out: PathBuf,
    /// The folder of the world's configs, `configs/world` of the repository.
    pub configs: PathBuf,
    /// Sizes and seeds.
    pub plan: Plan,
    /// Set when the work shall stop; it goes on from there later.
    pub stop: &'a AtomicBool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Scores of every condition.
    pub table: Table,
    /// What they say of the paper's findings.
    pub findings: Vec<Finding>,
    /// The report in Markdown; `report.html` lies beside it.
    pub report: PathBuf,
}

/// Does what is not done yet; `tell` hears of every stage.
///
/// # Errors
/// A folder with another plan, configs that are not there, what the components, the data or the disk report, or a stop.
pub fn reproduce(options: &Options, registry: &Registry, tell: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let Options { plan, stop, .. } = options;
    // Configs count relative paths from their own folder.
    let out = &std::path::absolute(&options.out)?;
    plan.keep(out)?;
    let configs = load(&options.configs)?;
    let mut clock = Clock { begin: Instant::now(), tell };
    let world = scenes::World::draw(plan, &out.join("world"))?;
    clock.done(&format!("{} and {} scenes", world.train.len(), world.held.len()));
    let mut said = BTreeMap::new();
    let mut logs = BTreeMap::new();
    for condition in &CONDITIONS {
        let name = condition.name;
        let config = &configs[name];
        let set = encode::features(condition, config, registry, &world, &out.join("features").join(name))
            .with_context(|| format!("features of {name}"))?;
        clock.done(&format!("{name}: features {} x {}", set.tokens, set.width));
        for seed in &plan.seeds {
            if stop.load(Ordering::Relaxed) {
                bail!("stopped; the same command goes on from here")
            }
            let run = fit::Run { config, set: &set, plan, seed: *seed, folder: run_folder(out, name, *seed) };
            let context = || format!("{name}, seed {seed}");
            run.train(registry, stop).with_context(context)?;
            let answers = say::held_out(&run, registry, &world).with_context(context)?;
            logs.insert((name, *seed), run.log().with_context(context)?);
            said.entry(name).or_insert_with(Vec::new).push(answers);
            clock.done(&format!("{name}, seed {seed}"));
        }
    }
    let table = measure::table(&said, &world, plan)?;
    let findings = findings(&table);
    let report = report::write(out, plan, &world, &said, &logs, &table, &findings)?;
    clock.done("report");
    Ok(Outcome { table, findings, report })
}

/// Where a run's files lie.
fn run_folder(out: &Path, name: &str, seed: u64) -> PathBuf {
    out.join("runs").join(name).join(format!("seed-{seed}"))
}

/// The config of every condition. The no-image control is the first encoder's, whose features it does not read.
fn load(folder: &Path) -> Result<BTreeMap<&'static str, Config>> {
    ensure!(
        folder.is_dir(),
        "{} is no folder: --configs names configs/world of limber's repository, whose components lie in assets/world",
        folder.display()
    );
    CONDITIONS
        .iter()
        .map(|condition| {
            let mut config = config::load(&folder.join(condition.config), &[])?.config;
            // Stages write absolute paths; relative ones of the config count from its folder wherever we stand.
            config.folder = std::path::absolute(&config.folder)?;
            Ok((condition.name, config))
        })
        .collect()
}

/// Tells of stages with the seconds since the last one.
struct Clock<'a> {
    begin: Instant,
    tell: &'a mut dyn FnMut(&str),
}

impl Clock<'_> {
    fn done(&mut self, what: &str) {
        (self.tell)(&format!("{what}: {:.1} s", self.begin.elapsed().as_secs_f64()));
        self.begin = Instant::now();
    }
}
