//! Scores of all conditions with their confidence intervals, and paired comparisons of them.
//!
//! An interval takes both the scenes and the seeds as drawn from more: the bootstrap draws seeds with replacement and
//! scenes with replacement, the same scenes for every seed of a draw (Efron and Tibshirani 1993, chapter 8). Two scores are
//! compared by the test of `limber metrics --compare`, which exchanges what was said scene by scene.

use super::conditions::{BLIND, CONDITIONS};
use super::findings::{CAPTIONS, rules};
use super::plan::Plan;
use super::say::Said;
use super::scenes::World;
use anyhow::{Context, Result};
use limber_eval::metrics::statistics::{Comparison, Interval, Resampling, compare, intervals};
use limber_eval::metrics::vqa::{Answers, answer_scores};
use limber_eval::metrics::{Measure, Scores, WordClasses, caption_scores, tokenise};
use limber_world::{Colour, Shape, Size};
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

/// The scores of a condition by their names.
pub type Row = BTreeMap<String, Value>;

/// A score of a condition, by their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ScoreName {
    /// The condition.
    pub condition: String,
    /// The score.
    pub score: String,
}

impl ScoreName {
    /// The score of a condition.
    pub fn new(condition: &str, score: &str) -> Self {
        Self { condition: condition.to_string(), score: score.to_string() }
    }
}

/// Two scores over the same scenes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// The first.
    pub first: ScoreName,
    /// The second.
    pub second: ScoreName,
    /// The first less the second, with the test's p-value.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// The scores of all conditions by their names, and `text_alone`: the language model alone with the questions.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Table {
    /// Condition to scores.
    pub rows: BTreeMap<String, Row>,
    /// Paired comparisons: captions of every two conditions, and what the findings rest on. None of a quick plan.
    pub comparisons: Vec<Compared>,
}

impl Table {
    /// One score.
    pub fn get(&self, condition: &str, score: &str) -> Option<&Value> {
        self.rows.get(condition)?.get(score)
    }

