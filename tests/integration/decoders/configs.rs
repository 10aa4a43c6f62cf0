//! `config.json` as people have it, of every family: several ends of a text, keys that nobody reads, Python's numbers, a byte
//! order mark, a head beside the one that is tied to the words.
//!
//! Sources followed: transformers' `configuration_gpt2.py`, `configuration_gptj.py`, `configuration_gpt_neox.py`,
//! `configuration_llama.py`, `configuration_mistral.py`, `configuration_qwen2.py`, `configuration_qwen3.py`,
//! `configuration_gemma2.py`, `configuration_opt.py`, and what their `modeling_*.py` read of them. What none of them reads is
//! accepted, `sliding_window` of a Llama and a GPT-NeoX among it; what changes numbers is obeyed or refused by its key in the
//! tests of each family.

use super::{Case, PYTHIA, build, change, each};
use crate::golden::{folder, source};
use limber::core::registry::PreparedDecoder;
use serde_json::{Value, json};
use std::path::Path;

fn prepared(kind: &str, path: &Path) -> PreparedDecoder {
    let registry = limber::built_in::registry().unwrap();
    registry.decoder(kind, json!({}), source(&registry, "decoder", kind, path.to_str().unwrap()).as_ref()).unwrap()
}

#[test]
fn any_of_several_ids_ends_a_text() {
    each(|case| {
        let copy = case.changed(&json!({"eos_token_id": [5, 7]}));
        let generation = copy.path().join("generation_config.json");
        std::fs::remove_file(&generation).ok();
        assert_eq!(prepared(case.kind, copy.path()).spec.eos, [5, 7]);
        // What generation is configured with comes first.
        std::fs::write(&generation, json!({"eos_token_id": [8, 3, 4], "_from_model_config": true}).to_string())
            .unwrap();
        assert_eq!(prepared(case.kind, copy.path()).spec.eos, [8, 3, 4]);
        std::fs::write(&generation, json!({"eos_token_id": null}).to_string()).unwrap();
        assert_eq!(prepared(case.kind, copy.path()).spec.eos, [5, 7]);
        change(&copy.path().join("config.json"), &json!({"eos_token_id": null}));
        assert_eq!(prepared(case.kind, copy.path()).spec.eos, [0u32; 0]);
    });
}

#[test]
fn keys_that_nobody_reads_change_nothing() {
    // What `save_pretrained` of several versions writes, and what others add.
    let unused = json!({
        "_name_or_path": "x", "transformers_version": "4.1.0", "torch_dtype": "float16", "dtype": "bfloat16", "use_cache": false,
        "output_attentions": true, "return_dict": true, "attention_dropout": 0.1, "pad_token_id": 3, "bos_token_id": null,
        "is_decoder": true, "task_specific_params": {"text-generation": {"do_sample": true}}, "pretraining_tp": 2,
        // Galactica's, which no modeling_*.py reads.
        "scale_embeddings": true, "learned_embeddings": false, "is_causal": true,
        "auto_map": {"AutoConfig": "x.Y"}, "time_step_limit": "Infinity", "id2label": {"0": "a"}, "chunk_size_feed_forward": 0,
    });
    each(|case| {
        let plain = prepared(case.kind, &folder(&case.path())).settings;
        let copy = case.changed(&unused);
        let path = copy.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap().replace("\"Infinity\"", "[-Infinity, Infinity, NaN]");
        std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
        assert_eq!(prepared(case.kind, copy.path()).settings, plain);
    });
    let windows = json!({"sliding_window": 16, "layer_types": ["sliding_attention"]});
    let plain = prepared("gpt-neox", &folder(&PYTHIA.path())).settings;
    assert_eq!(prepared("gpt-neox", PYTHIA.changed(&windows).path()).settings, plain);
}

#[test]
fn positions_that_see_those_behind_them_are_refused() {
    // `create_causal_mask` of every family's `modeling_*.py` asks for it.
    each(|case| case.refuses("is_causal", json!(false), &["is_causal is false", "supported is true"]));
}

#[test]
fn another_head_than_the_one_that_is_tied_is_refused() {
    let tied = |value: bool| json!({"tie_word_embeddings": value});
    each(|case: &Case| {
        let settings = prepared(case.kind, &folder(&case.path())).settings;
        let is_tied = settings["tie_word_embeddings"] == Value::Bool(true);
        let message = format!("{:#}", build(case.kind, case.changed(&tied(!is_tied)).path()).err().unwrap());
        // What is not there cannot be used, what is there is not left out.
        let expected = if is_tied { "no tensor" } else { "tie_word_embeddings is true, but" };
        assert!(message.contains(expected), "{message}");
    });
}
