//! `llama`: Llama 1 to 3.2, TinyLlama, Mistral, Qwen2 and Qwen2.5 as a frozen decoder.
//!
//! Embeddings `[B, T, D]` to logits over V: L blocks of attention, then gated MLP, each behind an RMS norm; rotary
//! embedding in halves over the whole head, with the scalings of longer contexts; grouped queries, sliding windows.
//! Sources followed: transformers' `modeling_llama.py`, `modeling_mistral.py`, `modeling_qwen2.py`.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::frozen::After;
use limber_core::model_config::{self, TokenIds};
use limber_core::ops::{Activation, Heads, RmsNorm, Rotary, attend_within};
use limber_core::rope::rotary;
use limber_core::weights::{WeightError, ZEROS};
use limber_core::{
    Decoder, DecoderPart, DecoderSpec, FrozenEmbedding, FrozenLinear, Layer, Layers, Part, Run, WeightSource, Weights,
    pick, register,
};

mod described;
mod presets;
mod settings;

use settings::Sizes;
pub use settings::{Config, Family, LayerType};

register!(decoder, Llama);

/// The frozen model.
pub struct Llama {
    words: FrozenEmbedding,
    layers: Layers<Block>,
    norm: RmsNorm,
    head: FrozenLinear,
    /// Positions up to which a row's length does not change its rotary frequencies.
    steady: usize,
}

impl Part for Llama {
    type Config = Config;
    const KIND: &'static str = "llama";
    const ABOUT: &'static str = "Llama, Mistral and Qwen2, from a Hugging Face folder or by the name of a model";

    fn tiny() -> Config {
        Config {
            model_type: Some(Family::Qwen2),
            vocab_size: Some(97),
            hidden_size: Some(32),
            intermediate_size: Some(48),
            num_hidden_layers: Some(2),
            num_attention_heads: Some(4),
            num_key_value_heads: Some(2),
            // Not hidden_size / num_attention_heads, as in Mistral-Nemo.
            head_dim: Some(6),
            max_position_embeddings: Some(48),
            // The second layer sees four keys, fewer than the suite's rows have.
            sliding_window: Some(4),
            max_window_layers: Some(1),
            eos_token_id: Some(TokenIds(vec![95, 96])),
            ..Config::default()
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        model_config::recognises(source, &Family::NAMES)
    }

    fn resolve(config: Config, source: &dyn WeightSource) -> Result<Config> {
        config.resolve(source)
    }
}

impl DecoderPart for Llama {
    fn specs(config: &Config) -> Result<DecoderSpec> {
        Ok(config.sizes()?.spec)
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = config.sizes()?;
        let spec = sizes.spec.clone();
        let (d, init) = (spec.width, sizes.init);
        let w = weights.under_any(&["model", ""], "embed_tokens.weight");
        let head = weights.pp("lm_head");
        let (words, head) = if sizes.tied {
            w.pp("embed_tokens").tied(&head, spec.vocab, d, init)?
        } else {
            (w.pp("embed_tokens").embedding(spec.vocab, d, init)?, head.linear(d, spec.vocab, init, None)?)
        };
        let rotary = rotary(spec.head_dim, sizes.theta, config.rope_scaling.as_ref(), sizes.positions);
        let blocks = (0..spec.layers)
            .map(|layer| Block::new(&w.pp(format!("layers.{layer}")), &sizes, layer, rotary.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = RmsNorm::load(&w.pp("norm"), d, sizes.eps)?;
        Ok(Self { words, layers: Layers::new(spec, blocks), norm, head, steady: rotary.steady() })
    }
}

impl Decoder for Llama {
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

/// One layer: x + attention(norm(x)), then x + down(act(gate(norm'(x))) * up(norm'(x))).
struct Block {
    heads: Heads,
    window: Option<usize>,
    rotary: Rotary,
    norm1: RmsNorm,
    q: FrozenLinear,
    k: FrozenLinear,
    v: FrozenLinear,
    out: FrozenLinear,
    norm2: RmsNorm,
    gate: FrozenLinear,
    up: FrozenLinear,
    activation: Activation,
    down: FrozenLinear,
}

impl Block {
    fn new(w: &Weights, sizes: &Sizes, layer: usize, rotary: Rotary) -> Result<Self, WeightError> {
        let Sizes { heads, eps, inner, init, .. } = *sizes;
        let d = sizes.spec.width;
        let (queries, keys) = (heads.queries * heads.dim, heads.keys * heads.dim);
        let biased = |wanted: bool| wanted.then_some(ZEROS);
        let attention = w.pp("self_attn");
        let project = |name: &str, n_out| attention.pp(name).linear(d, n_out, init, biased(sizes.qkv_bias));
        let mlp = w.pp("mlp");
        Ok(Self {
            heads,
            window: sizes.windows[layer],
            rotary,
            norm1: RmsNorm::load(&w.pp("input_layernorm"), d, eps)?,
            q: project("q_proj", queries)?,
            k: project("k_proj", keys)?,
            v: project("v_proj", keys)?,
            out: attention.pp("o_proj").linear(queries, d, init, biased(sizes.out_bias))?,
            norm2: RmsNorm::load(&w.pp("post_attention_layernorm"), d, eps)?,
            gate: mlp.pp("gate_proj").linear(d, inner, init, biased(sizes.mlp_bias))?,
            up: mlp.pp("up_proj").linear(d, inner, init, biased(sizes.mlp_bias))?,
            activation: sizes.activation,
            down: mlp.pp("down_proj").linear(inner, d, init, biased(sizes.mlp_bias))?,
        })
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
        let Heads { queries, keys, dim, .. } = self.heads;
        let lengths = run.row_lengths(b, t)?;
        let [q, k, v] = run.products([&self.q, &self.k, &self.v], &self.norm1.forward(x)?)?;
        let q = run.turned(&self.rotary, q.reshape((b, t, queries, dim))?, past, &lengths)?;
        let k = run.turned(&self.rotary, k.reshape((b, t, keys, dim))?, past, &lengths)?;
        let v = v.reshape((b, t, keys, dim))?;
        let attention = attend_within(index, &q, &k, &v, self.heads, self.window, run)?;
        let x = run.product_then(&self.out, &pick(&attention, rows)?, After::onto(&pick(x, rows)?))?;
        let gate = (&self.gate, After::activation(self.activation));
        let [gate, up] = run.products_then([gate, (&self.up, After::NOTHING)], &self.norm2.forward(&x)?)?;
        run.last_product(&self.down, &(gate * up)?, &x)
    }
}
