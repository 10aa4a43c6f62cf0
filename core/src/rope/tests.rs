//! Frequencies against those of transformers 5.24, and what is refused by name.

use super::*;
use crate::model_config::tests::config;
use serde_json::{Value, json};

fn read(tree: Value, longest: usize) -> Result<Rope> {
    Rope::read("the decoder toy", &config(tree), longest)
}

/// Frequencies of heads of 128 elements as transformers 5.24 gives them: (index, value).
fn check(rope: &Rope, longest: usize, length: Option<usize>, factor: f32, expected: &[(usize, f32)]) {
    let scaling = rope.scaling.as_ref();
    scaling.unwrap().check("toy", 128).unwrap();
    let rotary = rotary(128, rope.theta.unwrap(), scaling, longest);
    // Transformers works in f32, ours in f64 rounded once.
    assert!((rotary.factor - factor).abs() < 1e-7 * factor, "{} for {factor}", rotary.factor);
    let frequencies = match length {
        Some(length) => rotary.growth.unwrap().frequencies(length),
        None => rotary.frequencies.to_vec(),
    };
    for (i, value) in expected {
        let far = (frequencies[*i] - value).abs() / value;
        assert!(far < 1e-6, "frequency {i} is {}, not {value}", frequencies[*i]);
    }
}

