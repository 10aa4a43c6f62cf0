//! Vector forms of `exp` and the loops over rows that share them.

use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel::{self, Shared};

/// `e^x`, relative error about 1e-7; exactly 0 below -87.7, largest finite above 88; NaN stays.
///
/// Range reduction by ln 2 in two parts and a polynomial of degree 6, after Cephes `expf`.
#[inline(always)]
pub(crate) unsafe fn exp<I: Isa>(x: I::V) -> I::V {
    // SAFETY: no pointers.
    unsafe {
        let x = I::min(I::splat(88.0), I::max(I::splat(-88.0), x));
        let n = I::round(I::mul(x, I::splat(std::f32::consts::LOG2_E)));
        let r = I::fnma(n, I::splat(0.693_359_4), x);
        let r = I::fnma(n, I::splat(-2.121_944_4e-4), r);
        let mut p = I::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = I::fma(p, r, I::splat(c));
        }
        let p = I::add(I::fma(p, I::mul(r, r), r), I::splat(1.0));
        I::mul(p, I::pow2(n))
    }
}

/// What [`map`] does to a vector.
///
/// This and the two traits below stand where closures would: a closure is compiled for the baseline unless the compiler
/// happens to inline it first, and then calls a function for every instruction; methods must be `#[inline(always)]`.
pub(crate) trait Unary<I: Isa>: Copy {
    unsafe fn of(self, x: I::V) -> I::V;
}

/// What [`map2`] does to a pair of vectors.
pub(crate) trait Binary<I: Isa>: Copy {
    unsafe fn of(self, a: I::V, b: I::V) -> I::V;
}

/// What [`fold`] does to its sums with a pair of vectors.
pub(crate) trait Step<I: Isa, const N: usize>: Copy {
    unsafe fn of(self, sums: [I::V; N], a: I::V, b: I::V) -> [I::V; N];
}

/// `a + b`, or the sum of the first row.
#[derive(Clone, Copy)]
pub(crate) struct Sum;
/// The larger of two.
#[derive(Clone, Copy)]
pub(crate) struct Larger;
/// `a * b`.
#[derive(Clone, Copy)]
pub(crate) struct Product;
/// The product with a constant.
#[derive(Clone, Copy)]
pub(crate) struct Times<V>(pub V);
/// The sum of products.
#[derive(Clone, Copy)]
pub(crate) struct Dot;

impl<I: Isa> Binary<I> for Sum {
    #[inline(always)]
    unsafe fn of(self, a: I::V, b: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe { I::add(a, b) }
    }
}
impl<I: Isa> Step<I, 1> for Sum {
    #[inline(always)]
    unsafe fn of(self, [sum]: [I::V; 1], a: I::V, _: I::V) -> [I::V; 1] {
        // SAFETY: no pointers.
        unsafe { [I::add(sum, a)] }
    }
}
impl<I: Isa> Binary<I> for Larger {
    #[inline(always)]
    unsafe fn of(self, a: I::V, b: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe { I::max(a, b) }
    }
}
impl<I: Isa> Binary<I> for Product {
    #[inline(always)]
    unsafe fn of(self, a: I::V, b: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe { I::mul(a, b) }
    }
}
impl<I: Isa> Unary<I> for Times<I::V> {
    #[inline(always)]
    unsafe fn of(self, x: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe { I::mul(x, self.0) }
    }
}
impl<I: Isa> Step<I, 1> for Dot {
    #[inline(always)]
    unsafe fn of(self, [sum]: [I::V; 1], a: I::V, b: I::V) -> [I::V; 1] {
        // SAFETY: no pointers.
        unsafe { [I::fma(a, b, sum)] }
    }
}

/// Applies `f` to `len` numbers; the last, partial vector passes through a buffer.
#[inline(always)]
pub(crate) unsafe fn map<I: Isa>(src: *const f32, dst: *mut f32, len: usize, f: impl Unary<I>) {
    let mut i = 0;
    // SAFETY: the caller's pointers are valid for `len`; `edge` holds the widest vector.
    unsafe {
        while i + I::LANES <= len {
            I::store(dst.add(i), f.of(I::load(src.add(i))));
            i += I::LANES;
        }
        if i < len {
            let mut edge = [0f32; 16];
            edge.as_mut_ptr().copy_from_nonoverlapping(src.add(i), len - i);
            let v = f.of(I::load(edge.as_ptr()));
            I::store(edge.as_mut_ptr(), v);
            dst.add(i).copy_from_nonoverlapping(edge.as_ptr(), len - i);
        }
    }
}

