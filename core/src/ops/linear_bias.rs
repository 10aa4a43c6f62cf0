//! ALiBi: what scores get for the position of their key, instead of positions in the hidden states.
//!
//! Sources followed: Press et al., arXiv 2108.12409; transformers' `build_alibi_tensor` in `modeling_falcon.py` and
//! `build_mpt_alibi_tensor` in `modeling_mpt.py`.

use super::attention_kernel::Added;
use candle_core::Result;
use limber_kernels::bf16;
use std::sync::Arc;

/// A bias of scores that is linear in the position of the key, with one slope a query head.
#[derive(Debug, Clone, PartialEq)]
pub enum LinearBias {
    /// The slope times the distance of the key is taken off: MPT.
    Distance(Arc<[f32]>),
    /// The slope times the position of the key, counted from 0, is added to the product before it is scaled; slope,
    /// position and their product are rounded to bf16: Falcon.
    RoundedPosition(Arc<[f32]>),
}

impl LinearBias {
    fn slopes(&self) -> &Arc<[f32]> {
        match self {
            Self::Distance(slopes) | Self::RoundedPosition(slopes) => slopes,
        }
    }

    /// # Errors
    /// Another number of slopes than of heads.
    pub(super) fn check(&self, heads: usize) -> Result<()> {
        match self.slopes().len() {
            slopes if slopes == heads => Ok(()),
            slopes => candle_core::bail!("{slopes} slopes of a linear bias for {heads} heads"),
        }
    }

    /// What the score of the query at `query` for the key at `key` gets in `head`.
    pub(super) fn of(&self, head: usize, query: usize, key: usize, scale: f64) -> f32 {
        match self {
            Self::Distance(slopes) => -slopes[head] * (query - key) as f32,
            Self::RoundedPosition(slopes) => rounded(slopes[head], key, scale),
        }
    }

    /// The same for the kernels, of `keys` keys.
    pub(super) fn added(&self, keys: usize, scale: f64) -> Added {
        match self {
            Self::Distance(slopes) => Added::Slopes(slopes.clone()),
            Self::RoundedPosition(slopes) => {
                let of = |slope: &f32| {
                    let slope = *slope;
                    (0..keys).map(move |key| rounded(slope, key, scale))
                };
                Added::Keys(slopes.iter().flat_map(of).collect())
            }
        }
    }
}

fn rounded(slope: f32, key: usize, scale: f64) -> f32 {
    let round = |x: f32| bf16::from_f32(x).to_f32();
    (f64::from(round(round(slope) * round(key as f32))) * scale) as f32
}

/// The slopes for `heads` heads: 2^(-8 i / n) for the n heads of the next smaller power of two, then every other slope of
/// twice as many.
pub fn alibi_slopes(heads: usize) -> Arc<[f32]> {
    let n = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    slopes(n).chain(slopes(2 * n.max(1)).step_by(2)).take(heads).collect()
}

/// MPT's slopes for `heads` heads: those of the next larger power of two, every other one first.
pub fn mpt_slopes(heads: usize) -> Arc<[f32]> {
    let n = heads.next_power_of_two();
    if n == heads {
        return slopes(n).collect();
    }
    slopes(n).skip(1).step_by(2).chain(slopes(n).step_by(2)).take(heads).collect()
}

/// 2^(-8 i / n) for i from 1 to n.
fn slopes(n: usize) -> impl Iterator<Item = f32> {
    (1..=n).map(move |i| (-8.0 * i as f64 / n as f64).exp2() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transformers' `build_alibi_tensor` and `build_mpt_alibi_tensor`.
    #[test]
    fn slopes_are_transformers() {
        assert_eq!(*alibi_slopes(4), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(*alibi_slopes(3), [0.0625, 0.003_906_25, 0.25]);
        assert_eq!(*alibi_slopes(1), [0.003_906_25]);
        assert_eq!(*mpt_slopes(4), *alibi_slopes(4));
        assert_eq!(*mpt_slopes(3), [0.0625, 0.003_906_25, 0.25]);
        assert_eq!(*mpt_slopes(6), [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125]);
    }

    #[test]
    fn positions_are_rounded_as_falcons() {
        let bias = LinearBias::RoundedPosition([0.707_106_77].into());
        // In bf16: 0.70703125; 3 times that 2.125, 257 is 256 and times that 181.
        assert_eq!([0, 3, 257].map(|key| bias.of(0, 300, key, 0.5)), [0.0, 1.0625, 90.5]);
        let Added::Keys(keys) = bias.added(4, 0.5) else { panic!("not a number a key") };
        assert_eq!(keys, [0, 1, 2, 3].map(|key| bias.of(0, 5, key, 0.5)));
        assert_eq!(LinearBias::Distance([0.25].into()).of(0, 5, 2, 0.5), -0.75);
        let message = bias.check(2).unwrap_err().to_string();
        assert!(message.starts_with("1 slopes of a linear bias for 2 heads"), "{message}");
    }
}
