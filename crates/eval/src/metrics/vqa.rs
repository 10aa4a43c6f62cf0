//! VQA accuracy (Antol et al. 2015) with the official script's normalisation, and exact match.
//!
//! Followed: `vqaEval.py` of GT-Vision-Lab/VQA as of its last change, quirks included: answers are normalised only where
//! the annotators do not all say the same; at most 32 full stops are taken out; a comma between digits anywhere makes
//! all punctuation vanish instead of becoming blanks.

use super::measure::{Measure, Scores};
use std::collections::HashSet;

/// Marks that are taken out or become blanks, in the script's order.
const PUNCTUATION: [char; 21] =
    [';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!'];

const ARTICLES: [&str; 3] = ["a", "an", "the"];

const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// Words that lack an apostrophe only: where it belongs, it is written here, and the word without any is what is found.
const PLAIN: &[&str] = &[
    "ain't",
    "aren't",
    "can't",
    "could've",
    "couldn't",
    "didn't",
    "doesn't",
    "don't",
    "hadn't",
    "hasn't",
    "haven't",
    "he'd",
    "he's",
    "how'd",
    "how'll",
    "how's",
    "isn't",
    "it'd",
    "it'll",
    "ma'am",
    "mightn't",
    "might've",
    "mustn't",
    "must've",
    "needn't",
    "not've",
    "o'clock",
    "oughtn't",
    "shan't",
    "should've",
    "shouldn't",
    "somebody'll",
    "somebody's",
    "someone'd",
    "someone'll",
    "someone's",
    "something'd",
    "something'll",
    "that's",
    "there'd",
    "there're",
    "there's",
    "they'd",
    "they'll",
    "they're",
    "they've",
    "'twas",
    "wasn't",
    "we've",
    "weren't",
    "what'll",
    "what're",
    "what's",
    "what've",
    "when's",
    "where'd",
    "where's",
    "where've",
    "who'd",
    "who'll",
    "who's",
    "who've",
    "why'll",
    "why're",
    "why's",
    "won't",
    "would've",
    "wouldn't",
    "y'all",
    "you'd",
    "you'll",
    "you're",
    "you've",
];

/// Words with two apostrophes: either may be missing.
const DOUBLE: &[&str] = &[
    "couldn't've",
    "hadn't've",
    "he'd've",
    "it'd've",
    "mightn't've",
    "she'd've",
    "shouldn't've",
    "somebody'd've",
    "someone'd've",
    "something'd've",
    "there'd've",
    "they'd've",
    "we'd've",
    "who'd've",
    "wouldn't've",
    "you'd've",
];

/// What fits neither.
const ODD: &[(&str, &str)] = &[
    ("ow's'at", "'ow's'at"),
    ("'ows'at", "'ow's'at"),
    ("'ow'sat", "'ow's'at"),
    ("somebody'd", "somebodyd"),
    ("yall'll", "y'all'll"),
    ("y'allll", "y'all'll"),
    ("yall'd've", "y'all'd've"),
    ("y'alld've", "y'all'd've"),
    ("y'all'dve", "y'all'd've"),
];

/// One question's answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// What each annotator said.
    pub answers: Vec<String>,
    /// The kind of question, where the data says it.
    pub question_type: Option<String>,
    /// The kind of answer, where the data says it.
    pub answer_type: Option<String>,
}

/// The contraction that stands for `word`.
fn contraction(word: &str) -> Option<String> {
    let bare = |text: &str| text.replace('\'', "");
    if !word.contains('\'') {
        return PLAIN.iter().find(|full| bare(full) == word).map(|full| full.to_string());
    }
    if let Some((_, full)) = ODD.iter().find(|(odd, _)| *odd == word) {
        return Some(full.to_string());
    }
    // One of two apostrophes is there.
    let full = DOUBLE.iter().find(|full| word.matches('\'').count() == 1 && bare(full) == bare(word))?;
    let (first, second) = (full.find('\'')?, full.rfind('\'')?);
    let without = |at: usize| format!("{}{}", &full[..at], &full[at + 1..]);
    (without(first) == word || without(second) == word).then(|| full.to_string())
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric() && is_decimal(c))
}

/// Whether a numeric character is a decimal digit, as Python's `\d` has it: scripts have them in runs of ten.
fn is_decimal(c: char) -> bool {
    const ZEROS: [u32; 36] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
        0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
        0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    ];
    ZEROS.iter().any(|zero| (*zero..zero + 10).contains(&(c as u32)))
}

