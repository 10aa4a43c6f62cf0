//! Plugins in C, built by `cc` alone while the tests run: the example, the templates, and one library for every way to
//! break the contract.

use super::program::{fails, stdout};
use candle_core::{Device, Tensor};
use limber::plugins::registry_with;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command that must succeed, and gives what it printed.
fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// Builds `source` with `cc` alone.
fn cc(source: &Path, out: &Path, more: &[&str]) {
    let [abi, templates] = [root("plugins/abi/include"), root("plugins/template/c")];
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
    let place = tempfile::tempdir().unwrap();
    let out = format!("OUT={}", place.path().display());
    // Its own test, alone and under the sanitizers of addresses, leaks and undefined behaviour.
    for target in ["test", "sanitize"] {
        let said = ran(Command::new("make")
            .args(["-s", "-C", text(&root("plugins/examples/patch-statistics")), target, &out])
            .env_remove("MAKEFLAGS"));
        assert!(said.contains("patch-statistics passes"), "{said}");
    }
    let report = stdout(&["plugin", "check", text(&place.path().join("libpatch_statistics.so"))]);
    assert!(report.contains("0 of ") && !report.contains("FAILED"), "{report}");
}

#[test]
fn the_templates_in_c_pass_their_tests_and_the_conformance_suite() {
    let place = tempfile::tempdir().unwrap();
    for kind in ["encoder", "stitch", "decoder"] {
        let [plain, checked, test] =
            ["plain", "checked", "test"].map(|name| place.path().join(format!("{kind}-{name}.so")));
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
fn liar(place: &Path, name: &str, defines: &[&str]) -> PathBuf {
    let out = place.join(format!("{name}.so"));
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
    let place = tempfile::tempdir().unwrap();
    let honest = liar(place.path(), "honest", &[]);
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
        ("truncated-part", &["-DLIE=my_part.size = 40"], &["part 0", "LimberPart", "40 bytes"]),
        ("truncated-functions", &["-DLIE=my_functions.size = 16"], &["part 0", "LimberEncoder", "16 bytes"]),
        ("missing-function", &["-DLIE=my_functions.encode = NULL"], &["has no function \"encode\""]),
        ("no-part", &["-DLIE=my_plugin.n_parts = 0"], &["its table lists 0 parts, allowed is 1 to 4096"]),
        ("null-part", &["-DLIE=my_parts[0] = NULL"], &["part 0", "null"]),
        ("role", &["-DLIE=my_part.role = 9"], &["\"my-encoder\" has role 9, allowed are"]),
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
        let error = format!("{:#}", encoded(&liar(place.path(), name, defines), &tiny).unwrap_err());
        assert!(expected.iter().all(|part| error.contains(part)), "{name}: {error:?} lacks one of {expected:?}");
        assert!(error.contains(&format!("{name}.so")) || error.contains("registered twice"), "{name}: {error:?}");
        sound(name);
    }
    // Settings that do not fit the schema, and those that the part refuses itself.
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
    let library = place.path().join("truncated-plugin.so");
    fails(&["components", "--plugin", text(&library)], &["truncated-plugin.so", "12 bytes"]);
}
