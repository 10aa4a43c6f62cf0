//! The key `device`: where tensors lie.

use limber_core::settings::or;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The forms that a device is written in.
const FORMS: [&str; 4] = ["cpu", "cuda", "cuda:N", "metal"];

/// A device as a config names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceSpec {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA device by its number; None is the first.
    Cuda(Option<usize>),
    /// Apple's Metal.
    Metal,
}

impl FromStr for DeviceSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match (text, text.strip_prefix("cuda:").and_then(number)) {
            ("cpu", _) => Ok(DeviceSpec::Cpu),
            ("cuda", _) => Ok(DeviceSpec::Cuda(None)),
            ("metal", _) => Ok(DeviceSpec::Metal),
            (_, Some(number)) => Ok(DeviceSpec::Cuda(Some(number))),
            _ => anyhow::bail!("value {text:?} is not allowed, expected {}", or(&FORMS)),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DeviceSpec::Cpu => f.write_str("cpu"),
            DeviceSpec::Cuda(None) => f.write_str("cuda"),
            DeviceSpec::Cuda(Some(number)) => write!(f, "cuda:{number}"),
            DeviceSpec::Metal => f.write_str("metal"),
        }
    }
}

impl Serialize for DeviceSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for DeviceSpec {
    fn schema_name() -> Cow<'static, str> {
        "Device".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let message = format!("expected {}", or(&FORMS));
        json_schema!({"type": "string", "pattern": "^(cpu|metal|cuda(:[0-9]+)?)$", "errorMessage": message})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_printed() {
        for (text, device) in [
            ("cpu", DeviceSpec::Cpu),
            ("cuda", DeviceSpec::Cuda(None)),
            ("cuda:3", DeviceSpec::Cuda(Some(3))),
            ("metal", DeviceSpec::Metal),
        ] {
            assert_eq!((text.parse::<DeviceSpec>().unwrap(), device.to_string().as_str()), (device, text));
        }
        for text in
            ["gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:99999999999999999999", "metal:1", ""]
        {
            let message = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert_eq!(message, format!("value {text:?} is not allowed, expected cpu, cuda, cuda:N or metal"));
        }
    }
}
