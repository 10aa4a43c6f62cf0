//! Config files from the outside: both formats, `extends`, `--set`, the original's files, every message.

use limber::config::{self, Compat, ConfigError, DataFormat, Loaded, Schedule};
use limber::core::Registry;
use limber::core::registry::{Entry, Maker, Origin};
use limber::weights::WeightSpec;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const COMPONENTS: &str = "encoder: {kind: a}\nstitch: {kind: b}\ndecoder: {kind: c}\n";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn sets(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

fn load_text(text: &str, list: &[&str]) -> Result<Loaded, ConfigError> {
    config::load_text("c.yaml", text, Path::new("."), &sets(list))
}

fn tree(loaded: &Loaded) -> Value {
    loaded.config.to_value()
}

fn repository(path: &str) -> PathBuf {
    Path::new(crate::ROOT).join("configs").join(path)
}

#[test]
fn a_tilde_in_front_of_a_path_is_the_home_folder() {
    let home = std::env::home_dir().unwrap();
    let at = |path: &str| json!(home.join(path));
    let files = folder(&[
        ("base.yaml", "plugins: [~/a.so]\ntrain: {output: ~/~x}\n"),
        (
            "c.yaml",
            "extends: base.yaml\nencoder: {kind: a, weights: ~/m}\nstitch: {kind: b, weights: '~b'}\n\
             decoder: {kind: c, weights: x/~/m}\ndata: {format: jsonl, path: ~/d, images: '~'}\n",
        ),
    ]);
    let set = sets(&["train.validate={every: 3, data: {format: jsonl, path: ~/v}}"]);
    let found = tree(&config::load(&files.path().join("c.yaml"), &set).unwrap());
    let section = |role: &str| found[role]["weights"].clone();
    assert_eq!([section("encoder"), section("stitch"), section("decoder")], [at("m"), json!("~b"), json!("x/~/m")]);
    assert_eq!((&found["plugins"][0], &found["train"]["output"]), (&at("a.so"), &at("~x")));
    assert_eq!((&found["data"]["path"], &found["data"]["images"]), (&at("d"), &at("")));
    assert_eq!(found["train"]["validate"]["data"]["path"], at("v"));
}

#[test]
fn yaml_and_toml_are_one_config() {
    let yaml = "encoder: {kind: clip-resnet, model: RN50}\nstitch: {kind: mlp, dropout: 0.1}\n\
                decoder: {kind: gptj, weights: 'random:3', dtype: q8_0}\nprompt: 'Q:'\n\
                train: {steps: 10, schedule: cosine, betas: [0.8, 0.9], output: out}\n\
                data: {format: jsonl, path: d.jsonl, shuffle: false}\nplugins: [a.so]\ncompat: original\n";
    let toml = "prompt = 'Q:'\nplugins = ['a.so']\ncompat = 'original'\n\
                [encoder]\nkind = 'clip-resnet'\nmodel = 'RN50'\n[stitch]\nkind = 'mlp'\ndropout = 0.1\n\
                [decoder]\nkind = 'gptj'\nweights = 'random:3'\ndtype = 'q8_0'\n\
                [train]\nsteps = 10\nschedule = 'cosine'\nbetas = [0.8, 0.9]\noutput = 'out'\n\
                [data]\nformat = 'jsonl'\npath = 'd.jsonl'\nshuffle = false\n";
    let files = folder(&[("a.yaml", yaml), ("a.toml", toml), ("plain", toml)]);
    let load = |name: &str| config::load(&files.path().join(name), &[]).unwrap();
    assert_eq!(load("a.yaml").config, load("a.toml").config);
    assert_eq!(load("a.yaml").config, load("plain").config);
    let config = load("a.yaml").config;
    assert_eq!(config.compat, Some(Compat::Original));
    let (train, data) = (config.train.as_ref().unwrap(), config.data.as_ref().unwrap());
    assert_eq!((train.steps, train.schedule, train.betas), (10, Schedule::Cosine, [0.8, 0.9]));
    assert_eq!((data.format, data.shuffle), (DataFormat::Jsonl, false));
    assert_eq!(config.resolve("out"), files.path().join("out"));
}

#[test]
fn what_is_not_said_has_its_default() {
    let expected = json!({
        "encoder": {"kind": "a"}, "stitch": {"kind": "b"}, "decoder": {"kind": "c"},
        "prompt": "A picture of",
        "generate": {"max_tokens": 64, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
            "stop": [], "chat": false, "seed": 0, "batch": 1, "cache": "f32"},
        "plugins": [],
        "images": {"max_pixels": 178_956_970, "exif_orientation": false},
        "device": "cpu",
    });
    assert_eq!(tree(&load_text(COMPONENTS, &[]).unwrap()), expected);
    let train = json!({
        "start": "stitch", "steps": 15000, "batch": 8, "accumulate": 1, "lr": 8e-4, "min_lr": 0.0, "warmup": 100, "warmup_type": "log",
        "schedule": "warmup-decay",
        "clip": 1.0, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.0, "save_every": 500, "keep": 1, "seed": 0,
        "recompute": true,
    });
    assert_eq!(tree(&load_text(&format!("{COMPONENTS}train: {{}}\n"), &[]).unwrap())["train"], train);
}

#[test]
fn what_is_shown_loads_as_an_equal_config() {
    let sha = "ab".repeat(32);
    let more = format!(
        "prompt: 'yes: #1'\ntrain: {{lr: 1, output: o}}\ndata: {{format: csv, path: p, features: f}}\nthreads: 3\n\
         plugins: [x.so, {{path: y.so, sha256: {sha}}}]\ndevice: cuda:1\n"
    );
    let loaded =
        load_text(&format!("{COMPONENTS}{more}"), &["encoder.model=null", "encoder.mean=[0.5, 1, 0]"]).unwrap();
    for json in [false, true] {
        let shown = config::show(&loaded.config, json);
        assert_eq!(load_text(&shown, &[]).unwrap().config, loaded.config, "{shown}");
    }
    assert_eq!(config::show(&loaded.config, true).lines().count(), 1);
}

#[test]
fn other_files_lie_below() {
    let files = folder(&[
        (
            "parts/base.yaml",
            "encoder: {kind: a, model: m, weights: w.bin}\nstitch: {kind: b, tokens: 4}\nplugins: [p.so]\n",
        ),
        ("lm.toml", "prompt = 'lm'\n[decoder]\nkind = 'c'\nweights = 'hf:x/y'\ntokenizer = 'tok'\n"),
        ("one.yaml", "extends: parts/base.yaml\nencoder: {model: null}\ndecoder: {kind: c}\n"),
        ("two.yaml", "extends: [parts/base.yaml, lm.toml]\nencoder: {kind: other}\nplugins: [q.so]\n"),
        ("deep/three.yaml", "extends: ../two.yaml\nprompt: mine\n"),
    ]);
    let load = |name: &str| config::load(&files.path().join(name), &[]).unwrap();
    let one = tree(&load("one.yaml"));
    assert_eq!(
        one["encoder"],
        json!({"kind": "a", "weights": "parts/w.bin"}),
        "null removes, paths keep their meaning"
    );
    assert_eq!((&one["stitch"], &one["plugins"]), (&json!({"kind": "b", "tokens": 4}), &json!(["parts/p.so"])));
    let two = tree(&load("two.yaml"));
    assert_eq!(two["encoder"], json!({"kind": "other"}), "another kind takes nothing over");
    assert_eq!((&two["prompt"], &two["plugins"]), (&json!("lm"), &json!(["q.so"])), "lists are replaced");
    let three = load("deep/three.yaml");
    assert_eq!(tree(&three)["decoder"], json!({"kind": "c", "weights": "hf:x/y", "tokenizer": "../tok"}));
    assert_eq!(three.config.prompt, "mine");
    assert_eq!(three.files.len(), 4);
}

#[test]
fn sets_lie_above() {
    let config = load_text(
        COMPONENTS,
        &[
            "encoder.weights=random:1",
            "stitch.weights=p.ckpt",
            "generate.temperature=0.7",
            "train.betas=[0.5, 0.6]",
            "prompt=Q: what?",
        ],
    )
    .unwrap()
    .config;
    assert_eq!(config.encoder.weights, Some(WeightSpec::Random(1)));
    let working = std::env::current_dir().unwrap().join("p.ckpt");
    assert_eq!(config.stitch.weights.unwrap().local(), Some(working.as_path()), "counts from the working folder");
    assert_eq!((config.generate.temperature, config.train.unwrap().betas), (0.7, [0.5, 0.6]));
    assert_eq!(config.prompt, "Q: what?");
    let loaded =
        load_text("encoder: {kind: a, model: m}\nstitch: {kind: b}\ndecoder: {kind: c}\n", &["encoder.kind=x"])
            .unwrap();
    assert_eq!(tree(&loaded)["encoder"], json!({"kind": "x"}));
}

#[test]
fn every_wrong_config_has_its_message() {
    let check = |more: &str, list: &[&str], expected: &[&str]| {
        let error = load_text(&format!("{COMPONENTS}{more}"), list).unwrap_err();
        assert_eq!(error.to_string().lines().collect::<Vec<_>>(), expected);
    };
    let top = "encoder, stitch, decoder, prompt, generate, train, data, eval, plugins, compat, images, device, threads";
    check(
        "promt: x\n",
        &[],
        &[&format!("c.yaml:4:1: key \"promt\": unknown key (did you mean \"prompt\"?); expected keys: {top}")],
    );
    check(
        "generate: {top_p: 1.5,\n  temprature: 1}\n",
        &[],
        &[
            "c.yaml:4:12: section \"generate\", key \"top_p\": value 1.5 is not allowed, expected a number, above 0 and at most 1",
            "c.yaml:5:3: section \"generate\", key \"temprature\": unknown key (did you mean \"temperature\"?); expected keys: max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, stop, chat, seed, batch, cache",
        ],
    );
    let one = |section: &str, key: &str, value: &str, message: &str| {
        let set = format!("{section}.{key}={value}");
        check("", &[&set], &[&format!("--set {set}: section {section:?}, key {key:?}: {message}")]);
    };
    one("generate", "temperature", "-1", "value -1 is not allowed, expected a number, at least 0");
    one("generate", "temperature", "hot", "value \"hot\" is not allowed, expected a number, at least 0");
    one("generate", "max_tokens", "0", "value 0 is not allowed, expected a whole number, at least 1");
    one("generate", "top_k", "2.5", "value 2.5 is not allowed, expected a whole number, at least 0");
    one("generate", "cache", "q8_0", "value \"q8_0\" is not allowed, expected f32, f16 or bf16");
    one("images", "exif_orientation", "1", "value 1 is not allowed, expected true or false");
    one("images", "max_pixels", "0", "value 0 is not allowed, expected a whole number, at least 1");
    one("train", "steps", "0", "value 0 is not allowed, expected a whole number from 1 to 1000000000");
    let most = "expected a whole number from 1 to 65536";
    one("train", "batch", "1e12", &format!("value 1000000000000.0 is not allowed, {most}"));
    one("train", "accumulate", "18446744073709551615", &format!("value 18446744073709551615 is not allowed, {most}"));
    one("train", "recompute", "all", "value \"all\" is not allowed, expected true, cheap or false");
    one("train", "lr", "-0.1", "value -0.1 is not allowed, expected a number, at least 0");
    one("train", "eps", "0", "value 0 is not allowed, expected a number, above 0");
    let beta = "a number, at least 0 and below 1";
    one("train", "betas", "0.9", &format!("value 0.9 is not allowed, expected a list of 2, each {beta}"));
    one("train", "betas", "[0.9]", &format!("value [0.9] is not allowed, expected a list of 2, each {beta}"));
    check(
        "train: {betas: [0.9, 1]}\n",
        &[],
        &[&format!("c.yaml:4:9: section \"train\", key \"betas.1\": value 1 is not allowed, expected {beta}")],
    );
    one("train", "min_lr", "0.1", "value 0.1 is not allowed, expected at most lr, which is 0.0008");
    let text =
        "c.yaml:4:9: section \"train\", key \"output\": value 3 is not allowed, expected text (put it in quotes)";
    check("train: {output: 3}\n", &[], &[text]);
    one(
        "train",
        "schedule",
        "warmup-decai",
        "value \"warmup-decai\" is not allowed (did you mean \"warmup-decay\"?), expected warmup-decay, warmup, cosine or constant",
    );
    check(
        "train: {lr: .nan}\n",
        &[],
        &["c.yaml:4:9: section \"train\", key \"lr\": value NaN is not allowed, expected a number, at least 0"],
    );
    check("generate: 3\n", &[], &["c.yaml:4:1: section \"generate\": value 3 is not allowed, expected a map of keys"]);
    check(
        "data: {path: x}\n",
        &[],
        &[
            "c.yaml:4:1: section \"data\", key \"format\": missing key, expected magma, coco, jsonl, csv, webdataset, llava, imagefolder or parquet: how it is laid out",
        ],
    );
    check(
        "data: {format: magma}\n",
        &[],
        &["c.yaml:4:1: section \"data\", key \"path\": missing key, expected text: file, folder or shards"],
    );
    check(
        "data: {format: magma, path: x, workers: 257}\n",
        &[],
        &[
            "c.yaml:4:32: section \"data\", key \"workers\": value 257 is not allowed, expected a whole number from 0 to 256",
        ],
    );
    check(
        "train: {validate: {every: 0, data: {format: magma}}}\n",
        &[],
        &[
            "c.yaml:4:20: section \"train.validate\", key \"every\": value 0 is not allowed, expected a whole number, at least 1",
            "c.yaml:4:30: section \"train.validate.data\", key \"path\": missing key, expected text: file, folder or shards",
        ],
    );
    check("compat: magma\n", &[], &["c.yaml:4:1: key \"compat\": value \"magma\" is not allowed, expected original"]);
    check(
        "device: gpu\n",
        &[],
        &["c.yaml:4:1: key \"device\": value \"gpu\" is not allowed, expected cpu, cuda, cuda:N or metal"],
    );
    check(
        "threads: 1000000\n",
        &[],
        &["c.yaml:4:1: key \"threads\": value 1000000 is not allowed, expected a whole number from 1 to 1024"],
    );
    check(
        "plugins: a.so\n",
        &[],
        &["c.yaml:4:1: key \"plugins\": value \"a.so\" is not allowed, expected a list, each text or a map of keys"],
    );
    check(
        "plugins: [x.so, {path: a, sha256: beef}]\n",
        &[],
        &[
            "c.yaml:4:1: section \"plugins.1\", key \"sha256\": value \"beef\" is not allowed, expected 64 hexadecimal digits",
        ],
    );
    check(
        "eval: {question: 'Q: {question}'}\n",
        &[],
        &[
            "c.yaml:4:8: section \"eval\", key \"question\": value \"Q: {question}\" is not allowed, expected {answer} in it once",
        ],
    );
    check("decoder: {kind: c}\n", &[], &["c.yaml:4:1: key \"decoder\" stands twice"]);
    check(
        "extends: 3\n",
        &[],
        &["c.yaml:4:1: key \"extends\": value [3] is not allowed, expected the name of a file, or a list of them"],
    );
    check("", &["encoder"], &["--set encoder: expected KEY=VALUE, for instance --set generate.temperature=0.7"]);
    check("prompt: x\n", &["prompt.y=1"], &["--set prompt.y=1: \"prompt\" is a value without keys: \"x\""]);
    check(
        "encoder_name: clip\n",
        &[],
        &[
            "c.yaml:1:1: key \"encoder\": unknown key; the original's flat keys and limber's sections do not mix",
            "c.yaml:2:1: key \"stitch\": unknown key; the original's flat keys and limber's sections do not mix",
            "c.yaml:3:1: key \"decoder\": unknown key; the original's flat keys and limber's sections do not mix",
        ],
    );
    let error =
        load_text("encoder: {model: m}\nstitch: {kind: b}\ntrain: {lr: x}\nthread: 3\n", &[]).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    let kind = "c.yaml:1:1: section \"encoder\", key \"kind\": missing key, expected text: the kind, as `limber components` lists it";
    assert!(lines[0].starts_with(kind), "{error}");
    assert!(lines[1].starts_with("c.yaml:3:9: section \"train\", key \"lr\": value \"x\" is not allowed"), "{error}");
    assert!(lines[2].starts_with("c.yaml:4:1: key \"thread\": unknown key (did you mean \"threads\"?)"), "{error}");
    assert_eq!(lines[3], "c.yaml: section \"decoder\": missing section; it needs the key \"kind\"");
    assert_eq!(
        load_text("- 1\n", &[]).unwrap_err().to_string(),
        "c.yaml: [1] is not allowed, expected a map of sections"
    );
}

#[test]
fn every_weights_string_that_loading_refuses_is_refused_by_the_check() {
    let registry = |_: &[config::Plugin], _: &Path| Ok(limber::built_in::registry().unwrap());
    for weights in ["random:007", "random:-1", "hf:a/..", "hf:a/b@", "hf:gpt2", "hf:a/b/../c", "http://x.org/y"] {
        let expected = weights.parse::<WeightSpec>().unwrap_err().to_string();
        for role in ["encoder", "stitch", "decoder"] {
            let set = format!("{role}.weights={weights}");
            let report = config::check_file(&repository("demo.yaml"), &sets(&[&set]), &registry, &|_| Ok(()));
            let found: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            assert_eq!(found, [format!("--set {set}: section {role:?}, key \"weights\": {expected}")]);
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = folder(&[
        ("a.yaml", "extends: b.yaml\n"),
        ("b.yaml", "extends: sub/c.yaml\n"),
        ("sub/c.yaml", "extends: ../a.yaml\n"),
        ("lost.yaml", "extends: nowhere.yaml\n"),
        ("below.yaml", "extends: bad.toml\n"),
        ("bad.toml", "encoder = {kind = 'a'}\nprompt = \n"),
        ("zero.yaml", "extends: /dev/zero\n"),
        ("many.yaml", "extends: [m1.yaml, m1.yaml, m1.yaml, m1.yaml]\n"),
        ("m1.yaml", "extends: [m2.yaml, m2.yaml, m2.yaml, m2.yaml]\n"),
        ("m2.yaml", "extends: [m3.yaml, m3.yaml, m3.yaml, m3.yaml]\n"),
        ("m3.yaml", "extends: [m4.yaml, m4.yaml, m4.yaml, m4.yaml]\n"),
        ("m4.yaml", "prompt: x\n"),
    ]);
    let check = |name: &str, parts: &[&str]| {
        let message = config::load(&files.path().join(name), &[]).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    check("none.yaml", &["none.yaml: cannot be read: "]);
    check("lost.yaml", &["nowhere.yaml: cannot be read: "]);
    check("below.yaml", &["bad.toml:2:10: "]);
    check("many.yaml", &["extends leads to more than 100 files"]);
    if cfg!(unix) {
        check("zero.yaml", &["/dev/zero: is a device, a socket or a named pipe, expected a config file"]);
    }
    check("a.yaml", &["extends goes round in a circle: ", "a.yaml -> ", "b.yaml -> ", "c.yaml -> "]);
}

#[test]
fn problems_name_the_file_they_come_from() {
    let base = "encoder: {kind: a}\ntrain:\n  lr: -1\n  steps: 0\n";
    let files = folder(&[
        ("base.yaml", base),
        ("top.yaml", "extends: base.yaml\nstitch: {kind: b}\ndecoder: {kind: c}\ntrain: {steps: -2}\n"),
    ]);
    let message = config::load(&files.path().join("top.yaml"), &[]).unwrap_err().to_string();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 2, "{message}");
    // In the order of the keys in the merged tree.
    assert!(lines[0].contains("base.yaml:3:3: section \"train\", key \"lr\": value -1"), "{message}");
    assert!(lines[1].contains("top.yaml:4:9: section \"train\", key \"steps\": value -2"), "{message}");
}

/// A component of every role whose settings have this schema.
fn toys(schema: &Value) -> Registry {
    let mut registry = Registry::new();
    for maker in [
        Maker::Encoder(Arc::new(move |_, _| Err(anyhow::anyhow!("never built")))),
        Maker::Stitch(Arc::new(move |_, _| Err(anyhow::anyhow!("never built")))),
        Maker::Decoder(Arc::new(move |_, _| Err(anyhow::anyhow!("never built")))),
    ] {
        let entry = Entry {
            kind: "toy".into(),
            about: String::new(),
            origin: Origin::BuiltIn { package: "toy".into(), version: "1".into() },
            files: Vec::new(),
            needs_weights: true,
            schema: schema.clone(),
            tiny: Value::Null,
            recognises: Arc::new(|_| Ok(false)),
            maker,
        };
        registry.insert(entry).unwrap();
    }
    registry
}

#[test]
fn check_lists_problems_of_files_and_components_at_once() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["width"],
        "properties": {"width": {"type": "integer", "minimum": 1}, "model": {"type": ["string", "null"]}},
    });
    let text =
        "encoder: {kind: toy, widht: 2}\nstitch: {kind: toy, width: 0, model: 3}\ndecoder: {kind: tou}\nprompt: 1\n";
    let files = folder(&[
        ("c.yaml", text),
        ("good.yaml", "encoder: {kind: auto}\nstitch: {kind: toy, width: 1}\ndecoder: {kind: auto}\n"),
        ("plugins.yaml", "encoder: {kind: auto}\nstitch: {kind: auto}\ndecoder: {kind: auto}\nplugins: [x.so]\n"),
    ]);
    let registry = |_: &[config::Plugin], _: &Path| Ok(toys(&schema));
    let report = config::check_file(&files.path().join("c.yaml"), &[], &registry, &|_| Ok(()));
    let messages: Vec<String> =
        report.problems.iter().map(|p| p.to_string().rsplit_once("c.yaml:").unwrap().1.to_string()).collect();
    assert_eq!(
        messages,
        [
            "4:1: key \"prompt\": value 1 is not allowed, expected text (put it in quotes)",
            "1:22: section \"encoder\", key \"widht\": unknown key (did you mean \"width\"?); expected keys: kind, weights, sha256, local, dtype, freeze, width, model",
            "1:1: section \"encoder\", key \"width\": missing key, expected a whole number, at least 1",
            "2:21: section \"stitch\", key \"width\": value 0 is not allowed, expected a whole number, at least 1",
            "2:31: section \"stitch\", key \"model\": value 3 is not allowed, expected text (put it in quotes)",
            "3:11: section \"decoder\", key \"kind\": unknown decoder kind \"tou\" (did you mean \"toy\"?); known kinds: toy",
        ]
    );
    assert_eq!(
        config::check_file(&files.path().join("good.yaml"), &[], &registry, &|_| Ok(())),
        config::Report::default()
    );
    let named =
        |plugins: &[config::Plugin], folder: &Path| anyhow::bail!("no {}", folder.join(&plugins[0].path).display());
    let path = files.path().join("plugins.yaml");
    let message = config::check_file(&path, &[], &named, &|_| Ok(())).problems[0].to_string();
    let expected = format!("{}:4:1: key \"plugins\": no {}", path.display(), files.path().join("x.so").display());
    assert_eq!(message, expected);
}

