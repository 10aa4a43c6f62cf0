//! `limber reproduce --out DIR [--quick]`: the paper's experiment in miniature, and its report.

use super::{output, threads};
use anyhow::{Context, Result};
use clap::Args;
use limber_config::MAX_THREADS;
use limber_pipeline::built_in;
use limber_reproduce::{Options, Plan, reproduce};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Output folder; stages that are complete there are not run again
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder of the experiment's configs: configs/world of limber's repository
    #[arg(long, value_name = "DIR", default_value = "configs/world")]
    configs: PathBuf,
    /// Run every stage with few scenes and steps, to see that it works
    #[arg(long)]
    quick: bool,
    /// Seeds of the stitches, separated by commas [default: those of the plan]
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Number of optimiser steps [default: the configs']
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Number of training scenes
    #[arg(long, value_name = "N")]
    train_scenes: Option<u64>,
    /// Number of held-out scenes
    #[arg(long, value_name = "N")]
    held_scenes: Option<u64>,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS as i64))]
    threads: Option<u16>,
    /// Print the scores as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    threads::start(arguments.threads.map(usize::from))?;
    let mut plan = if arguments.quick { Plan::quick() } else { Plan::full() };
    if !arguments.seeds.is_empty() {
        plan.seeds.clone_from(&arguments.seeds);
    }
    plan.steps = arguments.steps.or(plan.steps);
    plan.train_scenes = arguments.train_scenes.unwrap_or(plan.train_scenes);
    plan.held_scenes = arguments.held_scenes.unwrap_or(plan.held_scenes);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            // Asked twice: every stage is whole or not there.
            std::process::exit(130);
        }
        output::note("stopping after this step; the same command goes on; a second Ctrl-C stops at once");
    })
    .context("cannot listen to Ctrl-C")?;
    let options = Options { out: arguments.out.clone(), configs: arguments.configs.clone(), plan, stop: &stop };
    let outcome = reproduce(&options, &built_in::registry()?, &mut |stage| output::progress(stage))?;
    let report = outcome.report.display().to_string();
    if arguments.json {
        return output::json(&json!({"report": report, "scores": outcome.table.rows, "findings": outcome.findings}));
    }
    for finding in &outcome.findings {
        output::line(&format!("{}: {}", finding.name, finding.verdict.word()))?;
    }
    output::line(&report)
}
