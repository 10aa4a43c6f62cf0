//! Tensors by the names that libraries give them: OpenAI's, which open_clip keeps, and Hugging Face's.
//!
//! Text towers name their blocks alike (`transformer.resblocks`, `text_model.encoder.layers`).

use super::sizes::Sizes;
use anyhow::Result;
use candle_core::{Device, Tensor};
use limber_core::frozen::FrozenLinear;
use limber_core::ops::LayerNorm;
use limber_core::vit::VitBlock;
use limber_core::weights::{FrozenData, ONES, WeightError, ZEROS};
use limber_core::{Init, WeightSource, Weights};
use std::collections::BTreeMap;

/// Whose names they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// OpenAI's and open_clip's: one matrix for queries, keys and values, `x @ proj`.
    OpenAi,
    /// Hugging Face's.
    HuggingFace,
}

/// The names of one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Names {
    pub library: Library,
    /// What stands before the tower's names; empty where the tower is all there is.
    prefix: &'static str,
}

/// Where a tower may stand, and the library whose tower stands there.
const PLACES: [(Library, &str); 5] = [
    // Random weights take the first.
    (Library::HuggingFace, "vision_model"),
    (Library::HuggingFace, ""),
    (Library::OpenAi, "visual"),
    (Library::OpenAi, "module.visual"),
    (Library::OpenAi, ""),
];

impl Names {
    /// The names of a tower that stands at `prefix`.
    pub fn at(library: Library, prefix: &'static str) -> Self {
        Self { library, prefix }
    }

    /// The names in `source`; None where it holds no such tower.
    pub fn find(source: &dyn WeightSource) -> Option<Self> {
        let tensors = source.tensors();
        PLACES.iter().map(|(library, prefix)| Self { library: *library, prefix }).find(|names| match &tensors {
            None => true,
            Some(tensors) => {
                // SigLIP's towers have the same names, but no class token.
                tensors.contains_key(&names.full(names.class())) && tensors.contains_key(&names.full(names.patches()))
            }
        })
    }

    /// A name of the tower as the checkpoint has it.
    pub fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// The tower's weights.
    pub fn tower(&self, weights: &Weights) -> Weights {
        if self.prefix.is_empty() { weights.clone() } else { weights.pp(self.prefix) }
    }

    pub fn class(&self) -> &'static str {
        self.either("class_embedding", "embeddings.class_embedding")
    }

    pub fn patches(&self) -> &'static str {
        self.either("conv1.weight", "embeddings.patch_embedding.weight")
    }

    pub fn positions(&self) -> &'static str {
        self.either("positional_embedding", "embeddings.position_embedding.weight")
    }

    pub fn pre_norm(&self) -> &'static str {
        // The missing letter is Hugging Face's.
        self.either("ln_pre", "pre_layrnorm")
    }

    pub fn post_norm(&self) -> &'static str {
        self.either("ln_post", "post_layernorm")
    }

    /// The folder of the blocks.
    pub fn blocks(&self) -> &'static str {
        self.either("transformer.resblocks", "encoder.layers")
    }

    /// The first linear layer of block `index`'s MLP.
    pub fn fc1(&self, index: usize) -> String {
        format!("{}.{index}.{}.weight", self.blocks(), self.either("mlp.c_fc", "mlp.fc1"))
    }

    /// The layer scale of block `index`'s attention.
    pub fn layer_scale(&self, index: usize) -> String {
        format!("{}.{index}.ls_1.gamma", self.blocks())
    }

    /// The width of the projection, where the tensors hold one.
    pub fn projection_width(&self, tensors: &BTreeMap<String, Vec<usize>>) -> Option<usize> {
        match self.library {
            Library::OpenAi => tensors.get(&self.full("proj"))?.get(1).copied(),
            Library::HuggingFace => tensors.get("visual_projection.weight")?.first().copied(),
        }
    }

    /// The projection of the class token, width E to `n_out`.
    pub fn projection(&self, weights: &Weights, e: usize, n_out: usize, init: Init) -> Result<FrozenLinear> {
        match self.library {
            Library::HuggingFace => Ok(weights.pp("visual_projection").linear(e, n_out, init, None)?),
            Library::OpenAi => {
                let matrix = self.tower(weights).tensor("proj", &[e, n_out], init)?;
                let rows = matrix.to_device(&Device::Cpu)?.t()?.flatten_all()?.to_vec1::<f32>()?;
                Ok(FrozenLinear::new(FrozenData::from_f32(rows, &[n_out, e]), None, weights.device())?)
            }
        }
    }

    /// Block `index` of a tower.
    pub fn block(&self, tower: &Weights, index: usize, sizes: &Sizes) -> Result<VitBlock> {
        let w = tower.pp(self.blocks()).pp(index);
        let (e, mlp) = (sizes.width, sizes.mlp_width);
        let init = sizes.init();
        let linear = |w: &Weights, name: &str, n_in: usize, n_out: usize, std: f32| {
            w.pp(name).linear(n_in, n_out, Init::normal(std), Some(ZEROS))
        };
        let norm = |name: &str| LayerNorm::load(&w.pp(name), e, sizes.epsilon);
        let [norm1, norm2] = match self.library {
            Library::OpenAi => ["ln_1", "ln_2"],
            Library::HuggingFace => ["layer_norm1", "layer_norm2"],
        };
        let attn = w.pp(self.either("attn", "self_attn"));
        let [q, k, v] = match self.library {
            Library::OpenAi => split(&attn, e, Init::normal(init.qkv))?,
            Library::HuggingFace => {
                let one = |name| linear(&attn, name, e, e, init.qkv);
                [one("q_proj")?, one("k_proj")?, one("v_proj")?]
            }
        };
        // open_clip's towers alone have a layer scale.
        let scale = |name: &str| -> Result<Option<Tensor>, WeightError> {
            sizes.layer_scale.then(|| w.tensor(&format!("{name}.gamma"), &[e], ONES)).transpose()
        };
        Ok(VitBlock {
            norm1: norm(norm1)?,
            q,
            k,
            v,
            out: linear(&attn, "out_proj", e, e, init.out)?,
            scale1: scale("ls_1")?,
            norm2: norm(norm2)?,
            fc1: linear(&w, self.either("mlp.c_fc", "mlp.fc1"), e, mlp, init.fc1)?,
            gate: None,
            activation: sizes.activation,
            fc2: linear(&w, self.either("mlp.c_proj", "mlp.fc2"), mlp, e, init.fc2)?,
            scale2: scale("ls_2")?,
        })
    }

    fn either(&self, openai: &'static str, hugging_face: &'static str) -> &'static str {
        match self.library {
            Library::OpenAi => openai,
            Library::HuggingFace => hugging_face,
        }
    }
}

/// Queries, keys and values of `in_proj_weight` `[3E, E]` and `in_proj_bias` `[3E]`, where they lie.
fn split(w: &Weights, e: usize, init: Init) -> Result<[FrozenLinear; 3]> {
    let matrix = w.frozen("in_proj_weight", &[3 * e, e], init)?;
    let bias = w.tensor("in_proj_bias", &[3 * e], ZEROS)?;
    let part = |i: usize| -> Result<FrozenLinear> {
        let rows = matrix.rows(i * e..(i + 1) * e).map_err(anyhow::Error::msg)?;
        Ok(FrozenLinear::new(rows, Some(bias.narrow(0, i * e, e)?.contiguous()?), w.device())?)
    };
    Ok([part(0)?, part(1)?, part(2)?])
}
