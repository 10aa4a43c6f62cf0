//! Every file under `configs/`: no problem, and components that fit each other at full size, without a weight being
//! read.

use limber::config::{self, Section};
use limber::core::registry::{Entry, StitchContext};
use limber::core::{Registry, WeightSource};
use limber::{built_in, weights};
use limber_demo as demo;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The sizes that the papers and model cards give: N x E features, K x D prefix.
const SIZES: [(&str, [usize; 4]); 24] = [
    ("clip_linear.yaml", [144, 3072, 144, 4096]),
    ("beit_linear.yaml", [196, 1024, 196, 4096]),
    ("beit_ft_linear.yaml", [196, 1024, 196, 4096]),
    ("beit_random_linear.yaml", [196, 1024, 196, 4096]),
    ("nfrn50_4096_linear.yaml", [1, 2048, 1, 4096]),
    ("nfrn50_4096_random_linear.yaml", [1, 2048, 1, 4096]),
    ("original/clip_linear.yml", [144, 3072, 144, 4096]),
    ("original/beit_linear.yml", [196, 1024, 196, 4096]),
    ("original/beit_ft_linear.yml", [196, 1024, 196, 4096]),
    ("original/beit_random_linear.yml", [196, 1024, 196, 4096]),
    ("original/nfrn50_4096_linear.yml", [1, 2048, 1, 4096]),
    ("original/nfrn50_4096_random_linear.yml", [1, 2048, 1, 4096]),
    ("combine/clip_vit_opt.yaml", [256, 1024, 256, 2048]),
    ("combine/dinov2_pythia.yaml", [256, 768, 256, 1024]),
    ("combine/siglip_qwen.yaml", [196, 768, 196, 896]),
    ("demo.yaml", [16, 768, 16, 160]),
    ("world/clip_linear.yaml", [16, 768, 16, 160]),
    ("world/clip_random_linear.yaml", [16, 768, 16, 160]),
    ("world/nfrn50_linear.yaml", [1, 320, 16, 160]),
    ("world/nfrn50_random_linear.yaml", [1, 320, 16, 160]),
    ("world/beit_linear.yaml", [16, 128, 16, 160]),
    ("world/beit_ft_linear.yaml", [16, 128, 16, 160]),
    ("world/beit_random_linear.yaml", [16, 128, 16, 160]),
    ("demo_train.yaml", [16, 768, 16, 160]),
];

fn configs() -> PathBuf {
    Path::new(crate::ROOT).join("configs")
}

/// Every config file below `folder`, by its path from there.
fn files(folder: &Path, above: &str, found: &mut BTreeMap<String, PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{above}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files(&path, &format!("{name}/"), found);
        } else if name.ends_with(".yaml") || name.ends_with(".yml") {
            found.insert(name, path);
        }
    }
}

/// The weights that a section names where they lie in the repository, random ones in place of others; the demo's where
/// it names none.
fn source(entry: &Entry, section: &Section, folder: &Path) -> Arc<dyn WeightSource> {
    match &section.weights {
        None => demo::source(entry.maker.role(), &entry.kind).unwrap(),
        Some(spec) if spec.local().is_some_and(|path| folder.join(path).exists()) => {
            let files: Vec<&str> = entry.files.iter().map(|file| &**file).collect();
            weights::open(spec, &files, folder).unwrap()
        }
        Some(_) => weights::open(&"random:1".parse().unwrap(), &[], Path::new("")).unwrap(),
    }
}

fn sizes(registry: &Registry, path: &Path) -> [usize; 4] {
    let config = config::load(path, &[]).unwrap().config;
    let section_of = |role: &str, section: &Section| {
        let entry = registry.get(role, &section.kind).unwrap();
        (source(entry, section, &config.folder), serde_json::Value::from(section.settings.clone()))
    };
    let (weights, settings) = section_of("encoder", &config.encoder);
    let encoder = registry.encoder(&config.encoder.kind, settings, weights.as_ref()).unwrap();
    let (weights, settings) = section_of("decoder", &config.decoder);
    let decoder = registry.decoder(&config.decoder.kind, settings, weights.as_ref()).unwrap();
    let (weights, settings) = section_of("stitch", &config.stitch);
    let context = StitchContext {
        features: encoder.spec.features,
        encoder: &encoder.kind,
        width: decoder.spec.width,
        decoder: &decoder.kind,
        source: weights.as_ref(),
    };
    let stitch = registry.stitch(&config.stitch.kind, settings, &context).unwrap();
    let features = encoder.spec.features;
    [features.tokens, features.width, stitch.spec.tokens, stitch.spec.width]
}

#[test]
fn every_config_has_no_problem_and_its_components_fit() {
    let registry = built_in::registry().unwrap();
    let own = |_: &[config::Plugin], _: &Path| Ok(registry.clone());
    let mut found = BTreeMap::new();
    files(&configs(), "", &mut found);
    // Their models' own files say the sizes.
    for name in ["own_pair.yaml", "emoji.yaml"] {
        let path = found.remove(name).unwrap();
        assert_eq!(config::check_file(&path, &[], &own, &|_| Ok(())).problems, [], "{name}");
    }
    let expected: BTreeMap<&str, [usize; 4]> = SIZES.into_iter().collect();
    assert!(found.keys().eq(expected.keys()), "{:?} beside {:?}", found.keys(), expected.keys());
    for (name, path) in &found {
        assert_eq!(config::check_file(path, &[], &own, &|_| Ok(())).problems, [], "{name}");
        assert_eq!(sizes(&registry, path), expected[name.as_str()], "{name}");
    }
}

#[test]
fn every_pairing_says_what_it_trains_on() {
    // The demo is not trained by its config, and the small world is trained in minutes.
    for (name, _) in SIZES.iter().filter(|(name, _)| !name.starts_with("demo") && !name.starts_with("world/")) {
        let config = config::load(&configs().join(name), &[]).unwrap().config;
        let train = config.train.unwrap();
        assert_eq!((train.steps, train.batch * train.accumulate, train.lr), (15_000, 2048, 8e-4), "{name}");
        let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
        assert!(train.output.unwrap().ends_with(&format!("checkpoints/{stem}")), "{name}");
        assert!(config.data.is_some(), "{name}");
    }
}
