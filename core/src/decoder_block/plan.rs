//! A decoder block as data: its sizes, the order of its operations, and the names of its tensors.

use crate::frozen::FrozenLinear;
use crate::ops::{Activation, CausalAttention, NormKind, Rotary};
use crate::weights::{Init, WeightError, Weights, ZEROS};

/// A frozen matrix: its name, how it is stored, and how a random source draws it.
#[derive(Debug, Clone, Copy)]
pub struct MatrixPlan {
    /// The tensors' prefix, dotted: `weight` and `bias` stand under it.
    pub name: &'static str,
    /// Whether it has a bias.
    pub biased: bool,
    /// How the weight is drawn; a bias is 0.
    pub init: Init,
    /// Whether the weight is stored `[n_in, n_out]`: GPT-2's `Conv1D`.
    pub transposed: bool,
}

impl MatrixPlan {
    /// A matrix without a bias, stored `[n_out, n_in]`.
    pub const fn new(name: &'static str, init: Init) -> Self {
        Self { name, biased: false, init, transposed: false }
    }

    /// The same with a bias where `biased` says so.
    pub const fn biased(self, biased: bool) -> Self {
        Self { biased, ..self }
    }

    /// The same stored `[n_in, n_out]`.
    pub const fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }

    /// The layer under `weights`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn load(&self, weights: &Weights, n_in: usize, n_out: usize) -> Result<FrozenLinear, WeightError> {
        let (weights, bias) = (weights.pp(self.name), self.biased.then_some(ZEROS));
        if self.transposed {
            return weights.linear_transposed(n_in, n_out, self.init, bias);
        }
        weights.linear(n_in, n_out, self.init, bias)
    }
}

/// Kind and epsilon of a model's norms.
#[derive(Debug, Clone, Copy)]
pub struct NormPlan {
    /// Layer norm or RMS norm.
    pub kind: NormKind,
    /// Added to the variance or the mean square.
    pub eps: f64,
}

/// Names of the norms around a branch, which computes `sum(residual + after(branch(before(x))))`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BranchNorms {
    /// Before the branch: pre-norm.
    pub before: Option<&'static str>,
    /// On the branch's output, before it is added: with `before`, the sandwich of Gemma 2; alone, OLMo 2.
    pub after: Option<&'static str>,
    /// On the sum: post-norm.
    pub sum: Option<&'static str>,
}

impl BranchNorms {
    /// Pre-norm.
    pub const fn before(name: &'static str) -> Self {
        Self { before: Some(name), after: None, sum: None }
    }

    /// Post-norm.
    pub const fn sum(name: &'static str) -> Self {
        Self { before: None, after: None, sum: Some(name) }
    }

    /// Before and after the branch.
    pub const fn sandwich(before: &'static str, after: &'static str) -> Self {
        Self { before: Some(before), after: Some(after), sum: None }
    }
}

/// How queries, keys and values are projected.
#[derive(Debug, Clone, Copy)]
pub enum ProjectionPlan {
    /// By three matrices.
    Split {
        /// Queries.
        q: MatrixPlan,
        /// Keys.
        k: MatrixPlan,
        /// Values.
        v: MatrixPlan,
    },
    /// By one matrix.
    Fused {
        /// The matrix.
        qkv: MatrixPlan,
        /// The order of its outputs.
        layout: FusedLayout,
    },
}

/// The order of outputs of one matrix for queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FusedLayout {
    /// All queries, then all keys, then all values: GPT-2, Phi-3.
    Concatenated,
    /// For each key head, its queries, its key and its value: GPT-NeoX, Falcon.
    Grouped,
}

/// Norms of queries and keys before the rotary embedding.
#[derive(Debug, Clone, Copy)]
pub struct QueryKeyNorm {
    /// The queries' norm.
    pub q: &'static str,
    /// The keys' norm.
    pub k: &'static str,
    /// Which elements are normed together.
    pub scope: NormScope,
    /// Kind and epsilon.
    pub norm: NormPlan,
}

