//! A model of a decoder family against golden data that `tests/golden/lm.py` wrote, and what it can be held to.

use crate::golden::{drawings, folder, largest, lists, relative, source, tensors};
use candle_core::{DType, Device, Tensor, Var};
use limber::core::{CacheOptions, CacheType, Decoder, Init, LogitPositions, Run, Weights};
use limber::generation::{Request, Sampling, generate, log_softmax};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use tempfile::TempDir;

/// Logits spread over several units; sums of some hundred f32 terms over three layers stay this close.
pub const CLOSE: f32 = 1e-4;

/// [`CLOSE`], or 1e-5 of the largest logit where a variant's multipliers take logits beyond 10: roundings grow with them.
fn close(wanted: &Tensor) -> f32 {
    let largest: f32 = wanted.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap();
    CLOSE.max(1e-5 * largest)
}

/// A decoder's kind and its folder under `tests/golden`, with one form of its checkpoint.
pub struct Case {
    pub kind: &'static str,
    pub folder: &'static str,
    pub form: &'static str,
    /// The expected tensors' prefix in `expected.safetensors` and `expected.json`; empty where a case has one model.
    pub prefix: &'static str,
}

impl Case {
    /// The one model of a case whose folder is named after its kind.
    pub const fn new(kind: &'static str, form: &'static str) -> Self {
        Self { kind, folder: kind, form, prefix: "" }
    }

    /// The folder of the form.
    pub fn path(&self) -> String {
        format!("{}/{}", self.folder, self.form)
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        crate::golden::decoder(self.kind, &self.path())
    }

    pub fn tensors(&self) -> HashMap<String, Tensor> {
        let all = tensors(self.folder).into_iter();
        all.filter_map(|(name, tensor)| Some((name.strip_prefix(self.prefix)?.to_string(), tensor))).collect()
    }

    /// The same ids and embeddings, and logits at all positions close to `logits` of the expected tensors.
    pub fn gives(&self, logits: &str) {
        let (expected, model) = (self.tensors(), self.decoder());
        if logits == "logits" {
            assert_eq!(largest(&model.embed(&expected["ids"]).unwrap(), &expected["embeds"]), 0.0, "{}", self.path());
        }
        let far = largest(&all(model.as_ref(), &expected["ids"]), &expected[logits]);
        assert!(far < CLOSE, "{}: {far}", self.path());
    }

    /// Each of the case's variants, a change of `config.json` over the same weights, gives its own logits.
    pub fn variants_give_their_logits(&self, at_least: usize) {
        let (expected, lists) = (self.tensors(), lists(self.folder));
        let variants = lists["variants"].as_object().unwrap();
        assert!(variants.len() >= at_least);
        for (name, changes) in variants {
            let changed = self.changed(changes);
            let model = crate::golden::decoder(self.kind, changed.path().to_str().unwrap());
            let ids = &expected[&format!("{name}.ids")];
            let ours = all(model.as_ref(), ids);
            let far = largest(&ours, &expected[&format!("{name}.logits")]);
            assert!(far < CLOSE, "{name}: {far}");
            let plain = largest(&ours, &all(self.decoder().as_ref(), ids));
            // The two forms of GELU lie closest together.
            assert!(plain > 5.0 * CLOSE, "{name} makes no difference: {plain}");
        }
    }

    /// Keys that a mask hides are not seen, and positions stay where they are.
    pub fn hides_keys(&self) {
        let (expected, model) = (self.tensors(), self.decoder());
        let ids = expected["ids"].narrow(0, 0, 1).unwrap();
        let mask = expected["masked.mask"].to_dtype(DType::U8).unwrap();
        let mut run = Run { mask: Some(mask), ..Run::new() };
        let far = largest(&model.forward(&model.embed(&ids).unwrap(), &mut run).unwrap(), &expected["masked.logits"]);
        assert!(far < CLOSE, "{far}");
    }

    /// All positions of the context length, and not one more.
    pub fn fills_its_context(&self) {
        let (expected, model) = (self.tensors(), self.decoder());
        let far = largest(&all(model.as_ref(), &expected["full.ids"]), &expected["full.logits"]);
        assert!(far < CLOSE, "{far}");
        let spec = model.spec();
        assert_eq!(expected["full.ids"].dim(1).unwrap(), spec.context);
        let embeds = Tensor::zeros((1, spec.context + 1, spec.width), DType::F32, &Device::Cpu).unwrap();
        let message = model.forward(&embeds, &mut Run::new()).unwrap_err().to_string();
        for part in [format!("{} positions", spec.context + 1), format!("allows {}", spec.context)] {
            assert!(message.contains(&part), "{message}");
        }
    }

