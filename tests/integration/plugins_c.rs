//! Plugins in C, built by `cc` alone while the tests run: the example, the templates, and one library for every way to
//! break the contract.

use super::program::{fails, stdout};
use candle_core::{Device, Tensor};
use limber::plugins::registry_with;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root(below: &str) -> PathBuf {
    Path::new(crate::ROOT).join(below)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command that must succeed, and gives what it printed.
pub(super) fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// Builds `source` with `cc` alone, against this release's headers.
fn cc(source: &Path, out: &Path, more: &[&str]) {
    cc_with(&root("plugins/abi/include"), source, out, more)
}

/// Builds `source` with `cc` alone, against the headers in `abi`.
fn cc_with(abi: &Path, source: &Path, out: &Path, more: &[&str]) {
    let templates = root("plugins/template/c");
    let strict = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"];
    ran(Command::new("cc")
        .args(strict)
        .arg("-I")
        .arg(abi)
        .arg("-I")
        .arg(templates)
        .args(more)
        .arg("-o")
        .arg(out)
        .args([text(source), "-ldl", "-lm"]));
}

const SANITIZED: [&str; 3] = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

#[test]
fn the_example_in_c_builds_with_cc_alone_and_conforms() {
    let temp = tempfile::tempdir().unwrap();
    let out = format!("OUT={}", temp.path().display());
    // Its own test, alone and under the sanitizers of addresses, leaks and undefined behaviour.
    for target in ["test", "sanitize"] {
        let said = ran(Command::new("make")
            .args(["-s", "-C", text(&root("plugins/examples/patch-statistics")), target, &out])
            .env_remove("MAKEFLAGS"));
        assert!(said.contains("patch-statistics passes"), "{said}");
    }
    let report = stdout(&["plugin", "check", text(&temp.path().join("libpatch_statistics.so"))]);
    assert!(report.contains("0 of ") && !report.contains("FAILED"), "{report}");
}

#[test]
fn the_templates_in_c_pass_their_tests_and_the_conformance_suite() {
    let temp = tempfile::tempdir().unwrap();
    for kind in ["encoder", "stitch", "decoder"] {
        let [plain, checked, test] =
            ["plain", "checked", "test"].map(|name| temp.path().join(format!("{kind}-{name}.so")));
        let source = root(&format!("plugins/template/c/{kind}.c"));
        cc(&source, &plain, &["-shared", "-fPIC"]);
        cc(&source, &checked, &[&["-shared", "-fPIC"], &SANITIZED[..]].concat());
        cc(&root(&format!("plugins/template/c/{kind}_test.c")), &test, &SANITIZED);
        let said = ran(Command::new(&test).arg(&checked));
        assert!(said.contains(&format!("{kind} my-{kind} passes")), "{said}");
        let report = stdout(&["plugin", "check", text(&plain)]);
        assert!(report.contains("0 of ") && !report.contains("FAILED"), "{report}");
    }
}

/// The library of a lie.
fn liar(temp: &Path, name: &str, defines: &[&str]) -> PathBuf {
    let out = temp.join(format!("{name}.so"));
    cc(&root("tests/integration/abuse.c"), &out, &[&["-shared", "-fPIC"], defines].concat());
    out
}

fn encoded(library: &Path, settings: &Value) -> anyhow::Result<Tensor> {
    let library = limber_plugin_host::open(library, None)?;
    let registry = registry_with(&[library])?;
    let source = limber::weights::open(&"random:3".parse()?, &[], Path::new("."))?;
    let weights = limber::core::Weights::new(source.clone(), Device::Cpu, None);
    let encoder = registry.encoder("my-encoder", settings.clone(), source.as_ref())?.build(&weights)?;
    Ok(encoder.encode(&Tensor::rand(0f32, 1f32, (2, 3, 12, 12), &Device::Cpu)?)?)
}

#[test]
fn every_abuse_is_an_error_and_the_host_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let honest = liar(temp.path(), "honest", &[]);
    let tiny = json!({"side": 12, "grid": 3, "width": 8});
    let sound = |after: &str| {
        let features = encoded(&honest, &tiny).unwrap_or_else(|e| panic!("after {after}: {e:#}"));
        assert_eq!(features.dims(), [2, 9, 8], "after {after}");
    };
    sound("nothing");
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("missing-symbol", &["-DENTRY=something_else"], &["it has no symbol \"limber_plugin_v1\""]),
        ("other-major", &["-DENTRY=limber_plugin_v2"], &["it was built for plugin ABI 2, this limber speaks 1.0"]),
        ("wrong-major", &["-DLIE=my_plugin.abi_major = 2"], &["it was built for plugin ABI 2.0"]),
        (
            "newer-minor",
            &["-DLIE=my_plugin.version = LIMBER_ABI_MINOR + 1"],
            &["it needs plugin ABI 1.1, this limber speaks 1.0; a newer limber is needed"],
        ),
        ("truncated-plugin", &["-DLIE=my_plugin.size = 12"], &["LimberPlugin", "12 bytes"]),
        ("truncated-part", &["-DLIE=my_part.size = 40"], &["component 0", "LimberPart", "40 bytes"]),
        ("truncated-functions", &["-DLIE=my_functions.size = 16"], &["component 0", "LimberEncoder", "16 bytes"]),
        ("missing-function", &["-DLIE=my_functions.encode = NULL"], &["has no function \"encode\""]),
        ("no-part", &["-DLIE=my_plugin.n_parts = 0"], &["its table lists 0 components, expected 1 to 4096"]),
        ("null-part", &["-DLIE=my_parts[0] = NULL"], &["component 0", "null"]),
        ("role", &["-DLIE=my_part.role = 9"], &["\"my-encoder\" has role 9, expected 1 (encoder)"]),
        ("no-schema", &["-DLIE=my_part.schema = \"{\""], &["the schema of \"my-encoder\" is not JSON"]),
        (
            "required-feature",
            &["-DLIE=my_plugin.required = travel"],
            &["it needs a host with the feature \"time-travel\"; this one has: none"],
        ),
        ("refusal", &["-DLIE=limber_fail(error, \"no licence\"); answer = NULL"], &["it refuses to start: no licence"]),
        ("twice", &["-DLIE=my_plugin.n_parts = 2"], &["encoder kind \"my-encoder\" is registered twice"]),
        (
            "built-in-kind",
            &["-DLIE=my_part.kind = \"clip-resnet\""],
            &["encoder kind \"clip-resnet\" is registered twice", "built-in-kind.so"],
        ),
        ("wrong-spec", &["-DLIE=my_functions.prepare = no_tokens"], &["encoder \"my-encoder\"", "tokens"]),
        ("wrong-shape", &["-DLIE=my_functions.encode = too_long"], &["features", "were written beyond their end"]),
        ("wrong-dtype", &["-DLIE=my_functions.encode = half_as_wide"], &["72 of 144 features", "were not written"]),
        ("not-finite", &["-DLIE=my_functions.encode = not_finite"], &["are not finite: element 3 is NaN"]),
        ("error", &["-DLIE=my_functions.encode = full"], &["encode: the disk of the plugin is full"]),
        ("silent", &["-DLIE=my_functions.encode = silent"], &["encode: status 77 without a message"]),
    ];
    for (name, defines, expected) in cases {
        let error = format!("{:#}", encoded(&liar(temp.path(), name, defines), &tiny).unwrap_err());
        assert!(expected.iter().all(|part| error.contains(part)), "{name}: {error:?} lacks one of {expected:?}");
        assert!(error.contains(&format!("{name}.so")) || error.contains("registered twice"), "{name}: {error:?}");
        sound(name);
    }
    // Settings that do not fit the schema, and those that the component refuses itself.
    for (settings, expected) in [
        (json!({"side": "twelve"}), "\"twelve\""),
        (json!({"sides": 12}), "\"sides\""),
        (json!({"side": 12, "grid": 5}), "side 12 is no multiple of grid 5"),
    ] {
        let error = format!("{:#}", encoded(&honest, &settings).unwrap_err());
        assert!(error.contains(expected), "{error}");
        sound(expected);
    }
    // The program says it once, with the library's name.
    let library = temp.path().join("truncated-plugin.so");
    fails(&["components", "--plugin", text(&library)], &["truncated-plugin.so", "12 bytes"]);
}

