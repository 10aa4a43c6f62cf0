//! A stitch against the bare ABI, without limber-core and its SDK: y = x Wᵀ + b by another version of candle, whose
//! tensor ids begin at the same numbers as the host's.
//!
//! Features `[B, N, E]` to prefix `[B, N, D]`; the parameters `bias` `[D]` and `weight` `[D, E]` are those of `linear`.

use candle_core::{Device, Result, Tensor, Var};
use limber_plugin_abi::lend::{c_text, give, names, sink, text};
use limber_plugin_abi::*;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;
use std::sync::OnceLock;

struct Tables(*const LimberPlugin);

// SAFETY: made once, never written, never freed.
unsafe impl Send for Tables {}
// SAFETY: as above.
unsafe impl Sync for Tables {}

/// The entry symbol.
///
/// # Safety
/// As the ABI says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn limber_plugin_v1(_: *const LimberHost, _: *const LimberSink) -> *const LimberPlugin {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    let make = || {
        let stitch = Box::leak(Box::new(LimberStitch {
            prepare: Some(prepare),
            build: Some(build),
            release: Some(release),
            prefix: Some(prefix),
            parameters: Some(parameters),
            parameter: Some(parameter),
            forward: Some(forward),
            vjp: Some(vjp),
            ..LimberStitch::empty()
        }));
        let part: *const LimberPart = Box::leak(Box::new(LimberPart {
            role: LIMBER_STITCH,
            kind: c"linear-elsewhere".as_ptr(),
            about: c"a linear projection by another version of candle".as_ptr(),
            schema: c"{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}".as_ptr(),
            tiny: c"{}".as_ptr(),
            stitch,
            ..LimberPart::empty()
        }));
        Tables(Box::leak(Box::new(LimberPlugin {
            abi_major: LIMBER_ABI_MAJOR,
            n_parts: 1,
            name: c"limber-example-other-candle".as_ptr(),
            release: c"0.1.0".as_ptr(),
            built_with: c"candle-core 0.9, no SDK".as_ptr(),
            parts: Box::leak(Box::new([part])).as_ptr(),
            ..LimberPlugin::empty()
        })))
    };
    TABLES.get_or_init(make).0
}

