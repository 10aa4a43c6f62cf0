//! Features of a data set, computed once: the losses of encoding on the fly, kills, ranks, and every refusal.

use super::golden::folder;
use super::program::limber;
use super::train::{config, fails, numbers, trained};
use candle_core::{Device, Tensor};
use limber::VisionEncoder;
use limber::data::{self, Order};
use limber::images::{self, Draw, PassOrder, RgbImage};
use limber_pipeline::Inputs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn picture(n: u32) -> RgbImage {
    RgbImage::from_fn(60 + 7 * (n % 5), 50 + 11 * (n % 4), |x, y| {
        image::Rgb([(x * (3 + n)) as u8, (y * 5 + 17 * n) as u8, (x * y + n) as u8])
    })
}

/// A data set of `count` images in `temp/set`: one is broken, one has no caption, one is listed twice.
fn set(temp: &Path, count: u32) -> PathBuf {
    let set = temp.join("set");
    fs::create_dir_all(set.join("images/a")).unwrap();
    let mut lines = Vec::new();
    for n in 0..count {
        let name = format!("images/a/{n:03}.png");
        picture(n).save(set.join(&name)).unwrap();
        let words = ["a red circle", "two small stars", "a ring above the blue square"][n as usize % 3];
        lines.push(json!({"image": name, "captions": [words, format!("{words} left of a ring")]}));
    }
    fs::write(set.join("images/a/005.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    lines[7]["captions"] = json!(["  "]);
    lines.push(json!({"image": "./images/a/002.png", "caption": "three circles"}));
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(set.join("data.jsonl"), text.join("\n")).unwrap();
    set.join("data.jsonl")
}

/// A config of a small CLIP ResNet over that set.
fn changes(list: &Path) -> Vec<(&'static str, Value)> {
    vec![
        ("/encoder", json!({"kind": "clip-resnet", "weights": folder("clip_resnet/open_clip")})),
        ("/stitch", json!({"kind": "linear", "dropout": 0.1, "weights": "random:3"})),
        ("/data/path", json!(list)),
        ("/data/shuffle", json!(true)),
        ("/data/max_skipped", json!(0.5)),
        ("/train/steps", json!(6)),
    ]
}

fn with(base: &[(&'static str, Value)], more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    base.iter().chain(more).cloned().collect()
}

fn command(config: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limber"));
    command.args(["encode", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    command.args(["--data", "--shard", "4", "--batch", "3"]).args(more).stdin(Stdio::null());
    command
}

fn run(config: &Path, out: &Path, more: &[&str]) -> Output {
    let output = command(config, out, more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn refused(config: &Path, out: &Path, more: &[&str], expected: &[&str]) {
    let output = command(config, out, more).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.matches("error:").count(), 1, "{message}");
    for part in expected {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

/// Every file below a folder but temporary ones, by its path there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
                all.insert(name, fs::read(path).unwrap());
            }
        }
    }
    all
}

#[test]
fn training_from_features_is_training_from_images() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 14);
    let base = changes(&list);
    let at = |name: &str| temp.path().join(name);
    let images = config(&at("images"), &base);
    trained(&images, &[]);
    let skipped = |name: &str| fs::read_to_string(at(name).join("skipped.jsonl")).unwrap();
    assert!(skipped("images").contains("005.png"));
    for layout in ["safetensors", "npy"] {
        for precision in ["f32", "f16"] {
            let name = format!("{layout}-{precision}");
            let out = at(&format!("features-{name}"));
            let output = run(&images, &out, &["--layout", layout, "--precision", precision, "--json"]);
            let result: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&result["items"], &result["skipped"]), (&json!(15), &json!(2)), "{result}");
            assert_eq!(result["shards"], json!({"written": 4, "there": 0}));
            let named = fs::read_to_string(out.join("skipped.jsonl")).unwrap();
            assert!(named.contains("images/a/005.png") && named.contains("item 8"), "{named}");
            trained(&config(&at(&name), &with(&base, &[("/data/features", json!(out))])), &[]);
            let (ours, theirs) = (numbers(&at(&name)), numbers(&at("images")));
            if precision == "f32" {
                assert_eq!(ours, theirs, "{name}");
                // Shards know why an item has no features.
                if layout == "safetensors" {
                    assert_eq!(skipped(&name), skipped("images"));
                }
                assert_eq!(skipped(&name).lines().count(), skipped("images").lines().count());
            }
            for (a, b) in ours.iter().zip(&theirs) {
                let (a, b) = (a[1].as_f64().unwrap(), b[1].as_f64().unwrap());
                // Features are rounded to 2^-11 of themselves, and the stitch learns from them for a few steps.
                assert!((a - b).abs() < 1e-3 * b, "{name}: {a} and {b}");
            }
            assert_eq!(ours.len(), 6);
        }
    }
    // The encoder need not be there, nor its images.
    let encoder = json!({"kind": "features", "tokens": 9, "width": 128});
    fs::rename(list.parent().unwrap().join("images"), at("elsewhere")).unwrap();
    for folder in ["features-safetensors-f32", "features-npy-f32"] {
        let more = [("/data/features", json!(at(folder))), ("/encoder", encoder.clone())];
        let name = format!("alone-{folder}");
        trained(&config(&at(&name), &with(&base, &more)), &[]);
        assert_eq!(numbers(&at(&name)), numbers(&at("images")), "{folder}");
    }
    // The original's own folder has no manifest.
    fs::remove_file(at("features-npy-f32/manifest.json")).unwrap();
    let more = [("/data/features", json!(at("features-npy-f32")))];
    trained(&config(&at("original"), &with(&base, &more)), &[]);
    assert_eq!(numbers(&at("original")), numbers(&at("images")));
}

#[test]
fn stored_features_are_the_encoders() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 9);
    let config = config(&temp.path().join("c"), &changes(&list));
    let (shards, npy) = (temp.path().join("shards"), temp.path().join("npy"));
    run(&config, &shards, &["--precision", "f32"]);
    run(&config, &npy, &["--layout", "npy", "--precision", "f32"]);
    let stage = temp.path().join("stage.safetensors");
    let images: Vec<String> =
        [0, 4, 8].map(|n| format!("{}/images/a/{n:03}.png", list.parent().unwrap().display())).into();
    let mut arguments = vec!["encode", "--config", config.to_str().unwrap(), "--stage", "features", "--out"];
    arguments.push(stage.to_str().unwrap());
    arguments.extend(images.iter().map(String::as_str));
    assert!(limber(&arguments).status.success());
    let expected = candle_core::safetensors::load(&stage, &Device::Cpu).unwrap();
    for (n, shard) in [(0, 0), (4, 1), (8, 2)] {
        let theirs = expected[&format!("{n:03}")].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let all = candle_core::safetensors::load(shards.join(format!("{shard:06}.safetensors")), &Device::Cpu).unwrap();
        let ours = all[&format!("images/a/{n:03}.png")].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(ours, theirs);
        let file = Tensor::read_npy(npy.join(format!("images/a/{n:03}.png.npy"))).unwrap();
        assert_eq!((file.dims(), file.flatten_all().unwrap().to_vec1::<f32>().unwrap()), (&[9, 128][..], theirs));
    }
}

