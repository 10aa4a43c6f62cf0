//! Sizes whose products wrap round, strides that lead out of memory, shapes of no elements: errors, never others' memory.
#![allow(missing_docs, clippy::unwrap_used)]

use limber_kernels::{
    Activation, Attention, CausalGrads, Conv, ConvShape, Epilogue, GridBias, Heads, Layer, Mlp, PoolShape, Rotary,
    RotaryStyle, ScoreBias, ShapeError, Values, Visible, Weight, activate, activate_input_grad, average_pool, bf16,
    dequantize, f32_to_bf16, gemm_crate_probe, layer_norm, layer_norm_input_grad, linear, linear_input_grad,
    linear_multi, linear_probe, max_pool, rms_norm, rms_norm_input_grad, softmax, softmax_input_grad, transpose,
};
use std::panic::catch_unwind;

/// 2^60: times 16 it wraps round to 0, the length of an empty slice.
const HUGE: usize = 1 << 60;

/// Asserts that a call is refused since `what` is too large.
#[track_caller]
fn too_large<T>(found: Result<T, ShapeError>, what: &str) {
    let error = found.map(drop).unwrap_err();
    assert!(matches!(error, ShapeError::TooLarge { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("{what} of shape [")), "{error}");
}

#[test]
fn linear_layers() {
    let w = [0f32; 16];
    let error = linear(&[], Weight::F32(&w), None, &mut [], HUGE, 16, 1).unwrap_err();
    assert_eq!(error.to_string(), "x of shape [1152921504606846976, 16] does not fit into memory");
    too_large(linear(&[0.0; 16], Weight::F32(&[]), None, &mut [], 1, 16, HUGE), "f32 weight");
    too_large(linear(&[0.0; 32], Weight::Q8_0(&[]), None, &mut [], 1, 32, 1 << 59), "q8_0 weight (bytes)");
    too_large(linear(&[0.0; 256], Weight::Q4K(&[]), None, &mut [], 1, 256, 1 << 56), "q4_k weight (bytes)");
    too_large(linear_input_grad(&[], Weight::F32(&w), &mut [], HUGE, 1, 16), "gy");
    too_large(linear_input_grad(&[0.0; 16], Weight::F32(&[]), &mut [], 1, HUGE, 16), "f32 weight");
    // A dimension of 0 hides no product of the others.
    too_large(linear(&[], Weight::F32(&w), None, &mut [], HUGE, 16, 0), "x");
}

#[test]
fn rows_of_no_numbers() {
    // So many rows would be gone through for ever.
    let epilogue = Epilogue { activation: Some(Activation::Gelu), ..Epilogue::default() };
    let layer = Layer { weight: Weight::F32(&[]), bias: None, y: &mut [], n_out: 0, epilogue };
    linear_multi(&[], &mut [layer], HUGE, 0).unwrap();
    softmax(&[], &mut [], HUGE, 0).unwrap();
    layer_norm(&[], &[], None, 1e-5, &mut [], HUGE, 0).unwrap();
    rms_norm(&[], &[], 1e-5, &mut [], HUGE, 0).unwrap();
    assert!(transpose(&[], [HUGE, 0, 1]).unwrap().is_empty());
    let pool = PoolShape { kernel: 1, stride: 1, padding: 0, ceil: false };
    assert!(max_pool(&[], [1 << 20, 1 << 20, 1 << 20, 0], pool).unwrap().is_empty());
    // Sums of no numbers.
    let mut y = [f32::NAN; 2];
    linear(&[], Weight::F32(&[]), Some(&[7.0]), &mut y, 2, 0, 1).unwrap();
    assert_eq!(y, [7.0; 2]);
}

#[test]
fn mlps() {
    let (h, w) = ([0f32; 4], [0f32; 8]);
    let (activation, n_in, inner, n_out) = (Activation::Relu, 2, 4, 2);
    let mlp = Mlp { first: Weight::F32(&w), second: Weight::F32(&w), activation, n_in, inner, n_out };
    too_large(mlp.second_half(&[], None, None, &mut [], 1 << 62), "h");
    too_large(mlp.input_grad(&[], &[], &mut [], 1 << 62), "h");
    let wide = Mlp { first: Weight::F32(&[]), n_in: 1 << 62, ..mlp };
    too_large(wide.input_grad(&h, &[0.0; 2], &mut [], 1), "f32 weight");
    let out = Mlp { second: Weight::F32(&[]), n_out: 1 << 62, ..mlp };
    too_large(out.second_half(&h, None, None, &mut [], 1), "f32 weight");
}

/// One query over two keys of four numbers.
fn attention<'a>(x: &'a [f32], visible: Visible<'a>) -> Attention<'a> {
    let strides = [8, 8, 4];
    Attention {
        q: Heads { data: x, strides },
        k: Heads { data: Values::F32(x), strides },
        v: Heads { data: Values::F32(x), strides },
        batch: 1,
        heads: 1,
        kv_heads: 1,
        queries: 1,
        positions: 2,
        head_dim: 4,
        scale: 1.0,
        visible,
        mask: None,
        soft_cap: None,
        bias: None,
    }
}

#[test]
fn strides_of_attention() {
    let x = [1f32; 8];
    let two = attention(&x, Visible::All(&[2]));
    let run = |a: Attention| a.run(&mut vec![0.0; 4 * a.queries], None);
    run(two).unwrap();
    let data = Values::F32(&x);
    // The second key lies 2^63 on; or so far that the sum with its four numbers wraps round.
    for stride in [1 << 63, usize::MAX, usize::MAX - 3] {
        let far = Heads { data, strides: [0, 0, stride] };
        let error = run(Attention { k: far, ..two }).unwrap_err();
        assert!(matches!(error, ShapeError::TooFar { what: "k", .. }), "{error}");
        let error = run(Attention { v: far, ..two }).unwrap_err();
        assert!(matches!(error, ShapeError::TooFar { what: "v", .. }), "{error}");
    }
    let far = Heads { data, strides: [0, 0, 1 << 63] };
    assert_eq!(
        run(Attention { k: far, ..two }).unwrap_err().to_string(),
        "k of shape [1, 1, 2, 4] with strides [0, 0, 9223372036854775808] reaches beyond any memory"
    );
    let q = Heads { data: x.as_slice(), strides: [0, 0, 1 << 62] };
    let error = run(Attention { q, queries: 5, ..two }).unwrap_err();
    assert!(matches!(error, ShapeError::TooFar { what: "q", .. }), "{error}");
    let q = Heads { data: x.as_slice(), strides: [0, 0, 4] };
    let bias = Some(ScoreBias::Each { data: &x, strides: [0, 0, usize::MAX] });
    let error = run(Attention { q, bias, queries: 2, ..two }).unwrap_err();
    assert!(matches!(error, ShapeError::TooFar { what: "bias", .. }), "{error}");
}

#[test]
fn strides_that_nothing_follows() {
    let x = [1f32; 8];
    let mut out = [0f32; 4];
    let any = [usize::MAX, 1 << 63, 1 << 63];
    let (q, one) = (Heads { data: x.as_slice(), strides: any }, Heads { data: Values::F32(&x), strides: any });
    let bias = Some(ScoreBias::Each { data: &[0.5], strides: any });
    let single = Attention { q, k: one, v: one, bias, ..attention(&x, Visible::All(&[1])) };
    single.run(&mut out, None).unwrap();
    assert_eq!(out, [1.0; 4]);
    // Rows that see nothing: no stride is followed, even of the second row.
    let q = Heads { data: [1f32; 8].as_slice(), strides: [4, 0, 0] };
    let none = Attention { batch: 2, visible: Visible::All(&[0, 0]), q, ..single };
    let mut out = [f32::NAN; 8];
    none.run(&mut out, None).unwrap();
    assert_eq!(out, [0.0; 8]);
}

#[test]
fn counts_of_attention() {
    let x = [1f32; 64];
    // With the new query they are 2^64 keys: none.
    let error = attention(&x, Visible::Causal(&[usize::MAX])).run(&mut [0.0; 4], None).unwrap_err();
    assert!(matches!(error, ShapeError::Size { what: "number of visible keys", .. }), "{error}");
    // Keys that all lie at one address: 16 queries have 2^64 scores with 2^60 of them.
    let same = Heads { data: Values::F32(&x), strides: [0; 3] };
    let q = Heads { data: x.as_slice(), strides: [0; 3] };
    let all = Attention { q, k: same, v: same, queries: 16, positions: HUGE, ..attention(&x, Visible::All(&[HUGE])) };
    too_large(all.run(&mut [0.0; 64], None), "block of scores");
    let two = attention(&x, Visible::All(&[2]));
    too_large(Attention { heads: 1 << 62, ..two }.run(&mut [], None), "out");
    let past = Visible::Causal(&[0]);
    too_large(
        Attention { positions: usize::MAX, mask: Some(&[]), ..attention(&x, past) }.run(&mut [0.0; 4], None),
        "mask",
    );
    // (2 g - 1)^2 + 3 wraps round to 4.
    let bias = Some(ScoreBias::Grid(GridBias { tables: &[0.0; 4], grid: 1 << 63 }));
    too_large(Attention { bias, ..two }.run(&mut [0.0; 4], None), "bias tables");
}

#[test]
fn gradients_of_attention() {
    let grads = |batch, positions, heads, kv_heads| CausalGrads {
        q: &mut [],
        k: &mut [],
        v: &mut [],
        batch,
        positions,
        heads,
        kv_heads,
        head_dim: 4,
        scale: 1.0,
        window: None,
        mask: None,
        soft_cap: None,
        bias: None,
    };
    too_large(grads(1, 1 << 62, 1, 1).run(&[]), "q");
    too_large(grads(1, 1, 0, 1 << 62).run(&[]), "k");
    // No position: nothing is asked for each of so many rows.
    grads(1 << 50, 0, 1, 1).run(&[]).unwrap();
    let (mut x, mut y, mut z) = ([0f32; 4], [0f32; 4], [0f32; 4]);
    let bias = Some(ScoreBias::Each { data: &[0.0], strides: [usize::MAX; 3] });
    let one = CausalGrads { q: &mut x, k: &mut y, v: &mut z, bias, ..grads(1, 1, 1, 1) };
    one.run(&[0.0; 4]).unwrap();
    let bias = Some(ScoreBias::Each { data: &[0.0], strides: [0, 0, 1 << 63] });
    let (mut x, mut y, mut z) = ([0f32; 12], [0f32; 12], [0f32; 12]);
    let three = CausalGrads { q: &mut x, k: &mut y, v: &mut z, bias, ..grads(1, 3, 1, 1) };
    let error = three.run(&[0.0; 12]).unwrap_err();
    assert!(matches!(error, ShapeError::TooFar { what: "bias", .. }), "{error}");
    let error = grads(1, 0, 3, 2).run(&[]).unwrap_err();
    assert!(matches!(error, ShapeError::Size { what: "kv_heads", .. }), "{error}");
}

#[test]
fn convolutions() {
    let one = ConvShape::square(1, 1, 1, 1, 0);
    let conv = |shape, weight: &[f32]| Conv::new(shape, weight, None);
    too_large(conv(ConvShape { n_out: HUGE, kernel: [4, 4], ..one }, &[]), "convolution weight");
    too_large(conv(ConvShape { n_out: 0, n_in: HUGE, kernel: [4, 4], ..one }, &[]), "convolution weight");
    // No input of an output: nothing would ever write the outputs.
    let error = conv(ConvShape { n_in: 0, ..one }, &[]).unwrap_err();
    assert_eq!(error.to_string(), "channels in of a convolution is 0; it must be at least 1");
    let error = conv(ConvShape { kernel: [0, 1], ..one }, &[]).unwrap_err();
    assert_eq!(error.to_string(), "side of a convolution's kernel is 0; it must be at least 1");

    let run = |padding, size, x: &[f32]| conv(ConvShape { padding, ..one }, &[2.0]).unwrap().run(x, size, None, None);
    assert_eq!(run([0; 4], [1, 1, 1], &[3.0]).unwrap(), [6.0]);
    too_large(run([0; 4], [HUGE, 16, 1], &[]), "x");
    // Paddings that wrap round to the unpadded image, that do not fit a signed number, and whose output fits no memory.
    too_large(run([1 << 63, 0, 1 << 63, 0], [1, 1, 1], &[3.0]), "padded image");
    too_large(run([0, 0, 0, 1 << 63], [1, 1, 1], &[3.0]), "padded image");
    too_large(run([0, 0, 1 << 61, 0], [1, 1, 1], &[3.0]), "output of a convolution");
    assert_eq!(ConvShape { padding: [usize::MAX; 4], ..one }.output(1, 1), None);
    let wide = Conv::new(ConvShape { padding: [1 << 30; 4], ..one }, &[2.0], None).unwrap();
    too_large(wide.run(&[3.0], [1, 1, 1], None, None), "output of a convolution");
}

#[test]
fn pools() {
    let pool = PoolShape { kernel: 2, stride: 1, padding: 0, ceil: false };
    too_large(max_pool(&[], [HUGE, 4, 4, 1], pool), "x");
    too_large(average_pool(&[], [0, 4, 4, HUGE], pool), "x");
    for ceil in [false, true] {
        // Twice this padding wraps round to 0; an image with the other one to less than itself.
        for (padding, kernel) in [(1 << 63, 2), (usize::MAX / 2, usize::MAX)] {
            let error = max_pool(&[1.0; 4], [1, 2, 2, 1], PoolShape { kernel, padding, ceil, stride: 1 }).unwrap_err();
            assert!(matches!(error, ShapeError::Size { .. }), "{error}");
        }
    }
    // Windows as large and as far apart as numbers go.
    for stride in [1, usize::MAX] {
        let all = PoolShape { kernel: usize::MAX, stride, padding: 0, ceil: true };
        assert_eq!(max_pool(&[1.0, 2.0, 3.0, 4.0], [1, 2, 2, 1], all).unwrap(), [4.0]);
    }
    too_large(transpose(&[], [HUGE, 4, 4]), "x");
}

#[test]
fn rows() {
    let none: &mut [f32] = &mut [];
    too_large(softmax(&[], none, HUGE, 16), "x");
    too_large(softmax_input_grad(&[], &[], none, HUGE, 16), "y");
    too_large(layer_norm(&[], &[0.0; 16], None, 1e-5, none, HUGE, 16), "x");
    too_large(layer_norm_input_grad(&[], &[0.0; 16], 1e-5, &[], none, HUGE, 16), "x");
    too_large(rms_norm(&[], &[0.0; 16], 1e-5, none, HUGE, 16), "x");
    too_large(rms_norm_input_grad(&[], &[0.0; 16], 1e-5, &[], none, HUGE, 16), "x");
}

#[test]
fn rotary_embeddings() {
    let table = [0f32; 2];
    let rotary = Rotary { style: RotaryStyle::Half, rotary: 4, cos: &table, sin: &table };
    too_large(rotary.apply(&mut [], &[0], HUGE, 16), "x");
    too_large(rotary.invert(&mut [], &[], HUGE, 16), "x");
    let error = rotary.apply(&mut [0.0; 4], &[usize::MAX], 1, 4).unwrap_err();
    assert!(matches!(error, ShapeError::Size { what: "position", .. }), "{error}");
    let error = Rotary { rotary: usize::MAX - 1, ..rotary }.apply(&mut [0.0; 4], &[0], 1, 4).unwrap_err();
    assert!(matches!(error, ShapeError::Size { what: "rotary", .. }), "{error}");
}

#[test]
fn whole_slices() {
    // These take their sizes off their slices.
    assert!(activate(Activation::Silu, &[0.0; 3], &mut [0.0; 2]).is_err());
    assert!(activate_input_grad(Activation::Silu, &[0.0; 3], &[0.0; 3], &mut [0.0; 4]).is_err());
    assert!(f32_to_bf16(&[0.0; 3], &mut [bf16::ZERO; 4]).is_err());
    assert!(dequantize(Weight::Q8_0(&[0; 35]), &mut [0.0; 32]).is_err());
    assert!(dequantize(Weight::Q4K(&[0; 144]), &mut [0.0; 255]).is_err());
}

#[test]
fn probes() {
    for probe in [gemm_crate_probe, linear_probe] {
        let panic = catch_unwind(|| probe(1 << 40, 1 << 40, 0)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert_eq!(message, "matrix of a probe of shape [1099511627776, 1099511627776] does not fit into memory");
    }
}
