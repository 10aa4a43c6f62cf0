//! `fading`: a small language model whose heads forget at fixed rates, in a plugin.
//!
//! Each head is an average of what it has seen, weighted by exp(-rate · distance): a linear recurrent network, computed
//! for all positions at once. Head h of H forgets at rate ln 2 / 2^h, so it halves what it holds every 2^h positions.
//! Embeddings `[B, T, D]` to logits over V: L blocks x + O(average(norm(x) V)), x + MLP(norm(x)), a last norm, a head.
//! Sources followed: the moving averages of Mega (Ma et al. 2022), without its gates; blocks as in GPT-2.

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use limber_sdk::core::ops::{LayerNorm, gelu_tanh};
use limber_sdk::core::weights::ZEROS;
use limber_sdk::core::{
    Component, Decoder, DecoderComponent, DecoderSpec, FrozenEmbedding, FrozenLinear, Init, KvCache, Layer, Layers,
    Run, Weights, gather,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

limber_sdk::export_plugin!(decoder: Fading);

/// Epsilon of the layer norms.
const EPS: f64 = 1e-5;

/// The settings.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Vocabulary size V.
    pub vocab: usize,
    /// Width D.
    pub width: usize,
    /// Blocks L.
    pub layers: usize,
    /// Heads H; a divisor of the width.
    pub heads: usize,
    /// Most positions.
    pub context: usize,
    /// The end-of-sequence id.
    pub eos: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { vocab: 50257, width: 512, layers: 6, heads: 8, context: 1024, eos: 50256 }
    }
}

/// The frozen model.
pub struct Fading {
    words: FrozenEmbedding,
    layers: Layers<Block>,
    norm: LayerNorm,
    head: FrozenLinear,
}

impl Component for Fading {
    type Config = Config;
    const KIND: &'static str = "fading";
    const ABOUT: &'static str = "a small recurrent language model whose heads forget at fixed rates";

    fn tiny() -> Config {
        Config { vocab: 61, width: 16, layers: 2, heads: 4, context: 40, eos: 60 }
    }
}

impl DecoderComponent for Fading {
    fn specs(config: &Config) -> Result<DecoderSpec> {
        let Config { vocab, width, layers, heads, context, eos } = *config;
        if [vocab, width, layers, heads, context].contains(&0) || !width.is_multiple_of(heads) || heads > 16 {
            bail!("fading: {config:?}: every size is at least 1, and heads is at most 16 and divides width")
        }
        if eos as usize >= vocab {
            bail!("fading: eos {eos} is not below vocab {vocab}")
        }
        Ok(DecoderSpec { width, vocab, layers, kv_heads: heads, head_dim: width / heads, context, eos: vec![eos] })
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let spec = Self::specs(config)?;
        let (d, init) = (spec.width, Init::normal(0.02));
        let blocks = (0..spec.layers).map(|i| Block::new(&weights.pp(format!("blocks.{i}")), d, spec.kv_heads));
        Ok(Self {
            words: weights.pp("words").embedding(spec.vocab, d, init)?,
            layers: Layers::new(spec.clone(), blocks.collect::<Result<_>>()?),
            norm: LayerNorm::load(&weights.pp("norm"), d, EPS)?,
            head: weights.pp("head").linear(d, spec.vocab, init, None)?,
        })
    }
}

impl Decoder for Fading {
    fn spec(&self) -> DecoderSpec {
        self.layers.spec().clone()
    }

    fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.words.forward(ids)
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        let past = self.layers.start(embeds, run)?;
        self.layers.run(embeds, &past, run, |x| self.norm.forward(x), |x| self.head.forward(x))
    }
}

/// One block.
struct Block {
    heads: usize,
    norm1: LayerNorm,
    value: FrozenLinear,
    out: FrozenLinear,
    norm2: LayerNorm,
    up: FrozenLinear,
    down: FrozenLinear,
}

impl Block {
    fn new(w: &Weights, d: usize, heads: usize) -> Result<Self> {
        let init = Init::normal(0.02);
        Ok(Self {
            heads,
            norm1: LayerNorm::load(&w.pp("norm1"), d, EPS)?,
            value: w.pp("value").linear(d, d, init, Some(ZEROS))?,
            out: w.pp("out").linear(d, d, init, Some(ZEROS))?,
            norm2: LayerNorm::load(&w.pp("norm2"), d, EPS)?,
            up: w.pp("up").linear(d, 4 * d, init, Some(ZEROS))?,
            down: w.pp("down").linear(4 * d, d, init, Some(ZEROS))?,
        })
    }
}

impl Layer for Block {
    fn forward(
        &self,
        index: usize,
        x: &Tensor,
        past: &[usize],
        run: &mut Run,
        rows: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let (b, t, d) = x.dims3()?;
        let h = self.heads;
        let value = self.value.forward(&self.norm1.forward(x)?)?;
        let value = value.reshape((b, t, h, d / h))?.transpose(1, 2)?; // [B, H, T, dim]
        // The cache keeps pairs; the values alone are needed here.
        let value = match run.cache_as::<KvCache>()? {
            Some(cache) => cache.append(index, &value, &value)?.1.to_dtype(candle_core::DType::F32)?,
            None => value,
        };
        let weights = fading(h, t, value.dim(2)?, past, run.mask.as_ref())?;
        if run.taps.want_attention {
            run.taps.attention.push(weights.clone());
        }
        let average = weights.matmul(&value.contiguous()?)?.transpose(1, 2)?.contiguous()?.reshape((b, t, d))?;
        let x = (gather(x, rows)? + self.out.forward(&gather(&average, rows)?)?)?;
        let inner = gelu_tanh(&self.up.forward(&self.norm2.forward(&x)?)?)?;
        x + self.down.forward(&inner)?
    }
}

/// The weights `[B, H, T, P]` of what each position averages: exp(-rate · distance) over the keys that it sees, summing
/// to 1, or all 0 where it sees none.
fn fading(h: usize, t: usize, p: usize, past: &[usize], mask: Option<&Tensor>) -> candle_core::Result<Tensor> {
    if let Some(mask) = mask {
        match mask.dims() {
            [rows, keys] if *rows == past.len() && *keys >= p => {}
            other => candle_core::bail!("a key mask of shape {other:?} for {} rows of {p} positions", past.len()),
        }
    }
    let mask = mask.map(|mask| mask.to_vec2::<u8>()).transpose()?;
    let mut weights = vec![0f32; past.len() * h * t * p];
    for (at, row) in weights.chunks_exact_mut(p).enumerate() {
        let (b, head, query) = (at / (h * t), at / t % h, at % t);
        let position = past[b] + query;
        let half_life = (1u32 << head) as f32;
        for (key, weight) in row.iter_mut().enumerate().take(position + 1) {
            if mask.as_ref().is_none_or(|mask| mask[b].get(key).is_some_and(|bit| *bit != 0)) {
                *weight = (-((position - key) as f32) / half_life).exp2();
            }
        }
        let sum: f32 = row.iter().sum();
        if sum > 0.0 {
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
    }
    Tensor::from_vec(weights, (past.len(), h, t, p), &Device::Cpu)
}
