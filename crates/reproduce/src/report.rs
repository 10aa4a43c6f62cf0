//! The report: a summary, tables in the paper's form, pictures, and samples side by side.

use super::blocks::{Block, Card, Sample, Tone, html, markdown};
use super::conditions::{CONDITIONS, Condition};
use super::figures::figures;
use super::findings::{CAPTIONS, Finding, LEVEL, Verdict, shown};
use super::measure::{CLASSES, ScoreName, TEXT_ALONE, Table, Value, accuracy};
use super::plan::Plan;
use super::record;
use super::say::Said;
use super::scenes::World;
use anyhow::{Context, Result};
use limber_weights as weights;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Scenes that are shown with what was said of them.
const SAMPLES: usize = 6;
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
    for (name, picture) in figures(plan, logs, table) {
        weights::replace(&files.join(format!("{name}.svg")), picture.as_bytes())?;
    }
    let steps = logs.values().map(Vec::len).max().unwrap_or(0);
    for (index, seen) in world.held.iter().take(SAMPLES).enumerate() {
        let picture = fs::read(&seen.image).with_context(|| format!("cannot read {}", seen.image.display()))?;
        weights::replace(&files.join(format!("scene-{index}.png")), &picture)?;
    }
    let mut blocks = blocks(plan, world, said, table, findings, steps);
    blocks.push(footer(plan, &record::day(out)?));
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
    ];
    all.extend(summary(findings, table));
    all.extend([
        Block::Heading(2, "Captions".into()),
        Block::Text(vec![format!(
            "Greedy captions of the {} held-out scenes against their canonical caption; CIDEr-D is at most 10, BLEU-4 and exact words (the caption is right word for word) at most 1.",
            world.held.len()
        )]),
    ]);
    let scores = [(CAPTIONS, "CIDEr-D"), ("Bleu_4", "BLEU-4"), ("ROUGE_L", "ROUGE-L"), ("exact_match", "exact words")];
    let names: Vec<&str> = scores.iter().map(|(score, _)| *score).collect();
    let mut head = vec!["encoder", "trained on"];
    head.extend(scores.iter().map(|(_, title)| *title));
    head.push("CIDEr-D of each seed");
    let rows = CONDITIONS.iter().map(|c| {
        let mut row = cells(&[c.title, c.saw]);
        row.extend(values(table, c.name, &names));
        let seeds = table.get(c.name, CAPTIONS).map(|v| v.seeds.as_slice()).unwrap_or_default();
        row.push(seeds.iter().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(", "));
        row
    });
    all.push(Block::Table(cells(&head), rows.collect()));
    all.push(Block::Picture(
        "captions".into(),
        "CIDEr-D of every encoder beside its random twin, with intervals".into(),
    ));
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
    let mut head = cells(&["encoder"]);
    head.extend(titles);
    let of = |title: &str, name: &str| {
        let mut row = cells(&[title]);
        row.extend(values(table, name, &shots));
        row
    };
    let mut rows: Vec<Vec<String>> = CONDITIONS.iter().map(|c| of(c.title, c.name)).collect();
    rows.push(of("text alone", TEXT_ALONE));
    all.push(Block::Table(head, rows));
    all.push(Block::Picture("answers".into(), "VQA accuracy of every encoder by the number of examples".into()));
    all.push(Block::Heading(2, "Which words".into()));
    all.push(text(&[
        "Words of each class in the captions: F1, and precision and recall without their intervals.",
        "Relations are \"left of\" and \"above\".",
    ]));
    let mut head = cells(&["encoder"]);
    head.extend(CLASSES.map(String::from));
    let rows = CONDITIONS.iter().map(|c| {
        let mut row = cells(&[c.title]);
        row.extend(CLASSES.iter().map(|class| words(table, c, class)));
        row
    });
    all.push(Block::Table(head, rows.collect()));
    all.push(Block::Picture("words".into(), "F1 of the words of each class for every encoder".into()));
    all.push(Block::Heading(2, "Loss".into()));
    all.push(Block::Picture("loss".into(), "loss of every encoder over the steps, random twins dashed".into()));
    all.push(Block::Heading(2, "Samples".into()));
    all.push(Block::Text(vec![
        format!("The first {SAMPLES} held-out scenes, as captioned under seed {}.", plan.seeds[0]),
        "A word is right where it stands in the scene's own caption in the same order; others are marked.".into(),
    ]));
    all.push(Block::Samples(
        world
            .held
            .iter()
            .take(SAMPLES)
            .enumerate()
            .map(|(index, seen)| {
                let of = |c: &Condition| {
                    let caption =
                        said.get(c.name).and_then(|runs| runs.first()).and_then(|run| run.captions.get(index));
                    (c.title.to_string(), compared(caption.map_or("", String::as_str), &seen.caption))
                };
                Sample {
                    image: format!("files/scene-{index}.png"),
                    caption: seen.caption.clone(),
                    said: CONDITIONS.iter().map(of).collect(),
                }
            })
            .collect(),
    ));
    all.push(Block::Heading(2, "What to keep in mind".into()));
    all.push(Block::List(CAVEATS.iter().map(|item| item.to_string()).collect()));
    all
}

