//! CLIP's text tower: ids `[B, T]` to the projected vector of each text's end `[B, C]`, C the width of the space that it
//! shares with images, not scaled to length 1.
//!
//! Sources followed: `CLIP.encode_text` in OpenAI's `clip/model.py`, open_clip's `model.py` and `transformer.py`
//! (`text_global_pool`), transformers' `CLIPTextTransformer`. The end of a text is where its highest id stands, or,
//! where the checkpoint names another end of text than 2, where that id stands first.

use super::names::{Library, Names};
use super::sizes::Sizes;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use limber_core::frozen::FrozenEmbedding;
use limber_core::ops::{Activation, Heads, LayerNorm};
use limber_core::vit::VitBlock;
use limber_core::weights::FrozenData;
use limber_core::{FrozenLinear, Init, ModelConfig, WeightSource, Weights};
use serde_json::{Value, json};

/// Where a text tower may stand, and the library whose tower stands there.
const PLACES: [(Library, &str); 5] = [
    (Library::HuggingFace, "text_model"),
    (Library::OpenAi, ""),
    (Library::OpenAi, "text"),
    (Library::OpenAi, "module"),
    (Library::OpenAi, "module.text"),
];

/// The frozen tower.
pub struct ClipText {
    words: FrozenEmbedding,
    /// Positions `[T, E]`.
    positions: Tensor,
    blocks: Vec<VitBlock>,
    heads: Heads,
    last_norm: LayerNorm,
    projection: FrozenLinear,
    context: usize,
    end: Option<u32>,
}

/// What the documents beside the weights say.
struct Said {
    heads: Option<usize>,
    activation: Option<Activation>,
    epsilon: f64,
    end: Option<u32>,
}

impl ClipText {
    /// The tower in `weights`. `activation` counts where nothing beside the weights names one.
    ///
    /// # Errors
    /// Weights without a text tower of CLIP, or of one with parts that are not supported, by name.
    pub fn new(weights: &Weights, activation: Option<Activation>) -> Result<Self> {
        let source = weights.source().as_ref();
        let label = source.label();
        let tensors = source.tensors().with_context(|| format!("{label}: a text tower has no random weights"))?;
        let tables = |library| match library {
            Library::OpenAi => ["token_embedding", "positional_embedding", "ln_final"],
            Library::HuggingFace => {
                ["embeddings.token_embedding", "embeddings.position_embedding.weight", "final_layer_norm"]
            }
        };
        let names = PLACES.iter().map(|(library, prefix)| Names::at(*library, prefix)).find(|names| {
            let [table, positions, _] = tables(names.library);
            tensors.contains_key(&names.full(&format!("{table}.weight")))
                && tensors.contains_key(&names.full(positions))
        });
        let Some(names) = names else {
            bail!(
                "{label}: no text tower of CLIP; looked for token_embedding.weight (OpenAI, open_clip) and text_model.embeddings.token_embedding.weight (Hugging Face)"
            )
        };
        let [table, position_table, last_norm] = tables(names.library);
        let sizes_of = |name: &str| match tensors.get(&names.full(name)).map(Vec::as_slice) {
            Some([rows, width]) => Ok((*rows, *width)),
            other => bail!("{label}: tensor {:?} has shape {other:?}, a matrix is wanted", names.full(name)),
        };
        let (vocab, width) = sizes_of(&format!("{table}.weight"))?;
        let (context, _) = sizes_of(position_table)?;
        let said = match names.library {
            Library::OpenAi => open_clip(source)?,
            Library::HuggingFace => hugging_face(source)?,
        };
        let layers = (0..).take_while(|i| tensors.contains_key(&names.full(&names.fc1(*i)))).count();
        ensure!(layers > 0, "{label}: no tensor {:?}, so no block of a text tower", names.full(&names.fc1(0)));
        let mlp_width = tensors.get(&names.full(&names.fc1(0))).and_then(|shape| shape.first()).copied();
        let Some(activation) = said.activation.or(activation) else {
            bail!("{label}: nothing tells which activation this text tower was trained with; set model or activation")
        };
        let heads = said.heads.unwrap_or(width.div_ceil(64));
        ensure!(heads > 0 && width % heads == 0, "{label}: {heads} heads do not divide the text tower's width {width}");
        let sizes = Sizes::text(width, layers, heads, mlp_width.unwrap_or(4 * width), activation, said.epsilon);

        let tower = names.tower(weights);
        let init = Init::normal(0.02);
        let blocks = (0..layers).map(|i| names.block(&tower, i, &sizes)).collect::<Result<_>>()?;
        let projection = match names.library {
            Library::HuggingFace => {
                let (n_out, _) = match tensors.get("text_projection.weight").map(Vec::as_slice) {
                    Some([n_out, n_in]) => (*n_out, *n_in),
                    other => {
                        bail!("{label}: tensor \"text_projection.weight\" has shape {other:?}, a matrix is wanted")
                    }
                };
                weights.pp("text_projection").linear(width, n_out, init, None)?
            }
            Library::OpenAi => {
                let (_, n_out) = sizes_of("text_projection")?;
                let matrix = tower.tensor("text_projection", &[width, n_out], init)?;
                let rows = matrix.to_device(&Device::Cpu)?.t()?.flatten_all()?.to_vec1::<f32>()?;
                FrozenLinear::new(FrozenData::from_f32(rows, &[n_out, width]), None, weights.device())?
            }
        };
        Ok(Self {
            words: tower.pp(table).embedding(vocab, width, init)?,
            positions: tower.tensor(position_table, &[context, width], init)?,
            blocks,
            heads: sizes.heads(),
            last_norm: LayerNorm::load(&tower.pp(last_norm), width, said.epsilon)?,
            projection,
            context,
            end: said.end,
        })
    }

