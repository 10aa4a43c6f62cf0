//! The key `device`: the device that holds the tensors.

use limber_core::settings::or;
use limber_core::text_setting;
use schemars::json_schema;
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

text_setting!(
    DeviceSpec,
    "Device",
    json_schema!({
        "type": "string",
        "pattern": "^(cpu|metal|cuda(:[0-9]+)?)$",
        "errorMessage": format!("expected {}", or(&FORMS)),
    })
);

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
