//! The decoder of a plugin. Its caches and tapes are handles of the plugin's; its gradient is the plugin's as well.

mod cache;
mod call;
mod gradient;
mod taps;

use crate::component::{Component, Instance, function};
use crate::custom_op::custom_op1;
use crate::encoder::size;
use crate::memory::{Output, with_ids, with_slice, with_values};
use anyhow::{Result, bail};
use cache::PluginCache;
use call::Asked;
use candle_core::{DType, Device, Error, Shape, Tensor};
use gradient::{Gradient, Tape};
use limber_core::decoder::Taps;
use limber_core::registry::{Prepared, PreparedDecoder};
use limber_core::{CacheOptions, Decoder, DecoderCache, DecoderSpec, LogitPositions, Run, WeightSource, Weights};
use limber_plugin_abi::*;
use serde_json::Value;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use taps::Taken;

/// Prepares a decoder: settings and sizes, no weights.
pub(crate) fn prepare(
    component: &Arc<Component>,
    table: LimberDecoder,
    settings: Value,
    source: &dyn WeightSource,
) -> Result<PreparedDecoder> {
    let prepare = function!(table, prepare);
    let (settings, spec) = component.prepare_alone(settings, source, LimberDecoderSpec::empty(), prepare)?;
    let (component, sizes, given) = (component.clone(), sizes(component, &spec)?, settings.clone());
    let spec = sizes.clone();
    Ok(Prepared::new(component.kind.clone(), settings, sizes, move |weights: &Weights| {
        let instance = component.build_alone(&given, weights, function!(table, build), table.release)?;
        let built = Built { component, table, instance, spec };
        Ok(Box::new(PluginDecoder { built: Arc::new(built), device: weights.device().clone() }) as Box<dyn Decoder>)
    }))
}

fn sizes(component: &Component, spec: &LimberDecoderSpec) -> Result<DecoderSpec> {
    let Some(eos) = spec.eos.get(..spec.n_eos as usize) else {
        bail!(
            "{}: its spec says {} end-of-sequence ids, expected at most {LIMBER_MAX_EOS}",
            component.label(),
            spec.n_eos
        )
    };
    let sizes = DecoderSpec {
        width: size(component, "width", spec.width)?,
        vocab: size(component, "vocab", spec.vocab)?,
        layers: size(component, "layers", spec.layers)?,
        kv_heads: size(component, "kv_heads", spec.kv_heads)?,
        head_dim: size(component, "head_dim", spec.head_dim)?,
        context: size(component, "context", spec.context)?,
        eos: eos.to_vec(),
    };
    if let Some(bad) = eos.iter().find(|id| **id as usize >= sizes.vocab) {
        bail!(
            "{}: its spec ends texts with id {bad}, expected one of the vocabulary's 0..{}",
            component.label(),
            sizes.vocab
        )
    }
    Ok(sizes)
}

/// A built decoder, kept alive by its caches and by the graphs that hold its tapes.
pub(crate) struct Built {
    pub component: Arc<Component>,
    pub table: LimberDecoder,
    pub instance: Instance,
    pub spec: DecoderSpec,
}

impl Built {
    fn error(&self, what: &str, message: impl std::fmt::Display) -> Error {
        Error::msg(format!("{}: {what}: {message}", self.component.label()))
    }
}

struct PluginDecoder {
    built: Arc<Built>,
    device: Device,
}

impl PluginDecoder {
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
        let mut taken = Taken::new(taps, &self.device);
        let wanted = LimberTaps {
            want_hidden: u32::from(taken.taps.want_hidden),
            want_attention: u32::from(taken.taps.want_attention),
            context: (&raw mut taken).cast(),
            take: Some(taps::take),
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
                let done = built.component.call("forward", |error| unsafe { forward(instance, &call, error) });
                done.map_err(Error::msg)
            })
        })?;
        let what = if asked.logits == LogitPositions::Hidden { "hidden states" } else { "logits" };
        output.written(what, &[values]).map_err(|message| built.error("forward", message))
    }
}

impl Decoder for PluginDecoder {
    fn spec(&self) -> DecoderSpec {
        self.built.spec.clone()
    }

    fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let DecoderSpec { width, vocab, .. } = self.built.spec;
        let (b, t) = ids.dims2()?;
        let all = ids.to_device(&Device::Cpu)?.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?;
        if let Some(bad) = all.iter().find(|id| **id as usize >= vocab) {
            candle_core::bail!("id {bad} is not in 0..{vocab} of {}", self.built.component.label())
        }
        let mut output = Output::new(&[b, t, width]);
        with_ids(ids, |ids| {
            let view = output.view();
            let embed = function!(self.built.table, embed);
            let (instance, _own) = self.built.instance.enter();
            // SAFETY: all arguments live beyond the call, the instance is not yet released.
            let done = self.built.component.call("embed", |error| unsafe { embed(instance, ids, &view, error) });
            done.map_err(Error::msg)
        })?;
        output.tensor("embeddings", &[], &self.device).map_err(|message| self.built.error("embed", message))
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        let asked = Asked::new(&self.built.spec, embeds, run)?;
        let tracked = embeds.track_op() && run.cache.is_none();
        if tracked && self.built.table.vjp.is_none() {
            candle_core::bail!(
                "{} has no vector-Jacobian product: it can caption, but no stitch can be trained through it",
                self.built.component.label()
            )
        }
        let cache = match run.cache_as::<PluginCache>()? {
            None => null_mut(),
            Some(cache) => cache.handle(&self.built)?,
        };
        run.taps.hidden.clear();
        run.taps.attention.clear();
        let mut tape = Tape::new(&self.built);
        // On the CPU and contiguous with its graph, so that gradients find their way back to where they came from.
        let embeds = embeds.to_device(&Device::Cpu)?.contiguous()?;
        let output = with_values(&embeds.detach(), |values| {
            self.compute(values, &asked, cache, &mut run.taps, tracked.then_some(&mut tape))
        })?;
        taps::check(&run.taps, &asked, &self.built)?;
        if let Some(cache) = run.cache_as::<PluginCache>()? {
            let lengths: Vec<usize> = asked.lengths.iter().map(|n| *n as usize).collect();
            cache.advance(&lengths)?;
        }
        match tracked {
            true => custom_op1(&embeds, output, Gradient { tape, asked })?.to_device(&self.device),
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
