//! Which keys each layer sees, as `config.json` says it.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which keys a layer's positions see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// All up to their own.
    FullAttention,
    /// The last `sliding_window` of them.
    SlidingAttention,
}

/// The window of each of `layers`: of `width` keys where `types`, or without them `default`, says so. `component` is
/// what messages call the decoder.
///
/// # Errors
/// A width of 0 or none where a layer has a window, another number of types than layers.
pub fn windows(
    component: &str,
    types: Option<&[LayerType]>,
    width: Option<usize>,
    layers: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let slides: Vec<bool> = match types {
        Some(types) if types.len() != layers => {
            bail!("{component}: layer_types has {} entries for {layers} layers", types.len())
        }
        Some(types) => types.iter().map(|kind| *kind == LayerType::SlidingAttention).collect(),
        None => (0..layers).map(default).collect(),
    };
    match width {
        Some(0) => bail!("{component}: sliding_window is 0, expected at least 1"),
        None if slides.contains(&true) => bail!("{component}: layers have a window, but sliding_window is not set"),
        width => Ok(slides.into_iter().map(|slides| width.filter(|_| slides)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_the_window_that_its_type_or_the_default_says() {
        let types = [LayerType::SlidingAttention, LayerType::FullAttention];
        let of = |types, width| windows("toy", types, width, 2, |layer| layer == 1);
        assert_eq!(of(Some(&types[..]), Some(3)).unwrap(), [Some(3), None]);
        assert_eq!(of(None, Some(3)).unwrap(), [None, Some(3)]);
        let message = |types, width| of(types, width).unwrap_err().to_string();
        assert_eq!(message(Some(&types[..1]), Some(3)), "toy: layer_types has 1 entries for 2 layers");
        assert_eq!(message(None, Some(0)), "toy: sliding_window is 0, expected at least 1");
        assert_eq!(message(None, None), "toy: layers have a window, but sliding_window is not set");
    }
}
