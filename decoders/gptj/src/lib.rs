//! `gptj`: GPT-J (EleutherAI/gpt-j-6b and its kin) as a frozen decoder.
//!
//! Embeddings `[B, T, D]` to logits over V: L blocks of attention and MLP side by side behind one layer norm, rotary
//! embedding on the first elements of each head in interleaved pairs, `gelu_new`, a head with bias.
//! Source followed: transformers' `modeling_gptj.py`.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::decoder::{check_context, select_positions};
use limber_core::ops::{Heads, LayerNorm, Rotary, RotaryStyle, attend, gelu_tanh};
use limber_core::weights::{WeightError, ZEROS};
use limber_core::{
    Decoder, DecoderPart, DecoderSpec, FrozenEmbedding, FrozenLinear, Init, LogitPositions, Part, Run, WeightSource,
    Weights, register,
};

mod settings;

pub use settings::Config;

register!(decoder, GptJ);

/// The frozen model.
pub struct GptJ {
    spec: DecoderSpec,
    heads: Heads,
    words: FrozenEmbedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: FrozenLinear,
    rotary: Rotary,
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
        settings::recognises(source)
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
        let blocks = (0..spec.layers)
            .map(|layer| Block::new(&w.pp(format!("h.{layer}")), d, sizes.inner, sizes.eps, init))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = LayerNorm::load(&w.pp("ln_f"), d, sizes.eps)?;
        let head = if sizes.tied {
            let table = w.pp("wte").frozen("weight", &[spec.vocab, d], init)?;
            let bias = weights.pp("lm_head").tensor("bias", &[spec.vocab], ZEROS)?;
            FrozenLinear::new(table, Some(bias), weights.device())?
        } else {
            weights.pp("lm_head").linear(d, spec.vocab, init, Some(ZEROS))?
        };
        let rotary = Rotary::new(sizes.rotary, spec.context, 10_000.0, RotaryStyle::Interleaved);
        let heads = Heads {
            queries: spec.kv_heads,
            keys: spec.kv_heads,
            dim: spec.head_dim,
            scale: 1.0 / (spec.head_dim as f64).sqrt(),
        };
        Ok(Self { spec, heads, words, blocks, norm, head, rotary })
    }
}

impl Decoder for GptJ {
    fn spec(&self) -> DecoderSpec {
        self.spec.clone()
    }

    fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.words.forward(ids)
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        let (b, t, d) = embeds.dims3()?;
        if d != self.spec.width || t == 0 || b == 0 {
            candle_core::bail!("embeddings of shape {:?}, allowed is [B, T, {}]", embeds.dims(), self.spec.width)
        }
        let lengths = run.row_lengths(b, t)?;
        let past = run.past(b)?;
        // Padding takes positions too, of keys that nobody sees: it must lie inside the tables.
        check_context(&past, &vec![t; b], self.spec.context)?;
        let mut x = embeds.clone();
        for (layer, block) in self.blocks.iter().enumerate() {
            if run.taps.want_hidden {
                run.taps.hidden.push(x.clone());
            }
            x = block.forward(layer, &x, &self.rotary, self.heads, &past, run)?;
        }
        if let Some(cache) = &mut run.cache {
            cache.advance(&lengths)?;
        }
        if run.taps.want_hidden {
            let last = self.norm.forward(&x)?;
            run.taps.hidden.push(last);
        }
        let x = self.norm.forward(&select_positions(&x, &run.logits, &lengths)?)?;
        if run.logits == LogitPositions::Hidden { Ok(x) } else { self.head.forward(&x) }
    }
}

/// One layer: x + attention(norm(x)) + mlp(norm(x)).
struct Block {
    norm: LayerNorm,
    q: FrozenLinear,
    k: FrozenLinear,
    v: FrozenLinear,
    out: FrozenLinear,
    fc_in: FrozenLinear,
    fc_out: FrozenLinear,
}

impl Block {
    fn new(w: &Weights, d: usize, inner: usize, eps: f64, init: Init) -> Result<Self, WeightError> {
        let attention = w.pp("attn");
        let square = |name: &str| attention.pp(name).linear(d, d, init, None);
        Ok(Self {
            norm: LayerNorm::load(&w.pp("ln_1"), d, eps)?,
            q: square("q_proj")?,
            k: square("k_proj")?,
            v: square("v_proj")?,
            out: square("out_proj")?,
            fc_in: w.pp("mlp.fc_in").linear(d, inner, init, Some(ZEROS))?,
            fc_out: w.pp("mlp.fc_out").linear(inner, d, init, Some(ZEROS))?,
        })
    }

    fn forward(
        &self,
        layer: usize,
        x: &Tensor,
        rotary: &Rotary,
        heads: Heads,
        past: &[usize],
        run: &mut Run,
    ) -> candle_core::Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let normed = self.norm.forward(x)?;
        let split = |x: Tensor| x.reshape((b, t, heads.queries, heads.dim));
        let q = rotary.apply(&split(self.q.forward(&normed)?)?, past)?;
        let k = rotary.apply(&split(self.k.forward(&normed)?)?, past)?;
        let v = split(self.v.forward(&normed)?)?;
        let attention = self.out.forward(&attend(layer, &q, &k, &v, heads, run)?)?;
        let mlp = self.fc_out.forward(&gelu_tanh(&self.fc_in.forward(&normed)?)?)?;
        (x + attention)? + mlp
    }
}
