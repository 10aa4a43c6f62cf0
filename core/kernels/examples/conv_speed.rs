//! Prints the speed of the convolutions of CLIP's RN50x16 at 384 pixels, batch 1, one line a shape.
//!
//! `cargo run --release -p limber-kernels --example conv_speed [repeats]`

use limber_kernels::{Activation, Conv, ConvShape, gemm_probe};
use std::time::Instant;

/// Median seconds of `repeats` runs.
fn median(repeats: usize, mut f: impl FnMut()) -> f64 {
    f();
    let mut seconds: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[repeats / 2]
}

fn main() {
    let repeats: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(9);
    println!("threads {}, gemm {:.0} GFLOP/s", rayon::current_num_threads(), gemm_probe());
    // Input side, channels in and out, kernel, stride, how many of them, whether with residual.
    let mut layers = vec![(384, 3, 48, 3, 2, 1, false), (192, 48, 48, 3, 1, 1, false), (192, 48, 96, 3, 1, 1, false)];
    for (stage, blocks) in [6, 8, 18, 8].into_iter().enumerate() {
        let (side, planes) = (96 >> stage, 96 << stage);
        let n_in = if stage == 0 { planes } else { 2 * planes };
        let first = if stage == 0 { side } else { 2 * side };
        layers.push((first, n_in, planes, 1, 1, 1, false));
        layers.push((first, planes, planes, 3, 1, 1, false));
        layers.push((side, n_in, 4 * planes, 1, 1, 1, false));
        layers.push((side, 4 * planes, planes, 1, 1, blocks - 1, false));
        layers.push((side, planes, planes, 3, 1, blocks - 1, false));
        layers.push((side, planes, 4 * planes, 1, 1, blocks, true));
    }
    let (mut sum, mut plain) = (0.0, 0.0);
    for (side, n_in, n_out, kernel, stride, count, residual) in layers {
        let shape = ConvShape::square(n_in, n_out, kernel, stride, kernel / 2);
        let weight: Vec<f32> = (0..n_out * n_in * kernel * kernel).map(|i| (i % 13) as f32 * 0.1 - 0.6).collect();
        let bias = vec![0.1; n_out];
        let x: Vec<f32> = (0..side * side * n_in).map(|i| (i % 31) as f32 * 0.1 - 1.5).collect();
        let out = side / stride;
        let r = residual.then(|| vec![0.5; out * out * n_out]);
        let flops = 2.0 * (out * out * n_out * n_in * kernel * kernel) as f64;
        let mut line = format!("{side:4} {n_in:5} -> {n_out:5}  {kernel} x {kernel} / {stride}  x {count:2}:");
        let mut best = f64::INFINITY;
        let ways: &[_] = if kernel == 3 { &[Conv::direct, Conv::new] } else { &[Conv::direct] };
        for (i, make) in ways.iter().enumerate() {
            // Several copies, so that weights come from memory as they do in a whole tower.
            let copies = (64 << 20) / (weight.len() * 4) + 1;
            let convs: Vec<Conv> =
                (0..copies.min(count)).map(|_| make(shape, &weight, Some(&bias)).expect("the weight fits")).collect();
            let mut turn = 0;
            let seconds = median(repeats, || {
                turn += 1;
                let conv = &convs[turn % convs.len()];
                let y = conv.run(&x, [1, side, side], r.as_deref(), Some(Activation::Relu));
                std::hint::black_box(y.expect("the sizes fit"));
            });
            line += &format!("  {:6.2} ms = {:4.0} GFLOP/s", 1e3 * seconds, flops / seconds / 1e9);
            best = best.min(seconds);
            if i == 0 {
                plain += seconds * count as f64;
            }
        }
        println!("{line}");
        sum += best * count as f64;
    }
    println!("all: {:.3} s by the definition, {:.3} s by the faster way each", plain, sum);
}
