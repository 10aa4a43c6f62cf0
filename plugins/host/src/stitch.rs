//! The stitch of a plugin. The host owns the parameters as variables, saves and trains them; the plugin computes.

use crate::component::{Component, Instance, function};
use crate::custom_op::{Backward, custom_op2};
use crate::encoder::size;
use crate::memory::{Output, sizes, with_slice, with_values, with_view};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Error, Tensor, Var};
use limber_core::registry::{Prepared, PreparedStitch};
use limber_core::stitch::PrefixSpec;
use limber_core::{FeatureKind, FeatureSpec, Mode, Stitch, StitchContext, Weights};
use limber_plugin_abi::lend::{self, c_text};
use limber_plugin_abi::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::Arc;

/// Maximum number of elements of one parameter.
const MOST_ELEMENTS: usize = 1 << 34;

/// The two sides, owned, and as the ABI has them.
struct Sides {
    features: FeatureSpec,
    width: usize,
    encoder: CString,
    decoder: CString,
}

impl Sides {
    fn new(context: &StitchContext) -> Self {
        let StitchContext { features, encoder, width, decoder, .. } = *context;
        Self { features, width, encoder: c_text(encoder), decoder: c_text(decoder) }
    }

    fn table(&self) -> LimberSides {
        LimberSides {
            tokens: self.features.tokens as u64,
            features_width: self.features.width as u64,
            width: self.width as u64,
            kind: match self.features.kind {
                FeatureKind::Patches => LIMBER_FEATURES_PATCHES,
                FeatureKind::Pooled => LIMBER_FEATURES_POOLED,
            },
            encoder: self.encoder.as_ptr(),
            decoder: self.decoder.as_ptr(),
            ..LimberSides::empty()
        }
    }
}

/// Prepares a stitch between two sides: settings and prefix, no weights.
pub(crate) fn prepare(
    component: &Arc<Component>,
    table: LimberStitch,
    settings: Value,
    context: &StitchContext,
) -> Result<PreparedStitch> {
    let (sides, function) = (Sides::new(context), function!(table, prepare));
    let empty = LimberPrefixSpec::empty();
    // SAFETY: all arguments live beyond the call.
    let (settings, spec) = component.prepare(settings, context.source, empty, |call, spec, error| unsafe {
        function(call.component, call.settings, call.source, &sides.table(), call.resolved, spec, error)
    })?;
    let spec = prefix(component, &spec)?;
    if spec.width != sides.width {
        bail!(
            "{}: its prefix has width {}, decoder {} takes {}",
            component.label(),
            spec.width,
            context.decoder,
            sides.width
        )
    }
    let (component, given) = (component.clone(), settings.clone());
    Ok(Prepared::new(component.kind.clone(), settings, spec, move |weights: &Weights| {
        let build = function!(table, build);
        // SAFETY: as above.
        let instance = component.build(&given, weights, table.release, |call, out, error| unsafe {
            build(call.component, call.settings, call.source, &sides.table(), call.options, out, error)
        })?;
        let mut built = Built { component, table, instance, parameters: Vec::new() };
        built.parameters = built.listed()?;
        let variables = built.initial(weights.device())?;
        let (width, device) = (sides.features.width, weights.device().clone());
        Ok(Box::new(PluginStitch {
            built: Arc::new(built),
            variables,
            tokens: sides.features.tokens,
            width,
            spec,
            device,
        }) as Box<dyn Stitch>)
    }))
}

fn prefix(component: &Component, spec: &LimberPrefixSpec) -> Result<PrefixSpec> {
    Ok(PrefixSpec { tokens: size(component, "tokens", spec.tokens)?, width: size(component, "width", spec.width)? })
}

/// A built stitch.
struct Built {
    component: Arc<Component>,
    table: LimberStitch,
    instance: Instance,
    /// Names and shapes, in the plugin's order.
    parameters: Vec<(String, Vec<usize>)>,
}

