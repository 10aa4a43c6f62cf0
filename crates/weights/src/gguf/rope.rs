//! Scaled rotary frequencies: metadata entries and `rope_freqs.weight` to `rope_scaling` of `config.json`, and back.
//!
//! Source followed: llama.cpp's `llama-model.cpp` (what is read, and what it is where it is missing), `ggml_rope_yarn`.

use super::config::File;
use super::value::Value;
use serde_json::{Map, Value as Json, json};

/// Factors of the rotary frequencies, as llama.cpp keeps Llama 3.1's scaling.
pub const FREQUENCIES: &str = "rope_freqs.weight";
/// Factors of the frequencies of long and of short texts, as llama.cpp keeps LongRoPE's.
pub const LONG: &str = "rope_factors_long.weight";
pub const SHORT: &str = "rope_factors_short.weight";
/// Positions that Llama 3.1 and later were trained with, and the bounds of its ramp.
const LLAMA3: (f64, f64, usize) = (1.0, 4.0, 8192);
/// How far the factors of a file may be from those of a ramp: they are f32.
const CLOSE: f64 = 1e-5;

/// The scaling that the entries of a file ask for.
///
/// # Errors
/// A type that is not known or lacks a number.
pub fn scaling(file: &File) -> Result<Option<Json>, String> {
    let name = file.name;
    let entry = |key: &str| file.entry(&format!("rope.{key}"));
    let number = |key: &str| entry(key).and_then(Value::number);
    // The second name is that of files of 2023; 0 stands for none.
    let factor = number("scaling.factor").or_else(|| number("scale_linear")).filter(|factor| *factor != 0.0);
    let kind = entry("scaling.type").and_then(Value::text).unwrap_or("linear");
    let trained = entry("scaling.original_context_length").and_then(Value::whole).filter(|n| *n > 0);
    let unsupported = |what: String| Err(format!("{name}.rope.scaling.{what}, supported are none, linear and yarn"));
    match (kind, factor) {
        ("none", _) | ("linear", None | Some(1.0)) => Ok(None),
        // The tensors say it.
        ("longrope", _) if file.has(LONG) && file.has(SHORT) => Ok(None),
        ("linear", Some(factor)) => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
        ("yarn", Some(factor)) => {
            let mut out = json!({"rope_type": "yarn", "factor": factor});
            let mut set = |key: &str, value: Option<Json>| {
                if let (Some(value), Some(map)) = (value, out.as_object_mut()) {
                    map.insert(key.into(), value);
                }
            };
            set("original_max_position_embeddings", trained.map(|n| json!(n)));
            set("beta_fast", number("scaling.yarn_beta_fast").map(|x| json!(x)));
            set("beta_slow", number("scaling.yarn_beta_slow").map(|x| json!(x)));
            // A factor beside the one that follows from the scaling.
            let beside = number("scaling.attn_factor").filter(|x| *x != 1.0 && *x != 0.0);
            set("attention_factor", beside.map(|x| json!(x * (1.0 + 0.1 * factor.ln()))));
            for key in ["scaling.yarn_log_multiplier", "scaling.yarn_ext_factor", "scaling.yarn_attn_factor"] {
                if let Some(value) = entry(key).filter(|v| v.number() != Some(0.0)) {
                    return unsupported(format!("{} is {value:?}", &key["scaling.".len()..]));
                }
            }
            Ok(Some(out))
        }
        (kind, _) => unsupported(format!("type is {kind:?} with a factor of {}", factor.unwrap_or(0.0))),
    }
}

/// Completes the settings of a file with a `rope_freqs.weight` of these values: Llama 3's kind of ramp.
///
/// # Errors
/// Values that are no such ramp.
pub fn complete(config: &mut Map<String, Json>, values: &[f32]) -> Result<(), String> {
    if values.iter().all(|x| *x == 1.0) {
        return Ok(());
    }
    if let Some(other) = config.get("rope_scaling") {
        return Err(format!("{FREQUENCIES} stands beside the scaling {other}, supported is one of them"));
    }
    let theta = number_of(config.get("rope_theta"));
    let (low, high, original) = LLAMA3;
    let factor = f64::from(values.iter().copied().fold(1f32, f32::max));
    let matches = |low: f64, high: f64| {
        let expected = frequencies(theta, 2 * values.len(), [factor, low, high], original);
        expected.iter().zip(values).all(|(a, b)| f64::from(a / b - 1.0).abs() <= CLOSE)
    };
    let mut bounds = [Some((low, high)), bounds(values, theta, factor)].into_iter().flatten();
    let (low, high) = bounds.find(|(low, high)| matches(*low, *high)).ok_or_else(|| {
        format!("{FREQUENCIES} holds other factors than a ramp from 1 to {factor} over the turns, as Llama 3's, which is supported")
    })?;
    let scaling = json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original});
    config.insert("rope_scaling".into(), scaling);
    Ok(())
}

