//! Attention against f64: ragged, grouped, masked, biased, strided, at every instruction set.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use limber_kernels::{
    Attention, CausalGrads, GridBias, Heads, Level, ScoreBias, ShapeError, Values, Visible, bf16, f16, with_level,
};
use support::{close, differences, noise, wide};

struct Case {
    sizes: [usize; 6], // B, H, Hkv, T, P, head_dim
    causal: bool,
    window: Option<usize>,
    counts: Vec<usize>,
    mask: Option<Vec<u8>>,
    biased: bool,
    soft_cap: Option<f32>,
    slopes: Option<Vec<f32>>,
    kind: &'static str,
}

fn check(case: &Case) {
    let [b, h, hkv, t, p, dh] = case.sizes;
    let scale = 1.0 / (dh as f32).sqrt();
    let q = noise(b * t * h * dh, 1);
    let k = noise(b * hkv * p * dh, 2);
    let v = noise(b * hkv * p * dh, 3);
    let bias = noise(h * t * p, 4);
    let (k16, v16): (Vec<f16>, Vec<f16>) =
        k.iter().zip(&v).map(|(&k, &v)| (f16::from_f32(k), f16::from_f32(v))).unzip();
    let (kb, vb): (Vec<bf16>, Vec<bf16>) =
        k.iter().zip(&v).map(|(&k, &v)| (bf16::from_f32(k), bf16::from_f32(v))).unzip();
    let (kv, vv) = match case.kind {
        "f32" => (Values::F32(&k), Values::F32(&v)),
        "f16" => (Values::F16(&k16), Values::F16(&v16)),
        _ => (Values::Bf16(&kb), Values::Bf16(&vb)),
    };
    let rounded = |x: &[f32]| -> Vec<f64> {
        let one = |x: f32| match case.kind {
            "f32" => f64::from(x),
            "f16" => f16::from_f32(x).to_f64(),
            _ => bf16::from_f32(x).to_f64(),
        };
        x.iter().map(|&x| one(x)).collect()
    };
    let (k64, v64) = (rounded(&k), rounded(&v));
    let mut out = vec![0f64; b * t * h * dh];
    let mut prob = vec![0f64; b * h * t * p];
    for bi in 0..b {
        for hi in 0..h {
            let kv_start = (bi * hkv + hi / (h / hkv)) * p * dh;
            for ti in 0..t {
                let seen = if case.causal { case.counts[bi] + ti + 1 } else { case.counts[bi] };
                let hidden = case.window.map_or(0, |w| seen.saturating_sub(w));
                let prob = &mut prob[((bi * h + hi) * t + ti) * p..][..p];
                let mut sum = 0f64;
                for pi in hidden..seen {
                    if case.mask.as_ref().is_some_and(|m| m[bi * p + pi] == 0) {
                        continue;
                    }
                    let dot = |d: usize| f64::from(q[((bi * t + ti) * h + hi) * dh + d]) * k64[kv_start + pi * dh + d];
                    let mut s = (0..dh).map(dot).sum::<f64>() * f64::from(scale);
                    if let Some(cap) = case.soft_cap.map(f64::from) {
                        s = cap * (s / cap).tanh();
                    }
                    if let Some(slopes) = &case.slopes {
                        s -= f64::from(slopes[hi]) * (seen - 1 - pi) as f64;
                    }
                    if case.biased {
                        s += f64::from(bias[(hi * t + ti) * p + pi]);
                    }
                    prob[pi] = s.exp();
                    sum += prob[pi];
                }
                if sum > 0.0 {
                    prob.iter_mut().for_each(|x| *x /= sum);
                }
                for d in 0..dh {
                    out[((bi * t + ti) * h + hi) * dh + d] =
                        (hidden..seen).map(|pi| prob[pi] * v64[kv_start + pi * dh + d]).sum();
                }
            }
        }
    }
    let attention = Attention {
        // q is [B, T, H, dh] in memory, as a linear layer leaves it.
        q: Heads { data: &q, strides: [t * h * dh, dh, h * dh] },
        k: Heads { data: kv, strides: [hkv * p * dh, p * dh, dh] },
        v: Heads { data: vv, strides: [hkv * p * dh, p * dh, dh] },
        batch: b,
        heads: h,
        kv_heads: hkv,
        queries: t,
        positions: p,
        head_dim: dh,
        scale,
        visible: match (case.causal, case.window) {
            (true, Some(width)) => Visible::Window(&case.counts, width),
            (true, None) => Visible::Causal(&case.counts),
            (false, _) => Visible::All(&case.counts),
        },
        mask: case.mask.as_deref(),
        soft_cap: case.soft_cap,
        bias: match &case.slopes {
            Some(slopes) => Some(ScoreBias::Slopes(slopes)),
            None => case.biased.then_some(ScoreBias::Each { data: &bias, strides: [0, t * p, p] }),
        },
    };
    for level in Level::supported() {
        let mut y = vec![f32::NAN; out.len()];
        let mut z = vec![f32::NAN; prob.len()];
        with_level(level, || attention.run(&mut y, Some(&mut z)).unwrap());
        let what = format!("{:?} {} {level:?}", case.sizes, case.kind);
        // f32 sums of up to 300 terms below 1, and an exponential good to 2e-7.
        close(&z, &prob, 5e-6, &what);
        close(&y, &out, 5e-6, &what);
        let mut y = vec![f32::NAN; out.len()];
        with_level(level, || attention.run(&mut y, None).unwrap());
        close(&y, &out, 5e-6, &what);
    }
}

