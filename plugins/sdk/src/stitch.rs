//! The functions of a stitch. The host owns the parameters, so each call begins by setting the variables to them.

use crate::call::{answer, exported, give, set, text};
use crate::export::{Lent, entry_of, handle, release, settings};
use crate::tensor::{f32_tensor, fill};
use anyhow::{Context, Result, bail};
use candle_core::{Tensor, Var};
use limber_core::registry::{Entry, Maker, PreparedStitch};
use limber_core::stitch::PrefixSpec;
use limber_core::{FeatureKind, FeatureSpec, Mode, Stitch, StitchContext, WeightSource};
use limber_plugin_abi::lend::c_text;
use limber_plugin_abi::*;
use serde_json::Value;
use std::ffi::{CString, c_char};
use std::sync::{Mutex, MutexGuard};

/// The table.
pub(crate) fn table() -> LimberStitch {
    LimberStitch {
        prepare: Some(prepare),
        build: Some(build),
        release: Some(release::<LimberInstance, Built>),
        prefix: Some(prefix),
        parameters: Some(parameters),
        parameter: Some(parameter),
        forward: Some(forward),
        vjp: Some(vjp),
        ..LimberStitch::empty()
    }
}

/// A stitch and its variables in the order of their names; locked, because a call sets the variables first.
struct Built {
    stitch: Box<dyn Stitch>,
    variables: Vec<(CString, Var)>,
    lock: Mutex<()>,
}

fn prepared(entry: &Entry, settings: Value, sides: &Sides, source: &dyn WeightSource) -> Result<PreparedStitch> {
    let context = StitchContext {
        features: sides.features,
        encoder: &sides.encoder,
        width: sides.width,
        decoder: &sides.decoder,
        source,
    };
    match &entry.maker {
        Maker::Stitch(prepare) => prepare(settings, &context),
        _ => bail!("{} is no stitch", entry.kind),
    }
}

struct Sides {
    features: FeatureSpec,
    width: usize,
    encoder: String,
    decoder: String,
}

impl Sides {
    /// # Safety
    /// `sides` is null or as the ABI says.
    unsafe fn new(sides: *const LimberSides) -> Result<Self> {
        // SAFETY: by the caller's promise.
        unsafe {
            let sides = read(sides)?;
            let kind = match sides.kind {
                LIMBER_FEATURES_PATCHES => FeatureKind::Patches,
                LIMBER_FEATURES_POOLED => FeatureKind::Pooled,
                other => bail!("features of kind {other} are unknown"),
            };
            let (tokens, width) = (usize::try_from(sides.tokens)?, usize::try_from(sides.features_width)?);
            Ok(Self {
                features: FeatureSpec { tokens, width, kind },
                width: usize::try_from(sides.width)?,
                encoder: text(sides.encoder, "encoder's kind")?,
                decoder: text(sides.decoder, "decoder's kind")?,
            })
        }
    }
}

fn spec(spec: PrefixSpec) -> LimberPrefixSpec {
    LimberPrefixSpec { tokens: spec.tokens as u64, width: spec.width as u64, ..LimberPrefixSpec::empty() }
}

exported! {
    fn prepare(
        component: *const LimberPart, text: *const c_char, source: *const LimberSource, sides: *const LimberSides,
        resolved: *const LimberSink, out: *mut LimberPrefixSpec,
    ) {
        let (source, sides) = (Lent::new(source)?, Sides::new(sides)?);
        let prepared = prepared(entry_of(component)?, settings(text)?, &sides, source.source())?;
        give(resolved, &prepared.settings.to_string())?;
        answer(out, spec(prepared.spec))
    }
}

exported! {
    fn build(
        component: *const LimberPart, text: *const c_char, source: *const LimberSource, sides: *const LimberSides,
        options: *const LimberBuild, out: *mut *mut LimberInstance,
    ) {
        let (source, sides) = (Lent::new(source)?, Sides::new(sides)?);
        let prepared = prepared(entry_of(component)?, settings(text)?, &sides, source.source())?;
        let stitch = prepared.build(&source.weights(options)?)?;
        let variables = stitch.variables().into_iter().map(|(name, variable)| (c_text(&name), variable)).collect();
        set(out, handle(Built { stitch, variables, lock: Mutex::new(()) }))
    }
}

/// # Safety
/// `instance` is null or what `build` made.
unsafe fn built<'a>(instance: *mut LimberInstance) -> Result<&'a Built> {
    // SAFETY: by the caller's promise.
    unsafe { instance.cast::<Built>().as_ref() }.context("the instance is null")
}

exported! {
    fn prefix(instance: *mut LimberInstance, tokens: u64, out: *mut LimberPrefixSpec) {
        answer(out, spec(built(instance)?.stitch.prefix_spec(usize::try_from(tokens)?)))
    }
}