    /// Most ids of a text, both its marks included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Texts, each its ids with the marks of begin and end, to `[B, C]` f32.
    ///
    /// # Errors
    /// No text, one that is empty or longer than [`Self::context`], an id that is no row of the table.
    pub fn encode(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let shortest = texts.iter().map(Vec::len).min().unwrap_or(0);
        ensure!(
            shortest > 0 && longest <= self.context,
            "texts of {shortest} to {longest} ids, expected 1 to {}",
            self.context
        );
        // What stands behind a text's end is not seen by what stands before it, so the filling does not matter.
        let ids: Vec<u32> = texts
            .iter()
            .flat_map(|ids| ids.iter().copied().chain(std::iter::repeat_n(0, longest - ids.len())))
            .collect();
        let device = self.positions.device();
        let x = self.words.forward(&Tensor::from_vec(ids, (texts.len(), longest), device)?)?; // [B, T, E]
        let mut x = x.broadcast_add(&self.positions.narrow(0, 0, longest)?)?;
        for block in &self.blocks {
            x = block.forward_causal(&x, self.heads)?;
        }
        let ends: Vec<Tensor> = texts
            .iter()
            .enumerate()
            .map(|(row, ids)| x.get(row)?.get(self.end_of(ids)))
            .collect::<candle_core::Result<_>>()?;
        let ends = Tensor::stack(&ends, 0)?.unsqueeze(1)?; // [B, 1, E]
        Ok(self.projection.forward(&self.last_norm.forward(&ends)?)?.squeeze(1)?)
    }

    fn end_of(&self, ids: &[u32]) -> usize {
        let named = self.end.and_then(|end| ids.iter().position(|id| *id == end));
        // The first of the highest.
        named.unwrap_or_else(|| (0..ids.len()).fold(0, |best, at| if ids[at] > ids[best] { at } else { best }))
    }
}

fn open_clip(source: &dyn WeightSource) -> Result<Said> {
    let openai = Said { heads: None, activation: None, epsilon: 1e-5, end: None };
    let Some(file) = ModelConfig::document(source, "open_clip_config.json")? else { return Ok(openai) };
    let Some(model) = file.section("model_cfg") else {
        return Err(file.refusal("model_cfg", "it says what the model is"));
    };
    let Some(text) = model.section("text_cfg") else {
        return Err(model.refusal("text_cfg", "it says what the text tower is"));
    };
    let keys = [
        "context_length",
        "vocab_size",
        "width",
        "heads",
        "layers",
        "mlp_ratio",
        "ls_init_value",
        "hf_tokenizer_name",
        "tokenizer_kwargs",
        "embed_cls",
        "pad_id",
        "no_causal_mask",
        "pool_type",
        "proj_type",
        "proj_bias",
        "output_tokens",
    ];
    text.only("clip's text tower", &keys)?;
    text.refuse("clip's text tower", &["ls_init_value", "embed_cls", "no_causal_mask", "proj_bias"])?;
    text.expect("pool_type", &[json!("argmax")])?;
    text.expect("proj_type", &[json!("linear")])?;
    let quick = model.flag("quick_gelu")?.unwrap_or(false);
    Ok(Said {
        heads: Some(text.size("heads")?.unwrap_or(8)),
        activation: Some(if quick { Activation::QuickGelu } else { Activation::Gelu }),
        ..openai
    })
}

fn hugging_face(source: &dyn WeightSource) -> Result<Said> {
    let file = ModelConfig::read(source)?.unwrap_or_default();
    // Older files carry the section twice; transformers lets the second count, absent keys being its defaults.
    let section = file.section("text_config_dict").or_else(|| file.section("text_config"));
    let text = match (section, file.model_type()) {
        (Some(section), _) => section,
        (None, Some("clip")) => ModelConfig::default(),
        (None, _) => file.clone(),
    };
    let activation = text.text("hidden_act")?.unwrap_or_else(|| "quick_gelu".into());
    let Some(activation) = Activation::named(&activation) else {
        return Err(text.refusal("hidden_act", format!("supported is {}", Activation::NAMES)));
    };
    // 2 is what old files say and never meant: the end is then where the highest id stands.
    let end = text.value("eos_token_id").and_then(Value::as_u64).filter(|id| *id != 2).map(|id| id as u32);
    Ok(Said {
        heads: Some(text.size("num_attention_heads")?.unwrap_or(8)),
        activation: Some(activation),
        epsilon: text.number("layer_norm_eps")?.unwrap_or(1e-5),
        end,
    })
}
