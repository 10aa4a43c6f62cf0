//! One component of a plugin: its table, read and checked; calls of its functions with their messages; built instances.

use crate::handshake::list;
use anyhow::{Error, Result, anyhow, bail};
use limber_plugin_abi::lend::{self, text};
use limber_plugin_abi::{
    LIMBER_CONCURRENT, LIMBER_DECODER, LIMBER_ENCODER, LIMBER_NO_WEIGHTS, LIMBER_OK, LIMBER_PANIC, LIMBER_STITCH,
    LIMBER_UNSUPPORTED, LimberDecoder, LimberEncoder, LimberInstance, LimberPart, LimberSink, LimberStatus,
    LimberStitch, read,
};
use serde_json::Value;
use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The table of a component's role.
#[derive(Clone, Copy)]
pub(crate) enum Functions {
    Encoder(LimberEncoder),
    Stitch(LimberStitch),
    Decoder(LimberDecoder),
}

/// A component, as the plugin's table lists it.
pub(crate) struct Component {
    /// The file's name, for messages.
    pub library: String,
    pub raw: *const LimberPart,
    pub table: LimberPart,
    pub functions: Functions,
    pub kind: String,
    pub about: String,
    pub schema: Value,
    pub tiny: Value,
    pub files: Vec<String>,
}

// SAFETY: tables live as long as the process and are not written; their functions may be called from any thread.
unsafe impl Send for Component {}
// SAFETY: as above.
unsafe impl Sync for Component {}

impl Component {
    /// Reads the component at `raw`.
    ///
    /// # Safety
    /// `raw` is null or a component as the ABI says.
    pub(crate) unsafe fn read(raw: *const LimberPart, library: String) -> Result<Self> {
        // SAFETY: by the caller's promise, here and below.
        let table = unsafe { read(raw)? };
        let kind = unsafe { text(table.kind, "its kind") }.map_err(Error::msg)?;
        let is_kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if kind.is_empty() || kind == "auto" || !kind.chars().all(is_kebab) {
            bail!("the kind {kind:?} is not allowed, expected kebab case and not \"auto\"")
        }
        let about = unsafe { text(table.about, "its description") }.map_err(Error::msg)?;
        let functions = unsafe {
            match table.role {
                LIMBER_ENCODER => Functions::Encoder(read(table.encoder)?),
                LIMBER_STITCH => Functions::Stitch(read(table.stitch)?),
                LIMBER_DECODER => Functions::Decoder(read(table.decoder)?),
                other => bail!("{kind:?} has role {other}, expected 1 (encoder), 2 (stitch) or 3 (decoder)"),
            }
        };
        if let Some(missing) = functions.missing() {
            bail!("{kind:?} has no function {missing:?}")
        }
        let json = |at: *const c_char, what: &str| -> Result<Value> {
            let text = unsafe { text(at, what) }.map_err(Error::msg)?;
            let value: Value =
                serde_json::from_str(&text).map_err(|e| anyhow!("{what} of {kind:?} is not JSON: {e}"))?;
            match value {
                Value::Object(_) => Ok(value),
                other => bail!("{what} of {kind:?} is {other}, expected a map"),
            }
        };
        let (schema, tiny) = (json(table.schema, "the schema")?, json(table.tiny, "the tiny preset")?);
        let mut files = unsafe { list(table.files)? };
        if files.is_empty() {
            files = limber_core::registry::DEFAULT_FILES.iter().map(|name| name.to_string()).collect();
        }
        Ok(Self { library, raw, table, functions, kind, about, schema, tiny, files })
    }

    /// The name of its role.
    pub(crate) fn role(&self) -> &'static str {
        match self.functions {
            Functions::Encoder(_) => "encoder",
            Functions::Stitch(_) => "stitch",
            Functions::Decoder(_) => "decoder",
        }
    }

    pub(crate) fn needs_weights(&self) -> bool {
        self.table.flags & LIMBER_NO_WEIGHTS == 0
    }

    /// Calls a function of the plugin, which gets the sink of its message; `what` says what it was to do.
    pub(crate) fn call(
        &self,
        what: &str,
        function: impl FnOnce(*const LimberSink) -> LimberStatus,
    ) -> Result<(), String> {
        let mut message = None;
        let sink = lend::sink(&mut message);
        let status = function(&*sink);
        if status == LIMBER_OK {
            return Ok(());
        }
        let message = message.unwrap_or_else(|| match status {
            LIMBER_PANIC => "it panicked".to_string(),
            LIMBER_UNSUPPORTED => "it cannot do that".to_string(),
            other => format!("status {other} without a message"),
        });
        Err(format!("{}: {what}: {message}", self.label()))
    }

    /// What messages call this component.
    pub(crate) fn label(&self) -> String {
        format!("{} {:?} of plugin {}", self.role(), self.kind, self.library)
    }
}

impl Functions {
    /// The first function that must be there and is not.
    fn missing(&self) -> Option<&'static str> {
        macro_rules! first_missing {
            ($table:ident: $($function:ident)*) => {
                [$((stringify!($function), $table.$function.is_some())),*].into_iter().find(|(_, there)| !there)
            };
        }
        let missing = match self {
            Functions::Encoder(t) => first_missing!(t: prepare build release encode),
            Functions::Stitch(t) => first_missing!(t: prepare build release prefix parameters parameter forward vjp),
            Functions::Decoder(t) => first_missing!(t: prepare build release embed forward cache_new cache_truncate
                cache_select cache_copy cache_append cache_release),
        };
        missing.map(|(name, _)| name)
    }
}

/// A function that [`Functions::missing`] has found to be there.
macro_rules! function {
    ($table:expr, $name:ident) => {
        match $table.$name {
            Some(function) => function,
            None => unreachable!("checked when the component was read"),
        }
    };
}
pub(crate) use function;

/// A built component. Where it is not concurrent, one thread at a time calls it.
pub(crate) struct Instance {
    raw: *mut LimberInstance,
    release: Option<unsafe extern "C" fn(*mut LimberInstance)>,
    lock: Option<Mutex<()>>,
}

// SAFETY: instances may be used from any thread, one at a time unless the component says otherwise, as the ABI says.
unsafe impl Send for Instance {}
// SAFETY: as above; `enter` keeps other threads out.
unsafe impl Sync for Instance {}

impl Instance {
    /// The instance at `raw`, which `build` of this component made.
    pub(crate) fn new(
        raw: *mut LimberInstance,
        release: Option<unsafe extern "C" fn(*mut LimberInstance)>,
        component: &Component,
    ) -> Self {
        let lock = (component.table.flags & LIMBER_CONCURRENT == 0).then(Mutex::default);
        Self { raw, release, lock }
    }

    /// The handle, and what keeps other threads out while it is used.
    pub(crate) fn enter(&self) -> (*mut LimberInstance, Option<MutexGuard<'_, ()>>) {
        (self.raw, self.lock.as_ref().map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: called once, and nothing uses the instance any more.
            unsafe { release(self.raw) };
        }
    }
}