/// How many findings hold, and each with the numbers that decide.
fn summary(findings: &[Finding], table: &Table) -> Vec<Block> {
    let count = |verdict: Verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let mut badges = Vec::new();
    for (verdict, tone, one, many) in [
        (Verdict::Holds, Tone::Good, "finding holds", "findings hold"),
        (Verdict::Fails, Tone::Bad, "does not hold", "do not hold"),
        (Verdict::Open, Tone::Open, "is not decided", "are not decided"),
        (Verdict::Untested, Tone::Open, "without a verdict", "without a verdict"),
    ] {
        match count(verdict) {
            0 => {}
            1 => badges.push((tone, format!("1 {one}"))),
            n => badges.push((tone, format!("{n} {many}"))),
        }
    }
    let card = |f: &Finding| Card {
        claim: f.claim.into(),
        rule: f.rule.into(),
        verdict: (tone(f.verdict), f.verdict.word().into()),
        numbers: f.numbers.clone(),
    };
    let cards = Block::Cards(["finding of the paper", "rule", "here", "numbers"], findings.iter().map(card).collect());
    let mut all = vec![Block::Heading(2, "What holds".into()), Block::Badges(badges)];
    if table.comparisons.is_empty() {
        all.push(Block::Text(vec!["This was a quick run: it shows that all stages work, and judges nothing.".into()]));
        all.push(cards);
        return all;
    }
    all.push(Block::Text(vec![
        "The verdicts follow from the numbers by the rules below.".into(),
        format!(
            "\"Above\" means a difference that is clear of zero: p below {LEVEL} in the paired randomisation test of `limber metrics --compare`, which exchanges what two encoders said scene by scene, and a 95 % interval of the difference, over scenes and seeds, without 0."
        ),
        "A finding holds where every comparison of its rule is above, does not hold where one is clearly the other way, and is not decided otherwise.".into(),
    ]));
    let captions = "differences in CIDEr-D that the verdicts rest on, with intervals";
    all.push(Block::Picture("differences-captions".into(), captions.into()));
    let answers = "differences in VQA accuracy that the verdicts rest on, with intervals";
    all.push(Block::Picture("differences-answers".into(), answers.into()));
    all.push(cards);
    all
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Holds => Tone::Good,
        Verdict::Fails => Tone::Bad,
        Verdict::Open | Verdict::Untested => Tone::Open,
    }
}

fn footer(plan: &Plan, day: &str) -> Block {
    Block::Footer(vec![
        format!("limber {}, {day}.", env!("CARGO_PKG_VERSION")),
        format!("Made by `{}`; `scores.json` has every score.", plan.command()),
    ])
}

