//! Prints the speed of the linear layer beside the machine's measured limits, as ratios.
//!
//! `cargo run --release -p limber-kernels --example kernel_speed [repeats]`
#![allow(unsafe_code)]

mod speed;

use limber_kernels as lk;
use lk::Weight;
use speed::{Matrix, best};

fn main() {
    let repeats = speed::repeats(15);
    println!("threads {}, {:?}", rayon::current_num_threads(), lk::Level::current());
    for (n_out, n_in) in [(4096, 4096), (16384, 4096), (4096, 16384)] {
        let matrix = Matrix::new(n_out * n_in);
        let read = lk::bandwidth_probe(512 << 20);
        let multiply = lk::gemm_probe();
        println!("[{n_out} x {n_in}]  read {read:.1} GB/s, gemm {multiply:.0} GFLOP/s");
        for (name, w) in matrix.weights() {
            // Copies, so that a pass over all of them exceeds the cache as a model's layers do.
            let copies = (400 << 20) / w.bytes().max(1) + 1;
            let held: Vec<Vec<u8>> = (1..copies).map(|_| bytes(&w).to_vec()).collect();
            let all: Vec<Weight> = std::iter::once(w).chain(held.iter().map(|b| like(&w, b))).collect();
            let mut line = format!("  {name:5}");
            let mut single = 0.0;
            for rows in [1, 2, 4, 8, 16] {
                let x = vec![0.5f32; rows * n_in];
                let mut y = vec![0f32; rows * n_out];
                let seconds = best(repeats.div_ceil(3), || {
                    for w in &all {
                        lk::linear(&x, *w, None, &mut y, rows, n_in, n_out).expect("shapes fit");
                    }
                }) / all.len() as f64;
                let rate = w.bytes() as f64 / seconds / 1e9;
                if rows == 1 {
                    single = seconds;
                    line += &format!(" 1 row {rate:5.1} GB/s = {:.2} of read;", rate / read);
                } else {
                    line += &format!(" x{rows}: {:.1}", rows as f64 * single / seconds);
                }
            }
            let rows = 147;
            let x: Vec<f32> = (0..rows * n_in).map(|i| (i % 31) as f32 * 0.1 - 1.5).collect();
            let mut y = vec![0f32; rows * n_out];
            let seconds = best(repeats.div_ceil(3), || {
                lk::linear(&x, w, None, &mut y, rows, n_in, n_out).expect("the shapes fit");
            });
            let rate = 2.0 * (rows * n_in * n_out) as f64 / seconds / 1e9;
            let mut gx = vec![0f32; rows * n_in];
            let seconds = best(repeats.div_ceil(3), || {
                lk::linear_input_grad(&y, w, &mut gx, rows, n_in, n_out).expect("the shapes fit");
            });
            let back = 2.0 * (rows * n_in * n_out) as f64 / seconds / 1e9;
            line += &format!("; {rows} rows {rate:4.0} GFLOP/s = {:.2} of gemm", rate / multiply);
            println!("{line}; gradient {:.2}", back / multiply);
        }
    }
}

fn bytes<'a>(w: &Weight<'a>) -> &'a [u8] {
    // SAFETY: plain numbers without padding, seen as their bytes.
    let of = |p: *const u8, n: usize| unsafe { std::slice::from_raw_parts(p, n) };
    match *w {
        Weight::F32(v) => of(v.as_ptr().cast(), size_of_val(v)),
        Weight::F16(v) => of(v.as_ptr().cast(), size_of_val(v)),
        Weight::Bf16(v) => of(v.as_ptr().cast(), size_of_val(v)),
        Weight::Q8_0(v) | Weight::Q4K(v) | Weight::Blocks(_, v) => v,
    }
}

fn like<'a>(w: &Weight, b: &'a [u8]) -> Weight<'a> {
    // SAFETY: large allocations are aligned to 16 bytes, and every bit pattern is a number.
    unsafe {
        match w {
            Weight::F32(_) => Weight::F32(b.align_to().1),
            Weight::F16(_) => Weight::F16(b.align_to().1),
            Weight::Bf16(_) => Weight::Bf16(b.align_to().1),
            Weight::Q8_0(_) => Weight::Q8_0(b),
            Weight::Q4K(_) => Weight::Q4K(b),
            Weight::Blocks(format, _) => Weight::Blocks(*format, b),
        }
    }
}
