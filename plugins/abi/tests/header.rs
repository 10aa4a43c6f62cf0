//! The header in C and the structs in Rust are one ABI: sizes, offsets and constants, compared by compiling C against it.
#![allow(clippy::unwrap_used)]

use limber_plugin_abi::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::path::PathBuf;
use std::process::Command;

/// `Struct` and `Struct.field` to size and offset, constants to their values, as Rust has them. A field that is missing
/// here does not compile.
fn ours() -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    macro_rules! structs {
        ($($name:ident { $($field:ident)* })*) => {$(
            let $name { $($field: _),* } = $name::empty();
            all.insert(stringify!($name).to_string(), size_of::<$name>() as u64);
            $(all.insert(
                concat!(stringify!($name), ".", stringify!($field)).to_string(),
                offset_of!($name, $field) as u64,
            );)*
        )*};
    }
    macro_rules! constants {
        ($($name:ident)*) => {$(all.insert(stringify!($name).to_string(), $name as u64);)*};
    }
    structs! {
        LimberTensor { size version data device_type device_id ndim dtype_code dtype_bits dtype_lanes shape
            strides byte_offset }
        LimberSink { size version context text }
        LimberNames { size version context name }
        LimberRequest { size version name shape ndim init a b c reserved row format }
        LimberWeight { size version tensor format lease release }
        LimberSource { size version context label tensors read document }
        LimberHost { size version name features threads log_level context log }
        LimberPlugin { size version abi_major n_parts name release built_with required parts }
        LimberPart { size version role flags kind about schema tiny files context recognises encoder stitch
            decoder }
        LimberBuild { size version format }
        LimberEncoderSpec { size version input kind tokens width side resize_to resize filter mean std }
        LimberEncode { size version flags reserved input output }
        LimberEncoder { size version prepare build release encode }
        LimberDecoderSpec { size version width vocab layers kv_heads head_dim context n_eos eos reserved }
        LimberTaps { size version want_hidden want_attention context take }
        LimberCacheOptions { size version batch capacity slots format }
        LimberForward { size version flags logits embeds output lengths past mask positions n_positions cache
            taps tape }
        LimberDecoder { size version prepare build release embed forward vjp tape_release cache_new
            cache_truncate cache_select cache_copy cache_append cache_release begins_alike }
        LimberSides { size version tokens features_width width kind reserved encoder decoder }
        LimberPrefixSpec { size version tokens width }
        LimberProject { size version training n_parameters seed features parameters output tape }
        LimberStitch { size version prepare build release prefix parameters parameter forward vjp tape_release
            }
    }
    constants! {
        LIMBER_ABI_MAJOR LIMBER_ABI_MINOR LIMBER_MAX_EOS LIMBER_LOGITS_ALL LIMBER_LOGITS_LAST LIMBER_LOGITS_AT
        LIMBER_LOGITS_HIDDEN LIMBER_TAP_HIDDEN LIMBER_TAP_ATTENTION LIMBER_CALL_RECOMPUTE LIMBER_INPUT_IMAGE
        LIMBER_INPUT_FEATURES LIMBER_RESIZE_SHORTER_SIDE_CROP LIMBER_RESIZE_SHORTER_SIDE_CROP_FLOOR LIMBER_RESIZE_SQUASH LIMBER_FILTER_BILINEAR
        LIMBER_FILTER_BICUBIC LIMBER_FEATURES_PATCHES LIMBER_FEATURES_POOLED LIMBER_CALL_TRACKED
        LIMBER_LOG_ERROR LIMBER_LOG_WARN LIMBER_LOG_INFO LIMBER_LOG_DEBUG LIMBER_LOG_TRACE LIMBER_ENCODER
        LIMBER_STITCH LIMBER_DECODER LIMBER_CONCURRENT LIMBER_NO_WEIGHTS LIMBER_INIT_CONST LIMBER_INIT_NORMAL
        LIMBER_INIT_TRUNCATED_NORMAL LIMBER_INIT_NORMAL_BUT_ROW LIMBER_INIT_UNIFORM LIMBER_CPU LIMBER_INT
        LIMBER_UINT LIMBER_FLOAT LIMBER_BFLOAT LIMBER_OK LIMBER_ERROR LIMBER_PANIC LIMBER_UNSUPPORTED
    }
    all
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// The same as C has it: a program that prints each is compiled and run.
fn theirs(names: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut lines = String::new();
    for name in names {
        let value = match name.split_once('.') {
            Some((of, field)) => format!("offsetof(struct {of}, {field})"),
            None if name.starts_with("LIMBER_") => name.clone(),
            None => format!("sizeof(struct {name})"),
        };
        writeln!(lines, "    printf(\"{name} %llu\\n\", (unsigned long long)({value}));").unwrap();
    }
    let text =
        format!("#include \"limber_plugin.h\"\n#include <stdio.h>\nint main(void) {{\n{lines}    return 0;\n}}\n");
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (scratch.join("layout.c"), scratch.join("layout"));
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(folder())
        .arg("-o")
        .args([&program, &source])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).output().unwrap();
    let line = |line: &str| {
        let (name, value) = line.split_once(' ').unwrap();
        (name.to_string(), value.parse().unwrap())
    };
    String::from_utf8(output.stdout).unwrap().lines().map(line).collect()
}

