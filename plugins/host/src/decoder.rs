//! A foreign decoder. Its caches and tapes are handles of the plugin's; its gradient is the plugin's as well.

use crate::cache::PluginCache;
use crate::encoder::size;
use crate::graft::{Backward, graft1};
use crate::memory::{Output, with_bytes, with_ids, with_slice, with_values, with_view};
use crate::part::{Instance, Options, Part, function, resolved, settings_text};
use crate::source::{Lender, answer};
use anyhow::{Result, bail};
use candle_core::{DType, Device, Error, Shape, Tensor};
use limber_core::decoder::{Taps, check_context};
use limber_core::registry::{Prepared, PreparedDecoder};
use limber_core::{
    CacheOptions, Checkpointing, Decoder, DecoderCache, DecoderSpec, LogitPositions, Run, WeightSource, Weights,
};
use limber_plugin_abi::lend;
use limber_plugin_abi::*;
use serde_json::Value;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// Prepares a decoder: settings and sizes, no weights.
pub(crate) fn prepare(
    part: &Arc<Part>,
    table: LimberDecoder,
    settings: Value,
    source: &dyn WeightSource,
) -> Result<PreparedDecoder> {
    let (given, lender) = (settings_text(&settings), Lender::Source(source));
    let (lent, mut text, mut spec) = (lender.table(), None, LimberDecoderSpec::empty());
    let sink = lend::sink(&mut text);
    let function = function!(table, prepare);
    // SAFETY: all arguments live beyond the call.
    part.call("prepare", |error| unsafe {
        function(part.raw, given.as_ptr(), lent.as_ptr(), &*sink, &mut spec, error)
    })
    .map_err(anyhow::Error::msg)?;
    let (settings, spec) = (resolved(part, text, settings)?, sizes(part, &spec)?);
    let (part, given, sizes) = (part.clone(), settings_text(&settings), spec.clone());
    Ok(Prepared::new(part.kind.clone(), settings, spec, move |weights: &Weights| {
        let (lender, options) = (Lender::Weights(weights), Options::new(weights));
        let (lent, build) = (lender.table(), function!(table, build));
        // SAFETY: as above.
        let instance = part.instance(table.release, |out, error| unsafe {
            build(part.raw, given.as_ptr(), lent.as_ptr(), &options.table, out, error)
        })?;
        let built = Built { part: part.clone(), table, instance, spec: sizes };
        Ok(Box::new(Foreign { built: Arc::new(built), device: weights.device().clone() }) as Box<dyn Decoder>)
    }))
}

fn sizes(part: &Part, spec: &LimberDecoderSpec) -> Result<DecoderSpec> {
    let Some(eos) = spec.eos.get(..spec.n_eos as usize) else {
        bail!("{}: its spec says {} end-of-sequence ids, allowed is {LIMBER_MAX_EOS}", part.label(), spec.n_eos)
    };
    let sizes = DecoderSpec {
        width: size(part, "width", spec.width)?,
        vocab: size(part, "vocab", spec.vocab)?,
        layers: size(part, "layers", spec.layers)?,
        kv_heads: size(part, "kv_heads", spec.kv_heads)?,
        head_dim: size(part, "head_dim", spec.head_dim)?,
        context: size(part, "context", spec.context)?,
        eos: eos.to_vec(),
    };
    if let Some(bad) = eos.iter().find(|id| **id as usize >= sizes.vocab) {
        bail!("{}: its spec ends texts with id {bad} of {} rows", part.label(), sizes.vocab)
    }
    Ok(sizes)
}

/// A built decoder, kept alive by its caches and by the graphs that hold its tapes.
pub(crate) struct Built {
    pub part: Arc<Part>,
    pub table: LimberDecoder,
    pub instance: Instance,
    pub spec: DecoderSpec,
}

impl Built {
    fn error(&self, what: &str, message: impl std::fmt::Display) -> Error {
        Error::msg(format!("{}: {what}: {message}", self.part.label()))
    }
}

struct Foreign {
    built: Arc<Built>,
    device: Device,
}

/// What a run asks for, owned, so that a backward pass can ask again.
struct Asked {
    dims: [usize; 3],
    lengths: Vec<u64>,
    past: Option<Vec<u64>>,
    mask: Option<Tensor>,
    logits: LogitPositions,
    checkpointing: Checkpointing,
}

