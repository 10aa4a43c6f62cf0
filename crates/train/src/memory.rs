//! The memory that a run will take: an estimate from sizes, before the first step.
//!
//! Weights count in full, though pages of mapped files may be given back. Activations are f32, and their factors are those
//! measured in `docs/training.md`: 8 numbers a position and block at width D where matrix products are kept, some 20 where
//! all is, the block's input alone where all is computed again, and one block's own beside it.

use limber_config::Train;
use limber_core::{Checkpointing, DecoderSpec};

/// Bytes of an f32.
const F32: u64 = 4;

/// Sizes that decide a run's memory.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes of both frozen components' weights.
    pub weights: u64,
    /// Numbers that are trained.
    pub parameters: u64,
    /// Positions of a sample: prefix, prompt and caption.
    pub positions: u64,
    /// Positions of a sample with a target.
    pub targets: u64,
}

/// Bytes that a run takes at its most.
pub fn expected(train: &Train, decoder: &DecoderSpec, sizes: Sizes) -> u64 {
    let Sizes { weights, parameters, positions, targets } = sizes;
    let (batch, width, layers) = (train.batch as u64, decoder.width as u64, decoder.layers as u64);
    let factor = match train.recompute {
        Checkpointing::Full => 1,
        Checkpointing::Selective => 8,
        Checkpointing::None => 20,
    };
    let of_blocks = batch.saturating_mul(positions).saturating_mul(width * F32).saturating_mul(factor * layers + 20);
    // The logits, what the loss keeps of them, and their gradient.
    let of_logits = batch.saturating_mul(targets).saturating_mul(decoder.vocab as u64 * F32 * 3);
    // A value, its gradient and two moments.
    let of_stitch = parameters.saturating_mul(4 * F32);
    weights.saturating_add(of_blocks).saturating_add(of_logits).saturating_add(of_stitch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activation_checkpointing_saves_what_blocks_keep() {
        let decoder =
            DecoderSpec { width: 10, vocab: 100, layers: 30, kv_heads: 1, head_dim: 10, context: 64, eos: vec![1] };
        let sizes = Sizes { weights: 1000, parameters: 7, positions: 5, targets: 3 };
        let of = |recompute| expected(&Train { batch: 2, recompute, ..Train::default() }, &decoder, sizes);
        // 2 x 5 positions of 10 numbers a block and factor; 2 x 3 rows of 100 logits, three times; four numbers a parameter.
        let rest = 1000 + 2 * 3 * 100 * 4 * 3 + 7 * 16;
        assert_eq!(of(Checkpointing::Full), rest + 2 * 5 * 40 * (30 + 20));
        assert_eq!(of(Checkpointing::Selective), rest + 2 * 5 * 40 * (8 * 30 + 20));
        assert_eq!(of(Checkpointing::None), rest + 2 * 5 * 40 * (20 * 30 + 20));
    }
}
