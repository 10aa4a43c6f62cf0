//! The sections `encoder`, `stitch` and `decoder`: a kind, where its weights lie, and settings that are the part's own.

use super::problem::Problem;
use super::reader::{Reader, or};
use serde_json::{Map, Value};

/// The roles a part can have, also the names of their sections.
pub const ROLES: [&str; 3] = ["encoder", "stitch", "decoder"];

/// The types that frozen weights can be held in.
pub const DTYPES: [&str; 5] = ["f32", "f16", "bf16", "q8_0", "q4_k"];

/// One part as a config names it.
///
/// `dtype` and `freeze` belong to `encoder` and `decoder`, `tokenizer` to `decoder` alone; every key that is not listed
/// here is a setting of the part, which the registry checks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Section {
    /// The kind, as `limber components` lists it; `auto` where a folder's `config.json` tells.
    pub kind: String,
    /// A file or folder, `hf:owner/name[@revision][/file]` or `random:SEED`; absent means the embedded demo's part.
    pub weights: Option<String>,
    /// The type that frozen weights are held in, one of [`DTYPES`]; absent means as they are stored.
    pub dtype: Option<String>,
    /// A file or folder with a tokenizer; absent means beside the weights.
    pub tokenizer: Option<String>,
    /// Settings of the part.
    pub settings: Map<String, Value>,
}

impl Section {
    /// The section `role` of a tree.
    pub(super) fn read(role: &str, value: Option<Value>, problems: &mut Vec<Problem>) -> Self {
        let Some(value) = value else {
            problems.push(Problem::new(role, "", "missing section; it needs the key \"kind\""));
            return Self::default();
        };
        let (before, is_map) = (problems.len(), value.is_object());
        let mut reader = Reader::new(role, value, problems);
        let kind = reader.name("kind");
        let mut section = Self { weights: read_weights(&mut reader), ..Self::default() };
        if role != "stitch" {
            let dtypes = DTYPES.map(|name| (name, name));
            section.dtype = reader.choice("dtype", &dtypes).map(str::to_string);
            if reader.flag("freeze") == Some(false) {
                reader.problem("freeze", "value false is not supported, must be true: only the stitch is trained");
            }
        }
        if role == "decoder" {
            section.tokenizer = reader.name("tokenizer");
        }
        section.settings = reader.rest();
        // A section that is no map, or whose kind is no text, has its problem already.
        let said = !is_map || problems[before..].iter().any(|p| p.key == "kind");
        if kind.is_none() && !said {
            problems.push(Problem::new(role, "kind", "missing key; `limber components` lists the kinds"));
        }
        section.kind = kind.unwrap_or_default();
        section
    }

    /// The section as a tree; what is not set is left out.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("kind".into(), self.kind.clone().into());
        let host = [("weights", &self.weights), ("dtype", &self.dtype), ("tokenizer", &self.tokenizer)];
        for (key, value) in host {
            if let Some(value) = value {
                map.insert(key.into(), value.clone().into());
            }
        }
        map.extend(self.settings.clone());
        Value::Object(map)
    }
}

fn read_weights(reader: &mut Reader) -> Option<String> {
    let weights = reader.name("weights")?;
    let forms = ["a file or folder", "hf:owner/name[@revision][/file]", "random:SEED"];
    let wrong = if let Some(seed) = weights.strip_prefix("random:") {
        seed.parse::<u64>().is_err().then_some("SEED is a whole number, at least 0")
    } else if let Some(name) = weights.strip_prefix("hf:") {
        let complete = name.split(['/', '@']).take(2).filter(|part| !part.is_empty()).count() == 2;
        (!complete || !name.contains('/')).then_some("a name on the hub is owner/name")
    } else {
        weights.contains("://").then_some("an address is not read")
    };
    if let Some(why) = wrong {
        let message = format!("value {weights:?} is not allowed ({why}), must be {}", or(&forms));
        reader.problem("weights", message);
    }
    Some(weights)
}

/// Whether `weights` is a path on this machine.
pub fn is_local(weights: &str) -> bool {
    !weights.starts_with("hf:") && !weights.starts_with("random:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn host_keys_are_taken_out_and_the_rest_is_the_parts() {
        let value = json!({"model": "tiny", "kind": "gptj", "dtype": "bf16", "freeze": true, "tokenizer": "t"});
        let mut problems = Vec::new();
        let section = Section::read("decoder", Some(value), &mut problems);
        assert_eq!(problems, []);
        assert_eq!(section.settings, *json!({"model": "tiny"}).as_object().unwrap());
        assert_eq!(section.to_value(), json!({"kind": "gptj", "dtype": "bf16", "tokenizer": "t", "model": "tiny"}));
        // What is the host's in one role is the part's in another, whose schema refuses it.
        let section = Section::read("stitch", Some(json!({"kind": "linear", "dtype": "f32"})), &mut problems);
        assert!(section.settings.contains_key("dtype"));
    }

    #[test]
    fn every_wrong_value_has_its_message() {
        let check = |value: Value, expected: &str| {
            let mut problems = Vec::new();
            Section::read("encoder", Some(value), &mut problems);
            let messages: Vec<String> = problems.iter().map(Problem::to_string).collect();
            assert_eq!(messages, [expected]);
        };
        check(
            json!({"kind": 3}),
            "section \"encoder\", key \"kind\": value 3 is not allowed, must be text (put it in quotes)",
        );
        check(json!({"kind": " "}), "section \"encoder\", key \"kind\": the text is empty");
        check(json!("beit"), "section \"encoder\": \"beit\" is not allowed, must be a map of keys");
        check(json!({}), "section \"encoder\", key \"kind\": missing key; `limber components` lists the kinds");
        check(
            json!({"kind": "beit", "dtype": "bf-16"}),
            "section \"encoder\", key \"dtype\": value \"bf-16\" is not allowed (did you mean \"bf16\"?), must be f32, f16, bf16, q8_0 or q4_k",
        );
        check(
            json!({"kind": "beit", "freeze": false}),
            "section \"encoder\", key \"freeze\": value false is not supported, must be true: only the stitch is trained",
        );
        let forms = "must be a file or folder, hf:owner/name[@revision][/file] or random:SEED";
        for (weights, why) in [
            ("random:x", "SEED is a whole number, at least 0"),
            ("random:-1", "SEED is a whole number, at least 0"),
            ("hf:gpt2", "a name on the hub is owner/name"),
            ("hf:/gpt2", "a name on the hub is owner/name"),
            ("https://x.org/y", "an address is not read"),
        ] {
            check(
                json!({"kind": "beit", "weights": weights}),
                &format!("section \"encoder\", key \"weights\": value {weights:?} is not allowed ({why}), {forms}"),
            );
        }
        let mut problems = Vec::new();
        Section::read("decoder", None, &mut problems);
        assert_eq!(problems[0].to_string(), "section \"decoder\": missing section; it needs the key \"kind\"");
    }

    #[test]
    fn every_form_of_weights_is_taken() {
        for weights in ["random:1", "hf:a/b", "hf:a/b@float16", "hf:a/b@main/x.bin", "a/b.ckpt", "/a", "C:\\x"] {
            let mut problems = Vec::new();
            Section::read("encoder", Some(json!({"kind": "beit", "weights": weights})), &mut problems);
            assert_eq!(problems, [], "{weights}");
        }
    }
}
