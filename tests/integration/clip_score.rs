//! CLIP's text tower and CLIPScore against open_clip, transformers and the reference formula.

use super::golden::{folder, lists, tensors};
use super::program::{fails, lines};
use candle_core::Tensor;
use limber::eval::clip::{Clip, PREFIX, clip_score, ref_clip_score};
use serde_json::{Value, json};
use std::path::Path;

const CASES: [&str; 2] = ["open_clip", "hugging_face"];

fn clip(case: &str) -> Clip {
    Clip::load(case, None, &folder("clip_score")).unwrap()
}

fn texts() -> Vec<String> {
    serde_json::from_value(lists("clip_score")["texts"].clone()).unwrap()
}

/// Rows `[B, C]` of length 1.
fn unit(rows: &Tensor) -> Vec<Vec<f32>> {
    let norm = rows.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap();
    rows.broadcast_div(&norm).unwrap().to_vec2().unwrap()
}

/// Sums of a few dozen products in f32, in another order.
fn close(got: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    assert_eq!(got.len(), expected.len());
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        let largest = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-5, "{what} {at}: {largest}");
    }
}

#[test]
fn texts_become_the_ids_of_open_clip() {
    let ids: Vec<Vec<u32>> = serde_json::from_value(lists("clip_score")["ids"].clone()).unwrap();
    let texts = texts();
    for case in CASES {
        let clip = clip(case);
        for (text, expected) in texts.iter().zip(&ids) {
            assert_eq!(clip.ids(text).unwrap(), *expected, "{case} {text:?}");
        }
    }
    // One of them is longer than the tower.
    assert!(ids.iter().any(|ids| ids.len() == 24));
}

#[test]
fn both_towers_give_the_vectors_of_their_libraries() {
    let expected = tensors("clip_score");
    let images: Vec<Tensor> = (0..6).map(|i| expected["images"].get(i).unwrap()).collect();
    let texts = texts();
    for case in CASES {
        let clip = clip(case);
        close(&clip.texts(&texts).unwrap(), &unit(&expected[&format!("{case}.text")]), case);
        close(&clip.pixels(&images).unwrap(), &unit(&expected[&format!("{case}.image")]), case);
        // A text's vector does not depend on what is beside it.
        close(&clip.texts(&texts[3..4]).unwrap(), &clip.texts(&texts).unwrap()[3..4], case);
    }
}

#[test]
fn scores_are_those_of_the_formula() {
    let expected = lists("clip_score");
    let tensors = tensors("clip_score");
    let images: Vec<Tensor> = (0..6).map(|i| tensors["images"].get(i).unwrap()).collect();
    let items: Vec<(usize, usize, Vec<usize>)> = serde_json::from_value(expected["items"].clone()).unwrap();
    for case in CASES {
        let clip = clip(case);
        let (images, texts) = (clip.pixels(&images).unwrap(), clip.texts(&texts()).unwrap());
        for (at, (image, text, references)) in items.iter().enumerate() {
            let references: Vec<Vec<f32>> = references.iter().map(|r| texts[*r].clone()).collect();
            let score = clip_score(&images[*image], &texts[*text]);
            let both = ref_clip_score(score, &texts[*text], &references);
            for (name, got) in [("CLIPScore", score), ("RefCLIPScore", both)] {
                let want = expected[case][name][at].as_f64().unwrap();
                assert!((got - want).abs() < 1e-4, "{case} {name} {at}: {got} {want}");
            }
        }
    }
}

