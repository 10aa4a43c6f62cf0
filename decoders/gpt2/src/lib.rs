//! `gpt2`: GPT-2 (gpt2 to gpt2-xl, distilgpt2 and their kin) as a frozen decoder.
//!
//! Embeddings `[B, T, D]` to logits over V: learned positions are added, counted from what each row has behind it, then
//! L blocks of attention and MLP, each behind its own layer norm, `gelu_new`, a head that is the word table.
//! Linear layers are stored as `x W` (`Conv1D`) and turned once at load, in their own type.
//! Source followed: transformers' `modeling_gpt2.py`.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::frozen::After;
use limber_core::model_config::{self, TokenIds};
use limber_core::ops::{Heads, LayerNorm, attend};
use limber_core::weights::{WeightError, ZEROS};
use limber_core::{
    Decoder, DecoderPart, DecoderSpec, FrozenEmbedding, FrozenLinear, Layer, Layers, Mlp, Part, Run, WeightSource,
    Weights, pick, register,
};

mod settings;

pub use settings::Config;
use settings::Sizes;

register!(decoder, Gpt2);

/// The frozen model.
pub struct Gpt2 {
    words: FrozenEmbedding,
    positions: FrozenEmbedding,
    layers: Layers<Block>,
    norm: LayerNorm,
    head: FrozenLinear,
}

impl Part for Gpt2 {
    type Config = Config;
    const KIND: &'static str = "gpt2";
    const ABOUT: &'static str = "GPT-2 from a Hugging Face folder (gpt2 where nothing else is said)";

    fn tiny() -> Config {
        Config {
            vocab_size: Some(97),
            n_positions: Some(48),
            n_embd: Some(32),
            n_layer: Some(2),
            n_head: Some(4),
            eos_token_id: Some(TokenIds(vec![96])),
            ..Config::default()
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        model_config::recognises(source, &["gpt2"])
    }

    fn resolve(config: Config, source: &dyn WeightSource) -> Result<Config> {
        config.resolve(source)
    }
}

impl DecoderPart for Gpt2 {
    fn specs(config: &Config) -> Result<DecoderSpec> {
        Ok(config.sizes()?.spec)
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = config.sizes()?;
        let spec = sizes.spec.clone();
        let (d, init) = (spec.width, sizes.init());
        // The positions tell the prefix: a checkpoint may hold the word table under the head's name alone.
        let w = weights.under_any(&["transformer", ""], "wpe.weight");
        let (words, head) = if sizes.tied {
            w.pp("wte").tied(&weights.pp("lm_head"), spec.vocab, d, init)?
        } else {
            (w.pp("wte").embedding(spec.vocab, d, init)?, weights.pp("lm_head").linear(d, spec.vocab, init, None)?)
        };
        let positions = w.pp("wpe").embedding(spec.context, d, init)?;
        let blocks = (0..spec.layers)
            .map(|layer| Block::new(&w.pp(format!("h.{layer}")), &sizes, sizes.heads(layer)))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = LayerNorm::load(&w.pp("ln_f"), d, sizes.eps)?;
        Ok(Self { words, positions, layers: Layers::new(spec, blocks), norm, head })
    }
}

impl Decoder for Gpt2 {
    fn spec(&self) -> DecoderSpec {
        self.layers.spec().clone()
    }

    fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.words.forward(ids)
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        let past = self.layers.start(embeds, run)?;
        let x = embeds.add(&self.positions.following(&past, embeds.dim(1)?)?)?;
        self.layers.run(&x, &past, run, |x| self.norm.forward(x), |x| self.head.forward(x))
    }
}

/// One layer: x + attention(norm1(x)), then x + mlp(norm2(x)).
struct Block {
    heads: Heads,
    norm1: LayerNorm,
    /// D to 3 D: queries, then keys, then values.
    qkv: FrozenLinear,
    out: FrozenLinear,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(w: &Weights, sizes: &Sizes, heads: Heads) -> Result<Self, WeightError> {
        let (d, inner, bias) = (sizes.spec.width, sizes.inner, Some(ZEROS));
        let (init, residual) = (sizes.init(), sizes.residual_init());
        Ok(Self {
            heads,
            norm1: LayerNorm::load(&w.pp("ln_1"), d, sizes.eps)?,
            qkv: w.pp("attn.c_attn").linear_transposed(d, 3 * d, init, bias)?,
            out: w.pp("attn.c_proj").linear_transposed(d, d, residual, bias)?,
            norm2: LayerNorm::load(&w.pp("ln_2"), d, sizes.eps)?,
            mlp: Mlp::new(
                w.pp("mlp.c_fc").linear_transposed(d, inner, init, bias)?,
                sizes.activation,
                w.pp("mlp.c_proj").linear_transposed(inner, d, residual, bias)?,
            ),
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
        let _ = past; // Positions are in x already.
        let (b, t, _) = x.dims3()?;
        let Heads { queries: h, dim, .. } = self.heads;
        let qkv = run.product(&self.qkv, &run.normed(&self.norm1, x)?)?.reshape((b, t, 3, h, dim))?;
        let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2);
        let attention = attend(index, &part(0)?, &part(1)?, &part(2)?, self.heads, run)?;
        let x = run.product_then(&self.out, &pick(&attention, rows)?, After::onto(&pick(x, rows)?))?;
        let hidden = run.hidden(&self.mlp, &run.normed(&self.norm2, &x)?)?;
        run.last_mlp(&self.mlp, hidden, &x)
    }
}
