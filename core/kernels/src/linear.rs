//! The frozen linear layer y = x W^T + b, several of them at once, and the gradient of its input.

use crate::activation::Activation;
use crate::dot::{Interleave, Interleaved, Skinny};
use crate::gemm::{self, ByColumn, ByRow, Columns, Finish, Packed, Product, Target};
use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::shape::{ShapeError, check_len};
#[cfg(target_arch = "x86_64")]
use crate::vnni::{self, Blocks};
use crate::weight::{Dense, Q4, Q8, Source, Weight};

/// Most rows of activations for which weight rows are always dotted as they lie.
///
/// Well beyond it, the work is bound by arithmetic and packed panels are faster.
pub const SKINNY_ROWS: usize = 16;

/// Whether weight rows are dotted as they lie: also for up to twice [`SKINNY_ROWS`], if weights
/// need no decoding and the activations stay in a core's own cache.
fn is_skinny(jobs: &[Job], rows: usize, n_in: usize) -> bool {
    let coded = |job: &Job| matches!(job.weight, Weight::Q8_0(_) | Weight::Q4K(_) | Weight::Blocks(..));
    let small = rows <= 2 * SKINNY_ROWS && rows * n_in <= 1 << 17;
    rows <= SKINNY_ROWS || small && !jobs.iter().any(coded)
}

/// Most rows for which quantised weights are multiplied with activations as integers: above, widening pays.
#[cfg(target_arch = "x86_64")]
const SKINNY_CODED_ROWS: usize = 3;
/// Bytes of weights that one piece of skinny-GEMM work reads, about.
const PIECE_BYTES: usize = 1 << 20;

/// Applies `$body` to the weight as a `Source` named `$s`, whatever its type.
macro_rules! with_source {
    ($weight:expr, $n_in:expr, $s:ident => $body:expr) => {
        match $weight {
            Weight::F32(w) => {
                let $s = Dense { start: w.as_ptr(), stride: $n_in };
                $body
            }
            Weight::F16(w) => {
                let $s = Dense { start: w.as_ptr(), stride: $n_in };
                $body
            }
            Weight::Bf16(w) => {
                let $s = Dense { start: w.as_ptr(), stride: $n_in };
                $body
            }
            Weight::Q8_0(w) => {
                let $s = Q8::new(w, $n_in);
                $body
            }
            Weight::Q4K(w) => {
                let $s = Q4::new(w, $n_in);
                $body
            }
            Weight::Blocks(format, w) if format.numbers() == 32 => {
                let $s = $crate::blocks::DecodedRows::<32> { format, bytes: w, blocks: $n_in / 32 };
                $body
            }
            Weight::Blocks(format, w) => {
                let $s = $crate::blocks::DecodedRows::<256> { format, bytes: w, blocks: $n_in / 256 };
                $body
            }
        }
    };
}

pub(crate) use with_source;

/// What becomes of a product while it is in the nearest cache: `activation(residual + scale (x W^T + b))`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Multiplies every row, `[n_out]`.
    pub scale: Option<&'a [f32]>,
    /// Added, `[rows, n_out]`.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Option<Activation>,
}

/// One layer of [`linear_multi`]: its weight `[n_out, n_in]`, bias `[n_out]`, output `[rows, n_out]`.
#[derive(Debug)]
pub struct Layer<'a> {
    /// The frozen weight.
    pub weight: Weight<'a>,
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// Where the result goes; overwritten.
    pub y: &'a mut [f32],
    /// Width of the output.
    pub n_out: usize,
    /// What is done to the product.
    pub epilogue: Epilogue<'a>,
}

/// `y [rows, n_out] = x [rows, n_in] W^T + b`, f32 arithmetic on the weights as stored.
///
/// Up to about [`SKINNY_ROWS`] rows, weights stream from memory once; beyond, blocks of them are widened
/// to f32 once and multiplied from the cache. Runs on the current rayon pool.
///
/// # Errors
///
/// Where a slice does not have its shape's length.
pub fn linear(
    x: &[f32],
    weight: Weight,
    bias: Option<&[f32]>,
    y: &mut [f32],
    rows: usize,
    n_in: usize,
    n_out: usize,
) -> Result<(), ShapeError> {
    linear_multi(x, &mut [Layer { weight, bias, y, n_out, epilogue: Epilogue::default() }], rows, n_in)
}