#[test]
fn attention_matches_f64() {
    let plain = |sizes: [usize; 6], causal: bool, counts: &[usize]| Case {
        sizes,
        causal,
        window: None,
        counts: counts.to_vec(),
        mask: None,
        biased: false,
        soft_cap: None,
        slopes: None,
        kind: "f32",
    };
    // One new query against a ragged cache, grouped heads.
    check(&plain([3, 4, 2, 1, 33, 64], true, &[0, 7, 32]));
    check(&plain([1, 2, 2, 1, 130, 256], true, &[129]));
    check(&plain([2, 2, 1, 3, 20, 40], true, &[0, 17]));
    // Prefill, odd widths.
    check(&plain([2, 3, 1, 37, 41, 20], true, &[0, 4]));
    check(&plain([1, 2, 2, 147, 147, 64], true, &[0]));
    check(&plain([1, 1, 1, 5, 6, 7], true, &[1]));
    // No causality: an image encoder, and a row that sees nothing.
    check(&plain([2, 2, 2, 50, 50, 32], false, &[50, 0]));
    check(&plain([2, 2, 2, 1, 50, 32], false, &[0, 50]));
    for kind in ["f16", "bf16"] {
        check(&Case { kind, ..plain([2, 2, 2, 1, 67, 80], true, &[3, 66]) });
        check(&Case { kind, ..plain([2, 2, 2, 70, 300, 80], true, &[3, 230]) });
    }
}

#[test]
fn masks_and_biases_apply_and_a_masked_row_gives_zeros() {
    for t in [1, 9] {
        let (b, p) = (2, 30);
        let mut mask: Vec<u8> = (0..b * p).map(|i| u8::from(i % 3 != 0)).collect();
        mask[..p].fill(0);
        let counts = vec![p - t, 4];
        let case = Case {
            sizes: [b, 2, 1, t, p, 16],
            causal: true,
            window: None,
            counts,
            mask: Some(mask),
            biased: true,
            soft_cap: None,
            slopes: None,
            kind: "f32",
        };
        check(&case);
        // The hidden row and a window together.
        check(&Case { window: Some(4), ..case });
    }
}

