//! The JSON Schema of a config file and what is made from it: `configs/schema.json` and the tables in the documentation
//! are current, every shipped config names the schema and fits it. `UPDATE_DOCS=1` writes them anew.

use crate::ROOT;
use limber::config::{self, tables};
use limber::core::settings::violations;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// How to write anew what is made from the schema.
const UPDATE: &str = "UPDATE_DOCS=1 cargo test --release -p limber-cli --test integration schema";

fn schema() -> Value {
    config::file_schema(&limber::built_in::registry().unwrap())
}

/// Whether the file at `path` holds `text`; writes it where it is asked to.
fn is_current(path: &Path, text: &str) -> bool {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return true;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, text).unwrap();
        return true;
    }
    false
}

/// Every shipped config.
fn configs() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "combine", "original", "world"] {
        for entry in fs::read_dir(Path::new(ROOT).join("configs").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "{found:?}");
    found
}

#[test]
fn the_committed_schema_is_that_of_the_program() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    assert!(is_current(&Path::new(ROOT).join("configs/schema.json"), &text), "configs/schema.json is old: {UPDATE}");
}

#[test]
fn every_config_names_the_schema_and_fits_it() {
    let schema = schema();
    for path in configs() {
        let text = fs::read_to_string(&path).unwrap();
        let above = if path.parent().unwrap().ends_with("configs") { "" } else { "../" };
        let line = format!("# yaml-language-server: $schema={above}schema.json");
        assert_eq!(text.lines().next(), Some(line.as_str()), "{}", path.display());
        let tree: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(violations(&tree, &schema), [], "{}", path.display());
    }
}

#[test]
fn the_schema_and_the_check_agree() {
    let (schema, folder) = (schema(), tempfile::tempdir().unwrap());
    let base = json!({"encoder": {"kind": "clip-resnet"}, "stitch": {"kind": "linear"}, "decoder": {"kind": "gptj"}});
    fs::write(folder.path().join("base.yaml"), base.to_string()).unwrap();
    let registry = |_: &[config::Plugin], _: &Path| limber::built_in::registry();
    for (changes, key) in [
        (json!({}), None),
        (json!({"/decoder/kind": "auto", "/encoder/dtype": "q8_0", "/train": {"lr": 1}}), None),
        (json!({"/plugins": ["a.so", {"path": "b.so"}], "/device": "cuda:1", "/generate": null}), None),
        (json!({"/extends": "base.yaml", "/decoder": {"weights": "random:1"}, "/encoder": {"dtype": null}}), None),
        (json!({"/encoder/kind": "clip-resnet-x"}), Some("kind")),
        (json!({"/encoder/widht": 4}), Some("widht")),
        (json!({"/stitch/dtype": "f32"}), Some("dtype")),
        (json!({"/stitch/dropout": "half"}), Some("dropout")),
        (json!({"/decoder/freeze": false}), Some("freeze")),
        (json!({"/decoder": null}), Some("decoder")),
        (json!({"/encoder": {"kind": "features"}}), Some("tokens")),
        (json!({"/train": {"betas": [0.9]}}), Some("betas")),
        (json!({"/train": {"recompute": "all"}}), Some("recompute")),
        (json!({"/data": {"format": "magma"}}), Some("path")),
        (json!({"/threads": 0}), Some("threads")),
        (json!({"/encoder_name": "clip"}), Some("encoder")),
    ] {
        let mut tree = base.clone();
        for (pointer, value) in changes.as_object().unwrap() {
            let (above, key) = pointer.rsplit_once('/').unwrap();
            let at = tree.pointer_mut(above).unwrap();
            at[key] = value.clone();
        }
        let file = folder.path().join("c.yaml");
        fs::write(&file, tree.to_string()).unwrap();
        let report = config::check_file(&file, &[], &registry, &|_| Ok(()));
        let found = violations(&tree, &schema);
        let Some(key) = key else {
            assert_eq!((report.problems, found), (vec![], vec![]), "{tree}");
            continue;
        };
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
        let named = |p: &config::Problem| p.key == key || (p.key.is_empty() && p.section == key);
        assert!(report.problems.iter().any(named), "{tree}: {:?}", report.problems);
        assert!(found.iter().any(|v| last(&v.key()) == key), "{tree}: {found:?}");
    }
}

/// `text` with every table between its marks as the schema has it.
fn with_tables(path: &Path, text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("<!-- ") {
        out += before;
        let (mark, after) = from.split_once(" -->\n").unwrap();
        let table = match mark.split_once(' ') {
            Some(("keys", "top")) => tables::keys(""),
            Some(("keys", name)) => tables::keys(name),
            Some(("values", name)) => tables::values(name),
            _ => panic!("{}: the mark {mark:?} is unknown", path.display()),
        };
        let table = table.unwrap_or_else(|| panic!("{}: there is nothing for {mark:?}", path.display()));
        let end = after.split_once("<!-- end -->\n");
        rest = end.unwrap_or_else(|| panic!("{}: {mark:?} has no end", path.display())).1;
        out += &format!("<!-- {mark} -->\n\n{table}\n<!-- end -->\n");
    }
    out + rest
}

#[test]
fn the_tables_of_keys_are_made_from_the_schema() {
    let mut old = Vec::new();
    let mut tables = 0;
    for name in ["configs/README.md", "docs/training.md", "docs/evaluation.md"] {
        let path = Path::new(ROOT).join(name);
        let text = fs::read_to_string(&path).unwrap();
        tables += text.matches("<!-- end -->").count();
        if !is_current(&path, &with_tables(&path, &text)) {
            old.push(name);
        }
    }
    assert!(old.is_empty(), "{old:?} have tables that are not those of the schema: {UPDATE}");
    assert_eq!(tables, 11, "a table lost its marks");
}
