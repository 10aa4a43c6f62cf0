//! The hyperparameters of a run for TensorBoard's plugin `hparams`.
//!
//! Sources followed: TensorBoard's `plugins/hparams/plugin_data.proto`, `metadata.py` and `summary_v2.py`. No experiment is
//! written beside the sessions: TensorBoard gathers the columns from all runs then, whichever keys each has.

use super::wire::{bytes, double, message, number};
use limber_config::Config;
use serde_json::Value;
use std::collections::BTreeMap;

/// The sections whose settings make a run what it is.
const SECTIONS: [&str; 6] = ["encoder", "stitch", "decoder", "train", "data", "compat"];
/// Settings that say where and how often things are written.
const BESIDES: [&str; 4] = ["train.output", "train.save_every", "train.keep", "data.workers"];

/// The settings of a config by their keys, such as `train.lr`: numbers, truth values and text; lists are text.
pub fn of(config: &Config) -> BTreeMap<String, Value> {
    let tree = config.to_value();
    let mut all = BTreeMap::new();
    for section in SECTIONS {
        if let Some(value) = tree.get(section) {
            flatten(section, value, &mut all);
        }
    }
    all
}

fn flatten(key: &str, value: &Value, all: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| flatten(&format!("{key}.{name}"), value, all)),
        Value::Null => {}
        _ if BESIDES.contains(&key) || key.starts_with("train.validate.") => {}
        Value::Array(_) => _ = all.insert(key.into(), value.to_string().into()),
        _ => _ = all.insert(key.into(), value.clone()),
    }
}

/// `Summary` with the start of a session.
pub fn start(settings: &BTreeMap<String, Value>, time: f64) -> Vec<u8> {
    let mut info = Vec::new();
    for (key, value) in settings {
        let mut own = Vec::new();
        // `google.protobuf.Value`: a number is 2, text 3, a truth value 4.
        match value {
            Value::Bool(is) => number(4, u64::from(*is), &mut own),
            Value::Number(n) => double(2, n.as_f64().unwrap_or(f64::NAN), &mut own),
            Value::String(text) => bytes(3, text.as_bytes(), &mut own),
            other => bytes(3, other.to_string().as_bytes(), &mut own),
        }
        let mut entry = message(1, key.as_bytes());
        bytes(2, &own, &mut entry);
        bytes(1, &entry, &mut info);
    }
    double(5, time, &mut info);
    summary("_hparams_/session_start_info", &message(3, &info))
}

/// `Summary` with the end of a session that succeeded.
pub fn end(time: f64) -> Vec<u8> {
    const SUCCESS: u64 = 1;
    let mut info = Vec::new();
    number(1, SUCCESS, &mut info);
    double(2, time, &mut info);
    summary("_hparams_/session_end_info", &message(4, &info))
}

/// `Summary` of one value of the plugin: the data are metadata of an empty tensor.
fn summary(tag: &str, data: &[u8]) -> Vec<u8> {
    const DT_FLOAT: u64 = 1;
    let mut plugin = message(1, b"hparams");
    bytes(2, data, &mut plugin);
    let mut tensor = Vec::new();
    number(1, DT_FLOAT, &mut tensor);
    // One dimension of size 0.
    bytes(2, &message(2, &[]), &mut tensor);
    let mut value = message(1, tag.as_bytes());
    bytes(8, &tensor, &mut value);
    bytes(9, &message(1, &plugin), &mut value);
    message(1, &value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_have_flat_keys_and_no_paths() {
        let tree = json!({
            "encoder": {"kind": "features", "tokens": 4, "width": 8},
            "stitch": {"kind": "linear", "dropout": 0.1},
            "decoder": {"kind": "gptj", "weights": "random:1", "tokenizer": "t.json"},
            "train": {"lr": 0.25, "betas": [0.5, 0.75], "output": "out", "steps": 7},
            "data": {"format": "jsonl", "path": "d.jsonl", "shuffle": false}
        });
        let config = Config::from_tree(tree, std::path::Path::new("")).unwrap();
        let all = of(&config);
        for (key, value) in [
            ("encoder.kind", json!("features")),
            ("encoder.tokens", json!(4)),
            ("train.lr", json!(0.25)),
            ("train.betas", json!("[0.5,0.75]")),
            ("data.shuffle", json!(false)),
        ] {
            assert_eq!(all.get(key), Some(&value), "{key} of {all:?}");
        }
        assert!(!all.keys().any(|key| BESIDES.contains(&key.as_str())), "{all:?}");
    }
}