impl Asked {
    /// Runs `body` with the call's table, without output, cache, taps and tape.
    fn with<R>(
        &self,
        embeds: *const LimberTensor,
        body: impl FnOnce(LimberForward) -> candle_core::Result<R>,
    ) -> candle_core::Result<R> {
        let (logits, positions) = match &self.logits {
            LogitPositions::All => (LIMBER_LOGITS_ALL, Vec::new()),
            LogitPositions::Last => (LIMBER_LOGITS_LAST, Vec::new()),
            LogitPositions::Hidden => (LIMBER_LOGITS_HIDDEN, Vec::new()),
            LogitPositions::At(list) => {
                (LIMBER_LOGITS_AT, list.iter().flat_map(|(row, at)| [*row as u64, *at as u64]).collect())
            }
        };
        let call = LimberForward {
            flags: if self.checkpointing == Checkpointing::None { 0 } else { LIMBER_CALL_RECOMPUTE },
            logits,
            embeds,
            lengths: self.lengths.as_ptr(),
            past: self.past.as_ref().map_or(null(), |past| past.as_ptr()),
            positions: positions.as_ptr(),
            n_positions: positions.len() as u64 / 2,
            ..LimberForward::empty()
        };
        match &self.mask {
            None => body(call),
            Some(mask) => with_bytes(mask, |mask| body(LimberForward { mask, ..call })),
        }
    }

    /// The shape of what the run gives.
    fn output(&self, spec: &DecoderSpec) -> Vec<usize> {
        let [b, t, d] = self.dims;
        match &self.logits {
            LogitPositions::All => vec![b, t, spec.vocab],
            LogitPositions::Last => vec![b, spec.vocab],
            LogitPositions::At(list) => vec![list.len(), spec.vocab],
            LogitPositions::Hidden => vec![b, t, d],
        }
    }
}

impl Foreign {
    /// Checks a run, so that a plugin gets nothing that does not fit.
    fn asked(&self, embeds: &Tensor, run: &Run) -> candle_core::Result<Asked> {
        let DecoderSpec { width, context, .. } = self.built.spec;
        let [b, t, d] = match embeds.dims() {
            [b, t, d] if *b > 0 && *t > 0 && *d == width => [*b, *t, *d],
            other => candle_core::bail!("embeddings have shape {other:?}, allowed is [B, T, {width}]"),
        };
        let (lengths, past) = (run.row_lengths(b, t)?, run.past(b)?);
        // Padding takes positions too, as in our own decoders.
        check_context(&past, &vec![t; b], context)?;
        let keys = past.iter().max().copied().unwrap_or(0) + t;
        if let Some(cache) = &run.cache
            && keys > cache.capacity()
        {
            candle_core::bail!("{keys} positions are more than the cache holds, which is {}", cache.capacity())
        }
        if let LogitPositions::At(list) = &run.logits
            && let Some(bad) = list.iter().find(|(row, at)| *row >= b || *at >= t)
        {
            candle_core::bail!("logits asked at {bad:?}, allowed are rows 0..{b} and positions 0..{t}")
        }
        let mask = match &run.mask {
            None => None,
            Some(mask) if mask.dtype() == DType::U8 && matches!(mask.dims(), [r, k] if *r == b && *k >= keys) => {
                Some(mask.narrow(1, 0, keys)?)
            }
            Some(mask) => {
                candle_core::bail!("a mask of {:?} {:?}, allowed is u8 [{b}, {keys}]", mask.dtype(), mask.dims())
            }
        };
        let numbers = |list: Vec<usize>| list.into_iter().map(|n| n as u64).collect();
        Ok(Asked {
            dims: [b, t, d],
            lengths: numbers(lengths),
            past: run.cache.is_some().then(|| numbers(past)),
            mask,
            logits: run.logits.clone(),
            checkpointing: run.checkpointing,
        })
    }

