//! All that the author of a limber component needs: the contracts, the registry, weights and frozen operations.
//!
//! There is no file and no network here: weights arrive through [`weights::WeightSource`], settings as JSON values.
//!
//! One alphabet names the sizes everywhere: **B** batch, **S** image side, **N** visual tokens, **E** encoder width,
//! **K** prefix tokens, **D** LM width, **T** text tokens, **P** cached positions, **H** heads, **V** vocabulary size,
//! **L** layers.

pub mod backend;
pub mod bounded;
pub mod cache;
pub mod candle_bridge;
mod checkpoint;
pub mod decoder;
pub mod decoder_block;
pub mod decoder_family;
pub mod decoder_model;
pub mod encoder;
pub mod frozen;
pub mod gather;
mod graph;
pub mod hash;
pub mod json;
pub mod layers;
pub mod model_config;
#[cfg(test)]
mod noise;
pub mod ops;
pub mod positions;
pub mod preprocessor;
pub mod random;
pub mod registry;
pub mod rope;
pub mod settings;
pub mod spec;
pub mod stitch;
pub mod vit;
pub mod weights;

pub use backend::Backend;
pub use cache::{CacheOptions, CacheType, DecoderCache, KvCache, SequenceLengths};
pub use decoder::{Checkpointing, Decoder, LogitPositions, Run};
pub use decoder_block::DecoderBlock;
pub use decoder_family::{DecoderFamily, FamilyDecoder, FamilyNames};
pub use decoder_model::DecoderModel;
pub use encoder::Encoder;
pub use frozen::{FrozenEmbedding, FrozenLinear, Mlp};
pub use gather::gather;
pub use layers::{Layer, Layers};
pub use model_config::ModelConfig;
pub use registry::{Component, DecoderComponent, EncoderComponent, Registry, StitchComponent, StitchContext};
pub use spec::{Augment, DecoderSpec, FeatureKind, FeatureSpec, ImageSpec, InputSpec, ResizeFilter, ResizeRule};
pub use stitch::{Mode, Stitch};
pub use weights::{Init, WeightSource, WeightType, Weights};

// What `register!` and components' derives expand to; authors need no dependency line of their own for these.
#[doc(hidden)]
pub mod exports {
    pub use inventory;
}