#[test]
fn the_header_has_the_layout_of_the_structs() {
    let ours = ours();
    assert_eq!(theirs(ours.keys().cloned()), ours);
    // Nothing of the header is left out above.
    let header = std::fs::read_to_string(folder().join("limber_plugin.h")).unwrap();
    for line in header.lines() {
        let named = line.strip_prefix("typedef struct ").and_then(|rest| rest.strip_suffix(" {"));
        let constant = line.strip_prefix("#define LIMBER_").map(|rest| rest.split(' ').next().unwrap_or_default());
        if let Some(name) = named {
            assert!(ours.contains_key(name), "{name} is not compared");
        }
        if let Some(name) = constant.filter(|name| !["PLUGIN_H", "EXPORT"].contains(name)) {
            assert!(ours.contains_key(&format!("LIMBER_{name}")), "LIMBER_{name} is not compared");
        }
    }
}

#[test]
fn the_header_compiles_as_cpp() {
    let compiled = Command::new("cc")
        .args(["-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
        .arg(folder().join("limber_plugin.h"))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&compiled.stderr);
    // A machine without a C++ compiler says so in these words; there is nothing to check there.
    assert!(compiled.status.success() || message.contains("cc1plus"), "{message}");
}

#[test]
fn version_1_0_is_as_large_as_it_was() {
    // What 1.0 shipped with. A struct grows at its end alone; its first size never changes.
    let first: [(&str, usize, usize); 22] = [
        ("LimberTensor", LimberTensor::FIRST_SIZE, 56),
        ("LimberSink", LimberSink::FIRST_SIZE, 24),
        ("LimberNames", LimberNames::FIRST_SIZE, 24),
        ("LimberRequest", LimberRequest::FIRST_SIZE, 64),
        ("LimberWeight", LimberWeight::FIRST_SIZE, 40),
        ("LimberSource", LimberSource::FIRST_SIZE, 48),
        ("LimberHost", LimberHost::FIRST_SIZE, 48),
        ("LimberPlugin", LimberPlugin::FIRST_SIZE, 56),
        ("LimberPart", LimberPart::FIRST_SIZE, 96),
        ("LimberBuild", LimberBuild::FIRST_SIZE, 16),
        ("LimberEncoderSpec", LimberEncoderSpec::FIRST_SIZE, 80),
        ("LimberEncode", LimberEncode::FIRST_SIZE, 32),
        ("LimberEncoder", LimberEncoder::FIRST_SIZE, 40),
        ("LimberDecoderSpec", LimberDecoderSpec::FIRST_SIZE, 128),
        ("LimberTaps", LimberTaps::FIRST_SIZE, 32),
        ("LimberCacheOptions", LimberCacheOptions::FIRST_SIZE, 40),
        ("LimberForward", LimberForward::FIRST_SIZE, 96),
        ("LimberDecoder", LimberDecoder::FIRST_SIZE, 120),
        ("LimberSides", LimberSides::FIRST_SIZE, 56),
        ("LimberPrefixSpec", LimberPrefixSpec::FIRST_SIZE, 24),
        ("LimberProject", LimberProject::FIRST_SIZE, 56),
        ("LimberStitch", LimberStitch::FIRST_SIZE, 80),
    ];
    for (name, ours, shipped) in first {
        assert_eq!(ours, shipped, "{name}");
    }
}
