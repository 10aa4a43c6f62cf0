//! All that the author of a limber part needs: the contracts, the registry, weights and frozen operations.
//!
//! There is no file and no network here: weights arrive through [`weights::WeightSource`], settings as JSON values.
//!
//! One alphabet names the sizes everywhere: **B** batch, **S** image side, **N** visual tokens, **E** encoder width,
//! **K** prefix tokens, **D** LM width, **T** text tokens, **P** cached positions, **H** heads, **V** vocabulary rows,
//! **L** layers.

pub mod bounded;
pub mod cache;
pub mod cache_store;
pub mod candle_bridge;
pub mod decoder;
pub mod encoder;
pub mod frozen;
pub mod layers;
pub mod model_config;
pub mod ops;
pub mod positions;
pub mod preprocessor;
pub mod products;
pub mod random;
pub mod registry;
pub mod rope;
pub mod settings;
pub mod spec;
pub mod stitch;
pub mod vit;
pub mod weights;

pub use cache::{CacheType, KvCache};
pub use cache_store::{CacheStore, MakeStore, StoreSizes};
pub use decoder::{Decoder, LogitPositions, Run};
pub use encoder::Encoder;
pub use frozen::{FrozenEmbedding, FrozenLinear, Mlp};
pub use layers::{Layer, Layers};
pub use model_config::ModelConfig;
pub use products::{Products, pick};
pub use registry::{DecoderPart, EncoderPart, Part, PartContext, Registry, StitchPart};
pub use spec::{Augment, DecoderSpec, FeatureKind, FeatureSpec, ImageSpec, InputSpec, ResizeFilter, ResizeRule};
pub use stitch::{Mode, Stitch};
pub use weights::{Init, WeightSource, WeightType, Weights};

// What `register!` and parts' derives expand to; authors need no dependency line of their own for these.
#[doc(hidden)]
pub mod exports {
    pub use inventory;
}
