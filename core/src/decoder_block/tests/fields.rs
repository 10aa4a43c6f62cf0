//! Every field of a plan says something: a model changes with it, or is refused.

use super::*;
use crate::weights::WeightError;
use std::sync::Mutex;

/// A plan in which everything that can be set is set.
fn rich() -> ModelPlan {
    let norms = |before, after, sum| BranchNorms { before: Some(before), after: Some(after), sum: Some(sum) };
    let norm = NormPlan { kind: NormKind::Rms, eps: 1e-5 };
    let names = QueryKeyNorm { q: "qn", k: "kn", scope: NormScope::Head, norm };
    let mut block = attention(|a| {
        a.query_key_norm = Some(names);
        a.clip = Some(0.4);
        a.attention.window = Some(3);
        a.attention.soft_cap = Some(0.7);
        a.attention.linear_bias = Some(LinearBias::Distance(alibi_slopes(4)));
    });
    block.attention_norms = norms("before1", "after1", "sum1");
    block.mlp_norms = norms("before2", "after2", "sum2");
    block.residual_scale = Some(0.6);
    let mut plan = model(&block);
    plan.head.tied = false;
    plan
}

/// Logits of some words, or why there are none.
fn outcome(plan: &ModelPlan, weights: &Weights) -> std::result::Result<Vec<f32>, String> {
    let model = DecoderModel::load(plan, weights).map_err(|e| e.to_string())?;
    let ids = Tensor::new(&[[3u32, 1, 4, 1, 5, 9, 2]], &Device::Cpu).unwrap();
    let logits = model.forward(&model.embed(&ids).unwrap(), &mut Run::new()).map_err(|e| e.to_string())?;
    let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
    assert!(logits.iter().all(|x| x.is_finite()), "{logits:?}");
    Ok(logits)
}

type Change = Box<dyn Fn(&mut ModelPlan)>;

