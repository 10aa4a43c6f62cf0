//! `clip-vit`: CLIP's vision transformer, of OpenAI, open_clip or Hugging Face.
//!
//! Pixels `[B, 3, S, S]` to the patch tokens of a chosen hidden state, row-major (h w): `[B, N, E]`, N = (S / P)² for
//! patches of side P, rounded down; or, with `pool`, to the projected class token `[B, 1, E]`, E the width of the
//! space that CLIP shares between images and texts, not scaled to length 1.
//! Sources followed: `VisionTransformer` in OpenAI's `clip/model.py` and open_clip's `transformer.py`, and transformers'
//! `modeling_clip.py`; random weights are drawn as transformers' `CLIPPreTrainedModel._init_weights` draws them.
//!
//! Hidden states are counted as transformers counts them: 0 enters the first block (after the norm that stands before
//! it), L leaves the last. None of them has gone through the last layer norm, and the class token is dropped.

use anyhow::{Context, Result};
use candle_core::Tensor;
use limber_core::encoder::check_pixels;
use limber_core::frozen::FrozenConv;
use limber_core::ops::{Heads, LayerNorm, channels_last};
use limber_core::registry::EncoderSpecs;
use limber_core::vit::{VitBlock, led_by, through};
use limber_core::{
    Encoder, EncoderComponent, FeatureKind, FeatureSpec, FrozenLinear, ImageSpec, Init, InputSpec, Weights, register,
};

mod documents;
mod names;
mod presets;
mod settings;
mod shapes;
mod sizes;
mod text;

use names::Names;
pub use settings::Config;
use sizes::Sizes;
pub use text::ClipText;

register!(encoder, ClipVit);

/// The frozen tower, up to the hidden state that is wanted.
pub struct ClipVit {
    specs: EncoderSpecs,
    patches: FrozenConv,
    /// The class token with its position, `[1, 1, E]`.
    class: Tensor,
    /// Positions of the patches, `[1, N, E]`.
    positions: Tensor,
    pre_norm: Option<LayerNorm>,
    blocks: Vec<VitBlock>,
    heads: Heads,
    head: Head,
}

/// What becomes of the hidden state.
enum Head {
    /// Patch tokens, through the last layer norm where that is asked for.
    Patches(Option<LayerNorm>),
    /// The class token through the last layer norm and the projection.
    Pooled(LayerNorm, FrozenLinear),
}

impl EncoderComponent for ClipVit {
    fn specs(config: &Config) -> Result<EncoderSpecs> {
        let sizes = Sizes::of(config)?;
        let clip = ImageSpec::clip(sizes.image_size);
        let image = ImageSpec {
            side: sizes.image_size,
            resize: config.resize.unwrap_or(clip.resize),
            resize_to: config.resize_to,
            filter: config.filter.unwrap_or(clip.filter),
            mean: config.mean.unwrap_or(clip.mean),
            std: config.std.unwrap_or(clip.std),
            ..clip
        };
        let features = match sizes.projection.filter(|_| config.pool) {
            Some(width) => FeatureSpec { tokens: 1, width, kind: FeatureKind::Pooled },
            None => FeatureSpec { tokens: sizes.grid * sizes.grid, width: sizes.width, kind: FeatureKind::Patches },
        };
        Ok(EncoderSpecs { input: InputSpec::Image(image), features })
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let specs = Self::specs(config)?;
        let sizes = Sizes::of(config)?;
        let (e, n, p) = (sizes.width, sizes.grid * sizes.grid, sizes.patch_size);
        let names = Names::find(weights.source().as_ref()).context("no vision transformer of CLIP in these weights")?;
        let tower = names.tower(weights);
        let (factor, range) = (sizes.initializer_factor, sizes.initializer_range * sizes.initializer_factor);
        let scale = (e as f32).powf(-0.5) * factor;

        let patches = tower.tensor(names.patches(), &[e, 3, p, p], Init::normal(range))?;
        let class = tower.tensor(names.class(), &[e], Init::normal(scale))?;
        let positions = tower.tensor(names.positions(), &[n + 1, e], Init::normal(range))?;
        let pre_norm = match sizes.pre_norm {
            true => Some(LayerNorm::load(&tower.pp(names.pre_norm()), e, sizes.epsilon)?),
            false => None,
        };
        let blocks = (0..sizes.blocks).map(|i| names.block(&tower, i, &sizes)).collect::<Result<_>>()?;
        let post_norm = || LayerNorm::load(&tower.pp(names.post_norm()), e, sizes.epsilon);
        let head = match sizes.projection.filter(|_| config.pool) {
            Some(width) => Head::Pooled(post_norm()?, names.projection(weights, e, width, Init::normal(scale))?),
            None if config.post_norm => Head::Patches(Some(post_norm()?)),
            None => Head::Patches(None),
        };
        Ok(Self {
            specs,
            patches: FrozenConv::on(patches, None, p, 0, weights.backend())?,
            class: (class + positions.get(0)?)?.reshape((1, 1, e))?,
            positions: positions.narrow(0, 1, n)?.reshape((1, n, e))?,
            pre_norm,
            blocks,
            heads: sizes.heads(),
            head,
        })
    }
}

impl Encoder for ClipVit {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.specs.input)?;
        let patches = self.patches.forward_nhwc(&channels_last(pixels)?, None, None)?.flatten(1, 2)?; // [B, N, E]
        let mut x = led_by(&self.class, &patches.broadcast_add(&self.positions)?)?; // [B, 1 + N, E]
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(&x)?;
        }
        let x = through(&self.blocks, x, self.heads)?;
        match &self.head {
            Head::Patches(norm) => {
                let patches = x.narrow(1, 1, x.dim(1)? - 1)?.contiguous()?;
                norm.as_ref().map_or(Ok(patches.clone()), |norm| norm.forward(&patches))
            }
            Head::Pooled(norm, projection) => projection.forward(&norm.forward(&x.narrow(1, 0, 1)?)?),
        }
    }
}
