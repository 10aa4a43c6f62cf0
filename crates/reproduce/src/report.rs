//! The report: tables in the paper's form, curves, samples side by side, and what the findings come to.

use super::blocks::{Block, Cell, html, markdown};
use super::chart;
use super::conditions::{CONDITIONS, Condition};
use super::findings::{CAPTIONS, Finding, shown};
use super::measure::{CLASSES, TEXT_ALONE, Table, Value, accuracy};
use super::plan::Plan;
use super::say::Said;
use super::scenes::World;
use anyhow::{Context, Result};
use limber_weights as weights;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Scenes that are shown with what was said of them.
const SAMPLES: usize = 6;
/// Points of a loss curve.
const POINTS: usize = 200;
const TITLE: &str = "LiMBeR in miniature";
/// What the numbers cannot say.
const CAVEATS: [&str; 5] = [
    "The encoders differ in more than the language they saw: in architecture, size, resolution, scenes and steps of training; the recipes in `assets` say how. So did the paper's.",
    "Class labels name shape and colour, neither size nor place; captions name all four. What NF-ResNet says of sizes and places it carries over unasked.",
    "NF-ResNet gives one pooled vector, of which the linear map makes sixteen prefix tokens; the others give one token a cell of a 4 x 4 grid.",
    "Each random twin is one draw of random weights, the same for all seeds.",
    "The language model's texts were written from scenes of the same world, in the wording that captions are scored against.",
];

/// Writes `report.md`, `report.html`, `scores.json` and the pictures; the path of the first.
///
/// # Errors
/// A disk that does not take them.
pub fn write(
    out: &Path,
    plan: &Plan,
    world: &World,
    said: &BTreeMap<&str, Vec<Said>>,
    logs: &BTreeMap<(&str, u64), Vec<f64>>,
    table: &Table,
    findings: &[Finding],
) -> Result<PathBuf> {
    let files = out.join("files");
    fs::create_dir_all(&files).with_context(|| format!("cannot make folder {}", files.display()))?;
    let curves: Vec<(&str, Vec<f64>)> = CONDITIONS
        .iter()
        .map(|c| (c.title, curve(&plan.seeds.iter().filter_map(|s| logs.get(&(c.name, *s))).collect::<Vec<_>>())))
        .collect();
    let steps = logs.values().map(Vec::len).max().unwrap_or(0);
    let loss =
        chart::curves("Loss of a caption's token while training, mean over the seeds", "steps", steps, "nats", &curves);
    weights::replace(&files.join("loss.svg"), loss.as_bytes())?;
    let bars: Vec<(&str, &Value)> =
        CONDITIONS.iter().filter_map(|c| Some((c.title, table.get(c.name, CAPTIONS)?))).collect();
    let bars = chart::bars("CIDEr-D of captions of held-out scenes, with 95 % intervals", "CIDEr-D", &bars);
    weights::replace(&files.join("captions.svg"), bars.as_bytes())?;
    for (index, seen) in world.held.iter().take(SAMPLES).enumerate() {
        let picture = fs::read(&seen.image).with_context(|| format!("cannot read {}", seen.image.display()))?;
        weights::replace(&files.join(format!("scene-{index}.png")), &picture)?;
    }
    let blocks = blocks(plan, world, said, table, findings, steps);
    weights::replace(&out.join("scores.json"), serde_json::to_string_pretty(table)?.as_bytes())?;
    weights::replace(&out.join("report.html"), html(TITLE, &blocks).as_bytes())?;
    let report = out.join("report.md");
    weights::replace(&report, markdown(&blocks).as_bytes())?;
    Ok(report)
}

