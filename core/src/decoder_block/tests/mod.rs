//! Every order of a block's operations, on the kernels and on candle's operations: values, caches, gradients, with and
//! without activation checkpointing.

use super::*;
use crate::backend::Backend;
use crate::cache::CacheOptions;
use crate::decoder::{Checkpointing, Decoder, LogitPositions};
use crate::decoder_model::{DecoderModel, HeadPlan, ModelPlan, PositionPlan, TablePlan};
use crate::ops::{
    Activation, COMPUTED, CausalAttention, Growth, Heads, LinearBias, NormKind, Rotary, RotaryStyle, alibi_slopes,
};
use crate::random::RandomSource;
use crate::spec::DecoderSpec;
use crate::weights::{FrozenData, Init, Request, WeightSource, WeightType};
use candle_core::{Device, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

const INIT: Init = Init::Normal { mean: 0.0, std: 0.3 };
mod fields;
mod formula;
mod layer;

const T: usize = 7;

/// Random weights in which no gain is 1 and no bias 0.
struct Lively(RandomSource);

impl WeightSource for Lively {
    fn label(&self) -> String {
        self.0.label()
    }
    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        None
    }
    fn read(&self, request: &Request) -> std::result::Result<FrozenData, WeightError> {
        let init = match request.init {
            Init::Const(mean) => Init::Normal { mean, std: 0.3 },
            other => other,
        };
        self.0.read(&Request { init, ..request.clone() })
    }
}

fn weights(backend: Backend, dtype: Option<WeightType>) -> Weights {
    Weights::new(Arc::new(Lively(RandomSource::new(3))), Device::Cpu, dtype).with_backend(backend)
}

fn matrix(name: &'static str) -> MatrixPlan {
    MatrixPlan::new(name, INIT)
}

/// Pre-norm, split projections of grouped queries, rotary halves, gated MLP.
fn base() -> BlockPlan {
    BlockPlan {
        width: 12,
        norm: NormPlan { kind: NormKind::Rms, eps: 1e-5 },
        attention_norms: BranchNorms::before("norm1"),
        attention: AttentionPlan {
            attention: CausalAttention::new(Heads::new(4, 2, 6)),
            projections: ProjectionPlan::Split { q: matrix("q"), k: matrix("k").biased(true), v: matrix("v") },
            clip: None,
            out: matrix("out"),
            query_key_norm: None,
            rotary: Some(Rotary::new(6, 16, 100.0, RotaryStyle::Half)),
        },
        mlp_norms: BranchNorms::before("norm2"),
        mlp: MlpPlan {
            inner: 20,
            activation: Activation::Silu,
            layers: MlpLayers::Gated { gate: matrix("gate"), up: matrix("up") },
            down: matrix("down"),
        },
        parallel: false,
        residual_scale: None,
    }
}

fn plain(block: BlockPlan) -> BlockPlan {
    let layers = MlpLayers::Plain { up: matrix("up").biased(true) };
    BlockPlan {
        mlp: MlpPlan { layers, activation: Activation::GeluNew, down: matrix("down").biased(true), ..block.mlp },
        ..block
    }
}

fn attention(change: impl FnOnce(&mut AttentionPlan)) -> BlockPlan {
    let mut block = base();
    change(&mut block.attention);
    block
}

fn fused(layout: FusedLayout, keys: usize) -> BlockPlan {
    attention(|a| {
        a.attention = CausalAttention::new(Heads::new(4, keys, 6));
        a.projections = ProjectionPlan::Fused { qkv: matrix("qkv").biased(true), layout };
    })
}

fn query_key_norm(scope: NormScope, kind: NormKind) -> BlockPlan {
    attention(|a| a.query_key_norm = Some(QueryKeyNorm { q: "qn", k: "kn", scope, norm: NormPlan { kind, eps: 1e-5 } }))
}

fn linear(kind: impl FnOnce(Arc<[f32]>) -> LinearBias) -> BlockPlan {
    attention(|a| (a.attention.linear_bias, a.rotary) = (Some(kind(alibi_slopes(4))), None))
}

