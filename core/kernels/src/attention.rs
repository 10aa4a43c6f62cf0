//! Causal and full attention of new queries against a cache, ragged over the batch.
//!
//! One query (decoding) reads keys and values where they lie; many queries go by blocks
//! through the same packed matrix product as the linear layers. Softmax subtracts the row's
//! maximum; a row that sees nothing gives zeros.

use crate::attention_block::Task;
use crate::isa::{Level, dispatch};
use crate::parallel::{self, Shared};
use crate::weight::{ShapeError, check_len};
use half::{bf16, f16};

/// Cached numbers in the type they are kept in.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// IEEE half floats.
    F16(&'a [f16]),
    /// Upper halves of 32-bit floats.
    Bf16(&'a [bf16]),
}

impl Values<'_> {
    fn name(&self) -> &'static str {
        match self {
            Values::F32(_) => "f32",
            Values::F16(_) => "f16",
            Values::Bf16(_) => "bf16",
        }
    }

    fn len(&self) -> usize {
        match self {
            Values::F32(v) => v.len(),
            Values::F16(v) => v.len(),
            Values::Bf16(v) => v.len(),
        }
    }
}

/// A tensor `[B, heads, positions, head_dim]` with any strides but 1 for the last.
#[derive(Clone, Copy, Debug)]
pub struct Heads<D> {
    /// The numbers: `&[f32]` for queries, [`Values`] for keys and values.
    pub data: D,
    /// Elements from one batch row, head and position to the next.
    pub strides: [usize; 3],
}

/// The keys that a query sees.
#[derive(Clone, Copy, Debug)]
pub enum Visible<'a> {
    /// Query t of row b sees keys `0 ..= past[b] + t`, `past` keys having been there before.
    Causal(&'a [usize]),
    /// As `Causal`, but of those keys the last few alone: a sliding window of so many keys, the query's own included.
    Window(&'a [usize], usize),
    /// Every query of row b sees keys `0 .. keys[b]`.
    All(&'a [usize]),
}

/// Numbers added to the scaled scores.
#[derive(Clone, Copy, Debug)]
pub enum ScoreBias<'a> {
    /// One for each score, `[B, H, T, P]`; rows over P are contiguous.
    Each {
        /// The numbers.
        data: &'a [f32],
        /// Elements from one batch row, head and query to the next; may be zero.
        strides: [usize; 3],
    },
    /// One for each distance on a grid.
    Grid(GridBias<'a>),
}

/// Numbers by where a key lies from its query: a leading token, then g x g places, row-major, T = P = 1 + g².
#[derive(Clone, Copy, Debug)]
pub struct GridBias<'a> {
    /// `[H, (2 g - 1)² + 3]`: of the key that lies `down` below and `right` beside its query at
    /// `(g - 1 + down) (2 g - 1) + g - 1 + right`; then of the leading token with any place, of a place with the leading
    /// token, and of that with itself.
    pub tables: &'a [f32],
    /// g.
    pub grid: usize,
}

impl GridBias<'_> {
    /// Numbers of a head's table before the last three.
    fn distances(&self) -> usize {
        (2 * self.grid).saturating_sub(1).pow(2)
    }

    /// Adds the numbers of query `t` of `head` to the scores of all its keys.
    #[inline(always)]
    pub(crate) fn add(&self, head: usize, t: usize, scores: &mut [f32]) {
        let (g, distances) = (self.grid, self.distances());
        let table = &self.tables[head * (distances + 3)..][..distances + 3];
        let (table, ends) = table.split_at(distances);
        let &[from_leading, to_leading, itself] = ends else { return };
        let Some((leading, places)) = scores.split_first_mut() else { return };
        let Some(place) = t.checked_sub(1) else {
            *leading += itself;
            places.iter_mut().for_each(|score| *score += from_leading);
            return;
        };
        *leading += to_leading;
        // Keys of one row of the grid lie beside each other in the table too.
        let first = (g - 1 - place / g) * (2 * g - 1) + g - 1 - place % g;
        for (row, scores) in places.chunks_exact_mut(g).enumerate() {
            let numbers = &table[first + row * (2 * g - 1)..][..g];
            scores.iter_mut().zip(numbers).for_each(|(score, number)| *score += number);
        }
    }
}

/// Attention of `T` new queries a row: `softmax(scale q k^T + bias) v`.
///
/// Heads beyond the key-value heads share them in order: head h reads head h / (H / Hkv).
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Queries `[B, H, T, head_dim]`, f32.
    pub q: Heads<&'a [f32]>,
    /// Keys `[B, Hkv, P, head_dim]`.
    pub k: Heads<Values<'a>>,
    /// Values `[B, Hkv, P, head_dim]`, of the keys' type.
    pub v: Heads<Values<'a>>,
    /// B.
    pub batch: usize,
    /// H.
    pub heads: usize,
    /// Hkv, a divisor of H.
    pub kv_heads: usize,
    /// T.
    pub queries: usize,
    /// P: positions of mask, bias and probabilities; no query sees more.
    pub positions: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Multiplies the scores, `1 / sqrt(head_dim)` mostly.
    pub scale: f32,
    /// Which keys count.
    pub visible: Visible<'a>,
    /// Further keys to leave out: zeros in `[B, P]`.
    pub mask: Option<&'a [u8]>,
    /// Added to the scores.
    pub bias: Option<ScoreBias<'a>>,
}