#[test]
fn the_published_files_and_ours_are_one_tree() {
    for &name in limber_configs::PUBLISHED {
        let ours = config::load(&repository(&format!("{name}.yaml")), &[]).unwrap();
        let theirs = config::load(&repository(&format!("original/{name}.yml")), &[]).unwrap();
        assert_eq!(tree(&theirs), tree(&ours), "{name}");
        assert_eq!(ours.notes, []);
        let keys: Vec<&str> = theirs.notes.iter().map(|note| note.key.as_str()).collect();
        for key in ["lr_decay_iters", "image_enc_lr", "zero_stage", "eval_every", "eval_dataset_dir"] {
            assert!(keys.contains(&key), "{name}: {keys:?} lacks {key}");
        }
        assert_eq!(keys.contains(&"save"), !["beit_linear", "beit_ft_linear"].contains(&name), "{name}");
        assert_eq!(keys.contains(&"encs_dir"), name == "clip_linear");
    }
    let demo = config::load(&repository("demo.yaml"), &[]).unwrap().config;
    assert_eq!((demo.encoder.kind.as_str(), demo.encoder.weights), ("clip-resnet", None));
}

#[test]
fn every_encoder_of_the_original_is_known() {
    let check = |flat: &str, encoder: Value, stitch: Value| {
        let loaded = load_text(&format!("{{{flat}, load: x/p.ckpt}}"), &[]).unwrap();
        assert_eq!(tree(&loaded)["encoder"], encoder);
        assert_eq!(tree(&loaded)["stitch"], stitch);
    };
    let linear = json!({"kind": "linear", "dropout": 0.0, "weights": "x/p.ckpt"});
    let pooled = |k: u64| json!({"kind": "linear", "dropout": 0.0, "weights": "x/p.ckpt", "tokens": k});
    let vit =
        json!({"kind": "clip-vit", "model": "ViT-B/32", "pool": true, "weights": "hf:openai/clip-vit-base-patch32"});
    check("encoder_name: clip", vit.clone(), pooled(2));
    check("image_seq_len: 4", vit, pooled(4));
    let rn50x4 = json!({"kind": "clip-resnet", "model": "RN50x4", "weights": "hf:timm/resnet50x4_clip.openai"});
    check("encoder_name: clip_resnet, image_seq_len: 49", rn50x4, linear.clone());
    let features = |n: u64, e: u64| json!({"kind": "features", "tokens": n, "width": e});
    check("encoder_name: clr_identity", features(144, 3072), linear.clone());
    check("encoder_name: nfresnet50_identity", features(2, 2048), linear.clone());
    let nf =
        json!({"kind": "nf-resnet", "model": "nf_resnet50", "image_size": 256, "pool": true, "weights": "random:0"});
    check("encoder_name: nfresnet50, pretrained_img_encoder: false, image_seq_len: 1", nf, pooled(1));
    let mut normed = linear;
    normed["layer_norm"] = true.into();
    let beit = json!({"kind": "beit", "model": "beit-large-patch16-224-pt22k", "weights": "hf:microsoft/beit-large-patch16-224-pt22k"});
    check("encoder_name: 'microsoft/beit-large-patch16-224-pt22k', use_image_embed_layernorm: true", beit, normed);
}