/// Every setting of a plan in some block, by name.
fn blocks() -> Vec<(&'static str, BlockPlan)> {
    let layer = NormPlan { kind: NormKind::Layer, eps: 1e-5 };
    let scaled = BlockPlan { residual_scale: Some(0.6), ..base() };
    let sandwich = BlockPlan {
        norm: NormPlan { kind: NormKind::RmsLessOne, eps: 1e-6 },
        attention_norms: BranchNorms::sandwich("norm1", "after1"),
        mlp_norms: BranchNorms::sandwich("norm2", "after2"),
        ..base()
    };
    let after = BlockPlan {
        attention_norms: BranchNorms { after: Some("after1"), ..BranchNorms::default() },
        mlp_norms: BranchNorms { after: Some("after2"), ..BranchNorms::default() },
        ..base()
    };
    let post = BlockPlan {
        norm: layer,
        attention_norms: BranchNorms::sum("norm1"),
        mlp_norms: BranchNorms::sum("norm2"),
        ..plain(base())
    };
    let parallel = BlockPlan { parallel: true, norm: layer, mlp_norms: BranchNorms::default(), ..plain(base()) };
    vec![
        ("gated", base()),
        ("plain", plain(base())),
        ("gated in one matrix", {
            let mut block = base();
            block.mlp.layers = MlpLayers::GatedFused { gate_up: matrix("both") };
            block
        }),
        ("parallel of one norm", parallel.clone()),
        ("parallel of two norms", BlockPlan { mlp_norms: BranchNorms::before("norm2"), ..parallel.clone() }),
        ("parallel, gated", BlockPlan { mlp: base().mlp, ..parallel.clone() }),
        ("parallel, scaled", BlockPlan { residual_scale: Some(0.6), ..parallel.clone() }),
        (
            "parallel, normed after",
            BlockPlan {
                attention_norms: BranchNorms::sandwich("norm1", "after1"),
                mlp_norms: BranchNorms { after: Some("after2"), ..BranchNorms::default() },
                ..parallel
            },
        ),
        ("post-norm", post),
        ("sandwich", sandwich.clone()),
        ("sandwich, plain", plain(sandwich)),
        ("norms after the branches", after),
        ("scaled residual", scaled.clone()),
        ("scaled residual, plain", plain(scaled)),
        (
            "norms without parameters",
            BlockPlan { norm: NormPlan { kind: NormKind::LayerPlain, ..layer }, ..plain(base()) },
        ),
        ("norms without bias", BlockPlan { norm: NormPlan { kind: NormKind::LayerUnbiased, ..layer }, ..base() }),
        ("concatenated", fused(FusedLayout::Concatenated, 4)),
        ("concatenated, grouped queries", fused(FusedLayout::Concatenated, 2)),
        ("grouped, one query a key", fused(FusedLayout::Grouped, 4)),
        ("grouped, four queries a key", fused(FusedLayout::Grouped, 1)),
        ("query and key norms a head", query_key_norm(NormScope::Head, NormKind::Rms)),
        ("query and key norms over all", query_key_norm(NormScope::AllHeads, NormKind::Rms)),
        ("layer norms of queries and keys", query_key_norm(NormScope::Head, NormKind::LayerUnbiased)),
        ("a norm for each head", query_key_norm(NormScope::EachHead, NormKind::LayerUnbiased)),
        ("clipped projections", attention(|a| a.clip = Some(0.4))),
        ("window", attention(|a| a.attention.window = Some(3))),
        ("soft cap", attention(|a| a.attention.soft_cap = Some(0.7))),
        ("linear biases", linear(LinearBias::Distance)),
        ("linear biases of rounded positions", linear(LinearBias::RoundedPosition)),
        ("soft cap, linear biases and a window", {
            let mut block = linear(LinearBias::Distance);
            (block.attention.attention.soft_cap, block.attention.attention.window) = (Some(0.7), Some(3));
            block
        }),
        (
            "interleaved part of a head",
            attention(|a| a.rotary = Some(Rotary::new(4, 16, 100.0, RotaryStyle::Interleaved))),
        ),
        ("no positions", attention(|a| a.rotary = None)),
    ]
}

/// Two different blocks of a plan between everything that a model can have around them.
fn model(block: &BlockPlan) -> ModelPlan {
    let spec = DecoderSpec { width: 10, vocab: 11, layers: 2, kv_heads: 2, head_dim: 6, context: 16, eos: vec![] };
    let spec = DecoderSpec { kv_heads: block.attention.attention.heads.keys, ..spec };
    let head = HeadPlan { scale: 0.8, soft_cap: Some(3.0), ..HeadPlan::new(matrix("head").biased(true), true) };
    ModelPlan {
        spec,
        prefixes: &[""],
        probe: "words",
        words: TablePlan { scale: 0.5, ..TablePlan::new("words", INIT) },
        input_scale: 1.5,
        projections: Some((matrix("inward"), matrix("outward"))),
        positions: Some(PositionPlan { table: TablePlan::new("positions", INIT), offset: 2 }),
        layers: "h",
        blocks: vec![block.clone(), block.clone()],
        final_norm: Some(("last", block.norm)),
        head,
    }
}