/// Several layers over one input, in one pass over the thread pool: q, k and v for instance.
///
/// # Errors
///
/// As for [`linear`].
pub fn linear_multi(x: &[f32], layers: &mut [Layer], rows: usize, n_in: usize) -> Result<(), ShapeError> {
    check_len("x", &[rows, n_in], x.len())?;
    for layer in layers.iter() {
        layer.weight.check(layer.n_out, n_in)?;
        check_len("y", &[rows, layer.n_out], layer.y.len())?;
        if let Some(bias) = layer.bias {
            check_len("bias", &[layer.n_out], bias.len())?;
        }
        if let Some(scale) = layer.epilogue.scale {
            check_len("scale", &[layer.n_out], scale.len())?;
        }
        if let Some(residual) = layer.epilogue.residual {
            check_len("residual", &[rows, layer.n_out], residual.len())?;
        }
    }
    if rows == 0 {
        return Ok(());
    }
    let level = Level::current();
    if n_in == 0 {
        // Rows of no numbers may be any number of them.
        for layer in layers.iter_mut().filter(|layer| !layer.y.is_empty()) {
            for y in layer.y.chunks_exact_mut(layer.n_out) {
                match layer.bias {
                    Some(bias) => y.copy_from_slice(bias),
                    None => y.fill(0.0),
                }
            }
            let job = Job::new(layer);
            // SAFETY: shapes are checked above.
            unsafe { job.finish(level, rows, 0, job.n_out) };
        }
        return Ok(());
    }
    let jobs: Vec<Job> = layers.iter_mut().map(Job::new).collect();
    if is_skinny(&jobs, rows, n_in) {
        skinny(level, x, &jobs, rows, n_in);
    } else {
        packed_gemm(level, x, &jobs, rows, n_in);
    }
    Ok(())
}

/// A layer whose output may be written from several threads.
struct Job<'a> {
    weight: Weight<'a>,
    to: Target,
    n_out: usize,
}

