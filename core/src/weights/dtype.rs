//! The types that frozen weights are held in, plain and in blocks.

use crate::settings::or;
use limber_kernels::BlockType;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The type of a frozen tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// GGUF's q8_0: blocks of 32 numbers in 34 bytes.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// GGUF's q4_k: super-blocks of 256 numbers in 144 bytes.
    #[serde(rename = "q4_k")]
    Q4K,
    /// Another block format of GGUF, which files hold and nothing is converted to.
    #[serde(skip)]
    Blocks(BlockType),
}

impl WeightType {
    /// Every type that can be asked for, in the order of their names in messages.
    pub const ALL: [WeightType; 5] =
        [WeightType::F32, WeightType::F16, WeightType::Bf16, WeightType::Q8_0, WeightType::Q4K];

    /// The name in configs: `f32`, `f16`, `bf16`, `q8_0`, `q4_k`.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::F16 => "f16",
            WeightType::Bf16 => "bf16",
            WeightType::Q8_0 => "q8_0",
            WeightType::Q4K => "q4_k",
            WeightType::Blocks(format) => format.name(),
        }
    }

    /// The type of a name in a file of weights: those of configs, and GGUF's other block formats.
    pub fn stored_as(name: &str) -> Option<Self> {
        Self::named(name).or_else(|| BlockType::named(name).map(WeightType::Blocks))
    }

    /// The type of a name in configs.
    pub fn named(name: &str) -> Option<Self> {
        name.parse().ok()
    }

    /// Numbers that are coded together along a row, and the bytes that they take.
    pub fn block(self) -> (usize, usize) {
        match self {
            WeightType::F32 => (1, 4),
            WeightType::F16 | WeightType::Bf16 => (1, 2),
            WeightType::Q8_0 => (32, limber_kernels::Q8_0_BYTES),
            WeightType::Q4K => (256, limber_kernels::Q4K_BYTES),
            WeightType::Blocks(format) => (format.numbers(), format.bytes()),
        }
    }

    /// Whether numbers are coded in blocks.
    pub fn is_quantised(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of a tensor of `shape`; None where its rows are no whole blocks, or it is too large.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let (numbers, bytes) = self.block();
        if self.is_quantised() && !shape.last().is_some_and(|n| n.is_multiple_of(numbers)) {
            return None;
        }
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        (elements / numbers).checked_mul(bytes)
    }

    /// This type where a matrix of `shape` can have it; else q8_0 for q4_k, f32 for q8_0.
    pub fn fitting(self, shape: &[usize]) -> Self {
        match (self, self.bytes(shape)) {
            (_, Some(_)) => self,
            (WeightType::Q4K, None) => WeightType::Q8_0.fitting(shape),
            _ => WeightType::F32,
        }
    }

    /// Bytes that an address is a multiple of.
    pub(super) fn alignment(self) -> usize {
        if self.is_quantised() { 1 } else { self.block().1 }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightType {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let named = Self::deserialize(text.into_deserializer());
        named.map_err(|_: ValueError| {
            anyhow::anyhow!("type {text:?} is unknown, expected {}", or(&Self::ALL.map(WeightType::name)))
        })
    }
}
