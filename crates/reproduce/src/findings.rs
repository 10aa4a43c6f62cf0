//! What the numbers say of the paper's findings, by rules that stand here and nowhere else.
//!
//! "Above" means that the two 95 % intervals are disjoint. Captions are compared by CIDEr-D, words by F1, answers by VQA
//! accuracy.

use super::conditions::{BLIND, CONDITIONS, named};
use super::measure::{TEXT_ALONE, Table, Value, accuracy};
use serde::Serialize;

/// The score that captions are compared by.
pub const CAPTIONS: &str = "CIDEr";

/// How a finding fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every comparison that the rule names comes out as in the paper, with disjoint intervals.
    Holds,
    /// None contradicts the paper, some intervals overlap.
    Open,
    /// Some comparison comes out the other way.
    Fails,
}

impl Verdict {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Holds => "holds here",
            Verdict::Open => "not decided here",
            Verdict::Fails => "does not hold here",
        }
    }
}

/// One finding of the paper, the rule it is judged by, and what came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// A short name.
    pub name: &'static str,
    /// What the paper found.
    pub claim: &'static str,
    /// How it is judged.
    pub rule: &'static str,
    /// How it fares.
    pub verdict: Verdict,
    /// The numbers that decide, one comparison each.
    pub numbers: Vec<String>,
}

/// A comparison: the first shall lie above the second.
struct Pair<'a> {
    names: [String; 2],
    values: [Option<&'a Value>; 2],
}

impl Pair<'_> {
    fn verdict(&self) -> Verdict {
        match self.values {
            [Some(a), Some(b)] if a.above(b) => Verdict::Holds,
            [Some(a), Some(b)] if b.value > a.value => Verdict::Fails,
            _ => Verdict::Open,
        }
    }

    fn text(&self) -> String {
        let [a, b] = self.values.map(|v| v.map_or("no score".into(), shown));
        let relation = match (self.verdict(), self.values) {
            (Verdict::Holds, _) => "above",
            (Verdict::Fails, [Some(a), Some(b)]) if b.above(a) => "below",
            _ => "overlaps with",
        };
        format!("{} {a} {relation} {} {b}", self.names[0], self.names[1])
    }
}

/// `7.21 [7.00, 7.40]`.
pub fn shown(value: &Value) -> String {
    format!("{:.2} [{:.2}, {:.2}]", value.value, value.low, value.high)
}

fn title(name: &str) -> String {
    match name {
        TEXT_ALONE => "the text alone".to_string(),
        name => named(name).map_or(name, |condition| condition.title).to_string(),
    }
}

/// Every finding that this experiment can speak to.
pub fn findings(table: &Table) -> Vec<Finding> {
    let captions = |a: &str, b: &str| Pair {
        names: [title(a), title(b)],
        values: [table.get(a, CAPTIONS), table.get(b, CAPTIONS)],
    };
    let scores = |a: (&str, &str), b: (&str, &str)| Pair {
        names: [format!("{} ({})", title(a.0), a.1), format!("{} ({})", title(b.0), b.1)],
        values: [table.get(a.0, a.1), table.get(b.0, b.1)],
    };
    let trained = || CONDITIONS.iter().filter(|condition| condition.trained);
    let row = table.rows.get("clip");
    let numbers = row.map(|row| row.keys().filter_map(|k| k.strip_prefix("accuracy.")?.parse().ok()).collect());
    let numbers: Vec<usize> = numbers.unwrap_or_default();
    let (fewest, most) = (numbers.iter().min().copied().unwrap_or(0), numbers.iter().max().copied().unwrap_or(0));
    let (fewest, most) = (accuracy(fewest), accuracy(most));
    vec![
        judged(
            "linear map",
            "A linear map into a frozen language model is enough for it to describe what a frozen encoder sees.",
            "The captions of every trained encoder are above those without an image.",
            trained().map(|c| captions(c.name, BLIND)).collect(),
        ),
        judged(
            "trained over random",
            "What is carried over comes from the encoder's training: randomly initialised encoders do far worse.",
            "The captions of every trained encoder are above those of its random twin.",
            trained().filter_map(|c| Some(captions(c.name, c.twin?))).collect(),
        ),
        judged(
            "language order",
            "The more language in an encoder's training, the better: CLIP over NF-ResNet over BEiT.",
            "The captions of CLIP are above those of NF-ResNet, and these above those of BEiT.",
            vec![captions("clip", "nfrn50"), captions("nfrn50", "beit")],
        ),
        judged(
            "labels help BEiT",
            "BEiT fine-tuned on class labels carries over more than BEiT trained on masked patches alone.",
            "The captions of fine-tuned BEiT are above those of BEiT.",
            vec![captions("beit_ft", "beit")],
        ),
        judged(
            "answers need the image",
            "The stitched model answers questions better than the language model that is given the text alone.",
            "The accuracy of CLIP with the most examples is above that of the text alone, and of the stitch without image.",
            vec![scores(("clip", &most), (TEXT_ALONE, &most)), scores(("clip", &most), (BLIND, &most))],
        ),
        judged(
            "answers follow the order",
            "Answers rank the encoders as captions do.",
            "The accuracy of CLIP with the most examples is above that of NF-ResNet, and this above that of BEiT.",
            vec![scores(("clip", &most), ("nfrn50", &most)), scores(("nfrn50", &most), ("beit", &most))],
        ),
        judged(
            "examples help",
            "Solved questions in front of the one that is asked help.",
            "The accuracy of CLIP with the most examples is above that with the fewest.",
            vec![scores(("clip", &most), ("clip", &fewest))],
        ),
        judged(
            "BEiT sees colours, not kinds",
            "BEiT, which saw no language, carries over coarse visual properties rather than what a thing is.",
            "In BEiT's captions the F1 of colour words is above that of shape words.",
            vec![scores(("beit", "colour.f1"), ("beit", "shape.f1"))],
        ),
    ]
}

