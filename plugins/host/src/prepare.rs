//! What the three roles share on the way to an instance: settings and spec first, then the weights.

use crate::component::{Component, Instance};
use crate::source::Lender;
use anyhow::{Error, Result, bail};
use limber_core::{WeightSource, Weights};
use limber_plugin_abi::lend::{self, c_text};
use limber_plugin_abi::*;
use serde_json::Value;
use std::ffi::{CString, c_char};
use std::ptr::{null, null_mut};

/// What every `prepare` of a plugin is given, for the length of the call.
pub(crate) struct Prepare {
    pub component: *const LimberPart,
    pub settings: *const c_char,
    pub source: *const LimberSource,
    pub resolved: *const LimberSink,
}

/// What every `build` of a plugin is given, for the length of the call.
pub(crate) struct Build {
    pub component: *const LimberPart,
    pub settings: *const c_char,
    pub source: *const LimberSource,
    pub options: *const LimberBuild,
}

/// `prepare` of a role whose components stand alone: of an encoder or a decoder.
type PrepareFn<S> = unsafe extern "C" fn(
    *const LimberPart,
    *const c_char,
    *const LimberSource,
    *const LimberSink,
    *mut S,
    *const LimberSink,
) -> LimberStatus;

/// `build` of such a role.
type BuildFn = unsafe extern "C" fn(
    *const LimberPart,
    *const c_char,
    *const LimberSource,
    *const LimberBuild,
    *mut *mut LimberInstance,
    *const LimberSink,
) -> LimberStatus;

impl Component {
    /// [`Self::prepare`] of a component that stands alone.
    pub(crate) fn prepare_alone<S>(
        &self,
        settings: Value,
        source: &dyn WeightSource,
        spec: S,
        function: PrepareFn<S>,
    ) -> Result<(Value, S)> {
        // SAFETY: the function is the plugin's, all arguments live beyond the call.
        self.prepare(settings, source, spec, |call, spec, error| unsafe {
            function(call.component, call.settings, call.source, call.resolved, spec, error)
        })
    }

    /// [`Self::build`] of a component that stands alone.
    pub(crate) fn build_alone(
        &self,
        settings: &Value,
        weights: &Weights,
        function: BuildFn,
        release: Option<unsafe extern "C" fn(*mut LimberInstance)>,
    ) -> Result<Instance> {
        // SAFETY: as above.
        self.build(settings, weights, release, |call, out, error| unsafe {
            function(call.component, call.settings, call.source, call.options, out, error)
        })
    }

    /// The resolved settings, and the spec that `function` wrote into `spec`: it calls the plugin's `prepare`.
    pub(crate) fn prepare<S>(
        &self,
        settings: Value,
        source: &dyn WeightSource,
        mut spec: S,
        function: impl FnOnce(&Prepare, &mut S, *const LimberSink) -> LimberStatus,
    ) -> Result<(Value, S)> {
        let (given, lender) = (settings_text(&settings), Lender::Source(source));
        let (lent, mut text) = (lender.table(), None);
        let sink = lend::sink(&mut text);
        let call = Prepare { component: self.raw, settings: given.as_ptr(), source: lent.as_ptr(), resolved: &*sink };
        self.call("prepare", |error| function(&call, &mut spec, error)).map_err(Error::msg)?;
        let settings = match text.map(|text| (serde_json::from_str(&text), text)) {
            None => settings,
            Some((Ok(value @ Value::Object(_)), _)) => value,
            Some((_, text)) => {
                bail!("{}: the resolved settings are {text:?}, expected a JSON map", self.label())
            }
        };
        Ok((settings, spec))
    }

    /// The instance that `function` makes of these weights: it calls the plugin's `build`.
    pub(crate) fn build(
        &self,
        settings: &Value,
        weights: &Weights,
        release: Option<unsafe extern "C" fn(*mut LimberInstance)>,
        function: impl FnOnce(&Build, *mut *mut LimberInstance, *const LimberSink) -> LimberStatus,
    ) -> Result<Instance> {
        let (given, lender) = (settings_text(settings), Lender::Weights(weights));
        let (lent, format) = (lender.table(), weights.dtype().map(|dtype| c_text(dtype.name())));
        let format = format.as_ref().map_or(null(), |text| text.as_ptr());
        let options = LimberBuild { format, ..LimberBuild::empty() };
        let call = Build { component: self.raw, settings: given.as_ptr(), source: lent.as_ptr(), options: &options };
        let mut raw = null_mut();
        self.call("build", |error| function(&call, &mut raw, error)).map_err(Error::msg)?;
        if raw.is_null() {
            bail!("{}: build: it gives no instance", self.label())
        }
        Ok(Instance::new(raw, release, self))
    }
}

/// Settings as C has them.
fn settings_text(settings: &Value) -> CString {
    match settings {
        Value::Null => c_text("{}"),
        settings => c_text(&settings.to_string()),
    }
}