    /// A prefix of another scale than the word embeddings, then text.
    pub fn continues_a_prefix(&self) {
        let (expected, model) = (self.tensors(), self.decoder());
        let text = model.embed(&expected["prefix.ids"]).unwrap();
        let both = Tensor::cat(&[&expected["prefix.embeds"], &text], 1).unwrap();
        let far = largest(&model.forward(&both, &mut Run::new()).unwrap(), &expected["prefix.logits"]);
        assert!(far < CLOSE, "{far}");
    }

    /// One position at a time over a cache, to the last that fits.
    pub fn steps_over_a_cache(&self) {
        let (expected, model) = (self.tensors(), self.decoder());
        let ids = expected["ids"].narrow(0, 0, 1).unwrap();
        let mut cache = model.new_cache(&CacheOptions::new(1, 20)).unwrap();
        for at in 0..20 {
            let step = model.embed(&ids.narrow(1, at, 1).unwrap()).unwrap();
            let logits = model.forward(&step, &mut Run::cached(cache.as_mut())).unwrap();
            let far = largest(&logits, &expected["cached.logits"].narrow(1, at, 1).unwrap().squeeze(1).unwrap());
            assert!(far < CLOSE, "position {at}: {far}");
        }
        let step = model.embed(&ids.narrow(1, 0, 1).unwrap()).unwrap();
        let message = model.forward(&step, &mut Run::cached(cache.as_mut())).unwrap_err().to_string();
        assert!(message.contains("21 positions are more than the cache holds, which is 20"), "{message}");
    }

    /// Greedy tokens of rows of different lengths, in one batch and alone, and a row that ends before the others.
    pub fn generates_batches_as_singles(&self) {
        let (expected, model) = (self.tensors(), self.decoder());
        let all = lists(self.folder);
        let batch =
            if self.prefix.is_empty() { &all["batch"] } else { &all[self.prefix.trim_end_matches('.')]["batch"] };
        let rows: Vec<Vec<u32>> = serde_json::from_value(batch["ids"].clone()).unwrap();
        let greedy: Vec<Vec<u32>> = serde_json::from_value(batch["greedy"].clone()).unwrap();
        let prompt = |row: &Vec<u32>| {
            model.embed(&Tensor::new(row.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap()
        };
        let prompts: Vec<Tensor> = rows.iter().map(prompt).collect();
        let request = request(greedy[0].len(), model.spec().vocab, rows.len());
        let batch = generate(model.as_ref(), &prompts, &request, &mut |_, _| Ok(())).unwrap();
        for (row, tokens) in greedy.iter().enumerate() {
            assert_eq!(&batch[row].tokens, tokens, "row {row}");
            let alone = generate(model.as_ref(), &prompts[row..=row], &request, &mut |_, _| Ok(())).unwrap();
            assert_eq!(&alone[0].tokens, tokens);
            for (at, (id, logprob)) in tokens.iter().zip(&batch[row].logprobs).enumerate() {
                let logits = expected["batch.greedy_logits"].get(row).unwrap().get(at).unwrap();
                let far = (log_softmax(&logits.to_vec1::<f32>().unwrap(), *id).unwrap() - logprob).abs();
                assert!(far < 1e-3, "row {row}, token {at}: {far}");
            }
        }
        // A row that meets its end of sequence leaves the batch; the others go on as before.
        let eos = greedy[1][2];
        let stopped = Request { eos: vec![eos], ..request };
        let batch = generate(model.as_ref(), &prompts, &stopped, &mut |_, _| Ok(())).unwrap();
        for (row, tokens) in greedy.iter().enumerate() {
            let until = tokens.iter().position(|id| *id == eos).unwrap_or(tokens.len());
            assert_eq!(batch[row].tokens, tokens[..until], "row {row}");
        }
    }

    /// Hidden states and attention as transformers gives them out.
    pub fn shows_hidden_states_and_attention(&self) {
        let (expected, model) = (self.tensors(), self.decoder());
        let layers = model.spec().layers;
        let mut run = Run::new();
        run.taps.want_hidden = true;
        run.taps.want_attention = true;
        let ids = expected["ids"].narrow(0, 0, 1).unwrap();
        model.forward(&model.embed(&ids).unwrap(), &mut run).unwrap();
        assert_eq!((run.taps.hidden.len(), run.taps.attention.len()), (layers + 1, layers));
        for (at, state) in run.taps.hidden.iter().enumerate() {
            let far = relative(state, &expected[&format!("hidden.{at}")]);
            assert!(far < 1e-5, "hidden state {at}: {far}");
        }
        for (at, attention) in run.taps.attention.iter().enumerate() {
            let far = largest(attention, &expected[&format!("attention.{at}")]);
            assert!(far < 1e-5, "attention {at}: {far}");
        }
    }

    /// Loss and input gradient of a training step.
    pub fn trains_what_stands_before_it(&self) {
        let (expected, model) = (self.tensors(), self.decoder());
        let input = Var::from_tensor(&expected["grad.embeds"]).unwrap();
        let targets = expected["grad.targets"].to_vec2::<i64>().unwrap();
        let (mut at, mut labels) = (Vec::new(), Vec::new());
        for (row, line) in targets.iter().enumerate() {
            for (position, id) in line.iter().enumerate().filter(|(_, id)| **id >= 0) {
                at.push((row, position));
                labels.push(*id as u32);
            }
        }
        let mut run = Run { logits: LogitPositions::At(at), ..Run::new() };
        let logits = model.forward(input.as_tensor(), &mut run).unwrap();
        let labels = Tensor::new(labels, &Device::Cpu).unwrap();
        let loss = candle_nn::loss::cross_entropy(&logits, &labels).unwrap();
        let far = (loss.to_scalar::<f32>().unwrap() - expected["grad.loss"].to_vec1::<f32>().unwrap()[0]).abs();
        assert!(far < 1e-5, "{far}");
        let gradient = loss.backward().unwrap().remove(input.as_tensor()).unwrap();
        // candle's own cross-entropy sums in f32, over all rows of the head.
        let far = relative(&gradient, &expected["grad.input"]);
        assert!(far < 1e-4, "{far}");
    }

    /// `config.json` with `key` set to `value` is refused, before any weight is read, by a message with these parts.
    pub fn refuses(&self, key: &str, value: Value, expected: &[&str]) {
        let registry = limber::built_in::registry().unwrap();
        let changed = self.changed(&json!({ key: value }));
        let source = source(&registry, "decoder", self.kind, changed.path().to_str().unwrap());
        let message = format!("{:#}", registry.decoder(self.kind, json!({}), source.as_ref()).err().unwrap());
        for part in expected.iter().chain([&"config.json"]) {
            assert!(message.contains(part), "{key}: {message}");
        }
    }

    /// A copy of the folder in whose `config.json` `changes` are set.
    pub fn changed(&self, changes: &Value) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder(&self.path())).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        change(&copy.path().join("config.json"), changes);
        copy
    }
}

