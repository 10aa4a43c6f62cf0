//! The program as a user meets it: results, JSON fields, exit codes, and the message of every wrong input.

use super::golden::{folder, largest};
use candle_core::Device;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(super) fn limber(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(arguments)
        .current_dir(crate::ROOT)
        .env_remove("LIMBER_LOG")
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap()
}

pub(super) fn stdout(arguments: &[&str]) -> String {
    let output = limber(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn lines(arguments: &[&str]) -> Vec<Value> {
    stdout(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exit code 1, nothing on stdout, one message that holds all of `expected`.
pub(super) fn fails(arguments: &[&str], expected: &[&str]) {
    let output = limber(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(message.matches("error:").count(), 1, "{message}");
    for part in expected {
        assert!(message.contains(part), "{arguments:?}: {message:?} lacks {part:?}");
    }
}

/// A demo scene of the handful that the demo captions right.
pub(super) fn scene(index: usize) -> String {
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(folder("demo/expected.json")).unwrap()).unwrap();
    let name = expected[index]["image"].as_str().unwrap();
    format!("tests/golden/demo/{name}")
}

/// Each of the texts stands in `told`.
pub fn contains(told: &str, texts: &[&str]) {
    for text in texts {
        assert!(told.contains(text), "{told:?} lacks {text:?}");
    }
}

#[test]
fn caption_prints_every_field() {
    let (a, b) = (scene(0), scene(1));
    let all = lines(&["caption", "--json", "--batch", "2", &a, &b]);
    assert_eq!(all.len(), 2);
    for (line, image) in all.iter().zip([&a, &b]) {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["image", "prompt", "text", "tokens", "logprobs", "finish", "timing"]);
        assert_eq!(
            (&line["image"], &line["prompt"], &line["finish"]),
            (&json!(image), &json!("A picture of"), &json!("eos"))
        );
        assert_eq!(line["tokens"].as_array().unwrap().len(), line["logprobs"].as_array().unwrap().len());
        let keys: Vec<&String> = line["timing"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["load_s", "encode_s", "prefill_s", "decode_s"]);
    }
    // One image prints its caption alone; several are named; a stream says the same.
    let text = |line: &Value| line["text"].as_str().unwrap().to_string();
    assert_eq!(stdout(&["caption", &a]), format!("{}\n", text(&all[0])));
    assert_eq!(stdout(&["caption", &a, &b]), format!("{a}: {}\n{b}: {}\n", text(&all[0]), text(&all[1])));
    assert_eq!(stdout(&["caption", "--stream", &a]), format!("{}\n", text(&all[0])));
    let short = lines(&["caption", "--json", "--max-tokens", "2", &a]);
    assert_eq!((short[0]["tokens"].as_array().unwrap().len(), &short[0]["finish"]), (2, &json!("length")));
}

#[test]
fn score_and_generate_agree_with_caption() {
    let a = scene(0);
    let caption = &lines(&["caption", "--json", &a])[0];
    let generated = &lines(&["generate", "--json", "--image", &a, "--prompt", "<image>A picture of"])[0];
    assert_eq!((&generated["tokens"], &generated["image"]), (&caption["tokens"], &json!(a)));
    let text = format!(" {}", caption["text"].as_str().unwrap());
    let score = &lines(&["score", "--json", "--image", &a, "--prompt", "A picture of", "--text", &text])[0];
    assert_eq!(score["tokens"], caption["tokens"]);
    let numbers = |v: &Value| serde_json::from_value::<Vec<f64>>(v.clone()).unwrap();
    let mut total = 0.0;
    for (a, b) in numbers(&score["logprobs"]).iter().zip(numbers(&caption["logprobs"])) {
        // One pass against a cache: sums in another order.
        assert!((a - b).abs() < 1e-3, "{a} {b}");
        total += a;
    }
    assert!((score["total"].as_f64().unwrap() - total).abs() < 1e-4);
    let table = stdout(&["score", "--image", &a, "--text", &text]);
    assert!(table.ends_with("total\n"), "{table}");
}

#[test]
fn two_images_in_one_prompt() {
    let (a, b) = (scene(0), scene(1));
    let prompt = "<image>A picture of a thing. <image>A picture of";
    let two = &lines(&["generate", "--json", "--max-tokens", "4", "--image", &a, "--image", &b, "--prompt", prompt])[0];
    let swapped =
        &lines(&["generate", "--json", "--max-tokens", "4", "--image", &b, "--image", &a, "--prompt", prompt])[0];
    assert_eq!((&two["image"], &two["prompt"]), (&json!([a, b]), &json!(prompt)));
    assert_ne!(two["logprobs"], swapped["logprobs"]);
}

#[test]
fn sampling_follows_its_seed_and_not_the_batch() {
    let images: Vec<String> = (0..3).map(scene).collect();
    let run = |seed: &str, batch: &str| {
        let mut arguments = vec!["caption", "--json", "--temperature", "1.5", "--top-p", "0.95", "--max-tokens", "12"];
        arguments.extend(["--seed", seed, "--batch", batch]);
        arguments.extend(images.iter().map(String::as_str));
        lines(&arguments).iter().map(|line| line["tokens"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(run("1", "1"), run("1", "3"));
    assert_ne!(run("1", "3"), run("2", "3"));
}

#[test]
fn encode_writes_every_stage() {
    let (a, b) = (scene(0), scene(1));
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("out.safetensors");
    let stem = |path: &str| Path::new(path).file_stem().unwrap().to_str().unwrap().to_string();
    let mut shapes = Vec::new();
    for stage in ["pixels", "features", "prefix"] {
        stdout(&["encode", "--stage", stage, &a, &b, "--out", out.to_str().unwrap()]);
        let tensors = candle_core::safetensors::load(&out, &Device::Cpu).unwrap();
        assert_eq!(tensors.len(), 2);
        shapes.push(tensors[&stem(&a)].dims().to_vec());
        assert_eq!(tensors[&stem(&a)].dims(), tensors[&stem(&b)].dims());
        assert!(largest(&tensors[&stem(&a)], &tensors[&stem(&b)]) > 0.0, "{stage}");
    }
    let [pixels, features, prefix] = shapes.try_into().unwrap();
    assert_eq!((pixels[0], pixels[1]), (3, pixels[2]));
    // A linear stitch gives a prefix token a patch.
    assert_eq!((features.len(), features[0]), (2, prefix[0]));
    fails(
        &["encode", "--stage", "pixels", &a, &a, "--out", "x.safetensors"],
        &["would both be the tensor", "rename one"],
    );
}

#[test]
fn an_image_that_cannot_be_read_does_not_cost_the_others() {
    let output = limber(&["caption", &scene(0), "no-such.png", "Cargo.toml", &scene(1)]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    let message = String::from_utf8_lossy(&output.stderr);
    for part in ["no-such.png", "Cargo.toml", "2 of 4 images could not be captioned"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let a = scene(0);
    for arguments in [
        vec!["caption"],
        vec!["describe-all"],
        vec!["encode", "--stage", "logits", &a, "--out", "x"],
        vec!["caption", "--threads", "0", &a],
        vec!["caption", "--threads", "10000", &a],
        vec!["reproduce", "--threads", "1000000", "--out", "x"],
        vec!["caption", "--stream", "--json", &a],
        vec!["caption", "--max-tokens", "many", &a],
    ] {
        assert_eq!(limber(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn every_wrong_input_has_its_message() {
    let a = scene(0);
    let golden = |path: &str| folder(path).to_str().unwrap().to_string();
    let set = |text: String| text;
    fails(&["caption", "--config", "no-such.yaml", &a], &["no-such.yaml"]);
    fails(
        &["caption", "--set", "decoder.kind=gptx", &a],
        &["unknown decoder kind \"gptx\"", "did you mean \"gpt", "gptj, granite, llama"],
    );
    fails(&["caption", "--set", "generate.heat=1", &a], &["generate", "heat", "unknown key", "temperature"]);
    fails(
        &["caption", "--set", "encoder.depth=1", "--set", "encoder.weights=random:1", &a],
        &["encoder", "depth", "unknown key", "layers"],
    );
    fails(&["caption", "--temperature=-1", &a], &["temperature", "-1"]);
    fails(&["caption", "--top-p", "2", &a], &["top_p", "2"]);
    for value in ["nan", "NaN", "inf", "-inf"] {
        fails(&["caption", &format!("--temperature={value}"), &a], &["temperature", "a number, at least 0"]);
        fails(&["caption", &format!("--top-p={value}"), &a], &["top_p", "a number, above 0 and at most 1"]);
        let set = |key: &str| format!("generate.{key}={value}");
        fails(&["caption", "--set", &set("temperature"), &a], &["temperature", "a number, at least 0"]);
        fails(&["caption", "--set", &set("top_p"), &a], &["top_p", "a number, above 0 and at most 1"]);
    }
    fails(&["caption", "--max-tokens", "0", &a], &["max_tokens", "0"]);
    let most = u64::MAX.to_string();
    fails(&["caption", "--max-tokens", &most, &a], &[&format!("{most} new tokens"), "context length allows"]);
    fails(&["caption", "--set", "threads=1000000", &a], &["threads", "1000000", "a whole number from 1 to 1024"]);
    for workers in ["100000", "18446744073709551615"] {
        let set = format!("data={{format: jsonl, path: x, workers: {workers}}}");
        fails(&["caption", "--set", &set, &a], &["data", "workers", workers, "a whole number from 0 to 256"]);
    }
    fails(&["caption", "--dtype", "q9", &a], &["dtype", "\"q9\"", "bf16"]);
    fails(&["caption", "--device", "tpu", &a], &["device", "\"tpu\"", "cuda:N"]);
    fails(&["caption", "--max-tokens", "100000", &a], &["100000 new tokens", "context length allows"]);
    fails(&["generate", "--image", &a, "--prompt", "no mark"], &["0 <image> marks for 1 images"]);
    fails(&["generate", "--prompt", "<image> <image>"], &["2 <image> marks for 0 images"]);
    fails(&["score", "--image", &a, "--text", ""], &["no token to score"]);
    fails(&["score", "--prompt", "", "--text", "a"], &["nothing before the text"]);
    fails(&["caption", "Cargo.toml"], &["Cargo.toml", "not a known image", "PNG, JPEG, WebP, GIF, BMP, TIFF"]);
    fails(&["caption", "no-such.png"], &["no-such.png"]);
    fails(&["describe", "gptx"], &["unknown kind \"gptx\"", "gptj"]);
    fails(&["shapes", "--count", "0", "--out", "x"], &["count is 0"]);
    fails(&["shapes", "--count", "1", "--objects", "three", "--out", "x"], &["--objects \"three\""]);
    // A decoder folder without a tokenizer.
    let weights = set(format!("decoder.weights={}", golden("gptj/f32")));
    fails(
        &["caption", "--set", &weights, "--set", "stitch.weights=random:1", &a],
        &["gptj/f32", "tokenizer.json", "vocab.json"],
    );
    // The demo's projection belongs to the demo: both sides are named, and what there is to do.
    fails(&["caption", "--set", &weights, &a], &["stitch", "clip-resnet", "gptj takes 32"]);
    for subcommand in [&["caption", &a][..], &["generate", "--prompt", "a"], &["score", "--prompt", "a", "--text", "b"]]
    {
        let arguments = [subcommand, &["--set", &weights]].concat();
        fails(&arguments, &["names no weights", "`limber train`", "--run", "`limber fit`", "stitch.weights"]);
    }
    fails(
        &["caption", "--set", "encoder.weights=random:1", "--set", "encoder.model=RN50", &a],
        &["stitch", "49 x 2048", "clip-resnet"],
    );
    // Weights that are cut short, hostile, or not there.
    let temporary = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(folder("gptj/f32/model.safetensors")).unwrap();
    let cut = temporary.path().join("cut.safetensors");
    std::fs::write(&cut, &bytes[..bytes.len() - 100]).unwrap();
    fails(&["caption", "--set", &format!("decoder.weights={}", cut.display()), &a], &["cut.safetensors"]);
    fails(&["caption", "--set", "stitch.weights=no/such/proj.ckpt", &a], &["stitch", "no/such/proj.ckpt"]);
    fails(&["caption", "--set", "decoder.weights=hf:nobody/nothing", &a], &["decoder", "nobody/nothing"]);
}

#[test]
fn a_hostile_pickle_is_refused_by_the_name_of_what_it_calls() {
    let list: Value = serde_json::from_str(&std::fs::read_to_string(folder("pickle/expected.json")).unwrap()).unwrap();
    let bad: Vec<&String> = list["bad"].as_object().unwrap().keys().filter(|name| name.contains("system")).collect();
    assert!(!bad.is_empty());
    for name in bad {
        let weights = format!("stitch.weights={}", folder("pickle").join(name).display());
        fails(&["caption", "--set", &weights, &scene(0)], &["stitch", "system", name]);
    }
}

#[test]
fn a_stitch_is_refused_by_an_encoder_it_was_not_trained_on() {
    use limber::core::weights::FrozenData;
    use std::collections::BTreeMap;
    let temporary = tempfile::tempdir().unwrap();
    let path: PathBuf = temporary.path().join("stitch.safetensors");
    let shapes = BTreeMap::from([("weight", vec![128usize, 256]), ("bias", vec![128])]);
    let tensors: BTreeMap<String, FrozenData> = shapes
        .iter()
        .map(|(name, shape)| (name.to_string(), FrozenData::from_f32(vec![0.0; shape.iter().product()], shape)))
        .collect();
    let save = |encoder: &str, features: &str, prefix: &str| {
        let metadata = [
            ("limber.stitch", "linear"),
            ("limber.settings", "{}"),
            ("limber.encoder", encoder),
            ("limber.features", features),
            ("limber.prefix", prefix),
            ("limber.fingerprint", "00"),
        ];
        let metadata = metadata.map(|(k, v)| (k.to_string(), v.to_string())).into_iter().collect();
        limber::weights::save(&path, &tensors, &metadata).unwrap();
    };
    let stitch = format!("stitch.weights={}", path.display());
    // Random components of the widths that fit, so that the metadata alone decide.
    let sets = [
        stitch.as_str(),
        "encoder.weights=random:1",
        "encoder.width=8",
        "encoder.layers=[1, 1, 1, 1]",
        "encoder.image_size=64",
        "decoder.weights=random:2",
        "decoder.n_embd=128",
        "decoder.n_head=4",
        "decoder.rotary_dim=8",
        "decoder.n_layer=1",
        "decoder.vocab_size=300",
        "decoder.eos_token_id=299",
        "generate.max_tokens=1",
    ];
    let mut arguments = vec!["caption"];
    for set in &sets {
        arguments.extend(["--set", set]);
    }
    let image = scene(0);
    arguments.push(&image);
    save("beit", "4 x 256", "4 x 128");
    fails(&arguments, &["trained with encoder kind beit, the config gives clip-resnet"]);
    save("clip-resnet", "9 x 256", "9 x 128");
    fails(&arguments, &["trained with features (N x E) 9 x 256, the config gives 4 x 256"]);
    save("clip-resnet", "4 x 256", "4 x 128");
    fails(&arguments, &["fingerprint 00", "other settings or other weights"]);
}

#[test]
fn components_and_describe() {
    let all = lines(&["components", "--json"]);
    let kinds: Vec<(&str, &str)> =
        all.iter().map(|c| (c["role"].as_str().unwrap(), c["kind"].as_str().unwrap())).collect();
    for kind in [("encoder", "clip-resnet"), ("decoder", "gptj"), ("stitch", "linear"), ("stitch", "mlp")] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let tree: Value = serde_json::from_str(&stdout(&["describe", "clip-resnet"])).unwrap();
    assert!(tree["settings"]["properties"]["image_size"]["description"].as_str().unwrap().contains("pixels"));
    assert_eq!(stdout(&["components"]).lines().count(), all.len());
}

#[test]
fn config_show_and_check() {
    let ours = stdout(&["config", "show", "--json", "configs/clip_linear.yaml"]);
    let original = stdout(&["config", "show", "--json", "configs/original/clip_linear.yml"]);
    assert_eq!(serde_json::from_str::<Value>(&ours).unwrap(), serde_json::from_str::<Value>(&original).unwrap());
    assert!(
        stdout(&["config", "check", "configs/demo.yaml", "configs/clip_linear.yaml"]).contains("clip_linear.yaml: ok")
    );
    let temporary = tempfile::tempdir().unwrap();
    let bad = temporary.path().join("bad.yaml");
    let text = "encoder: {kind: clip-resnet, depht: 3}\nstitch: {kind: liner}\ndecoder: {kind: gptj}\nprompt: 3\n";
    std::fs::write(&bad, text).unwrap();
    let output = limber(&["config", "check", bad.to_str().unwrap()]);
    let problems = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    for part in ["depht", "liner", "prompt"] {
        assert!(problems.contains(part), "{problems}");
    }
}

#[test]
fn a_deep_check_tells_the_shapes_from_end_to_end() {
    let golden = |path: &str| folder(path).to_str().unwrap().to_string();
    let temporary = tempfile::tempdir().unwrap();
    let config = temporary.path().join("c.yaml");
    let write = |stitch: &str, more: &str| {
        let (decoder, tokenizer) = (golden("train/decoder"), golden("tokenizer/json"));
        let text = format!(
            "encoder: {{kind: features, tokens: 4, width: 24}}\nstitch: {{kind: linear{stitch}}}\n\
             decoder: {{kind: gptj, weights: '{decoder}', tokenizer: '{tokenizer}'}}\n{more}"
        );
        std::fs::write(&config, text).unwrap();
    };
    let check = |deep: &[&str]| limber(&[&["config", "check", config.to_str().unwrap()], deep].concat());
    write(
        &format!(", weights: '{}'", golden("train/start.safetensors")),
        &format!("data: {{format: jsonl, path: '{}'}}", golden("train/data.jsonl")),
    );
    let output = check(&["--deep"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let expected = [
        "c.yaml: ok\n",
        "  4 x 24 -> features -> 4 x 24\n",
        "  4 x 24 -> linear, 800 parameters -> 4 x 32\n",
        "  data: ",
    ];
    contains(&told, &expected);
    // What a quick check does not see.
    write(", weights: no.ckpt", "data: {format: jsonl, path: no.jsonl, features: no}");
    let absent = "c.yaml: section \"stitch\", key \"weights\": there is no file or folder";
    let output = check(&[]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(0) && told.contains(&format!("note: {}", config.parent().unwrap().display())));
    assert!(told.contains(absent), "{told}");
    let output = check(&["--deep"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && told.contains(absent), "{told}");
    // Data are for training; a model without them captions.
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["section \"data\", key \"path\": there is no file or folder", "section \"data\", key \"features\": "] {
        assert!(told.contains(part), "{told:?} lacks {part:?}");
    }
    assert!(told.contains("; `limber train` and `limber fit` need it, `limber caption` does not\n"), "{told}");
    assert_eq!(check(&["--deep", "--set", "stitch.weights=random:1"]).status.code(), Some(0));
    // A tokenizer that is named, and one that should be beside the weights.
    let bare = temporary.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    let set = format!("decoder.tokenizer={}", bare.display());
    let sets = ["--deep", "--set", "stitch.weights=random:1", "--set"];
    for set in [set.as_str(), "decoder.tokenizer=null"] {
        let output = check(&[&sets[..], &[set]].concat());
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = "section \"decoder\": no tokenizer in ";
        assert!(output.status.code() == Some(1) && told.contains(expected), "{told}");
    }
    // A stitch of other widths, and a decoder of other sizes than its settings say.
    write(&format!(", weights: '{}'", golden("proj/proj_f32.ckpt")), "");
    let told = String::from_utf8_lossy(&check(&["--deep"]).stdout).into_owned();
    assert!(told.contains("section \"stitch\": ") && told.contains("decoder gptj takes 32"), "{told}");
    let set = ["--deep", "--set", "decoder.n_layer=9", "--set", "stitch.weights=random:1"];
    let told = String::from_utf8_lossy(&check(&set).stdout).into_owned();
    assert!(told.contains("section \"decoder\": "), "{told}");
    let line: Value = serde_json::from_slice(&limber(&["config", "check", "--deep", "--json", "demo"]).stdout).unwrap();
    assert_eq!(
        (&line["ok"], &line["shapes"][1]),
        (&json!(true), &json!("16 x 768 -> linear, 123,040 parameters -> 16 x 160"))
    );
}

#[test]
fn keys_within_sections_are_described() {
    let of = |name: &str| serde_json::from_str::<Value>(&stdout(&["describe", "--json", name])).unwrap();
    let (train, validate) = (of("train"), of("train.validate"));
    assert_eq!(validate["section"], "train.validate");
    assert_eq!(train["settings"]["properties"]["validate"], validate["settings"]);
    assert!(validate["settings"]["properties"]["data"]["properties"]["format"].is_object(), "{validate}");
    assert_eq!(of("train.validate.data.workers")["settings"]["maximum"], limber::config::MAX_WORKERS);
    let output = limber(&["describe", "train.validat"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown kind \"train.validat\""));
}

#[test]
fn text_stays_text_in_a_set() {
    let hash = "1234567890".repeat(6) + "1234";
    let weights = "stitch.weights=https://x.org/p.ckpt";
    let show = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let text = stdout(&[&["config", "show", "--json", "demo"], sets.as_slice()].concat());
        serde_json::from_str::<Value>(&text).unwrap()
    };
    assert_eq!(show(&[weights, &format!("stitch.sha256={hash}")])["stitch"]["sha256"], hash);
    let shown = show(&["prompt=7", "train.prompt=true", "train.output=2024", "data={format: csv, path: '3'}"]);
    assert_eq!((&shown["prompt"], &shown["train"]["prompt"]), (&json!("7"), &json!("true")));
    assert!(shown["train"]["output"].as_str().unwrap().ends_with("/2024"), "{shown}");
    // Null still takes a key away, and numbers are numbers.
    let shown = show(&["train.prompt=null", "train.steps=7", "train.recompute=false"]);
    let train = &shown["train"];
    assert_eq!((&train["prompt"], &train["steps"], &train["recompute"]), (&Value::Null, &json!(7), &json!(false)));
}

#[test]
fn shipped_configs_go_by_their_names_from_any_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_limber")).args(arguments).current_dir(temporary.path()).output().unwrap()
    };
    let show = |name: &str| {
        let output = run(&["config", "show", "--json", name]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let file = |name: &str| {
        let path = Path::new(crate::ROOT).join("configs").join(name);
        serde_json::from_str::<Value>(&stdout(&["config", "show", "--json", path.to_str().unwrap()])).unwrap()
    };
    for (name, path) in [("clip_linear", "clip_linear.yaml"), ("siglip_qwen", "combine/siglip_qwen.yaml")] {
        assert_eq!(show(name), file(path));
    }
    let tree = show("clip_linear");
    let source = "https://raw.githubusercontent.com/jmerullo/limber/main/limber_weights/clip_linear/proj.ckpt";
    assert_eq!((&tree["stitch"]["weights"], &tree["train"]["start"]), (&json!(source), &json!("random")));
    let names = String::from_utf8(run(&["config", "list"]).stdout).unwrap();
    assert!(names.lines().any(|line| line.starts_with("clip_linear ") && line.contains("CLIP RN50x16")), "{names}");
    let lines = String::from_utf8(run(&["config", "list", "--json"]).stdout).unwrap();
    assert_eq!(lines.lines().count(), names.lines().count());
    let second: Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
    assert_eq!(second["name"], "clip_linear");
    assert!(second["about"].as_str().unwrap().starts_with("CLIP RN50x16"), "{second}");
    // A folder of that name cannot be meant; a file of that name takes precedence.
    std::fs::create_dir(temporary.path().join("clip_linear")).unwrap();
    assert_eq!(show("clip_linear"), tree);
    std::fs::write(temporary.path().join("demo"), "encoder: {kind: beit}\nstitch: {kind: mlp}\ndecoder: {kind: opt}\n")
        .unwrap();
    assert_eq!(show("demo")["encoder"]["kind"], "beit");
    let output = run(&["config", "show", "clip_lineal"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("no config of this name ships with the program either, expected demo, clip_linear"),
        "{message}"
    );
}

#[test]
fn loading_and_config_check_say_the_same_of_a_section() {
    for set in ["encoder.foo=1", "stitch.dropout=2", "decoder.n_head=0"] {
        let check = limber(&["config", "check", "configs/demo.yaml", "--set", set]);
        let check = String::from_utf8_lossy(&check.stdout);
        let problem = check.trim_end().strip_prefix(&format!("--set {set}: ")).unwrap();
        let loading = limber(&["caption", "--set", set, "x.png"]);
        assert_eq!(String::from_utf8_lossy(&loading.stderr).trim_end(), format!("error: {problem}"));
        assert_eq!(problem.matches("section").count(), 1, "{problem}");
    }
}

#[test]
fn config_check_asks_components_and_device() {
    let check = |sets: &[&str], expected: &str| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let arguments: Vec<&str> = ["config", "check", "configs/demo.yaml"].into_iter().chain(sets).collect();
        let output = limber(&arguments);
        let problems = String::from_utf8_lossy(&output.stdout);
        assert_eq!((output.status.code(), problems.lines().count()), (Some(1), 1), "{problems}");
        assert!(problems.contains(expected), "{problems}");
    };
    check(&["stitch.dropout=2"], "key \"dropout\": value 2 is not allowed, expected a number, at least 0 and below 1");
    check(&["encoder.image_size=0"], "key \"image_size\": value 0 is not allowed, expected a whole number, at least 1");
    check(&["decoder.n_head=0"], "key \"n_head\": value 0 is not allowed, expected a whole number, at least 1");
    check(&["device=cuda:9"], "key \"device\": ");
    // Random weights have no document beside them, so that the settings tell all sizes.
    let random = ["decoder.weights=random:1", "decoder.n_embd=30", "decoder.n_head=4"];
    check(&random, "section \"decoder\": gptj: n_embd 30 is not a multiple of n_head 4");
    let all = ["encoder.weights=random:1", "encoder.model=RN50", "decoder.weights=random:1", "stitch.tokens=2"];
    check(&all, "section \"stitch\": ");
}

#[test]
fn help_explains_the_values_of_a_flag() {
    let help = stdout(&["encode", "--help"]);
    for explained in ["- webdataset:", "- coco:", "- npy:", "- bf16:"] {
        assert!(help.contains(explained), "{help}");
    }
}

#[test]
fn convert_keeps_every_tensor() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("out.safetensors");
    let input = folder("gptj/bin-sharded").to_str().unwrap().to_string();
    let summary = &lines(&["convert", &input, "--out", out.to_str().unwrap(), "--json"])[0];
    assert_eq!(summary["tensors"], 35);
    let ours = candle_core::safetensors::load(&out, &Device::Cpu).unwrap();
    let theirs = candle_core::safetensors::load(folder("gptj/f32/model.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(ours.len(), theirs.len());
    for (name, tensor) in &theirs {
        assert_eq!(largest(&ours[name], tensor), 0.0, "{name}");
    }
    fails(&["convert", "no-such.bin", "--out", "x.safetensors"], &["no-such.bin"]);
}

#[test]
fn convert_writes_what_the_name_says() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name).to_str().unwrap().to_string();
    let input = folder("train/decoder").to_str().unwrap().to_string();
    let caption = |decoder: &str| {
        let config = super::train::config(
            &temporary.path().join("c"),
            &[("/decoder", json!({"kind": "auto", "weights": decoder}))],
        );
        let image = folder("train/features/03.npy");
        let line = &lines(&[
            "caption",
            "--config",
            config.to_str().unwrap(),
            "--json",
            "--max-tokens",
            "8",
            image.to_str().unwrap(),
        ])[0];
        json!([line["tokens"], line["logprobs"]])
    };
    // The decoder has no tokenizer beside it.
    let own = temporary.path().join("own");
    std::fs::create_dir(&own).unwrap();
    for from in [Path::new(&input), &folder("tokenizer/json")] {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, own.join(path.file_name().unwrap())).unwrap();
        }
    }
    let own = own.to_str().unwrap();
    let expected = caption(own);
    for (out, flags) in [("plain", vec![]), ("model-1.5b", vec![]), ("half", vec!["--dtype", "q8_0"])] {
        stdout(&[&["convert", own, "--out", &at(out)][..], &flags].concat());
        assert!(Path::new(&at(out)).join("tokenizer.json").is_file());
        let said = caption(&at(out));
        assert_eq!(said == expected, flags.is_empty(), "{out}");
    }
    // From a folder to one file and back to a folder: nothing is lost on the way.
    stdout(&["convert", own, "--out", &at("m.gguf")]);
    stdout(&["convert", &at("m.gguf"), "--out", &at("back")]);
    assert_eq!(caption(&at("back")), expected);
    for (name, start) in [("a.pt", b"PK"), ("b.ckpt", b"PK"), ("c.bin", b"PK"), ("d.gguf", b"GG")] {
        stdout(&["convert", own, "--out", &at(name)]);
        assert!(std::fs::read(at(name)).unwrap().starts_with(start), "{name}");
    }
    fails(
        &["convert", own, "--out", &at("x.safetensor")],
        &["the ending .safetensor is not known, expected .safetensors, .gguf"],
    );
    fails(&["convert", own, "--out", own], &["is the folder of the checkpoint itself, expected another one"]);
}