#[cfg(unix)]
#[test]
fn a_kill_costs_a_shard_at_most_and_changes_no_byte() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 40);
    let config = config(&temp.path().join("c"), &changes(&list));
    for layout in ["safetensors", "npy"] {
        let (whole, cut) = (temp.path().join(format!("whole-{layout}")), temp.path().join(format!("cut-{layout}")));
        run(&config, &whole, &["--layout", layout]);
        let (mut kills, mut there) = (0, 0);
        for attempt in 0u64.. {
            let mut child = command(&config, &cut, &["--layout", layout, "--json"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(30 + attempt * 7919 % 41 + 9 * attempt));
            if child.try_wait().unwrap().is_some() {
                let output = child.wait_with_output().unwrap();
                let result: Value = serde_json::from_slice(&output.stdout).unwrap();
                there = result["shards"]["there"].as_u64().unwrap();
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            assert!(attempt < 200, "the run does not finish");
        }
        eprintln!("{layout}: {kills} kills, {there} shards of earlier runs");
        assert!(kills > 0);
        assert_eq!(files(&cut), files(&whole));
        // A third run finds everything there.
        let output = run(&config, &cut, &["--layout", layout, "--json"]);
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&result["shards"], &result["skipped"]), (&json!({"written": 0, "there": 11}), &json!(2)));
    }
}

