//! Models by name: the sizes of their own `config.json`, for weights that bring none (`random:SEED`).

use super::Config;
use limber_core::model_config::TokenIds;
use limber_core::ops::Activation;

/// Name, V, D, L, H, positions of the Pythia suite (Biderman et al., arXiv 2304.01373).
const PYTHIA: [(&str, usize, usize, usize, usize, usize); 10] = [
    ("pythia-14m", 50_304, 128, 6, 4, 512),
    ("pythia-31m", 50_304, 256, 6, 8, 1024),
    ("pythia-70m", 50_304, 512, 6, 8, 2048),
    ("pythia-160m", 50_304, 768, 12, 12, 2048),
    ("pythia-410m", 50_304, 1024, 24, 16, 2048),
    ("pythia-1b", 50_304, 2048, 16, 8, 2048),
    ("pythia-1.4b", 50_304, 2048, 24, 16, 2048),
    ("pythia-2.8b", 50_304, 2560, 32, 32, 2048),
    ("pythia-6.9b", 50_432, 4096, 32, 32, 2048),
    ("pythia-12b", 50_688, 5120, 36, 40, 2048),
];

/// The names.
pub(super) fn names() -> Vec<&'static str> {
    PYTHIA.iter().map(|p| p.0).chain(["gpt-neox-20b"]).collect()
}

/// All settings of a model.
pub(super) fn preset(name: &str) -> Option<Config> {
    let is = |known: &str| known.eq_ignore_ascii_case(name);
    let (_, vocab, width, layers, heads, positions) = match PYTHIA.iter().find(|p| is(p.0)) {
        Some(row) => *row,
        None if is("gpt-neox-20b") => ("", 50_432, 6144, 44, 64, 2048),
        None => return None,
    };
    Some(Config {
        vocab_size: Some(vocab),
        hidden_size: Some(width),
        intermediate_size: Some(4 * width),
        num_hidden_layers: Some(layers),
        num_attention_heads: Some(heads),
        max_position_embeddings: Some(positions),
        // The large one was trained with the approximation.
        hidden_act: Some(if is("gpt-neox-20b") { Activation::GeluNew } else { Activation::Gelu }),
        eos_token_id: Some(TokenIds(vec![0])),
        ..Config::default()
    })
}