fn judged(name: &'static str, claim: &'static str, rule: &'static str, pairs: Vec<Pair>) -> Finding {
    let all: Vec<Verdict> = pairs.iter().map(Pair::verdict).collect();
    let verdict = if all.contains(&Verdict::Fails) {
        Verdict::Fails
    } else if all.iter().all(|v| *v == Verdict::Holds) && !all.is_empty() {
        Verdict::Holds
    } else {
        Verdict::Open
    };
    Finding { name, claim, rule, verdict, numbers: pairs.iter().map(Pair::text).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Row;

    fn value(at: f64) -> Value {
        Value { value: at, low: at - 0.5, high: at + 0.5, seeds: vec![at] }
    }

    /// A table in which each condition has one height in every score.
    fn table(heights: &[(&str, f64)]) -> Table {
        let row = |at: f64| -> Row {
            let more = [CAPTIONS, "accuracy.0", "accuracy.4", "colour.f1"].map(|s| (s.to_string(), value(at)));
            more.into_iter().chain([("shape.f1".to_string(), value(at - 2.0))]).collect()
        };
        Table { rows: heights.iter().map(|(name, at)| (name.to_string(), row(*at))).collect() }
    }

    fn verdict(table: &Table, name: &str) -> Verdict {
        findings(table).into_iter().find(|f| f.name == name).expect("a finding").verdict
    }

    const AS_THE_PAPER: [(&str, f64); 9] = [
        ("clip", 9.0),
        ("nfrn50", 7.0),
        ("beit_ft", 6.0),
        ("beit", 4.0),
        ("clip_random", 2.0),
        ("nfrn50_random", 2.0),
        ("beit_random", 2.0),
        ("blind", 0.0),
        (TEXT_ALONE, 0.0),
    ];

    #[test]
    fn numbers_like_the_papers_hold() {
        let table = table(&AS_THE_PAPER);
        for finding in findings(&table) {
            // Here 4 shots score as 0 shots do.
            let expected = if finding.name == "examples help" { Verdict::Open } else { Verdict::Holds };
            assert_eq!(finding.verdict, expected, "{finding:?}");
        }
    }

    #[test]
    fn numbers_of_another_kind_do_not() {
        let with = |name: &str, at: f64| {
            let heights: Vec<_> =
                AS_THE_PAPER.iter().map(|(n, old)| (*n, if *n == name { at } else { *old })).collect();
            table(&heights)
        };
        assert_eq!(verdict(&with("beit_random", 5.0), "trained over random"), Verdict::Fails);
        // Intervals of half a unit each way: at a distance of 1 they touch, and nothing is decided.
        assert_eq!(verdict(&with("beit_random", 3.0), "trained over random"), Verdict::Open);
        assert_eq!(verdict(&with("blind", 5.0), "linear map"), Verdict::Fails);
        assert_eq!(verdict(&with("nfrn50", 9.5), "language order"), Verdict::Fails);
        assert_eq!(verdict(&with("beit", 6.0), "labels help BEiT"), Verdict::Open);
        assert_eq!(verdict(&with(TEXT_ALONE, 8.5), "answers need the image"), Verdict::Open);
        let text = &findings(&with("nfrn50", 11.0))[2].numbers[0];
        assert_eq!(text, "CLIP ResNet 9.00 [8.50, 9.50] below NF-ResNet 11.00 [10.50, 11.50]");
    }

    #[test]
    fn what_was_not_measured_is_not_decided() {
        assert!(findings(&Table::default()).iter().all(|f| f.verdict == Verdict::Open));
    }
}
