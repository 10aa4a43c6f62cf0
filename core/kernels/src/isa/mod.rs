//! Instruction sets: one small vector interface, chosen at run time.
//!
//! Every kernel is written once over [`Isa`] and compiled for each set behind
//! `#[target_feature]`, so a binary built for plain x86-64 runs the widest code
//! that the machine offers. The pattern is that of the `pulp` crate.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;

use std::cell::Cell;
use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust that the compiler vectorises for the target's baseline (SSE2, NEON).
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

thread_local! {
    static OVERRIDE: Cell<Option<Level>> = const { Cell::new(None) };
}

impl Level {
    /// The widest set of this machine, or the one that [`with_level`] asked for.
    pub fn current() -> Level {
        OVERRIDE.with(Cell::get).unwrap_or_else(Level::detect)
    }

    /// The widest set of this machine.
    pub fn detect() -> Level {
        static DETECTED: OnceLock<Level> = OnceLock::new();
        *DETECTED.get_or_init(|| *Level::supported().last().unwrap_or(&Level::Portable))
    }

    /// All sets that run on this machine, narrowest first.
    pub fn supported() -> Vec<Level> {
        #[allow(unused_mut)]
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                levels.push(Level::Avx2);
                let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq");
                if wide && has!("avx512vl") && has!("avx512vnni") {
                    levels.push(Level::Avx512);
                }
            }
        }
        levels
    }
}

/// Runs `f` with the calls of this thread bound to `level`, for tests and comparisons.
///
/// A level that the machine lacks is lowered to the widest it has.
pub fn with_level<R>(level: Level, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Level>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OVERRIDE.with(|o| o.set(self.0));
        }
    }
    let restore = Restore(OVERRIDE.with(|o| o.replace(Some(level.min(Level::detect())))));
    let out = f();
    drop(restore);
    out
}

/// Vectors of f32 and the loads that widen to them.
///
/// # Safety
///
/// Methods may run only where the instruction set is present, that is inside [`dispatch`];
/// pointers must be valid for `LANES` elements, at any alignment.
pub(crate) trait Isa: Copy + 'static {
    /// A vector of `LANES` f32.
    type V: Copy;
    /// The level that this set stands for.
    const LEVEL: Level;
    /// Lanes of a vector.
    const LANES: usize;
    /// Rows of the matrix micro-tile, which is `MR` x `2 * LANES`.
    const MR: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn load_f16(p: *const u16) -> Self::V;
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    unsafe fn load_i8(p: *const i8) -> Self::V;
    /// One f16.
    unsafe fn half(bits: u16) -> f32;
    /// Rounds to nearest even and stores `LANES` bf16.
    unsafe fn store_bf16(p: *mut u16, v: Self::V);
    /// Rounds to nearest even and stores `LANES` f16.
    unsafe fn store_f16(p: *mut u16, v: Self::V);
    /// The low four bits of `LANES` bytes, as numbers.
    unsafe fn load_low_nibbles(p: *const u8) -> Self::V;
    /// The high four bits of `LANES` bytes, as numbers.
    unsafe fn load_high_nibbles(p: *const u8) -> Self::V;
    /// Of 32 bytes the low four bits, then the high ones, each times a scale plus a minimum of its half.
    #[inline(always)]
    unsafe fn widen_nibbles(p: *const u8, low: (Self::V, Self::V), high: (Self::V, Self::V), dst: *mut f32) {
        // SAFETY: the caller's: 64 numbers are written.
        unsafe {
            for i in (0..32).step_by(Self::LANES) {
                Self::store(dst.add(i), Self::fma(Self::load_low_nibbles(p.add(i)), low.0, low.1));
                Self::store(dst.add(32 + i), Self::fma(Self::load_high_nibbles(p.add(i)), high.0, high.1));
            }
        }
    }
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, with one rounding where the machine has it.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger one; `b` where either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; `b` where either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// The nearest whole number, ties to even; |v| below 2^22.
    unsafe fn round(v: Self::V) -> Self::V;
    /// `2^v` for whole v in -127..=127; -127 gives zero.
    unsafe fn pow2(v: Self::V) -> Self::V;
    unsafe fn sum(v: Self::V) -> f32;
    unsafe fn hmax(v: Self::V) -> f32;
    /// Transposes `LANES` rows of `LANES` f32 at `src + i * stride` into `dst + j * dst_stride`.
    unsafe fn transpose(rows: *const f32, stride: usize, dst: *mut f32, dst_stride: usize);
    /// Whether [`Isa::transpose_bf16`] is there.
    const TURNS_BF16: bool = false;
    /// Transposes `LANES` rows of `2 LANES` bf16 at `rows + i * stride` into f32 at `dst + j * dst_stride`; reads each
    /// row once, for rows a power of two apart share a few sets of the nearest cache.
    #[inline(always)]
    unsafe fn transpose_bf16(_rows: *const u16, _stride: usize, _dst: *mut f32, _dst_stride: usize) {}
    /// Asks for the cache line at `p`; any address is allowed.
    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {}
    /// Asks for the cache line at `p` in the second-level cache; any address is allowed.
    #[inline(always)]
    unsafe fn prefetch_far(_p: *const u8) {}
}

/// A piece of work that is compiled once for each instruction set.
pub(crate) trait Kernel {
    /// What the work returns.
    type Out;
    /// Does the work; must be `#[inline(always)]` to take on the caller's target features.
    ///
    /// # Safety
    ///
    /// `I` is present on this machine, and the pointers of `self` are valid as documented there.
    unsafe fn run<I: Isa>(self) -> Self::Out;
}

/// Runs `kernel` compiled for `level`.
///
/// # Safety
///
/// `level` is supported here (levels come from [`Level::current`]), and the kernel's own
/// pointer invariants hold.
#[inline]
pub(crate) unsafe fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    {
        // Never inlined: a kernel that several others call is compiled once.
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        unsafe fn v4<K: Kernel>(kernel: K) -> K::Out {
            // SAFETY: the caller of `dispatch` vouches for the level and the kernel.
            unsafe { kernel.run::<avx512::Avx512>() }
        }
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn v3<K: Kernel>(kernel: K) -> K::Out {
            // SAFETY: as above.
            unsafe { kernel.run::<avx2::Avx2>() }
        }
        #[inline(never)]
        unsafe fn v1<K: Kernel>(kernel: K) -> K::Out {
            // SAFETY: as above.
            unsafe { kernel.run::<portable::Portable>() }
        }
        // SAFETY: as above.
        unsafe {
            match level {
                Level::Avx512 => v4(kernel),
                Level::Avx2 => v3(kernel),
                Level::Portable => v1(kernel),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = level;
        // SAFETY: as above.
        unsafe { kernel.run::<portable::Portable>() }
    }
}
