//! `gpt-neox`: GPT-NeoX-20B, Pythia and their kin as a frozen decoder.
//!
//! Embeddings `[B, T, D]` to logits over V: L blocks of attention and MLP, side by side behind two layer norms or one
//! after the other, rotary embedding on the first part of each head in halves, a head without bias.
//! Source followed: transformers' `modeling_gpt_neox.py`.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::frozen::After;
use limber_core::model_config::{self, TokenIds};
use limber_core::ops::{Heads, LayerNorm, Rotary, attend};
use limber_core::rope::rotary;
use limber_core::weights::{WeightError, ZEROS};
use limber_core::{
    Decoder, DecoderPart, DecoderSpec, FrozenEmbedding, FrozenLinear, Init, Layer, Layers, Mlp, Part, Run,
    WeightSource, Weights, pick, register,
};

mod presets;
mod settings;

pub use settings::Config;
use settings::Sizes;

register!(decoder, GptNeox);

/// The frozen model.
pub struct GptNeox {
    words: FrozenEmbedding,
    layers: Layers<Block>,
    norm: LayerNorm,
    head: FrozenLinear,
    /// Positions up to which a row's length does not change its rotary frequencies.
    steady: usize,
}

impl Part for GptNeox {
    type Config = Config;
    const KIND: &'static str = "gpt-neox";
    const ABOUT: &'static str = "GPT-NeoX and Pythia, from a Hugging Face folder or by the name of a model";

    fn tiny() -> Config {
        Config {
            vocab_size: Some(97),
            hidden_size: Some(32),
            intermediate_size: Some(48),
            num_hidden_layers: Some(2),
            num_attention_heads: Some(4),
            max_position_embeddings: Some(48),
            rotary_pct: Some(0.5),
            eos_token_id: Some(TokenIds(vec![96])),
            ..Config::default()
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        model_config::recognises(source, &["gpt_neox"])
    }

    fn resolve(config: Config, source: &dyn WeightSource) -> Result<Config> {
        config.resolve(source)
    }
}

impl DecoderPart for GptNeox {
    fn specs(config: &Config) -> Result<DecoderSpec> {
        Ok(config.sizes()?.spec)
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = config.sizes()?;
        let spec = sizes.spec.clone();
        let (d, init) = (spec.width, sizes.init);
        let w = weights.under_any(&["gpt_neox", ""], "embed_in.weight");
        // Transformers 5 calls the head by another name while it runs, and saves it under the old one.
        let head = match weights.has("embed_out.weight") {
            Some(false) if weights.has("lm_head.weight") == Some(true) => weights.pp("lm_head"),
            _ => weights.pp("embed_out"),
        };
        let (words, head) = if sizes.tied {
            w.pp("embed_in").tied(&head, spec.vocab, d, init)?
        } else {
            (w.pp("embed_in").embedding(spec.vocab, d, init)?, head.linear(d, spec.vocab, init, None)?)
        };
        let scaling = config.rope_scaling.as_ref();
        let rotary = rotary(sizes.rotary, sizes.base, scaling, sizes.positions);
        let blocks = (0..spec.layers)
            .map(|layer| Block::new(&w.pp(format!("layers.{layer}")), &sizes, rotary.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = LayerNorm::load(&w.pp("final_layer_norm"), d, sizes.eps)?;
        Ok(Self { words, layers: Layers::new(spec, blocks), norm, head, steady: rotary.steady() })
    }
}

impl Decoder for GptNeox {
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

    fn begins_alike(&self, positions: usize) -> bool {
        positions <= self.steady
    }
}

/// One layer: x + attention(norm(x)) + mlp(norm'(x)), or the MLP after the attention.
struct Block {
    heads: Heads,
    rotary: Rotary,
    norm1: LayerNorm,
    /// D to 3 D, head by head: the query, key and value of each lie side by side.
    qkv: FrozenLinear,
    out: FrozenLinear,
    norm2: LayerNorm,
    mlp: Mlp,
    parallel: bool,
}

impl Block {
    fn new(w: &Weights, sizes: &Sizes, rotary: Rotary) -> Result<Self, WeightError> {
        let Sizes { eps, inner, init, .. } = *sizes;
        let (d, h, dim) = (sizes.spec.width, sizes.spec.kv_heads, sizes.spec.head_dim);
        let bias: Option<Init> = sizes.attention_bias.then_some(ZEROS);
        Ok(Self {
            heads: Heads { queries: h, keys: h, dim, scale: 1.0 / (dim as f64).sqrt() },
            rotary,
            norm1: LayerNorm::load(&w.pp("input_layernorm"), d, eps)?,
            qkv: w.pp("attention.query_key_value").linear(d, 3 * d, init, bias)?,
            out: w.pp("attention.dense").linear(d, d, init, bias)?,
            norm2: LayerNorm::load(&w.pp("post_attention_layernorm"), d, eps)?,
            mlp: Mlp::new(
                w.pp("mlp.dense_h_to_4h").linear(d, inner, init, Some(ZEROS))?,
                sizes.activation,
                w.pp("mlp.dense_4h_to_h").linear(inner, d, init, Some(ZEROS))?,
            ),
            parallel: sizes.parallel,
        })
    }

    /// `onto + mlp(norm(x))`.
    fn mlp(&self, x: &Tensor, onto: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        let hidden = run.hidden(&self.mlp, &run.normed(&self.norm2, x)?)?;
        run.last_mlp(&self.mlp, hidden, onto)
    }
}

impl Layer for Block {
    const KEEPS_PRODUCTS: bool = true;

    fn forward(
        &self,
        index: usize,
        x: &Tensor,
        past: &[usize],
        run: &mut Run,
        rows: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let Heads { queries: h, dim, .. } = self.heads;
        let lengths = run.row_lengths(b, t)?;
        let qkv = run.product(&self.qkv, &run.normed(&self.norm1, x)?)?.reshape((b, t, h, 3 * dim))?;
        let q = run.turned(&self.rotary, qkv.narrow(3, 0, dim)?, past, &lengths)?;
        let k = run.turned(&self.rotary, qkv.narrow(3, dim, dim)?, past, &lengths)?;
        let v = qkv.narrow(3, 2 * dim, dim)?;
        let attention = pick(&attend(index, &q, &k, &v, self.heads, run)?, rows)?;
        let x = pick(x, rows)?;
        if self.parallel {
            let sum = run.last_product(&self.out, &attention, &x)?;
            return self.mlp(&x, &sum, run);
        }
        let x = run.product_then(&self.out, &attention, After::onto(&x))?;
        self.mlp(&x, &x, run)
    }
}
