//! Causal and full attention of new queries against a cache, ragged over the batch.
//!
//! One query (decoding) reads keys and values where they lie; many queries go by blocks
//! through the same packed matrix product as the linear layers. Softmax subtracts the row's
//! maximum; a row that sees nothing gives zeros.

use crate::attention_block::Task;
use crate::isa::{Level, dispatch};
use crate::parallel::{self, Shared};
use crate::shape::{ShapeError, check_len, check_reach, elements};
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
    /// One slope for each head, `[H]`, which multiplies the distance of a key and is taken off: ALiBi, causal alone.
    Slopes(&'a [f32]),
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
    ///
    /// [`GridBias::check`] has seen that they can be counted.
    fn distances(&self) -> usize {
        (2 * self.grid).saturating_sub(1).pow(2)
    }

    /// Checks the length of the tables; the tokens of a grid with the leading one.
    fn check(&self, heads: usize) -> Result<usize, ShapeError> {
        let what = "bias tables";
        // Distances are below 4 g^2.
        elements(what, &[4, self.grid, self.grid])?;
        check_len(what, &[heads, self.distances() + 3], self.tables.len())?;
        Ok(1 + self.grid * self.grid)
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

/// Attention of `T` new queries a row: `softmax(cap(scale q k^T) + bias) v`.
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
    /// c where scaled scores s become c tanh(s / c), above 0.
    pub soft_cap: Option<f32>,
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
    ///
    /// [`Attention::check_counts`] has seen that they can be counted.
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
        check_heads(self.heads, self.kv_heads)?;
        let counts = match self.visible {
            Visible::Causal(past) | Visible::Window(past, _) => past,
            Visible::All(keys) => keys,
        };
        if let Visible::Window(_, 0) = self.visible {
            return Err(ShapeError::Size { what: "window", found: 0, allowed: "1 or above" });
        }
        check_len("visible", &[b], counts.len())?;
        if let Some(mask) = self.mask {
            check_len("mask", &[b, p], mask.len())?;
        }
        if self.queries == 0 {
            return Ok(0);
        }
        // No query of a row sees more than its last one.
        let new = if let Visible::All(_) = self.visible { 0 } else { self.queries };
        let most = counts.iter().map(|count| count.saturating_add(new)).max().unwrap_or(0);
        if most > p {
            let allowed = "at most the positions of keys and values";
            return Err(ShapeError::Size { what: "number of visible keys", found: most, allowed });
        }
        // Keys that lie a stride of 0 apart may be more than any memory holds; a block's scores are held, and packed.
        elements("block of scores", &[2, self.block(), most])?;
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
        check_reach("q", &[b, self.heads, self.queries, dh], &q.strides, q.data.len())?;
        check_reach("k", &[b, self.kv_heads, most, dh], &k.strides, k.data.len())?;
        check_reach("v", &[b, self.kv_heads, most, dh], &v.strides, v.data.len())?;
        self.check_bias(most)
    }

    /// Checks the bias of queries that see `most` keys at most.
    pub(crate) fn check_bias(&self, most: usize) -> Result<(), ShapeError> {
        match self.bias {
            Some(ScoreBias::Each { data, strides }) => {
                check_reach("bias", &[self.batch, self.heads, self.queries, most], &strides, data.len())?;
            }
            Some(ScoreBias::Slopes(slopes)) => {
                check_len("slopes", &[self.heads], slopes.len())?;
                if let Visible::All(_) = self.visible {
                    let allowed = "0 where every query sees every key";
                    return Err(ShapeError::Size { what: "number of slopes", found: slopes.len(), allowed });
                }
            }
            Some(ScoreBias::Grid(bias)) => {
                let tokens = bias.check(self.heads)?;
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

/// Checks that heads share key-value heads evenly.
pub(crate) fn check_heads(heads: usize, kv_heads: usize) -> Result<(), ShapeError> {
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        let allowed = "a divisor of the number of heads";
        return Err(ShapeError::Size { what: "kv_heads", found: kv_heads, allowed });
    }
    Ok(())
}
