//! A language model of the usual build as data: sizes, names, and the plans of its blocks.

use crate::decoder_block::{BlockPlan, MatrixPlan, NormPlan};
use crate::ops::Heads;
use crate::spec::DecoderSpec;
use crate::weights::Init;
use candle_core::Result;

/// An embedding table: its name, and how a random source draws it.
#[derive(Debug, Clone, Copy)]
pub struct TablePlan {
    /// The tensor's prefix, dotted: `weight` stands under it.
    pub name: &'static str,
    /// How it is drawn.
    pub init: Init,
    /// What its entries are multiplied with; 1 changes nothing.
    pub scale: f64,
}

impl TablePlan {
    /// A table whose entries are embeddings as they are.
    pub const fn new(name: &'static str, init: Init) -> Self {
        Self { name, init, scale: 1.0 }
    }
}

/// Learned positions, added to what goes into the first block.
#[derive(Debug, Clone, Copy)]
pub struct PositionPlan {
    /// The table of `context + offset` entries.
    pub table: TablePlan,
    /// Entries before that of position 0.
    pub offset: usize,
}

/// The output head.
#[derive(Debug, Clone, Copy)]
pub struct HeadPlan {
    /// The matrix of V outputs, at the top of the names. Of a tied one, its bias and a second copy stand there.
    pub matrix: MatrixPlan,
    /// Another name that the matrix may have.
    pub other_name: Option<&'static str>,
    /// Whether the matrix is the word embeddings', which is stored and drawn as these are.
    pub tied: bool,
    /// What logits are multiplied with; 1 changes nothing.
    pub scale: f64,
    /// c where logits x become c tanh(x / c).
    pub soft_cap: Option<f64>,
}

impl HeadPlan {
    /// A head whose products are the logits.
    pub const fn new(matrix: MatrixPlan, tied: bool) -> Self {
        Self { matrix, other_name: None, tied, scale: 1.0, soft_cap: None }
    }
}

/// A model: embeddings `[B, T, D]` to logits `[.., V]`.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// The sizes that its callers see.
    pub spec: DecoderSpec,
    /// Prefixes under which its tensors may stand, all but the head's; "" is the tensors as they are.
    pub prefixes: &'static [&'static str],
    /// The table whose `weight` tells which prefix it is.
    pub probe: &'static str,
    /// Word embeddings.
    pub words: TablePlan,
    /// What embeddings, a prefix's among them, are multiplied with before the first block; 1 changes nothing.
    pub input_scale: f64,
    /// From D to the width of the blocks and back, where these differ.
    pub projections: Option<(MatrixPlan, MatrixPlan)>,
    /// Learned positions.
    pub positions: Option<PositionPlan>,
    /// Prefix of the blocks, which are numbered.
    pub layers: &'static str,
    /// One a layer.
    pub blocks: Vec<BlockPlan>,
    /// The norm behind the last block.
    pub final_norm: Option<(&'static str, NormPlan)>,
    /// The head.
    pub head: HeadPlan,
}

impl ModelPlan {
    /// A model without learned positions, projections or a scaled input, whose word table tells the prefix.
    pub fn new(
        spec: DecoderSpec,
        prefixes: &'static [&'static str],
        words: TablePlan,
        (layers, blocks): (&'static str, Vec<BlockPlan>),
        final_norm: Option<(&'static str, NormPlan)>,
        head: HeadPlan,
    ) -> Self {
        let (probe, projections, positions) = (words.name, None, None);
        Self {
            spec,
            prefixes,
            probe,
            words,
            input_scale: 1.0,
            projections,
            positions,
            layers,
            blocks,
            final_norm,
            head,
        }
    }

    /// Whether the sizes are those of the blocks.
    ///
    /// # Errors
    /// Blocks of another number, width or cache than the sizes say, norms of an epsilon below 0, a rotary embedding that reaches beyond its head, a tied
    /// head that is stored otherwise than its table.
    pub(super) fn check(&self) -> Result<()> {
        let Self { spec, blocks, head, .. } = self;
        if blocks.len() != spec.layers {
            candle_core::bail!("a plan of {} blocks for a model of {} layers", blocks.len(), spec.layers)
        }
        if head.tied && head.matrix.transposed {
            candle_core::bail!("a head that is both tied and transposed, expected one of them")
        }
        let width = blocks.first().map_or(spec.width, |block| block.width);
        if width != spec.width && self.projections.is_none() {
            candle_core::bail!("blocks of width {width} in a model of width {} without projections", spec.width)
        }
        for (index, block) in blocks.iter().enumerate() {
            if !(block.norm.eps.is_finite() && block.norm.eps >= 0.0) {
                candle_core::bail!("the norms' epsilon is {}, expected a number, at least 0", block.norm.eps)
            }
            let Heads { keys, dim, .. } = block.attention.attention.heads;
            if (block.width, keys, dim) != (width, spec.kv_heads, spec.head_dim) {
                candle_core::bail!(
                    "block {index} has width {} and {keys} key heads of {dim}, expected width {width} and {} of {}",
                    block.width,
                    spec.kv_heads,
                    spec.head_dim
                )
            }
            if let Some(rotary) = block.attention.rotary.as_ref().filter(|rotary| rotary.dim() > dim) {
                candle_core::bail!("block {index} rotates {} elements of heads of {dim}", rotary.dim())
            }
        }
        Ok(())
    }
}
