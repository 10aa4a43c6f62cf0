//! Anything with anything: every encoder, every stitch and every decoder composed at `tiny` size, captioning an image.

use limber::config::load_text;
use limber::core::registry::Entry;
use limber::core::{InputSpec, Registry};
use limber::generation::{Finish, Prompt, Request, generate};
use limber::model::Model;
use serde_json::{Value, json};
use std::path::Path;

/// The section of a component: its tiny settings and random weights.
fn section(entry: &Entry, seed: u64) -> Value {
    let mut section = entry.tiny.clone();
    section["kind"] = json!(entry.kind);
    if entry.needs_weights {
        section["weights"] = json!(format!("random:{seed}"));
    }
    section
}

fn entries<'a>(registry: &'a Registry, role: &str) -> Vec<&'a Entry> {
    registry.entries().filter(|entry| entry.maker.role().name() == role).collect()
}

/// A picture, or a file of features where the encoder takes those.
fn input(model: &Model, folder: &Path) -> String {
    if let InputSpec::Image(_) = model.input_spec() {
        return format!("{}/assets/demo/scene-1.png", crate::ROOT);
    }
    let spec = model.feature_spec();
    let values: Vec<f32> = (0..spec.tokens * spec.width).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let data = limber::core::weights::FrozenData::from_f32(values, &[spec.tokens, spec.width]);
    let path = folder.join("features.safetensors");
    limber::weights::save(&path, &[("x".to_string(), data)].into(), &Default::default()).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn every_encoder_with_every_stitch_with_every_decoder() {
    let registry = limber::built_in::registry().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (encoders, stitches, decoders) =
        (entries(&registry, "encoder"), entries(&registry, "stitch"), entries(&registry, "decoder"));
    let mut composed = 0;
    for encoder in &encoders {
        for stitch in &stitches {
            for decoder in &decoders {
                let what = format!("{} + {} + {}", encoder.kind, stitch.kind, decoder.kind);
                let tree = json!({"encoder": section(encoder, 1), "stitch": section(stitch, 2), "decoder": section(decoder, 3)});
                let loaded = load_text("matrix", &tree.to_string(), folder.path(), &[])
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                let model = Model::load(&loaded.config, &registry).unwrap_or_else(|e| panic!("{what}: {e:#}"));
                let input = model.input(&input(&model, folder.path())).unwrap();
                let prefix = model.prefix(&model.features(&[input]).unwrap()).unwrap();
                let spec = model.decoder().spec();
                assert_eq!(prefix.dim(2).unwrap(), spec.width, "{what}");
                let prompt = Prompt::caption("").unwrap();
                let prompts = [model.embed_prompt(&prompt, &[prefix.get(0).unwrap()]).unwrap()];
                let request = Request { eos: vec![], batch: 1, ..Request::greedy(&model, 3) };
                let rows = generate(model.decoder(), &prompts, &request, &mut |_, _| Ok(())).unwrap();
                assert_eq!((rows[0].tokens.len(), rows[0].finish), (3, Finish::Length), "{what}");
                assert!(rows[0].logprobs.iter().all(|p| p.is_finite() && *p <= 0.0), "{what}: {:?}", rows[0].logprobs);
                composed += 1;
            }
        }
    }
    assert_eq!(composed, encoders.len() * stitches.len() * decoders.len());
    // As many as there were when this was written; a component that is no longer linked is missed.
    assert!(encoders.len() >= 4 && stitches.len() >= 2 && !decoders.is_empty());
}
