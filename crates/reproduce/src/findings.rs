//! What the numbers say of the paper's findings, by rules that stand here and nowhere else.
//!
//! "Above" is said of a paired difference that is clear of zero: p below [`LEVEL`] in the test that exchanges what was said
//! scene by scene, and a 95 % interval of the difference over scenes and seeds without 0. Captions are compared by CIDEr-D,
//! words by F1, answers by VQA accuracy.

use super::conditions::{BLIND, CONDITIONS, named};
use super::measure::{ScoreName, TEXT_ALONE, Table, Value, accuracy};
use limber_eval::metrics::statistics::Comparison;
use serde::Serialize;

/// The p-value below which two scores differ.
pub const LEVEL: f64 = 0.05;

/// The score that captions are compared by.
pub const CAPTIONS: &str = "CIDEr";

/// How a finding fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every comparison that the rule names comes out as in the paper.
    Holds,
    /// None contradicts the paper, some may be chance.
    Open,
    /// Some comparison comes out the other way, and not by chance.
    Fails,
    /// Nothing was compared: the plan was a quick one.
    Untested,
}

impl Verdict {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Holds => "holds here",
            Verdict::Open => "not decided here",
            Verdict::Fails => "does not hold here",
            Verdict::Untested => "no verdict",
        }
    }

    /// Of a difference that shall be above 0.
    pub fn of(found: Option<Comparison>) -> Self {
        match found {
            None => Verdict::Untested,
            Some(c) if c.p < LEVEL && c.interval.low > 0.0 => Verdict::Holds,
            Some(c) if c.p < LEVEL && c.interval.high < 0.0 => Verdict::Fails,
            Some(_) => Verdict::Open,
        }
    }
}

/// A finding of the paper and how it is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// A short name.
    pub name: &'static str,
    /// What the paper found.
    pub claim: &'static str,
    /// How it is judged.
    pub rule: &'static str,
    /// Scores of which the first shall be above the second.
    pub pairs: Vec<[ScoreName; 2]>,
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

/// `7.21 [7.00, 7.40]`.
pub fn shown(value: &Value) -> String {
    format!("{:.2} [{:.2}, {:.2}]", value.value, value.low, value.high)
}

/// What a score is called where captions go without saying.
pub fn title(name: &ScoreName) -> String {
    let condition = match name.condition.as_str() {
        TEXT_ALONE => "the text alone",
        name => named(name).map_or(name, |condition| condition.title),
    };
    match name.score.as_str() {
        CAPTIONS => condition.to_string(),
        score => format!("{condition} ({score})"),
    }
}

/// A comparison in words.
fn text(table: &Table, [first, second]: &[ScoreName; 2]) -> String {
    let found = table.compared(first, second);
    let relation = match (Verdict::of(found), found) {
        (Verdict::Holds, _) => "above",
        (Verdict::Fails, _) => "below",
        (Verdict::Open, _) => "not clearly apart from",
        (Verdict::Untested, _) => "and",
    };
    let score = |name: &ScoreName| {
        let value = table.get(&name.condition, &name.score).map_or("no score".into(), shown);
        format!("{} {value}", title(name))
    };
    let difference = found.map_or(String::new(), |c| {
        let Comparison { difference, interval, p } = c;
        format!(": {difference:+.2} [{:+.2}, {:+.2}], p {p:.3}", interval.low, interval.high)
    });
    format!("{} {relation} {}{difference}", score(first), score(second))
}

/// The rules for every finding that this experiment can speak to, with these numbers of few-shot examples.
pub fn rules(shots: &[usize]) -> Vec<Rule> {
    let captions = |a: &str, b: &str| [ScoreName::new(a, CAPTIONS), ScoreName::new(b, CAPTIONS)];
    let scores = |a: (&str, &str), b: (&str, &str)| [ScoreName::new(a.0, a.1), ScoreName::new(b.0, b.1)];
    let trained = || CONDITIONS.iter().filter(|condition| condition.trained);
    let (fewest, most) = (shots.iter().min().copied().unwrap_or(0), shots.iter().max().copied().unwrap_or(0));
    let (fewest, most) = (accuracy(fewest), accuracy(most));
    vec![
        Rule {
            name: "linear map",
            claim: "A linear map into a frozen language model is enough for it to describe what a frozen encoder sees.",
            rule: "The captions of every trained encoder are above those without an image.",
            pairs: trained().map(|c| captions(c.name, BLIND)).collect(),
        },
        Rule {
            name: "trained over random",
            claim: "What is carried over comes from the encoder's training: randomly initialised encoders do far worse.",
            rule: "The captions of every trained encoder are above those of its random twin.",
            pairs: trained().filter_map(|c| Some(captions(c.name, c.twin?))).collect(),
        },
        Rule {
            name: "language order",
            claim: "The more language in an encoder's training, the better: CLIP over NF-ResNet over BEiT.",
            rule: "The captions of CLIP are above those of NF-ResNet, and these above those of BEiT.",
            pairs: vec![captions("clip", "nfrn50"), captions("nfrn50", "beit")],
        },
        Rule {
            name: "labels help BEiT",
            claim: "BEiT fine-tuned on class labels carries over more than BEiT trained on masked patches alone.",
            rule: "The captions of fine-tuned BEiT are above those of BEiT.",
            pairs: vec![captions("beit_ft", "beit")],
        },
        Rule {
            name: "answers need the image",
            claim: "The stitched model answers questions better than the language model that is given the text alone.",
            rule: "The accuracy of CLIP with the most examples is above that of the text alone, and of the stitch without image.",
            pairs: vec![scores(("clip", &most), (TEXT_ALONE, &most)), scores(("clip", &most), (BLIND, &most))],
        },
        Rule {
            name: "answers follow the order",
            claim: "Answers rank the encoders as captions do.",
            rule: "The accuracy of CLIP with the most examples is above that of NF-ResNet, and this above that of BEiT.",
            pairs: vec![scores(("clip", &most), ("nfrn50", &most)), scores(("nfrn50", &most), ("beit", &most))],
        },
        Rule {
            name: "examples help",
            claim: "Few-shot examples help.",
            rule: "The accuracy of CLIP with the most examples is above that with the fewest.",
            pairs: vec![scores(("clip", &most), ("clip", &fewest))],
        },
        Rule {
            name: "BEiT sees colours, not kinds",
            claim: "BEiT, which saw no language, carries over coarse visual properties rather than what a thing is.",
            rule: "In BEiT's captions the F1 of colour words is above that of shape words.",
            pairs: vec![scores(("beit", "colour.f1"), ("beit", "shape.f1"))],
        },
    ]
}

