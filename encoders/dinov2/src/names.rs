//! Tensors by the names that three libraries give them.
//!
//! The hub's files have transformers' first names; transformers 5 has new ones in memory and writes the first; the `.pth`
//! files have Meta's own, with queries, keys and values in one matrix.

use super::settings::Sizes;
use limber_core::frozen::FrozenLinear;
use limber_core::ops::LayerNorm;
use limber_core::vit::VitBlock;
use limber_core::weights::{Init, WeightError, ZEROS};
use limber_core::{WeightSource, Weights};

/// The names of one library.
#[derive(Debug)]
pub(super) struct Names {
    /// What may stand before them.
    prefixes: &'static [&'static str],
    pub class: &'static str,
    pub positions: &'static str,
    pub registers: &'static str,
    pub patches: &'static str,
    pub norm: &'static str,
    pub blocks: &'static str,
    qkv: Linears<3>,
    out: &'static str,
    scales: [&'static str; 2],
    /// The gate and the layer it multiplies.
    gated: Linears<2>,
    down: &'static str,
}

/// Layers over one input: each with its own name, or the rows of one matrix.
#[derive(Debug)]
enum Linears<const COUNT: usize> {
    Apart([&'static str; COUNT]),
    Fused(&'static str),
}

impl<const COUNT: usize> Linears<COUNT> {
    /// The name of the first or only one.
    fn first(&self) -> &'static str {
        match self {
            Self::Apart(names) => names[0],
            Self::Fused(name) => name,
        }
    }

    fn load(
        &self,
        w: &Weights,
        n_in: usize,
        n_out: usize,
        init: Init,
        bias: bool,
    ) -> Result<Vec<FrozenLinear>, WeightError> {
        let zeros = bias.then_some(ZEROS);
        let name = match self {
            Self::Apart(names) => {
                return names.iter().map(|name| w.pp(name).linear(n_in, n_out, init, zeros)).collect();
            }
            Self::Fused(name) => name,
        };
        let w = w.pp(name);
        let error = |message: String| WeightError::Read { source_label: w.source().label(), message };
        let matrix = w.frozen("weight", &[COUNT * n_out, n_in], init)?;
        let bias = zeros.map(|init| w.tensor("bias", &[COUNT * n_out], init)).transpose()?;
        let part = |i: usize| {
            let rows = matrix.rows(i * n_out..(i + 1) * n_out).map_err(error)?;
            let bias = bias.as_ref().map(|b| b.narrow(0, i * n_out, n_out)).transpose();
            let layer = bias.and_then(|bias| FrozenLinear::new(rows, bias, w.device()));
            layer.map_err(|e| error(e.to_string()))
        };
        (0..COUNT).map(part).collect()
    }
}

/// Random weights have the first of these.
const LIBRARIES: [Names; 3] = [
    Names {
        qkv: Linears::Apart(["attention.attention.query", "attention.attention.key", "attention.attention.value"]),
        out: "attention.output.dense",
        gated: Linears::Fused("mlp.weights_in"),
        down: "mlp.weights_out",
        ..TRANSFORMERS
    },
    TRANSFORMERS,
    Names {
        prefixes: &["", "module", "backbone", "teacher.backbone"],
        class: "cls_token",
        positions: "pos_embed",
        registers: "register_tokens",
        patches: "patch_embed.proj",
        norm: "norm",
        blocks: "blocks",
        qkv: Linears::Fused("attn.qkv"),
        out: "attn.proj",
        scales: ["ls1.gamma", "ls2.gamma"],
        gated: Linears::Fused("mlp.w12"),
        down: "mlp.w3",
    },
];

/// transformers 5's.
const TRANSFORMERS: Names = Names {
    prefixes: &["", "dinov2", "dinov2_with_registers", "backbone"],
    class: "embeddings.cls_token",
    positions: "embeddings.position_embeddings",
    registers: "embeddings.register_tokens",
    patches: "embeddings.patch_embeddings.projection",
    norm: "layernorm",
    blocks: "encoder.layer",
    qkv: Linears::Apart(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
    out: "attention.o_proj",
    scales: ["layer_scale1.lambda1", "layer_scale2.lambda1"],
    gated: Linears::Apart(["mlp.gate_proj", "mlp.up_proj"]),
    down: "mlp.down_proj",
};

/// What the tensors say of a tower.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    pub width: usize,
    pub patch: usize,
    pub layers: usize,
    /// Side of the grid of positions.
    pub trained: usize,
    pub registers: usize,
    pub gated: bool,
    pub qkv_bias: bool,
    /// Whether the names are Meta's own, so that no `config.json` is to be expected.
    pub meta: bool,
}

impl Names {
    /// The names in a checkpoint, and the weights under its prefix; a random source, or one that has none of them, gives
    /// the first.
    pub fn of(weights: &Weights) -> (&'static Self, Weights) {
        for names in &LIBRARIES {
            let there = weights.under_any(names.prefixes, names.positions);
            if there.has(&names.probe()) != Some(false) {
                return (names, there);
            }
        }
        (&LIBRARIES[0], weights.clone())
    }

    /// A tensor that tells the libraries apart.
    fn probe(&self) -> String {
        format!("{}.0.{}.weight", self.blocks, self.qkv.first())
    }

    /// The sizes that a checkpoint's tensors have; None where it holds no such tower.
    pub fn shapes(source: &dyn WeightSource) -> Option<Shapes> {
        let tensors = source.tensors()?;
        for names in &LIBRARIES {
            for prefix in names.prefixes {
                let shape = |name: &str| match *prefix {
                    "" => tensors.get(name),
                    prefix => tensors.get(&format!("{prefix}.{name}")),
                };
                let block = |i: usize, name: &str| shape(&format!("{}.{i}.{name}", names.blocks));
                let (Some([1, positions, width]), Some([_, _, _, patch])) = (
                    shape(names.positions).map(Vec::as_slice),
                    shape(&format!("{}.weight", names.patches)).map(Vec::as_slice),
                ) else {
                    continue;
                };
                // Layer scale tells DINOv2 from a plain ViT.
                if shape(&names.probe()).is_none() || block(0, names.scales[0]).is_none() {
                    continue;
                }
                return Some(Shapes {
                    width: *width,
                    patch: *patch,
                    layers: (0..).take_while(|i| block(*i, names.scales[0]).is_some()).count(),
                    trained: positions.saturating_sub(1).isqrt(),
                    registers: shape(names.registers).and_then(|s| s.get(1)).copied().unwrap_or(0),
                    gated: block(0, &format!("{}.weight", names.gated.first())).is_some(),
                    qkv_bias: block(0, &format!("{}.bias", names.qkv.first())).is_some(),
                    meta: names.blocks == "blocks",
                });
            }
        }
        None
    }

    /// The block whose tensors stand under `w`.
    pub fn block(&self, w: &Weights, sizes: &Sizes) -> Result<VitBlock, WeightError> {
        let (e, inner, init) = (sizes.vit.width, sizes.inner(), sizes.init());
        let linear = |name: &str, n_in, n_out| w.pp(name).linear(n_in, n_out, init, Some(ZEROS));
        let scale = |name: &str| w.tensor(name, &[e], Init::Const(sizes.layer_scale));
        let mut qkv = self.qkv.load(w, e, e, init, sizes.qkv_bias)?.into_iter();
        let mut next = || qkv.next().expect("three layers were loaded");
        let (gate, fc1, fc2) = if sizes.gated {
            let mut pair = self.gated.load(w, e, inner, init, true)?.into_iter();
            let (gate, fc1) = (pair.next(), pair.next().expect("two layers were loaded"));
            (gate, fc1, linear(self.down, inner, e)?)
        } else {
            (None, linear("mlp.fc1", e, inner)?, linear("mlp.fc2", inner, e)?)
        };
        Ok(VitBlock {
            norm1: LayerNorm::load(&w.pp("norm1"), e, sizes.vit.eps)?,
            q: next(),
            k: next(),
            v: next(),
            out: linear(self.out, e, e)?,
            scale1: Some(scale(self.scales[0])?),
            norm2: LayerNorm::load(&w.pp("norm2"), e, sizes.vit.eps)?,
            fc1,
            gate,
            activation: sizes.vit.activation,
            fc2,
            scale2: Some(scale(self.scales[1])?),
        })
    }
}
