//! Hidden states and attention of a plugin's decoder: taken as the plugin gives them, then checked.

use super::Built;
use super::call::Asked;
use crate::source::answer;
use candle_core::{Device, Tensor};
use limber_core::decoder::Taps;
use limber_plugin_abi::*;
use std::ffi::c_void;

/// Where taps are put.
pub(super) struct Taken<'a> {
    pub taps: &'a mut Taps,
    device: &'a Device,
}

impl<'a> Taken<'a> {
    pub(super) fn new(taps: &'a mut Taps, device: &'a Device) -> Self {
        Self { taps, device }
    }
}

pub(super) unsafe extern "C" fn take(
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

/// Refuses taps of other numbers or shapes than a caller may rely on.
pub(super) fn check(taps: &Taps, asked: &Asked, built: &Built) -> candle_core::Result<()> {
    let (spec, [b, t, d]) = (&built.spec, asked.dims);
    let keys = asked.past.as_ref().and_then(|past| past.iter().max()).map_or(0, |p| *p as usize) + t;
    let wrong = |what: &str, found: String| built.error("forward", format!("{what}: {found}"));
    if taps.want_hidden && taps.hidden.len() != spec.layers + 1 {
        return Err(wrong("hidden states", format!("it gives {} for {} layers", taps.hidden.len(), spec.layers)));
    }
    if taps.want_attention && taps.attention.len() != spec.layers {
        return Err(wrong("attention", format!("it gives {} for {} layers", taps.attention.len(), spec.layers)));
    }
    if let Some(bad) = taps.hidden.iter().find(|x| x.dims() != [b, t, d]) {
        return Err(wrong("hidden states", format!("shape {:?}, expected [{b}, {t}, {d}]", bad.dims())));
    }
    if let Some(bad) = taps.attention.iter().find(|x| !matches!(x.dims(), [r, _, q, k] if (*r, *q, *k) == (b, t, keys)))
    {
        return Err(wrong("attention", format!("shape {:?}, expected [{b}, H, {t}, {keys}]", bad.dims())));
    }
    Ok(())
}