/// Greedy tokens of rows that nothing ends.
pub fn request(max_tokens: usize, limit: usize, batch: usize) -> Request<'static> {
    let sampling = Sampling::default();
    Request { max_tokens, sampling, seed: 0, limit, eos: vec![], stop: None, batch, cache: CacheType::F32 }
}

/// Sets `changes` in a JSON file.
pub fn change(file: &Path, changes: &Value) {
    let mut tree: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        tree[key] = value.clone();
    }
    std::fs::write(file, tree.to_string()).unwrap();
}

/// The kind `auto` finds the case's kind.
pub fn told_by_its_folder(case: &Case) {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "decoder", case.kind, &case.path());
    assert_eq!(registry.detect("decoder", source.as_ref()).unwrap().kind, case.kind, "{}", case.path());
}

/// A folder is not taken for the model that is named beside it.
pub fn model_refused_beside(kind: &str, path: &str, model: &str, expected: &str) {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "decoder", kind, path);
    let message = registry.decoder(kind, json!({ "model": model }), source.as_ref()).err().unwrap().to_string();
    assert!(message.contains("config.json") && message.contains(expected), "{message}");
}

/// Settings over random weights that are refused, with a part of the message.
pub fn settings_refused(kind: &str, settings: Value, expected: &str) {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "decoder", kind, "random:1");
    let message = format!("{:#}", registry.decoder(kind, settings, source.as_ref()).err().unwrap());
    assert!(message.contains(expected), "{message}");
}

/// The resolved settings of a decoder over random weights.
pub fn resolved(kind: &str, settings: Value) -> Value {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "decoder", kind, "random:1");
    registry.decoder(kind, settings, source.as_ref()).unwrap().settings
}

