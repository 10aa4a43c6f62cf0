//! The demo model, compiled into the program: small components that were trained on `limber shapes`.
//!
//! The files are the reference libraries' own formats, so the demo walks the loading path of the real models.
//! `assets/demo/recipe` makes them again.

use anyhow::{Result, bail};
use limber_core::WeightSource;
use limber_core::registry::Role;
use limber_weights as weights;
use std::sync::Arc;

/// The config of the demo model.
pub const CONFIG: &str = limber_configs::DEMO;

macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!("../", $folder, $name)))),+]
    };
}

/// The files of one embedded component.
type Files = &'static [(&'static str, &'static [u8])];

const ENCODER: Files = files!("clip/": "open_clip_model.safetensors", "open_clip_config.json");
const STITCH: Files = files!("": "proj.ckpt");
const DECODER: Files = files!("gptj/": "model.safetensors", "config.json", "tokenizer.json");

/// The embedded weights of the component `kind` in `role`.
///
/// # Errors
/// A kind that the demo does not have.
pub fn source(role: Role, kind: &str) -> Result<Arc<dyn WeightSource>> {
    let (demo_kind, files, candidates) = match role {
        Role::Encoder => ("clip-resnet", ENCODER, "open_clip_model.safetensors"),
        Role::Stitch => ("linear", STITCH, "proj.ckpt"),
        Role::Decoder => ("gptj", DECODER, "model.safetensors"),
    };
    if kind != demo_kind {
        bail!(
            "section \"{role}\" names no weights; the embedded demo model has them for the kind {demo_kind:?} alone, not {kind:?}"
        )
    }
    weights::embedded(&format!("the demo's {role}"), files, &[candidates])
}