#[test]
fn ranks_share_the_work() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 20);
    let base = changes(&list);
    let config_of = |name: &str, more: &[(&'static str, Value)]| config(&temp.path().join(name), &with(&base, more));
    let images = config_of("c", &[]);
    let (whole, shared) = (temp.path().join("whole"), temp.path().join("shared"));
    run(&images, &whole, &[]);
    for rank in ["2", "0"] {
        run(&images, &shared, &["--rank", rank, "--world", "3"]);
    }
    let training = config_of("t", &[("/data/features", json!(shared))]);
    fails(
        &training,
        &[],
        &["data.features", "not complete, 2 of 6 blocks are missing (000001.safetensors, 000004.safetensors)"],
    );
    let output = command(&images, &shared, &[]).envs([("RANK", "1"), ("WORLD_SIZE", "3")]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("rank 1 of 3"));
    trained(&training, &[]);
    let shards = |folder: &Path| {
        let mut all = files(folder);
        all.retain(|name, _| !name.starts_with("skipped"));
        all
    };
    assert_eq!(shards(&shared), shards(&whole));
    let lists: Vec<String> = files(&shared).into_keys().filter(|name| name.starts_with("skipped")).collect();
    assert_eq!(lists, ["skipped-1-of-3.jsonl"]);
}

#[test]
fn ranks_that_encode_the_same_image_do_not_disturb_each_other() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 9);
    // Every block lists the same images, so that all ranks write the same files at the same time.
    let images =
        ["000", "001", "002", "003"].map(|n| json!({"image": format!("images/a/{n}.png"), "caption": "a ring"}));
    let lines: Vec<String> = (0..24).flat_map(|_| images.iter().map(Value::to_string)).collect();
    fs::write(&list, lines.join("\n")).unwrap();
    let config = config(&temp.path().join("c"), &changes(&list));
    let (whole, shared) = (temp.path().join("whole"), temp.path().join("shared"));
    run(&config, &whole, &["--layout", "npy"]);
    for round in 0..4 {
        fs::remove_dir_all(&shared).ok();
        // Where the temporary file of a process alone would be; that ranks meet at one is a matter of luck.
        fs::create_dir_all(shared.join("images/a/.000.png.npy.part")).unwrap();
        let start = |rank: &str| {
            let more = ["--layout", "npy", "--rank", rank, "--world", "3"];
            command(&config, &shared, &more).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
        };
        for child in ["0", "1", "2"].map(start) {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(files(&shared), files(&whole));
    }
}

