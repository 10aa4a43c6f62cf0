//! The architectures that both sides know: what llama.cpp and the checkpoints call their tensors.

use super::names::Form::{Gain, Grouped, Keys, PerHead, Plain, Queries, Transposed};
use super::names::{Architecture, Head, Name};

/// Attention and gated MLP of Llama and its kin; queries and keys differ.
macro_rules! llama_layer {
    ($queries:expr, $keys:expr) => {
        &[
            ("attn_norm", "input_layernorm", Plain),
            ("attn_q", "self_attn.q_proj", $queries),
            ("attn_k", "self_attn.k_proj", $keys),
            ("attn_v", "self_attn.v_proj", Plain),
            ("attn_output", "self_attn.o_proj", Plain),
            ("ffn_norm", "post_attention_layernorm", Plain),
            ("ffn_gate", "mlp.gate_proj", Plain),
            ("ffn_up", "mlp.up_proj", Plain),
            ("ffn_down", "mlp.down_proj", Plain),
        ]
    };
}

const LLAMA_OUTER: &[Name] =
    &[("token_embd", "model.embed_tokens", Plain), ("output_norm", "model.norm", Plain), ("output", "lm_head", Plain)];

/// Of norms that multiply by 1 + their weights.
const GEMMA_OUTER: &[Name] =
    &[("token_embd", "model.embed_tokens", Plain), ("output_norm", "model.norm", Gain), ("output", "lm_head", Plain)];

/// Gemma 2's norms before and after attention and MLP; Gemma 3's of queries and keys.
const SANDWICH: &[Name] = &[
    ("attn_norm", "input_layernorm", Gain),
    ("attn_q", "self_attn.q_proj", Plain),
    ("attn_q_norm", "self_attn.q_norm", Gain),
    ("attn_k", "self_attn.k_proj", Plain),
    ("attn_k_norm", "self_attn.k_norm", Gain),
    ("attn_v", "self_attn.v_proj", Plain),
    ("attn_output", "self_attn.o_proj", Plain),
    ("post_attention_norm", "post_attention_layernorm", Gain),
    ("ffn_norm", "pre_feedforward_layernorm", Gain),
    ("ffn_gate", "mlp.gate_proj", Plain),
    ("ffn_up", "mlp.up_proj", Plain),
    ("ffn_down", "mlp.down_proj", Plain),
    ("post_ffw_norm", "post_feedforward_layernorm", Gain),
];

