//! `beit`: Hugging Face's BEiT of any size, its class token dropped.
//!
//! Pixels `[B, 3, S, S]` to patch tokens, row-major: `[B, N, E]` with N = (S / patch)², rounded down before the square.
//! Source followed: transformers' `BeitModel` in `modeling_beit.py`: what it calls `last_hidden_state`, so with the last
//! layer norm only where `use_mean_pooling` is off (with it, that norm belongs to the pooled vector).

use anyhow::Result;
use candle_core::Tensor;
use limber_core::encoder::check_pixels;
use limber_core::frozen::FrozenConv;
use limber_core::ops::{AttentionBias, Heads, LayerNorm, channels_last};
use limber_core::registry::EncoderSpecs;
use limber_core::vit::{VitBlock, VitSizes, led_by};
use limber_core::weights::{WeightError, ZEROS};
use limber_core::{Encoder, EncoderComponent, FeatureKind, FeatureSpec, Init, InputSpec, Weights, register};

mod positions;
mod settings;

pub use settings::Config;
use settings::Sizes;

register!(encoder, Beit);

/// The frozen encoder.
pub struct Beit {
    specs: EncoderSpecs,
    heads: Heads,
    patches: FrozenConv,
    /// `[1, 1, E]`, its position added.
    class: Tensor,
    /// `[1, N, E]`, where the model has absolute positions.
    positions: Option<Tensor>,
    blocks: Vec<(VitBlock, Option<AttentionBias>)>,
    norm: Option<LayerNorm>,
}

impl EncoderComponent for Beit {
    fn specs(config: &Config) -> Result<EncoderSpecs> {
        let s = config.sizes()?;
        let features = FeatureSpec { tokens: s.vit.grid.pow(2), width: s.vit.width, kind: FeatureKind::Patches };
        Ok(EncoderSpecs { input: InputSpec::Image(s.vit.image), features })
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let s = config.sizes()?;
        let VitSizes { width, patch, grid, heads, eps, .. } = s.vit;
        // `BeitModel` alone, or under a head for classification or masked images.
        let w = weights.under_any(&["", "beit"], "embeddings.cls_token");
        let embeddings = w.pp("embeddings");
        let projection = embeddings.pp("patch_embeddings.projection");
        let kernel = projection.tensor("weight", &[width, 3, patch, patch], Init::normal(s.init_std))?;
        let bias = projection.tensor("bias", &[width], ZEROS)?;
        let mut class = embeddings.tensor("cls_token", &[1, 1, width], ZEROS)?;
        let mut positions = None;
        if s.absolute {
            let (first, rest) = positions::absolute(&embeddings, &s)?;
            class = (class + first)?;
            positions = Some(rest);
        }
        let shared = match s.shared {
            true => {
                Some(positions::bias(&either(&w, "encoder.relative_position_bias", "shared_position_bias", TABLE), &s)?)
            }
            false => None,
        };
        let by_distance = |table: &Tensor| AttentionBias::by_distance(table, grid);
        let everywhere = shared.as_ref().map(by_distance).transpose()?;
        let mut blocks = Vec::with_capacity(s.vit.layer);
        for index in 0..s.vit.layer {
            let at =
                either(&w, &format!("encoder.layer.{index}"), &format!("layers.{index}"), "layernorm_before.weight");
            let bias = if s.relative {
                let own = "attention.attention.relative_position_bias";
                let own = positions::bias(&either(&at, own, "relative_position_bias", TABLE), &s)?;
                let both = match &shared {
                    Some(shared) => (own + shared)?,
                    None => own,
                };
                Some(by_distance(&both)?)
            } else {
                everywhere.clone()
            };
            blocks.push((block(&at, &s)?, bias));
        }
        let norm = if s.norm { Some(LayerNorm::load(&w.pp("layernorm"), width, eps)?) } else { None };
        let specs = Self::specs(config)?;
        Ok(Self {
            specs,
            heads,
            patches: FrozenConv::on(kernel, Some(bias), patch, 0, weights.backend())?,
            class,
            positions,
            blocks,
            norm,
        })
    }
}

impl Encoder for Beit {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.specs.input)?;
        let patches = self.patches.forward_nhwc(&channels_last(pixels)?, None, None)?.flatten(1, 2)?; // [B, N, E]
        let patches = match &self.positions {
            Some(positions) => patches.broadcast_add(positions)?,
            None => patches,
        };
        let n = patches.dim(1)?;
        let mut x = led_by(&self.class, &patches)?; // [B, 1 + N, E]
        for (block, bias) in &self.blocks {
            x = block.forward(&x, self.heads, bias.as_ref())?;
        }
        let x = x.narrow(1, 1, n)?.contiguous()?;
        match &self.norm {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }
}

/// A table's own name, under either prefix.
const TABLE: &str = "relative_position_bias_table";

/// The tensors under `old`, the name in files, or under `new`, transformers 5's own name, where `probe` stands there.
fn either(w: &Weights, old: &str, new: &str, probe: &str) -> Weights {
    let there = w.pp(new);
    if there.has(probe) == Some(true) { there } else { w.pp(old) }
}

fn block(w: &Weights, s: &Sizes) -> Result<VitBlock, WeightError> {
    let linear = |old: &str, new: &str, n_in: usize, n_out: usize, bias: bool| {
        either(w, old, new, "weight").linear(n_in, n_out, Init::normal(s.init_std), bias.then_some(ZEROS))
    };
    let scale = |name: &str| match s.layer_scale {
        Some(value) => w.tensor(name, &[s.vit.width], Init::Const(value)).map(Some),
        None => Ok(None),
    };
    let (e, inner, eps) = (s.vit.width, s.inner, s.vit.eps);
    Ok(VitBlock {
        gate: None,
        norm1: LayerNorm::load(&w.pp("layernorm_before"), e, eps)?,
        q: linear("attention.attention.query", "attention.q_proj", e, e, true)?,
        // A bias of the keys would cancel in the softmax: BEiT has none.
        k: linear("attention.attention.key", "attention.k_proj", e, e, false)?,
        v: linear("attention.attention.value", "attention.v_proj", e, e, true)?,
        out: linear("attention.output.dense", "attention.o_proj", e, e, true)?,
        scale1: scale("lambda_1")?,
        norm2: LayerNorm::load(&w.pp("layernorm_after"), e, eps)?,
        fc1: linear("intermediate.dense", "mlp.fc1", e, inner, true)?,
        activation: s.vit.activation,
        fc2: linear("output.dense", "mlp.fc2", inner, e, true)?,
        scale2: scale("lambda_2")?,
    })
}
