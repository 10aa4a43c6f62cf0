//! A language model of the usual build: word embeddings, blocks, a last norm, a head.
//!
//! Embeddings `[B, T, D]`, scaled, projected and given positions as the model has it, go through L
//! [`DecoderBlock`]s to logits over V.

mod plan;

pub use plan::{HeadPlan, ModelPlan, PositionPlan, TablePlan};

use crate::decoder::{Decoder, Run};
use crate::decoder_block::{DecoderBlock, MatrixPlan};
use crate::frozen::{FrozenEmbedding, FrozenLinear};
use crate::graph::add_frozen;
use crate::layers::Blocks;
use crate::ops::{Norm, Rotary, soft_cap};
use crate::spec::DecoderSpec;
use crate::weights::{WeightError, Weights};
use candle_core::Tensor;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// A frozen language model with its weights.
pub struct DecoderModel {
    words: FrozenEmbedding,
    word_scale: f64,
    input_scale: f64,
    projections: Option<(FrozenLinear, FrozenLinear)>,
    positions: Option<Positions>,
    blocks: Blocks<DecoderBlock>,
    norm: Option<Norm>,
    head: FrozenLinear,
    scale: f64,
    soft_cap: Option<f64>,
    /// Positions up to which a sequence's length does not change its rotary frequencies.
    steady: usize,
}

/// Learned positions.
struct Positions {
    table: FrozenEmbedding,
    /// Entries before that of position 0.
    offset: usize,
    scale: f64,
}

/// x times `scale`.
fn scaled(x: Tensor, scale: f64) -> Result<Tensor> {
    if scale == 1.0 { Ok(x) } else { x * scale }
}

impl DecoderModel {
    /// The model of `plan` with its weights.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; blocks that do not fit the sizes or each other.
    pub fn load(plan: &ModelPlan, weights: &Weights) -> Result<Self, WeightError> {
        plan.check().map_err(|message| weights.failure(message))?;
        let spec = &plan.spec;
        let (d, vocab) = (spec.width, spec.vocab);
        let width = plan.blocks.first().map_or(d, |block| block.width);
        let w = weights.under_any(plan.prefixes, &format!("{}.weight", plan.probe));
        let named = |name: &str| weights.has(&format!("{name}.weight"));
        let matrix = match plan.head.other_name {
            Some(name) if named(plan.head.matrix.name) == Some(false) && named(name) == Some(true) => {
                MatrixPlan { name, ..plan.head.matrix }
            }
            _ => plan.head.matrix,
        };
        let table = w.pp(plan.words.name);
        let (words, head) = if plan.head.tied {
            let bias = matrix.biased.then_some(crate::weights::ZEROS);
            table.tied(&weights.pp(matrix.name), vocab, d, plan.words.init, bias)?
        } else {
            (table.embedding(vocab, d, plan.words.init)?, matrix.load(weights, d, vocab)?)
        };
        let projections = match &plan.projections {
            Some((inward, outward)) => Some((inward.load(&w, d, width)?, outward.load(&w, width, d)?)),
            None => None,
        };
        let positions = match &plan.positions {
            Some(PositionPlan { table: TablePlan { name, init, scale }, offset }) => {
                let table = w.pp(name).embedding(spec.context + offset, width, *init)?;
                Some(Positions { table, offset: *offset, scale: *scale })
            }
            None => None,
        };
        let block = |(layer, block)| DecoderBlock::load(block, &w.pp(format!("{}.{layer}", plan.layers)));
        let blocks = plan.blocks.iter().enumerate().map(block).collect::<Result<Vec<_>, _>>()?;
        let norm = match plan.final_norm {
            Some((name, norm)) => Some(Norm::load(norm.kind, &w.pp(name), width, norm.eps)?),
            None => None,
        };
        let rotary = plan.blocks.iter().filter_map(|block| block.attention.rotary.as_ref());
        Ok(Self {
            words,
            word_scale: plan.words.scale,
            input_scale: plan.input_scale,
            projections,
            positions,
            blocks: Blocks::new(spec.clone(), blocks),
            norm,
            head,
            scale: plan.head.scale,
            soft_cap: plan.head.soft_cap,
            steady: rotary.map(Rotary::steady).min().unwrap_or(spec.context),
        })
    }

    /// Embeddings `[B, T, D]` to what the first block takes.
    fn input(&self, embeds: &Tensor, past: &[usize]) -> Result<Tensor> {
        let x = scaled(embeds.clone(), self.input_scale)?;
        let x = match &self.projections {
            Some((inward, _)) => inward.forward(&x)?,
            None => x,
        };
        match &self.positions {
            Some(Positions { table, offset, scale }) => {
                let first: Vec<usize> = past.iter().map(|past| past + offset).collect();
                add_frozen(&x, &scaled(table.following(&first, embeds.dim(1)?)?, *scale)?)
            }
            None => Ok(x),
        }
    }

    /// What the last block gave, `[.., D]`, to hidden states `[.., D]`.
    fn output(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(x))?;
        self.projections.as_ref().map_or(Ok(x.clone()), |(_, outward)| outward.forward(&x))
    }

    /// Hidden states `[.., D]` to logits `[.., V]`.
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let logits = scaled(self.head.forward(x)?, self.scale)?;
        self.soft_cap.map_or(Ok(logits.clone()), |cap| soft_cap(&logits, cap))
    }
}

impl Decoder for DecoderModel {
    fn spec(&self) -> DecoderSpec {
        self.blocks.spec().clone()
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        scaled(self.words.forward(ids)?, self.word_scale)
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> Result<Tensor> {
        let past = self.blocks.start(embeds, run)?;
        let x = self.input(embeds, &past)?;
        self.blocks.run(&x, &past, run, |x| self.output(x), |x| self.logits(x))
    }

    fn supports_prefix_reuse(&self, positions: usize) -> bool {
        positions <= self.steady
    }
}
