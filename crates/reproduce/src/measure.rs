//! Scores of all conditions with their confidence intervals.
//!
//! An interval takes both the scenes and the seeds as drawn from more: the bootstrap draws seeds with replacement and
//! scenes with replacement, the same scenes for every seed of a draw (Efron and Tibshirani 1993, chapter 8).

use super::conditions::{BLIND, CONDITIONS};
use super::plan::Plan;
use super::say::Said;
use super::scenes::World;
use anyhow::{Context, Result};
use limber_eval::metrics::vqa::{Answers, answer_scores};
use limber_eval::metrics::{Measure, Scores, WordClasses, caption_scores, tokenise};
use limber_world::{Colour, Shape, Size};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// A score over all seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Value {
    /// Over all seeds together.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Of each seed alone.
    pub seeds: Vec<f64>,
}

impl Value {
    /// Whether this interval lies above the other, so that the two are disjoint.
    pub fn above(&self, other: &Self) -> bool {
        self.low > other.high
    }
}

/// The scores of a condition by their names.
pub type Row = BTreeMap<String, Value>;

/// The scores of all conditions by their names, and `blind_answers`: the language model alone with the questions.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Table {
    /// Condition to scores.
    pub rows: BTreeMap<String, Row>,
}

impl Table {
    /// One score.
    pub fn get(&self, condition: &str, score: &str) -> Option<&Value> {
        self.rows.get(condition)?.get(score)
    }
}

/// The name of the row of questions without images.
pub const TEXT_ALONE: &str = "text_alone";

/// Classes of words, as the table names them.
pub const CLASSES: [&str; 4] = ["colour", "shape", "size", "relation"];

/// The words of each class; the two relations that canonical captions name.
fn classes() -> Json {
    let words = |all: &mut dyn Iterator<Item = &'static str>| -> Vec<&'static str> { all.collect() };
    json!({
        "colour": words(&mut Colour::ALL.iter().map(|c| c.word())),
        "shape": words(&mut Shape::ALL.iter().map(|s| s.word())),
        "size": words(&mut Size::ALL.iter().map(|s| s.word())),
        "relation": ["left of", "above"],
    })
}

/// The name of VQA accuracy in the table.
pub fn accuracy(shots: usize) -> String {
    format!("accuracy.{shots}")
}

/// Scores every condition; `said` holds a run for every seed of the plan, in its order.
///
/// # Errors
/// Runs of another number of seeds or scenes than the plan's.
pub fn table(said: &BTreeMap<&str, Vec<Said>>, world: &World, plan: &Plan) -> Result<Table> {
    let mut table = Table::default();
    for condition in &CONDITIONS {
        let runs = said.get(condition.name).with_context(|| format!("no run of {}", condition.name))?;
        table.rows.insert(condition.name.to_string(), row(runs, world, plan)?);
    }
    let blind = said.get(BLIND).with_context(|| format!("no run of {BLIND}"))?;
    let mut alone = Row::new();
    for shots in &plan.shots {
        let runs: Vec<&[String]> = blind.iter().map(|s| s.blind_answers[shots].as_slice()).collect();
        let scores = answers(&runs, world);
        alone.extend(values(&scores, plan, world.held.len(), |_| accuracy(*shots)));
    }
    table.rows.insert(TEXT_ALONE.to_string(), alone);
    Ok(table)
}

fn row(runs: &[Said], world: &World, plan: &Plan) -> Result<Row> {
    let scenes = world.held.len();
    // All seeds in one list, seed by seed: what is counted over a set is counted over all of them.
    let captions: Vec<String> = runs.iter().flat_map(|run| run.captions.iter().cloned()).collect();
    let references: Vec<Vec<String>> =
        runs.iter().flat_map(|_| world.held.iter().map(|seen| vec![seen.caption.clone()])).collect();
    let classes = WordClasses::from_value(&classes())?;
    let items = tokenise(&captions, &references);
    let (scores, _) = caption_scores(&items, None, Some(&classes));
    // Single words come out as `class/word`; a class says enough here.
    let scores: Scores = scores.into_iter().filter(|(name, _)| !name.contains('/')).collect();
    let mut row: Row = values(&scores, plan, scenes, str::to_string).collect();
    for shots in &plan.shots {
        let said: Vec<&[String]> = runs.iter().map(|run| run.answers[shots].as_slice()).collect();
        row.extend(values(&answers(&said, world), plan, scenes, |_| accuracy(*shots)));
    }
    Ok(row)
}