    /// Calls `forward` over the values of `embeds`.
    fn compute(
        &self,
        values: &[f32],
        asked: &Asked,
        cache: *mut LimberCache,
        taps: &mut Taps,
        tape: Option<&mut Tape>,
    ) -> candle_core::Result<(Vec<f32>, Shape)> {
        let built = &self.built;
        let mut output = Output::new(&asked.output(&built.spec));
        let mut taken = Taken { taps, device: &self.device };
        let wanted = LimberTaps {
            want_hidden: u32::from(taken.taps.want_hidden),
            want_attention: u32::from(taken.taps.want_attention),
            context: (&raw mut taken).cast(),
            take: Some(take),
            ..LimberTaps::empty()
        };
        let any = wanted.want_hidden + wanted.want_attention > 0;
        with_slice(values, &asked.dims, |embeds| {
            asked.with(embeds, |call| {
                let view = output.view();
                let call = LimberForward {
                    output: &view,
                    cache,
                    taps: if any { &wanted } else { null() },
                    tape: tape.map_or(null_mut(), |tape| &mut tape.raw),
                    ..call
                };
                let forward = function!(built.table, forward);
                let (instance, _own) = built.instance.enter();
                // SAFETY: all arguments live beyond the call, the instance and the cache are not yet released.
                let done = built.part.call("forward", |error| unsafe { forward(instance, &call, error) });
                done.map_err(Error::msg)
            })
        })?;
        let what = if asked.logits == LogitPositions::Hidden { "hidden states" } else { "logits" };
        output.written(what, &[values]).map_err(|message| built.error("forward", message))
    }

    /// Refuses taps of other numbers or shapes than a caller may rely on.
    fn check_taps(&self, taps: &Taps, asked: &Asked) -> candle_core::Result<()> {
        let (spec, [b, t, d]) = (&self.built.spec, asked.dims);
        let keys = asked.past.as_ref().and_then(|past| past.iter().max()).map_or(0, |p| *p as usize) + t;
        let wrong = |what: &str, found: String| self.built.error("forward", format!("{what}: {found}"));
        if taps.want_hidden && taps.hidden.len() != spec.layers + 1 {
            return Err(wrong("hidden states", format!("it gives {} for {} layers", taps.hidden.len(), spec.layers)));
        }
        if taps.want_attention && taps.attention.len() != spec.layers {
            return Err(wrong("attention", format!("it gives {} for {} layers", taps.attention.len(), spec.layers)));
        }
        if let Some(bad) = taps.hidden.iter().find(|x| x.dims() != [b, t, d]) {
            return Err(wrong("hidden states", format!("shape {:?}, allowed is [{b}, {t}, {d}]", bad.dims())));
        }
        if let Some(bad) =
            taps.attention.iter().find(|x| !matches!(x.dims(), [r, _, q, k] if (*r, *q, *k) == (b, t, keys)))
        {
            return Err(wrong("attention", format!("shape {:?}, allowed is [{b}, H, {t}, {keys}]", bad.dims())));
        }
        Ok(())
    }
}

impl Decoder for Foreign {
    fn spec(&self) -> DecoderSpec {
        self.built.spec.clone()
    }

    fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let DecoderSpec { width, vocab, .. } = self.built.spec;
        let (b, t) = ids.dims2()?;
        let all = ids.to_device(&Device::Cpu)?.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?;
        if let Some(bad) = all.iter().find(|id| **id as usize >= vocab) {
            candle_core::bail!("id {bad} is not in 0..{vocab} of {}", self.built.part.label())
        }
        let mut output = Output::new(&[b, t, width]);
        with_ids(ids, |ids| {
            let view = output.view();
            let embed = function!(self.built.table, embed);
            let (instance, _own) = self.built.instance.enter();
            // SAFETY: all arguments live beyond the call, the instance is not yet released.
            let done = self.built.part.call("embed", |error| unsafe { embed(instance, ids, &view, error) });
            done.map_err(Error::msg)
        })?;
        output.tensor("embeddings", &[], &self.device).map_err(|message| self.built.error("embed", message))
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        let asked = self.asked(embeds, run)?;
        let tracked = embeds.track_op() && run.cache.is_none();
        if tracked && self.built.table.vjp.is_none() {
            candle_core::bail!(
                "{} has no vector-Jacobian product: it can caption, but no stitch can be trained through it",
                self.built.part.label()
            )
        }
        let cache = match run.cache_as::<PluginCache>()? {
            None => null_mut(),
            Some(cache) => cache.handle(&self.built)?,
        };
        run.taps.hidden.clear();
        run.taps.attention.clear();
        let mut tape = Tape { built: self.built.clone(), raw: null_mut() };
        // On the CPU and contiguous with its graph, so that gradients find their way back to where they came from.
        let embeds = embeds.to_device(&Device::Cpu)?.contiguous()?;
        let output = with_values(&embeds.detach(), |values| {
            self.compute(values, &asked, cache, &mut run.taps, tracked.then_some(&mut tape))
        })?;
        self.check_taps(&run.taps, &asked)?;
        if let Some(cache) = run.cache_as::<PluginCache>()? {
            let lengths: Vec<usize> = asked.lengths.iter().map(|n| *n as usize).collect();
            cache.advance(&lengths)?;
        }
        match tracked {
            true => graft1(&embeds, output, Gradient { tape, asked })?.to_device(&self.device),
            false => Tensor::from_vec(output.0, output.1, &self.device),
        }
    }

    fn new_cache(&self, options: &CacheOptions) -> candle_core::Result<Box<dyn DecoderCache>> {
        Ok(Box::new(PluginCache::new(&self.built, options)?))
    }

    fn supports_prefix_reuse(&self, positions: usize) -> bool {
        let Some(function) = self.built.table.begins_alike else { return true };
        let (instance, _own) = self.built.instance.enter();
        // SAFETY: the instance is not yet released.
        unsafe { function(instance, positions as u64) != 0 }
    }
}

