//! What a stitch checkpoint says of itself, so that it is refused by an encoder it was not trained on.
//!
//! The metadata of our safetensors; a bare `proj.ckpt` of the original has none, and its shapes alone are checked.

use anyhow::{Context, Result, bail};
use limber_core::hash;
use limber_core::registry::{EncoderSpecs, StitchContext};
use limber_core::stitch::PrefixSpec;
use limber_core::{FeatureSpec, WeightSource, Weights};
use limber_images::PassOrder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The kind of the encoder whose features come from files. Which encoder wrote them is not known, so a stitch trained on
/// files fits an image encoder, and one trained on an image encoder fits files, wherever the widths do.
const FROM_FILES: &str = "features";

/// What messages call the encoder's kind.
const ENCODER: &str = "encoder kind";

/// The metadata, each a text under `limber.*` in the file's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StitchMetadata {
    /// Kind of the stitch.
    #[serde(rename = "limber.stitch")]
    pub stitch: String,
    /// The stitch's settings as JSON.
    #[serde(rename = "limber.settings")]
    pub settings: String,
    /// Kind of the encoder.
    #[serde(rename = "limber.encoder")]
    pub encoder: String,
    /// `N x E`.
    #[serde(rename = "limber.features")]
    pub features: String,
    /// `K x D`.
    #[serde(rename = "limber.prefix")]
    pub prefix: String,
    /// Hash of the settings and weights that produced the features.
    #[serde(rename = "limber.fingerprint")]
    pub fingerprint: String,
}

impl StitchMetadata {
    /// The metadata of `source`; None where it has none of ours.
    ///
    /// # Errors
    /// Metadata that lack one of the entries.
    pub fn read(source: &dyn WeightSource) -> Result<Option<Self>> {
        let Some(text) = source.document("__metadata__")? else { return Ok(None) };
        let map: BTreeMap<String, Value> = serde_json::from_str(&text)?;
        if !map.keys().any(|key| key.starts_with("limber.")) {
            return Ok(None);
        }
        let metadata = serde_json::from_str(&text)
            .with_context(|| format!("{}: the stitch's metadata are not complete", source.label()))?;
        Ok(Some(metadata))
    }

    /// As the header's map.
    ///
    /// # Errors
    /// None in practice: every entry is a text.
    pub fn to_map(&self) -> Result<BTreeMap<String, String>> {
        Ok(serde_json::from_value(serde_json::to_value(self)?)?)
    }

    /// Refuses two sides that are not the ones this stitch was trained between. The fingerprint is checked later,
    /// when the encoder's weights are open.
    ///
    /// # Errors
    /// Names the checkpoint's side and the config's.
    pub fn check(&self, stitch: &str, context: &StitchContext, prefix: PrefixSpec) -> Result<()> {
        let label = context.source.label();
        let pairs = [
            ("stitch kind", self.stitch.clone(), stitch.to_string()),
            (ENCODER, self.encoder.clone(), context.encoder.to_string()),
            ("features (N x E)", self.features.clone(), features_text(context.features)),
            ("prefix (K x D)", self.prefix.clone(), prefix_text(prefix)),
        ];
        for (what, trained, given) in pairs {
            if trained != given && !(what == ENCODER && self.is_told_apart_by_files(context.encoder)) {
                bail!("stitch checkpoint {label} was trained with {what} {trained}, the config gives {given}")
            }
        }
        Ok(())
    }

    /// Whether one of the two encoders, and not the other, is a file.
    fn is_told_apart_by_files(&self, encoder: &str) -> bool {
        (self.encoder == FROM_FILES) != (encoder == FROM_FILES)
    }

    /// Refuses an encoder whose settings or weights are not the ones that this stitch was trained on.
    ///
    /// # Errors
    /// Names both fingerprints.
    pub fn check_fingerprint(&self, label: &str, encoder: &str, fingerprint: &str) -> Result<()> {
        if self.fingerprint != fingerprint && !self.is_told_apart_by_files(encoder) {
            bail!(
                "stitch checkpoint {label} was trained on features with the fingerprint {}, the encoder {encoder} gives {fingerprint}: other settings or other weights",
                self.fingerprint
            )
        }
        Ok(())
    }
}

/// `N x E`.
pub fn features_text(features: FeatureSpec) -> String {
    format!("{} x {}", features.tokens, features.width)
}

/// `K x D`.
pub fn prefix_text(prefix: PrefixSpec) -> String {
    format!("{} x {}", prefix.tokens, prefix.width)
}

/// A hash of all that decides an encoder's features: kind, settings, pre-processing and the weights it has read.
pub fn fingerprint(kind: &str, settings: &Value, specs: &EncoderSpecs, weights: &Weights) -> Result<String> {
    // A map by key, so that the order of the settings does not count.
    let settings: BTreeMap<String, Value> = serde_json::from_value(settings.clone())?;
    let text = serde_json::to_string(&(kind, settings, specs.input.image(), weights.fingerprint()))?;
    Ok(hash::short(&[text.as_bytes()]))
}

/// A hash of an encoder's fingerprint and of how images are prepared for it: turned upright or not, the order of the
/// resize's passes, the seed of a random crop.
pub fn preparation_fingerprint(encoder: &str, upright: bool, order: PassOrder, seed: Option<u64>) -> String {
    let text = format!("{encoder} {upright} {order:?} {seed:?}");
    hash::short(&[text.as_bytes()])
}