/// The two sides, and the values that the parameters begin with.
struct Built {
    n_in: usize,
    width: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

type Outcome<T = ()> = std::result::Result<T, String>;

/// Runs `body`; an error or a panic becomes a status and a message.
unsafe fn guard(error: *const LimberSink, body: impl FnOnce() -> Outcome) -> LimberStatus {
    let (status, message) = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return LIMBER_OK,
        Ok(Err(message)) => (LIMBER_ERROR, message),
        Err(_) => (LIMBER_PANIC, "it panicked".to_string()),
    };
    // SAFETY: the sink is as the ABI says.
    let _ = unsafe { give(error, &message) };
    status
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

unsafe extern "C" fn prepare(
    _: *const LimberPart,
    settings: *const c_char,
    _: *const LimberSource,
    sides: *const LimberSides,
    resolved: *const LimberSink,
    spec: *mut LimberPrefixSpec,
    error: *const LimberSink,
) -> LimberStatus {
    // SAFETY: the host keeps the ABI's promises, here and below.
    unsafe {
        guard(error, || {
            let (settings, sides) = (text(settings, "the settings")?, read(sides).map_err(words)?);
            if settings.trim() != "{}" {
                return Err(format!("there are no settings, given are {settings}"));
            }
            give(resolved, "{}")?;
            let prefix = LimberPrefixSpec { tokens: sides.tokens, width: sides.width, ..LimberPrefixSpec::empty() };
            write(spec, prefix).map_err(words)
        })
    }
}

/// A tensor of the source, in f32.
unsafe fn weight(source: &LimberSource, name: &str, shape: &[i64], bound: f32) -> Outcome<Vec<f32>> {
    let (name, mut lent, mut message) = (c_text(name), LimberWeight::empty(), None);
    let request = LimberRequest {
        name: name.as_ptr(),
        shape: shape.as_ptr(),
        ndim: shape.len() as i32,
        init: LIMBER_INIT_UNIFORM,
        a: -bound,
        b: bound,
        ..LimberRequest::empty()
    };
    let error = sink(&mut message);
    let function = source.read.ok_or("the source has no function")?;
    // SAFETY: all arguments live beyond the call; the lease is ended after its values were copied.
    unsafe {
        let status = function(source.context, &request, &mut lent, &*error);
        drop(error);
        if status != LIMBER_OK {
            return Err(message.unwrap_or_default());
        }
        let values = view(lent.tensor).and_then(|x| x.flatten_all()?.to_vec1::<f32>()).map_err(words);
        if let Some(release) = lent.release {
            release(lent.lease);
        }
        values
    }
}

unsafe extern "C" fn build(
    _: *const LimberPart,
    _: *const c_char,
    source: *const LimberSource,
    sides: *const LimberSides,
    _: *const LimberBuild,
    out: *mut *mut LimberInstance,
    error: *const LimberSink,
) -> LimberStatus {
    unsafe {
        guard(error, || {
            let (source, sides) = (read(source).map_err(words)?, read(sides).map_err(words)?);
            let (e, d) = (sides.features_width as i64, sides.width as i64);
            let bound = 1.0 / (e as f32).sqrt();
            let (weight, bias) = (weight(&source, "weight", &[d, e], bound)?, weight(&source, "bias", &[d], bound)?);
            *out = Box::into_raw(Box::new(Built { n_in: e as usize, width: d as usize, weight, bias })).cast();
            Ok(())
        })
    }
}

unsafe extern "C" fn release(instance: *mut LimberInstance) {
    unsafe { drop(Box::from_raw(instance.cast::<Built>())) };
}

unsafe fn built<'a>(instance: *mut LimberInstance) -> &'a Built {
    unsafe { &*instance.cast::<Built>() }
}

unsafe extern "C" fn prefix(
    instance: *mut LimberInstance,
    tokens: u64,
    spec: *mut LimberPrefixSpec,
    error: *const LimberSink,
) -> LimberStatus {
    unsafe {
        guard(error, || {
            let prefix = LimberPrefixSpec { tokens, width: built(instance).width as u64, ..LimberPrefixSpec::empty() };
            write(spec, prefix).map_err(words)
        })
    }
}

unsafe extern "C" fn parameters(
    instance: *mut LimberInstance,
    list: *const LimberNames,
    error: *const LimberSink,
) -> LimberStatus {
    unsafe {
        guard(error, || {
            let (built, list) = (built(instance), read(list).map_err(words)?);
            let take = list.name.ok_or("the list has no function")?;
            let (e, d) = (built.n_in as i64, built.width as i64);
            take(list.context, c"bias".as_ptr(), [d].as_ptr(), 1);
            take(list.context, c"weight".as_ptr(), [d, e].as_ptr(), 2);
            Ok(())
        })
    }
}

unsafe extern "C" fn parameter(
    instance: *mut LimberInstance,
    index: u32,
    output: *const LimberTensor,
    error: *const LimberSink,
) -> LimberStatus {
    unsafe {
        guard(error, || {
            let built = built(instance);
            fill(output, if index == 0 { &built.bias } else { &built.weight })
        })
    }
}

/// A view as a tensor of this candle.
unsafe fn view(view: *const LimberTensor) -> Result<Tensor> {
    // SAFETY: the view is as the ABI says.
    unsafe {
        let table = read(view).map_err(candle_core::Error::wrap)?;
        let dims = table.check(F32).map_err(candle_core::Error::msg)?;
        let n = dims.iter().product();
        let values = if n == 0 { &[][..] } else { std::slice::from_raw_parts(table.data.cast::<f32>(), n) };
        Tensor::from_slice(values, dims, &Device::Cpu)
    }
}

/// Copies values into a view.
unsafe fn fill(view: *const LimberTensor, values: &[f32]) -> Outcome {
    // SAFETY: as above, and the view is ours to write.
    unsafe {
        let table = read(view).map_err(words)?;
        let n: usize = table.check(F32)?.iter().product();
        if n != values.len() {
            return Err(format!("{} values for a view of {n}", values.len()));
        }
        std::slice::from_raw_parts_mut(table.data.cast::<f32>(), n).copy_from_slice(values);
        Ok(())
    }
}

/// Features, bias and weight as variables, and the prefix with its graph.
unsafe fn project(call: &LimberProject) -> Result<(Var, Var, Var, Tensor)> {
    unsafe {
        let features = Var::from_tensor(&view(call.features)?)?;
        let (bias, weight) =
            (Var::from_tensor(&view(*call.parameters)?)?, Var::from_tensor(&view(*call.parameters.add(1))?)?);
        let (b, n, e) = features.dims3()?;
        let y = features.reshape((b * n, e))?.matmul(&weight.t()?)?.broadcast_add(&bias)?;
        let y = y.reshape((b, n, weight.dim(0)?))?;
        Ok((features, bias, weight, y))
    }
}

fn flat(x: &Tensor) -> Outcome<Vec<f32>> {
    x.flatten_all().and_then(|x| x.to_vec1()).map_err(words)
}

unsafe extern "C" fn forward(
    _: *mut LimberInstance,
    call: *const LimberProject,
    error: *const LimberSink,
) -> LimberStatus {
    unsafe {
        guard(error, || {
            let call = read(call).map_err(words)?;
            fill(call.output, &flat(&project(&call).map_err(words)?.3)?)
        })
    }
}

unsafe extern "C" fn vjp(
    _: *mut LimberInstance,
    call: *const LimberProject,
    _: *mut LimberTape,
    grad_output: *const LimberTensor,
    grad_features: *const LimberTensor,
    grad_parameters: *const *const LimberTensor,
    error: *const LimberSink,
) -> LimberStatus {
    unsafe {
        guard(error, || {
            let call = read(call).map_err(words)?;
            let (features, bias, weight, y) = project(&call).map_err(words)?;
            let gradient = view(grad_output).map_err(words)?;
            let grads = y.mul(&gradient).and_then(|y| y.sum_all()?.backward()).map_err(words)?;
            let wanted = [(&bias, *grad_parameters), (&weight, *grad_parameters.add(1)), (&features, grad_features)];
            for (variable, output) in wanted.into_iter().filter(|(_, output)| *output != null()) {
                fill(output, &flat(grads.get(variable.as_tensor()).ok_or("no gradient")?)?)?;
            }
            Ok(())
        })
    }
}