/// Where taps are put.
struct Taken<'a> {
    taps: &'a mut Taps,
    device: &'a Device,
}

unsafe extern "C" fn take(
    context: *mut c_void,
    tap: u32,
    tensor: *const LimberTensor,
    error: *const LimberSink,
) -> LimberStatus {
    // SAFETY: the context is the `Taken` of the call that runs, the tensor a view as the ABI says.
    unsafe {
        answer(error, || {
            let taken = context.cast::<Taken>().as_mut().ok_or("the context is null")?;
            let view = read(tensor).map_err(|e| e.to_string())?;
            let dims = view.check(F32)?;
            let n = dims.iter().product();
            let values = if n == 0 { &[][..] } else { std::slice::from_raw_parts(view.data.cast::<f32>(), n) };
            let tensor = Tensor::from_slice(values, dims, taken.device).map_err(|e| e.to_string())?;
            match tap {
                LIMBER_TAP_HIDDEN => taken.taps.hidden.push(tensor),
                LIMBER_TAP_ATTENTION => taken.taps.attention.push(tensor),
                other => return Err(format!("a tap of kind {other}")),
            }
            Ok(())
        })
    }
}

/// What a forward call kept for its gradient; null where it kept nothing.
struct Tape {
    built: Arc<Built>,
    raw: *mut LimberTape,
}

// SAFETY: tapes may be used from any thread, one at a time, as the ABI says.
unsafe impl Send for Tape {}
// SAFETY: as above; `vjp` takes the instance's lock where the part is not concurrent, and does not change a tape.
unsafe impl Sync for Tape {}

impl Drop for Tape {
    fn drop(&mut self) {
        if let (false, Some(release)) = (self.raw.is_null(), self.built.table.tape_release) {
            let (_, _own) = self.built.instance.enter();
            // SAFETY: called once, and nothing uses the tape any more.
            unsafe { release(self.raw) };
        }
    }
}

struct Gradient {
    tape: Tape,
    asked: Asked,
}

impl Backward for Gradient {
    const NAME: &'static str = "foreign-decoder";

    fn backward(&self, inputs: &[&Tensor], gradient: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
        let built = &self.tape.built;
        let Some(vjp) = built.table.vjp else {
            candle_core::bail!("{} has no vector-Jacobian product", built.part.label())
        };
        let embeds = inputs[0];
        let mut output = Output::new(embeds.dims());
        let gradients = with_values(gradient, |values| {
            with_view(embeds, |embeds| {
                with_slice(values, gradient.dims(), |gradient| {
                    self.asked.with(embeds, |call| {
                        let view = output.view();
                        let (instance, _own) = built.instance.enter();
                        // SAFETY: all arguments live beyond the call; instance and tape are not yet released.
                        let done = built.part.call("vector-Jacobian product", |error| unsafe {
                            vjp(instance, &call, self.tape.raw, gradient, &view, error)
                        });
                        done.map_err(Error::msg)
                    })
                })
            })?;
            let gradients = output.tensor("gradients", &[values], &Device::Cpu);
            gradients.map_err(|message| built.error("vector-Jacobian product", message))
        })?;
        Ok(vec![Some(gradients)])
    }
}
