//! All scores of a set of captions.

use super::bleu::BleuCounts;
use super::cider::{Frequencies, Idf};
use super::measure::{Measure, Scores};
use super::ngrams::{Gram, ORDERS, Vocabulary, grams};
use super::words::{Share, WordClasses};
use super::{ptb, rouge};
use rayon::prelude::*;
use std::sync::Arc;

/// One caption and its references, tokenised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenised {
    /// The caption that is scored.
    pub candidate: String,
    /// What people said.
    pub references: Vec<String>,
}

/// Tokenises captions and references, each in the order of the items, as the COCO tools do.
pub fn tokenise(candidates: &[String], references: &[Vec<String>]) -> Vec<Tokenised> {
    let said = ptb::tokenise(candidates);
    let flat: Vec<&str> = references.iter().flatten().map(String::as_str).collect();
    let mut wanted = ptb::tokenise(&flat).into_iter();
    let of_item = |(candidate, references): (String, &Vec<String>)| Tokenised {
        candidate,
        references: wanted.by_ref().take(references.len()).collect(),
    };
    said.into_iter().zip(references).map(of_item).collect()
}

/// The scores of captions: `Bleu_1` to `Bleu_4`, `ROUGE_L`, `CIDEr` (the COCO tools' name of CIDEr-D), `CIDEr_plain`
/// (neither clipped nor punished for its length), `exact_match`, and of every word class precision, recall and F1.
///
/// Document frequencies come from the references, or from `file`; those of the references are given back.
pub fn caption_scores(
    items: &[Tokenised],
    file: Option<&Frequencies>,
    classes: Option<&WordClasses>,
) -> (Scores, impl FnOnce() -> Frequencies) {
    let mut vocabulary = Vocabulary::default();
    let numbered: Vec<(Vec<u32>, Vec<Vec<u32>>)> = items
        .iter()
        .map(|item| {
            let references = item.references.iter().map(|reference| vocabulary.words(reference)).collect();
            (vocabulary.words(&item.candidate), references)
        })
        .collect();
    type Counts = Vec<(Gram, u32)>;
    let counted: Vec<Vec<Counts>> =
        numbered.par_iter().map(|(_, references)| references.iter().map(|r| grams(r)).collect()).collect();
    let own = Idf::count(&counted);
    let from_file = file.map(|file| Idf::of_file(file, &mut vocabulary));
    let idf = from_file.as_ref().unwrap_or(&own);

    let scored: Vec<(BleuCounts, [f64; 2], f64, f64)> = items
        .par_iter()
        .zip(numbered.par_iter().zip(counted))
        .map(|(item, ((words, references), reference_grams))| {
            let candidate = grams(words);
            let cider = idf.score(&candidate, &reference_grams);
            let references: Vec<(usize, Counts)> = references.iter().map(Vec::len).zip(reference_grams).collect();
            let bleu = BleuCounts::new(words.len(), &candidate, &references);
            let exact = f64::from(u8::from(item.references.contains(&item.candidate)));
            (bleu, cider, rouge::score(&item.candidate, &item.references), exact)
        })
        .collect();

    let bleu: Arc<Vec<BleuCounts>> = Arc::new(scored.iter().map(|s| s.0.clone()).collect());
    let mut scores: Scores = Vec::new();
    for order in 1..=ORDERS {
        scores.push((format!("Bleu_{order}"), Measure::Bleu(order, bleu.clone())));
    }
    scores.push(("ROUGE_L".into(), Measure::Mean(scored.iter().map(|s| s.2).collect())));
    scores.push(("CIDEr".into(), Measure::Mean(scored.iter().map(|s| s.1[0]).collect())));
    scores.push(("CIDEr_plain".into(), Measure::Mean(scored.iter().map(|s| s.1[1]).collect())));
    scores.push(("exact_match".into(), Measure::Mean(scored.iter().map(|s| s.3).collect())));
    if let Some(classes) = classes {
        push_words(&mut scores, items, classes);
    }
    (scores, move || own.to_frequencies(&vocabulary))
}

/// Precision, recall and F1 of each class and of each of its words.
fn push_words(scores: &mut Scores, items: &[Tokenised], classes: &WordClasses) {
    let counted: Vec<_> = items.par_iter().map(|item| classes.count(&item.candidate, &item.references)).collect();
    for (at, (class, words)) in classes.names().enumerate() {
        let mut push = |name: &str, counts: Vec<_>| {
            let counts = Arc::new(counts);
            for (share, word) in Share::ALL {
                scores.push((format!("{name}.{word}"), Measure::Words(share, counts.clone())));
            }
        };
        push(class, counted.iter().map(|item| item[at].0).collect());
        for (index, word) in words.iter().enumerate() {
            push(&format!("{class}/{word}"), counted.iter().map(|item| item[at].1[index]).collect());
        }
    }
}