#[test]
fn features_of_shards_and_of_coco_train_as_their_images_do() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 9);
    let folder = list.parent().unwrap();
    let lines: Vec<Value> =
        fs::read_to_string(&list).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut shards = [0, 1].map(|_| tar::Builder::new(Vec::new()));
    let (mut listed, mut notes) = (Vec::new(), Vec::new());
    for (id, line) in lines[..9].iter().enumerate() {
        let name = line["image"].as_str().unwrap();
        let bytes = fs::read(folder.join(name)).unwrap();
        let caption = line["captions"][0].as_str().unwrap();
        for (ending, bytes) in [("png", bytes.as_slice()), ("txt", caption.as_bytes())] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            shards[id % 2].append_data(&mut header, format!("{id:03}.{ending}"), bytes).unwrap();
        }
        listed.push(json!({"id": id, "file_name": Path::new(name).file_name().unwrap().to_str().unwrap()}));
        notes.push(json!({"image_id": id, "caption": caption}));
    }
    for (n, shard) in shards.into_iter().enumerate() {
        fs::write(folder.join(format!("{n}.tar")), shard.into_inner().unwrap()).unwrap();
    }
    fs::rename(folder.join("images/a"), folder.join("train")).unwrap();
    fs::create_dir(folder.join("annotations")).unwrap();
    let coco = folder.join("annotations/captions_train.json");
    fs::write(&coco, json!({"images": listed, "annotations": notes}).to_string()).unwrap();
    for (format, path) in [("webdataset", folder.join("{0..1}.tar")), ("coco", coco)] {
        let base = with(&changes(&path), &[("/data/format", json!(format))]);
        let at = |name: &str| temp.path().join(format!("{format}-{name}"));
        let images = config(&at("images"), &base);
        trained(&images, &[]);
        for layout in ["safetensors", "npy"] {
            let out = at(&format!("features-{layout}"));
            let output = run(&images, &out, &["--layout", layout, "--precision", "f32", "--json"]);
            let result: Value = serde_json::from_slice(&output.stdout).unwrap();
            // The broken one and the one without a caption.
            assert_eq!((&result["items"], &result["skipped"]), (&json!(9), &json!(2)), "{format}: {result}");
            trained(&config(&at(layout), &with(&base, &[("/data/features", json!(out))])), &[]);
            assert_eq!(numbers(&at(layout)), numbers(&at("images")), "{format} {layout}");
        }
        assert_eq!(numbers(&at("images")).len(), 6);
    }
}