impl Built {
    /// The parameters that the plugin lists.
    fn listed(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let mut list = Vec::new();
        let names = lend::names(&mut list);
        let function = function!(self.table, parameters);
        {
            let (instance, _own) = self.instance.enter();
            // SAFETY: all arguments live beyond the call.
            let done = self.component.call("list parameters", |error| unsafe { function(instance, &*names, error) });
            done.map_err(anyhow::Error::msg)?;
        }
        let mut parameters: Vec<(String, Vec<usize>)> = Vec::new();
        for (name, shape) in list {
            let dims: Option<Vec<usize>> = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
            let elements = dims.as_ref().and_then(|d| d.iter().try_fold(1usize, |n, size| n.checked_mul(*size)));
            let (Some(dims), true) = (dims, elements.is_some_and(|n| n <= MOST_ELEMENTS)) else {
                bail!("{}: parameter {name:?} has shape {shape:?}", self.component.label())
            };
            if name.is_empty() || parameters.iter().any(|(there, _)| *there == name) {
                bail!("{}: a parameter {name:?} that is empty or there twice", self.component.label())
            }
            parameters.push((name, dims));
        }
        Ok(parameters)
    }

    /// Variables of the values that the plugin built the parameters with.
    fn initial(&self, device: &Device) -> Result<BTreeMap<String, Var>> {
        let function = function!(self.table, parameter);
        let mut variables = BTreeMap::new();
        for (index, (name, dims)) in self.parameters.iter().enumerate() {
            let mut output = Output::new(dims);
            let view = output.view();
            {
                let (instance, _own) = self.instance.enter();
                // SAFETY: all arguments live beyond the call.
                let done = self
                    .component
                    .call("give a parameter", |error| unsafe { function(instance, index as u32, &view, error) });
                done.map_err(anyhow::Error::msg)?;
            }
            let values = output.tensor(&format!("values of {name:?}"), &[], device);
            let values = values.map_err(anyhow::Error::msg).with_context(|| self.component.label())?;
            variables.insert(name.clone(), Var::from_tensor(&values)?);
        }
        Ok(variables)
    }

    /// Views of the parameters in `flat`, for the length of `body`.
    fn with_parameters<R>(&self, flat: &[f32], body: impl FnOnce(&[*const LimberTensor]) -> R) -> R {
        let shapes: Vec<Vec<i64>> = self.parameters.iter().map(|(_, dims)| sizes(dims)).collect();
        let mut at = 0;
        let views: Vec<LimberTensor> = self
            .parameters
            .iter()
            .zip(&shapes)
            .map(|((_, dims), shape)| {
                let n: usize = dims.iter().product();
                let values = &flat[at..at + n];
                at += n;
                LimberTensor::view(values.as_ptr().cast_mut().cast(), F32, shape)
            })
            .collect();
        let pointers: Vec<*const LimberTensor> = views.iter().map(|view| view as *const LimberTensor).collect();
        body(&pointers)
    }

    fn error(&self, what: &str, message: impl std::fmt::Display) -> Error {
        Error::msg(format!("{}: {what}: {message}", self.component.label()))
    }
}

struct PluginStitch {
    built: Arc<Built>,
    variables: BTreeMap<String, Var>,
    /// N of the encoder that it was built for.
    tokens: usize,
    /// E.
    width: usize,
    spec: PrefixSpec,
    device: Device,
}

/// The call of a mode, over features and parameters.
fn project_call(mode: Mode, features: *const LimberTensor, parameters: &[*const LimberTensor]) -> LimberProject {
    let (training, seed) = match mode {
        Mode::Inference => (0, 0),
        Mode::Training { seed } => (1, seed),
    };
    LimberProject {
        training,
        seed,
        features,
        n_parameters: parameters.len() as u32,
        parameters: parameters.as_ptr(),
        ..LimberProject::empty()
    }
}