/// Applies `f` to pairs of `len` numbers, as [`map`]; `dst` may be one of the sources.
#[inline(always)]
pub(crate) unsafe fn map2<I: Isa>(a: *const f32, b: *const f32, dst: *mut f32, len: usize, f: impl Binary<I>) {
    let mut i = 0;
    // SAFETY: the caller's pointers are valid for `len`; the buffers hold the widest vector.
    unsafe {
        while i + I::LANES <= len {
            I::store(dst.add(i), f.of(I::load(a.add(i)), I::load(b.add(i))));
            i += I::LANES;
        }
        if i < len {
            let (mut x, mut y) = ([0f32; 16], [0f32; 16]);
            x.as_mut_ptr().copy_from_nonoverlapping(a.add(i), len - i);
            y.as_mut_ptr().copy_from_nonoverlapping(b.add(i), len - i);
            let v = f.of(I::load(x.as_ptr()), I::load(y.as_ptr()));
            I::store(x.as_mut_ptr(), v);
            dst.add(i).copy_from_nonoverlapping(x.as_ptr(), len - i);
        }
    }
}

/// Folds `N` sums over `len` positions: `f` for whole vectors of the two rows,
/// zero-padded at the end.
#[inline(always)]
pub(crate) unsafe fn fold<I: Isa, const N: usize>(
    a: *const f32,
    b: *const f32,
    len: usize,
    f: impl Step<I, N>,
) -> [f32; N] {
    // SAFETY: the caller's rows have `len` numbers.
    unsafe {
        // Two chains hide the latency of the additions.
        let mut sums = [[I::splat(0.0); N]; 2];
        let mut i = 0;
        while i + 2 * I::LANES <= len {
            sums[0] = f.of(sums[0], I::load(a.add(i)), I::load(b.add(i)));
            let j = i + I::LANES;
            sums[1] = f.of(sums[1], I::load(a.add(j)), I::load(b.add(j)));
            i += 2 * I::LANES;
        }
        while i < len {
            let n = I::LANES.min(len - i);
            let (mut x, mut y) = ([0f32; 16], [0f32; 16]);
            x.as_mut_ptr().copy_from_nonoverlapping(a.add(i), n);
            y.as_mut_ptr().copy_from_nonoverlapping(b.add(i), n);
            sums[0] = f.of(sums[0], I::load(x.as_ptr()), I::load(y.as_ptr()));
            i += n;
        }
        let mut out = [0f32; N];
        for (k, out) in out.iter_mut().enumerate() {
            *out = I::sum(I::add(sums[0][k], sums[1][k]));
        }
        out
    }
}

/// Largest of `len` numbers; negative infinity for none.
#[inline(always)]
pub(crate) unsafe fn largest<I: Isa>(src: *const f32, len: usize) -> f32 {
    // SAFETY: the caller's row has `len` numbers.
    unsafe {
        let mut best = I::splat(f32::NEG_INFINITY);
        let mut i = 0;
        while i + I::LANES <= len {
            best = I::max(I::load(src.add(i)), best);
            i += I::LANES;
        }
        let mut best = I::hmax(best);
        while i < len {
            best = best.max(*src.add(i));
            i += 1;
        }
        best
    }
}

/// Work on one row of numbers.
pub(crate) trait Row: Copy + Send + Sync {
    /// Row `row`; must be `#[inline(always)]`.
    unsafe fn row<I: Isa>(self, row: usize);
}

struct Rows<R>(R, usize, usize);

impl<R: Row> Kernel for Rows<R> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        for row in self.1..self.2 {
            // SAFETY: the maker of the row work vouches for the rows.
            unsafe { self.0.row::<I>(row) }
        }
    }
}

/// Runs `work` on `rows` rows of about `width` numbers, in pieces worth a thread's while; rows of no numbers may be any
/// number of them, and are none's work.
///
/// # Safety
///
/// Rows exist, and each writes to its own elements only.
pub(crate) unsafe fn for_rows<R: Row>(rows: usize, width: usize, work: R) {
    if width == 0 {
        return;
    }
    let level = Level::current();
    let each = ((1 << 14) / width).max(1);
    parallel::for_each(rows.div_ceil(each), |i| {
        let (from, to) = (i * each, ((i + 1) * each).min(rows));
        // SAFETY: the caller's.
        unsafe { dispatch(level, Rows(work, from, to)) };
    });
}

/// Read-only numbers that row work holds.
pub(crate) fn shared(x: &[f32]) -> Shared<f32> {
    Shared(x.as_ptr().cast_mut())
}