fn blocks(
    plan: &Plan,
    world: &World,
    said: &BTreeMap<&str, Vec<Said>>,
    table: &Table,
    findings: &[Finding],
    steps: usize,
) -> Vec<Block> {
    let text = |sentences: &[&str]| Block::Text(sentences.iter().map(|s| s.to_string()).collect());
    let mut all = vec![
        Block::Heading(1, TITLE.into()),
        text(&[
            "Made by `limber reproduce`: the experiment of the LiMBeR paper (Merullo et al., ICLR 2023) with small components in the world of `limber shapes`.",
            "Every encoder and the language model are frozen; one linear layer between them is trained on captions.",
            "The language model was trained on text alone and never met an image.",
        ]),
        Block::Text(vec![
            format!(
                "{} scenes to train on, {} held out, one or two objects each, 64 x 64 pixels, world {}; {steps} steps; seeds {}.",
                plan.train_scenes,
                plan.held_scenes,
                plan.world,
                plan.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
            ),
            format!("In brackets: 95 % intervals of a bootstrap that draws scenes and seeds, {} draws.", plan.draws),
        ]),
        Block::Heading(2, "What holds".into()),
        Block::Table(
            cells(&["finding of the paper", "rule", "here", "numbers"]),
            findings.iter().map(|f| cells(&[f.claim, f.rule, f.verdict.word(), &f.numbers.join("; ")])).collect(),
        ),
        text(&[
            "The verdicts follow from the numbers by the rules above.",
            "\"Above\" means disjoint intervals: a finding holds where every comparison of its rule is above, does not hold where one comes out the other way, and is not decided otherwise.",
        ]),
        Block::Heading(2, "Captions".into()),
        Block::Text(vec![format!(
            "Greedy captions of the {} held-out scenes against their canonical caption; CIDEr-D is at most 10, BLEU-4 and exact words (the caption is right word for word) at most 1.",
            world.held.len()
        )]),
    ];
    let scores = [(CAPTIONS, "CIDEr-D"), ("Bleu_4", "BLEU-4"), ("ROUGE_L", "ROUGE-L"), ("exact_match", "exact words")];
    let names: Vec<&str> = scores.iter().map(|(score, _)| *score).collect();
    let mut head = vec!["encoder", "trained on"];
    head.extend(scores.iter().map(|(_, title)| *title));
    head.push("CIDEr-D of each seed");
    let rows = CONDITIONS.iter().map(|c| {
        let mut row = cells(&[c.title, c.saw]);
        row.extend(values(table, c.name, &names));
        let seeds = table.get(c.name, CAPTIONS).map(|v| v.seeds.as_slice()).unwrap_or_default();
        row.push(seeds.iter().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(", ").into());
        row
    });
    all.push(Block::Table(cells(&head), rows.collect()));
    all.push(Block::Picture("files/captions.svg".into(), "CIDEr-D of every encoder with intervals".into()));
    all.push(Block::Heading(2, "Order of the encoders".into()));
    all.push(Block::Text(vec![order(table)]));
    all.push(Block::Heading(2, "Questions".into()));
    all.push(text(&[
        "VQA accuracy in per cent, one question a held-out scene, with 0 to 4 few-shot examples from the training scenes, each with its image.",
        "`text alone` is the language model given the same questions and answers without any image; `no image` has the prefix that was trained without images.",
    ]));
    let shots: Vec<String> = plan.shots.iter().map(|n| accuracy(*n)).collect();
    let shots: Vec<&str> = shots.iter().map(String::as_str).collect();
    let titles: Vec<String> = plan.shots.iter().map(|n| format!("{n} shots")).collect();
    let mut head: Vec<Cell> = cells(&["encoder"]);
    head.extend(titles.iter().map(|t| Cell::from(t.as_str())));
    let of = |title: &str, name: &str| {
        let mut row = cells(&[title]);
        row.extend(values(table, name, &shots));
        row
    };
    let mut rows: Vec<Vec<Cell>> = CONDITIONS.iter().map(|c| of(c.title, c.name)).collect();
    rows.push(of("text alone", TEXT_ALONE));
    all.push(Block::Table(head, rows));
    all.push(Block::Heading(2, "Which words".into()));
    all.push(text(&[
        "Words of each class in the captions: F1, and precision and recall without their intervals.",
        "Relations are \"left of\" and \"above\".",
    ]));
    let mut head = cells(&["encoder"]);
    head.extend(CLASSES.iter().map(|class| Cell::from(*class)));
    let rows = CONDITIONS.iter().map(|c| {
        let mut row = cells(&[c.title]);
        row.extend(CLASSES.iter().map(|class| words(table, c, class)));
        row
    });
    all.push(Block::Table(head, rows.collect()));
    all.push(Block::Heading(2, "Loss".into()));
    all.push(Block::Picture("files/loss.svg".into(), "loss of every encoder over the steps".into()));
    all.push(Block::Heading(2, "Samples".into()));
    all.push(Block::Text(vec![format!(
        "The first {SAMPLES} held-out scenes, as captioned under seed {}; what is right word for word is marked with =.",
        plan.seeds[0]
    )]));
    let shown: Vec<&Condition> = CONDITIONS.iter().collect();
    let mut head = cells(&["scene", "caption"]);
    head.extend(shown.iter().map(|c| Cell::from(c.title)));
    let rows = world.held.iter().take(SAMPLES).enumerate().map(|(index, seen)| {
        let mut row = vec![
            Cell::Picture(format!("files/scene-{index}.png"), seen.caption.clone()),
            Cell::from(seen.caption.as_str()),
        ];
        row.extend(shown.iter().map(|c| {
            let caption = said.get(c.name).and_then(|runs| runs.first()).and_then(|run| run.captions.get(index));
            let caption = caption.map(String::as_str).unwrap_or_default();
            Cell::from(if caption == seen.caption { "=" } else { caption })
        }));
        row
    });
    all.push(Block::Table(head, rows.collect()));
    all.push(Block::Heading(2, "What to keep in mind".into()));
    all.push(Block::List(CAVEATS.iter().map(|item| item.to_string()).collect()));
    all
}

