//! The pictures of a report, each for a page and for a telephone.

use super::conditions::{BLIND, CONDITIONS, Condition, named};
use super::findings::{CAPTIONS, Verdict, rules, title};
use super::measure::{CLASSES, ScoreName, TEXT_ALONE, Table, accuracy};
use super::plan::Plan;
use limber_charts::{Colour, Curve, Frame, Group, Interval, Key, Line, NARROW, Row, WIDE, bars, curves, forest};
use limber_eval::metrics::statistics::Comparison;
use std::collections::BTreeMap;

/// Points of a loss curve.
const POINTS: usize = 200;

/// Pictures by their names, those for telephones with the ending `-narrow`.
pub fn figures(plan: &Plan, logs: &BTreeMap<(&str, u64), Vec<f64>>, table: &Table) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (width, ending) in [(WIDE, ""), (NARROW, "-narrow")] {
        let mut add = |name: &str, picture| all.insert(format!("{name}{ending}"), picture);
        add("loss", loss(plan, logs, width));
        add("captions", captions(table, width));
        add("answers", answers(plan, table, width));
        add("words", words(table, width));
        if !table.comparisons.is_empty() {
            add("differences-captions", differences(plan, table, width, true));
            add("differences-answers", differences(plan, table, width, false));
        }
    }
    all
}

fn loss(plan: &Plan, logs: &BTreeMap<(&str, u64), Vec<f64>>, width: f64) -> String {
    let curve = |c: &Condition| {
        let logs: Vec<&Vec<f64>> = plan.seeds.iter().filter_map(|s| logs.get(&(c.name, *s))).collect();
        let is_full = c.trained || !c.sees();
        let line = if is_full { Line::Full } else { Line::Dashed };
        Curve { key: Key { name: c.title, colour: colour(c) }, line, points: mean(&logs) }
    };
    let all: Vec<Curve> = CONDITIONS.iter().map(curve).collect();
    let title = "Loss while training, mean over the seeds";
    curves(&Frame { title, x: "optimiser steps", y: "nats per token of a caption", width }, &all)
}

fn captions(table: &Table, width: f64) -> String {
    let keys =
        [Key { name: "trained", colour: Colour::Blue }, Key { name: "randomly initialised", colour: Colour::Orange }];
    let score = |name: &str| interval(table, &ScoreName::new(name, CAPTIONS));
    let groups: Vec<Group> = CONDITIONS
        .iter()
        .filter(|c| c.trained || !c.sees())
        .map(|c| Group { name: c.title, bars: vec![score(c.name), c.twin.and_then(score)] })
        .collect();
    let title = "Captions of held-out scenes, with 95 % intervals";
    bars(&Frame { title, x: "", y: "CIDEr-D", width }, &keys, &groups)
}

fn answers(plan: &Plan, table: &Table, width: f64) -> String {
    let names: Vec<String> = plan.shots.iter().map(|n| format!("{n} examples")).collect();
    let keys: Vec<Key> = names.iter().zip(Colour::ALL).map(|(name, colour)| Key { name, colour }).collect();
    let scores: Vec<String> = plan.shots.iter().map(|n| accuracy(*n)).collect();
    let title = "Answers behind few-shot examples, with 95 % intervals";
    let frame = Frame { title, x: "VQA accuracy in per cent", y: "", width };
    let rows = CONDITIONS.iter().map(|c| (c.name, c.title)).chain([(TEXT_ALONE, "text alone")]);
    forest(&frame, &keys, &grouped(table, rows, &scores), None)
}

fn words(table: &Table, width: f64) -> String {
    let keys: Vec<Key> = CLASSES.into_iter().zip(Colour::ALL).map(|(name, colour)| Key { name, colour }).collect();
    let scores: Vec<String> = CLASSES.iter().map(|class| format!("{class}.f1")).collect();
    let frame = Frame { title: "Words of each class in captions, with 95 % intervals", x: "F1", y: "", width };
    forest(&frame, &keys, &grouped(table, CONDITIONS.iter().map(|c| (c.name, c.title)), &scores), None)
}