fn load(block: &BlockPlan, backend: Backend) -> DecoderModel {
    DecoderModel::load(&model(block), &weights(backend, None)).unwrap()
}

fn embeds(seed: u64) -> Tensor {
    Weights::random(seed).tensor("x", &[2, T, 10], Init::normal(1.0)).unwrap()
}

fn largest(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// A mask that hides a key of the first row.
fn mask() -> Tensor {
    let mask: Vec<u8> = (0..2 * T).map(|i| u8::from(i != 2)).collect();
    Tensor::from_vec(mask, (2, T), &Device::Cpu).unwrap()
}

fn run(logits: LogitPositions, checkpointing: Checkpointing) -> Run<'static> {
    Run { logits, checkpointing, lengths: Some(vec![T, T - 2]), mask: Some(mask()), ..Run::new() }
}

/// The gradient of a fixed weighting of the logits, and how many gradients are left behind.
fn gradient(model: &DecoderModel, x: &Var, run: &mut Run) -> (Tensor, usize) {
    let logits = model.forward(x.as_tensor(), run).unwrap();
    let weighting = Weights::random(9).tensor("r", logits.dims(), Init::normal(1.0)).unwrap();
    let mut grads = (logits * weighting).unwrap().sum_all().unwrap().backward().unwrap();
    let left = grads.get_ids().count();
    (grads.remove(x.as_tensor()).unwrap(), left)
}

#[test]
fn both_backends_give_the_same_logits_over_all_positions_and_over_a_cache() {
    for (name, block) in blocks() {
        let [ours, candles] = [Backend::Kernels, Backend::Candle].map(|backend| load(&block, backend));
        let x = embeds(1);
        let all = ours.forward(&x, &mut Run::new()).unwrap();
        // Sums of some dozen f32 terms over two layers.
        assert!(largest(&candles.forward(&x, &mut Run::new()).unwrap(), &all) < 2e-5, "{name}");
        for model in [&ours, &candles] {
            let mut cache = model.new_cache(&CacheOptions::new(2, 16)).unwrap();
            for (from, count) in [(0, 3), (3, 1), (4, 3)] {
                let mut run = Run { logits: LogitPositions::All, ..Run::cached(cache.as_mut()) };
                let step = model.forward(&x.narrow(1, from, count).unwrap(), &mut run).unwrap();
                assert!(largest(&step, &all.narrow(1, from, count).unwrap()) < 2e-5, "{name} from {from}");
            }
            let at = LogitPositions::At(vec![(1, 2), (0, 6), (1, 2)]);
            let some = model.forward(&x, &mut Run { logits: at, ..Run::new() }).unwrap();
            let rows = all.reshape((2 * T, 11)).unwrap();
            let rows = rows.index_select(&Tensor::new(&[9u32, 6, 9], &Device::Cpu).unwrap(), 0).unwrap();
            assert!(largest(&some, &rows) < 2e-5, "{name}");
        }
    }
}

#[test]
fn every_way_of_checkpointing_gives_the_gradient_on_both_backends() {
    for (name, block) in blocks() {
        let [ours, candles] = [Backend::Kernels, Backend::Candle].map(|backend| load(&block, backend));
        let x = Var::from_tensor(&embeds(1)).unwrap();
        for logits in [LogitPositions::All, LogitPositions::At(vec![(1, 0), (0, T - 1), (0, T - 1)])] {
            let (expected, _) = gradient(&ours, &x, &mut run(logits.clone(), Checkpointing::None));
            for (backend, model) in [("kernels", &ours), ("candle", &candles)] {
                for checkpointing in [Checkpointing::None, Checkpointing::Full, Checkpointing::Selective] {
                    let (found, left) = gradient(model, &x, &mut run(logits.clone(), checkpointing));
                    // Gradients of order 1, a few roundings of sums of some dozen terms.
                    assert!(largest(&found, &expected) < 2e-4, "{name}, {backend}, {checkpointing:?}");
                    // That of x, and that of the weighting.
                    assert_eq!(left, 2, "{name}, {backend}, {checkpointing:?}: gradients are left behind");
                }
            }
        }
    }
}

#[test]
fn hidden_states_that_were_asked_for_are_whole_after_the_backward_pass() {
    let (model, x) = (load(&base(), Backend::Kernels), Var::from_tensor(&embeds(1)).unwrap());
    for checkpointing in [Checkpointing::Full, Checkpointing::Selective] {
        let mut run = run(LogitPositions::All, checkpointing);
        run.taps.want_hidden = true;
        gradient(&model, &x, &mut run);
        assert_eq!(run.taps.hidden.len(), 3);
        for hidden in &run.taps.hidden {
            assert_eq!(hidden.flatten_all().unwrap().to_vec1::<f32>().unwrap().len(), hidden.elem_count());
        }
    }
}