#[test]
fn scores_are_capped_and_less_the_distance_of_their_keys() {
    let plain = |sizes: [usize; 6], counts: &[usize]| Case {
        sizes,
        causal: true,
        window: None,
        counts: counts.to_vec(),
        mask: None,
        biased: false,
        soft_cap: None,
        slopes: None,
        kind: "bf16",
    };
    // Decoding and prefill, over cached keys of rows of different lengths.
    for (sizes, counts) in [([2, 4, 2, 1, 33, 64], [7, 32]), ([2, 4, 2, 70, 300, 20], [3, 230])] {
        let slopes = Some(vec![0.5, 0.25, 0.0, 0.01]);
        let mask = Some((0..2 * sizes[4]).map(|i| u8::from(i % 5 != 1)).collect());
        // Far above all scores, among them, and far below the largest.
        for cap in [50.0, 0.5, 0.02] {
            check(&Case { soft_cap: Some(cap), ..plain(sizes, &counts) });
        }
        check(&Case { slopes: slopes.clone(), ..plain(sizes, &counts) });
        check(&Case { soft_cap: Some(0.5), biased: true, ..plain(sizes, &counts) });
        check(&Case { soft_cap: Some(0.5), slopes, window: Some(11), mask, ..plain(sizes, &counts) });
    }
    let all = Case { causal: false, soft_cap: Some(0.5), ..plain([2, 2, 2, 50, 50, 32], &[50, 0]) };
    check(&all);
}

#[test]
fn a_soft_cap_keeps_the_digits_of_every_score() {
    // One key whose probability is e^s / (e^s + 1): s is found again.
    let cap = 50.0;
    for score in [1e-3f32, 0.1, 1.0, 7.0] {
        for signed in [score, -score] {
            let (q, k) = ([1f32], [signed, 0.0]);
            let keys = Heads { data: Values::F32(&k), strides: [2, 2, 1] };
            let attention = Attention {
                q: Heads { data: &q, strides: [1; 3] },
                k: keys,
                v: keys,
                batch: 1,
                heads: 1,
                kv_heads: 1,
                queries: 1,
                positions: 2,
                head_dim: 1,
                scale: 1.0,
                visible: Visible::Causal(&[1]),
                mask: None,
                soft_cap: Some(cap),
                bias: None,
            };
            let mut p = [0f32; 2];
            attention.run(&mut [0f32], Some(&mut p)).unwrap();
            let capped = f64::from(cap) * (f64::from(signed) / f64::from(cap)).tanh();
            // Probabilities have f32's digits.
            assert!((f64::from(p[0]) - 1.0 / (1.0 + (-capped).exp())).abs() < 2e-7, "{signed}: {p:?}");
        }
    }
}

#[test]
fn a_window_hides_what_lies_before_it() {
    let window = |sizes: [usize; 6], counts: &[usize], width: usize| Case {
        sizes,
        causal: true,
        window: Some(width),
        counts: counts.to_vec(),
        mask: None,
        biased: false,
        soft_cap: None,
        slopes: None,
        kind: "f32",
    };
    // Decoding: shorter and longer than the window, its edge among them.
    check(&window([4, 4, 2, 1, 33, 64], &[0, 7, 8, 32], 8));
    // Prefill of several blocks, whose later ones leave whole blocks of keys out; behind cached keys too.
    check(&window([1, 2, 1, 200, 200, 20], &[0], 5));
    check(&window([2, 2, 2, 147, 190, 64], &[0, 43], 32));
    check(&window([1, 1, 1, 37, 41, 7], &[4], 1));
    check(&window([1, 2, 2, 3, 20, 40], &[17], 1000));
    check(&Case { kind: "bf16", ..window([2, 2, 1, 70, 300, 80], &[3, 230], 33) });
}

