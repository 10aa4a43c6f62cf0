//! What llama.cpp calls the tensors of each architecture, and how it lays them out.
//!
//! Source followed: llama.cpp's `gguf-py/gguf/tensor_mapping.py` and `convert_hf_to_gguf.py`.

/// How rows of a file's matrix lie beside those of the checkpoint that it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they were.
    Plain,
    /// A `Conv1D` `[n_in, n_out]`, stored as `[n_out, n_in]`.
    Transposed,
    /// Heads of queries whose two halves are interleaved: rotary pairs lie side by side.
    Queries,
    /// Likewise of keys.
    Keys,
    /// Queries, keys and values head by head, stored as all queries, all keys, all values.
    Thirds,
}

/// A tensor's name in a file without `.weight` or `.bias`, in the checkpoint, and its form.
pub type Name = (&'static str, &'static str, Form);

/// An architecture that both sides know.
#[derive(Debug)]
pub struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// `model_type` of `config.json`; the first is what a file is read as.
    pub model_types: &'static [&'static str],
    /// Tensors outside of the layers.
    pub outer: &'static [Name],
    /// What stands before a layer's number in the checkpoint.
    pub layer: &'static str,
    /// Tensors of a layer: `blk.N.` and the name.
    pub inner: &'static [Name],
    /// Prefixes that a checkpoint's names may lack.
    pub prefix: &'static str,
}

use Form::{Keys, Plain, Queries, Thirds, Transposed};

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
            ("attn_qkv", "attention.query_key_value", Thirds),
            ("attn_output", "attention.dense", Plain),
            ("ffn_norm", "post_attention_layernorm", Plain),
            ("ffn_up", "mlp.dense_h_to_4h", Plain),
            ("ffn_down", "mlp.dense_4h_to_h", Plain),
        ],
        prefix: "gpt_neox.",
    },
    Architecture {
        name: "llama",
        model_types: &["llama", "mistral"],
        outer: LLAMA_OUTER,
        layer: "model.layers.",
        inner: llama_layer!(Queries, Keys),
        prefix: "model.",
    },
    Architecture {
        name: "qwen2",
        model_types: &["qwen2"],
        outer: LLAMA_OUTER,
        layer: "model.layers.",
        inner: llama_layer!(Plain, Plain),
        prefix: "model.",
    },
];

impl Architecture {
    /// The one of a file.
    pub fn named(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|a| a.name == name)
    }

    /// The one of a `model_type`.
    pub fn of(model_type: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|a| a.model_types.contains(&model_type))
    }

    /// The checkpoint's name of a file's tensor, and its form.
    pub fn checkpoint_name(&self, name: &str) -> Option<(String, Form)> {
        let (stem, end) = name.rsplit_once('.')?;
        let (before, stem, list) = match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, stem)) => {
                layer.parse::<u32>().ok()?;
                (format!("{}{layer}.", self.layer), stem, self.inner)
            }
            None => (String::new(), stem, self.outer),
        };
        let (_, own, form) = list.iter().find(|(theirs, ..)| *theirs == stem)?;
        Some((format!("{before}{own}.{end}"), *form))
    }

    /// The file's name of a checkpoint's tensor, and its form.
    pub fn file_name(&self, name: &str) -> Option<(String, Form)> {
        let (stem, end) = name.rsplit_once('.')?;
        self.stem(stem).or_else(|| self.stem(&format!("{}{stem}", self.prefix))).map(|(s, f)| (format!("{s}.{end}"), f))
    }

    fn stem(&self, stem: &str) -> Option<(String, Form)> {
        if let Some((layer, own)) = stem.strip_prefix(self.layer).and_then(|rest| rest.split_once('.')) {
            layer.parse::<u32>().ok()?;
            let (theirs, _, form) = self.inner.iter().find(|(_, name, _)| *name == own)?;
            return Some((format!("blk.{layer}.{theirs}"), *form));
        }
        let (theirs, _, form) = self.outer.iter().find(|(_, name, _)| *name == stem)?;
        Some((theirs.to_string(), *form))
    }
}

/// Row `r` of the checkpoint's matrix of `rows` rows in `heads` heads is row `order[r]` of the file's; None where they are
/// the same, or do not fit the heads.
pub fn order(form: Form, rows: usize, heads: usize) -> Option<Vec<u32>> {
    let of = |f: &dyn Fn(usize, usize) -> usize, head: usize| {
        let fits = heads.checked_mul(head).is_some_and(|least| least > 0 && rows.is_multiple_of(least));
        (fits && u32::try_from(rows).is_ok())
            .then(|| (0..rows).map(|r| (f(r / (rows / heads), r % (rows / heads))) as u32).collect())
    };
    match form {
        Form::Plain | Form::Transposed => None,
        Form::Queries | Form::Keys => {
            let (dim, half) = (rows / heads.max(1), rows / heads.max(1) / 2);
            of(&|head, i| head * dim + 2 * (i % half) + i / half, 2)
        }
        Form::Thirds => {
            let (dim, third) = (rows / heads.max(1) / 3, rows / 3);
            of(&|head, i| i / dim * third + head * dim + i % dim, 3)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for architecture in ARCHITECTURES {
            let layers = architecture.inner.iter().map(|(theirs, ..)| format!("blk.17.{theirs}"));
            for stem in architecture.outer.iter().map(|(theirs, ..)| theirs.to_string()).chain(layers) {
                let (own, form) = architecture.checkpoint_name(&format!("{stem}.weight")).unwrap();
                let back = architecture.file_name(&own).unwrap();
                assert_eq!(back, (format!("{stem}.weight"), form), "{} {own}", architecture.name);
                let short = own.strip_prefix(architecture.prefix).unwrap_or(&own);
                assert_eq!(architecture.file_name(short).unwrap().0, back.0);
            }
            assert_eq!(architecture.checkpoint_name("blk.x.attn_norm.weight"), None);
            assert_eq!(architecture.file_name("transformer.h.0.attn.masked_bias"), None);
        }
    }

    #[test]
    fn rows_of_heads_are_told_apart() {
        // Two heads of four rows: halves 0 1 | 2 3 become pairs 0 2 1 3.
        assert_eq!(order(Form::Queries, 8, 2).unwrap(), [0, 2, 1, 3, 4, 6, 5, 7]);
        // Two heads of q, k, v of two rows each.
        assert_eq!(order(Form::Thirds, 12, 2).unwrap(), [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
        assert_eq!((order(Form::Plain, 8, 2), order(Form::Queries, 6, 2), order(Form::Keys, 4, 0)), (None, None, None));
    }
}