#[test]
fn keys_of_the_original_are_mapped_noted_or_refused() {
    let load = |flat: &str| load_text(&format!("{{encoder_name: clip_resnet_large,\n{flat}}}"), &[]);
    // As the published file writes it: no space before the comment, a comma at the end.
    let loaded = load("lm_name: 'EleutherAI/gpt-j-6B',#'other',\n adapter_config: {}, class_dict: null, weight_decay: 0.1,\n save: a, load: b/,\n}\n#").unwrap();
    let tree = tree(&loaded);
    assert_eq!((&tree["train"]["schedule"], &tree["train"]["weight_decay"]), (&json!("warmup"), &json!(0.1)));
    assert_eq!((&tree["train"]["output"], &tree["stitch"]["weights"]), (&json!("a"), &json!("b/proj.ckpt")));
    assert_eq!(loaded.notes, []);
    let loaded =
        load("encs_dir: e, train_dataset_dir: d, image_seq_len: 7, image_size: 224, wandb_project: w").unwrap();
    let notes: Vec<String> = loaded.notes.iter().map(|note| note.to_string()).collect();
    assert_eq!(
        notes,
        [
            "c.yaml: key \"image_size\" (224) has no effect: encoder \"clip_resnet_large\" takes images of side 384, in the original too",
            "c.yaml: key \"image_seq_len\" (7) has no effect: encoder \"clip_resnet_large\" gives 144 tokens, and each becomes one of the prefix",
            "c.yaml: key \"wandb_project\" (\"w\") has no effect: the log is a file in train.output",
            "c.yaml: key \"encs_dir\" (\"e\") has no effect: read for the identity encoders alone; for others set data.features",
        ]
    );
    let features = load_text("{encoder_name: clr_identity, encs_dir: e, train_dataset_dir: d}", &[]).unwrap();
    assert_eq!(features.config.data.unwrap().features.as_deref(), Some("e"));

    let check = |flat: &str, expected: &str| {
        assert_eq!(load(flat).unwrap_err().to_string(), format!("c.yaml:2:1: {expected}"), "{flat}");
    };
    check(
        "freeze_lm: false",
        "key \"freeze_lm\": value false is not allowed, expected true: only the stitch is trained",
    );
    check(
        "freeze_img_encoder: false",
        "key \"freeze_img_encoder\": value false is not allowed, expected true: only the stitch is trained",
    );
    check("run_blind: true", "key \"run_blind\": value true is not allowed, expected false: the image is always seen");
    check(
        "adapter_config: {mlp: {adapter_type: normal}}",
        "key \"adapter_config\": value {\"mlp\":{\"adapter_type\":\"normal\"}} is not allowed, expected null or {}: adapters in the decoder are not supported",
    );
    check(
        "class_dict: {num_classes: 2}",
        "key \"class_dict\": value {\"num_classes\":2} is not allowed, expected null or {}: classifier heads are not supported",
    );
    check("tokenizer_name: bert", "key \"tokenizer_name\": value \"bert\" is not supported, expected \"gpt2\"");
    check("lm_name: gpt2", "key \"lm_name\": value \"gpt2\" is not supported, expected \"EleutherAI/gpt-j-6B\"");
    check("optimizer_name: SGD", "key \"optimizer_name\": value \"SGD\" is not supported, expected \"AdamW\"");
    check("lr: -1", "key \"lr\": value -1 is not allowed, expected a number, at least 0");
    let message = load("train_step: 5").unwrap_err().to_string();
    assert!(
        message.starts_with(
            "c.yaml:2:1: key \"train_step\": unknown key (did you mean \"train_steps\"?); expected keys: "
        ),
        "{message}"
    );
    let message = load_text("{encoder_name: clip_resnet_larg}", &[]).unwrap_err().to_string();
    assert!(
        message.contains(
            "value \"clip_resnet_larg\" is not allowed (did you mean \"clip_resnet_large\"?), expected clip, "
        ),
        "{message}"
    );
    // A flat file can be built upon like any other.
    let files = folder(&[
        ("flat.yml", "{encoder_name: clip_resnet, train_steps: 9, batch_size: 3,}"),
        ("top.yaml", "extends: flat.yml\nprompt: x\n"),
    ]);
    let config = config::load(&files.path().join("top.yaml"), &sets(&["train.steps=4"])).unwrap().config;
    assert_eq!((config.prompt.as_str(), config.encoder.kind.as_str()), ("x", "clip-resnet"));
    assert_eq!(config.train.map(|t| (t.steps, t.batch)), Some((4, 3)));
}