#[test]
fn a_bias_by_distance_is_that_of_every_pair() {
    let heads = 3;
    for (grid, dh) in [(1usize, 8), (2, 5), (7, 16), (14, 32)] {
        let (n, side) = (1 + grid * grid, 2 * grid - 1);
        let tables = noise(heads * (side * side + 3), 5);
        let table = |head: usize, at: usize| tables[head * (side * side + 3) + at];
        let mut pairs = vec![0f32; heads * n * n];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let (head, query, key) = (i / (n * n), i / n % n, i % n);
            *pair = table(
                head,
                match (query, key) {
                    (0, 0) => side * side + 2,
                    (0, _) => side * side,
                    (_, 0) => side * side + 1,
                    (query, key) => {
                        let (q, k) = (query - 1, key - 1);
                        (grid - 1 + k / grid - q / grid) * side + grid - 1 + k % grid - q % grid
                    }
                },
            );
        }
        let x: Vec<Vec<f32>> = (1..4).map(|seed| noise(2 * heads * n * dh, seed)).collect();
        let strides = [heads * n * dh, n * dh, dh];
        let attention = Attention {
            q: Heads { data: &x[0], strides },
            k: Heads { data: Values::F32(&x[1]), strides },
            v: Heads { data: Values::F32(&x[2]), strides },
            batch: 2,
            heads,
            kv_heads: heads,
            queries: n,
            positions: n,
            head_dim: dh,
            scale: 0.3,
            visible: Visible::All(&[n, n]),
            mask: None,
            soft_cap: None,
            bias: Some(ScoreBias::Each { data: &pairs, strides: [0, n * n, n] }),
        };
        let bias = GridBias { tables: &tables, grid };
        let by_distance = Attention { bias: Some(ScoreBias::Grid(bias)), ..attention };
        let mut out = [vec![0f32; x[0].len()], vec![0f32; x[0].len()]];
        attention.run(&mut out[0], None).unwrap();
        by_distance.run(&mut out[1], None).unwrap();
        assert_eq!(out[0], out[1], "a grid of {grid}");
        let refused = |bias: GridBias, visible: Visible| {
            let mut out = vec![0f32; x[0].len()];
            let other = Attention { bias: Some(ScoreBias::Grid(bias)), visible, ..attention };
            other.run(&mut out, None).unwrap_err().to_string()
        };
        let message = refused(bias, Visible::All(&[n, n - 1]));
        assert!(message.contains("all queries and keys of the bias's grid"), "{message}");
        let message = refused(GridBias { tables: &tables[1..], grid }, Visible::All(&[n, n]));
        assert!(message.contains("bias tables"), "{message}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let x = [0f32; 64];
    let heads = || Heads { data: Values::F32(&x), strides: [64, 16, 4] };
    let attention = Attention {
        q: Heads { data: &x[..16], strides: [16, 4, 4] },
        k: heads(),
        v: heads(),
        batch: 1,
        heads: 4,
        kv_heads: 4,
        queries: 1,
        positions: 4,
        head_dim: 4,
        scale: 0.5,
        visible: Visible::Causal(&[3]),
        mask: None,
        soft_cap: None,
        bias: None,
    };
    let mut out = [0f32; 16];
    attention.run(&mut out, None).unwrap();
    let bad = |a: Attention| a.run(&mut [0f32; 16], None).unwrap_err();
    assert!(matches!(bad(Attention { kv_heads: 3, ..attention }), ShapeError::Size { .. }));
    assert!(matches!(bad(Attention { visible: Visible::Causal(&[4]), ..attention }), ShapeError::Size { .. }));
    let none = Attention { visible: Visible::Window(&[3], 0), ..attention };
    assert_eq!(bad(none).to_string(), "window is 0; it must be 1 or above");
    let bias = Some(ScoreBias::Slopes(&[0.5; 3]));
    assert!(matches!(bad(Attention { bias, ..attention }), ShapeError::Length { what: "slopes", .. }));
    let bias = Some(ScoreBias::Slopes(&[0.5; 4]));
    let message = bad(Attention { bias, visible: Visible::All(&[3]), ..attention }).to_string();
    assert_eq!(message, "number of slopes is 4; it must be 0 where every query sees every key");
    let short = Heads { data: Values::F32(&x[..63]), strides: [64, 16, 4] };
    assert!(matches!(bad(Attention { k: short, ..attention }), ShapeError::Length { .. }));
    let half = [f16::ZERO; 64];
    let other = Heads { data: Values::F16(&half), strides: [64, 16, 4] };
    assert_eq!(bad(Attention { v: other, ..attention }).to_string(), "values are f16; they must be f32");
    assert!(attention.run(&mut out[..8], None).is_err());
}

/// Attention of q `[B, T, H, dh]` over k and v `[B, T, Hkv, dh]` in f64, each query seeing what `sees(row, query, key)` says;
/// capped scores get `bias(head, query, key)`.
fn in_f64(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    [b, h, hkv, t, dh]: [usize; 5],
    sees: impl Fn(usize, usize, usize) -> bool,
    cap: Option<f64>,
    bias: impl Fn(usize, usize, usize) -> f64,
) -> Vec<f64> {
    let mut out = vec![0f64; b * t * h * dh];
    for (i, out) in out.chunks_exact_mut(dh).enumerate() {
        let (row, at, head) = (i / h / t, i / h % t, i % h);
        let key = |key: usize| ((row * t + key) * hkv + head / (h / hkv)) * dh;
        let score = |p: usize| {
            let score = (0..dh).map(|d| q[i * dh + d] * k[key(p) + d]).sum::<f64>() * 0.4;
            cap.map_or(score, |cap| cap * (score / cap).tanh()) + bias(head, at, p)
        };
        let weights: Vec<f64> = (0..t).map(|p| if sees(row, at, p) { score(p).exp() } else { 0.0 }).collect();
        let sum: f64 = weights.iter().sum();
        for (d, out) in out.iter_mut().enumerate() {
            *out = (0..t).map(|p| weights[p] / sum.max(1e-300) * v[key(p) + d]).sum();
        }
    }
    out
}

#[test]
fn gradients_match_differences_in_f64() {
    // Several blocks of queries, grouped heads, windows, a mask under which a row of the batch sees nothing.
    let cases = [([2, 2, 1, 5, 3], None, false), ([1, 4, 2, 7, 4], Some(3), false), ([2, 1, 1, 70, 2], None, true)];
    for (sizes, window, masked) in cases.into_iter().chain([([1, 2, 2, 70, 2], Some(4), false)]) {
        for cap in [None, Some(0.3)] {
            for bias in ["none", "slopes", "each"] {
                gradients(sizes, window, masked, cap, bias);
            }
        }
    }
}

fn gradients(sizes: [usize; 5], window: Option<usize>, masked: bool, cap: Option<f32>, bias: &str) {
    let [b, h, hkv, t, dh] = sizes;
    let mask: Vec<u8> = (0..b * t).map(|i| u8::from(i / t != 1 && i % 3 != 1)).collect();
    let sees = |row: usize, at: usize, key: usize| {
        key <= at && window.is_none_or(|w| key + w > at) && (!masked || mask[row * t + key] != 0)
    };
    let slopes: Vec<f32> = (0..h).map(|head| 0.3 / (1 + head) as f32).collect();
    let each = noise(h * t, 5);
    // A number a head and key, the same for every query, as some models have their slopes.
    type Biases<'a> = Box<dyn Fn(usize, usize, usize) -> f64 + 'a>;
    let (added, biases): (_, Biases) = match bias {
        "slopes" => (
            Some(ScoreBias::Slopes(&slopes)),
            Box::new(|head, at, key| -f64::from(slopes[head]) * (at as f64 - key as f64)),
        ),
        "each" => (
            Some(ScoreBias::Each { data: &each, strides: [0, t, 0] }),
            Box::new(|head, _, key| f64::from(each[head * t + key])),
        ),
        _ => (None, Box::new(|_, _, _| 0.0)),
    };
    let run = |q: &[f64], k: &[f64], v: &[f64]| in_f64(q, k, v, sizes, sees, cap.map(f64::from), &biases);
    let (q, k, v) = (noise(b * t * h * dh, 1), noise(b * t * hkv * dh, 2), noise(b * t * hkv * dh, 3));
    let gout = noise(q.len(), 4);
    let (q64, k64, v64) = (wide(&q), wide(&k), wide(&v));
    let expected = [
        differences(&q, &gout, |q| run(q, &k64, &v64)),
        differences(&k, &gout, |k| run(&q64, k, &v64)),
        differences(&v, &gout, |v| run(&q64, &k64, v)),
    ];
    for level in Level::supported() {
        let [mut q, mut k, mut v] = [&q, &k, &v].map(|x| x.to_vec());
        let grads = CausalGrads {
            q: &mut q,
            k: &mut k,
            v: &mut v,
            batch: b,
            positions: t,
            heads: h,
            kv_heads: hkv,
            head_dim: dh,
            scale: 0.4,
            window,
            mask: masked.then_some(&mask),
            soft_cap: cap,
            bias: added,
        };
        with_level(level, || grads.run(&gout).unwrap());
        for (found, (expected, name)) in [q, k, v].iter().zip(expected.iter().zip(["q", "k", "v"])) {
            // Sums of up to 140 terms of order 1 in f32, beside differences good to 1e-9.
            let what = format!("{name} {sizes:?} {window:?} cap {cap:?} bias {bias} {level:?}");
            close(found, expected, 1e-5, &what);
        }
    }
}

#[test]
fn sizes_of_gradients_that_do_not_fit_are_refused() {
    let biased = |lengths: [usize; 4], kv_heads, window, mask: Option<&[u8]>, bias: Option<ScoreBias>| {
        let [mut q, mut k, mut v, gout] = lengths.map(|n| vec![0f32; n]);
        let (q, k, v) = (&mut q[..], &mut k[..], &mut v[..]);
        let grads = CausalGrads {
            q,
            k,
            v,
            batch: 1,
            positions: 2,
            heads: 2,
            kv_heads,
            head_dim: 3,
            scale: 1.0,
            window,
            mask,
            soft_cap: None,
            bias,
        };
        grads.run(&gout).map_or_else(|e| e.to_string(), |()| "fits".into())
    };
    let message = |lengths, kv_heads, window, mask: Option<&[u8]>| biased(lengths, kv_heads, window, mask, None);
    let check = |found: String, expected: &str| assert!(found.starts_with(expected), "{found}");
    let slopes = biased([12, 6, 6, 12], 1, None, None, Some(ScoreBias::Slopes(&[0.5])));
    check(slopes, "slopes has 1 elements; its shape [2] needs 2");
    let each = ScoreBias::Each { data: &[0.0; 7], strides: [0, 4, 2] };
    check(biased([12, 6, 6, 12], 1, None, None, Some(each)), "bias has 7 elements");
    check(message([12, 6, 6, 12], 1, Some(1), Some(&[1, 0])), "fits");
    check(message([11, 6, 6, 12], 1, None, None), "q has 11 elements; its shape [1, 2, 2, 3] needs 12");
    check(message([12, 12, 6, 12], 1, None, None), "k has 12 elements");
    check(message([12, 6, 12, 12], 1, None, None), "v has 12 elements");
    check(message([12, 6, 6, 13], 1, None, None), "gout has 13 elements");
    check(message([12, 18, 18, 12], 3, None, None), "kv_heads is 3; it must be a divisor of the number of heads");
    check(message([12, 6, 6, 12], 1, Some(0), None), "window is 0; it must be 1 or above");
    check(message([12, 6, 6, 12], 1, None, Some(&[1])), "mask has 1 elements");
}
