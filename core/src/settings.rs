//! Settings: a JSON tree in, a typed value out, with every problem named by its key and what is expected there.
//!
//! [`read`] serves components and sections of a config file alike: a type with serde's and schemars' derives is the one
//! definition of which keys there are, what they may hold and what they are by default.

mod expected;
mod read;
mod text;
mod violations;
mod words;

pub use expected::{constants, expected, options, resolved, types};
pub use read::{read, read_as};
pub use violations::{Violation, violations};
pub use words::{did_you_mean, or, shown, unknown_key};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;

/// A section of a config that does not fit its component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// The section: `encoder`, `stitch`, `decoder`, ...
    pub section: String,
    /// Everything that is wrong, at least one thing.
    pub violations: Vec<Violation>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, violation) in self.violations.iter().enumerate() {
            let between = if i == 0 { "" } else { "; " };
            let key = violation.key();
            write!(f, "{between}section {:?}", self.section)?;
            if !key.is_empty() {
                write!(f, ", key {key:?}")?;
            }
            write!(f, ": {}", violation.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

/// Reads `value` as `T`. Null counts as an empty section.
///
/// # Errors
/// Unknown keys (the message lists the expected ones), missing ones, values that are not allowed: all of them.
pub fn parse<T: DeserializeOwned + JsonSchema>(section: &str, value: Value) -> Result<T, SettingsError> {
    match read(value) {
        (Some(settings), violations) if violations.is_empty() => Ok(settings),
        (_, violations) => Err(SettingsError { section: section.to_string(), violations }),
    }
}

/// `config` as a JSON tree, without the keys that are not set.
///
/// # Errors
/// A map whose keys are not text, which no component has.
pub fn to_value<T: Serialize>(config: &T) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(config)?;
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !v.is_null());
    }
    Ok(value)
}

/// A component's own settings over those of a preset (its name with them) or of what lies beside the weights (the
/// location with them). Where there are both, they must say the same, save for the keys `ignored`.
///
/// # Errors
/// The first key in which preset and document differ, with both values.
pub fn layered<T: Serialize + DeserializeOwned>(
    own: &T,
    preset: Option<(&str, &T)>,
    found: Option<(&str, &T)>,
    ignored: &[&str],
) -> anyhow::Result<T> {
    if let (Some((name, preset)), Some((location, found))) = (preset, found) {
        let (wanted, there) = (to_value(preset)?, to_value(found)?);
        for (key, wanted) in wanted.as_object().into_iter().flatten() {
            let there = there.get(key).unwrap_or(&Value::Null);
            if there != wanted && !ignored.contains(&key.as_str()) {
                anyhow::bail!(
                    "{location}: {key} is {there}, but {wanted} in the model {name:?}; leave out model, or set the one that the weights are of"
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

/// Sets what is not set: to what is found, else to the default.
pub fn fill<T>(setting: &mut Option<T>, found: Option<T>, default: T) {
    setting.get_or_insert(found.unwrap_or(default));
}

/// A size that `component` cannot do without.
///
/// # Errors
/// A size of 0, or none.
pub fn size(component: &str, key: &str, value: Option<usize>) -> anyhow::Result<usize> {
    match value {
        Some(0) => anyhow::bail!("{component}: {key} is 0, expected at least 1"),
        Some(n) => Ok(n),
        None => anyhow::bail!("{component}: {key} is not set"),
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

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Toy {
        /// Width E.
        #[allow(dead_code)]
        width: usize,
        #[serde(default)]
        #[allow(dead_code)]
        bias: bool,
    }

    #[test]
    fn messages_name_section_key_and_what_is_expected() {
        let check = |value: Value, expected: &str| {
            assert_eq!(parse::<Toy>("encoder", value).unwrap_err().to_string(), expected);
        };
        check(
            json!({"width": 1, "widht": 2}),
            "section \"encoder\", key \"widht\": unknown key (did you mean \"width\"?); expected keys: width, bias",
        );
        let missing = "section \"encoder\", key \"width\": missing key, expected a whole number, at least 0: width E";
        check(json!({"bias": true}), missing);
        check(Value::Null, missing);
        check(
            json!({"width": "four", "bias": 1}),
            "section \"encoder\", key \"width\": value \"four\" is not allowed, expected a whole number, at least 0; \
             section \"encoder\", key \"bias\": value 1 is not allowed, expected true or false",
        );
        check(json!(3), "section \"encoder\": value 3 is not allowed, expected a map of keys");
    }
}