exported! {
    fn parameters(instance: *mut LimberInstance, names: *const LimberNames) {
        let names = read(names)?;
        let take = names.name.context("the host's LimberNames has no function")?;
        for (name, variable) in &built(instance)?.variables {
            let shape: Vec<i64> = variable.dims().iter().map(|size| *size as i64).collect();
            take(names.context, name.as_ptr(), shape.as_ptr(), shape.len() as i32);
        }
        Ok(())
    }
}

exported! {
    fn parameter(instance: *mut LimberInstance, index: u32, output: *const LimberTensor) {
        let variables = &built(instance)?.variables;
        let (name, variable) = variables
            .get(index as usize)
            .with_context(|| format!("no parameter {index} of {}", variables.len()))?;
        fill(output, variable.as_tensor(), &format!("values of {:?}", name.to_string_lossy()))
    }
}

/// The pointers of an array of views.
///
/// # Safety
/// `views` is null or holds `n` pointers.
unsafe fn views<'a>(views: *const *const LimberTensor, n: usize, what: &str) -> Result<&'a [*const LimberTensor]> {
    if views.is_null() {
        bail!("the host gave no {what}")
    }
    // SAFETY: by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(views, n) })
}

/// A call that has begun: the stitch, alone for this thread, with the host's parameters in its variables.
struct Begun<'a> {
    built: &'a Built,
    call: LimberProject,
    features: Tensor,
    _own: MutexGuard<'a, ()>,
}

impl<'a> Begun<'a> {
    /// # Safety
    /// `instance` is null or what `build` made, `call` is null or as the ABI says.
    unsafe fn new(instance: *mut LimberInstance, call: *const LimberProject) -> Result<Self> {
        // SAFETY: by the caller's promise.
        let (built, call): (&'a Built, _) = unsafe { (built(instance)?, read(call)?) };
        let own = built.lock.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: by the caller's promise.
        let features = unsafe {
            take_parameters(built, &call)?;
            f32_tensor(call.features, "the features")?
        };
        Ok(Self { built, call, features, _own: own })
    }
}

/// Sets the variables to the host's parameters.
///
/// # Safety
/// `call` is as the ABI says.
unsafe fn take_parameters(built: &Built, call: &LimberProject) -> Result<()> {
    let n = built.variables.len();
    if call.n_parameters as usize != n {
        bail!("{} parameters for a stitch of {n}", call.n_parameters)
    }
    // SAFETY: by the caller's promise.
    let given = unsafe { views(call.parameters, n, "parameters")? };
    for ((name, variable), view) in built.variables.iter().zip(given) {
        // SAFETY: by the caller's promise.
        let values = unsafe { f32_tensor(*view, &format!("parameter {:?}", name.to_string_lossy()))? };
        variable.set(&values)?;
    }
    Ok(())
}

fn mode(call: &LimberProject) -> Mode {
    if call.training == 0 { Mode::Inference } else { Mode::Training { seed: call.seed } }
}

exported! {
    fn forward(instance: *mut LimberInstance, call: *const LimberProject) {
        let Begun { built, call, features, _own } = Begun::new(instance, call)?;
        fill(call.output, &built.stitch.project(&features, mode(&call))?, "prefixes")
    }
}

exported! {
    fn vjp(
        instance: *mut LimberInstance, call: *const LimberProject, _tape: *mut LimberTape,
        grad_output: *const LimberTensor, grad_features: *const LimberTensor,
        grad_parameters: *const *const LimberTensor,
    ) {
        let Begun { built, call, features, _own } = Begun::new(instance, call)?;
        let features: Tensor = match grad_features.is_null() {
            true => features,
            false => Var::from_tensor(&features)?.into_inner(),
        };
        let gradient = f32_tensor(grad_output, "the gradient of the prefixes")?;
        let prefix = built.stitch.project(&features, mode(&call))?;
        let grads = prefix.mul(&gradient)?.sum_all()?.backward()?;
        let outputs = views(grad_parameters, built.variables.len(), "views for gradients")?;
        for ((name, variable), output) in built.variables.iter().zip(outputs) {
            let name = name.to_string_lossy();
            let gradient = grads
                .get(variable.as_tensor())
                .with_context(|| format!("the parameter {name:?} gets no gradient; the stitch cuts the graph"))?;
            fill(*output, gradient, &format!("gradients of {name:?}"))?;
        }
        if !grad_features.is_null() {
            let gradient =
                grads.get(&features).context("the features get no gradient; the stitch cuts the graph")?;
            fill(grad_features, gradient, "gradients of the features")?;
        }
        Ok(())
    }
}
