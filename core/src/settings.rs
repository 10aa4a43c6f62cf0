//! Settings of a part: a JSON tree in, a typed `Config` out, with errors that name section, key and what is allowed.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A section of a config that does not fit its part.
#[derive(Debug, thiserror::Error)]
#[error("section {section:?}, key {key:?}: {message}")]
pub struct SettingsError {
    /// The section: `encoder`, `stitch`, `decoder`, ...
    pub section: String,
    /// The key inside the section, dotted; `.` is the section itself.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Reads `value` as `T`. Null counts as an empty section.
///
/// # Errors
/// An unknown key (the message lists the allowed ones), a missing one, a value of another type.
pub fn parse<T: DeserializeOwned>(section: &str, value: Value) -> Result<T, SettingsError> {
    let value = if value.is_null() { Value::Object(Default::default()) } else { value };
    serde_path_to_error::deserialize(value).map_err(|e| SettingsError {
        section: section.to_string(),
        key: e.path().to_string(),
        message: e
            .inner()
            .to_string()
            .replace('`', "\"")
            .replace("unknown field", "unknown key")
            .replace("missing field", "missing key"),
    })
}

/// `config` as a JSON tree, without the keys that are not set.
///
/// # Errors
/// A map whose keys are not text, which no part has.
pub fn to_value<T: Serialize>(config: &T) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(config)?;
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !v.is_null());
    }
    Ok(value)
}

/// A part's own settings over those of a preset (its name with them) or of what lies beside the weights (the place with
/// them). Where there are both, they must say the same, save for the keys `ignored`.
///
/// # Errors
/// The first key in which preset and place differ, with both values.
pub fn layered<T: Serialize + DeserializeOwned>(
    own: &T,
    preset: Option<(&str, &T)>,
    found: Option<(&str, &T)>,
    ignored: &[&str],
) -> anyhow::Result<T> {
    if let (Some((name, preset)), Some((place, found))) = (preset, found) {
        let (wanted, there) = (to_value(preset)?, to_value(found)?);
        for (key, wanted) in wanted.as_object().into_iter().flatten() {
            let there = there.get(key).unwrap_or(&Value::Null);
            if there != wanted && !ignored.contains(&key.as_str()) {
                anyhow::bail!(
                    "{place}: {key} is {there}, but {wanted} in the model {name:?}; leave out model, or set the one that the weights are of"
                )
            }
        }
    }
    let mut value = match found.or(preset) {
        Some((_, base)) => to_value(base)?,
        None => return Ok(serde_json::from_value(to_value(own)?)?),
    };
    if let (Value::Object(map), Value::Object(own)) = (&mut value, to_value(own)?) {
        map.extend(own);
    }
    Ok(serde_json::from_value(value)?)
}

/// `own` with the values of `defaults` for what is not set.
///
/// # Errors
/// As [`to_value`].
pub fn over<T: Serialize + DeserializeOwned>(own: &T, defaults: &T) -> anyhow::Result<T> {
    layered(own, Some(("defaults", defaults)), None, &[])
}

/// A size that `part` cannot do without.
///
/// # Errors
/// A size of 0, or none.
pub fn size(part: &str, key: &str, value: Option<usize>) -> anyhow::Result<usize> {
    match value {
        Some(0) => anyhow::bail!("{part}: {key} is 0, allowed is 1 and above"),
        Some(n) => Ok(n),
        None => anyhow::bail!("{part}: {key} is not set"),
    }
}

/// The JSON Schema of `T`.
pub fn schema<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Sizes {
        width: Option<usize>,
        scale: Option<f32>,
        layers: Option<Vec<usize>>,
    }

    #[test]
    fn settings_lie_over_a_preset_or_a_file() {
        let base = Sizes { width: Some(1), scale: Some(0.02), layers: None };
        let own = Sizes { layers: Some(vec![2]), ..Sizes::default() };
        let both = Sizes { width: Some(1), scale: Some(0.02), layers: Some(vec![2]) };
        assert_eq!(layered(&own, Some(("m", &base)), None, &[]).unwrap(), both);
        assert_eq!(layered(&own, None, Some(("here", &base)), &[]).unwrap(), both);
        assert_eq!(layered(&own, Some(("m", &base)), Some(("here", &base)), &[]).unwrap(), both);
        assert_eq!(layered(&own, None, None, &[]).unwrap(), own);
        let found = Sizes { width: Some(3), scale: Some(0.02), layers: None };
        let message = layered(&own, Some(("m", &base)), Some(("here", &found)), &[]).unwrap_err().to_string();
        assert_eq!(
            message,
            "here: width is 3, but 1 in the model \"m\"; leave out model, or set the one that the weights are of"
        );
        let width = layered(&own, Some(("m", &base)), Some(("here", &found)), &["width"]).unwrap().width;
        assert_eq!(width, Some(3));
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Toy {
        #[allow(dead_code)]
        width: usize,
        #[serde(default)]
        #[allow(dead_code)]
        bias: bool,
    }

    #[test]
    fn messages_name_section_key_and_what_is_allowed() {
        let check = |value: Value, expected: &[&str]| {
            let message = parse::<Toy>("encoder", value).unwrap_err().to_string();
            for part in expected {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        };
        check(json!({"width": 1, "widht": 2}), &["encoder", "unknown key \"widht\"", "\"width\" or \"bias\""]);
        check(json!({"bias": true}), &["encoder", "missing key \"width\""]);
        check(json!({"width": "four"}), &["\"width\"", "invalid type", "usize"]);
        check(Value::Null, &["missing key \"width\""]);
    }
}
