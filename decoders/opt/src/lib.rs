//! `opt`: OPT (opt-125m to opt-66b, and what shares its form, such as Galactica) as a frozen decoder.
//!
//! Embeddings `[B, T, D]` to logits over V: a projection where the blocks are wider than the words, learned positions,
//! L blocks of attention and MLP with layer norms before or after each, and the way back.
//! Source followed: transformers' `modeling_opt.py`.
//!
//! - D is `word_embed_proj_dim`, as `inputs_embeds` enter before `project_in` in transformers: a stitch for opt-350m
//!   writes 512 numbers a token, though the blocks are 1024 wide. Hidden states have the blocks' width, but for the last,
//!   which is after `project_out`.
//! - Position p of a row reads row p + 2 of the table, p counted from what the row has behind it. A key mask hides keys
//!   and moves no position; in transformers it moves them unless `position_ids` are given.
//! - No `</s>` is put in front, though OPT was trained with one: transformers' `generate` with `inputs_embeds` adds
//!   none either. A prompt that says so has it: `"</s><image>A picture of"`.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::frozen::After;
use limber_core::model_config::{self, TokenIds};
use limber_core::ops::{Activation, Heads, LayerNorm, attend};
use limber_core::weights::{WeightError, ZEROS};
use limber_core::{
    Decoder, DecoderPart, DecoderSpec, FrozenEmbedding, FrozenLinear, Init, Layer, Layers, Mlp, Part, Run,
    WeightSource, Weights, pick, register,
};

mod settings;

pub use settings::Config;
use settings::Sizes;

register!(decoder, Opt);

/// Rows of the position table before that of position 0.
const OFFSET: usize = 2;
/// The row of the word table that random weights leave at 0: that of `<pad>`.
const PADDING: usize = 1;
/// PyTorch's default of layer norms.
const EPS: f64 = 1e-5;

/// The frozen model.
pub struct Opt {
    words: FrozenEmbedding,
    positions: FrozenEmbedding,
    /// From D to the blocks' width and back, where these differ.
    projections: Option<(FrozenLinear, FrozenLinear)>,
    layers: Layers<Block>,
    norm: Option<LayerNorm>,
    head: FrozenLinear,
}

impl Part for Opt {
    type Config = Config;
    const KIND: &'static str = "opt";
    const ABOUT: &'static str = "OPT from a Hugging Face folder, or by the name of a model (opt-125m to opt-66b)";

    fn tiny() -> Config {
        Config {
            vocab_size: Some(97),
            hidden_size: Some(32),
            num_hidden_layers: Some(2),
            num_attention_heads: Some(4),
            ffn_dim: Some(48),
            max_position_embeddings: Some(48),
            // The one whose gradient finite differences can follow: relu has corners.
            activation_function: Some(Activation::Gelu),
            eos_token_id: Some(TokenIds(vec![2])),
            ..Config::default()
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        model_config::recognises(source, &["opt"])
    }

    fn resolve(config: Config, source: &dyn WeightSource) -> Result<Config> {
        config.resolve(source)
    }
}

impl DecoderPart for Opt {
    fn specs(config: &Config) -> Result<DecoderSpec> {
        Ok(config.sizes()?.spec)
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = config.sizes()?;
        let spec = sizes.spec.clone();
        let (d, hidden, init) = (spec.width, sizes.hidden, sizes.init());
        let w = weights.under_any(&["model.decoder", "decoder"], "embed_positions.weight");
        let (table, head) = (w.pp("embed_tokens"), weights.pp("lm_head"));
        let padded = Init::NormalButRow { std: sizes.std, row: PADDING };
        let (words, head) = if sizes.tied {
            table.tied(&head, spec.vocab, d, padded)?
        } else {
            (table.embedding(spec.vocab, d, padded)?, head.linear(d, spec.vocab, init, None)?)
        };
        let positions = w.pp("embed_positions").embedding(spec.context + OFFSET, hidden, init)?;
        let projections = if d == hidden {
            None
        } else {
            let inward = w.pp("project_in").linear(d, hidden, init, None)?;
            Some((inward, w.pp("project_out").linear(hidden, d, init, None)?))
        };
        let blocks = (0..spec.layers)
            .map(|layer| Block::new(&w.pp(format!("layers.{layer}")), &sizes))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = sizes.final_norm.then(|| norm(&w.pp("final_layer_norm"), &sizes)).transpose()?;
        Ok(Self { words, positions, projections, layers: Layers::new(spec, blocks), norm, head })
    }
}

impl Decoder for Opt {
    fn spec(&self) -> DecoderSpec {
        self.layers.spec().clone()
    }

    fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.words.forward(ids)
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        let past = self.layers.start(embeds, run)?;
        let rows: Vec<usize> = past.iter().map(|past| past + OFFSET).collect();
        let x = match &self.projections {
            Some((inward, _)) => inward.forward(embeds)?,
            None => embeds.clone(),
        };
        let x = x.add(&self.positions.following(&rows, embeds.dim(1)?)?)?;
        let last = |x: &Tensor| {
            let x = match &self.norm {
                Some(norm) => norm.forward(x)?,
                None => x.clone(),
            };
            match &self.projections {
                Some((_, outward)) => outward.forward(&x),
                None => Ok(x),
            }
        };
        self.layers.run(&x, &past, run, last, |x| self.head.forward(x))
    }
}

/// A layer norm, with or without parameters.
fn norm(w: &Weights, sizes: &Sizes) -> Result<LayerNorm, WeightError> {
    if sizes.affine {
        return LayerNorm::load(w, sizes.hidden, EPS);
    }
    LayerNorm::plain(sizes.hidden, EPS, w.device())
        .map_err(|e| WeightError::Read { source_label: w.source().label(), message: e.to_string() })
}

/// One layer: x + attention, then x + mlp, with a norm before each or after each sum.
struct Block {
    heads: Heads,
    norm_first: bool,
    norm1: LayerNorm,
    q: FrozenLinear,
    k: FrozenLinear,
    v: FrozenLinear,
    out: FrozenLinear,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(w: &Weights, sizes: &Sizes) -> Result<Self, WeightError> {
        let (width, init, bias) = (sizes.hidden, sizes.init(), sizes.bias.then_some(ZEROS));
        let square = |name: &str| w.pp("self_attn").pp(name).linear(width, width, init, bias);
        Ok(Self {
            heads: sizes.heads(),
            norm_first: sizes.norm_first,
            norm1: norm(&w.pp("self_attn_layer_norm"), sizes)?,
            q: square("q_proj")?,
            k: square("k_proj")?,
            v: square("v_proj")?,
            out: square("out_proj")?,
            norm2: norm(&w.pp("final_layer_norm"), sizes)?,
            mlp: Mlp::new(
                w.pp("fc1").linear(width, sizes.inner, init, bias)?,
                sizes.activation,
                w.pp("fc2").linear(sizes.inner, width, init, bias)?,
            ),
        })
    }

    /// `norm` where it stands on this side.
    fn normed(&self, norm: &LayerNorm, x: Tensor, before: bool) -> candle_core::Result<Tensor> {
        if self.norm_first == before { norm.forward(&x) } else { Ok(x) }
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
        let normed = self.normed(&self.norm1, x.clone(), true)?;
        let [q, k, v] = run.products([&self.q, &self.k, &self.v], &normed)?;
        let split = |x: Tensor| x.reshape((b, t, self.heads.queries, self.heads.dim));
        let attention = attend(index, &split(q)?, &split(k)?, &split(v)?, self.heads, run)?;
        let attention = run.product_then(&self.out, &pick(&attention, rows)?, After::onto(&pick(x, rows)?))?;
        let x = self.normed(&self.norm1, attention, false)?;
        let normed = self.normed(&self.norm2, x.clone(), true)?;
        let hidden = run.hidden(&self.mlp, &normed)?;
        let mlp = if self.norm_first { run.last_mlp(&self.mlp, hidden, &x)? } else { run.mlp(&self.mlp, hidden, &x)? };
        self.normed(&self.norm2, mlp, false)
    }
}