    /// The first score less the second, where they were compared.
    pub fn compared(&self, first: &ScoreName, second: &ScoreName) -> Option<Comparison> {
        self.comparisons.iter().find_map(|one| match (&one.first, &one.second) {
            (a, b) if (a, b) == (first, second) => Some(one.comparison),
            (a, b) if (a, b) == (second, first) => {
                let Comparison { difference, interval, p } = one.comparison;
                Some(Comparison {
                    difference: -difference,
                    interval: Interval { low: -interval.high, high: -interval.low },
                    p,
                })
            }
            _ => None,
        })
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
    let mut measures: BTreeMap<&str, Scores> = BTreeMap::new();
    for condition in &CONDITIONS {
        let runs = said.get(condition.name).with_context(|| format!("no run of {}", condition.name))?;
        measures.insert(condition.name, scores(runs, world, plan)?);
    }
    let blind = said.get(BLIND).with_context(|| format!("no run of {BLIND}"))?;
    let alone = plan.shots.iter().flat_map(|shots| {
        let runs: Vec<&[String]> = blind.iter().map(|s| s.blind_answers[shots].as_slice()).collect();
        answers(&runs, world, *shots)
    });
    measures.insert(TEXT_ALONE, alone.collect());
    let rows = measures.iter().map(|(name, scores)| (name.to_string(), row(scores, plan))).collect();
    let comparisons = if plan.quick { Vec::new() } else { comparisons(&measures, plan) };
    Ok(Table { rows, comparisons })
}

/// How intervals are drawn and runs compared.
fn resampling(plan: &Plan) -> Resampling {
    Resampling { draws: plan.draws, seeds: plan.seeds.len(), ..Resampling::default() }
}

/// Captions of every two conditions, and the pairs of the findings' rules.
fn comparisons(measures: &BTreeMap<&str, Scores>, plan: &Plan) -> Vec<Compared> {
    let mut pairs: Vec<[ScoreName; 2]> = Vec::new();
    for (at, first) in CONDITIONS.iter().enumerate() {
        for second in &CONDITIONS[at + 1..] {
            pairs.push([ScoreName::new(first.name, CAPTIONS), ScoreName::new(second.name, CAPTIONS)]);
        }
    }
    for pair in rules(&plan.shots).into_iter().flat_map(|rule| rule.pairs) {
        if !pairs.iter().any(|[a, b]| [a, b] == [&pair[0], &pair[1]] || [b, a] == [&pair[0], &pair[1]]) {
            pairs.push(pair);
        }
    }
    let find = |name: &ScoreName| -> Option<&Measure> {
        let scores = measures.get(name.condition.as_str())?;
        scores.iter().find(|(score, _)| *score == name.score).map(|(_, measure)| measure)
    };
    let found: Vec<([ScoreName; 2], (&Measure, &Measure))> = pairs
        .into_iter()
        .filter_map(|pair| {
            let both = (find(&pair[0])?, find(&pair[1])?);
            Some((pair, both))
        })
        .collect();
    let both: Vec<(&Measure, &Measure)> = found.iter().map(|(_, both)| *both).collect();
    let compared = compare(&both, resampling(plan));
    let pairs = found.into_iter().map(|(pair, _)| pair).zip(compared);
    pairs.map(|([first, second], comparison)| Compared { first, second, comparison }).collect()
}

/// What a condition said, measured: all seeds in one list, seed by seed, so that what is counted over a set is counted over
/// all of them.
fn scores(runs: &[Said], world: &World, plan: &Plan) -> Result<Scores> {
    let captions: Vec<String> = runs.iter().flat_map(|run| run.captions.iter().cloned()).collect();
    let references: Vec<Vec<String>> =
        runs.iter().flat_map(|_| world.held.iter().map(|seen| vec![seen.caption.clone()])).collect();
    let classes = WordClasses::from_value(&classes())?;
    let items = tokenise(&captions, &references);
    let (scores, _) = caption_scores(&items, None, Some(&classes));
    // Single words come out as `class/word`; a class says enough here.
    let mut scores: Scores = scores.into_iter().filter(|(name, _)| !name.contains('/')).collect();
    for shots in &plan.shots {
        let said: Vec<&[String]> = runs.iter().map(|run| run.answers[shots].as_slice()).collect();
        scores.extend(answers(&said, world, *shots));
    }
    Ok(scores)
}

/// Accuracy alone, in percent.
fn answers(runs: &[&[String]], world: &World, shots: usize) -> Scores {
    let truth: Vec<Answers> = world
        .held
        .iter()
        .map(|seen| Answers { answers: vec![seen.question.answer.clone(); 10], ..Answers::default() })
        .collect();
    let all = runs.iter().flat_map(|run| run.iter().map(String::as_str).zip(&truth));
    let of_accuracy = |(name, measure)| (name == "accuracy").then(|| (accuracy(shots), measure));
    answer_scores(all).into_iter().filter_map(of_accuracy).collect()
}

/// Values over `seeds` times `scenes` items, seed by seed, with their intervals.
fn row(scores: &Scores, plan: &Plan) -> Row {
    let measures: Vec<&Measure> = scores.iter().map(|(_, measure)| measure).collect();
    let intervals = intervals(&measures, resampling(plan));
    let value = |(measure, interval): (&&Measure, Option<Interval>)| {
        let value = measure.value();
        let Interval { low, high } = interval.unwrap_or(Interval { low: value, high: value });
        let scenes = measure.len() / plan.seeds.len().max(1);
        let alone = |seed: usize| measure.weighted(|i| u32::from(i / scenes.max(1) == seed));
        Value { value, low, high, seeds: (0..plan.seeds.len()).map(alone).collect() }
    };
    let names = scores.iter().map(|(name, _)| name.clone());
    names.zip(measures.iter().zip(intervals).map(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_over_all_seeds_and_of_each() {
        let measure = Measure::Mean([0.2, 0.5, 0.8].into_iter().flat_map(|x| vec![x; 50]).collect());
        let plan = Plan { seeds: vec![7, 8, 9], draws: 500, ..Plan::full() };
        let row = row(&vec![("x".to_string(), measure)], &plan);
        let found = &row["x"];
        assert!((found.value - 0.5).abs() < 1e-12 && found.low < 0.3 && found.high > 0.7, "{found:?}");
        assert!(found.seeds.iter().zip([0.2, 0.5, 0.8]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn a_comparison_is_found_both_ways() {
        let measure = |at: f64| Measure::Mean((0..90).map(|i| at + f64::from(i % 5)).collect());
        let scores = |at: f64| -> Scores { vec![(CAPTIONS.to_string(), measure(at))] };
        let measures = CONDITIONS.iter().enumerate().map(|(n, c)| (c.name, scores(n as f64))).collect();
        let plan = Plan { draws: 200, ..Plan::full() };
        let all = Table { comparisons: comparisons(&measures, &plan), ..Table::default() };
        // Every two of eight; what the rules ask for beside captions is not there.
        assert_eq!(all.comparisons.len(), 28);
        let (clip, beit) = (ScoreName::new("clip", CAPTIONS), ScoreName::new("beit", CAPTIONS));
        let (one, other) = (all.compared(&clip, &beit).expect("found"), all.compared(&beit, &clip).expect("found"));
        assert!((one.difference + 2.0).abs() < 1e-9 && one.difference == -other.difference, "{one:?} {other:?}");
        assert!(one.interval.low == -other.interval.high && one.p == other.p && one.p < 0.05);
        assert!(all.compared(&clip, &ScoreName::new("clip", "Bleu_4")).is_none());
    }
}