/// Accuracy alone, in percent.
fn answers(runs: &[&[String]], world: &World) -> Scores {
    let truth: Vec<Answers> = world
        .held
        .iter()
        .map(|seen| Answers { answers: vec![seen.question.answer.clone(); 10], ..Answers::default() })
        .collect();
    let all = runs.iter().flat_map(|run| run.iter().map(String::as_str).zip(&truth));
    answer_scores(all).into_iter().filter(|(name, _)| name == "accuracy").collect()
}

fn values<'a>(
    scores: &'a Scores,
    plan: &'a Plan,
    scenes: usize,
    name: impl Fn(&str) -> String + 'a,
) -> impl Iterator<Item = (String, Value)> + 'a {
    scores.iter().map(move |(score, measure)| (name(score), value(measure, plan.seeds.len(), scenes, plan.draws)))
}

/// A measure over `seeds` times `scenes` items, seed by seed, with its interval.
fn value(measure: &Measure, seeds: usize, scenes: usize, draws: usize) -> Value {
    let mut drawn: Vec<f64> = (0..draws)
        .into_par_iter()
        .map(|draw| {
            let mut lots = ChaCha8Rng::seed_from_u64(0x95);
            lots.set_stream(draw as u64);
            let mut count = |n: usize| {
                let mut counts = vec![0u32; n];
                for _ in 0..n {
                    counts[((u128::from(lots.next_u64()) * n as u128) >> 64) as usize] += 1;
                }
                counts
            };
            let (of_seed, of_scene) = (count(seeds), count(scenes));
            measure.weighted(|i| of_seed[i / scenes] * of_scene[i % scenes])
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let value = measure.value();
    let at = |share: f64| drawn.get((share * (draws.max(1) - 1) as f64).round() as usize).copied().unwrap_or(value);
    let alone = |seed: usize| measure.weighted(|i| u32::from(i / scenes == seed));
    Value { value, low: at(0.025), high: at(0.975), seeds: (0..seeds).map(alone).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_takes_seeds_and_scenes_as_drawn() {
        // Seeds that differ and scenes that do not: the interval is that of the seeds.
        let seeds = Measure::Mean([0.2, 0.5, 0.8].into_iter().flat_map(|x| vec![x; 50]).collect());
        let found = value(&seeds, 3, 50, 2000);
        assert!((found.value - 0.5).abs() < 1e-12 && (found.low - 0.2).abs() < 1e-9 && (found.high - 0.8).abs() < 1e-9);
        assert!(found.seeds.iter().zip([0.2, 0.5, 0.8]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        // Scenes that differ alike in every seed: 1.96 standard errors of one seed's scenes, not of all 600 items.
        let scenes = Measure::Mean((0..600).map(|i| f64::from(i % 2)).collect());
        let found = value(&scenes, 3, 200, 4000);
        let half = 1.96 * (0.25f64 / 200.0).sqrt();
        assert!(
            (found.high - 0.5 - half).abs() < 0.12 * half && (0.5 - found.low - half).abs() < 0.12 * half,
            "{found:?}"
        );
    }

    #[test]
    fn intervals_are_disjoint_or_not() {
        let value = |low, high| Value { value: low, low, high, seeds: vec![] };
        assert!(value(2.0, 3.0).above(&value(1.0, 1.9)));
        assert!(!value(2.0, 3.0).above(&value(1.0, 2.0)));
    }
}
