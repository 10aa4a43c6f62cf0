//! Rotary position embedding in place (Su et al., 2021), both ways of pairing channels.

use crate::isa::Isa;
use crate::math::{Row, for_rows, shared};
use crate::parallel::Shared;
use crate::shape::{ShapeError, check_len};

/// Which channels make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryStyle {
    /// Channels 2 i and 2 i + 1, as in GPT-J.
    Interleaved,
    /// Channels i and i + rotary / 2, as in GPT-NeoX and Llama.
    Half,
}

/// Tables of a rotary embedding.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// How channels are paired.
    pub style: RotaryStyle,
    /// Channels of a head that are rotated, from the first on; even.
    pub rotary: usize,
    /// Cosines `[positions, rotary / 2]`.
    pub cos: &'a [f32],
    /// Sines `[positions, rotary / 2]`.
    pub sin: &'a [f32],
}

impl Rotary<'_> {
    /// Rotates `x [tokens, heads, head_dim]` in place, token i as at `positions[i]`.
    ///
    /// # Errors
    ///
    /// Where sizes do not fit, or a position lies beyond the tables.
    pub fn apply(&self, x: &mut [f32], positions: &[usize], heads: usize, head_dim: usize) -> Result<(), ShapeError> {
        self.rotate(x, positions, heads, head_dim, 1.0)
    }

    /// Turns back: the inverse of [`Rotary::apply`], and the gradient of its input.
    ///
    /// # Errors
    ///
    /// As for [`Rotary::apply`].
    pub fn invert(&self, x: &mut [f32], positions: &[usize], heads: usize, head_dim: usize) -> Result<(), ShapeError> {
        self.rotate(x, positions, heads, head_dim, -1.0)
    }

    fn rotate(
        &self,
        x: &mut [f32],
        positions: &[usize],
        heads: usize,
        head_dim: usize,
        sign: f32,
    ) -> Result<(), ShapeError> {
        check_len("x", &[positions.len(), heads, head_dim], x.len())?;
        if !self.rotary.is_multiple_of(2) || self.rotary > head_dim {
            let allowed = "even and at most the head dimension";
            return Err(ShapeError::Size { what: "rotary", found: self.rotary, allowed });
        }
        let pairs = self.rotary / 2;
        if pairs == 0 {
            return Ok(());
        }
        check_len("sin", &[self.cos.len()], self.sin.len())?;
        let known = self.cos.len() / pairs;
        if let Some(&found) = positions.iter().find(|&&p| p >= known) {
            let allowed = "below the rows of the tables";
            return Err(ShapeError::Size { what: "position", found, allowed });
        }
        let work = Turn {
            x: Shared(x.as_mut_ptr()),
            cos: shared(self.cos),
            sin: shared(self.sin),
            positions: positions.as_ptr() as usize,
            style: self.style,
            shape: [heads, head_dim, pairs],
            sign,
        };
        // SAFETY: lengths and positions are checked above; tokens do not overlap.
        unsafe { for_rows(positions.len(), heads * head_dim, work) };
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Turn {
    x: Shared<f32>,
    cos: Shared<f32>,
    sin: Shared<f32>,
    /// Address of the positions.
    positions: usize,
    style: RotaryStyle,
    shape: [usize; 3],
    sign: f32,
}

impl Row for Turn {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        let [heads, head_dim, pairs] = self.shape;
        // SAFETY: `Rotary::rotate` checked lengths and positions.
        let (cos, sin, token) = unsafe {
            let position = *(self.positions as *const usize).add(row);
            let table = |t: Shared<f32>| std::slice::from_raw_parts(t.get().add(position * pairs), pairs);
            let token = self.x.get().add(row * heads * head_dim);
            let token = std::slice::from_raw_parts_mut(token, heads * head_dim);
            (table(self.cos), table(self.sin), token)
        };
        // Plain loops: the compiler vectorises them for the set that `row` is inlined into.
        for head in token.chunks_exact_mut(head_dim) {
            let head = &mut head[..2 * pairs];
            match self.style {
                RotaryStyle::Interleaved => {
                    for ((pair, &c), &s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                        let (a, b, s) = (pair[0], pair[1], self.sign * s);
                        pair[0] = a * c - b * s;
                        pair[1] = b * c + a * s;
                    }
                }
                RotaryStyle::Half => {
                    let (low, high) = head.split_at_mut(pairs);
                    for (((x, y), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                        let (a, b, s) = (*x, *y, self.sign * s);
                        *x = a * c - b * s;
                        *y = b * c + a * s;
                    }
                }
            }
        }
    }
}
