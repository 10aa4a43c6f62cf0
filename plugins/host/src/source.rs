//! Weights of the host, lent to a plugin: a `WeightSource` (or a component's `Weights`) behind a `LimberSource`.

use limber_core::weights::{FrozenData, Init, Request, WeightError};
use limber_core::{WeightSource, WeightType, Weights};
use limber_plugin_abi::lend::{self, c_text, text};
use limber_plugin_abi::*;
use std::ffi::{CString, c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is lent.
#[derive(Clone, Copy)]
pub(crate) enum Lender<'a> {
    /// A source, before a component is built.
    Source(&'a dyn WeightSource),
    /// The weights of a build, which note what was read for the fingerprint.
    Weights(&'a Weights),
}

impl Lender<'_> {
    fn source(&self) -> &dyn WeightSource {
        match self {
            Lender::Source(source) => *source,
            Lender::Weights(weights) => weights.source().as_ref(),
        }
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        match self {
            Lender::Source(source) => source.read(request),
            Lender::Weights(weights) => weights.stored(request),
        }
    }

    /// The table, valid as long as it is borrowed.
    pub(crate) fn table(&self) -> Table<'_> {
        let table = LimberSource {
            context: (self as *const Self).cast(),
            label: Some(label),
            tensors: Some(tensors),
            read: Some(read_tensor),
            document: Some(document),
            ..LimberSource::empty()
        };
        Table { table, _lender: PhantomData }
    }
}

/// A source's table over what is lent.
pub(crate) struct Table<'a> {
    table: LimberSource,
    _lender: PhantomData<&'a ()>,
}

impl Table<'_> {
    pub(crate) fn as_ptr(&self) -> *const LimberSource {
        &self.table
    }
}

/// # Safety
/// `context` is that of a table whose lender is still there.
unsafe fn lender<'a>(context: *const c_void) -> Result<&'a Lender<'a>, String> {
    // SAFETY: by the caller's promise.
    unsafe { context.cast::<Lender>().as_ref() }.ok_or_else(|| "the source's context is null".to_string())
}

/// Runs `body`; an error or a panic becomes a status and a message, so that nothing unwinds into the plugin.
///
/// # Safety
/// `error` is null or a sink as the ABI says.
pub(crate) unsafe fn answer(error: *const LimberSink, body: impl FnOnce() -> Result<(), String>) -> LimberStatus {
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return LIMBER_OK,
        Ok(Err(message)) => message,
        Err(_) => "the host panicked".to_string(),
    };
    // SAFETY: by the caller's promise. A plugin that gives no sink gets the status alone.
    let _ = unsafe { lend::give(error, &message) };
    LIMBER_ERROR
}

unsafe extern "C" fn label(context: *const c_void, sink: *const LimberSink) {
    // SAFETY: the plugin keeps the ABI's promises.
    unsafe {
        answer(std::ptr::null(), || lend::give(sink, &lender(context)?.source().label()));
    }
}

unsafe extern "C" fn tensors(context: *const c_void, names: *const LimberNames, known: *mut i32) -> LimberStatus {
    // SAFETY: the plugin keeps the ABI's promises.
    unsafe {
        answer(std::ptr::null(), || {
            let names = read(names).map_err(|e| e.to_string())?;
            let take = names.name.ok_or("LimberNames has no function")?;
            let known = known.as_mut().ok_or("the pointer for the answer is null")?;
            let all = lender(context)?.source().tensors();
            *known = i32::from(all.is_some());
            for (name, shape) in all.into_iter().flatten() {
                let name = c_text(&name);
                let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
                take(names.context, name.as_ptr(), shape.as_ptr(), shape.len() as i32);
            }
            Ok(())
        })
    }
}

/// A tensor that is lent, and all that its view points to.
struct Lease {
    _data: FrozenData,
    _shape: Vec<i64>,
    tensor: LimberTensor,
    format: CString,
}

unsafe extern "C" fn release(lease: *mut c_void) {
    if !lease.is_null() {
        // SAFETY: the plugin gives back what it was lent, once.
        drop(unsafe { Box::from_raw(lease.cast::<Lease>()) });
    }
}

