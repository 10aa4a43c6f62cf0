//! Settings of `llama`: Hugging Face's own names, and which of them go together.

use anyhow::{Result, bail};
use limber_core::decoder_family::{FamilySettings, LayerType, windows};
use limber_core::llama_like_settings;
use limber_core::ops::Activation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The models of the family: transformers' `model_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama; biases as `attention_bias` and `mlp_bias` say, no window.
    Llama,
    /// Mistral: no biases, one window for all layers.
    Mistral,
    /// Qwen2 and Qwen2.5: biases of queries, keys and values, a window from some layer on.
    Qwen2,
}

impl Family {
    /// The names, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["llama", "mistral", "qwen2"];
}

llama_like_settings! {
    activation: hidden_act,
    defaults: { hidden_act: Activation::Silu },
    own: {
        /// A model by name, such as llama-3.2-1b, mistral-7b-v0.1 or qwen2.5-0.5b, for weights without `config.json`.
        model: String = None,
        /// llama, mistral or qwen2.
        model_type: Family = Some(Family::Llama),
        /// Whether the MLP's matrices have biases.
        mlp_bias: bool = Some(false),
        /// Whether layers see a window of the last keys.
        use_sliding_window: bool = None,
        /// Keys in the window, a position's own included.
        #[schemars(range(min = 1))]
        sliding_window: usize = None,
        /// Layers from the first on that see all keys, where the others have a window.
        max_window_layers: usize = None,
        /// What each layer sees, where that is no question of the first and the last ones.
        layer_types: Vec<LayerType> = None,
    },
}

impl Config {
    /// With the defaults of what has one: biases as the model type has them, nothing of windows where there are none.
    pub(super) fn complete(self) -> Self {
        let biased = self.attention_bias.or((self.model_type == Some(Family::Qwen2)).then_some(true));
        let slides = self.use_sliding_window.unwrap_or(self.sliding_window.is_some());
        let mut config = Self { attention_bias: biased, use_sliding_window: Some(slides), ..self }.filled();
        if !slides {
            (config.sliding_window, config.max_window_layers, config.layer_types) = (None, None, None);
        } else if config.layer_types.is_none() {
            config.max_window_layers.get_or_insert(0);
        }
        config
    }

    /// Refuses biases that a model type does not have.
    pub(super) fn check_biases(&self) -> Result<()> {
        match (self.model_type, self.attention_bias, self.mlp_bias) {
            (Some(Family::Mistral), Some(true), _) => bail!("llama: attention_bias is true, a mistral has none"),
            (Some(Family::Qwen2), Some(false), _) => bail!("llama: attention_bias is false, a qwen2 has it"),
            (Some(Family::Mistral | Family::Qwen2), _, Some(true)) => {
                bail!("llama: mlp_bias is true, only a llama may have it")
            }
            _ => Ok(()),
        }
    }

    /// The window of each layer.
    pub(super) fn windows(&self, layers: usize) -> Result<Vec<Option<usize>>> {
        if self.use_sliding_window != Some(true) {
            return Ok(vec![None; layers]);
        }
        if self.sliding_window.is_none() {
            bail!("llama: use_sliding_window is true, but sliding_window is not set")
        }
        let full = self.max_window_layers.unwrap_or(0);
        windows("llama", self.layer_types.as_deref(), self.sliding_window, layers, |layer| layer >= full)
    }
}