#[test]
fn features_of_another_encoder_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 8);
    let base = changes(&list);
    let config_of = |name: &str, more: &[(&'static str, Value)]| config(&temp.path().join(name), &with(&base, more));
    let images = config_of("c", &[]);
    let out = temp.path().join("features");
    run(&images, &out, &[]);
    let manifest: Value = serde_json::from_str(&fs::read_to_string(out.join("manifest.json")).unwrap()).unwrap();
    let fingerprint = manifest["fingerprint"].as_str().unwrap();
    assert_eq!((&manifest["encoder"], fingerprint.len()), (&json!("clip-resnet"), 32));
    let features = ("/data/features", json!(out));
    let other = ["data.features", "fingerprint", fingerprint, "the config's is clip-resnet with"];
    for (name, change) in [
        ("weights", ("/encoder/weights", json!(folder("clip_resnet/all_f16.pt")))),
        ("upright", ("/images", json!({"exif_orientation": true}))),
        ("passes", ("/compat", json!("original"))),
    ] {
        fails(&config_of(name, &[features.clone(), change.clone()]), &[], &other);
        // And nothing is added to them.
        refused(&config_of(&format!("more-{name}"), &[change]), &out, &[], &["whose fingerprint is", fingerprint]);
    }
    let nf = json!({"kind": "nf-resnet", "weights": folder("nf_resnet/timm"), "image_size": 72});
    let expected = ["holds features of 9 x 128 (N x E), the config's encoder gives 1 x "];
    fails(&config_of("size", &[features.clone(), ("/encoder", nf)]), &[], &expected);
    let short = temp.path().join("short.jsonl");
    let text = fs::read_to_string(&list).unwrap();
    fs::write(&short, text.lines().take(6).collect::<Vec<_>>().join("\n")).unwrap();
    let change = ("/data/path", json!(short));
    fails(&config_of("short", &[features.clone(), change]), &[], &["a data set of 9 items, the config's has 6"]);
    // As many items, but others: every one of them is named.
    let renamed = temp.path().join("set/renamed.jsonl");
    fs::write(&renamed, text.replace("images/a", "images/../images/a")).unwrap();
    let output = config_of("renamed", &[features.clone(), ("/data/path", json!(renamed))]);
    fails(
        &output,
        &[],
        &["items in a row could not be read", "no features of \"images/@up/images/a/", "another data set"],
    );

    fails(
        &config_of("gone", &[("/data/features", json!("nowhere"))]),
        &[],
        &["nowhere: no such folder", "limber encode --data"],
    );
    refused(&images, &out, &["--precision", "f32"], &["whose dtype is \"f16\", asked for is \"f32\""]);
    fs::write(out.join("000001.safetensors"), [0; 40]).unwrap();
    fails(&config_of("torn", &[features.clone(), ("/data/max_skipped", json!(0))]), &[], &["could not be read"]);
    fs::write(out.join("manifest.json"), r#"{"version": 9}"#).unwrap();
    fails(&config_of("later", &[features]), &[], &["manifest.json: version 9 cannot be read, expected 1"]);
}

#[test]
fn every_wrong_use_has_its_message() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 8);
    let base = changes(&list);
    let images = config(&temp.path().join("c"), &base);
    let out = temp.path().join("out");
    refused(&images, &out, &["--rank", "2", "--world", "2"], &["--rank 2 is not allowed, must be below --world 2"]);
    refused(&images, &out, &["--layout", "npy", "--precision", "bf16"], &["NumPy has no bf16", "f16 or f32"]);
    let strict = config(&temp.path().join("strict"), &with(&base, &[("/data/max_skipped", json!(0.001))]));
    refused(&strict, &out, &[], &["could not be read", "data.max_skipped 0.001", "skipped.jsonl"]);
    assert!(fs::read_to_string(out.join("skipped.jsonl")).unwrap().contains("005.png"));
    let none = config(&temp.path().join("none"), &with(&base, &[("/data", Value::Null)]));
    refused(&none, &out, &[], &["no section \"data\""]);
    let base = ["encode", "--config", images.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let usage = |more: &[&str]| limber(&[&base[..], more].concat()).status.code();
    assert_eq!(usage(&[]), Some(2));
    assert_eq!(usage(&["--stage", "features"]), Some(2));
    assert_eq!(usage(&["--data", "x.jsonl", "--stage", "features"]), Some(2));
    assert_eq!(usage(&["--data", "x.jsonl", "--rank", "1"]), Some(2));
    assert_eq!(usage(&["--data", "x.jsonl", "--batch", "0"]), Some(2));
    super::program::fails(
        &[&base[..], &["--data", "x.data"]].concat(),
        &["\"x.data\" does not say how the data lie", "--format"],
    );
    super::program::fails(&[&base[..], &["--data", "x.jsonl"]].concat(), &["section \"data\": cannot read x.jsonl"]);
}

#[test]
fn images_are_varied_anew_in_every_epoch() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 8);
    let encoder = json!({"kind": "nf-resnet", "weights": folder("nf_resnet/timm"), "image_size": 72});
    let base = with(&changes(&list), &[("/encoder", encoder)]);
    let load = |name: &str, more: &[(&'static str, Value)]| {
        let path = config(&temp.path().join(name), &with(&base, more));
        limber::config::load(&path, &[]).unwrap().config
    };
    let input = |config: &limber::config::Config, epoch: u64, fixed: bool| {
        let data = config.data.clone().unwrap();
        let set = data::open(&data, &config.folder).unwrap();
        let vision = VisionEncoder::load(config, &limber::built_in::registry().unwrap()).unwrap();
        let reader = Inputs::new(&vision, config, &data, set.len()).unwrap();
        let reader = if fixed { reader.fixed() } else { reader };
        let variation = Order::new(set.len(), config.train.as_ref().unwrap().seed, true).variation(epoch, 1);
        let pixels =
            reader.input(&set.item(1).unwrap(), variation).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (pixels, variation, vision.preprocessor().input_spec().image().unwrap())
    };
    let image = picture(1);
    for (more, order) in [
        (("/compat", json!("original")), PassOrder::HorizontalFirst),
        (("/data/augment", json!(true)), PassOrder::default()),
    ] {
        let config = load("varied", &[more]);
        let mut seen = Vec::new();
        for epoch in 0..3 {
            let (pixels, variation, spec) = input(&config, epoch, false);
            let drawn = images::augment(&image, &spec, &Draw::seeded(72, variation), order).unwrap();
            assert_eq!(pixels, images::normalise(&drawn, &spec));
            assert_eq!(input(&config, epoch, false).0, pixels);
            assert!(!seen.contains(&pixels), "epoch {epoch}");
            seen.push(pixels);
        }
        assert_eq!(input(&config, 0, true).0, input(&config, 1, true).0);
    }
    let (plain, _, spec) = input(&load("plain", &[]), 1, false);
    assert_eq!(plain, images::preprocess(&image, &spec, PassOrder::default()).unwrap());
    // As published at inference: one crop an image, from the seed of the config and its pixels.
    let off = load("off", &[("/compat", json!("original")), ("/data/augment", json!(false))]);
    let drawn = images::augment(&image, &spec, &Draw::new(&image, 72, 0), PassOrder::HorizontalFirst).unwrap();
    assert_eq!(input(&off, 1, false).0, images::normalise(&drawn, &spec));
}