/// Completes the settings of a `phi3` with lists of factors: LongRoPE. `sharper` is what its file multiplies cosines and
/// sines with.
///
/// # Errors
/// Lists in another architecture, or beside another scaling.
pub fn list(config: &mut Map<String, Json>, sharper: Option<f64>, short: &[f32], long: &[f32]) -> Result<(), String> {
    if let Some(other) = config.get("rope_scaling") {
        return Err(format!("{SHORT} stands beside the scaling {other}, supported is one of them"));
    }
    let is_read = config.get("original_max_position_embeddings").is_some_and(Json::is_u64);
    if config.get("model_type") != Some(&json!("phi3")) || !is_read {
        return Err(format!("{SHORT} is supported in files of phi3 with an original_context_length"));
    }
    let scaling = json!({"rope_type": "longrope", "short_factor": short, "long_factor": long,
        "attention_factor": sharper.unwrap_or(1.0)});
    config.insert("rope_scaling".into(), scaling);
    Ok(())
}

/// The bounds of a ramp that gives `values`: two of its points tell them, or the frequencies on both sides of a step.
fn bounds(values: &[f32], theta: f64, factor: f64) -> Option<(f64, f64)> {
    let turns = |i: usize| turns(theta, 2 * values.len(), LLAMA3.2, i);
    let smooth = |x: f32| (1.0 / f64::from(x) - 1.0 / factor) / (1.0 - 1.0 / factor);
    let on_ramp: Vec<usize> =
        (0..values.len()).filter(|i| values[*i] > 1.0 && f64::from(values[*i]) < factor).collect();
    match (on_ramp.first(), on_ramp.last()) {
        (Some(&a), Some(&b)) if a != b => {
            let slope = (smooth(values[a]) - smooth(values[b])) / (turns(a) - turns(b));
            let low = turns(a) - smooth(values[a]) / slope;
            (slope > 0.0 && low > 0.0).then(|| (low, low + 1.0 / slope))
        }
        _ => {
            let divided = values.iter().position(|x| f64::from(*x) == factor)?;
            let kept = divided.checked_sub(1 + on_ramp.len())?;
            // Between the two there is nothing that a bound could be told by, save a single point.
            let (above, below) = (turns(kept), turns(divided));
            match on_ramp.first() {
                None => Some((below + (above - below) / 3.0, above - (above - below) / 3.0)),
                Some(&i) => {
                    let share = smooth(values[i]);
                    let width = ((turns(i) - below) / share).min((above - turns(i)) / (1.0 - share)) / 2.0;
                    let low = turns(i) - share * width;
                    Some((low, low + width))
                }
            }
        }
    }
}

/// How often frequency `i` of `dim / 2` turns within `original` positions.
fn turns(theta: f64, dim: usize, original: usize, i: usize) -> f64 {
    original as f64 * theta.powf(-2.0 * i as f64 / dim as f64) / std::f64::consts::TAU
}

