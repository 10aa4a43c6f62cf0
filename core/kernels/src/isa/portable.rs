//! Four lanes of plain Rust, which compilers turn into SSE2 or NEON.

use super::{Isa, Level};
use half::{bf16, f16};

/// Vectors of four f32 in plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const L: usize = 4;

#[inline(always)]
fn zip(a: [f32; L], b: [f32; L], f: impl Fn(f32, f32) -> f32) -> [f32; L] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// `a * b + c`: fused where that is one instruction, since the library routine is slow.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

// SAFETY of the blocks below: callers of `Isa` methods pass pointers valid for `L` elements.
impl Isa for Portable {
    type V = [f32; L];
    const LEVEL: Level = Level::Portable;
    const LANES: usize = L;
    const MR: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; L]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: see the impl.
        unsafe { p.cast::<[f32; L]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: see the impl.
        unsafe { p.cast::<[f32; L]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        // SAFETY: see the impl.
        let bits = unsafe { p.cast::<[u16; L]>().read_unaligned() };
        bits.map(|b| f16::from_bits(b).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: see the impl.
        let bits = unsafe { p.cast::<[u16; L]>().read_unaligned() };
        bits.map(|b| f32::from_bits(u32::from(b) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        // SAFETY: see the impl.
        unsafe { p.cast::<[i8; L]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        f16::from_bits(bits).to_f32()
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        let bits = v.map(|x| bf16::from_f32(x).to_bits());
        // SAFETY: see the impl.
        unsafe { p.cast::<[u16; L]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: Self::V) {
        let bits = v.map(|x| f16::from_f32(x).to_bits());
        // SAFETY: see the impl.
        unsafe { p.cast::<[u16; L]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn load_low_nibbles(p: *const u8) -> Self::V {
        // SAFETY: see the impl.
        unsafe { p.cast::<[u8; L]>().read_unaligned() }.map(|b| f32::from(b & 15))
    }
    #[inline(always)]
    unsafe fn load_high_nibbles(p: *const u8) -> Self::V {
        // SAFETY: see the impl.
        unsafe { p.cast::<[u8; L]>().read_unaligned() }.map(|b| f32::from(b >> 4))
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [mul_add(a[0], b[0], c[0]), mul_add(a[1], b[1], c[1]), mul_add(a[2], b[2], c[2]), mul_add(a[3], b[3], c[3])]
    }
    #[inline(always)]
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: no pointers.
        unsafe { Self::fma(a.map(|x| -x), b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(v: Self::V) -> Self::V {
        // Adding and taking away 1.5 * 2^23 leaves no room for a fraction.
        v.map(|x| (x + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    unsafe fn pow2(v: Self::V) -> Self::V {
        v.map(|x| f32::from_bits(((x as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }
    #[inline(always)]
    unsafe fn hmax(v: Self::V) -> f32 {
        v[0].max(v[1]).max(v[2].max(v[3]))
    }
    #[inline(always)]
    unsafe fn transpose(rows: *const f32, stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: the caller's rows and columns are valid for `L` elements each.
        unsafe {
            let r: [[f32; L]; L] = [
                Self::load(rows),
                Self::load(rows.add(stride)),
                Self::load(rows.add(2 * stride)),
                Self::load(rows.add(3 * stride)),
            ];
            for j in 0..L {
                Self::store(dst.add(j * dst_stride), [r[0][j], r[1][j], r[2][j], r[3][j]]);
            }
        }
    }
}
