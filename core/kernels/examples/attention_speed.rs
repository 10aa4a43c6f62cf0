//! Prints the time of causal attention: decoding over a cache, prefill and gradient, with and without soft cap and slopes.
//!
//! `cargo run --release -p limber-kernels --example attention_speed [repeats]`

mod speed;

use limber_kernels::{Attention, CausalGrads, Heads, ScoreBias, Values, Visible, bf16};
use speed::{best, noise};

fn main() {
    let repeats = speed::repeats(50);
    let (h, hkv, dh) = (16, 4, 64);
    let slopes: Vec<f32> = (1..=h).map(|i| (-8.0 * i as f32 / h as f32).exp2()).collect();
    let kinds =
        [("plain", None, None), ("soft cap", Some(50.0), None), ("slopes", None, Some(ScoreBias::Slopes(&slopes)))];
    for (name, soft_cap, bias) in kinds {
        let mut line = format!("{name:10}");
        // New queries over all keys: two steps of decoding, two prefills.
        for (t, p) in [(1, 512), (1, 4096), (128, 128), (512, 512)] {
            let (q, k, v) = (noise(t * h * dh), noise(p * hkv * dh), noise(p * hkv * dh));
            let narrow = |x: &[f32]| -> Vec<bf16> { x.iter().map(|x| bf16::from_f32(*x)).collect() };
            let (k, v) = (narrow(&k), narrow(&v));
            let past = [p - t];
            let strides = [hkv * p * dh, p * dh, dh];
            let attention = Attention {
                q: Heads { data: &q, strides: [t * h * dh, dh, h * dh] },
                k: Heads { data: Values::Bf16(&k), strides },
                v: Heads { data: Values::Bf16(&v), strides },
                batch: 1,
                heads: h,
                kv_heads: hkv,
                queries: t,
                positions: p,
                head_dim: dh,
                scale: 0.125,
                visible: Visible::Causal(&past),
                mask: None,
                soft_cap,
                bias,
            };
            let mut out = vec![0f32; t * h * dh];
            let time = 1e6 * best(repeats, || attention.run(&mut out, None).expect("the shapes fit"));
            line += &format!("  {t} x {p}: {time:.0} us");
        }
        let t = 256;
        let (q, k, v) = (noise(t * h * dh), noise(t * hkv * dh), noise(t * hkv * dh));
        let gout = noise(t * h * dh);
        let time = 1e6
            * best(repeats.div_ceil(4), || {
                let (mut q, mut k, mut v) = (q.clone(), k.clone(), v.clone());
                let grads = CausalGrads {
                    q: &mut q,
                    k: &mut k,
                    v: &mut v,
                    batch: 1,
                    positions: t,
                    heads: h,
                    kv_heads: hkv,
                    head_dim: dh,
                    scale: 0.125,
                    window: None,
                    mask: None,
                    soft_cap,
                    bias,
                };
                grads.run(&gout).expect("the shapes fit");
            });
        println!("{line}  gradient of {t}: {time:.0} us");
    }
}
