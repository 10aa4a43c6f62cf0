//! Attention from candle's operations, with a gradient on every device.

use super::attention::{CausalAttention, Heads};
use super::softmax::softmax_on;
use crate::backend::Backend;
use crate::graph::{add_frozen, recomputed3};
use candle_core::{DType, Device, Result, Tensor};

#[cfg(test)]
thread_local! {
    /// How often probabilities have been computed.
    pub(crate) static COMPUTED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Attention whose scores get a bias that says what is seen.
#[derive(Clone)]
pub(super) struct Composed {
    pub heads: Heads,
    pub soft_cap: Option<f64>,
    /// `[B, 1 or H, T, P]`, -inf where a key is not seen.
    pub bias: Tensor,
    pub backend: Backend,
}

impl Composed {
    /// q `[B, H, T, dim]`, k and v `[B, keys, P, dim]` to `[B, H, T, dim]`. The backward pass computes the probabilities
    /// again, unless it follows at `once`: then they are kept.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor, once: bool) -> Result<Tensor> {
        let this = self.clone();
        // A cache may hold another type than the queries'.
        let (k, v) = (k.to_dtype(DType::F32)?, v.to_dtype(DType::F32)?);
        if once {
            return self.mix(&self.probabilities(q, &k)?, &v);
        }
        recomputed3("attention", [q, &k, &v], move |q, k, v| this.mix(&this.probabilities(q, k)?, v))
    }

    /// q `[B, H, T, dim]` and k `[B, keys, P, dim]` to `[B, H, T, P]`.
    pub fn probabilities(&self, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        #[cfg(test)]
        COMPUTED.set(COMPUTED.get() + 1);
        let k = repeat(&k.to_dtype(DType::F32)?, self.heads.queries / self.heads.keys.max(1))?;
        let mut scores = (q.contiguous()?.matmul(&k.transpose(2, 3)?)? * self.heads.scale)?;
        if let Some(cap) = self.soft_cap {
            scores = soft_cap(&scores, cap)?;
        }
        softmax_on(self.backend, &add_frozen(&scores, &self.bias)?)
    }

    /// Probabilities `[B, H, T, P]` and v `[B, keys, P, dim]` to `[B, H, T, dim]`.
    pub fn mix(&self, probabilities: &Tensor, v: &Tensor) -> Result<Tensor> {
        let v = repeat(&v.to_dtype(DType::F32)?, self.heads.queries / self.heads.keys.max(1))?;
        probabilities.matmul(&v)
    }
}

/// x f32 to `cap tanh(x / cap)`: Gemma 2's scores and logits.
///
/// # Errors
/// A device that is out of memory.
pub fn soft_cap(x: &Tensor, cap: f64) -> Result<Tensor> {
    (x / cap)?.tanh()? * cap
}

/// `[B, keys, P, dim]` with every head `times` times in a row.
pub(super) fn repeat(x: &Tensor, times: usize) -> Result<Tensor> {
    let (b, keys, p, d) = x.dims4()?;
    if times == 1 {
        return x.contiguous();
    }
    x.unsqueeze(2)?.expand((b, keys, times, p, d))?.contiguous()?.reshape((b, keys * times, p, d))
}

/// `[B, 1, T, P]`: 0 where position t of row b sees key p, -inf elsewhere; with a linear bias, `[B, H, T, P]` and that
/// instead of 0.
pub(super) fn causal_bias(
    past: &[usize],
    [t, p]: [usize; 2],
    attention: &CausalAttention,
    mask: Option<&[u8]>,
    device: &Device,
) -> Result<Tensor> {
    let CausalAttention { heads, window, linear_bias, .. } = attention;
    let (count, scale) = (if linear_bias.is_some() { heads.queries } else { 1 }, heads.scale);
    let mut bias = vec![f32::NEG_INFINITY; past.len() * count * t * p];
    for (at, line) in bias.chunks_exact_mut(p.max(1)).enumerate() {
        let (row, head, query) = (at / (count * t), at / t % count, at % t);
        let seen = (past[row] + query + 1).min(p);
        let hidden = window.map_or(0, |width| seen.saturating_sub(width));
        for (key, value) in line.iter_mut().enumerate().take(seen).skip(hidden) {
            if mask.is_none_or(|mask| mask[row * p + key] != 0) {
                *value = linear_bias.as_ref().map_or(0.0, |bias| bias.of(head, past[row] + query, key, scale));
            }
        }
    }
    Tensor::from_vec(bias, (past.len(), count, t, p), device)
}
