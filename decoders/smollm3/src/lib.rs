//! `smollm3`: SmolLM3 (3B) as a frozen decoder.
//!
//! As Llama, with layers among the others whose queries and keys are not rotated, and windows in them where there are any.
//! Source followed: transformers' `modeling_smollm3.py` and `configuration_smollm3.py`.

use anyhow::{Result, bail};
use limber_core::decoder_block::MlpLayers;
use limber_core::decoder_family::{LayerType, windows};
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::{DecoderFamily, FamilyNames, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { SmolLm3, Config, "smollm3", ["smollm3"], "SmolLM3 from a Hugging Face folder (SmolLM3-3B's sizes by default)" }

llama_like_settings! {
    activation: hidden_act,
    // SmolLM3-3B's.
    sized: (128_256, 65_536, [2048, 11_008, 36, 16, 4]),
    defaults: {
        rope_theta: 5_000_000.0, hidden_act: Activation::Silu, tie_word_embeddings: true,
        eos_token_id: TokenIds(vec![128_001]),
    },
    own: {
        /// Whether the MLP's matrices have biases.
        mlp_bias: bool = Some(false),
        /// 1 for a layer with a rotary embedding, 0 for one without; by default every `no_rope_layer_interval`-th has none.
        no_rope_layers: Vec<usize> = None,
        /// Distance of the layers without a rotary embedding.
        #[schemars(range(min = 1))]
        no_rope_layer_interval: usize = Some(4),
        /// Whether layers see a window of the last keys.
        use_sliding_window: bool = Some(false),
        /// Keys in the window, a position's own included.
        #[schemars(range(min = 1))]
        sliding_window: usize = None,
        /// What each layer sees; a window in those without a rotary embedding by default.
        layer_types: Vec<LayerType> = None,
    },
}

impl DecoderFamily for SmolLm3 {
    fn tiny() -> Config {
        Config {
            // The second layer has no positions, and sees four keys, fewer than the suite's sequences have.
            no_rope_layers: Some(vec![1, 0]),
            use_sliding_window: Some(true),
            sliding_window: Some(4),
            ..Config::smallest()
        }
    }

    fn own(mut config: Config) -> Config {
        // Who sets a window wants it.
        if config.sliding_window.is_some() {
            config.use_sliding_window.get_or_insert(true);
        }
        config
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let reference = Config { max_position_embeddings: Some(32_768), ..Config::defaults() };
        let mut found = Config::read(config, "the decoder smollm3", &reference, &[])?;
        found.rope_theta.get_or_insert(2_000_000.0);
        Ok(found)
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        let layers = sizes.spec.layers;
        let rotated: Vec<bool> = match &config.no_rope_layers {
            Some(list) if list.len() < layers || list.iter().any(|entry| *entry > 1) => {
                bail!("smollm3: no_rope_layers is {list:?}, expected 0 or 1 for each of {layers} layers")
            }
            Some(list) => list.iter().take(layers).map(|entry| *entry == 1).collect(),
            None => {
                let interval = Self::size("no_rope_layer_interval", config.no_rope_layer_interval)?;
                (1..=layers).map(|layer| layer % interval != 0).collect()
            }
        };
        let mut block = sizes.block(NormKind::Rms);
        let biased = Self::need("mlp_bias", config.mlp_bias)?;
        if let MlpLayers::Gated { gate, up } = &mut block.mlp.layers {
            (gate.biased, up.biased, block.mlp.down.biased) = (biased, biased, biased);
        }
        let types = config.layer_types.as_deref();
        let wanted = config.use_sliding_window == Some(true);
        let width = config.sliding_window.filter(|_| wanted);
        let windows = windows(Self::KIND, types, width, layers, |layer| width.is_some() && !rotated[layer])?;
        let blocks = windows.into_iter().zip(rotated).map(|(window, rotated)| {
            let mut block = block.within(window);
            block.attention.rotary = block.attention.rotary.filter(|_| rotated);
            block
        });
        let blocks = blocks.collect();
        Ok(sizes.stacked(block.norm, blocks))
    }
}
