//! The settings that vision transformers in Hugging Face's names have in common: declared, filled and checked once.

use crate::ops::{Activation, Heads};
use crate::settings::size;
use crate::spec::{ImageSpec, ResizeFilter, ResizeRule};
use anyhow::{Result, bail};

/// The settings that such families share, taken out of a family's own `Config`; what they mean is documented there.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct VitSettings {
    pub image_size: Option<usize>,
    pub trained_size: Option<usize>,
    pub patch_size: Option<usize>,
    pub hidden_size: Option<usize>,
    pub num_hidden_layers: Option<usize>,
    pub num_attention_heads: Option<usize>,
    pub hidden_act: Option<Activation>,
    pub layer_norm_eps: Option<f64>,
    pub layer: Option<i64>,
    pub mean: Option<[f32; 3]>,
    pub std: Option<[f32; 3]>,
    pub resize: Option<ResizeRule>,
    pub filter: Option<ResizeFilter>,
}

/// A family's defaults.
#[derive(Debug, Clone, Copy)]
pub struct VitClass {
    /// The pixels, but for their side.
    pub image: ImageSpec,
    /// The activation of the MLPs.
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub eps: f64,
}

/// The sizes of a vision transformer, checked.
#[derive(Debug, Clone, Copy)]
pub struct VitSizes {
    /// The pixels.
    pub image: ImageSpec,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Patches along a side of the image.
    pub grid: usize,
    /// Patches along a side of the image that the positions in the weights are for.
    pub trained: usize,
    /// Encoder width E.
    pub width: usize,
    /// The heads, of scores over the square root of their width.
    pub heads: Heads,
    /// Blocks of the model.
    pub layers: usize,
    /// The hidden state that is given, that is the blocks that run.
    pub layer: usize,
    /// The activation of the MLPs.
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub eps: f64,
}

impl VitSettings {
    /// The sizes, for messages of `component`.
    ///
    /// # Errors
    /// A setting that is missing, out of range or does not fit another.
    pub fn sizes(&self, component: &str, class: VitClass) -> Result<VitSizes> {
        let patch = size(component, "patch_size", self.patch_size)?;
        let side = |key: &str, value| match size(component, key, value)? {
            side if side < patch => bail!("{component}: {key} {side} is smaller than a patch of {patch}"),
            side => Ok(side),
        };
        let (image, trained) = (side("image_size", self.image_size)?, side("trained_size", self.trained_size)?);
        let width = size(component, "hidden_size", self.hidden_size)?;
        let heads = size(component, "num_attention_heads", self.num_attention_heads)?;
        if width % heads != 0 {
            bail!("{component}: hidden_size {width} is not a multiple of num_attention_heads {heads}")
        }
        let layers = size(component, "num_hidden_layers", self.num_hidden_layers)?;
        Ok(VitSizes {
            image: ImageSpec {
                side: image,
                resize: self.resize.unwrap_or(class.image.resize),
                resize_to: None,
                filter: self.filter.unwrap_or(class.image.filter),
                mean: self.mean.unwrap_or(class.image.mean),
                std: self.std.unwrap_or(class.image.std),
                augment: class.image.augment,
            },
            patch,
            grid: image / patch,
            trained: trained / patch,
            width,
            heads: Heads::new(heads, heads, width / heads),
            layers,
            layer: hidden_state(component, layers, self.layer.unwrap_or(-1))?,
            activation: self.hidden_act.unwrap_or(class.activation),
            eps: self.layer_norm_eps.unwrap_or(class.eps),
        })
    }
}

/// The hidden state `layer` of `layers` blocks: 0 enters the first, `layers` leaves the last, -1 is that one too.
///
/// # Errors
/// One that there is not.
pub fn hidden_state(component: &str, layers: usize, layer: i64) -> Result<usize> {
    let last = layers as i64;
    match layer.checked_add(if layer < 0 { last + 1 } else { 0 }) {
        Some(index) if (0..=last).contains(&index) => Ok(index as usize),
        _ => bail!(
            "{component}: layer {layer} is not allowed, the {layers} blocks have hidden states 0 to {last}, or -1 to {}",
            -last - 1
        ),
    }
}