#[test]
fn composed_attention_is_computed_once_forward_and_once_backward() {
    let (model, x) = (load(&base(), Backend::Candle), Var::from_tensor(&embeds(1)).unwrap());
    for checkpointing in [Checkpointing::None, Checkpointing::Full, Checkpointing::Selective] {
        COMPUTED.set(0);
        gradient(&model, &x, &mut run(LogitPositions::All, checkpointing));
        // Two layers.
        assert_eq!(COMPUTED.get(), 4, "{checkpointing:?}");
    }
}

#[test]
fn frequencies_that_grow_with_a_row_are_those_of_its_own_length_in_the_backward_pass() {
    // One row is longer than what the model was trained with, the other is padded beyond it.
    let growth = Growth::Base { dim: 6, base: 100.0, factor: 2.0, trained: T - 2 };
    let block = attention(|a| a.rotary = Some(Rotary::new(6, 16, 100.0, RotaryStyle::Half).with_growth(growth)));
    for backend in [Backend::Kernels, Backend::Candle] {
        let (model, x) = (load(&block, backend), Var::from_tensor(&embeds(1)).unwrap());
        let of = |checkpointing| gradient(&model, &x, &mut run(LogitPositions::All, checkpointing)).0;
        for checkpointing in [Checkpointing::Full, Checkpointing::Selective] {
            assert!(largest(&of(checkpointing), &of(Checkpointing::None)) < 2e-5, "{backend:?}, {checkpointing:?}");
        }
        assert!(model.supports_prefix_reuse(T - 2) && !model.supports_prefix_reuse(T - 1));
    }
}

#[test]
fn gradients_equal_finite_differences() {
    // Differences across the edge of what is clipped are no derivative.
    for (name, block) in blocks().into_iter().filter(|(_, block)| block.attention.clip.is_none()) {
        let models = [Backend::Kernels, Backend::Candle].map(|backend| load(&block, backend));
        let x = Var::from_tensor(&embeds(1)).unwrap();
        let weighting = Weights::random(9).tensor("r", &[2, T, 11], Init::normal(1.0)).unwrap();
        let loss = |x: &Tensor| -> f64 {
            let logits = models[0].forward(x, &mut run(LogitPositions::All, Checkpointing::None)).unwrap();
            let all = (logits * &weighting).unwrap().to_dtype(candle_core::DType::F64).unwrap();
            all.sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        for direction in 0..2 {
            let v = embeds(20 + direction);
            let step = 3e-3;
            let moved = |step: f64| loss(&(x.as_tensor() + (&v * step).unwrap()).unwrap());
            let numeric = (moved(step) - moved(-step)) / (2.0 * step);
            for model in &models {
                let (grad, _) = gradient(model, &x, &mut run(LogitPositions::All, Checkpointing::Selective));
                let exact = f64::from((grad * &v).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
                // Third derivatives against the rounding of sums of some hundred f32 terms.
                let far = (numeric - exact).abs() / numeric.abs().max(1.0);
                assert!(far < 2e-2, "{name}: {numeric} by differences, {exact} by the backward pass");
            }
        }
    }
}

#[test]
fn weights_in_every_type_are_taken_by_both_backends() {
    for dtype in WeightType::ALL {
        let block = plain(base());
        let [ours, candles] = [Backend::Kernels, Backend::Candle]
            .map(|backend| DecoderModel::load(&model(&block), &weights(backend, Some(dtype))).unwrap());
        let x = Var::from_tensor(&embeds(1)).unwrap();
        let [a, b] =
            [&ours, &candles].map(|model| gradient(model, &x, &mut run(LogitPositions::All, Checkpointing::Full)).0);
        assert!(largest(&a, &b) < 2e-4, "{dtype}");
    }
}

#[test]
fn what_a_checkpointed_block_keeps_serves_one_gradient() {
    for checkpointing in [Checkpointing::Full, Checkpointing::Selective] {
        let (model, x) = (load(&base(), Backend::Kernels), Var::from_tensor(&embeds(1)).unwrap());
        let loss = model.forward(x.as_tensor(), &mut run(LogitPositions::All, checkpointing)).unwrap();
        let loss = loss.sqr().unwrap().sum_all().unwrap();
        loss.backward().unwrap();
        let message = loss.backward().unwrap_err().to_string();
        assert!(message.contains("activations are gone after their one gradient"), "{message}");
        assert_eq!(largest(x.as_tensor(), &embeds(1)), 0.0);
    }
}
