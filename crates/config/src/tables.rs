//! Markdown tables of the keys of a config, made from the schema: what the documentation shows.

use super::schema;
use limber_core::settings::{constants, expected, types};
use serde_json::Value;

/// The keys of what stands under `name` at the top of a config, the keys of maps in it with dots; of the top itself where
/// `name` is empty. None where there is no such name.
pub fn keys(name: &str) -> Option<String> {
    let mut rows = vec![["key", "value", "default", "what"].map(str::to_string), ["---"; 4].map(str::to_string)];
    match name {
        "" => {
            for name in schema::names() {
                let section = schema::section(name)?;
                let is_map = section.get("properties").is_some();
                rows.push(row(name, &section, false, if is_map { Some("a section") } else { None }));
            }
        }
        name => section_rows("", &schema::section(name)?, &mut rows),
    }
    Some(rows.iter().map(|cells| format!("| {} |\n", cells.join(" | "))).collect())
}

/// The values of a key with dots, each with what it means; None where the key takes others.
pub fn values(key: &str) -> Option<String> {
    let mut names = key.split('.');
    let mut schema = schema::section(names.next()?)?;
    for name in names {
        schema = schema["properties"].get(name)?.clone();
    }
    let options = schema.get("oneOf")?.as_array()?;
    let row = |option: &Value| Some(format!("| {} | {} |\n", code(option.get("const")?), about(option)));
    let rows: Option<String> = options.iter().map(row).collect();
    Some(format!("| `{}` | what |\n| --- | --- |\n{}", key.rsplit('.').next()?, rows?))
}

fn section_rows(prefix: &str, section: &Value, rows: &mut Vec<[String; 4]>) {
    let needed = |key: &str| section["required"].as_array().is_some_and(|list| list.iter().any(|name| name == key));
    for (key, schema) in section["properties"].as_object().into_iter().flatten() {
        let name = format!("{prefix}{key}");
        // The keys of a section that stands inside another are those of the section.
        if schema.get("properties").is_some() && schema::section(key).is_none() {
            section_rows(&format!("{name}."), schema, rows);
        } else {
            rows.push(row(&name, schema, needed(key), None));
        }
    }
}

fn row(name: &str, schema: &Value, needed: bool, words: Option<&str>) -> [String; 4] {
    let listed = constants(schema, schema);
    let value = match words {
        Some(words) => words.to_string(),
        None if !listed.is_empty() => listed.iter().map(code).collect::<Vec<_>>().join(", "),
        None if types(schema) == ["string"] && schema.get("format").is_some_and(|f| f == "path") => {
            "a path".to_string()
        }
        None => expected(schema, schema),
    };
    let default = match schema.get("default") {
        _ if needed => "needed".to_string(),
        Some(default) if !default.is_object() => code(default),
        _ => String::new(),
    };
    [format!("`{name}`"), value, default, about(schema)]
}

fn code(value: &Value) -> String {
    format!("`{value}`").replace("`\"", "`").replace("\"`", "`").replace('|', "\\|")
}

/// The description in one line, without a dot at its end.
fn about(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_say_value_default_and_meaning() {
        let train = keys("train").unwrap();
        for line in [
            "| key | value | default | what |",
            "| `steps` | a whole number from 1 to 1000000000 | `15000` | Optimiser steps |",
            "| `schedule` | `warmup-decay`, `warmup`, `cosine`, `constant` | `warmup-decay` | Learning rate schedule |",
            "| `validate.every` | a whole number, at least 1 | `500` | Steps between two validations; there is one before the first step and one after the last, too |",
            "| `output` | a path |  | Folder of log and checkpoints; `limber train` needs it |",
        ] {
            assert!(train.lines().any(|l| l == line), "{train}lacks {line}");
        }
        let data = keys("data").unwrap();
        assert!(data.contains("| `path` | a path | needed |"), "{data}");
        assert!(keys("").unwrap().contains("| `prompt` | text | `A picture of` |"), "{}", keys("").unwrap());
        assert!(keys("decoder").unwrap().contains("| `tokenizer` |") && !keys("stitch").unwrap().contains("`dtype`"));
        assert!(values("data.format").unwrap().contains("\n| `coco` | COCO's captions JSON"));
        assert_eq!((keys("trian"), values("train.steps")), (None, None));
    }
}