/// Declares a family's `Config`: the settings of [`VitSettings`](crate::vit::VitSettings) with what the family says of
/// them, and its own ones, of which `flags` are off by default and all others optional.
///
/// `Config::vit` gives the shared ones, `Config::fill_pixels` takes pixels for what is not set of them.
#[macro_export]
macro_rules! vit_settings {
    (
        $(#[$about:meta])*
        flags: { $($(#[$flag_doc:meta])* $flag:ident,)* },
        own: { $($(#[$own_doc:meta])* $own:ident: $type:ty,)* },
        shared: {
            model: $model:literal,
            image_size: $image_size:literal,
            trained_size: $trained_size:literal,
            layers: $layers:literal,
            heads: $heads:literal,
            hidden_act: $hidden_act:literal,
            layer_norm_eps: $layer_norm_eps:literal,
            layer: $layer:literal,
            post_norm: $post_norm:literal,
            mean: $mean:literal,
            std: $std:literal,
            resize: $resize:literal,
            filter: $filter:literal,
        },
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Config {
            #[doc = $model]
            pub model: Option<String>,
            #[doc = $image_size]
            #[schemars(range(min = 1))]
            pub image_size: Option<usize>,
            #[doc = $trained_size]
            #[schemars(range(min = 1))]
            pub trained_size: Option<usize>,
            /// Side of a patch in pixels.
            #[schemars(range(min = 1))]
            pub patch_size: Option<usize>,
            /// Encoder width E.
            #[schemars(range(min = 1))]
            pub hidden_size: Option<usize>,
            #[doc = $layers]
            #[schemars(range(min = 1))]
            pub num_hidden_layers: Option<usize>,
            #[doc = $heads]
            #[schemars(range(min = 1))]
            pub num_attention_heads: Option<usize>,
            #[doc = $hidden_act]
            pub hidden_act: Option<$crate::ops::Activation>,
            #[doc = $layer_norm_eps]
            pub layer_norm_eps: Option<f64>,
            #[doc = $layer]
            pub layer: Option<i64>,
            #[doc = $post_norm]
            pub post_norm: Option<bool>,
            #[doc = $mean]
            pub mean: Option<[f32; 3]>,
            #[doc = $std]
            pub std: Option<[f32; 3]>,
            #[doc = $resize]
            pub resize: Option<$crate::ResizeRule>,
            #[doc = $filter]
            pub filter: Option<$crate::ResizeFilter>,
            $($(#[$flag_doc])* pub $flag: bool,)*
            $($(#[$own_doc])* pub $own: Option<$type>,)*
        }

        impl Config {
            /// A tower of these patches' side, E, L and H.
            fn sized(sizes: [usize; 4]) -> Self {
                let [patch_size, hidden_size, num_hidden_layers, num_attention_heads] = sizes.map(Some);
                Self { patch_size, hidden_size, num_hidden_layers, num_attention_heads, ..Self::default() }
            }

            /// The shared settings.
            fn vit(&self) -> $crate::vit::VitSettings {
                $crate::vit::VitSettings {
                    image_size: self.image_size,
                    trained_size: self.trained_size,
                    patch_size: self.patch_size,
                    hidden_size: self.hidden_size,
                    num_hidden_layers: self.num_hidden_layers,
                    num_attention_heads: self.num_attention_heads,
                    hidden_act: self.hidden_act,
                    layer_norm_eps: self.layer_norm_eps,
                    layer: self.layer,
                    mean: self.mean,
                    std: self.std,
                    resize: self.resize,
                    filter: self.filter,
                }
            }

            /// What is not set of the pixels, as in `image`; its sides apart.
            fn fill_pixels(&mut self, image: &$crate::ImageSpec) {
                self.resize.get_or_insert(image.resize);
                self.filter.get_or_insert(image.filter);
                self.mean.get_or_insert(image.mean);
                self.std.get_or_insert(image.std);
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_states_are_counted_from_both_ends() {
        for (layer, index) in [(0, 0), (1, 1), (3, 3), (-1, 3), (-2, 2), (-4, 0)] {
            assert_eq!(hidden_state("toy", 3, layer).unwrap(), index, "{layer}");
        }
        for layer in [4, -5, i64::MIN, i64::MAX] {
            let message = hidden_state("toy", 3, layer).unwrap_err().to_string();
            let expected =
                format!("toy: layer {layer} is not allowed, the 3 blocks have hidden states 0 to 3, or -1 to -4");
            assert_eq!(message, expected);
        }
    }
}