/// The fields of every struct and the values of every constant of a header, in order.
fn promises(header: &Path) -> (BTreeMap<String, Vec<String>>, BTreeMap<String, String>) {
    let text = std::fs::read_to_string(header).unwrap();
    let (mut structs, mut constants, mut open) = (BTreeMap::new(), BTreeMap::new(), None::<Vec<String>>);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.is_empty()) {
        if line.starts_with("typedef struct") && line.ends_with('{') {
            open = Some(Vec::new());
        } else if let Some(name) = line.strip_prefix("} ").and_then(|rest| rest.strip_suffix(';')) {
            structs.insert(name.to_string(), open.take().unwrap_or_default());
        } else if let Some(fields) = &mut open {
            fields.push(line.to_string());
        } else if let Some((name, value)) = line.strip_prefix("#define ").and_then(|rest| rest.split_once(' ')) {
            constants.insert(name.to_string(), value.to_string());
        }
    }
    (structs, constants)
}

/// Plugins of ABI 1.0: today's templates built against the header of 1.0, which is kept for this.
#[test]
fn plugins_of_abi_1_0_still_work() {
    let pinned = root("tests/golden/plugin_abi_v1");
    let (structs, constants) = promises(&pinned.join("limber_plugin.h"));
    let (structs_now, constants_now) = promises(&root("plugins/abi/include/limber_plugin.h"));
    assert!(structs.len() > 20 && structs["LimberPlugin"].len() == 9, "{structs:?}");
    for (name, fields) in &structs {
        let now = structs_now.get(name).unwrap_or_else(|| panic!("{name} is gone"));
        assert!(now.starts_with(fields), "{name}: fields are only ever appended: {fields:?} became {now:?}");
    }
    for (name, value) in constants.iter().filter(|(name, _)| *name != "LIMBER_ABI_MINOR") {
        assert_eq!(constants_now.get(name), Some(value), "{name}");
    }
    // A header in quotes is looked for beside the file that names it first, so the helpers lie beside the pinned one.
    let temp = tempfile::tempdir().unwrap();
    let abi = temp.path().join("abi");
    std::fs::create_dir(&abi).unwrap();
    std::fs::copy(pinned.join("limber_plugin.h"), abi.join("limber_plugin.h")).unwrap();
    std::fs::copy(root("plugins/abi/include/limber_part.h"), abi.join("limber_part.h")).unwrap();
    for kind in ["encoder", "stitch", "decoder"] {
        let library = temp.path().join(format!("{kind}.so"));
        cc_with(&abi, &root(&format!("plugins/template/c/{kind}.c")), &library, &["-shared", "-fPIC"]);
        let report = stdout(&["plugin", "check", text(&library)]);
        assert!(report.contains("0 of ") && !report.contains("FAILED"), "{report}");
        let listed = stdout(&["plugin", "list", "--plugin", text(&library)]);
        assert!(listed.contains("ABI 1.0"), "{listed}");
    }
}