#[test]
fn a_step_an_epoch_shows_the_variation_and_resumes() {
    let temp = tempfile::tempdir().unwrap();
    let list = set(temp.path(), 8);
    let text = fs::read_to_string(&list).unwrap();
    fs::write(&list, text.lines().take(4).collect::<Vec<_>>().join("\n")).unwrap();
    let encoder = json!({"kind": "nf-resnet", "weights": folder("nf_resnet/timm"), "image_size": 72});
    // Nothing is learnt, so that the images alone make a difference.
    let base = with(
        &changes(&list),
        &[
            ("/encoder", encoder),
            ("/stitch/dropout", json!(0.0)),
            ("/data/shuffle", json!(false)),
            ("/train/batch", json!(4)),
            ("/train/accumulate", json!(1)),
            ("/train/lr", json!(0.0)),
            ("/compat", json!("original")),
            ("/train/save_every", json!(2)),
            ("/train/keep", json!(9)),
        ],
    );
    let losses = |name: &str, more: &[(&'static str, Value)]| {
        let output = temp.path().join(name);
        trained(&config(&output, &with(&base, more)), &[]);
        numbers(&output).iter().map(|line| line[1].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let varied = losses("varied", &[]);
    assert!(varied.windows(2).all(|w| w[0] != w[1]), "{varied:?}");
    let fixed = losses("fixed", &[("/data/augment", json!(false))]);
    assert!(fixed.iter().all(|loss| *loss == fixed[0]), "{fixed:?}");
    assert_ne!(losses("other", &[("/train/seed", json!(6))]), varied);
    for step in [4, 6] {
        fs::remove_dir_all(temp.path().join(format!("varied/checkpoints/step-{step:08}"))).unwrap();
    }
    trained(&temp.path().join("varied.yaml"), &["--resume"]);
    let again: Vec<f64> = numbers(&temp.path().join("varied")).iter().map(|l| l[1].as_f64().unwrap()).collect();
    assert_eq!(again, varied);
    // One view of each image cannot stand for a new one in every epoch.
    let features = temp.path().join("features");
    run(&config(&temp.path().join("c"), &base), &features, &[]);
    let more = [("/data/features", json!(features))];
    fails(
        &config(&temp.path().join("both"), &with(&base, &more)),
        &[],
        &["varied anew in every epoch", "data.augment"],
    );
    let more = [("/data/features", json!(features)), ("/data/augment", json!(false))];
    let stored = losses("stored", &more);
    assert!((stored[0] - fixed[0]).abs() < 1e-3 * fixed[0], "{stored:?} {fixed:?}");
}

#[cfg(feature = "hub")]
#[test]
fn offline_forbids_images_from_addresses() {
    let temp = tempfile::tempdir().unwrap();
    let list = temp.path().join("data.jsonl");
    fs::write(&list, r#"{"image": "http://127.0.0.1:9/a.png", "caption": "a star"}"#).unwrap();
    for (name, flags, forbidden) in [("off", &["--offline"][..], true), ("on", &[], false)] {
        let output = temp.path().join(name);
        let path = config(&output, &with(&changes(&list), &[]));
        let run = Command::new(env!("CARGO_BIN_EXE_limber"))
            .args(["train", "--config", path.to_str().unwrap()])
            .args(flags)
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("TRANSFORMERS_OFFLINE")
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{message}");
        assert!(message.contains("http://127.0.0.1:9/a.png"), "{message}");
        assert_eq!(message.contains("the network is forbidden"), forbidden, "{message}");
    }
}