/// Random weights have the names, shapes and distributions of a new model of transformers: `initial` of
/// `expected.json`.
pub fn drawn_as_in_transformers(case: &Case) {
    let registry = limber::built_in::registry().unwrap();
    let (kind, lists) = (case.kind, lists(case.folder));
    let models = lists["initial"].as_array().unwrap();
    assert!(!models.is_empty());
    for model in models {
        let (source, drawn) = drawings(1);
        let mut settings = model["settings"].clone();
        if kind != "llama" {
            // The kind itself, but for one that is several.
            settings.as_object_mut().unwrap().remove("model_type");
        }
        // Of longer texts alone.
        settings.as_object_mut().unwrap().remove("original_max_position_embeddings");
        let prepared = registry.decoder(kind, settings, source.as_ref()).unwrap();
        prepared.build(&Weights::new(source, Device::Cpu, None)).unwrap();
        let drawn = drawn.lock().unwrap();
        let wanted = model["weights"].as_object().unwrap();
        assert!(drawn.keys().eq(wanted.keys().collect::<BTreeSet<_>>()), "{:?}", drawn.keys());
        for (name, (init, data)) in drawn.iter() {
            let (shape, reference) = (data.shape(), &wanted[name.as_str()]);
            let theirs: Vec<usize> = serde_json::from_value(reference["shape"].clone()).unwrap();
            assert_eq!(shape, theirs, "{name}");
            let (mean, std, zeros) = match *init {
                Init::Const(value) => (value, 0.0, vec![]),
                Init::Normal { mean, std } => (mean, std, vec![]),
                Init::NormalButRow { std, row } => (0.0, std, vec![row]),
                other => panic!("{name}: {other:?}"),
            };
            let rows: Vec<usize> = serde_json::from_value(reference["zero_rows"].clone()).unwrap();
            assert_eq!(zeros, rows, "{name}");
            let (n, number) =
                (shape.iter().product::<usize>() as f32, |key: &str| reference[key].as_f64().unwrap() as f32);
            // Five standard errors of what transformers' own draw shows.
            assert!((number("mean") - mean).abs() <= 5.0 * std / n.sqrt(), "{name}: {reference} for {init:?}");
            assert!((number("std") - std).abs() <= 5.0 * std / (2.0 * n).sqrt(), "{name}: {reference} for {init:?}");
        }
    }
}

/// The folder in which tensors are renamed or changed as `edit` says, in one safetensors file.
pub fn edited(case: &Case, edit: impl Fn(&mut HashMap<String, Tensor>)) -> TempDir {
    let copy = case.changed(&json!({}));
    let file = copy.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    edit(&mut tensors);
    std::fs::remove_file(&file).unwrap();
    candle_core::safetensors::save(&tensors, &file).unwrap();
    copy
}

/// A decoder built from a folder, or why not.
pub fn build(kind: &str, folder: &Path) -> anyhow::Result<Box<dyn Decoder>> {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "decoder", kind, folder.to_str().unwrap());
    let prepared = registry.decoder(kind, json!({}), source.as_ref())?;
    prepared.build(&Weights::new(source, Device::Cpu, None))
}

/// Each variant of `expected.json`, a change of the case's `config.json` over its weights, gives the logits of
/// `variants.safetensors`, all at once and step by step behind a prompt of 9. Null takes a key away, save those of
/// `nulls`.
pub fn variants_give_their_logits_and_steps(case: &Case, count: usize) {
    let lists = lists(case.folder);
    let file = folder(&format!("{}/variants.safetensors", case.folder));
    let expected = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let nulls: Vec<String> = serde_json::from_value(lists["nulls"].clone()).unwrap();
    let variants = lists["variants"].as_object().unwrap();
    assert_eq!(variants.len(), count);
    let ids = &expected["ids"];
    // Those whose frequencies grow with a row.
    let growing: Vec<String> = match lists.get("growing") {
        Some(names) => serde_json::from_value(names.clone()).unwrap(),
        None => vec!["dynamic".into()],
    };
    for (name, changes) in variants {
        let copy = case.changed(changes);
        let path = copy.path().join("config.json");
        let mut tree: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        tree.as_object_mut().unwrap().retain(|key, value| !value.is_null() || nulls.contains(key));
        std::fs::write(&path, tree.to_string()).unwrap();
        let model = crate::golden::decoder(case.kind, copy.path().to_str().unwrap());
        let wanted = &expected[&format!("{name}.logits")];
        let far = largest(&all(model.as_ref(), ids), wanted);
        assert!(far < close(wanted), "{name}: {far}");
        assert_eq!(model.supports_prefix_reuse(ids.dim(1).unwrap()), !growing.contains(name), "{name}");
        let wanted = expected.get(&format!("{name}.cached.logits")).unwrap_or(wanted);
        steps_behind_a_prompt(model.as_ref(), ids, wanted, name);
    }
}

/// A prompt of 9 positions of `ids`, then steps over a cache, give the logits `wanted`.
pub fn steps_behind_a_prompt(model: &dyn Decoder, ids: &Tensor, wanted: &Tensor, name: &str) {
    let mut cache = model.new_cache(&CacheOptions::new(1, 20)).unwrap();
    let mut at = 0;
    for count in std::iter::once(9).chain([1; 11]) {
        let embeds = model.embed(&ids.narrow(1, at, count).unwrap()).unwrap();
        at += count;
        let logits = model.forward(&embeds, &mut Run::cached(cache.as_mut())).unwrap();
        let far = largest(&logits, &wanted.narrow(1, at - 1, 1).unwrap().squeeze(1).unwrap());
        assert!(far < close(wanted), "{name}, position {at}: {far}");
    }
}

/// Logits of all positions of `ids`.
pub fn all(decoder: &dyn Decoder, ids: &Tensor) -> Tensor {
    decoder.forward(&decoder.embed(ids).unwrap(), &mut Run::new()).unwrap()
}