unsafe extern "C" fn read_tensor(
    context: *const c_void,
    request: *const LimberRequest,
    out: *mut LimberWeight,
    error: *const LimberSink,
) -> LimberStatus {
    // SAFETY: the plugin keeps the ABI's promises.
    unsafe {
        answer(error, || {
            let asked = read(request).map_err(|e| e.to_string())?;
            let name = text(asked.name, "the tensor's name")?;
            let ndim = usize::try_from(asked.ndim).ok().filter(|n| *n <= 32 && (*n == 0 || !asked.shape.is_null()));
            let ndim = ndim.ok_or_else(|| format!("tensor {name:?}: a shape of {} dimensions", asked.ndim))?;
            let shape = if ndim == 0 { &[][..] } else { std::slice::from_raw_parts(asked.shape, ndim) };
            let shape: Result<Vec<usize>, _> = shape.iter().map(|size| usize::try_from(*size)).collect();
            let shape = shape.map_err(|_| format!("tensor {name:?}: a shape with a negative size"))?;
            let dtype = match asked.format.is_null() {
                true => WeightType::F32,
                false => {
                    let format = text(asked.format, "the format")?;
                    WeightType::named(&format).ok_or_else(|| format!("tensor {name:?}: unknown format {format:?}"))?
                }
            };
            let request = Request { name: &name, shape: &shape, init: init(&asked)?, dtype };
            let data = lender(context)?.read(&request).map_err(|e| e.to_string())?;
            write(out, lease(data)).map_err(|e| e.to_string())
        })
    }
}

fn init(asked: &LimberRequest) -> Result<Init, String> {
    let LimberRequest { a, b, c, row, .. } = *asked;
    Ok(match asked.init {
        LIMBER_INIT_CONST => Init::Const(a),
        LIMBER_INIT_NORMAL => Init::Normal { mean: a, std: b },
        LIMBER_INIT_TRUNCATED_NORMAL if a > 0.0 && b < c => Init::TruncatedNormal { std: a, low: b, high: c },
        LIMBER_INIT_NORMAL_BUT_ROW => Init::NormalButRow { std: a, row: usize::try_from(row).unwrap_or(usize::MAX) },
        LIMBER_INIT_UNIFORM => Init::Uniform { low: a, high: b },
        other => return Err(format!("an init of kind {other} with numbers {a}, {b}, {c} is not allowed")),
    })
}

fn lease(data: FrozenData) -> LimberWeight {
    // The ABI knows two block formats; numbers of the others are handed on in full.
    let data = match data.dtype() {
        WeightType::Blocks(_) => data.convert(WeightType::F32),
        _ => data,
    };
    let quantised = data.dtype().is_quantised();
    let element = match data.dtype() {
        WeightType::F32 => F32,
        WeightType::F16 => F16,
        WeightType::Bf16 => BF16,
        WeightType::Q8_0 | WeightType::Q4K | WeightType::Blocks(_) => U8,
    };
    let shape: Vec<i64> = match quantised {
        true => vec![data.bytes().len() as i64],
        false => data.shape().iter().map(|size| *size as i64).collect(),
    };
    let format = c_text(data.dtype().name());
    let tensor = LimberTensor::view(data.bytes().as_ptr().cast_mut().cast(), element, &shape);
    let lease = Box::into_raw(Box::new(Lease { _data: data, _shape: shape, tensor, format }));
    // SAFETY: just made; it stays where it is until it is released.
    let (tensor, format): (*const LimberTensor, *const c_char) =
        unsafe { (&(*lease).tensor, (*lease).format.as_ptr()) };
    LimberWeight { tensor, format, lease: lease.cast(), release: Some(release), ..LimberWeight::empty() }
}

unsafe extern "C" fn document(
    context: *const c_void,
    name: *const c_char,
    sink: *const LimberSink,
    found: *mut i32,
    error: *const LimberSink,
) -> LimberStatus {
    // SAFETY: the plugin keeps the ABI's promises.
    unsafe {
        answer(error, || {
            let name = text(name, "the document's name")?;
            let found = found.as_mut().ok_or("the pointer for the answer is null")?;
            let document = lender(context)?.source().document(&name).map_err(|e| e.to_string())?;
            *found = i32::from(document.is_some());
            document.map_or(Ok(()), |text| lend::give(sink, &text))
        })
    }
}