/// What Llama 3's kind of scaling divides each of the `dim / 2` frequencies by.
fn frequencies(theta: f64, dim: usize, [factor, low, high]: [f64; 3], original: usize) -> Vec<f32> {
    let of = |turns: f64| match turns {
        turns if turns > high => 1.0,
        turns if turns < low => factor,
        turns => {
            let smooth = (turns - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..dim / 2).map(|i| of(turns(theta, dim, original, i)) as f32).collect()
}

/// Tensors of factors of frequencies, by their names.
pub type Factors = Vec<(&'static str, Vec<f32>)>;

/// Entries of a scaling, under the architecture's name, and the factors where tensors say it; `positions` are those of the
/// model.
///
/// # Errors
/// A scaling that a file cannot say.
pub fn entries(
    name: &str,
    scaling: &Json,
    dim: Option<usize>,
    theta: Option<&Json>,
    positions: u64,
) -> Result<(Vec<(String, Value<'static>)>, Factors), String> {
    let number = |key: &str| scaling.get(key).and_then(Json::as_f64);
    let kind = scaling.get("rope_type").or(scaling.get("type")).and_then(Json::as_str);
    let trained = scaling.get("original_max_position_embeddings").and_then(Json::as_u64);
    let key = |key: &str| format!("{name}.rope.scaling.{key}");
    let plain = |key: &str, usual: f64| number(key).is_none_or(|x| x == usual);
    match (kind, number("factor"), number("low_freq_factor"), number("high_freq_factor"), dim) {
        (Some("linear"), Some(factor), ..) => {
            Ok((vec![(key("type"), Value::Text("linear".into())), (key("factor"), Value::Float(factor))], Vec::new()))
        }
        (Some("yarn"), Some(factor), ..)
            if plain("beta_fast", 32.0)
                && plain("beta_slow", 1.0)
                && number("attention_factor").is_none()
                && scaling.get("truncate") != Some(&json!(false)) =>
        {
            let mut out = vec![(key("type"), Value::Text("yarn".into())), (key("factor"), Value::Float(factor))];
            out.extend(trained.map(|n| (key("original_context_length"), Value::Whole(n))));
            Ok((out, Vec::new()))
        }
        // Only these bounds are found again to the last bit.
        (Some("llama3"), Some(factor), Some(low), Some(high), Some(dim))
            if (low, high) == (LLAMA3.0, LLAMA3.1) && trained == Some(LLAMA3.2 as u64) && name == "llama" =>
        {
            let factors = frequencies(number_of(theta), dim, [factor, low, high], LLAMA3.2);
            Ok((Vec::new(), vec![(FREQUENCIES, factors)]))
        }
        (Some("longrope"), ..) if name == "phi3" => {
            let list = |key: &str| -> Option<Vec<f32>> {
                scaling.get(key)?.as_array()?.iter().map(|x| x.as_f64().map(|x| x as f32)).collect()
            };
            let (Some(short), Some(long), Some(trained)) = (list("short_factor"), list("long_factor"), trained) else {
                return Err(format!("rope_scaling is {scaling}, which lacks a list of factors"));
            };
            let longer = positions as f64 / trained as f64;
            let usual = if longer > 1.0 { (1.0 + longer.ln() / (trained as f64).ln()).sqrt() } else { 1.0 };
            let sharper = number("attention_factor").unwrap_or(usual);
            Ok((vec![(key("attn_factor"), Value::Float(sharper))], vec![(LONG, long), (SHORT, short)]))
        }
        _ => Err(format!("rope_scaling is {scaling}, which a GGUF file of {name} cannot say")),
    }
}

fn number_of(value: Option<&Json>) -> f64 {
    value.and_then(Json::as_f64).unwrap_or(10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3s_factors_are_found_again() {
        let values = frequencies(500_000.0, 128, [8.0, 1.0, 4.0], 8192);
        // transformers 5.24 gives these frequencies, see `limber_core::rope`: index, value.
        for (i, frequency) in [(0usize, 1.0f64), (27, 0.003_942_276), (30, 0.001_371_893_7), (33, 3.126_936_5e-4)] {
            let plain = 500_000f64.powf(-2.0 * i as f64 / 128.0);
            assert!((plain / f64::from(values[i]) / frequency - 1.0).abs() < 1e-6, "{i}");
        }
        let mut config = Map::from_iter([("rope_theta".to_string(), json!(500_000.0))]);
        complete(&mut config, &values).unwrap();
        assert_eq!(config["rope_scaling"]["factor"], json!(8.0));
        assert_eq!(config["rope_scaling"]["high_freq_factor"], json!(4.0));
    }

    #[test]
    fn ramps_with_other_bounds_are_found_too() {
        let read = |values: &[f32], theta: f64| {
            let mut config = Map::from_iter([("rope_theta".to_string(), json!(theta))]);
            complete(&mut config, values).map(|()| config.remove("rope_scaling"))
        };
        for (theta, dim, ramp, original) in [
            (10_000.0, 64, [4.0, 0.3, 2.5], 512),
            (500_000.0, 128, [32.0, 2.0, 9.0], 4096),
            (500.0, 8, [2.5, 0.3, 0.9], 20),
            // Too few frequencies for two points on the ramp.
            (10_000.0, 4, [8.0, 1.0, 4.0], 300),
            (100.0, 6, [3.0, 1.0, 4.0], 64),
        ] {
            let values = frequencies(theta, dim, ramp, original);
            let scaling = read(&values, theta).unwrap().unwrap();
            let of = |key: &str| scaling[key].as_f64().unwrap();
            let again = frequencies(
                theta,
                dim,
                [of("factor"), of("low_freq_factor"), of("high_freq_factor")],
                scaling["original_max_position_embeddings"].as_u64().unwrap() as usize,
            );
            for (a, b) in values.iter().zip(&again) {
                assert!((a / b - 1.0).abs() < 1e-5, "{theta} {values:?} {again:?}");
            }
        }
        assert_eq!(read(&[1.0; 8], 500.0), Ok(None));
        assert!(read(&[1.0, 2.0, 3.0, 2.0], 500.0).unwrap_err().contains("other factors"));
    }
}
