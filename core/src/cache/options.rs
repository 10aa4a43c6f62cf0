//! What a new cache is asked for: sizes, and the type that keys and values are kept in.

use candle_core::DType;
use serde::{Deserialize, Serialize};

/// The type that keys and values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheType {
    /// 32-bit floats: as computed.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl CacheType {
    /// The name in configs.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Bf16 => "bf16",
        }
    }

    pub(super) fn dtype(self) -> DType {
        match self {
            CacheType::F32 => DType::F32,
            CacheType::F16 => DType::F16,
            CacheType::Bf16 => DType::BF16,
        }
    }
}

/// The sizes of a new cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Batch size B: the number of sequences.
    pub batch: usize,
    /// Maximum number of positions of a sequence, prefix, text and new tokens together.
    pub capacity: usize,
    /// Sequences that it may grow to without a copy; a hint.
    pub slots: usize,
    /// The type to keep keys and values in; a hint.
    pub dtype: CacheType,
}

impl CacheOptions {
    /// `batch` sequences of up to `capacity` positions in f32, without room for more sequences.
    pub fn new(batch: usize, capacity: usize) -> Self {
        Self { batch, capacity, slots: batch, dtype: CacheType::F32 }
    }

    /// The same with keys and values in `dtype`.
    pub fn with_type(self, dtype: CacheType) -> Self {
        Self { dtype, ..self }
    }

    /// The same with room for `slots` sequences.
    pub fn with_slots(self, slots: usize) -> Self {
        Self { slots, ..self }
    }
}