#[test]
fn the_program_adds_them() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    let scenes: Vec<String> = (1..4).map(|i| format!("scene-{i:02}.png")).collect();
    let images: Vec<Value> = scenes
        .iter()
        .enumerate()
        .map(|(i, name)| json!({"id": i, "file_name": name, "domain": format!("d{}", i % 2)}))
        .collect();
    let texts = texts();
    let captions: Vec<Value> = (0..6).map(|i| json!({"image_id": i % 3, "caption": texts[i]})).collect();
    std::fs::write(at("captions.json"), json!({"images": images, "annotations": captions}).to_string()).unwrap();
    let said: Vec<Value> = (0..3).map(|i| json!({"image_id": i, "caption": texts[i + 6]})).collect();
    std::fs::write(at("results.json"), Value::from(said).to_string()).unwrap();
    let (weights, scene_folder) = (folder("clip_score/open_clip"), folder("demo"));
    let path = |path: &Path| path.to_str().unwrap().to_string();
    let (results, references) = (path(&at("results.json")), path(&at("captions.json")));
    let (weights, scene_folder, items) = (path(&weights), path(&scene_folder), path(&at("items.jsonl")));
    let base = ["metrics", &results, &references, "--clip", &weights];
    let found =
        &lines(&[&base[..], &["--images", &scene_folder, "--items", &items, "--json", "--compare", &results]].concat())
            [0];

    let clip = clip("open_clip");
    let paths: Vec<_> = scenes.iter().map(|name| folder("demo").join(name)).collect();
    let prefixed: Vec<String> = texts.iter().map(|text| format!("{PREFIX}{text}")).collect();
    let (images, texts) = (clip.images(&paths).unwrap(), clip.texts(&prefixed).unwrap());
    let scored: Vec<Value> =
        std::fs::read_to_string(at("items.jsonl")).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut sums = [0.0; 2];
    for (i, line) in scored.iter().enumerate() {
        let score = clip_score(&images[i], &texts[i + 6]);
        let both = ref_clip_score(score, &texts[i + 6], &[texts[i].clone(), texts[i + 3].clone()]);
        // Both are computed by the same code, in other batches.
        assert!((line["CLIPScore"].as_f64().unwrap() - score).abs() < 1e-6, "{line}");
        assert!((line["RefCLIPScore"].as_f64().unwrap() - both).abs() < 1e-6, "{line}");
        sums = [sums[0] + score, sums[1] + both];
    }
    assert!((found["CLIPScore"].as_f64().unwrap() - sums[0] / 3.0).abs() < 1e-6);
    assert!((found["RefCLIPScore"].as_f64().unwrap() - sums[1] / 3.0).abs() < 1e-6);
    assert_eq!(found["domain"]["d1"]["CLIPScore"], scored[1]["CLIPScore"]);
    assert_eq!(found["compare"]["CLIPScore"]["difference"], 0.0);

    fails(&base, &["--clip needs --images"]);
    let towerless = path(&folder("clip_vit/tower"));
    fails(&["metrics", &results, &references, "--images", &scene_folder, "--clip", &towerless], &["no tokenizer.json"]);
    let answers = path(&folder("vqa/annotations.json"));
    let said = path(&folder("vqa/results.json"));
    fails(&["metrics", &said, &answers, "--images", "x", "--clip", &weights], &["CLIPScore is of captions"]);
}

#[test]
fn what_is_no_text_tower_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let copy = |names: &[&str]| {
        for name in names {
            std::fs::copy(folder("clip_score/open_clip").join(name), temporary.path().join(name)).unwrap();
        }
    };
    copy(&["open_clip_model.safetensors", "open_clip_config.json", "tokenizer.json"]);
    let load = || format!("{:#}", Clip::load(temporary.path().to_str().unwrap(), None, Path::new(".")).err().unwrap());
    let edit = |change: &dyn Fn(&mut Value)| {
        let path = folder("clip_score/open_clip/open_clip_config.json");
        let mut value: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(temporary.path().join("open_clip_config.json"), value.to_string()).unwrap();
    };
    edit(&|v| v["model_cfg"]["text_cfg"]["pool_type"] = json!("last"));
    assert!(load().contains("pool_type"), "{}", load());
    edit(&|v| v["model_cfg"]["text_cfg"]["heads"] = json!(5));
    assert!(load().contains("5 heads do not divide the text tower's width 24"), "{}", load());
    edit(&|_| {});
    std::fs::copy(folder("tokenizer/json/tokenizer.json"), temporary.path().join("tokenizer.json")).unwrap();
    assert!(load().contains("its tokenizer has no token \"<|startoftext|>\", so it is not CLIP's"), "{}", load());
    copy(&["tokenizer.json"]);
    // The image's tower alone.
    std::fs::copy(folder("clip_vit/visual.pt"), temporary.path().join("visual.pt")).unwrap();
    let config = folder("clip_vit/open_clip/open_clip_config.json");
    std::fs::copy(config, temporary.path().join("open_clip_config.json")).unwrap();
    let alone = temporary.path().join("visual.pt");
    let message = format!("{:#}", Clip::load(alone.to_str().unwrap(), None, Path::new(".")).err().unwrap());
    assert!(message.contains("no text tower of CLIP; looked for token_embedding.weight"), "{message}");
}