/// Takes out punctuation.
fn without_punctuation(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let comma_in_number = chars.windows(3).any(|w| is_digit(w[0]) && w[1] == ',' && is_digit(w[2]));
    let mut vanish: Vec<char> = PUNCTUATION
        .into_iter()
        .filter(|p| {
            comma_in_number || chars.windows(2).any(|w| (w[0] == *p && w[1] == ' ') || (w[0] == ' ' && w[1] == *p))
        })
        .collect();
    vanish.sort_unstable();
    let replaced: Vec<char> = chars
        .into_iter()
        .filter(|c| vanish.binary_search(c).is_err())
        .map(|c| if PUNCTUATION.contains(&c) { ' ' } else { c })
        .collect();
    let mut stops = 0;
    let mut out = String::with_capacity(text.len());
    for (at, c) in replaced.iter().enumerate() {
        let before_digit = replaced.get(at + 1).is_some_and(|next| is_digit(*next));
        if *c == '.' && !before_digit && stops < 32 {
            stops += 1;
            continue;
        }
        out.push(*c);
    }
    out
}

/// Lower case, numbers in digits, no articles, contractions with their apostrophes.
fn with_plain_words(text: &str) -> String {
    let text = text.to_lowercase();
    let blank = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let words = text.split(blank).filter(|word| !word.is_empty()).filter_map(|word| {
        let word = NUMBERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, digits)| digits);
        (!ARTICLES.contains(&word)).then(|| contraction(word).unwrap_or_else(|| word.to_string()))
    });
    words.collect::<Vec<_>>().join(" ")
}

/// An answer as the script compares it where annotators differ.
pub fn normalise(answer: &str) -> String {
    with_plain_words(&without_punctuation(&tidy(answer)))
}

/// Line ends and tabs as blanks, none at the ends.
fn tidy(answer: &str) -> String {
    let blank = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    answer.replace(['\n', '\t'], " ").trim_matches(blank).to_string()
}

/// The accuracy of an answer, 0 to 1: the mean over annotators of min(1, agreeing others / 3). A single annotator is
/// taken for ten who agree.
pub fn accuracy(answer: &str, annotators: &[String]) -> f64 {
    let mut said = tidy(answer);
    let mut others: Vec<String> = annotators.iter().map(|a| tidy(a)).collect();
    if others.iter().collect::<HashSet<_>>().len() > 1 {
        others = others.iter().map(|a| with_plain_words(&without_punctuation(a))).collect();
        said = with_plain_words(&without_punctuation(&said));
    }
    let n = others.len();
    let agree = others.iter().filter(|a| **a == said).count();
    if n <= 1 {
        return f64::from(u8::from(agree == 1));
    }
    // Of those who agree each has one other fewer.
    let share = |matches: usize| (matches as f64 / 3.0).min(1.0);
    (agree as f64 * share(agree.saturating_sub(1)) + (n - agree) as f64 * share(agree)) / n as f64
}

/// The scores of answers: `accuracy` in percent, as the script prints it, and `exact_match`: the share of answers that
/// equal some annotator's once both are normalised.
pub fn answer_scores<'a>(items: impl Iterator<Item = (&'a str, &'a Answers)>) -> Scores {
    let (mut accuracies, mut exact) = (Vec::new(), Vec::new());
    for (answer, truth) in items {
        accuracies.push(100.0 * accuracy(answer, &truth.answers));
        let said = normalise(answer);
        exact.push(f64::from(u8::from(truth.answers.iter().any(|a| normalise(a) == said))));
    }
    vec![("accuracy".into(), Measure::Mean(accuracies)), ("exact_match".into(), Measure::Mean(exact))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalised() {
        let check = |text: &str, expected: &str| assert_eq!(normalise(text), expected, "{text:?}");
        check("  The Red-Ball!\n", "red ball");
        check("a, b", "b");
        check("1,000 (ca.)", "1000 ca");
        check("3.5. ok.", "3.5 ok");
        check("Dont", "don't");
        check("couldnt've", "couldn't've");
        check("couldn'tve", "couldn't've");
        check("couldn't've", "couldn't've");
        check("somebody'd", "somebodyd");
        check("Im none two", "im 0 2");
        check("", "");
    }

    #[test]
    fn accuracy_leaves_one_out() {
        let annotators = |yes: usize, no: usize| -> Vec<String> {
            (0..yes + no).map(|i| if i < yes { "yes".into() } else { "no".into() }).collect()
        };
        for (yes, expected) in [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)] {
            assert!((accuracy("Yes.", &annotators(yes, 10 - yes)) - expected).abs() < 1e-12 || yes == 10, "{yes}");
            assert!((accuracy("yes", &annotators(yes, 10 - yes)) - expected).abs() < 1e-12, "{yes}");
        }
        // The script's quirk: where all agree, nothing is normalised.
        assert_eq!(accuracy("Yes.", &annotators(10, 0)), 0.0);
        assert_eq!(accuracy("red", &["red".to_string()]), 1.0);
    }
}
