//! The functions of a decoder.

use crate::cache::{self, Cache};
use crate::call::{guard, numbers};
use crate::export::{handle, release};
use crate::role::{self, Functions, Role};
use crate::tensor::{f32_tensor, fill, ids_tensor, u8_tensor, with_view};
use anyhow::{Context, Result, anyhow, bail};
use candle_core::{Tensor, Var};
use limber_core::registry::{Maker, PrepareFn};
use limber_core::{Checkpointing, Decoder, DecoderCache, DecoderSpec, LogitPositions, Run};
use limber_plugin_abi::*;

/// The table.
pub(crate) fn table() -> LimberDecoder {
    let Functions { prepare, build, release: release_instance } = role::functions::<Decoders>();
    LimberDecoder {
        prepare: Some(prepare),
        build: Some(build),
        release: Some(release_instance),
        embed: Some(embed),
        forward: Some(forward),
        vjp: Some(vjp),
        tape_release: Some(release::<LimberTape, Tape>),
        begins_alike: Some(begins_alike),
        ..cache::table()
    }
}

/// The graph of a forward call.
struct Tape {
    embeds: Var,
    output: Tensor,
}

struct Decoders;

impl Role for Decoders {
    type Built = dyn Decoder;
    type Spec = DecoderSpec;
    type Answer = LimberDecoderSpec;

    fn maker(maker: &Maker) -> Option<&PrepareFn<DecoderSpec, dyn Decoder>> {
        if let Maker::Decoder(prepare) = maker { Some(prepare) } else { None }
    }

    fn answer(spec: DecoderSpec) -> Result<LimberDecoderSpec> {
        let mut eos = [0; LIMBER_MAX_EOS];
        if spec.eos.len() > LIMBER_MAX_EOS {
            bail!("{} end-of-sequence ids, the plugin ABI has room for {LIMBER_MAX_EOS}", spec.eos.len())
        }
        eos[..spec.eos.len()].copy_from_slice(&spec.eos);
        Ok(LimberDecoderSpec {
            width: spec.width as u64,
            vocab: spec.vocab as u64,
            layers: spec.layers as u64,
            kv_heads: spec.kv_heads as u64,
            head_dim: spec.head_dim as u64,
            context: spec.context as u64,
            n_eos: spec.eos.len() as u32,
            eos,
            ..LimberDecoderSpec::empty()
        })
    }
}

/// # Safety
/// `instance` is null or what `build` made.
pub(crate) unsafe fn decoder<'a>(instance: *mut LimberInstance) -> Result<&'a dyn Decoder> {
    // SAFETY: by the caller's promise.
    let decoder = unsafe { instance.cast::<Box<dyn Decoder>>().as_ref() };
    Ok(decoder.context("the instance is null")?.as_ref())
}

unsafe extern "C" fn embed(
    instance: *mut LimberInstance,
    ids: *const LimberTensor,
    output: *const LimberTensor,
    error: *const LimberSink,
) -> LimberStatus {
    // SAFETY: the host keeps the ABI's promises.
    unsafe {
        guard(error, || {
            let embeds = decoder(instance)?.embed(&ids_tensor(ids, "the ids")?)?;
            fill(output, &embeds, "embeddings")
        })
    }
}

/// The run of a call, over `cache`.
///
/// # Safety
/// `call` is as the ABI says, for `batch` rows.
unsafe fn run<'a>(call: &LimberForward, batch: usize, cache: Option<&'a mut dyn DecoderCache>) -> Result<Run<'a>> {
    let logits = match call.logits {
        LIMBER_LOGITS_ALL => LogitPositions::All,
        LIMBER_LOGITS_LAST => LogitPositions::Last,
        LIMBER_LOGITS_HIDDEN => LogitPositions::Hidden,
        LIMBER_LOGITS_AT => {
            // SAFETY: by the caller's promise.
            let flat = unsafe { numbers(call.positions, 2 * usize::try_from(call.n_positions)?)? };
            LogitPositions::At(flat.unwrap_or_default().chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
        }
        other => bail!("logit positions of kind {other} are unknown"),
    };
    // SAFETY: by the caller's promise.
    let lengths = unsafe { numbers(call.lengths, batch)? };
    let mask = match call.mask.is_null() {
        true => None,
        // SAFETY: by the caller's promise.
        false => Some(unsafe { u8_tensor(call.mask, "the mask")? }),
    };
    let checkpointing = match call.flags & LIMBER_CALL_RECOMPUTE {
        0 => Checkpointing::None,
        _ => Checkpointing::Full,
    };
    Ok(Run { cache, lengths, mask, logits, checkpointing, ..Run::new() })
}

