//! Learned positions of a square grid of patches, resized to another grid as PyTorch's bicubic `interpolate` does it.
//!
//! Sources followed: PyTorch's `UpSampleKernel.cpp` with `align_corners=False` (Keys' cubic with a = -3/4; with antialias
//! a = -1/2 over a support that grows as the grid shrinks) and transformers' `interpolate_pos_encoding`.

use candle_core::{Result, Tensor};

/// How positions are resized.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bicubic {
    /// Whether the filter widens where the grid shrinks.
    pub antialias: bool,
    /// What is added to the new side before the scale is computed. DINO's own code adds 0.1 and hands `interpolate` a
    /// scale; transformers hands it a size, which is 0 here.
    pub offset: f64,
}

impl Bicubic {
    /// Positions `[M*M, E]` f32 of an M x M grid, as `[G*G, E]` of a G x G one; both row-major.
    ///
    /// # Errors
    /// Positions that are no square, or a side G of zero.
    pub fn resize(&self, positions: &Tensor, side: usize) -> Result<Tensor> {
        let (n, e) = positions.dims2()?;
        let m = n.isqrt();
        if m * m != n || n == 0 || side == 0 {
            candle_core::bail!("{n} positions cannot be resized to {side} x {side}: they are no square grid")
        }
        if m == side {
            return Ok(positions.clone());
        }
        let axis = Tensor::from_vec(self.axis(m, side), (side, m), positions.device())?;
        // Every pass resizes the first axis and puts it second, so that two of them resize both and restore the order.
        let pass = |x: &Tensor, across: usize| -> Result<Tensor> {
            let y = axis.matmul(&x.reshape((m, across * e))?)?;
            y.reshape((side, across, e))?.transpose(0, 1)?.contiguous()
        };
        pass(&pass(positions, m)?, side)?.reshape((side * side, e))
    }

    /// The weights `[to, from]` of the old positions in each new one, in f32 as PyTorch computes them.
    fn axis(&self, from: usize, to: usize) -> Vec<f32> {
        let scale = match self.offset {
            0.0 => from as f32 / to as f32,
            offset => (1.0 / ((to as f64 + offset) / from as f64)) as f32,
        };
        let mut weights = vec![0.0; to * from];
        for (i, row) in weights.chunks_exact_mut(from).enumerate() {
            let centre = scale * (i as f32 + 0.5);
            if self.antialias {
                widened(row, centre, scale);
            } else {
                let at = centre - 0.5;
                let first = at.floor();
                for tap in -1..=2i64 {
                    let index = (first as i64 + tap).clamp(0, from as i64 - 1) as usize;
                    row[index] += cubic(at - first - tap as f32, -0.75);
                }
            }
        }
        weights
    }
}

/// The weights around `centre`, which add up to 1.
fn widened(row: &mut [f32], centre: f32, scale: f32) {
    let widening = scale.max(1.0);
    let support = 2.0 * widening;
    let first = (centre - support + 0.5).max(0.0) as usize;
    let last = ((centre + support + 0.5) as usize).min(row.len());
    let inverse = 1.0 / widening;
    for (index, weight) in row.iter_mut().enumerate().take(last).skip(first) {
        *weight = cubic((index as f32 - centre + 0.5) * inverse, -0.5);
    }
    let total: f32 = row.iter().sum();
    row.iter_mut().for_each(|weight| *weight /= total);
}

/// Keys' cubic convolution of parameter `a`.
fn cubic(x: f32, a: f32) -> f32 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    const KINDS: [Bicubic; 4] = [
        Bicubic { antialias: false, offset: 0.0 },
        Bicubic { antialias: true, offset: 0.0 },
        Bicubic { antialias: false, offset: 0.1 },
        Bicubic { antialias: true, offset: 0.1 },
    ];

    #[test]
    fn weights_of_a_position_add_up_to_one() {
        for kind in KINDS {
            for (from, to) in [(37, 16), (16, 37), (4, 3), (3, 5), (1, 4), (5, 1)] {
                for row in kind.axis(from, to).chunks_exact(from) {
                    let total: f32 = row.iter().sum();
                    // Four to ten terms in f32.
                    assert!((total - 1.0).abs() < 1e-5, "{kind:?} {from} -> {to}: {total}");
                }
            }
        }
    }

    #[test]
    fn the_same_grid_is_left_alone() {
        let positions = Tensor::arange(0f32, 18.0, &Device::Cpu).unwrap().reshape((9, 2)).unwrap();
        for kind in KINDS {
            let same = kind.resize(&positions, 3).unwrap();
            assert_eq!(same.to_vec2::<f32>().unwrap(), positions.to_vec2::<f32>().unwrap());
        }
    }

    #[test]
    fn rows_and_columns_keep_their_positions() {
        // A value that grows down the rows alone, and one that grows along the columns alone.
        let values: Vec<f32> = (0..16).flat_map(|at| [(at / 4) as f32, (at % 4) as f32]).collect();
        let positions = Tensor::from_vec(values, (16, 2), &Device::Cpu).unwrap();
        for kind in KINDS {
            let resized = kind.resize(&positions, 6).unwrap().to_vec2::<f32>().unwrap();
            for y in 0..6 {
                for x in 0..6 {
                    let [down, along] = [resized[y * 6 + x][0], resized[y * 6 + x][1]];
                    let across = resized[x * 6 + y][1];
                    assert!((down - across).abs() < 1e-6, "{kind:?} {y} {x}: {down} {across}");
                    assert!(x == 0 || along > resized[y * 6 + x - 1][1], "{kind:?} {y} {x}");
                }
            }
        }
    }

    #[test]
    fn no_square_is_an_error() {
        let positions = Tensor::zeros((8, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let message = Bicubic::default().resize(&positions, 3).unwrap_err().to_string();
        assert!(message.contains("8 positions cannot be resized to 3 x 3"), "{message}");
    }
}
