//! Plugins as a user meets them: named in configs, flags and the environment; listed, described, checked, trained with.

use super::golden::{folder, largest, relative, tensors};
use super::plugins_c::ran;
use super::program::{fails, lines, stdout};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The library of an example, which Cargo builds because the root package names it among the tests' dependencies.
pub(super) fn example(name: &str) -> PathBuf {
    let name = name.replace('-', "_");
    let file = format!("{}limber_example_{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = std::env::current_exe().unwrap().parent().unwrap().join(file);
    assert!(path.is_file(), "{} is not built", path.display());
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write(path: &Path, tree: &Value) {
    fs::write(path, tree.to_string()).unwrap();
}

fn with_variable(value: &Path, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(arguments)
        .current_dir(folder)
        .env("LIMBER_PLUGIN_PATH", value)
        .output()
        .unwrap()
}

#[test]
fn a_plugin_is_listed_and_described_with_its_origin() {
    let library = example("timm-vit");
    let all = lines(&["plugin", "list", "--json", "--plugin", text(&library)]);
    let [line] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(
        (&line["name"], &line["version"], &line["abi"]),
        (&json!("limber-example-timm-vit"), &json!(env!("CARGO_PKG_VERSION")), &json!("1.0"))
    );
    assert_eq!(line["parts"][0]["kind"], json!("timm-vit"));
    let listed = stdout(&["plugin", "list", "--plugin", text(&library)]);
    assert!(listed.contains("ABI 1.0") && listed.contains("encoder  timm-vit"), "{listed}");
    let all = lines(&["components", "--json", "--plugin", text(&library)]);
    let line = all.iter().find(|line| line["kind"] == "timm-vit").unwrap();
    assert_eq!(line["from"]["origin"], json!("library"));
    assert_eq!(line["from"]["path"], json!(library.canonicalize().unwrap()));
    assert_eq!(line["from"]["abi"], json!("1.0"));
    assert!(all.iter().any(|line| line["kind"] == "clip-resnet"));
    let described = &lines(&["describe", "timm-vit", "--json", "--plugin", text(&library)])[0];
    assert_eq!(described["settings"]["properties"]["patch_size"]["default"], json!(16));
    assert!(described["settings"]["properties"]["heads"]["description"].as_str().unwrap().contains("divisor"));
}

/// timm's own numbers, through a config that names the library relative to its folder.
#[test]
fn a_config_uses_a_plugin_as_if_it_were_built_in() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("lib")).unwrap();
    let copy = temp.path().join("lib/vit.so");
    fs::copy(example("timm-vit"), &copy).unwrap();
    let hash: String = Sha256::digest(fs::read(&copy).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
    let golden = folder("timm_vit");
    let tree = json!({
        "encoder": {
            "kind": "timm-vit", "weights": golden.join("model.safetensors"),
            "image_size": 32, "resize_to": 36, "patch_size": 8, "width": 32, "layers": 2, "heads": 4, "mlp_ratio": 2,
        },
        "stitch": {"kind": "linear", "weights": "random:1"},
        "decoder": {"kind": "gptj", "weights": "random:2"},
        "plugins": [{"path": "lib/vit.so", "sha256": hash}],
    });
    let config = temp.path().join("c.yaml");
    write(&config, &tree);
    let loaded = limber::config::load(&config, &[]).unwrap().config;
    let registry = limber::plugins::registry(&loaded).unwrap();
    let source =
        limber::weights::open(&text(&golden.join("model.safetensors")).parse().unwrap(), &[], Path::new(".")).unwrap();
    let weights = limber::core::Weights::new(source.clone(), Device::Cpu, None);
    let settings = loaded.encoder.settings.clone().into();
    let encoder = registry.encoder("timm-vit", settings, source.as_ref()).unwrap().build(&weights).unwrap();
    let expected = tensors("timm_vit");
    let features = encoder.encode(&expected["pixels"]).unwrap();
    // f32 sums of 64 terms over two blocks.
    assert!(relative(&features, &expected["features"]) < 2e-5, "{}", relative(&features, &expected["features"]));

    // Through the program, from an image file; the same pixels give the same features in a library call.
    let out = temp.path().join("out.safetensors");
    let image = super::program::scene(0);
    for stage in ["pixels", "features"] {
        stdout(&[
            "encode",
            "--config",
            text(&config),
            "--stage",
            stage,
            &image,
            "--out",
            text(&out.with_extension(stage)),
        ]);
    }
    let read = |stage: &str| -> Tensor {
        let all = candle_core::safetensors::load(out.with_extension(stage), &Device::Cpu).unwrap();
        all.into_values().next().unwrap()
    };
    let ours = encoder.encode(&read("pixels").unsqueeze(0).unwrap()).unwrap().squeeze(0).unwrap();
    assert_eq!(largest(&ours, &read("features")), 0.0);
    stdout(&["config", "check", text(&config)]);

    // Another hash, a key that the schema does not know, a file that is not there.
    let changed = |pointer: &str, key: &str, value: Value| {
        let mut tree = tree.clone();
        tree.pointer_mut(pointer).unwrap()[key] = value;
        let config = temp.path().join("changed.yaml");
        write(&config, &tree);
        config
    };
    let encode = |config: &Path, expected: &[&str]| {
        let out = text(&out).to_string();
        fails(&["encode", "--config", text(config), "--stage", "features", &image, "--out", &out], expected);
    };
    let wrong = "0".repeat(64);
    encode(
        &changed("/plugins/0", "sha256", json!(wrong)),
        &["plugins.0", "lib/vit.so", &format!("its SHA-256 is {hash}, the config says {wrong}")],
    );
    encode(&changed("/encoder", "patchsize", json!(8)), &["section \"encoder\"", "key \"patchsize\"", "patch_size"]);
    encode(&changed("/encoder", "heads", json!("four")), &["section \"encoder\"", "key \"heads\"", "\"four\""]);
    encode(&changed("/encoder", "heads", json!(3)), &["timm-vit", "width 32 is no multiple of heads 3"]);
    encode(&changed("/plugins/0", "path", json!("lib/none.so")), &["plugins.0", "lib/none.so", "No such file"]);
    let bad = changed("/plugins/0", "path", json!("lib/none.so"));
    let output = super::program::limber(&["config", "check", text(&bad)]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("lib/none.so") && said.contains("plugins"), "{said}");
}

#[test]
fn libraries_are_found_where_they_are_named_and_nowhere_else() {
    let temp = tempfile::tempdir().unwrap();
    let name = format!("vit.{}", std::env::consts::DLL_EXTENSION);
    fs::copy(example("timm-vit"), temp.path().join(&name)).unwrap();
    let kinds = |output: Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The working folder holds one, and nobody asks it.
    let none = Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(["components"])
        .current_dir(temp.path())
        .env_remove("LIMBER_PLUGIN_PATH")
        .output()
        .unwrap();
    assert!(!kinds(none).contains("timm-vit"));
    let elsewhere = tempfile::tempdir().unwrap();
    for value in [temp.path().to_path_buf(), temp.path().join(&name)] {
        assert!(kinds(with_variable(&value, elsewhere.path(), &["components"])).contains("timm-vit"));
    }
    for (value, expected) in [
        (Path::new("lib"), "LIMBER_PLUGIN_PATH holds \"lib\", which counts from the working folder"),
        (&temp.path().join("none"), "No such file"),
    ] {
        let output = with_variable(value, temp.path(), &["components"]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    // The flag counts from the working folder, and a library named twice is one.
    let output = with_variable(&temp.path().join(&name), temp.path(), &["plugin", "list", "--plugin", &name, "--json"]);
    assert_eq!(kinds(output).lines().count(), 1);
}

#[test]
fn a_kind_that_is_there_already_names_both_origins() {
    let temp = tempfile::tempdir().unwrap();
    let copy = temp.path().join("copy.so");
    fs::copy(example("timm-vit"), &copy).unwrap();
    let library = example("timm-vit");
    fails(
        &["components", "--plugin", text(&library), "--plugin", text(&copy)],
        &["encoder kind \"timm-vit\" is registered twice", "limber_example_timm_vit", "copy.so"],
    );
}

/// A model of three external components: trained, resumed bit for bit, its stitch read again.
#[test]
fn a_stitch_trains_between_external_components_and_is_saved_like_a_built_in_one() {
    let temp = tempfile::tempdir().unwrap();
    let golden = folder("train");
    let output = temp.path().join("out");
    let tree = json!({
            "encoder": {"kind": "features", "tokens": 4, "width": 24},
            "stitch": {"kind": "resampler", "tokens": 3, "width": 8, "heads": 2, "weights": "random:3"},
            "decoder": {
                "kind": "fading", "weights": "random:4", "tokenizer": folder("tokenizer/json"),
                "vocab": 421, "width": 32, "layers": 2, "heads": 4, "context": 64, "eos": 0,
            },
            "train": {
                "steps": 12, "batch": 14, "lr": 0.02, "warmup": 2, "schedule": "warmup", "save_every": 4, "keep": 9, "seed": 5,
                "output": output,
            },
            "data": {"format": "jsonl", "path": golden.join("data.jsonl"), "workers": 1},
            "plugins": [example("resampler"), example("fading")],
    });
    let config = temp.path().join("c.yaml");
    write(&config, &tree);
    let log = || -> Vec<(u64, f64)> {
        let text = fs::read_to_string(output.join("log.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap())).collect()
    };
    stdout(&["train", "--config", text(&config)]);
    let whole = log();
    assert_eq!(whole.len(), 12);
    // Every step sees all items, so that losses compare. The decoder is random: its logits stay near 0 whatever stands
    // before the words, and the loss near ln V.
    assert!(whole[11].1 < whole[0].1 - 0.01, "{whole:?}");
    let saved = output.join("stitch.safetensors");
    let bytes = fs::read(&saved).unwrap();
    // Cut back to its eighth step and resumed, it ends the same.
    fs::remove_file(&saved).unwrap();
    fs::remove_dir_all(output.join("checkpoints/step-00000012")).unwrap();
    stdout(&["train", "--config", text(&config), "--resume"]);
    assert_eq!(log(), whole);
    assert_eq!(fs::read(&saved).unwrap(), bytes);

    // What was saved is what is loaded.
    let stitch = format!("stitch.weights={}", saved.display());
    let input = golden.join("data.jsonl");
    let first: Value = serde_json::from_str(fs::read_to_string(&input).unwrap().lines().next().unwrap()).unwrap();
    let image = golden.join(first["image"].as_str().unwrap());
    let caption = |set: &str| {
        lines(&["caption", "--json", "--max-tokens", "4", "--config", text(&config), "--set", set, text(&image)])
    };
    let trained = caption(&stitch);
    assert_eq!(trained[0]["tokens"].as_array().unwrap().len(), 4);
    assert_ne!(trained[0]["logprobs"], caption("stitch.weights=random:3")[0]["logprobs"]);
    // A setting with which the file does not fit is refused, naming both sides.
    fails(
        &["caption", "--config", text(&config), "--set", &stitch, "--set", "stitch.width=16", text(&image)],
        &["section \"stitch\"", "latents has shape [3, 8], [3, 16]", "encoder features", "decoder fading"],
    );
}

#[test]
fn plugin_check_says_what_failed_and_why() {
    for name in ["timm-vit", "resampler", "fading"] {
        let report = stdout(&["plugin", "check", text(&example(name))]);
        assert!(report.contains("0 of ") && !report.contains("FAILED"), "{report}");
    }
    let liars = example("liars");
    let output = super::program::limber(&["plugin", "check", text(&liars)]);
    let (report, message) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("7 of 8 components fail the conformance suite"), "{message}");
    let reasons = [
        "features have shape [1, 5, 3], the spec says [1, 4, 3]",
        "the features carry a graph",
        "a batch gives what its images give alone: image 0 of 3",
        "an encoder in panic",
    ];
    super::program::contains(&report, &reasons);
    let output = super::program::limber(&["plugin", "check", "--json", text(&liars)]);
    let all: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let honest = all.iter().find(|line| line["kind"] == "honest").unwrap();
    assert_eq!((all.len(), &honest["passed"]), (8, &json!(true)));
    // What a plugin logs goes where the program's own log goes, with the library's name.
    let output = Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(["plugin", "check", text(&liars)])
        .env("LIMBER_LOG", "limber_plugin=debug")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let logged = String::from_utf8_lossy(&output.stderr);
    let line = logged.lines().find(|line| line.contains("an encoder is built kind=\"liar-nan\"")).unwrap_or_default();
    for part in ["DEBUG", "library=", "limber_example_liars", "at=\"limber_example_liars\""] {
        assert!(line.contains(part), "{line:?} lacks {part:?} in {logged}");
    }
    fails(&["plugin", "check", "Cargo.toml"], &["plugin Cargo.toml", "cannot be loaded"]);
    fails(&["plugin", "check", "src"], &["plugin src", "it is not a file"]);
}

#[test]
fn a_new_crate_is_its_example_under_another_name() {
    let into = tempfile::tempdir().unwrap();
    let here = Path::new(crate::ROOT);
    for (role, kind) in [("encoder", "timm-vit"), ("decoder", "fading"), ("stitch", "resampler")] {
        let name = format!("own-{kind}");
        let made = ran(Command::new(env!("CARGO_BIN_EXE_limber"))
            .args(["plugin", "new", &name, "--kind", role, "--limber", text(here)])
            .current_dir(into.path()));
        assert!(made.contains(&name), "{made}");
        let (folder, example) = (into.path().join(&name), here.join("plugins/examples").join(kind));
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        for file in ["src/lib.rs", "tests/plugin.rs"] {
            let own = read(folder.join(file));
            assert!(own.contains(&format!("\"{name}\"")) && !own.contains("limber_example"), "{file}: {own}");
            let crates = (name.replace('-', "_"), format!("limber_example_{}", kind.replace('-', "_")));
            assert_eq!(own.replace(&crates.0, &crates.1).replace(&name, kind), read(example.join(file)));
        }
        // The same crates of the same versions as the example has, which our own build resolves.
        let table = |path: PathBuf| read(path).parse::<toml::Table>().unwrap();
        let [manifest, theirs, workspace] =
            [folder, example, here.to_path_buf()].map(|folder| table(folder.join("Cargo.toml")));
        for section in ["dependencies", "dev-dependencies"] {
            let names = |table: &toml::Table| -> BTreeSet<String> {
                table[section].as_table().unwrap().keys().cloned().collect()
            };
            assert_eq!(names(&manifest), names(&theirs));
            for (name, value) in manifest[section].as_table().unwrap() {
                match name.starts_with("limber-") {
                    true => assert!(Path::new(value["path"].as_str().unwrap()).join("Cargo.toml").is_file()),
                    false => assert_eq!(*value, workspace["workspace"]["dependencies"][name], "{name}"),
                }
            }
        }
    }
}

#[test]
fn a_new_crate_takes_limber_from_git_or_a_folder_and_never_from_a_registry() {
    let into = tempfile::tempdir().unwrap();
    let new = |name: &str, limber: &[&str]| {
        let arguments = [&["plugin", "new", name, "--kind", "stitch"], limber].concat();
        Command::new(env!("CARGO_BIN_EXE_limber")).args(arguments).current_dir(into.path()).output().unwrap()
    };
    for (name, limber, expected) in [
        ("plain", "https://example.org/o/limber", json!({"git": "https://example.org/o/limber"})),
        (
            "commit",
            "https://example.org/o/limber#0a1b2c",
            json!({"git": "https://example.org/o/limber", "rev": "0a1b2c"}),
        ),
        ("tag", "git@example.org:o/limber#tag=v1", json!({"git": "ssh://git@example.org/o/limber", "tag": "v1"})),
        ("folder", crate::ROOT, Value::Null),
    ] {
        assert!(new(name, &["--limber", limber]).status.success(), "{name}");
        let manifest = fs::read_to_string(into.path().join(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let mut ours = 0;
        for section in ["dependencies", "dev-dependencies"] {
            for (package, value) in
                manifest[section].as_table().unwrap().iter().filter(|(p, _)| p.starts_with("limber"))
            {
                ours += 1;
                let value = serde_json::to_value(value).unwrap();
                assert!(value.get("version").is_none() && !value.is_string(), "{package} = {value}");
                assert!(value == expected || value.get("path").is_some() == expected.is_null(), "{package} = {value}");
            }
        }
        assert_eq!(ours, 3);
    }
    // Wrong usage: nothing is made, and the message says what to do.
    for (limber, expected) in [
        (&[][..], &["--limber FOLDER names a checkout", "git repository", "in no registry", "--language c"][..]),
        (&["--limber", "ftp://example.org/limber"], &["the scheme is \"ftp\", expected one of https, ssh"]),
        (&["--limber", "https://example.org/limber#"], &["behind # stands what is taken"]),
    ] {
        let output = new("none", limber);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        let flat = message.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(expected.iter().all(|part| flat.contains(part)), "{message}");
    }
    assert!(!into.path().join("none").exists());
}