impl<'a> Job<'a> {
    fn new(layer: &mut Layer<'a>) -> Job<'a> {
        let Epilogue { scale, residual, activation } = layer.epilogue;
        let start = |slice: Option<&[f32]>| slice.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let to = Target::new(layer.y.as_mut_ptr(), layer.n_out).with_bias(layer.bias);
        let to = Target { scale: start(scale), residual: start(residual), activation, ..to };
        Job { weight: layer.weight, to, n_out: layer.n_out }
    }

    /// What comes after the product, in columns `from .. until`.
    ///
    /// # Safety
    ///
    /// The columns exist, and nothing else writes to them meanwhile.
    unsafe fn finish(&self, level: Level, rows: usize, from: usize, until: usize) {
        if self.to.unfinished() {
            // SAFETY: the caller's.
            unsafe { dispatch(level, Finish { to: self.to, rows, n: from, width: until - from }) };
        }
    }
}

/// Index of the job that piece `i` belongs to, and the piece's index within it.
fn locate(counts: &[usize], mut i: usize) -> (usize, usize) {
    for (job, &n) in counts.iter().enumerate() {
        if i < n {
            return (job, i);
        }
        i -= n;
    }
    unreachable!("pieces are numbered below the sum of the counts")
}

fn skinny(level: Level, x: &[f32], jobs: &[Job], rows: usize, n_in: usize) {
    // Whole groups of weight rows, however many of them go together, about `PIECE_BYTES` each, and at least four pieces a thread.
    let step = |job: &Job| {
        let row_bytes = (job.weight.bytes() / job.n_out.max(1)).max(1);
        let fair = job.n_out.div_ceil(4 * rayon::current_num_threads());
        let whole = if fair < 24 { 8 } else { 24 };
        (PIECE_BYTES / row_bytes).min(fair).max(1).next_multiple_of(whole)
    };
    let counts: Vec<usize> = jobs.iter().map(|job| job.n_out.div_ceil(step(job))).collect();
    #[cfg(target_arch = "x86_64")]
    let coded = {
        let wanted = |is: fn(&Weight) -> bool| {
            level == Level::Avx512 && rows <= SKINNY_CODED_ROWS && jobs.iter().any(|job| is(&job.weight))
        };
        // SAFETY: the level is AVX-512.
        let code = |digits| unsafe { vnni::Coded::new(x, n_in, digits) };
        let q8 = wanted(|w| matches!(w, Weight::Q8_0(_))).then(|| code(vnni::Q8::DIGITS));
        (q8, wanted(|w| matches!(w, Weight::Q4K(_))).then(|| code(vnni::Q4::DIGITS)))
    };
    #[cfg(target_arch = "x86_64")]
    let is_coded = |w: &Weight| match w {
        Weight::Q8_0(_) => coded.0.is_some(),
        Weight::Q4K(_) => coded.1.is_some(),
        _ => false,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let is_coded = |_: &Weight| false;
    // A single row is interleaved as it lies.
    let copied = rows > 1 && !jobs.iter().all(|job| is_coded(&job.weight));
    let mut copy = Scratch::take(if copied { Interleave::room(rows, n_in) } else { 0 });
    if copied {
        // SAFETY: the copy has the room.
        unsafe { dispatch(level, Interleave { x, n_in, to: copy.as_mut_ptr() }) };
    }
    let start = Shared(if copied { copy.as_mut_ptr() } else { x.as_ptr().cast_mut() });
    parallel::for_each(counts.iter().sum(), |i| {
        let (job, i) = locate(&counts, i);
        let job = &jobs[job];
        let from = i * step(job);
        let to = (from + step(job)).min(job.n_out);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level is AVX-512; shapes are checked on entry; columns are disjoint.
        unsafe {
            let done = match (job.weight, &coded) {
                (Weight::Q8_0(w), (Some(x), _)) => {
                    vnni::skinny::<vnni::Q8>(w, n_in, x, from, to, job.to);
                    true
                }
                (Weight::Q4K(w), (_, Some(x))) => {
                    vnni::skinny::<vnni::Q4>(w, n_in, x, from, to, job.to);
                    true
                }
                _ => false,
            };
            if done {
                job.finish(level, rows, from, to);
                return;
            }
        }
        with_source!(job.weight, n_in, source => {
            let x = Interleaved { start: start.get(), rows };
            let skinny = Skinny { source, x, n_in, from, to, target: job.to };
            // SAFETY: shapes are checked on entry; pieces write to disjoint columns.
            unsafe {
                dispatch(level, skinny);
                job.finish(level, rows, from, to);
            }
        });
    });
}

fn packed_gemm(level: Level, x: &[f32], jobs: &[Job], rows: usize, n_in: usize) {
    let packed = Packed::new(level, x, rows, n_in);
    let count = |job: &Job| {
        with_source!(job.weight, n_in, source => {
            gemm::pieces(&packed, &Product { columns: ByRow(source), n: job.n_out, to: job.to })
        })
    };
    let counts: Vec<usize> = jobs.iter().map(count).collect();
    parallel::for_each(counts.iter().sum(), |i| {
        let (job, i) = locate(&counts, i);
        let job = &jobs[job];
        with_source!(job.weight, n_in, source => {
            let product = Product { columns: ByRow(source), n: job.n_out, to: job.to };
            // SAFETY: shapes are checked on entry; pieces write to disjoint blocks.
            unsafe { gemm::piece(&packed, &product, i) }
        });
    });
}

/// `gx [rows, n_in] = gy [rows, n_out] W`: the gradient of [`linear`]'s input.
///
/// # Errors
///
/// Where a slice does not have its shape's length.
pub fn linear_input_grad(
    gy: &[f32],
    weight: Weight,
    gx: &mut [f32],
    rows: usize,
    n_in: usize,
    n_out: usize,
) -> Result<(), ShapeError> {
    check_len("gy", &[rows, n_out], gy.len())?;
    weight.check(n_out, n_in)?;
    check_len("gx", &[rows, n_in], gx.len())?;
    if rows == 0 || n_out == 0 {
        gx.fill(0.0);
        return Ok(());
    }
    let packed = Packed::new(Level::current(), gy, rows, n_out);
    let to = Target::new(gx.as_mut_ptr(), n_in);
    with_source!(weight, n_in, source => run(&packed, ByColumn(source), n_in, to));
    Ok(())
}

/// C = packed B for `n` columns of B, all threads.
pub(crate) fn run<C: Columns>(packed: &Packed, columns: C, n: usize, to: Target) {
    let product = Product { columns, n, to };
    parallel::for_each(gemm::pieces(packed, &product), |i| {
        // SAFETY: shapes are checked by the caller; pieces write to disjoint blocks.
        unsafe { gemm::piece(packed, &product, i) }
    });
}

/// Numbers `start .. start + out.len()` of a weight seen as one row of `n`.
pub(crate) fn widen(weight: Weight, n: usize, start: usize, out: &mut [f32]) {
    struct Widen<'a, S>(S, usize, &'a mut [f32]);
    impl<S: Source> Kernel for Widen<'_, S> {
        type Out = ();
        #[inline(always)]
        unsafe fn run<I: Isa>(self) {
            // SAFETY: the caller keeps within the weight, at whole blocks.
            unsafe { self.0.widen::<I>(0, self.1, self.2.len(), self.2.as_mut_ptr()) }
        }
    }
    with_source!(weight, n, source => {
        // SAFETY: the caller checked the lengths; pieces begin at whole blocks.
        unsafe { dispatch(Level::current(), Widen(source, start, out)) }
    });
}
