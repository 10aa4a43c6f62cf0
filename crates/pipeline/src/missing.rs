//! What a config names on this machine and is not there, told before anything large is downloaded or read.

use crate::model::Depth;
use anyhow::{Result, bail};
use limber_config::{Config, Data, DataFormat};
use limber_core::Registry;
use limber_core::registry::Role;
use limber_weights::{self as weights, WeightSpec};
use std::path::Path;

/// Refuses a config some of whose files are not there, as far as images getting to `depth` need them.
///
/// # Errors
/// Names each of them with its section and key.
pub fn check(config: &Config, registry: &Registry, depth: Depth) -> Result<()> {
    told(weights_and_tokenizer(config, registry, depth))
}

/// As [`check`], for the data sets of training and validation as well.
///
/// # Errors
/// As [`check`].
pub fn check_training(config: &Config, registry: &Registry) -> Result<()> {
    let mut missing = weights_and_tokenizer(config, registry, Depth::Text);
    missing.extend(data_sets(config));
    told(missing)
}

fn told(missing: Vec<String>) -> Result<()> {
    match missing.len() {
        0 => Ok(()),
        _ => bail!("{}", missing.join("\n")),
    }
}

/// Weights and tokenizers that are not there.
pub fn weights_and_tokenizer(config: &Config, registry: &Registry, depth: Depth) -> Vec<String> {
    let mut missing = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| *role == Role::Encoder || depth >= Depth::Prefix) {
        let section = config.section(role);
        // A component that reads none refuses them in its own words.
        let reads = registry.get(role, &section.kind).map_or(true, |entry| entry.needs_weights);
        if let Some(spec @ WeightSpec::Local(path)) = &section.weights
            && reads
            && weights::path_of(spec, &config.folder).is_none()
        {
            let place = format!("section \"{role}\", key \"weights\"");
            missing.push(absent(&place, path, &config.folder) + &WeightSpec::hub_hint(path));
        }
    }
    if let Some(path) = config.decoder.tokenizer.as_ref().filter(|_| depth == Depth::Text)
        && !config.resolve(path).exists()
    {
        missing.push(absent("section \"decoder\", key \"tokenizer\"", path, &config.folder));
    }
    missing
}

/// Data sets and folders of features that are not there.
pub fn data_sets(config: &Config) -> Vec<String> {
    let validate = config.train.as_ref().and_then(|train| train.validate.as_ref()).map(|validate| &validate.data);
    let sets = [("data", config.data.as_ref()), ("train.validate.data", validate)];
    let mut missing = Vec::new();
    for (section, data) in sets.into_iter().filter_map(|(section, data)| Some((section, data?))) {
        let location = |key: &str| format!("section {section:?}, key {key:?}");
        if is_one_path(data) && !config.resolve(&data.path).exists() {
            missing.push(absent(&location("path"), &data.path, &config.folder));
        }
        if let Some(images) = data.images.as_ref().filter(|images| !config.resolve(images).exists()) {
            missing.push(absent(&location("images"), images, &config.folder));
        }
        if let Some(features) = data.features.as_ref().filter(|features| !config.resolve(features).exists()) {
            missing.push(format!(
                "{}: {}: no such folder; `limber encode --data` makes it",
                location("features"),
                config.resolve(features).display()
            ));
        }
    }
    missing
}

/// Whether the path of a data set is one file or folder, and no pattern or list of files.
fn is_one_path(data: &Data) -> bool {
    match data.format {
        DataFormat::Webdataset => !(data.path.contains(['{', '*']) || data.path.contains("::")),
        DataFormat::Parquet => !data.path.contains(['*', '?', '[']),
        _ => true,
    }
}

fn absent(location: &str, path: &str, folder: &Path) -> String {
    format!("{location}: there is no file or folder {:?}", folder.join(path).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use limber_config::load_text;

    const CONFIG: &str = "
encoder: {kind: clip-resnet, weights: no/encoder.pt}
stitch: {kind: linear, weights: 'https://x.org/p.ckpt', local: no/stitch}
decoder: {kind: gptj, weights: 'hf:a/b', tokenizer: no/tokenizer}
train: {validate: {data: {format: jsonl, path: no/held.jsonl, images: no/images}}}
data: {format: webdataset, path: 'no/{0..3}.tar', features: no/features}
";

    #[test]
    fn everything_that_is_not_there_is_told_at_once() {
        let config = load_text("c.yaml", CONFIG, Path::new("base"), &[]).unwrap().config;
        let registry = crate::built_in::registry().unwrap();
        let message = check_training(&config, &registry).unwrap_err().to_string();
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(
            lines,
            [
                "section \"encoder\", key \"weights\": there is no file or folder \"base/no/encoder.pt\"",
                "section \"decoder\", key \"tokenizer\": there is no file or folder \"base/no/tokenizer\"",
                "section \"data\", key \"features\": base/no/features: no such folder; `limber encode --data` makes it",
                "section \"train.validate.data\", key \"path\": there is no file or folder \"base/no/held.jsonl\"",
                "section \"train.validate.data\", key \"images\": there is no file or folder \"base/no/images\"",
            ]
        );
        assert_eq!(check(&config, &registry, Depth::Features).unwrap_err().to_string(), lines[0]);
        let sets = ["encoder.weights=timm/resnet50x16_clip.openai".to_string()];
        let config = load_text("c.yaml", CONFIG, Path::new("base"), &sets).unwrap().config;
        let message = check(&config, &registry, Depth::Features).unwrap_err().to_string();
        let hint = "; a repository of the Hugging Face hub is written hf:timm/resnet50x16_clip.openai";
        assert!(message.ends_with(hint), "{message}");
    }
}
