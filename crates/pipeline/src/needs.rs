//! Which repositories of the hub a config needs, and which files of them; which files at addresses of their own.

use crate::model::Depth;
use anyhow::{Context, Result};
use limber_config::{Config, Section};
use limber_core::Component;
use limber_core::Registry;
use limber_core::registry::{DEFAULT_FILES, Role};
use limber_weights::WeightSpec;
use limber_weights::cache::Wanted;

/// File names of weights beside what `save_pretrained` writes, for where no component says which it reads.
const OTHER_FILES: [&str; 4] =
    ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "proj.ckpt", "pytorch_model.pt"];

/// A repository, or a file at an address, that a component reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its role, where it is a component of a config.
    pub role: Option<Role>,
    /// What its weights name.
    pub spec: WeightSpec,
    /// Its files.
    pub wanted: Wanted,
}

/// What `config` needs of the hub for images to get to `depth`.
///
/// # Errors
/// An unknown kind, weights that have no meaning.
pub fn of_config(config: &Config, registry: &Registry, depth: Depth) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| *role == Role::Encoder || depth >= Depth::Prefix) {
        let section = config.section(role);
        if let Some(spec @ WeightSpec::Web(file)) = &section.weights
            && registry.get(role, &section.kind).map_or(true, |entry| entry.needs_weights)
            && file.here(&config.folder).is_none()
        {
            needs.push(Need { role: Some(role), spec: spec.clone(), wanted: Wanted::default() });
        }
        if let Some(spec @ WeightSpec::Hub { .. }) = &section.weights {
            let files = candidates(role, section, registry).with_context(|| format!("section \"{role}\""))?;
            if files.is_empty() {
                // The component reads no weights, which is for the model to refuse.
                continue;
            }
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            needs.push(Need { role: Some(role), spec: spec.clone(), wanted: Wanted::of(Some(role), &files) });
        }
    }
    Ok(needs)
}

/// What both towers of a CLIP and its tokenizer need.
pub fn of_clip(spec: WeightSpec) -> Need {
    Need { role: None, spec, wanted: Wanted::of(None, limber_encoder_clip_vit::ClipVit::FILES) }
}

/// What a spec without a component needs: whatever a component could read of it.
pub fn of_spec(spec: WeightSpec) -> Need {
    Need { role: None, spec, wanted: Wanted::of(None, &known_files()) }
}

/// Every name that weights usually have, the likeliest first.
pub fn known_files() -> Vec<&'static str> {
    DEFAULT_FILES.iter().copied().chain(OTHER_FILES).collect()
}

/// The names that a section's weights may have in a folder, none where its component reads none; the kind `auto` stands for
/// every component of its role.
///
/// # Errors
/// An unknown kind.
pub fn candidates(role: Role, section: &Section, registry: &Registry) -> Result<Vec<String>> {
    if section.kind != "auto" {
        let entry = registry.get(role, &section.kind)?;
        return Ok(if entry.needs_weights { entry.files.clone() } else { Vec::new() });
    }
    let mut files: Vec<String> = Vec::new();
    for file in registry.of(role).filter(|e| e.needs_weights).flat_map(|e| &e.files) {
        if !files.contains(file) {
            files.push(file.clone());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use limber_config::load_text;
    use std::path::Path;

    const CONFIG: &str = "encoder: {kind: clip-resnet, weights: 'hf:a/e'}\nstitch: {kind: linear, weights: 'hf:a/s@v1/proj.ckpt'}\ndecoder: {kind: auto, weights: 'hf:a/d'}\n";

    fn needs(text: &str, depth: Depth) -> Result<Vec<Need>> {
        let config = load_text("c.yaml", text, Path::new("."), &[]).unwrap().config;
        of_config(&config, &crate::built_in::registry().unwrap(), depth)
    }

    #[test]
    fn each_component_wants_its_own_files() {
        let all = needs(CONFIG, Depth::Text).unwrap();
        let specs: Vec<String> = all.iter().map(|need| need.spec.to_string()).collect();
        assert_eq!(specs, ["hf:a/e", "hf:a/s@v1/proj.ckpt", "hf:a/d"]);
        let [encoder, stitch, decoder] = all.try_into().unwrap();
        assert_eq!(encoder.wanted.weights[0], "open_clip_model.safetensors");
        assert!(encoder.wanted.beside.contains(&"preprocessor_config.json".to_string()));
        assert!(!encoder.wanted.beside.contains(&"tokenizer.json".to_string()));
        assert_eq!(stitch.wanted.beside, [""; 0]);
        assert!(DEFAULT_FILES.iter().all(|name| decoder.wanted.weights.contains(&name.to_string())));
        assert!(decoder.wanted.beside.contains(&"merges.txt".to_string()));
        assert_eq!(needs(CONFIG, Depth::Features).unwrap(), [encoder]);
        let local = CONFIG.replace("hf:a/e", "random:1").replace("hf:a/d", "folder").replace("hf:a/s@v1/", "");
        assert_eq!(needs(&local, Depth::Text).unwrap(), []);
    }

    #[test]
    fn what_has_no_meaning_names_its_section() {
        let message = format!("{:#}", needs(&CONFIG.replace("linear", "liner"), Depth::Text).unwrap_err());
        assert!(message.starts_with("section \"stitch\": unknown stitch kind \"liner\""), "{message}");
    }
}
