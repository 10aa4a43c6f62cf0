//! The merges that the scores of a SentencePiece vocabulary stand for.

use crate::Kind;
use serde_json::{Value as Json, json};
use std::collections::HashMap;

/// The merges of SentencePiece's BPE: of any two pieces that make a third, all of them normal, the pair whose piece has the
/// highest score comes first.
pub fn ranked_merges(texts: &[String], kinds: &[Kind], scores: &[f64]) -> Vec<Json> {
    let normal = |(_, (_, kind)): &(usize, (&String, &Kind))| **kind == Kind::Normal;
    let normal = texts.iter().zip(kinds).enumerate().filter(normal);
    let ids: HashMap<&str, usize> = normal.map(|(id, (text, _))| (text.as_str(), id)).collect();
    let mut merges: Vec<(f64, usize, &str, &str)> = Vec::new();
    for (text, id) in &ids {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if [left, right].iter().all(|part| ids.contains_key(*part)) {
                merges.push((scores.get(*id).copied().unwrap_or(0.0), *id, left, right));
            }
        }
    }
    // At one score, longer pieces on the left come first, as in transformers' conversion.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.len().cmp(&b.2.len())));
    merges.iter().map(|(_, _, left, right)| json!([left, right])).collect()
}
