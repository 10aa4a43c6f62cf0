//! The tower's tensors by Hugging Face's names, which candle-transformers has too, and how random ones are drawn.
//!
//! Source followed for the draws: `SiglipPreTrainedModel._init_weights`.

use super::settings::Sizes;
use candle_core::Tensor;
use limber_core::positions::Bicubic;
use limber_core::weights::{Init, ONES, WeightError, ZEROS};
use limber_core::{Weights, candle_bridge};

/// Where a tower may stand: in a `SiglipModel`, or alone as transformers 5 writes a `SiglipVisionModel`.
pub(super) const PREFIXES: [&str; 2] = ["vision_model", ""];

/// A tensor that every tower has.
pub(super) const PROBE: &str = "embeddings.patch_embedding.weight";

/// The positions, a row each.
pub(super) const POSITIONS: &str = "embeddings.position_embedding.weight";

/// The tensor that a model of this `shape` asks for, in f32.
pub(super) fn tensor(w: &Weights, sizes: &Sizes, name: &str, shape: &[usize]) -> Result<Tensor, WeightError> {
    let init = init(name, shape);
    match shape.len() {
        _ if name == POSITIONS => positions(w, sizes),
        2 => candle_bridge::matrix(w, name, shape, init),
        _ => w.tensor(name, shape, init),
    }
}

/// Positions `[N, E]` of the patches, resized where the image is not of the side that they were trained for.
pub(super) fn positions(w: &Weights, sizes: &Sizes) -> Result<Tensor, WeightError> {
    let shape = [sizes.vit.trained.pow(2), sizes.vit.width];
    let table = w.tensor(POSITIONS, &shape, init(POSITIONS, &shape))?;
    Bicubic::default()
        .resize(&table, sizes.vit.grid)
        .map_err(|e| WeightError::Read { source_label: w.source().label(), message: e.to_string() })
}

/// How transformers draws a tensor of this name and shape.
pub(super) fn init(name: &str, shape: &[usize]) -> Init {
    let (module, parameter) = name.rsplit_once('.').unwrap_or(("", name));
    if module.contains("norm") {
        return if parameter == "weight" { ONES } else { ZEROS };
    }
    if name == POSITIONS {
        let width = shape.last().copied().unwrap_or(1);
        return Init::normal(1.0 / (width as f32).sqrt());
    }
    let mlp = module.ends_with("fc1") || module.ends_with("fc2");
    match parameter {
        "bias" if mlp => Init::normal(1e-6),
        "bias" | "in_proj_bias" => ZEROS,
        "weight" if module.ends_with("patch_embedding") || module.ends_with("attention.out_proj") => {
            lecun_normal(shape)
        }
        _ => xavier_uniform(shape),
    }
}

/// Values in and out of one element, as PyTorch's `_calculate_fan_in_and_fan_out` counts them.
fn fans(shape: &[usize]) -> (usize, usize) {
    let kernel: usize = shape.iter().skip(2).product();
    let of = |at: usize| shape.get(at).copied().unwrap_or(1) * kernel;
    (of(1), of(0))
}

fn xavier_uniform(shape: &[usize]) -> Init {
    let (n_in, n_out) = fans(shape);
    let bound = (6.0 / (n_in + n_out) as f32).sqrt();
    Init::Uniform { low: -bound, high: bound }
}

/// transformers' `lecun_normal_`. It divides by the deviation that a cut at two deviations would leave, but cuts at -2
/// and 2 whatever the deviation, so that hardly anything is cut and 1 / (0.88 sqrt(fan_in)) is left.
fn lecun_normal(shape: &[usize]) -> Init {
    let std = 1.0 / (fans(shape).0 as f32).sqrt() / 0.879_625_6;
    Init::TruncatedNormal { std, low: -2.0, high: 2.0 }
}
