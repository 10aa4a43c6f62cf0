//! Every operation's input gradient against central finite differences, and against candle's own where it has one.

use super::*;
use crate::backend::Backend;
use crate::decoder::Run;
use crate::frozen::{Epilogue, FrozenLinear, forward_all};
use crate::noise::{largest, random};
use crate::weights::{FrozenData, Init, Request, WeightSource, WeightType};
use candle_core::{DType, Device, Result, Tensor, Var};

/// The gradient of sum(f(x) * r), r random and fixed, along 8 random directions, against central differences.
fn check(name: &str, shape: &[usize], f: impl Fn(&Tensor) -> Result<Tensor>) {
    let x = Var::from_tensor(&random(shape, 1)).unwrap();
    let y = f(x.as_tensor()).unwrap();
    let r = random(y.dims(), 2);
    let loss = |y: &Tensor| -> f64 {
        (y * &r).unwrap().to_dtype(DType::F64).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let grads = (&y * &r).unwrap().sum_all().unwrap().backward().unwrap();
    let grad = grads.get(x.as_tensor()).unwrap_or_else(|| panic!("{name}: no gradient reaches the input"));
    for direction in 0..8 {
        let v = random(shape, 10 + direction);
        let along = |step: f64| loss(&f(&(x.as_tensor() + (&v * step).unwrap()).unwrap()).unwrap());
        // A step of 1e-2 balances the third derivative against f32 rounding of sums of some hundred terms.
        let step = 1e-2;
        let numeric = (along(step) - along(-step)) / (2.0 * step);
        let exact = (grad * &v).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() as f64;
        let scale = numeric.abs().max(1.0);
        assert!((numeric - exact).abs() < 1e-2 * scale, "{name}: {numeric} by differences, {exact} by backward");
    }
}

#[test]
fn input_gradients() {
    check("softmax", &[2, 3, 7], softmax);
    check("gelu_tanh", &[2, 9], gelu_tanh);
    for activation in [Activation::Gelu, Activation::GeluNew, Activation::QuickGelu, Activation::Silu] {
        check(&format!("{activation:?}"), &[2, 9], |x| activation.apply(x));
    }
    let norm = LayerNorm::new(random(&[11], 3), random(&[11], 4), 1e-5).unwrap();
    check("layer norm", &[4, 11], |x| norm.forward(x));
    let norm = RmsNorm::new(random(&[11], 3), 1e-5).unwrap();
    check("RMS norm", &[4, 11], |x| norm.forward(x));
    let norm = LayerNorm::on(random(&[11], 3), random(&[11], 4), 1e-5, Backend::Candle).unwrap();
    check("candle's layer norm", &[4, 11], |x| norm.forward(x));
    let norm = RmsNorm::on(random(&[11], 3), 1e-5, Backend::Candle).unwrap();
    check("candle's RMS norm", &[4, 11], |x| norm.forward(x));
    check("soft cap", &[4, 11], |x| soft_cap(x, 1.5));
    for style in [RotaryStyle::Interleaved, RotaryStyle::Half] {
        let rotary = Rotary::new(6, 32, 10_000.0, style);
        check("candle's rotary", &[2, 5, 3, 10], |x| rotary.apply_on(Backend::Candle, x, &[0, 4], &[5, 5], false));
        check("rotary", &[2, 5, 3, 10], |x| rotary.apply(x, &[0, 4]));
        let scaled = rotary.with_factor(1.3).with_growth(Growth::Base { dim: 6, base: 100.0, factor: 2.0, trained: 4 });
        check("scaled rotary", &[2, 5, 3, 10], |x| scaled.apply_rows(x, &[0, 2], &[3, 5]));
    }
    for dtype in WeightType::ALL {
        let request = Request { name: "w", shape: &[5, 8], init: Init::normal(0.5), dtype };
        let weight = crate::random::RandomSource::new(5).read(&request).unwrap();
        let linear = FrozenLinear::new(weight, Some(random(&[5], 6)), &Device::Cpu).unwrap();
        check("linear", &[2, 3, 8], |x| linear.forward(x));
        let weight = crate::random::RandomSource::new(5).read(&request).unwrap();
        let linear = FrozenLinear::on(weight, Some(random(&[5], 6)), &Device::Cpu, Backend::Candle).unwrap();
        check("candle's linear", &[2, 3, 8], |x| linear.forward(x));
    }
    // Several layers in one pass, of different widths and types: what each gives back adds up.
    let layers = [(5, WeightType::F32), (9, WeightType::Bf16), (3, WeightType::F16)].map(|(n_out, dtype)| {
        let request = Request { name: "w", shape: &[n_out, 8], init: Init::normal(0.5), dtype };
        let weight = crate::random::RandomSource::new(n_out as u64).read(&request).unwrap();
        FrozenLinear::new(weight, Some(random(&[n_out], 6)), &Device::Cpu).unwrap()
    });
    let layers = layers.each_ref();
    for rows in [1, 3, 40] {
        check("linear layers in one pass", &[rows, 8], |x| Tensor::cat(&forward_all(layers, x)?, 1));
        let x = random(&[2, rows, 8], 1);
        for (y, layer) in forward_all(layers, &x).unwrap().iter().zip(layers) {
            assert_eq!(largest(y, &layer.forward(&x).unwrap()), 0.0);
        }
    }
    // What follows a product, with a graph in operations of their own and without one at once.
    let (layer, scale) = (layers[0], random(&[5], 7));
    for rows in [1, 3, 40] {
        let residual = random(&[rows, 5], 8);
        let epilogue = Epilogue { scale: Some(&scale), residual: Some(&residual), activation: Some(Activation::Gelu) };
        check("a linear layer and its epilogue", &[rows, 8], |x| layer.forward_with(x, epilogue));
        let x = random(&[rows, 8], 9);
        check("the residual", &[rows, 5], |residual| {
            layer.forward_with(&x, Epilogue { residual: Some(residual), ..epilogue })
        });
        let apart = layer.forward(&x).unwrap().broadcast_mul(&scale).unwrap();
        let apart = Activation::Gelu.apply(&(apart + &residual).unwrap()).unwrap();
        assert!(largest(&layer.forward_with(&x, epilogue).unwrap(), &apart) < 1e-6);
    }
    let message =
        layer.forward_with(&random(&[2, 8], 1), Epilogue::residual(&random(&[2, 4], 1))).unwrap_err().to_string();
    assert!(message.starts_with("an output of shape [2, 5] to be added to [2, 4]"), "{message}");
    let wide = FrozenLinear::new(FrozenData::from_f32(vec![0.0; 27], &[3, 9]), None, &Device::Cpu).unwrap();
    let message = forward_all([layers[0], &wide], &random(&[2, 8], 1)).unwrap_err().to_string();
    assert!(message.starts_with("input of shape [2, 8] for a linear layer of width 9"), "{message}");
    // Beyond one block of every kernel, and beside it.
    for (rows, n_in, n_out) in [(1, 32, 300), (26, 32, 300), (26, 128, 32), (26, 32, 128), (147, 65, 33)] {
        let request = Request { name: "w", shape: &[n_out, n_in], init: Init::normal(0.1), dtype: WeightType::F32 };
        let weight = crate::random::RandomSource::new(5).read(&request).unwrap();
        let linear = FrozenLinear::new(weight, None, &Device::Cpu).unwrap();
        check(&format!("linear {rows} x {n_in} x {n_out}"), &[rows, n_in], |x| linear.forward(x));
        let norm = LayerNorm::new(random(&[n_in], 3), random(&[n_in], 4), 1e-5).unwrap();
        check(&format!("norm {rows} x {n_in}"), &[rows, n_in], |x| norm.forward(x));
        let norm = RmsNorm::new(random(&[n_in], 3), 1e-5).unwrap();
        check(&format!("RMS norm {rows} x {n_in}"), &[rows, n_in], |x| norm.forward(x));
        check(&format!("gelu {rows} x {n_in}"), &[rows, n_in], gelu_tanh);
        check(&format!("softmax {rows} x {n_in}"), &[rows, n_in], softmax);
    }
    check("cross entropy", &[3, 7], |x| cross_entropy(x, &[6, 0, 3]));
    check("dropout", &[3, 5], |x| dropout(x, 0.4, 9));
    let heads = Heads { queries: 4, keys: 2, dim: 3, scale: 0.6 };
    let (q, k, v) = (random(&[2, 5, 4, 3], 7), random(&[2, 5, 2, 3], 8), random(&[2, 5, 2, 3], 9));
    check("attention, query", &[2, 5, 4, 3], |x| attend(0, x, &k, &v, heads, &mut Run::new()));
    check("attention, key", &[2, 5, 2, 3], |x| attend(0, &q, x, &v, heads, &mut Run::new()));
    check("attention, value", &[2, 5, 2, 3], |x| attend(0, &q, &k, x, heads, &mut Run::new()));
    let within = |q: &Tensor, k: &Tensor, v: &Tensor| attend_within(0, q, k, v, heads, Some(3), &mut Run::new());
    check("windowed attention, query", &[2, 5, 4, 3], |x| within(x, &k, &v));
    check("windowed attention, key", &[2, 5, 2, 3], |x| within(&q, x, &v));
    check("windowed attention, value", &[2, 5, 2, 3], |x| within(&q, &k, x));
    let linear_bias = Some(LinearBias::Distance(alibi_slopes(4)));
    let capped = CausalAttention { soft_cap: Some(0.8), linear_bias, window: Some(4), ..CausalAttention::new(heads) };
    let capped = |q: &Tensor, k: &Tensor, v: &Tensor| capped.forward(0, q, k, v, &mut Run::new());
    check("capped attention, query", &[2, 5, 4, 3], |x| capped(x, &k, &v));
    check("capped attention, key", &[2, 5, 2, 3], |x| capped(&q, x, &v));
    check("capped attention, value", &[2, 5, 2, 3], |x| capped(&q, &k, x));
    check("trainable layer norm", &[4, 11], |x| layer_norm_trainable(x, &random(&[11], 3), &random(&[11], 4), 1e-5));
}

#[test]
fn forward_equals_candles_own() {
    let x = random(&[3, 4, 16], 1);
    // One rounding of f32 sums of 16 terms apart.
    assert!(largest(&softmax(&x).unwrap(), &candle_nn::ops::softmax(&x, 2).unwrap()) < 1e-6);
    assert!(largest(&gelu_tanh(&x).unwrap(), &x.gelu().unwrap()) < 1e-6);
    assert!(largest(&gelu_erf(&x).unwrap(), &x.gelu_erf().unwrap()) < 1e-6);
    assert!(largest(&Activation::Silu.apply(&x).unwrap(), &x.silu().unwrap()) < 1e-6);
    assert!(largest(&Activation::Relu.apply(&x).unwrap(), &x.relu().unwrap()) == 0.0);
    let (gain, shift) = (random(&[16], 2), random(&[16], 3));
    let ours = LayerNorm::new(gain.clone(), shift.clone(), 1e-5).unwrap().forward(&x).unwrap();
    assert!(largest(&ours, &candle_nn::ops::layer_norm(&x, &gain, &shift, 1e-5).unwrap()) < 1e-5);
    let norm = RmsNorm::new(gain.clone(), 1e-5).unwrap();
    assert!(largest(&norm.forward(&x).unwrap(), &candle_nn::ops::rms_norm(&x, &gain, 1e-5).unwrap()) < 1e-5);
    let w = random(&[7, 16], 4);
    let data = FrozenData::from_f32(w.flatten_all().unwrap().to_vec1().unwrap(), &[7, 16]);
    let ours = FrozenLinear::new(data, None, &Device::Cpu).unwrap().forward(&x).unwrap();
    let theirs = x.reshape((12, 16)).unwrap().matmul(&w.t().unwrap()).unwrap().reshape((3, 4, 7)).unwrap();
    assert!(largest(&ours, &theirs) < 1e-5);
}

#[test]
fn no_gradient_of_a_frozen_weight_is_kept() {
    let x = Var::from_tensor(&random(&[2, 8], 1)).unwrap();
    let weight = FrozenData::from_f32(vec![0.5; 40], &[5, 8]);
    let linear = FrozenLinear::new(weight, None, &Device::Cpu).unwrap();
    let y = linear.forward(x.as_tensor()).unwrap();
    let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    // candle's own matmul would keep one of the weight's shape, or of its transpose's.
    for id in grads.get_ids() {
        let dims = grads.get_id(*id).unwrap().dims();
        assert!(dims != [5, 8] && dims != [8, 5], "a gradient of shape {dims:?} is kept");
    }
    assert!(grads.get(x.as_tensor()).is_some());
}

#[test]
fn cross_entropy_equals_candles_own_and_refuses_what_does_not_fit() {
    let (x, targets) = (random(&[4, 9], 1), [8u32, 0, 3, 3]);
    let ours = cross_entropy(&x, &targets).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    let labels = Tensor::new(&targets, &Device::Cpu).unwrap();
    let theirs = candle_nn::loss::cross_entropy(&x, &labels).unwrap().to_scalar::<f32>().unwrap();
    // A few roundings of f32 sums of 9 terms.
    assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
    let check = |targets: &[u32], expected: &str| {
        let message = cross_entropy(&x, targets).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(&[0; 3], "3 targets for 4 rows");
    check(&[0, 1, 2, 9], "target 9 is not in 0..9");
}

#[test]
fn a_hidden_row_gives_zeros() {
    let x = Tensor::full(f32::NEG_INFINITY, (1, 4), &Device::Cpu).unwrap();
    assert_eq!(softmax(&x).unwrap().to_vec2::<f32>().unwrap(), vec![vec![0f32; 4]]);
}

#[test]
fn the_fused_attention_equals_the_composed_one() {
    use crate::cache::{CacheOptions, KvCache};
    use crate::spec::DecoderSpec;
    // Grouped queries, rows of different lengths, a key mask; a graph or not decides the way.
    let heads = Heads { queries: 4, keys: 2, dim: 6, scale: 0.4 };
    let spec = DecoderSpec { width: 24, vocab: 1, layers: 1, kv_heads: 2, head_dim: 6, context: 64, eos: vec![] };
    // Windows of one key, of fewer than are there, and of more.
    let windows = [None, Some(1), Some(5), Some(12), Some(1000)];
    for ((t, masked), window) in
        [(1, false), (1, true), (7, false), (33, true)].into_iter().flat_map(|case| windows.map(|w| (case, w)))
    {
        for (soft_cap, linear_bias) in caps_and_biases(4) {
            let attention = CausalAttention { heads, window, soft_cap, linear_bias };
            let (q, k, v) = (random(&[3, t, 4, 6], 1), random(&[3, t, 2, 6], 2), random(&[3, t, 2, 6], 3));
            let outputs: Vec<Tensor> = [false, true]
                .map(|graph| {
                    let mut cache = KvCache::new(&spec, &CacheOptions::new(3, 48)).unwrap();
                    let (k0, v0) = (random(&[3, 11, 2, 6], 4), random(&[3, 11, 2, 6], 5));
                    cache.append(0, &k0.transpose(1, 2).unwrap(), &v0.transpose(1, 2).unwrap()).unwrap();
                    cache.advance(&[11, 4, 8]).unwrap();
                    let mut run = Run::cached(&mut cache);
                    if masked {
                        // Every third key is hidden, and all of row 2.
                        let p = 11 + t;
                        let mask: Vec<u8> = (0..3 * p).map(|i| u8::from(i / p != 2 && i % 3 != 0)).collect();
                        run.mask = Some(Tensor::from_vec(mask, (3, p), &Device::Cpu).unwrap());
                    }
                    let q = if graph { Var::from_tensor(&q).unwrap().as_tensor().clone() } else { q.clone() };
                    attention.forward(0, &q, &k, &v, &mut run).unwrap()
                })
                .into();
            // Sums of up to 44 terms of order 1 in f32.
            assert!(largest(&outputs[0], &outputs[1]) < 1e-5, "{t} queries, masked {masked}, {attention:?}");
        }
    }
}

/// Soft caps and linear biases of `heads` heads, and none.
fn caps_and_biases(heads: usize) -> [(Option<f64>, Option<LinearBias>); 4] {
    let slopes = alibi_slopes(heads);
    [
        (None, None),
        (Some(0.7), None),
        (None, Some(LinearBias::RoundedPosition(slopes.clone()))),
        (Some(0.7), Some(LinearBias::Distance(slopes))),
    ]
}

#[test]
fn a_window_hides_earlier_keys_in_both_ways() {
    let heads = Heads { queries: 2, keys: 1, dim: 4, scale: 0.5 };
    let (q, k, v) = (random(&[1, 9, 2, 4], 1), random(&[1, 9, 1, 4], 2), random(&[1, 9, 1, 4], 3));
    // Position 6 under a window of 3 sees keys 4 to 6: what it would give as the last of those three alone.
    let tail = |x: &Tensor| x.narrow(1, 4, 3).unwrap();
    let expected = attend(0, &tail(&q), &tail(&k), &tail(&v), heads, &mut Run::new()).unwrap();
    for graph in [false, true] {
        let q = if graph { Var::from_tensor(&q).unwrap().as_tensor().clone() } else { q.clone() };
        let ours = attend_within(0, &q, &k, &v, heads, Some(3), &mut Run::new()).unwrap();
        let (ours, expected) = (ours.narrow(1, 6, 1).unwrap(), expected.narrow(1, 2, 1).unwrap());
        // Three terms of order 1.
        assert!(largest(&ours, &expected) < 1e-6, "graph {graph}");
    }
    let message = attend_within(0, &q, &k, &v, heads, Some(0), &mut Run::new()).unwrap_err().to_string();
    assert!(message.starts_with("an attention window of 0 keys, expected 1 and above"), "{message}");
}

#[test]
fn attention_with_a_graph_equals_the_composed_one_and_its_gradients() {
    let heads = Heads { queries: 4, keys: 2, dim: 6, scale: 0.4 };
    // Every third key is hidden, and all of row 2.
    let mask: Vec<u8> = (0..3 * 9).map(|i| u8::from(i / 9 != 2 && i % 3 != 0)).collect();
    let mask = Tensor::from_vec(mask, (3, 9), &Device::Cpu).unwrap();
    for (masked, window) in [(false, None), (false, Some(4)), (true, None), (true, Some(4))] {
        for (soft_cap, linear_bias) in caps_and_biases(4) {
            let attention = CausalAttention { heads, window, soft_cap, linear_bias };
            let ways = [false, true].map(|composed| {
                let inputs =
                    [(4, 1), (2, 2), (2, 3)].map(|(h, seed)| Var::from_tensor(&random(&[3, 9, h, 6], seed)).unwrap());
                let [q, k, v] = [0, 1, 2].map(|i| inputs[i].as_tensor());
                let mut run = Run { mask: masked.then(|| mask.clone()), ..Run::new() };
                // Who wants to see the probabilities gets the composed one.
                run.taps.want_attention = composed;
                let y = attention.forward(0, q, k, v, &mut run).unwrap();
                let grads = (&y * random(&[3, 9, 24], 4)).unwrap().sum_all().unwrap().backward().unwrap();
                let grads = inputs.map(|x| grads.get(x.as_tensor()).unwrap().clone());
                (y, grads)
            });
            let [(y, grads), (expected, expected_grads)] = ways;
            // Sums of up to 9 terms of order 1 in f32, several of them behind each other.
            assert!(largest(&y, &expected) < 1e-5, "masked {masked}, {attention:?}");
            for (name, (grad, expected)) in ["q", "k", "v"].iter().zip(grads.iter().zip(&expected_grads)) {
                assert!(largest(grad, expected) < 1e-4, "gradient of {name}, masked {masked}, {attention:?}");
            }
        }
    }
}

#[test]
fn attention_of_every_token_equals_the_composed_one() {
    let heads = Heads { queries: 4, keys: 4, dim: 6, scale: 0.4 };
    let bias = |g: usize| AttentionBias::by_distance(&random(&[(2 * g - 1) * (2 * g - 1) + 3, 4], 4), g).unwrap();
    for (n, grid) in [(3, None), (17, Some(4)), (50, Some(7))] {
        let (q, k, v) = (random(&[2, n, 4, 6], 1), random(&[2, n, 4, 6], 2), random(&[2, n, 4, 6], 3));
        let bias = grid.map(bias);
        let ours = attend_all(&q, &k, &v, heads, bias.as_ref()).unwrap();
        let candles = attend_all_on(Backend::Candle, [&q, &k, &v], heads, bias.as_ref()).unwrap();
        let heads_first = |x: &Tensor| x.transpose(1, 2).unwrap().contiguous().unwrap();
        let (q, k, v) = (heads_first(&q), heads_first(&k), heads_first(&v));
        let mut scores = (q.matmul(&k.t().unwrap().contiguous().unwrap()).unwrap() * 0.4).unwrap();
        if let Some(bias) = &bias {
            scores = scores.broadcast_add(&bias.expanded(&Device::Cpu).unwrap()).unwrap();
        }
        let expected = softmax(&scores).unwrap().matmul(&v).unwrap().transpose(1, 2).unwrap();
        let expected = expected.contiguous().unwrap().reshape((2, n, 24)).unwrap();
        // Sums of up to 50 terms of order 1 in f32.
        assert!(largest(&ours, &expected) < 1e-5, "{n} {grid:?}");
        assert!(largest(&candles, &expected) < 1e-5, "{n} {grid:?}");
    }
    let q = random(&[1, 6, 4, 6], 1);
    let message = attend_all(&q, &q, &q, heads, Some(&bias(2))).unwrap_err().to_string();
    assert!(message.starts_with("a bias of 4 heads and 5 tokens for 4 heads and 6 tokens"), "{message}");
}

#[test]
fn quick_gelu_is_not_gelu() {
    let x = Tensor::new(&[-1f32, 0.5, 2.0], &Device::Cpu).unwrap();
    let y = Activation::QuickGelu.apply(&x).unwrap().to_vec1::<f32>().unwrap();
    // x / (1 + exp(-1.702 x)), by hand.
    for (y, expected) in y.iter().zip([-0.154_203_f32, 0.350_402, 1.935_64]) {
        assert!((y - expected).abs() < 1e-4, "{y} {expected}");
    }
}