/// What the verdicts rest on: differences in CIDEr-D, or in accuracy.
fn differences(plan: &Plan, table: &Table, width: f64, of_captions: bool) -> String {
    let keys = [
        Key { name: "as in the paper", colour: Colour::Blue },
        Key { name: "the other way", colour: Colour::Vermillion },
        Key { name: "not decided", colour: Colour::Grey },
    ];
    let mut pairs: Vec<[ScoreName; 2]> = Vec::new();
    for pair in rules(&plan.shots).into_iter().flat_map(|rule| rule.pairs) {
        let is_one = |name: &ScoreName| match of_captions {
            true => name.score == CAPTIONS,
            false => name.score.starts_with("accuracy."),
        };
        if pair.iter().all(is_one) && !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    let names: Vec<String> = pairs.iter().map(|[a, b]| versus(a, b)).collect();
    let row = |([a, b], name): (&[ScoreName; 2], _)| {
        let found = table.compared(a, b);
        let key = match Verdict::of(found) {
            Verdict::Holds => 0,
            Verdict::Fails => 1,
            Verdict::Open | Verdict::Untested => 2,
        };
        let one = |c: Comparison| (key, Interval { value: c.difference, low: c.interval.low, high: c.interval.high });
        Row { name, intervals: found.map(one).into_iter().collect() }
    };
    let rows: Vec<Row> = pairs.iter().zip(names.iter().map(String::as_str)).map(row).collect();
    let (title, x) = match of_captions {
        true => ("Captions: the differences that verdicts rest on", "difference in CIDEr-D"),
        false => ("Answers: the differences that verdicts rest on", "difference in VQA accuracy, per cent"),
    };
    forest(&Frame { title, x, y: "", width }, &keys, &rows, Some(0.0))
}

/// `A over B`, with the numbers of examples where they differ.
fn versus(first: &ScoreName, second: &ScoreName) -> String {
    let examples = |name: &ScoreName| name.score.strip_prefix("accuracy.").map(str::to_string);
    match (examples(first), examples(second)) {
        (Some(a), Some(b)) if first.condition == second.condition => {
            format!("{}: {a} examples over {b}", title(&ScoreName::new(&first.condition, CAPTIONS)))
        }
        _ => {
            let plain = |name: &ScoreName| title(&ScoreName::new(&name.condition, CAPTIONS));
            format!("{} over {}", plain(first), plain(second))
        }
    }
}

fn grouped<'a>(table: &Table, rows: impl Iterator<Item = (&'a str, &'a str)>, scores: &[String]) -> Vec<Row<'a>> {
    let row = |(condition, name): (&str, &'a str)| {
        let one = |(key, score): (usize, &String)| Some((key, interval(table, &ScoreName::new(condition, score))?));
        Row { name, intervals: scores.iter().enumerate().filter_map(one).collect() }
    };
    rows.map(row).collect()
}

fn interval(table: &Table, name: &ScoreName) -> Option<Interval> {
    let value = table.get(&name.condition, &name.score)?;
    Some(Interval { value: value.value, low: value.low, high: value.high })
}

/// A colour for each encoder; a random twin has that of the first encoder whose twin it is.
fn colour(condition: &Condition) -> Colour {
    let own = |name: &str| match name {
        "clip" => Colour::Blue,
        "nfrn50" => Colour::Vermillion,
        "beit" => Colour::Green,
        "beit_ft" => Colour::Purple,
        BLIND => Colour::Ink,
        _ => Colour::Grey,
    };
    let twin = CONDITIONS.iter().find(|c| c.twin.and_then(named) == Some(condition));
    own(twin.map_or(condition.name, |c| c.name))
}

/// The mean loss over the seeds in [`POINTS`] equal pieces of the steps, at the last step of each.
fn mean(logs: &[&Vec<f64>]) -> Vec<(f64, f64)> {
    let steps = logs.iter().map(|log| log.len()).min().unwrap_or(0);
    let points = POINTS.min(steps);
    let piece = |point: usize| {
        let (from, to) = (point * steps / points, (point + 1) * steps / points);
        let sum: f64 = logs.iter().flat_map(|log| &log[from..to]).sum();
        (to as f64, sum / (logs.len() * (to - from)) as f64)
    };
    (0..points).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_the_mean_over_seeds_and_pieces() {
        let first: Vec<f64> = (0..400).map(f64::from).collect();
        let second = vec![0.0; 400];
        let curve = mean(&[&first, &second]);
        assert_eq!(curve.len(), 200);
        assert_eq!((curve[0], curve[199]), ((2.0, 0.25), (400.0, 199.25)));
        assert!(mean(&[]).is_empty());
    }

    #[test]
    fn twins_share_a_colour_and_encoders_do_not() {
        let of = |name: &str| colour(named(name).expect("a condition"));
        assert_eq!(of("clip"), of("clip_random"));
        assert_eq!(of("beit"), of("beit_random"));
        let own: std::collections::BTreeSet<usize> =
            ["clip", "nfrn50", "beit", "beit_ft", BLIND].map(|name| of(name) as usize).into();
        assert_eq!(own.len(), 5);
    }

    #[test]
    fn a_difference_says_what_differs() {
        let (four, none) = (ScoreName::new("clip", "accuracy.4"), ScoreName::new("clip", "accuracy.0"));
        assert_eq!(versus(&four, &none), "CLIP ResNet: 4 examples over 0");
        assert_eq!(versus(&four, &ScoreName::new("beit", "accuracy.4")), "CLIP ResNet over BEiT");
    }

    #[test]
    fn a_quick_plan_has_no_differences() {
        let names = |table: &Table| figures(&Plan::quick(), &BTreeMap::new(), table).into_keys().collect::<Vec<_>>();
        let all = names(&Table::default());
        assert!(all.contains(&"loss-narrow".to_string()) && all.len() == 8, "{all:?}");
    }
}
