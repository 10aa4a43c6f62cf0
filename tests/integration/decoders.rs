//! What every decoder family is held to against transformers, as a table of models; what is a family's own stands in
//! the family's module.

mod case;
mod configs;
mod families;

pub use case::{
    CLOSE, Case, all, build, change, edited, model_refused_beside, request, resolved, settings_refused,
    steps_behind_a_prompt, variants_give_their_logits_and_steps,
};

use case::{drawn_as_in_transformers, told_by_its_folder};
use serde_json::json;

/// Both caps, windows in every other layer.
pub const GEMMA2: Case = Case { kind: "gemma2", folder: "gemma2", form: "capped", prefix: "capped." };
/// Learned positions, transposed matrices.
pub const GPT2: Case = Case::new("gpt2", "f32");
/// Blocks side by side.
pub const PYTHIA: Case = Case { kind: "gpt-neox", folder: "gpt_neox", form: "pythia", prefix: "pythia." };
/// Blocks side by side behind one norm.
pub const GPTJ: Case = Case::new("gptj", "f32");
/// Grouped queries under scaled frequencies.
pub const LLAMA: Case = Case { kind: "llama", folder: "llama", form: "llama3", prefix: "llama3." };
/// A window shorter than the rows.
pub const MISTRAL: Case = Case { form: "mistral", prefix: "mistral.", ..LLAMA };
/// Biases, a tied head, a window in one layer.
pub const QWEN2: Case = Case { form: "qwen2", prefix: "qwen2.", ..LLAMA };
/// Norms before the branches.
pub const OPT: Case = Case::new("opt", "f32");
/// A head of its own.
pub const QWEN3: Case = Case { kind: "qwen3", folder: "qwen3", form: "untied", prefix: "untied." };

/// Every model that all of what follows holds of.
const MODELS: [Case; 13] = [
    GEMMA2,
    // No caps, a head of its own, biases, another order of windows.
    Case { form: "open", prefix: "open.", ..GEMMA2 },
    GPT2,
    PYTHIA,
    // Blocks in series.
    Case { form: "serial", prefix: "serial.", ..PYTHIA },
    GPTJ,
    LLAMA,
    MISTRAL,
    QWEN2,
    OPT,
    // opt-350m's form: words narrower than the blocks, norms after each sum.
    Case { form: "post-norm", prefix: "post.", ..OPT },
    QWEN3,
    // One table for words and head, a window in the second layer.
    Case { form: "tied", prefix: "tied.", ..QWEN3 },
];

/// Other forms of checkpoints, and the logits that they give.
const FORMS: [(Case, &str); 21] = [
    // Names without `model.`, in bf16.
    (Case { form: "bare", prefix: "bare.", ..GEMMA2 }, "logits"),
    (of(GPT2, "sharded"), "logits"),
    // The published folders' names and causal masks.
    (of(GPT2, "hub"), "logits"),
    // Masks of other types, and other names of settings.
    (of(GPT2, "bin"), "logits"),
    (of(GPT2, "bf16"), "bf16.logits"),
    // With a head of its own, and an MLP as wide as nothing says.
    (of(GPT2, "untied"), "untied.logits"),
    // Masks and frequencies as buffers.
    (of(PYTHIA, "bin"), "logits"),
    // The head's newer name.
    (of(PYTHIA, "head"), "f16.logits"),
    // Names without `gpt_neox.`.
    (of(PYTHIA, "bare"), "f16.logits"),
    (of(GPTJ, "sharded"), "logits"),
    (of(GPTJ, "bin"), "logits"),
    (of(GPTJ, "bin-sharded"), "logits"),
    (of(GPTJ, "bare"), "logits"),
    (of(GPTJ, "f16"), "f16.logits"),
    (of(GPTJ, "bf16"), "bf16.logits"),
    // Biases everywhere, as many key heads as query heads, names without `model.`, in bf16.
    (Case { form: "bare", prefix: "bare.", ..LLAMA }, "logits"),
    (of(OPT, "sharded"), "logits"),
    // The published pickles' names, and the head beside the table.
    (of(OPT, "bin"), "logits"),
    (of(OPT, "bf16"), "bf16.logits"),
    (of(OPT, "untied"), "untied.logits"),
    // Biases, as many key heads as query heads, names without `model.`, in bf16.
    (Case { form: "bare", prefix: "bare.", ..QWEN3 }, "logits"),
];

/// The same model in another form.
const fn of(case: Case, form: &'static str) -> Case {
    Case { form, ..case }
}

/// Holds every model to `check`; which one fails is said by the test's output.
fn each(check: impl Fn(&Case)) {
    for case in MODELS.iter().chain(&families::MODELS) {
        println!("{}", case.path());
        check(case);
    }
}

#[test]
fn every_form_gives_transformers_logits() {
    each(|case| case.gives("logits"));
    FORMS.iter().for_each(|(case, logits)| case.gives(logits));
    families::FORMS.iter().for_each(|case| case.gives("logits"));
}

#[test]
fn the_whole_context_and_not_one_more() {
    // The golden data of opt-350m's form have no sequence of that length.
    let all = MODELS.iter().chain(&families::MODELS);
    all.filter(|case| case.form != "post-norm").for_each(Case::fills_its_context);
}

/// Tests that hold every model to one thing each.
macro_rules! every_model {
    ($($name:ident: $check:path,)*) => {
        $(
            #[test]
            fn $name() {
                each($check);
            }
        )*
    };
}

every_model! {
    a_prefix_of_embeddings: Case::continues_a_prefix,
    step_by_step_over_a_cache: Case::steps_over_a_cache,
    rows_of_different_lengths_in_one_batch: Case::generates_batches_as_singles,
    hidden_states_and_attention: Case::shows_hidden_states_and_attention,
    the_gradient_of_a_training_step: Case::trains_what_stands_before_it,
}

#[test]
fn keys_that_a_mask_hides() {
    // A mask moves the positions of transformers' Falcon, of which its linear biases are made.
    let all = MODELS.iter().chain(&families::MODELS);
    all.filter(|case| case.form != "alibi").for_each(Case::hides_keys);
}

#[test]
fn random_weights_are_drawn_as_transformers_draws_them() {
    // GPT-J's golden data hold no draws.
    for case in [GEMMA2, GPT2, PYTHIA, LLAMA, OPT, QWEN3] {
        drawn_as_in_transformers(&case);
    }
    let other = |case: &&Case| !["stablelm/parallel", "falcon/alibi"].iter().any(|end| case.path().ends_with(end));
    families::MODELS.iter().filter(other).for_each(drawn_as_in_transformers);
}

#[test]
fn the_kind_auto_is_told_by_config_json() {
    each(told_by_its_folder);
    FORMS.iter().map(|(case, _)| case).chain(&families::FORMS).for_each(told_by_its_folder);
}

#[test]
fn a_model_type_that_no_decoder_reads_is_named() {
    let registry = limber::built_in::registry().unwrap();
    let other = GPT2.changed(&json!({"model_type": "mamba"}));
    let source = crate::golden::source(&registry, "decoder", "gpt2", other.path().to_str().unwrap());
    let message = registry.detect("decoder", source.as_ref()).err().unwrap().to_string();
    for part in ["config.json: model_type is \"mamba\", which no decoder here reads", "falcon, gemma, gemma2"] {
        assert!(message.contains(part), "{message}");
    }
}
