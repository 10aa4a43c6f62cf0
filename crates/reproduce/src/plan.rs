//! Sizes and seeds of a reproduction.

use anyhow::{Context, Result, bail};
use limber_weights as weights;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// How much is drawn, trained and asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Seed of the world.
    pub world: u64,
    /// Scenes to train on.
    pub train_scenes: u64,
    /// Held-out scenes, each with one caption and one question.
    pub held_scenes: u64,
    /// Seeds of the stitches: their start and the order of the scenes.
    pub seeds: Vec<u64>,
    /// Optimiser steps; those of the configs where absent.
    pub steps: Option<usize>,
    /// Numbers of few-shot examples before the question.
    pub shots: Vec<usize>,
    /// Sets that are drawn for a confidence interval.
    pub draws: usize,
    /// Whether it only shows that the stages work: its numbers are judged by nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quick: bool,
}

impl Plan {
    /// Of the report in `docs/`: three seeds, the configs' steps.
    pub fn full() -> Self {
        Self {
            world: 5000,
            train_scenes: 4000,
            held_scenes: 400,
            seeds: vec![1, 2, 3],
            steps: None,
            shots: vec![0, 1, 2, 4],
            draws: 1000,
            quick: false,
        }
    }

    /// Everything once, in minutes: one seed, few steps. Its numbers show that the stages work, no more.
    pub fn quick() -> Self {
        Self {
            train_scenes: 600,
            held_scenes: 60,
            seeds: vec![1],
            steps: Some(60),
            draws: 300,
            quick: true,
            ..Self::full()
        }
    }

    /// The command of the plan.
    pub fn command(&self) -> String {
        let (mut command, usual) = match self.quick {
            true => (String::from("limber reproduce --out DIR --quick"), Self::quick()),
            false => (String::from("limber reproduce --out DIR"), Self::full()),
        };
        if self.seeds != usual.seeds {
            let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
            command += &format!(" --seeds {}", seeds.join(","));
        }
        if let Some(steps) = self.steps.filter(|_| self.steps != usual.steps) {
            command += &format!(" --steps {steps}");
        }
        for (flag, own, usual) in [
            ("train-scenes", self.train_scenes, usual.train_scenes),
            ("held-scenes", self.held_scenes, usual.held_scenes),
        ] {
            if own != usual {
                command += &format!(" --{flag} {own}");
            }
        }
        command
    }

    /// Writes the plan into `out`, or refuses a folder that another plan has used.
    ///
    /// # Errors
    /// Another plan, a folder that cannot be made.
    pub(super) fn keep(&self, out: &Path) -> Result<()> {
        let path = out.join("plan.json");
        if self.train_scenes == 0 || self.held_scenes == 0 || self.seeds.is_empty() || self.shots.is_empty() {
            bail!(
                "a plan of {} and {} scenes, {} seeds and {} numbers of shots is not allowed, each is at least 1",
                self.train_scenes,
                self.held_scenes,
                self.seeds.len(),
                self.shots.len()
            )
        }
        if !path.exists() {
            fs::create_dir_all(out).with_context(|| format!("cannot make folder {}", out.display()))?;
            return weights::replace(&path, serde_json::to_string_pretty(self)?.as_bytes());
        }
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let there: Self = serde_json::from_slice(&text).with_context(|| format!("{} is no plan", path.display()))?;
        if there != *self {
            bail!(
                "{} holds the results of another plan, {}; asked for is {}: name another folder",
                out.display(),
                serde_json::to_string(&there)?,
                serde_json::to_string(self)?
            )
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_makes_the_plan() {
        for (plan, expected) in [
            (Plan::full(), "limber reproduce --out DIR"),
            (Plan::quick(), "limber reproduce --out DIR --quick"),
            (
                Plan { seeds: vec![4, 5], steps: Some(9), held_scenes: 7, ..Plan::full() },
                "limber reproduce --out DIR --seeds 4,5 --steps 9 --held-scenes 7",
            ),
        ] {
            assert_eq!(plan.command(), expected);
        }
        // A full plan is written as it was before there was a mark for quick ones.
        assert!(!serde_json::to_string(&Plan::full()).expect("JSON").contains("quick"));
    }

    #[test]
    fn a_folder_keeps_its_plan() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("out");
        Plan::quick().keep(&out).expect("kept");
        Plan::quick().keep(&out).expect("the same plan again");
        let error = Plan::full().keep(&out).expect_err("another plan").to_string();
        assert!(error.contains("\"train_scenes\":600") && error.contains("name another folder"), "{error}");
        let error = Plan { seeds: vec![], ..Plan::quick() }.keep(&out).expect_err("no seed").to_string();
        assert!(error.contains("0 seeds") && error.contains("at least 1"), "{error}");
    }
}
