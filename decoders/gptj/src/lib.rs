//! `gptj`: GPT-J (EleutherAI/gpt-j-6b and its kin) as a frozen decoder.
//!
//! Embeddings `[B, T, D]` to logits over V: L blocks of attention and MLP side by side behind one layer norm, rotary
//! embedding on the first elements of each head in interleaved pairs, `gelu_new`, a head with bias.
//! Source followed: transformers' `modeling_gptj.py`.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::model_config;
use limber_core::ops::{Activation, Heads, LayerNorm, Rotary, RotaryStyle, attend_last};
use limber_core::weights::{WeightError, ZEROS};
use limber_core::{
    Decoder, DecoderPart, DecoderSpec, FrozenEmbedding, FrozenLinear, Init, Layer, Layers, Mlp, Part, Run,
    WeightSource, Weights, pick, register,
};

mod settings;

pub use settings::Config;
use settings::Sizes;

register!(decoder, GptJ);

/// The frozen model.
pub struct GptJ {
    words: FrozenEmbedding,
    layers: Layers<Block>,
    norm: LayerNorm,
    head: FrozenLinear,
}

impl Part for GptJ {
    type Config = Config;
    const KIND: &'static str = "gptj";
    const ABOUT: &'static str = "GPT-J from a Hugging Face folder (gpt-j-6b where nothing else is said)";

    fn tiny() -> Config {
        Config {
            vocab_size: Some(97),
            n_positions: Some(48),
            n_embd: Some(32),
            n_layer: Some(2),
            n_head: Some(4),
            rotary_dim: Some(4),
            eos_token_id: Some(96),
            ..Config::default()
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        model_config::recognises(source, &["gptj"])
    }

    fn resolve(config: Config, source: &dyn WeightSource) -> Result<Config> {
        config.resolve(source)
    }
}

impl DecoderPart for GptJ {
    fn specs(config: &Config) -> Result<DecoderSpec> {
        Ok(config.sizes()?.spec())
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = config.sizes()?;
        let spec = sizes.spec();
        let d = spec.width;
        let init = Init::normal(sizes.init_std);
        let w = weights.under_any(&["transformer", ""], "wte.weight");
        let words = w.pp("wte").embedding(spec.vocab, d, init)?;
        let rotary = Rotary::new(sizes.rotary, spec.context, 10_000.0, RotaryStyle::Interleaved);
        let heads = Heads {
            queries: spec.kv_heads,
            keys: spec.kv_heads,
            dim: spec.head_dim,
            scale: 1.0 / (spec.head_dim as f64).sqrt(),
        };
        let blocks = (0..spec.layers)
            .map(|layer| Block::new(&w.pp(format!("h.{layer}")), &sizes, heads, rotary.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = LayerNorm::load(&w.pp("ln_f"), d, sizes.eps)?;
        let head = if sizes.tied {
            let table = w.pp("wte").frozen("weight", &[spec.vocab, d], init)?;
            let bias = weights.pp("lm_head").tensor("bias", &[spec.vocab], ZEROS)?;
            FrozenLinear::new(table, Some(bias), weights.device())?
        } else {
            weights.pp("lm_head").linear(d, spec.vocab, init, Some(ZEROS))?
        };
        Ok(Self { words, layers: Layers::new(spec, blocks), norm, head })
    }
}

impl Decoder for GptJ {
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

/// One layer: x + attention(norm(x)) + mlp(norm(x)).
struct Block {
    heads: Heads,
    rotary: Rotary,
    norm: LayerNorm,
    q: FrozenLinear,
    k: FrozenLinear,
    v: FrozenLinear,
    out: FrozenLinear,
    mlp: Mlp,
}

impl Block {
    fn new(w: &Weights, sizes: &Sizes, heads: Heads, rotary: Rotary) -> Result<Self, WeightError> {
        let (d, init) = (heads.queries * heads.dim, Init::normal(sizes.init_std));
        let attention = w.pp("attn");
        let square = |name: &str| attention.pp(name).linear(d, d, init, None);
        Ok(Self {
            heads,
            rotary,
            norm: LayerNorm::load(&w.pp("ln_1"), d, sizes.eps)?,
            q: square("q_proj")?,
            k: square("k_proj")?,
            v: square("v_proj")?,
            out: square("out_proj")?,
            mlp: Mlp::new(
                w.pp("mlp.fc_in").linear(d, sizes.inner, init, Some(ZEROS))?,
                Activation::GeluNew,
                w.pp("mlp.fc_out").linear(sizes.inner, d, init, Some(ZEROS))?,
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
        let (b, t, _) = x.dims3()?;
        let heads = self.heads;
        let normed = run.normed(&self.norm, x)?;
        let qkv = [&self.q, &self.k, &self.v];
        let ([q, k, v], hidden) = match rows {
            None => run.products_and_hidden(qkv, &self.mlp, &normed)?,
            Some(_) => (run.products(qkv, &normed)?, run.hidden(&self.mlp, &pick(&normed, rows)?)?),
        };
        let split = |x: Tensor| x.reshape((b, t, heads.queries, heads.dim));
        let lengths = vec![t; b];
        let q = run.turned(&self.rotary, split(q)?, past, &lengths)?;
        let k = run.turned(&self.rotary, split(k)?, past, &lengths)?;
        let attention = pick(&attend_last(index, &q, &k, &split(v)?, heads, run)?, rows)?;
        let x = run.last_product(&self.out, &attention, &pick(x, rows)?)?;
        run.last_mlp(&self.mlp, hidden, &x)
    }
}