unsafe extern "C" fn forward(
    instance: *mut LimberInstance,
    call: *const LimberForward,
    error: *const LimberSink,
) -> LimberStatus {
    // SAFETY: the host keeps the ABI's promises; a cache is what `cache_new` or `cache_copy` made.
    unsafe {
        guard(error, || {
            let decoder = decoder(instance)?;
            let call = read(call)?;
            let embeds = f32_tensor(call.embeds, "the embeddings")?;
            let batch = embeds.dims().first().copied().unwrap_or(0);
            let cache = call.cache.cast::<Cache>().as_mut().map(|cache| cache.as_mut());
            if let (Some(cache), Some(past)) = (&cache, numbers(call.past, batch)?)
                && cache.lengths() != past
            {
                bail!("the cache holds {:?} positions, the host says {past:?}", cache.lengths())
            }
            let keeps = !call.tape.is_null() && cache.is_none();
            let embeds = Var::from_tensor(&embeds)?;
            let input = if keeps { embeds.as_tensor().clone() } else { embeds.as_tensor().detach() };
            let mut run = run(&call, batch, cache)?;
            let taps = match call.taps.is_null() {
                true => None,
                false => Some(read(call.taps)?),
            };
            if let Some(taps) = &taps {
                (run.taps.want_hidden, run.taps.want_attention) = (taps.want_hidden != 0, taps.want_attention != 0);
            }
            let output = decoder.forward(&input, &mut run)?;
            fill(call.output, &output, if call.logits == LIMBER_LOGITS_HIDDEN { "hidden states" } else { "logits" })?;
            if let Some(taps) = &taps {
                let seen = run.taps.hidden.iter().map(|x| (LIMBER_TAP_HIDDEN, x));
                for (tap, tensor) in seen.chain(run.taps.attention.iter().map(|x| (LIMBER_TAP_ATTENTION, x))) {
                    tapped(taps, tap, tensor)?;
                }
            }
            if keeps {
                call.tape.write(handle(Tape { embeds, output }));
            }
            Ok(())
        })
    }
}

fn tapped(taps: &LimberTaps, tap: u32, tensor: &Tensor) -> Result<()> {
    let take = taps.take.context("the host's LimberTaps has no function")?;
    with_view(tensor, |view| {
        let mut message = None;
        let sink = lend::sink(&mut message);
        // SAFETY: the view and the sink live beyond the call.
        let status = unsafe { take(taps.context, tap, view, &*sink) };
        match status {
            LIMBER_OK => Ok(()),
            _ => Err(anyhow!("the host took no tap: {}", message.unwrap_or_default())),
        }
    })
}

unsafe extern "C" fn vjp(
    instance: *mut LimberInstance,
    call: *const LimberForward,
    tape: *mut LimberTape,
    grad_output: *const LimberTensor,
    grad_embeds: *const LimberTensor,
    error: *const LimberSink,
) -> LimberStatus {
    // SAFETY: the host keeps the ABI's promises; a tape is what `forward` made.
    unsafe {
        guard(error, || {
            let gradient = f32_tensor(grad_output, "the gradient of the output")?;
            let again;
            let tape = match tape.cast::<Tape>().as_ref() {
                Some(tape) => tape,
                None => {
                    let call = read(call)?;
                    let embeds = Var::from_tensor(&f32_tensor(call.embeds, "the embeddings")?)?;
                    let mut run = run(&call, embeds.dims().first().copied().unwrap_or(0), None)?;
                    let output = decoder(instance)?.forward(embeds.as_tensor(), &mut run)?;
                    again = Tape { embeds, output };
                    &again
                }
            };
            if tape.output.dims() != gradient.dims() {
                bail!("a gradient of shape {:?} for an output of {:?}", gradient.dims(), tape.output.dims())
            }
            let mut grads = tape.output.mul(&gradient)?.sum_all()?.backward()?;
            let Some(gradient) = grads.remove(tape.embeds.as_tensor()) else {
                bail!("the decoder lets no gradient through to the embeddings")
            };
            fill(grad_embeds, &gradient, "gradients")
        })
    }
}

unsafe extern "C" fn begins_alike(instance: *mut LimberInstance, positions: u64) -> i32 {
    let mut alike = 0;
    // SAFETY: the host keeps the ABI's promises.
    unsafe {
        guard(std::ptr::null(), || {
            alike = i32::from(decoder(instance)?.supports_prefix_reuse(usize::try_from(positions)?));
            Ok(())
        });
    }
    alike
}
