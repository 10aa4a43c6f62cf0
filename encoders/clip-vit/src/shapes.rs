//! What the tensors themselves say of a tower, as OpenAI's `build_model` reads it off their shapes.

use super::names::{Library, Names};
use super::settings::{Config, Found};
use anyhow::{Error, Result, anyhow, bail};
use limber_core::WeightSource;
use limber_core::ops::Activation;

/// What stands beside the tensors of OpenAI's own archives; open_clip drops it.
const OPENAI: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

/// The sizes of the tower that stands under `names`.
pub(super) fn read(source: &dyn WeightSource, names: &Names) -> Result<Found> {
    let tensors = source.tensors().unwrap_or_default();
    let shape = |name: &str| tensors.get(&names.full(name)).map(Vec::as_slice);
    let has = |name: &str| tensors.contains_key(&names.full(name));
    let wrong = |name: &str, allowed: &str| {
        let found = shape(name).unwrap_or_default();
        anyhow!("{}: tensor {:?} has shape {found:?}, {allowed}", source.label(), names.full(name))
    };
    let Some([width, 3, patch_size, _]) = shape(names.patches()).filter(|s| s.get(2) == s.get(3)) else {
        return Err(wrong(names.patches(), "clip-vit takes square patches of 3 channels, [E, 3, P, P]"));
    };
    let grid = match shape(names.positions()) {
        Some([rows, _]) => {
            let grid = (rows.saturating_sub(1) as f64).sqrt().round() as usize;
            if grid == 0 || grid * grid + 1 != *rows {
                return Err(wrong(names.positions(), "clip-vit takes one position a patch of a square and one more"));
            }
            Some(grid)
        }
        _ => None,
    };
    let layers = (0..).take_while(|i| has(&names.fc1(*i))).count();
    if layers == 0 {
        bail!("{}: no tensor {:?}, so no block of a transformer", source.label(), names.full(&names.fc1(0)))
    }
    let openai = names.library == Library::OpenAi && OPENAI.iter().all(|name| tensors.contains_key(*name));
    Ok(Found {
        config: Config {
            patch_size: Some(*patch_size),
            width: Some(*width),
            layers: Some(layers),
            mlp_width: shape(&names.fc1(0)).and_then(|s| s.first().copied()),
            projection: names.projection_width(&tensors),
            heads: openai.then_some(width / 64),
            activation: openai.then_some(Activation::QuickGelu),
            pre_norm: Some(has(&format!("{}.weight", names.pre_norm()))),
            layer_scale: Some(has(&names.layer_scale(0))),
            ..Config::default()
        },
        grid,
        image: None,
    })
}

/// Why these tensors are no tower that this component knows.
pub(super) fn not_a_tower(source: &dyn WeightSource) -> Error {
    let tensors = source.tensors().unwrap_or_default();
    let any = |part: &str| tensors.keys().any(|name| name.contains(part));
    let why = if any("attnpool.") || any("layer4.") {
        "they are a ResNet's, see kind clip-resnet"
    } else if any("trunk.") || any("patch_embed.proj.") {
        "they have timm's names, which clip-vit does not read"
    } else if any("embeddings.patch_embedding.") {
        "they have no class token, as SigLIP's"
    } else {
        "looked for visual.class_embedding (OpenAI, open_clip) and vision_model.embeddings.class_embedding (Hugging Face)"
    };
    anyhow!("{}: the tensors are no vision transformer of CLIP: {why}", source.label())
}
