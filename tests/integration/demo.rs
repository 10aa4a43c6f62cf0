//! The embedded demo model: word for word against what the reference libraries say, and against the world itself.

use super::golden::folder;
use limber::config;
use limber::generation::{Prompt, Request, generate};
use limber::model::Model;
use serde_json::Value;
use std::path::Path;

fn model() -> Model {
    let loaded = config::load_text("demo", limber_demo::CONFIG, Path::new("."), &[]).unwrap();
    Model::load(&loaded.config, &limber::built_in::registry().unwrap()).unwrap()
}

/// Captions of images: text, ids and log-probabilities.
fn captions(model: &Model, images: &[image::RgbImage]) -> Vec<(String, Vec<u32>, Vec<f32>)> {
    let prompt = Prompt::caption("A picture of").unwrap();
    let mut all = Vec::new();
    for group in images.chunks(16) {
        let pixels: Vec<_> = group.iter().map(|image| model.preprocessor().pixels(image).unwrap()).collect();
        let prefixes = model.prefix(&model.features(&pixels).unwrap()).unwrap();
        let prompts: Vec<_> =
            (0..group.len()).map(|row| model.embed_prompt(&prompt, &[prefixes.get(row).unwrap()]).unwrap()).collect();
        let request = Request { batch: 1000, ..Request::greedy(model, 48) };
        let rows = generate(model.decoder(), &prompts, &request, &mut |_, _| Ok(())).unwrap();
        for row in rows {
            let text = model.tokenizer().decode(&row.tokens, true).unwrap().trim().to_string();
            all.push((text, row.tokens, row.logprobs));
        }
    }
    all
}

#[test]
fn the_committed_handful_as_the_reference_libraries_say_it() {
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(folder("demo/expected.json")).unwrap()).unwrap();
    let expected = expected.as_array().unwrap();
    assert!(expected.len() >= 10);
    let model = model();
    let images: Vec<_> = expected
        .iter()
        .map(|case| {
            model
                .preprocessor()
                .read_image(folder("demo").join(case["image"].as_str().unwrap()).to_str().unwrap())
                .unwrap()
        })
        .collect();
    let mut right = 0;
    for (case, (text, tokens, logprobs)) in expected.iter().zip(captions(&model, &images)) {
        // torch and transformers on the same files, where they are wrong too.
        assert_eq!(text, case["text"].as_str().unwrap());
        let reference: Vec<u32> = serde_json::from_value(case["tokens"].clone()).unwrap();
        assert_eq!(tokens, reference[..tokens.len()], "{text}");
        let theirs: Vec<f32> = serde_json::from_value(case["logprobs"].clone()).unwrap();
        for (ours, theirs) in logprobs.iter().zip(theirs) {
            // f32 sums in another order.
            assert!((ours - theirs).abs() < 1e-3, "{text}: {ours} {theirs}");
        }
        right += usize::from(text == case["caption"].as_str().unwrap());
    }
    assert!(right * 100 >= expected.len() * 85, "{right} of {} are right word for word", expected.len());
}

#[test]
fn held_out_scenes() {
    // A seed that no recipe trains on; one or two objects.
    let options = limber_world::Options { min_objects: 1, max_objects: 2 };
    let scenes: Vec<_> = (0..100).map(|index| limber_world::scene(90_001, index, &options)).collect();
    let images: Vec<_> = scenes.iter().map(|scene| limber_world::draw(scene, 64)).collect();
    let right = captions(&model(), &images)
        .iter()
        .zip(&scenes)
        .filter(|((text, _, _), scene)| *text == limber_world::captions(scene)[0])
        .count();
    assert!(right >= 85, "{right} of 100 held-out scenes are captioned word for word, at least 85 are promised");
}