/// Each field of a plan changed, by name. What is taken apart here does not compile with a field that is new: add its change.
fn changes() -> Vec<(String, Change)> {
    let ModelPlan {
        spec: DecoderSpec { width: _, vocab: _, layers: _, kv_heads: _, head_dim: _, context: _, eos: _ },
        prefixes: _,
        probe: _,
        words: TablePlan { name: _, init: _, scale: _ },
        input_scale: _,
        projections: _,
        positions,
        layers: _,
        blocks,
        final_norm: _,
        head: HeadPlan { matrix: MatrixPlan { name: _, biased: _, init: _, transposed: _ }, other_name: _, .. },
    } = rich();
    let HeadPlan { matrix: _, other_name: _, tied: _, scale: _, soft_cap: _ } = rich().head;
    let Some(PositionPlan { table: _, offset: _ }) = positions else { panic!("no positions") };
    let BlockPlan {
        width: _,
        norm: NormPlan { kind: _, eps: _ },
        attention_norms: BranchNorms { before: _, after: _, sum: _ },
        attention,
        mlp_norms: _,
        mlp: MlpPlan { inner: _, activation: _, layers: _, down: _ },
        parallel: _,
        residual_scale: _,
    } = blocks[0].clone();
    let AttentionPlan { attention, projections: _, clip: _, out: _, query_key_norm, rotary: _ } = attention;
    let CausalAttention {
        heads: Heads { queries: _, keys: _, dim: _, scale: _ },
        window: _,
        soft_cap: _,
        linear_bias: _,
    } = attention;
    let Some(QueryKeyNorm { q: _, k: _, scope: _, norm: _ }) = query_key_norm else { panic!("no norms") };

    let mut all: Vec<(String, Change)> = Vec::new();
    let mut add = |name: &str, change: Change| all.push((name.to_string(), change));
    macro_rules! model {
        ($($name:literal: |$plan:ident| $change:expr,)*) => { $(add($name, Box::new(|$plan| { $change; }));)* };
    }
    // The same of every block.
    macro_rules! block {
        ($($name:literal: |$block:ident| $change:expr,)*) => {
            $(add($name, Box::new(|plan| plan.blocks.iter_mut().for_each(|$block| { $change; })));)*
        };
    }
    const OTHER: Init = Init::Uniform { low: -0.7, high: 0.7 };
    model! {
        "spec.vocab": |plan| plan.spec.vocab = 12,
        "spec.layers": |plan| plan.spec.layers = 3,
        "spec.kv_heads": |plan| plan.spec.kv_heads = 1,
        "spec.head_dim": |plan| plan.spec.head_dim = 8,
        "spec.context": |plan| plan.spec.context = 6,
        "spec.width": |plan| plan.spec.width = 8,
        "prefixes": |plan| plan.prefixes = &["elsewhere"],
        "words.name": |plan| plan.words.name = "other",
        "words.init": |plan| plan.words.init = OTHER,
        "words.scale": |plan| plan.words.scale = 0.7,
        "input_scale": |plan| plan.input_scale = 0.7,
        "projections": |plan| plan.projections = None,
        "positions": |plan| plan.positions = None,
        "layers": |plan| plan.layers = "other",
        "blocks, fewer": |plan| plan.blocks.truncate(1),
        "blocks, one of another kind": |plan| plan.blocks[1].mlp.activation = Activation::Relu,
        "final_norm": |plan| plan.final_norm = None,
        "head.tied": |plan| plan.head.tied = true,
        "head.scale": |plan| plan.head.scale = 0.7,
        "head.soft_cap": |plan| plan.head.soft_cap = None,
    }
    for (name, change) in [
        ("name", Box::new(|p: &mut PositionPlan| p.table.name = "other") as Box<dyn Fn(&mut PositionPlan)>),
        ("init", Box::new(|p| p.table.init = OTHER)),
        ("scale", Box::new(|p| p.table.scale = 0.7)),
        ("offset", Box::new(|p| p.offset = 1)),
    ] {
        add(&format!("positions.{name}"), Box::new(move |plan| plan.positions.iter_mut().for_each(&change)));
    }
    for (name, change) in [
        ("name", Box::new(|n: &mut (&str, NormPlan)| n.0 = "other") as Box<dyn Fn(&mut (&'static str, NormPlan))>),
        ("kind", Box::new(|n| n.1.kind = NormKind::Layer)),
        ("eps", Box::new(|n| n.1.eps = 0.1)),
    ] {
        add(&format!("final_norm.{name}"), Box::new(move |plan| plan.final_norm.iter_mut().for_each(&change)));
    }
    block! {
        "block.width": |block| block.width = 14,
        "block.norm.kind": |block| block.norm.kind = NormKind::Layer,
        "block.norm.eps": |block| block.norm.eps = 0.1,
        "attention_norms.before": |block| block.attention_norms.before = Some("other"),
        "attention_norms.after": |block| block.attention_norms.after = Some("other"),
        "attention_norms.sum": |block| block.attention_norms.sum = Some("other"),
        "attention_norms.before, none": |block| block.attention_norms.before = None,
        "attention_norms.after, none": |block| block.attention_norms.after = None,
        "attention_norms.sum, none": |block| block.attention_norms.sum = None,
        "mlp_norms.before": |block| block.mlp_norms.before = Some("other"),
        "mlp_norms.after": |block| block.mlp_norms.after = Some("other"),
        "mlp_norms.sum": |block| block.mlp_norms.sum = Some("other"),
        "mlp_norms.before, none": |block| block.mlp_norms.before = None,
        "mlp_norms.after, none": |block| block.mlp_norms.after = None,
        "mlp_norms.sum, none": |block| block.mlp_norms.sum = None,
        "parallel": |block| block.parallel = true,
        "parallel, without norms of sums": |block| {
            block.parallel = true;
            (block.attention_norms.sum, block.mlp_norms.sum) = (None, None);
        },
        "residual_scale": |block| block.residual_scale = None,
        "heads.queries": |block| block.attention.attention.heads.queries = 2,
        "heads.keys": |block| block.attention.attention.heads.keys = 1,
        "heads.dim": |block| block.attention.attention.heads.dim = 4,
        "heads.scale": |block| block.attention.attention.heads.scale = 0.9,
        "window": |block| block.attention.attention.window = Some(2),
        "soft_cap": |block| block.attention.attention.soft_cap = Some(0.3),
        "linear_bias": |block| block.attention.attention.linear_bias = None,
        "linear_bias, of another kind": |block| {
            block.attention.attention.linear_bias = Some(LinearBias::RoundedPosition(alibi_slopes(4)))
        },
        "projections, fused": |block| {
            let layout = FusedLayout::Concatenated;
            block.attention.projections = ProjectionPlan::Fused { qkv: matrix("qkv"), layout }
        },
        "clip": |block| block.attention.clip = Some(0.2),
        "query_key_norm": |block| block.attention.query_key_norm = None,
        "rotary": |block| block.attention.rotary = None,
        "rotary, of another base": |block| {
            block.attention.rotary = Some(Rotary::new(6, 16, 20.0, RotaryStyle::Half))
        },
        "rotary, of more than a head": |block| {
            block.attention.rotary = Some(Rotary::new(8, 16, 100.0, RotaryStyle::Half))
        },
        "inner": |block| block.mlp.inner = 16,
        "activation": |block| block.mlp.activation = Activation::GeluNew,
        "mlp.layers": |block| block.mlp.layers = MlpLayers::GatedFused { gate_up: matrix("both") },
    }
    for (name, change) in [
        ("q", Box::new(|n: &mut QueryKeyNorm| n.q = "other") as Box<dyn Fn(&mut QueryKeyNorm)>),
        ("k", Box::new(|n| n.k = "other")),
        ("scope, each head", Box::new(|n| n.scope = NormScope::EachHead)),
        ("scope, all heads", Box::new(|n| n.scope = NormScope::AllHeads)),
        ("kind", Box::new(|n| n.norm.kind = NormKind::LayerUnbiased)),
        ("eps", Box::new(|n| n.norm.eps = 0.1)),
    ] {
        let change = move |block: &mut BlockPlan| block.attention.query_key_norm.iter_mut().for_each(&change);
        add(&format!("query_key_norm.{name}"), Box::new(move |plan| plan.blocks.iter_mut().for_each(&change)));
    }
    type Of = fn(&mut ModelPlan) -> Vec<&mut MatrixPlan>;
    let matrices: [(&str, Of); 10] = [
        ("projections.0", |plan| plan.projections.iter_mut().map(|(inward, _)| inward).collect()),
        ("projections.1", |plan| plan.projections.iter_mut().map(|(_, outward)| outward).collect()),
        ("head.matrix", |plan| vec![&mut plan.head.matrix]),
        ("q", |plan| plan.blocks.iter_mut().flat_map(|block| split(block).map(|[q, ..]| q)).collect()),
        ("k", |plan| plan.blocks.iter_mut().flat_map(|block| split(block).map(|[_, k, _]| k)).collect()),
        ("v", |plan| plan.blocks.iter_mut().flat_map(|block| split(block).map(|[.., v]| v)).collect()),
        ("out", |plan| plan.blocks.iter_mut().map(|block| &mut block.attention.out).collect()),
        ("gate", |plan| plan.blocks.iter_mut().flat_map(|block| gated(block).map(|[gate, _]| gate)).collect()),
        ("up", |plan| plan.blocks.iter_mut().flat_map(|block| gated(block).map(|[_, up]| up)).collect()),
        ("down", |plan| plan.blocks.iter_mut().map(|block| &mut block.mlp.down).collect()),
    ];
    for (name, of) in matrices {
        for (field, change) in [
            ("name", (|m| m.name = "another") as fn(&mut MatrixPlan)),
            ("biased", |m| m.biased = !m.biased),
            ("init", |m| m.init = OTHER),
            ("transposed", |m| m.transposed = true),
        ] {
            add(&format!("{name}.{field}"), Box::new(move |plan| of(plan).into_iter().for_each(change)));
        }
    }
    all
}

fn split(block: &mut BlockPlan) -> Option<[&mut MatrixPlan; 3]> {
    match &mut block.attention.projections {
        ProjectionPlan::Split { q, k, v } => Some([q, k, v]),
        ProjectionPlan::Fused { .. } => None,
    }
}

fn gated(block: &mut BlockPlan) -> Option<[&mut MatrixPlan; 2]> {
    match &mut block.mlp.layers {
        MlpLayers::Gated { gate, up } => Some([gate, up]),
        MlpLayers::Plain { .. } | MlpLayers::GatedFused { .. } => None,
    }
}

#[test]
fn every_field_of_a_plan_counts() {
    for backend in [Backend::Kernels, Backend::Candle] {
        let weights = weights(backend, None);
        let expected = outcome(&rich(), &weights).unwrap();
        for (name, change) in changes() {
            let mut plan = rich();
            change(&mut plan);
            assert_ne!(outcome(&plan, &weights), Ok(expected.clone()), "{name} changes nothing");
        }
    }
    let mut plan = rich();
    plan.spec.eos = vec![7];
    assert_eq!(DecoderModel::load(&plan, &weights(Backend::Kernels, None)).unwrap().spec().eos, [7]);
}

#[test]
fn sizes_that_do_not_fit_each_other_are_refused() {
    let refused = |change: &dyn Fn(&mut ModelPlan), expected: &str| {
        let mut plan = rich();
        change(&mut plan);
        let message = outcome(&plan, &weights(Backend::Kernels, None)).unwrap_err();
        assert!(message.contains(expected), "{message}");
    };
    refused(&|plan| plan.spec.layers = 3, "a plan of 2 blocks for a model of 3 layers");
    refused(&|plan| plan.spec.kv_heads = 1, "block 0 has width 12 and 2 key heads of 6, expected width 12 and 1 of 6");
    refused(&|plan| plan.projections = None, "blocks of width 12 in a model of width 10 without projections");
    refused(
        &|plan| plan.blocks[1].attention.rotary = Some(Rotary::new(8, 16, 100.0, RotaryStyle::Half)),
        "block 1 rotates 8 elements of heads of 6",
    );
    refused(
        &|plan| (plan.head.tied, plan.head.matrix.transposed) = (true, true),
        "a head that is both tied and transposed",
    );
    refused(
        &|plan| plan.blocks[0].attention.attention.linear_bias = Some(LinearBias::Distance(alibi_slopes(3))),
        "3 slopes of a linear bias for 4 heads",
    );
    refused(&|plan| plan.blocks[0].parallel = true, "a parallel block with a norm of a branch's sum");
}

/// Random weights that note what they are asked for, or have that alone.
struct Named {
    names: Mutex<BTreeMap<String, Vec<usize>>>,
    closed: bool,
}

impl WeightSource for Named {
    fn label(&self) -> String {
        "here".into()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        self.closed.then(|| self.names.lock().unwrap().clone())
    }

    fn read(&self, request: &Request) -> std::result::Result<FrozenData, WeightError> {
        let mut names = self.names.lock().unwrap();
        if self.closed && !names.contains_key(request.name) {
            let (name, source_label, hint) = (request.name.into(), self.label(), String::new());
            return Err(WeightError::Missing { name, source_label, hint });
        }
        names.insert(request.name.into(), request.shape.into());
        Lively(RandomSource::new(3)).read(request)
    }
}

#[test]
fn names_are_looked_for_where_the_plan_says() {
    let source = |names, closed| Arc::new(Named { names: Mutex::new(names), closed });
    let over = |source: &Arc<Named>| Weights::new(source.clone(), Device::Cpu, None);
    let open = source(BTreeMap::new(), false);
    let expected = outcome(&rich(), &over(&open)).unwrap();
    let mut names = open.names.lock().unwrap().clone();
    assert_eq!(outcome(&rich(), &over(&source(names.clone(), true))), Ok(expected));

    // All but the head under a prefix, and the head under another name.
    for name in names.clone().keys() {
        let shape = names.remove(name).unwrap();
        let other = match name.strip_prefix("head.") {
            Some(rest) => format!("other_head.{rest}"),
            None => format!("model.{name}"),
        };
        names.insert(other, shape);
    }
    let moved = source(names, true);
    let mut plan = rich();
    (plan.prefixes, plan.head.other_name) = (&["decoder", "model"], Some("other_head"));
    outcome(&plan, &over(&moved)).unwrap();
    let missing = |change: fn(&mut ModelPlan), name: &str| {
        let mut plan = plan.clone();
        change(&mut plan);
        let message = outcome(&plan, &over(&moved)).unwrap_err();
        assert!(message.contains(name), "{message}");
    };
    missing(|plan| plan.head.other_name = None, "\"head.weight\"");
    missing(|plan| plan.prefixes = &["decoder"], "\"words.weight\"");
    missing(|plan| plan.probe = "letters", "\"words.weight\"");
}