#[test]
fn frequencies_are_those_of_transformers_however_they_are_written() {
    // Llama 3.1, as version 4 and as version 5 of transformers write it.
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let mut parameters = scaling.clone();
    parameters["rope_theta"] = json!(500_000.0);
    let old = read(json!({"rope_theta": 500_000.0, "rope_scaling": scaling}), 131_072).unwrap();
    let new = read(json!({"rope_parameters": parameters, "rope_scaling": null}), 131_072).unwrap();
    assert_eq!(old, new);
    let expected = [
        (0, 1.0),
        (20, 0.016_560_44),
        (27, 0.003_942_276),
        (30, 0.001_371_893_7),
        (33, 3.126_936_5e-4),
        (36, 7.784_655e-5),
        (40, 3.428_102_4e-5),
        (63, 3.068_926e-7),
    ];
    check(&old, 131_072, None, 1.0, &expected);
    assert_eq!(old.scaling.unwrap().context(131_072), 131_072);

    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768});
    let qwen = read(json!({"rope_theta": 1e6, "rope_scaling": yarn}), 32_768).unwrap();
    let expected = [
        (0, 1.0),
        (10, 0.115_478_2),
        (20, 0.013_335_215),
        (23, 0.006_978_306),
        (30, 0.001_064_361),
        (36, 1.798_411_5e-4),
        (39, 6.490_394e-5),
        (50, 5.133_812_5e-6),
        (63, 3.102_344_4e-7),
    ];
    check(&qwen, 32_768, None, 1.138_629_4, &expected);
    assert_eq!(qwen.scaling.unwrap().context(32_768), 131_072);
    let yarn = json!({"type": "yarn", "factor": null, "original_max_position_embeddings": 4096, "beta_fast": 16,
        "beta_slow": 2, "truncate": false, "mscale": 0.7, "mscale_all_dim": 1.3});
    let rope = read(json!({"rope_theta": 1e4, "rope_scaling": yarn}), 16_384).unwrap();
    let expected = [
        (0, 1.0),
        (20, 0.056_234_13),
        (23, 0.036_517_41),
        (30, 0.010_401_097),
        (39, 0.001_142_359_8),
        (63, 2.886_955e-5),
    ];
    check(&rope, 16_384, None, 0.929_523_5, &expected);

    let rope = read(json!({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4}}), 2048).unwrap();
    check(&rope, 2048, None, 1.0, &[(0, 0.25), (1, 0.216_491_09), (40, 7.905_695e-4), (63, 2.886_955e-5)]);
    assert_eq!(rope.scaling.unwrap().context(2048), 8192);
    let rope = read(json!({"rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2}}), 2048).unwrap();
    check(&rope, 2048, None, 1.0, &[(0, 1.0), (1, 0.865_964_35), (63, 1.154_782e-4)]);
    check(&rope, 2048, Some(3000), 1.0, &[(0, 1.0), (1, 0.856_975_6), (40, 0.002_083_236), (63, 5.984_296e-5)]);
    assert_eq!(rope.scaling.unwrap().context(2048), 4096);
}

#[test]
fn no_scaling_is_said_in_several_ways() {
    for tree in [
        json!({}),
        json!({"rope_scaling": null}),
        json!({"rope_scaling": {}}),
        json!({"rope_scaling": {}, "rope_parameters": {"rope_type": "default"}}),
        json!({"rope_parameters": {"type": "default", "rope_type": "default"}}),
    ] {
        assert_eq!(read(tree.clone(), 64).unwrap().scaling, None, "{tree}");
    }
    let rope = read(json!({"rope_theta": 7, "rope_parameters": {"rope_theta": 8, "rope_type": "default"}}), 64);
    assert_eq!(rope.unwrap().theta, Some(8.0));
    let rope = read(json!({"partial_rotary_factor": 0.5, "rope_parameters": {"partial_rotary_factor": 0.25}}), 64);
    assert_eq!(rope.unwrap().fraction, Some(0.25));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let check = |tree: Value, expected: &str| assert_eq!(read(tree, 64).unwrap_err().to_string(), expected);
    let supported = "supported is default, linear, dynamic, llama3, yarn, longrope";
    check(
        json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}),
        "here: config.json, rope_scaling: long_factor is null, expected a list of numbers",
    );
    check(
        json!({"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0], "factor": 3.0,
            "original_max_position_embeddings": 32}}),
        "here: config.json, rope_scaling: factor is 3.0, but the model has 2 times the trained positions",
    );
    check(
        json!({"rope_parameters": {"rope_type": "proportional"}}),
        &format!("here: config.json, rope_parameters: rope_type is \"proportional\", {supported}"),
    );
    check(
        json!({"rope_scaling": {"type": "linear"}}),
        "here: config.json, rope_scaling: factor is null, expected a number",
    );
    check(
        json!({"rope_scaling": "linear"}),
        "here: config.json: rope_scaling is \"linear\", expected a map of rope parameters",
    );
    check(
        json!({"rope_scaling": {"type": "default", "mrope_section": [1, 2]}}),
        "here: config.json, rope_scaling: mrope_section is [1,2], which the decoder toy does not support",
    );
    check(
        json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
        "here: config.json, rope_parameters: full_attention is {\"rope_type\":\"default\"}, which the decoder toy does not support",
    );
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    let check = |tree: Value, expected: &str| {
        let scaling: RopeScaling = serde_json::from_value(tree).unwrap();
        assert_eq!(scaling.check("toy", 2).unwrap_err().to_string(), format!("toy: rope_scaling: {expected}"));
    };
    check(json!({"rope_type": "linear", "factor": 0.0}), "factor is 0, expected a number above 0");
    check(
        json!({"rope_type": "dynamic", "factor": 2.0}),
        "dynamic needs heads with more than 2 rotated elements, these have 2",
    );
    let llama = |low: f64, high: f64, trained: usize| {
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": trained})
    };
    check(llama(4.0, 4.0, 8), "high_freq_factor is 4, expected a number above low_freq_factor, 4");
    check(llama(0.0, 4.0, 8), "low_freq_factor is 0, expected a number above 0");
    check(llama(1.0, 4.0, 0), "original_max_position_embeddings is 0, expected a number above 0");
    let yarn = |attention: f64, fast: f64, slow: f64| {
        json!({"rope_type": "yarn", "factor": 8.0, "attention_factor": attention, "beta_fast": fast,
            "beta_slow": slow, "original_max_position_embeddings": 8})
    };
    check(yarn(-1.0, 32.0, 1.0), "attention_factor is -1, expected a number above 0");
    check(yarn(1.0, 1.0, 2.0), "beta_fast is 1, expected at least beta_slow, 2");
    check(yarn(1.0, 1.0, 0.0), "beta_slow is 0, expected a number above 0");
    let longrope = |short: &[f64], long: &[f64]| {
        json!({"rope_type": "longrope", "short_factor": short, "long_factor": long,
            "original_max_position_embeddings": 8})
    };
    check(longrope(&[1.0, 2.0], &[1.0]), "short_factor has 2 numbers, expected one for each of 1 rotated pairs");
    check(longrope(&[1.0], &[0.0]), "long_factor is 0, expected a number above 0");
}