#[test]
fn a_new_plugin_in_c_builds_and_passes_its_test_at_once() {
    let into = tempfile::tempdir().unwrap();
    for kind in ["encoder", "stitch", "decoder"] {
        let name = format!("first-{kind}");
        let new = |name: &str| {
            Command::new(env!("CARGO_BIN_EXE_limber"))
                .args(["plugin", "new", name, "--kind", kind, "--language", "c"])
                .current_dir(into.path())
                .output()
                .unwrap()
        };
        assert!(new(&name).status.success());
        let folder = into.path().join(&name);
        for target in ["test", "sanitize"] {
            let said = ran(Command::new("make").args(["-s", "-C", text(&folder), target]).env_remove("MAKEFLAGS"));
            assert!(said.contains(&format!("{name} passes")), "{said}");
        }
        let report = stdout(&["plugin", "check", text(&folder.join(format!("{name}.so")))]);
        assert!(report.contains(&name) && report.contains("0 of ") && !report.contains("FAILED"), "{report}");
        let again = new(&name);
        assert_eq!(again.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
    }
}

/// A decoder without a vector-Jacobian product captions, and says why no stitch can be trained through it.
#[test]
fn a_decoder_without_gradients_captions_and_does_not_train() {
    let temp = tempfile::tempdir().unwrap();
    let library = temp.path().join("no-gradient.so");
    cc(&root("tests/integration/no_gradient.c"), &library, &["-shared", "-fPIC"]);
    let golden = root("tests/golden");
    let tree = json!({
        "encoder": {"kind": "features", "tokens": 4, "width": 24},
        "stitch": {"kind": "linear", "weights": "random:3"},
        "decoder": {
            "kind": "my-decoder", "weights": "random:4", "tokenizer": golden.join("tokenizer/json"),
            "vocab": 421, "width": 32, "context": 64,
        },
        "train": {"steps": 2, "batch": 2, "lr": 0.02, "output": temp.path().join("out")},
        "data": {"format": "jsonl", "path": golden.join("train/data.jsonl"), "workers": 1},
        "plugins": ["no-gradient.so"],
    });
    let config = temp.path().join("c.yaml");
    std::fs::write(&config, tree.to_string()).unwrap();
    let image = golden.join("train/features/00.npy");
    let said = stdout(&["caption", "--json", "--max-tokens", "3", "--config", text(&config), text(&image)]);
    let line: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert!(!line["tokens"].as_array().unwrap().is_empty(), "{line}");
    let output = Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(["train", "--config", text(&config)])
        // candle's errors bring a backtrace where one is asked for.
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let why = "decoder \"my-decoder\" of plugin no-gradient.so has no vector-Jacobian product: it can caption, but no \
               stitch can be trained through it";
    assert!(message.contains(why), "{message}");
}
