//! Models by name: the sizes of their own `config.json`, for weights that bring none (`random:SEED`).

use crate::settings::{Config, Family};
use limber_core::model_config::TokenIds;
use limber_core::rope::RopeScaling;

/// The names.
pub(super) const NAMES: [&str; 24] = [
    "llama-7b",
    "tinyllama-1.1b",
    "llama-2-7b",
    "llama-2-13b",
    "llama-2-70b",
    "llama-3-8b",
    "llama-3-70b",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "mistral-7b-v0.1",
    "mistral-7b-v0.2",
    "mistral-7b-v0.3",
    "qwen2-0.5b",
    "qwen2-1.5b",
    "qwen2-7b",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-3b",
    "qwen2.5-7b",
    "qwen2.5-14b",
    "qwen2.5-32b",
    "qwen2.5-72b",
];

/// All settings of a model.
pub(super) fn preset(name: &str) -> Option<Config> {
    Some(match name {
        "llama-7b" => Config { rms_norm_eps: Some(1e-6), ..llama_2(2048, [4096, 11_008, 32, 32, 32]) },
        "tinyllama-1.1b" => llama_2(2048, [2048, 5632, 22, 32, 4]),
        "llama-2-7b" => llama_2(4096, [4096, 11_008, 32, 32, 32]),
        "llama-2-13b" => llama_2(4096, [5120, 13_824, 40, 40, 40]),
        "llama-2-70b" => llama_2(4096, [8192, 28_672, 80, 64, 8]),
        "llama-3-8b" => llama_3(None, [4096, 14_336, 32, 32, 8]),
        "llama-3-70b" => llama_3(None, [8192, 28_672, 80, 64, 8]),
        "llama-3.1-8b" => llama_3(Some(8.0), [4096, 14_336, 32, 32, 8]),
        "llama-3.1-70b" => llama_3(Some(8.0), [8192, 28_672, 80, 64, 8]),
        "llama-3.2-1b" => tied(llama_3(Some(32.0), [2048, 8192, 16, 32, 8])),
        "llama-3.2-3b" => tied(llama_3(Some(32.0), [3072, 8192, 28, 24, 8])),
        "mistral-7b-v0.1" => Config { rope_theta: Some(1e4), sliding_window: Some(4096), ..mistral(32_000) },
        "mistral-7b-v0.2" => mistral(32_000),
        "mistral-7b-v0.3" => mistral(32_768),
        "qwen2-0.5b" => tied(qwen2(131_072, 151_936, [896, 4864, 24, 14, 2])),
        "qwen2-1.5b" => tied(qwen2(131_072, 151_936, [1536, 8960, 28, 12, 2])),
        "qwen2-7b" => qwen2(131_072, 152_064, [3584, 18_944, 28, 28, 4]),
        "qwen2.5-0.5b" => tied(qwen2(32_768, 151_936, [896, 4864, 24, 14, 2])),
        "qwen2.5-1.5b" => tied(qwen2(131_072, 151_936, [1536, 8960, 28, 12, 2])),
        "qwen2.5-3b" => tied(qwen2(32_768, 151_936, [2048, 11_008, 36, 16, 2])),
        "qwen2.5-7b" => qwen2(131_072, 152_064, [3584, 18_944, 28, 28, 4]),
        "qwen2.5-14b" => coarse(qwen2(131_072, 152_064, [5120, 13_824, 48, 40, 8])),
        "qwen2.5-32b" => coarse(qwen2(131_072, 152_064, [5120, 27_648, 64, 40, 8])),
        "qwen2.5-72b" => coarse(qwen2(131_072, 152_064, [8192, 29_568, 80, 64, 8])),
        _ => return None,
    })
}

/// D, width of the MLP, L, query heads, key and value heads.
type Shape = [usize; 5];

fn llama_2(positions: usize, shape: Shape) -> Config {
    let eos_token_id = Some(TokenIds(vec![2]));
    Config { rms_norm_eps: Some(1e-5), eos_token_id, ..Config::sized(32_000, positions, shape) }
}

/// Llama 3, and by the factor of its frequencies 3.1 and 3.2.
fn llama_3(factor: Option<f64>, shape: Shape) -> Config {
    let scaling = factor.map(|factor| RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    });
    Config {
        rms_norm_eps: Some(1e-5),
        rope_theta: Some(5e5),
        eos_token_id: Some(TokenIds(vec![128_001])),
        rope_scaling: scaling,
        ..Config::sized(128_256, if factor.is_some() { 131_072 } else { 8192 }, shape)
    }
}

fn mistral(vocab: usize) -> Config {
    Config {
        model_type: Some(Family::Mistral),
        rms_norm_eps: Some(1e-5),
        rope_theta: Some(1e6),
        eos_token_id: Some(TokenIds(vec![2])),
        ..Config::sized(vocab, 32_768, [4096, 14_336, 32, 32, 8])
    }
}

fn qwen2(positions: usize, vocab: usize, shape: Shape) -> Config {
    Config {
        model_type: Some(Family::Qwen2),
        rope_theta: Some(1e6),
        eos_token_id: Some(TokenIds(vec![151_643])),
        ..Config::sized(vocab, positions, shape)
    }
}

fn tied(config: Config) -> Config {
    Config { tie_word_embeddings: Some(true), ..config }
}

/// The epsilon of the larger Qwen2.5.
fn coarse(config: Config) -> Config {
    Config { rms_norm_eps: Some(1e-5), ..config }
}