/// An architecture whose checkpoints spell their names as Llama's do.
const fn llama(name: &'static str, model_types: &'static [&'static str], inner: &'static [Name]) -> Architecture {
    Architecture {
        name,
        model_types,
        outer: LLAMA_OUTER,
        layer: "model.layers.",
        inner,
        prefix: "model.",
        head: Head::Optional,
    }
}

/// All of them.
pub const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "gptj",
        model_types: &["gptj"],
        outer: &[
            ("token_embd", "transformer.wte", Plain),
            ("output_norm", "transformer.ln_f", Plain),
            ("output", "lm_head", Plain),
        ],
        layer: "transformer.h.",
        inner: &[
            ("attn_norm", "ln_1", Plain),
            ("attn_q", "attn.q_proj", Plain),
            ("attn_k", "attn.k_proj", Plain),
            ("attn_v", "attn.v_proj", Plain),
            ("attn_output", "attn.out_proj", Plain),
            ("ffn_up", "mlp.fc_in", Plain),
            ("ffn_down", "mlp.fc_out", Plain),
        ],
        prefix: "transformer.",
        head: Head::Optional,
    },
    Architecture {
        name: "gpt2",
        model_types: &["gpt2"],
        outer: &[
            ("token_embd", "transformer.wte", Plain),
            ("position_embd", "transformer.wpe", Plain),
            ("output_norm", "transformer.ln_f", Plain),
            ("output", "lm_head", Plain),
        ],
        layer: "transformer.h.",
        inner: &[
            ("attn_norm", "ln_1", Plain),
            ("attn_qkv", "attn.c_attn", Transposed),
            ("attn_output", "attn.c_proj", Transposed),
            ("ffn_norm", "ln_2", Plain),
            ("ffn_up", "mlp.c_fc", Transposed),
            ("ffn_down", "mlp.c_proj", Transposed),
        ],
        prefix: "transformer.",
        head: Head::Optional,
    },
    Architecture {
        name: "gptneox",
        model_types: &["gpt_neox"],
        outer: &[
            ("token_embd", "gpt_neox.embed_in", Plain),
            ("output_norm", "gpt_neox.final_layer_norm", Plain),
            ("output", "embed_out", Plain),
        ],
        layer: "gpt_neox.layers.",
        inner: &[
            ("attn_norm", "input_layernorm", Plain),
            ("attn_qkv", "attention.query_key_value", Grouped),
            ("attn_output", "attention.dense", Plain),
            ("ffn_norm", "post_attention_layernorm", Plain),
            ("ffn_up", "mlp.dense_h_to_4h", Plain),
            ("ffn_down", "mlp.dense_4h_to_h", Plain),
        ],
        prefix: "gpt_neox.",
        head: Head::Required,
    },
    llama("llama", &["llama", "mistral"], llama_layer!(Queries, Keys)),
    llama("qwen2", &["qwen2"], llama_layer!(Plain, Plain)),
    llama(
        "qwen3",
        &["qwen3"],
        &[
            ("attn_norm", "input_layernorm", Plain),
            ("attn_q", "self_attn.q_proj", Plain),
            ("attn_q_norm", "self_attn.q_norm", Plain),
            ("attn_k", "self_attn.k_proj", Plain),
            ("attn_k_norm", "self_attn.k_norm", Plain),
            ("attn_v", "self_attn.v_proj", Plain),
            ("attn_output", "self_attn.o_proj", Plain),
            ("ffn_norm", "post_attention_layernorm", Plain),
            ("ffn_gate", "mlp.gate_proj", Plain),
            ("ffn_up", "mlp.up_proj", Plain),
            ("ffn_down", "mlp.down_proj", Plain),
        ],
    ),
    Architecture {
        outer: GEMMA_OUTER,
        head: Head::Never,
        ..llama(
            "gemma",
            &["gemma"],
            &[
                ("attn_norm", "input_layernorm", Gain),
                ("attn_q", "self_attn.q_proj", Plain),
                ("attn_k", "self_attn.k_proj", Plain),
                ("attn_v", "self_attn.v_proj", Plain),
                ("attn_output", "self_attn.o_proj", Plain),
                ("ffn_norm", "post_attention_layernorm", Gain),
                ("ffn_gate", "mlp.gate_proj", Plain),
                ("ffn_up", "mlp.up_proj", Plain),
                ("ffn_down", "mlp.down_proj", Plain),
            ],
        )
    },
    Architecture { outer: GEMMA_OUTER, head: Head::Never, ..llama("gemma2", &["gemma2"], SANDWICH) },
    Architecture { outer: GEMMA_OUTER, ..llama("gemma3", &["gemma3_text"], SANDWICH) },
    llama(
        "phi3",
        &["phi3"],
        &[
            ("attn_norm", "input_layernorm", Plain),
            ("attn_qkv", "self_attn.qkv_proj", Plain),
            ("attn_output", "self_attn.o_proj", Plain),
            ("ffn_norm", "post_attention_layernorm", Plain),
            ("ffn_up", "mlp.gate_up_proj", Plain),
            ("ffn_down", "mlp.down_proj", Plain),
        ],
    ),
    Architecture {
        head: Head::Required,
        ..llama(
            "olmo2",
            &["olmo2"],
            &[
                ("attn_q", "self_attn.q_proj", Plain),
                ("attn_q_norm", "self_attn.q_norm", Plain),
                ("attn_k", "self_attn.k_proj", Plain),
                ("attn_k_norm", "self_attn.k_norm", Plain),
                ("attn_v", "self_attn.v_proj", Plain),
                ("attn_output", "self_attn.o_proj", Plain),
                ("post_attention_norm", "post_attention_layernorm", Plain),
                ("ffn_gate", "mlp.gate_proj", Plain),
                ("ffn_up", "mlp.up_proj", Plain),
                ("ffn_down", "mlp.down_proj", Plain),
                ("post_ffw_norm", "post_feedforward_layernorm", Plain),
            ],
        )
    },
    llama("smollm3", &["smollm3"], llama_layer!(Queries, Keys)),
    Architecture {
        head: Head::Required,
        ..llama(
            "stablelm",
            &["stablelm"],
            &[
                ("attn_norm", "input_layernorm", Plain),
                ("attn_q", "self_attn.q_proj", Plain),
                ("attn_q_norm", "self_attn.q_layernorm", PerHead),
                ("attn_k", "self_attn.k_proj", Plain),
                ("attn_k_norm", "self_attn.k_layernorm", PerHead),
                ("attn_v", "self_attn.v_proj", Plain),
                ("attn_output", "self_attn.o_proj", Plain),
                ("ffn_norm", "post_attention_layernorm", Plain),
                ("ffn_gate", "mlp.gate_proj", Plain),
                ("ffn_up", "mlp.up_proj", Plain),
                ("ffn_down", "mlp.down_proj", Plain),
            ],
        )
    },
    llama("granite", &["granite"], llama_layer!(Queries, Keys)),
    llama(
        "starcoder2",
        &["starcoder2"],
        &[
            ("attn_norm", "input_layernorm", Plain),
            ("attn_q", "self_attn.q_proj", Plain),
            ("attn_k", "self_attn.k_proj", Plain),
            ("attn_v", "self_attn.v_proj", Plain),
            ("attn_output", "self_attn.o_proj", Plain),
            ("ffn_norm", "post_attention_layernorm", Plain),
            ("ffn_up", "mlp.c_fc", Plain),
            ("ffn_down", "mlp.c_proj", Plain),
        ],
    ),
    Architecture {
        name: "falcon",
        model_types: &["falcon"],
        outer: &[
            ("token_embd", "transformer.word_embeddings", Plain),
            ("output_norm", "transformer.ln_f", Plain),
            ("output", "lm_head", Plain),
        ],
        layer: "transformer.h.",
        inner: &[
            // The norm of both, or that of the MLP where attention has one of its own.
            ("attn_norm", "input_layernorm", Plain),
            ("attn_norm", "ln_mlp", Plain),
            ("attn_norm_2", "ln_attn", Plain),
            ("attn_qkv", "self_attention.query_key_value", Grouped),
            ("attn_output", "self_attention.dense", Plain),
            ("ffn_up", "mlp.dense_h_to_4h", Plain),
            ("ffn_down", "mlp.dense_4h_to_h", Plain),
        ],
        prefix: "transformer.",
        head: Head::Optional,
    },
    Architecture {
        name: "mpt",
        model_types: &["mpt"],
        outer: &[
            ("token_embd", "transformer.wte", Plain),
            ("output_norm", "transformer.norm_f", Plain),
            ("output", "lm_head", Plain),
        ],
        layer: "transformer.blocks.",
        inner: &[
            ("attn_norm", "norm_1", Plain),
            ("attn_qkv", "attn.Wqkv", Plain),
            ("attn_output", "attn.out_proj", Plain),
            ("ffn_norm", "norm_2", Plain),
            ("ffn_up", "ffn.up_proj", Plain),
            ("ffn_down", "ffn.down_proj", Plain),
        ],
        prefix: "transformer.",
        head: Head::Optional,
    },
];