/// Every finding, judged by the table's comparisons.
pub fn findings(table: &Table) -> Vec<Finding> {
    let row = table.rows.get("clip");
    let shots = row.map(|row| row.keys().filter_map(|k| k.strip_prefix("accuracy.")?.parse().ok()).collect());
    let shots: Vec<usize> = shots.unwrap_or_default();
    let judge = |Rule { name, claim, rule, pairs }| {
        let all: Vec<Verdict> = pairs.iter().map(|[a, b]| Verdict::of(table.compared(a, b))).collect();
        let verdict = if all.contains(&Verdict::Fails) {
            Verdict::Fails
        } else if all.iter().all(|v| *v == Verdict::Holds) && !all.is_empty() {
            Verdict::Holds
        } else if all.iter().all(|v| *v == Verdict::Untested) {
            Verdict::Untested
        } else {
            Verdict::Open
        };
        Finding { name, claim, rule, verdict, numbers: pairs.iter().map(|pair| text(table, pair)).collect() }
    };
    rules(&shots).into_iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Row;
    use crate::measure::Compared;
    use limber_eval::metrics::statistics::Interval;

    /// A table in which each condition has one height in every score but shapes; differences of 1 and less may be chance.
    fn table(heights: &[(&str, f64)]) -> Table {
        let value = |at: f64| Value { value: at, low: at - 0.5, high: at + 0.5, seeds: vec![at] };
        let row = |at: f64| -> Row {
            let more = [CAPTIONS, "accuracy.0", "accuracy.4", "colour.f1"].map(|s| (s.to_string(), value(at)));
            more.into_iter().chain([("shape.f1".to_string(), value(at - 2.0))]).collect()
        };
        let rows = heights.iter().map(|(name, at)| (name.to_string(), row(*at))).collect();
        let mut table = Table { rows, comparisons: Vec::new() };
        for [first, second] in rules(&[0, 4]).into_iter().flat_map(|rule| rule.pairs) {
            let at = |name: &ScoreName| table.get(&name.condition, &name.score).map_or(0.0, |v| v.value);
            let difference = at(&first) - at(&second);
            let interval = Interval { low: difference - 1.0, high: difference + 1.0 };
            let p = if difference.abs() > 1.0 { 0.01 } else { 0.2 };
            table.comparisons.push(Compared { first, second, comparison: Comparison { difference, interval, p } });
        }
        table
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
        assert_eq!(verdict(&with("beit_random", 5.5), "trained over random"), Verdict::Fails);
        // At a distance of 1 nothing is decided, whichever way it points.
        assert_eq!(verdict(&with("beit_random", 3.0), "trained over random"), Verdict::Open);
        assert_eq!(verdict(&with("blind", 5.5), "linear map"), Verdict::Fails);
        assert_eq!(verdict(&with("nfrn50", 9.5), "language order"), Verdict::Open);
        assert_eq!(verdict(&with("nfrn50", 11.0), "language order"), Verdict::Fails);
        assert_eq!(verdict(&with("beit", 6.0), "labels help BEiT"), Verdict::Open);
        assert_eq!(verdict(&with(TEXT_ALONE, 8.5), "answers need the image"), Verdict::Open);
        let text = &findings(&with("nfrn50", 11.0))[2].numbers[0];
        assert_eq!(
            text,
            "CLIP ResNet 9.00 [8.50, 9.50] below NF-ResNet 11.00 [10.50, 11.50]: -2.00 [-3.00, -1.00], p 0.010"
        );
    }

    #[test]
    fn a_difference_is_decided_by_test_and_interval_together() {
        let of = |low, high, p| {
            Verdict::of(Some(Comparison { difference: 0.5 * (low + high), interval: Interval { low, high }, p }))
        };
        for (found, expected) in [
            (of(0.1, 0.9, 0.01), Verdict::Holds),
            (of(-0.1, 0.9, 0.01), Verdict::Open),
            (of(0.1, 0.9, 0.06), Verdict::Open),
            (of(-0.9, -0.1, 0.01), Verdict::Fails),
            (of(-0.9, -0.1, 0.05), Verdict::Open),
            (Verdict::of(None), Verdict::Untested),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_was_not_compared_has_no_verdict() {
        let quick = Table { comparisons: Vec::new(), ..table(&AS_THE_PAPER) };
        for finding in findings(&quick).iter().chain(&findings(&Table::default())) {
            assert_eq!(finding.verdict, Verdict::Untested);
        }
        let text = &findings(&quick)[3].numbers[0];
        assert_eq!(text, "BEiT, fine-tuned 6.00 [5.50, 6.50] and BEiT 4.00 [3.50, 4.50]");
    }
}