impl Attention<'_> {
    /// Writes `out [B, T, H, head_dim]`, and the probabilities `[B, H, T, P]` where wanted.
    ///
    /// Runs on the current rayon pool, one piece of work a head and block of queries.
    ///
    /// # Errors
    ///
    /// Where sizes do not fit together.
    pub fn run(&self, out: &mut [f32], probabilities: Option<&mut [f32]>) -> Result<(), ShapeError> {
        let (b, h, t) = (self.batch, self.heads, self.queries);
        check_len("out", &[b, t, h, self.head_dim], out.len())?;
        if let Some(p) = &probabilities {
            check_len("probabilities", &[b, h, t, self.positions], p.len())?;
        }
        self.check()?;
        if out.is_empty() {
            return Ok(());
        }
        let block = self.block();
        let blocks = t.div_ceil(block);
        let level = Level::current();
        let out = Shared(out.as_mut_ptr());
        let probabilities = probabilities.map(|p| Shared(p.as_mut_ptr()));
        parallel::for_each(b * h * blocks, |i| {
            // Later blocks see more keys: they come first, so that no long one ends the queue.
            let block_index = blocks - 1 - i % blocks;
            let from = block_index * block;
            let task = Task {
                attention: self,
                batch: i / blocks / h,
                head: i / blocks % h,
                queries: (from, (from + block).min(t)),
                out: out.get(),
                probabilities: probabilities.map(|p| p.get()),
            };
            // SAFETY: sizes are checked above; tasks write to their own head and queries.
            unsafe { dispatch(level, task) };
        });
        Ok(())
    }

    /// Keys that query `t` of batch row `b` sees, before the mask.
    pub(crate) fn seen(&self, b: usize, t: usize) -> usize {
        match self.visible {
            Visible::Causal(past) | Visible::Window(past, _) => past[b] + t + 1,
            Visible::All(keys) => keys[b],
        }
    }

    /// Keys before the first that query `t` of batch row `b` sees.
    pub(crate) fn hidden(&self, b: usize, t: usize) -> usize {
        match self.visible {
            Visible::Window(_, width) => self.seen(b, t).saturating_sub(width),
            Visible::Causal(_) | Visible::All(_) => 0,
        }
    }

    /// Queries of a block: its scores stay in the second-level cache.
    pub(crate) fn block(&self) -> usize {
        ((1 << 16) / self.positions.max(1)).clamp(16, 64).min(self.queries)
    }

    /// Checks what does not concern the numbers themselves; the most keys that a query sees.
    pub(crate) fn check_counts(&self) -> Result<usize, ShapeError> {
        let (b, p) = (self.batch, self.positions);
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            let allowed = "a divisor of the number of heads";
            return Err(ShapeError::Size { what: "kv_heads", found: self.kv_heads, allowed });
        }
        let counts = match self.visible {
            Visible::Causal(past) | Visible::Window(past, _) => past,
            Visible::All(keys) => keys,
        };
        if let Visible::Window(_, 0) = self.visible {
            return Err(ShapeError::Size { what: "window", found: 0, allowed: "1 or above" });
        }
        check_len("visible", &[b], counts.len())?;
        let last = self.queries.saturating_sub(1);
        let most = (0..b).map(|b| self.seen(b, last)).max().unwrap_or(0);
        if self.queries > 0 && most > p {
            let allowed = "at most the positions of keys and values";
            return Err(ShapeError::Size { what: "number of visible keys", found: most, allowed });
        }
        if let Some(mask) = self.mask {
            check_len("mask", &[b, p], mask.len())?;
        }
        Ok(most)
    }

    fn check(&self) -> Result<(), ShapeError> {
        let (b, most) = (self.batch, self.check_counts()?);
        if std::mem::discriminant(&self.k.data) != std::mem::discriminant(&self.v.data) {
            let (keys, values) = (self.k.data.name(), self.v.data.name());
            return Err(ShapeError::Type { what: "values", found: values, expected: keys });
        }
        let dh = self.head_dim;
        let (q, k, v) = (&self.q, &self.k, &self.v);
        reach("q", &[b, self.heads, self.queries, dh], &q.strides, q.data.len())?;
        reach("k", &[b, self.kv_heads, most, dh], &k.strides, k.data.len())?;
        reach("v", &[b, self.kv_heads, most, dh], &v.strides, v.data.len())?;
        match self.bias {
            Some(ScoreBias::Each { data, strides }) => {
                reach("bias", &[b, self.heads, self.queries, most], &strides, data.len())?;
            }
            Some(ScoreBias::Grid(bias)) => {
                check_len("bias tables", &[self.heads, bias.distances() + 3], bias.tables.len())?;
                let tokens = 1 + bias.grid * bias.grid;
                let whole = matches!(self.visible, Visible::All(keys) if keys.iter().all(|keys| *keys == tokens));
                if self.queries != tokens || !whole {
                    let allowed = "all queries and keys of the bias's grid, and the leading token";
                    return Err(ShapeError::Size {
                        what: "queries of a biased attention",
                        found: self.queries,
                        allowed,
                    });
                }
            }
            None => {}
        }
        Ok(())
    }
}

/// Checks that a strided tensor, contiguous in its last dimension, lies within `len`.
fn reach(what: &'static str, shape: &[usize; 4], strides: &[usize; 3], len: usize) -> Result<(), ShapeError> {
    if shape.contains(&0) {
        return Ok(());
    }
    let last: usize = shape.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum();
    let expected = last + shape[3];
    if expected <= len {
        return Ok(());
    }
    Err(ShapeError::Length { what, shape: shape.to_vec(), expected, found: len })
}
