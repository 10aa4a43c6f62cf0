//! A block against its formula, written out: what all ways of a block could have wrong together.

use super::*;
use crate::layers::Layer;
use crate::ops::softmax;
use crate::weights::{ONES, ZEROS};

/// The block of RMS norms, without positions, over x `[T, D]`.
fn written_out(block: &BlockPlan, w: &Weights, x: &Tensor) -> candle_core::Result<Tensor> {
    let linear = |m: &MatrixPlan, x: &Tensor, n_out: usize| -> candle_core::Result<Tensor> {
        let w = w.pp(m.name);
        let y = x.matmul(&w.tensor("weight", &[n_out, x.dim(1)?], m.init).unwrap().t()?)?;
        if m.biased { y.broadcast_add(&w.tensor("bias", &[n_out], ZEROS).unwrap()) } else { Ok(y) }
    };
    let norm = |name: Option<&str>, x: &Tensor| -> candle_core::Result<Tensor> {
        let Some(name) = name else { return Ok(x.clone()) };
        let size = (x.sqr()?.mean_keepdim(1)? + block.norm.eps)?.sqrt()?;
        x.broadcast_div(&size)?.broadcast_mul(&w.pp(name).tensor("weight", &[block.width], ONES).unwrap())
    };
    let Heads { queries, keys, dim, scale } = block.attention.attention.heads;
    let group = queries / keys;
    let unseen: Vec<f32> = (0..T * T).map(|i| if i % T > i / T { f32::NEG_INFINITY } else { 0.0 }).collect();
    let unseen = Tensor::from_vec(unseen, (T, T), &Device::Cpu)?;
    let attend = |x: &Tensor| -> candle_core::Result<Tensor> {
        let head = |x: &Tensor, at: usize| x.narrow(1, at * dim, dim)?.contiguous();
        let mut heads = Vec::new();
        for i in 0..queries {
            let [q, k, v] = match &block.attention.projections {
                ProjectionPlan::Split { q, k, v } => [
                    head(&linear(q, x, queries * dim)?, i)?,
                    head(&linear(k, x, keys * dim)?, i / group)?,
                    head(&linear(v, x, keys * dim)?, i / group)?,
                ],
                ProjectionPlan::Fused { qkv, layout } => {
                    let all = linear(qkv, x, (queries + 2 * keys) * dim)?;
                    let first = i / group * (group + 2);
                    let places = match layout {
                        FusedLayout::Concatenated => [i, queries + i / group, queries + keys + i / group],
                        FusedLayout::Grouped => [first + i % group, first + group, first + group + 1],
                    };
                    [head(&all, places[0])?, head(&all, places[1])?, head(&all, places[2])?]
                }
            };
            let [q, k] = match &block.attention.query_key_norm {
                None => [q, k],
                Some(names) => {
                    let own = |name: &str, head: usize, x: &Tensor| -> candle_core::Result<Tensor> {
                        let gain = w.pp(format!("{name}.norms.{head}")).tensor("weight", &[dim], ONES).unwrap();
                        let size = (x.sqr()?.mean_keepdim(1)? + names.norm.eps)?.sqrt()?;
                        x.broadcast_div(&size)?.broadcast_mul(&gain)
                    };
                    [own(names.q, i, &q)?, own(names.k, i / group, &k)?]
                }
            };
            heads.push(softmax(&((q.matmul(&k.t()?)? * scale)? + &unseen)?)?.matmul(&v)?);
        }
        linear(&block.attention.out, &Tensor::cat(&heads, 1)?, block.width)
    };
    let mlp = |x: &Tensor| -> candle_core::Result<Tensor> {
        let MlpLayers::Gated { gate, up } = &block.mlp.layers else { candle_core::bail!("no gate") };
        let (gate, up) = (linear(gate, x, block.mlp.inner)?, linear(up, x, block.mlp.inner)?);
        linear(&block.mlp.down, &(gate.silu()? * up)?, block.width)
    };
    let scale = block.residual_scale.unwrap_or(1.0);
    let (first, second) = (&block.attention_norms, &block.mlp_norms);
    if block.parallel {
        let normed = norm(first.before, x)?;
        let other = if second.before.is_none() { normed.clone() } else { norm(second.before, x)? };
        let (a, b) = (norm(first.after, &attend(&normed)?)?, norm(second.after, &mlp(&other)?)?);
        return ((x + (a * scale)?)? + (b * scale)?)?.contiguous();
    }
    let end = |norms: &BranchNorms, x: &Tensor, y: Tensor| norm(norms.sum, &(x + (norm(norms.after, &y)? * scale)?)?);
    let x = end(first, x, attend(&norm(first.before, x)?)?)?;
    end(second, &x, mlp(&norm(second.before, &x)?)?)
}

#[test]
fn blocks_are_what_their_formula_says() {
    let norms = |before, after, sum| BranchNorms { before, after, sum };
    let base = attention(|a| a.rotary = None);
    let with = |first, second| BlockPlan { attention_norms: first, mlp_norms: second, ..base.clone() };
    let whole = with(norms(Some("b1"), Some("a1"), Some("s1")), norms(Some("b2"), Some("a2"), Some("s2")));
    let projected = |layout, keys| {
        let mut block = fused(layout, keys);
        block.attention.rotary = None;
        block
    };
    let parallel = BlockPlan { parallel: true, ..with(norms(Some("b1"), None, None), norms(None, Some("a2"), None)) };
    let cases = [
        ("pre-norm", base.clone()),
        ("all norms, scaled", BlockPlan { residual_scale: Some(0.6), ..whole }),
        ("scaled", BlockPlan { residual_scale: Some(0.6), ..base.clone() }),
        ("norms after the branches", with(norms(None, Some("a1"), None), norms(None, Some("a2"), None))),
        ("grouped", projected(FusedLayout::Grouped, 2)),
        ("concatenated", projected(FusedLayout::Concatenated, 2)),
        ("a norm for each head", {
            let mut block = query_key_norm(NormScope::EachHead, NormKind::Rms);
            block.attention.rotary = None;
            block
        }),
        ("parallel of one norm", parallel.clone()),
        (
            "parallel of two norms, scaled",
            BlockPlan { residual_scale: Some(0.6), mlp_norms: BranchNorms::before("b2"), ..parallel },
        ),
    ];
    for (name, plan) in cases {
        for backend in [Backend::Kernels, Backend::Candle] {
            let w = weights(backend, None);
            let block = DecoderBlock::load(&plan, &w).unwrap();
            let x = Weights::random(1).tensor("x", &[1, T, plan.width], Init::normal(1.0)).unwrap();
            let found = Layer::forward(&block, 0, &x, &[0], &mut Run::new(), None).unwrap();
            let expected = written_out(&plan, &w, &x.squeeze(0).unwrap()).unwrap();
            // Sums of some dozen f32 terms.
            assert!(largest(&found.squeeze(0).unwrap(), &expected) < 2e-5, "{name}, {backend:?}");
        }
    }
}