/// The words that were said, each with whether it belongs to the longest sequence that they share with the truth.
fn compared(said: &str, truth: &str) -> Vec<(String, bool)> {
    let (said, truth): (Vec<&str>, Vec<&str>) = (said.split_whitespace().collect(), truth.split_whitespace().collect());
    // longest[i][j]: words that said[i..] and truth[j..] share in order.
    let mut longest = vec![vec![0usize; truth.len() + 1]; said.len() + 1];
    for i in (0..said.len()).rev() {
        for j in (0..truth.len()).rev() {
            longest[i][j] = match said[i] == truth[j] {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let mut j = 0;
    let mut words = Vec::with_capacity(said.len());
    for (i, word) in said.iter().enumerate() {
        let at = (j..truth.len()).find(|at| truth[*at] == *word);
        let is_right = at.is_some_and(|at| longest[i + 1][at + 1] + 1 == longest[i][j]);
        if let Some(at) = at.filter(|_| is_right) {
            j = at + 1;
        }
        words.push((word.to_string(), is_right));
    }
    words
}

fn cells(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

fn values(table: &Table, condition: &str, scores: &[&str]) -> Vec<String> {
    scores.iter().map(|score| table.get(condition, score).map_or("-".into(), shown)).collect()
}

fn words(table: &Table, condition: &Condition, class: &str) -> String {
    let get = |share: &str| table.get(condition.name, &format!("{class}.{share}"));
    match (get("f1"), get("precision"), get("recall")) {
        (Some(f1), Some(precision), Some(recall)) => {
            format!("{} ({:.2}, {:.2})", shown(f1), precision.value, recall.value)
        }
        _ => "-".into(),
    }
}

/// The conditions from best to worst, `>` between two that a paired test tells apart and `~` between others.
fn order(table: &Table) -> String {
    let mut all: Vec<(&Condition, &Value)> =
        CONDITIONS.iter().filter_map(|c| Some((c, table.get(c.name, CAPTIONS)?))).collect();
    all.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
    let mut text = match table.comparisons.is_empty() {
        true => String::from("By CIDEr-D, not judged: "),
        false => {
            String::from("By CIDEr-D, `>` between neighbours that the paired test tells apart, `~` between others: ")
        }
    };
    let name = |c: &Condition| ScoreName::new(c.name, CAPTIONS);
    for (at, (condition, _)) in all.iter().enumerate() {
        if at > 0 {
            text.push_str(match Verdict::of(table.compared(&name(all[at - 1].0), &name(condition))) {
                Verdict::Holds => " > ",
                Verdict::Open | Verdict::Fails => " ~ ",
                Verdict::Untested => "; ",
            });
        }
        text.push_str(condition.title);
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Compared;
    use limber_eval::metrics::statistics::{Comparison, Interval};

    #[test]
    fn the_order_says_which_neighbours_are_apart() {
        let row = |at: f64| {
            let value = Value { value: at, low: at - 0.5, high: at + 0.5, seeds: vec![] };
            [(CAPTIONS.to_string(), value)].into_iter().collect()
        };
        let rows = [("clip", 1.0), ("beit", 5.0), ("blind", 4.5)].map(|(name, at)| (name.to_string(), row(at)));
        let one = |first: &str, second: &str, difference: f64, p: f64| Compared {
            first: ScoreName::new(first, CAPTIONS),
            second: ScoreName::new(second, CAPTIONS),
            comparison: Comparison {
                difference,
                interval: Interval { low: difference - 0.4, high: difference + 0.4 },
                p,
            },
        };
        let mut table = Table { rows: rows.into_iter().collect(), comparisons: vec![] };
        assert!(order(&table).ends_with("not judged: BEiT; no image; CLIP ResNet."), "{}", order(&table));
        // The intervals of BEiT and of no image overlap, their difference is clear all the same.
        table.comparisons = vec![one("clip", "blind", -3.5, 0.2), one("beit", "blind", 0.5, 0.001)];
        assert!(order(&table).ends_with("others: BEiT > no image ~ CLIP ResNet."), "{}", order(&table));
    }

    #[test]
    fn words_are_right_in_the_order_of_the_truth() {
        let marks = |said: &str, truth: &str| -> String {
            compared(said, truth).into_iter().map(|(_, right)| if right { '=' } else { '.' }).collect()
        };
        for (said, truth, expected) in [
            ("a large red ring", "a large red ring", "===="),
            ("a large red cross", "a small red ring", "=.=."),
            ("a ring left of a cross", "a cross left of a ring", "=.===."),
            ("red a large", "a large red", ".=="),
            ("", "a ring", ""),
            ("a ring", "", ".."),
        ] {
            assert_eq!(marks(said, truth), expected, "{said:?} of {truth:?}");
        }
    }

    #[test]
    fn the_summary_counts_verdicts() {
        let finding = |verdict| Finding { name: "n", claim: "c", rule: "r", verdict, numbers: vec!["1".into()] };
        let comparison = Comparison { difference: 1.0, interval: Interval { low: 0.5, high: 1.5 }, p: 0.01 };
        let (first, second) = (ScoreName::new("clip", CAPTIONS), ScoreName::new("beit", CAPTIONS));
        let judged = Table { comparisons: vec![Compared { first, second, comparison }], ..Table::default() };
        let all = [Verdict::Holds, Verdict::Open, Verdict::Holds, Verdict::Fails].map(finding);
        let text = markdown(&summary(&all, &judged));
        assert!(text.contains("**2 findings hold**, **1 does not hold**, **1 is not decided**"), "{text}");
        assert!(text.contains("files/differences-captions.svg"), "{text}");
        let text = markdown(&summary(&[finding(Verdict::Untested)], &Table::default()));
        assert!(text.contains("**1 without a verdict**") && text.contains("judges nothing"), "{text}");
        assert!(!text.contains("differences"), "{text}");
    }
}
