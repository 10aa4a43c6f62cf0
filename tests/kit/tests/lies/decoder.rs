//! A toy decoder: an embedding, one attention, a head, and its lies.

use super::{caught, honest, parse};
use candle_core::{Result, Tensor};
use limber_core::decoder::{check_context, select_positions};
use limber_core::ops::{Heads, attend};
use limber_core::registry::{Entry, Maker, Prepared};
use limber_core::{Decoder, DecoderSpec, FrozenEmbedding, FrozenLinear, Init, KvCache, LogitPositions, Run};
use limber_kit::check_entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const D: usize = 8;
const V: usize = 19;
const CONTEXT: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    Width,
    Eos,
    EmbedShape,
    AnyId,
    LogitShape,
    LastOfPadded,
    Batch,
    Draws,
    SeesLater,
    SeesNoEarlier,
    IgnoresMask,
    NoTaps,
    CutInput,
    HalfGradient,
    CutAttention,
    LongContext,
    CacheOff,
    CacheCounts,
    AnyShape,
    Panics,
}

struct Toy {
    lie: Lie,
    words: FrozenEmbedding,
    value: FrozenLinear,
    head: FrozenLinear,
    calls: AtomicUsize,
}

fn spec(lie: Lie) -> DecoderSpec {
    let eos = vec![if lie == Lie::Eos { V as u32 } else { 18 }];
    DecoderSpec { width: D, vocab: V, layers: 1, kv_heads: 1, head_dim: D, context: CONTEXT, eos }
}

impl Decoder for Toy {
    fn spec(&self) -> DecoderSpec {
        DecoderSpec { width: if self.lie == Lie::Width { D + 1 } else { D }, ..spec(self.lie) }
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        match self.lie {
            Lie::Panics => panic!("no embeddings today"),
            Lie::AnyId => self.words.forward(&ids.minimum(V as u32 - 1)?),
            Lie::EmbedShape => self.words.forward(ids)?.unsqueeze(0),
            _ => self.words.forward(ids),
        }
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> Result<Tensor> {
        let embeds = match (self.lie, embeds.dims()) {
            (Lie::AnyShape, [b, t, d]) if *d > D => &embeds.narrow(2, 0, D)?.reshape((*b, *t, D))?,
            _ => embeds,
        };
        let (b, t, d) = embeds.dims3()?;
        if d != D || t == 0 {
            candle_core::bail!("embeddings of shape {:?}", embeds.dims())
        }
        let (lengths, past) = (run.sequence_lengths(b, t)?, run.past(b)?);
        if self.lie != Lie::LongContext {
            check_context(&past, &vec![t; b], CONTEXT)?;
        }
        if self.lie == Lie::IgnoresMask {
            run.mask = None;
        }
        let x = match self.lie {
            Lie::CutInput => embeds.detach(),
            Lie::HalfGradient => ((embeds + embeds.detach())? * 0.5)?,
            _ => embeds.clone(),
        };
        let cached = run.cache.is_some();
        let split = |x: &Tensor| x.reshape((b, t, 1, D));
        let heads = Heads { queries: 1, keys: 1, dim: D, scale: 0.3 };
        let mut seen = attend(0, &split(&x)?, &split(&x)?, &split(&self.value.forward(&x)?)?, heads, run)?;
        match self.lie {
            Lie::CutAttention => seen = seen.detach(),
            Lie::SeesNoEarlier => seen = (seen * 0.0)?,
            Lie::SeesLater => seen = seen.broadcast_add(&x.mean_keepdim(1)?)?,
            Lie::Batch => seen = seen.broadcast_add(&x.mean_keepdim(0)?)?,
            Lie::CacheOff if cached => seen = (seen * 1.01)?,
            Lie::Draws => seen = (seen + self.calls.fetch_add(1, Ordering::Relaxed) as f64)?,
            _ => {}
        }
        let y = (&x + seen)?;
        if let Some(cache) = run.cache_as::<KvCache>()? {
            cache.advance(&if self.lie == Lie::CacheCounts { vec![t; b] } else { lengths.clone() })?;
        }
        if run.taps.want_hidden && self.lie != Lie::NoTaps {
            run.taps.hidden = vec![x, y.clone()];
        }
        let lengths = if self.lie == Lie::LastOfPadded { vec![t; b] } else { lengths };
        let y = select_positions(&y, &run.logits, &lengths)?;
        match (self.lie, &run.logits) {
            (_, LogitPositions::Hidden) => Ok(y),
            (Lie::LogitShape, _) => self.head.forward(&y)?.unsqueeze(0),
            _ => self.head.forward(&y),
        }
    }
}

fn entry(lie: Lie) -> Entry {
    super::entry(Maker::Decoder(Arc::new(move |settings, _| {
        Ok(Prepared::new("toy", parse(settings, true)?, spec(lie), move |weights| {
            let init = Init::normal(0.5);
            let words = weights.pp("words").embedding(V, D, init)?;
            let value = weights.pp("value").linear(D, D, init, None)?;
            let head = weights.pp("head").linear(D, V, init, None)?;
            Ok(Box::new(Toy { lie, words, value, head, calls: AtomicUsize::new(0) }) as Box<dyn Decoder>)
        }))
    })))
}

#[test]
fn an_honest_decoder_passes() {
    honest(&entry(Lie::None));
}

#[test]
fn every_lie_is_caught() {
    let check = |lie, name, reason| caught(&check_entry(&entry(lie)), name, reason);
    check(Lie::Width, "the spec is sound", "width: 9");
    check(Lie::Eos, "the spec is sound", "[19]");
    check(Lie::EmbedShape, "embeddings have the shape", "[1, 2, 6, 8]");
    check(Lie::AnyId, "outside the vocabulary", "id 19 of 19 was accepted");
    check(Lie::LogitShape, "logits have the shape", "[1, 2, 6, 19]");
    check(Lie::LastOfPadded, "logits have the shape", "last of a row of 2");
    check(Lie::Batch, "a batch gives", "row 0");
    check(Lie::Draws, "same embeddings", "second call");
    check(Lie::SeesLater, "no later one", "before the changed position");
    check(Lie::SeesNoEarlier, "sees earlier", "position 4 does not see");
    check(Lie::IgnoresMask, "mask hides is not seen", "position 1 hidden");
    check(Lie::NoTaps, "taps", "0 hidden states for 1 layers");
    check(Lie::CutInput, "reaches the embeddings", "no gradient reaches");
    check(Lie::HalfGradient, "reaches the embeddings", "finite differences give");
    check(Lie::CutAttention, "equals finite differences", "finite differences give");
    check(Lie::CutAttention, "earlier positions", "earlier embeddings is 0 everywhere");
    check(Lie::LongContext, "context length", "17 positions was accepted");
    check(Lie::CacheOff, "step by step", "positions from 0 on");
    check(Lie::CacheCounts, "different lengths", "the cache holds [4, 4, 4]");
    check(Lie::AnyShape, "another shape", "[1, 6, 9] was accepted");
    check(Lie::Panics, "embeddings have the shape", "panicked: no embeddings today");
}