fn cells(texts: &[&str]) -> Vec<Cell> {
    texts.iter().map(|text| Cell::from(*text)).collect()
}

fn values(table: &Table, condition: &str, scores: &[&str]) -> Vec<Cell> {
    scores.iter().map(|score| Cell::from(table.get(condition, score).map_or("-".into(), shown))).collect()
}

fn words(table: &Table, condition: &Condition, class: &str) -> Cell {
    let get = |share: &str| table.get(condition.name, &format!("{class}.{share}"));
    match (get("f1"), get("precision"), get("recall")) {
        (Some(f1), Some(precision), Some(recall)) => {
            format!("{} ({:.2}, {:.2})", shown(f1), precision.value, recall.value).into()
        }
        _ => "-".into(),
    }
}

/// The conditions from best to worst, `>` between two whose intervals are disjoint and `~` between others.
fn order(table: &Table) -> String {
    let mut all: Vec<(&str, &Value)> =
        CONDITIONS.iter().filter_map(|c| Some((c.title, table.get(c.name, CAPTIONS)?))).collect();
    all.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
    let mut text =
        String::from("By CIDEr-D, `>` between neighbours whose intervals are disjoint, `~` between others: ");
    for (at, (title, value)) in all.iter().enumerate() {
        if at > 0 {
            text.push_str(if all[at - 1].1.above(value) { " > " } else { " ~ " });
        }
        text.push_str(title);
    }
    text.push('.');
    text
}

/// The mean loss over the seeds in [`POINTS`] parts of the steps.
fn curve(logs: &[&Vec<f64>]) -> Vec<f64> {
    let steps = logs.iter().map(|log| log.len()).min().unwrap_or(0);
    let points = POINTS.min(steps);
    let part = |point: usize| {
        let (from, to) = (point * steps / points, (point + 1) * steps / points);
        let sum: f64 = logs.iter().flat_map(|log| &log[from..to]).sum();
        sum / (logs.len() * (to - from)) as f64
    };
    (0..points).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_the_mean_over_seeds_and_parts() {
        let first: Vec<f64> = (0..400).map(f64::from).collect();
        let second = vec![0.0; 400];
        let curve = curve(&[&first, &second]);
        assert_eq!(curve.len(), 200);
        assert_eq!((curve[0], curve[199]), (0.25, 199.25));
        assert!(super::curve(&[]).is_empty());
    }

    #[test]
    fn the_order_says_which_neighbours_are_apart() {
        let value = |at: f64| Value { value: at, low: at - 0.5, high: at + 0.5, seeds: vec![] };
        let row = |at: f64| [(CAPTIONS.to_string(), value(at))].into_iter().collect();
        let rows = [("clip", 1.0), ("beit", 5.0), ("blind", 4.5)].map(|(name, at)| (name.to_string(), row(at)));
        let text = order(&Table { rows: rows.into_iter().collect() });
        assert!(text.ends_with("BEiT ~ no image > CLIP ResNet."), "{text}");
    }
}
