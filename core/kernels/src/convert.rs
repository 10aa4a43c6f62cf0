//! f32 to and from f16 and bf16, whole slices on all threads.

use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel::{self, Shared};
use crate::quant::dequantize;
use crate::shape::{ShapeError, check_len};
use crate::weight::Weight;
use half::{bf16, f16};

/// Numbers in a piece of work.
const PIECE: usize = 1 << 15;

/// Widens bf16 to f32.
///
/// # Errors
///
/// Where the lengths differ.
pub fn bf16_to_f32(x: &[bf16], y: &mut [f32]) -> Result<(), ShapeError> {
    dequantize(Weight::Bf16(x), y)
}

/// Widens f16 to f32.
///
/// # Errors
///
/// Where the lengths differ.
pub fn f16_to_f32(x: &[f16], y: &mut [f32]) -> Result<(), ShapeError> {
    dequantize(Weight::F16(x), y)
}

/// Rounds f32 to bf16, to nearest even; NaN stays NaN.
///
/// # Errors
///
/// Where the lengths differ.
pub fn f32_to_bf16(x: &[f32], y: &mut [bf16]) -> Result<(), ShapeError> {
    check_len("y", &[x.len()], y.len())?;
    narrow::<true>(x, y.as_mut_ptr().cast());
    Ok(())
}

/// Rounds f32 to f16, to nearest even; what is too large becomes infinite.
///
/// # Errors
///
/// Where the lengths differ.
pub fn f32_to_f16(x: &[f32], y: &mut [f16]) -> Result<(), ShapeError> {
    check_len("y", &[x.len()], y.len())?;
    narrow::<false>(x, y.as_mut_ptr().cast());
    Ok(())
}

/// Rounds to bf16 (`BRAIN`) or f16; `y` has as many numbers as `x`.
fn narrow<const BRAIN: bool>(x: &[f32], y: *mut u16) {
    let (level, y) = (Level::current(), Shared(y));
    parallel::for_each(x.len().div_ceil(PIECE), |i| {
        let from = i * PIECE;
        let x = &x[from..(from + PIECE).min(x.len())];
        // SAFETY: pieces of `y` do not overlap; `half`'s types are transparent over `u16`.
        unsafe { dispatch(level, Narrow::<BRAIN> { x, y: y.get().add(from) }) };
    });
}

struct Narrow<'a, const BRAIN: bool> {
    x: &'a [f32],
    y: *mut u16,
}

impl<const BRAIN: bool> Kernel for Narrow<'_, BRAIN> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let whole = self.x.len() / I::LANES * I::LANES;
        for i in (0..whole).step_by(I::LANES) {
            // SAFETY: `i + LANES` is at most the length of both.
            unsafe {
                let v = I::load(self.x.as_ptr().add(i));
                if BRAIN {
                    I::store_bf16(self.y.add(i), v);
                } else {
                    I::store_f16(self.y.add(i), v);
                }
            }
        }
        for (i, &v) in self.x.iter().enumerate().skip(whole) {
            let bits = if BRAIN { bf16::from_f32(v).to_bits() } else { f16::from_f32(v).to_bits() };
            // SAFETY: `i` is below the length.
            unsafe { *self.y.add(i) = bits };
        }
    }
}