/// Which elements of queries or keys are normed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormScope {
    /// Those of a head, all heads by one norm: Qwen3, Gemma 3.
    Head,
    /// Those of a head, each head by a norm of its own, `norms.0`, `norms.1` and so on: StableLM.
    EachHead,
    /// Those of all heads together: OLMo 2.
    AllHeads,
}

/// Self-attention.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    /// Heads, scale, window, soft cap, linear biases.
    pub attention: CausalAttention,
    /// Queries, keys and values.
    pub projections: ProjectionPlan,
    /// What queries, keys and values are limited to, in both directions, as they are projected: MPT.
    pub clip: Option<f64>,
    /// Back to the width of the model.
    pub out: MatrixPlan,
    /// Norms of queries and keys.
    pub query_key_norm: Option<QueryKeyNorm>,
    /// The rotary embedding of queries and keys.
    pub rotary: Option<Rotary>,
}

/// The layers of an MLP.
#[derive(Debug, Clone, Copy)]
pub enum MlpLayers {
    /// `down(act(up(x)))`.
    Plain {
        /// To the hidden layer.
        up: MatrixPlan,
    },
    /// `down(act(gate(x)) * up(x))`: SwiGLU and its kin.
    Gated {
        /// What the activation acts on.
        gate: MatrixPlan,
        /// What the gate multiplies.
        up: MatrixPlan,
    },
    /// As `Gated`, gate and up one after the other in one matrix: Phi-3.
    GatedFused {
        /// Gate, then up.
        gate_up: MatrixPlan,
    },
}

/// An MLP.
#[derive(Debug, Clone, Copy)]
pub struct MlpPlan {
    /// Its width.
    pub inner: usize,
    /// Its activation.
    pub activation: Activation,
    /// To the hidden layer.
    pub layers: MlpLayers,
    /// Back to the width of the model.
    pub down: MatrixPlan,
}

/// A block of width D: attention and MLP, one after the other or side by side.
#[derive(Debug, Clone)]
pub struct BlockPlan {
    /// D.
    pub width: usize,
    /// Kind and epsilon of its norms.
    pub norm: NormPlan,
    /// Norms around the attention.
    pub attention_norms: BranchNorms,
    /// The attention.
    pub attention: AttentionPlan,
    /// Norms around the MLP. Side by side and without one before, it takes what the attention takes.
    pub mlp_norms: BranchNorms,
    /// The MLP.
    pub mlp: MlpPlan,
    /// Whether both branches start from the block's input: GPT-J, GPT-NeoX, Falcon.
    pub parallel: bool,
    /// What each branch is multiplied with before it is added; None is 1.
    pub residual_scale: Option<f64>,
}

impl AttentionPlan {
    /// Attention without clipped projections or norms of queries and keys.
    pub fn new(
        attention: CausalAttention,
        projections: ProjectionPlan,
        out: MatrixPlan,
        rotary: Option<Rotary>,
    ) -> Self {
        Self { attention, projections, out, clip: None, query_key_norm: None, rotary }
    }
}

impl ProjectionPlan {
    /// Queries, keys and values by matrices of their own.
    pub fn split([q, k, v]: [MatrixPlan; 3]) -> Self {
        Self::Split { q, k, v }
    }
}

impl MlpPlan {
    /// An MLP of two matrices.
    pub fn plain(inner: usize, activation: Activation, up: MatrixPlan, down: MatrixPlan) -> Self {
        Self { inner, activation, layers: MlpLayers::Plain { up }, down }
    }
}

impl BlockPlan {
    /// A serial block of an attention and an MLP with the norms around each.
    pub fn new(
        width: usize,
        norm: NormPlan,
        (attention_norms, attention): (BranchNorms, AttentionPlan),
        (mlp_norms, mlp): (BranchNorms, MlpPlan),
    ) -> Self {
        let (parallel, residual_scale) = (false, None);
        Self { width, norm, attention_norms, attention, mlp_norms, mlp, parallel, residual_scale }
    }

    /// The same block whose positions see the last `window` keys; None: all up to their own.
    pub fn within(&self, window: Option<usize>) -> Self {
        let mut block = self.clone();
        block.attention.attention.window = window;
        block
    }
}
