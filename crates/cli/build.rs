//! Tells the program which commit it is built from.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=LIMBER_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let set = std::env::var("LIMBER_COMMIT").ok();
    if let Some(commit) = set.or_else(packaged).or_else(checked_out) {
        println!("cargo::rustc-env=LIMBER_COMMIT={commit}");
    }
}

/// The commit of a package from a registry, which Cargo writes beside it.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\": \"")?;
    rest.split('"').next().map(short)
}

/// The commit of a checkout.
fn checked_out() -> Option<String> {
    // Each commit, merge and switch adds a line.
    let moves = Path::new("../../.git/logs/HEAD");
    if !moves.exists() {
        return None;
    }
    println!("cargo::rerun-if-changed={}", moves.display());
    let out = Command::new("git").args(["rev-parse", "HEAD"]).output().ok().filter(|out| out.status.success())?;
    Some(short(String::from_utf8(out.stdout).ok()?.trim()))
}

fn short(commit: &str) -> String {
    commit.chars().take(9).collect()
}
