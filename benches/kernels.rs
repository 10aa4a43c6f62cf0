//! The kernels at GPT-J's and CLIP's sizes, for comparing two states of the code: `cargo bench --bench kernels`.
//!
//! `limber bench` says how far the whole is from the machine's limits; this says what a change of one kernel does.

#[path = "../core/kernels/examples/speed/mod.rs"]
mod speed;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use limber_kernels as lk;
use lk::{Activation, Conv, ConvShape};
use speed::{Matrix, noise};
use std::hint::black_box;
use std::time::Duration;

/// One matrix of GPT-J's MLP in every type: a row (decoding), eight rows (a batch), 147 rows (a prompt), the gradient.
fn linear(c: &mut Criterion) {
    let (n_out, n_in) = (4096, 4096);
    let matrix = Matrix::new(n_out * n_in);
    let mut group = c.benchmark_group("linear");
    for (name, weight) in matrix.weights() {
        for rows in [1, 8, 147] {
            let (x, mut y) = (noise(rows * n_in), vec![0f32; rows * n_out]);
            group.throughput(match rows {
                147 => Throughput::Elements(2 * (rows * n_in * n_out) as u64),
                _ => Throughput::Bytes(weight.bytes() as u64),
            });
            group.bench_function(BenchmarkId::new(name, rows), |b| {
                b.iter(|| lk::linear(black_box(&x), weight, None, &mut y, rows, n_in, n_out).expect("the shapes fit"));
            });
        }
    }
    let (rows, mut gx) = (147, vec![0f32; 147 * n_in]);
    let gy = noise(rows * n_out);
    group.throughput(Throughput::Elements(2 * (rows * n_in * n_out) as u64));
    group.bench_function(BenchmarkId::new("bf16 gradient", rows), |b| {
        let weight = matrix.bf16();
        b.iter(|| lk::linear_input_grad(black_box(&gy), weight, &mut gx, rows, n_in, n_out).expect("the shapes fit"));
    });
    group.finish();
}

/// Two convolutions of RN50x16's third stage.
fn convolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv");
    for (kernel, n_in, n_out) in [(1, 1536, 384), (3, 384, 384)] {
        let (side, bias) = (24, vec![0.1; n_out]);
        let shape = ConvShape::square(n_in, n_out, kernel, 1, kernel / 2);
        let conv = Conv::new(shape, &noise(n_out * n_in * kernel * kernel), Some(&bias)).expect("the weight fits");
        let x = noise(side * side * n_in);
        group.throughput(Throughput::Elements(2 * (side * side * n_in * n_out * kernel * kernel) as u64));
        group.bench_function(format!("{kernel} x {kernel}"), |b| {
            b.iter(|| conv.run(black_box(&x), [1, side, side], None, Some(Activation::Relu)).expect("the sizes fit"));
        });
    }
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = linear, convolution
}
criterion_main!(kernels);