impl Stitch for PluginStitch {
    fn prefix_spec(&self, tokens: usize) -> PrefixSpec {
        let (component, mut spec) = (&self.built.component, LimberPrefixSpec::empty());
        let function = function!(self.built.table, prefix);
        let (instance, _own) = self.built.instance.enter();
        // SAFETY: all arguments live beyond the call, the instance is not yet released.
        let done = component.call("prefix", |error| unsafe { function(instance, tokens as u64, &mut spec, error) });
        match done.map_err(anyhow::Error::msg).and_then(|()| prefix(component, &spec)) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::warn!("{error:#}; the prefix is taken to be that of {} tokens", self.tokens);
                self.spec
            }
        }
    }

    fn project(&self, features: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let (b, n) = match features.dims() {
            [b, n, e] if *b > 0 && *n > 0 && *e == self.width => (*b, *n),
            other => candle_core::bail!("features have shape {other:?}, expected [B, N, {}]", self.width),
        };
        let PrefixSpec { tokens: k, width: d } = self.prefix_spec(n);
        // One flat tensor of all parameters, through which the graph leads back to each variable.
        let flat: Vec<Tensor> = self
            .built
            .parameters
            .iter()
            .map(|(name, _)| match self.variables.get(name) {
                Some(variable) => variable.to_device(&Device::Cpu)?.flatten_all(),
                None => candle_core::bail!("no variable {name:?}"),
            })
            .collect::<candle_core::Result<_>>()?;
        let flat = match flat.is_empty() {
            true => Tensor::zeros(0, DType::F32, &Device::Cpu)?,
            false => Tensor::cat(&flat, 0)?,
        };
        let features = features.to_device(&Device::Cpu)?.contiguous()?;
        let mut output = Output::new(&[b, k, d]);
        let output = with_values(&features.detach(), |values| {
            with_values(&flat.detach(), |flat| {
                with_slice(values, features.dims(), |features| {
                    self.built.with_parameters(flat, |parameters| {
                        let view = output.view();
                        let call = LimberProject {
                            output: &view,
                            tape: null_mut(),
                            ..project_call(mode, features, parameters)
                        };
                        let forward = function!(self.built.table, forward);
                        let (instance, _own) = self.built.instance.enter();
                        // SAFETY: all arguments live beyond the call, the instance is not yet released.
                        self.built.component.call("forward", |error| unsafe { forward(instance, &call, error) })
                    })
                })
                .map_err(Error::msg)?;
                output.written("prefixes", &[values, flat]).map_err(|message| self.built.error("forward", message))
            })
        })?;
        custom_op2(&features, &flat, output, Gradient { built: self.built.clone(), mode })?.to_device(&self.device)
    }

    fn variables(&self) -> BTreeMap<String, Var> {
        self.variables.clone()
    }
}

struct Gradient {
    built: Arc<Built>,
    mode: Mode,
}

impl Backward for Gradient {
    const NAME: &'static str = "plugin-stitch";

    fn backward(&self, inputs: &[&Tensor], gradient: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
        let (features, flat) = (inputs[0], inputs[1]);
        let built = &self.built;
        let mut of_features = features.track_op().then(|| Output::new(features.dims()));
        let mut of_parameters: Vec<Output> = built.parameters.iter().map(|(_, dims)| Output::new(dims)).collect();
        let what = "vector-Jacobian product";
        let gradients = with_values(gradient, |values| {
            with_view(features, |features| {
                with_values(flat, |flat| {
                    built.with_parameters(flat, |parameters| {
                        let features_view = of_features.as_mut().map(Output::view);
                        let views: Vec<LimberTensor> = of_parameters.iter_mut().map(Output::view).collect();
                        let pointers: Vec<*const LimberTensor> = views.iter().map(|view| view as *const _).collect();
                        let call = project_call(self.mode, features, parameters);
                        let of_features = features_view.as_ref().map_or(std::ptr::null(), |view| view as *const _);
                        let vjp = function!(built.table, vjp);
                        let (instance, _own) = built.instance.enter();
                        // SAFETY: all arguments live beyond the call, the instance is not yet released.
                        let done = with_slice(values, gradient.dims(), |gradient| {
                            built.component.call(what, |error| unsafe {
                                vjp(instance, &call, null_mut(), gradient, of_features, pointers.as_ptr(), error)
                            })
                        });
                        done.map_err(Error::msg)
                    })
                })
            })?;
            let wrong = |message: String| built.error(what, message);
            let mut flat = Vec::new();
            for (output, (name, _)) in of_parameters.drain(..).zip(&built.parameters) {
                flat.extend(output.written(&format!("gradients of {name:?}"), &[values]).map_err(wrong)?.0);
            }
            let of_features = of_features.map(|o| o.tensor("gradients of the features", &[values], &Device::Cpu));
            let n = flat.len();
            Ok(vec![of_features.transpose().map_err(wrong)?, Some(Tensor::from_vec(flat, n, &Device::Cpu)?)])
        })?;
        Ok(gradients)
    }
}
