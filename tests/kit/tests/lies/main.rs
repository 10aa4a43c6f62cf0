//! Lying toy components: every check of the suite can fail, for the reason it is there, and an honest toy passes them
//! all.
#![allow(missing_docs, clippy::unwrap_used)]

mod decoder;
mod encoder;
mod stitch;

use anyhow::{Result, bail};
use limber_core::registry::{Entry, Maker, Origin};
use limber_kit::{Report, check_entry};
use serde_json::{Value, json};

/// An entry named after a lie, whose settings are one key `size`.
fn entry(maker: Maker) -> Entry {
    Entry {
        recognises: std::sync::Arc::new(|_| Ok(false)),
        kind: "toy".into(),
        about: "a toy".into(),
        origin: Origin::BuiltIn { package: "lies".into(), version: "0".into() },
        files: Vec::new(),
        needs_weights: true,
        schema: json!({"properties": {"size": {"type": "integer"}}}),
        tiny: json!({"size": 8}),
        maker,
    }
}

/// Strict settings, or not.
fn parse(settings: Value, strict: bool) -> Result<Value> {
    let unknown = settings.as_object().and_then(|map| map.keys().find(|key| *key != "size"));
    match unknown {
        Some(key) if strict => bail!("unknown key {key:?}, expected \"size\""),
        _ => Ok(json!({"size": 8})),
    }
}

/// The check whose name contains `check` failed with a reason that contains `reason`.
fn caught(report: &Report, check: &str, reason: &str) {
    let found = report
        .failed()
        .into_iter()
        .any(|c| c.name.contains(check) && c.failure.as_deref().is_some_and(|failure| failure.contains(reason)));
    assert!(found, "no failure {check:?} for {reason:?} in\n{report}");
}

fn honest(entry: &Entry) {
    let report = check_entry(entry);
    assert!(report.passed() && report.checks.len() > 8, "{report}");
}

#[test]
fn a_report_reads_as_a_table() {
    let report = check_entry(&encoder::entry(encoder::Lie::Graph));
    let text = report.to_string();
    assert!(text.starts_with("encoder toy, built in (lies 0)\n"), "{text}");
    assert!(text.contains("  ok      features have the shape"), "{text}");
    assert!(text.contains("  FAILED  features carry no graph: features of a variable record operations"), "{text}");
    assert!(text.ends_with(&format!("1 of {} checks failed", report.checks.len())), "{text}");
}

#[test]
fn an_entry_of_another_role_is_a_failure() {
    caught(&limber_kit::check_decoder(&encoder::entry(encoder::Lie::None)), "is a decoder", "registered as encoder");
}
