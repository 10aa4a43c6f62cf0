//! The plugin's table: every component that is registered in this library, laid out once and kept for ever.

use crate::call::{self, exported, guard};
use crate::source::HostSource;
use crate::{decoder, encoder, log, stitch};
use anyhow::{Context, Result, bail};
use limber_core::registry::{Entry, Maker};
use limber_core::{Registry, WeightSource, WeightType, Weights};
use limber_plugin_abi::lend::c_text;
use limber_plugin_abi::{
    LIMBER_ABI_MAJOR, LIMBER_CONCURRENT, LIMBER_DECODER, LIMBER_ENCODER, LIMBER_NO_WEIGHTS, LIMBER_OK, LIMBER_STITCH,
    LimberBuild, LimberHost, LimberPart, LimberPlugin, LimberSink, LimberSource, read,
};
use serde_json::Value;
use std::error::Error as _;
use std::ffi::{c_char, c_void};
use std::ptr::null;
use std::sync::{Arc, OnceLock};

/// The table, made at the first call.
struct Tables(*const LimberPlugin);

// SAFETY: the tables are never written after they were made, and what they point to is never freed.
unsafe impl Send for Tables {}
// SAFETY: as above.
unsafe impl Sync for Tables {}

static TABLES: OnceLock<Tables> = OnceLock::new();

/// What `export_plugin!` makes the entry symbol of.
///
/// # Safety
/// `host` and `error` are null or as the ABI says.
pub unsafe fn entry(
    host: *const LimberHost,
    error: *const LimberSink,
    name: &'static str,
    version: &'static str,
) -> *const LimberPlugin {
    if let Some(tables) = TABLES.get() {
        return tables.0;
    }
    let mut plugin = null();
    let body = || {
        call::quiet_panics();
        // SAFETY: by the caller's promise.
        let host = unsafe { read(host)? };
        log::bridge(host);
        let threads = host.threads.max(1) as usize;
        match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
            Err(error) if error.source().is_some() => {
                bail!("cannot start {threads} threads: {error}")
            }
            // The component may have made its pool already where it was called before; then that one stays.
            _ => {}
        }
        let table = tables(name, version)?;
        plugin = TABLES.get_or_init(|| Tables(table)).0;
        Ok(())
    };
    // SAFETY: by the caller's promise.
    match unsafe { guard(error, body) } {
        LIMBER_OK => plugin,
        _ => null(),
    }
}

/// A text for ever.
fn kept(text: &str) -> *const c_char {
    c_text(text).into_raw()
}

/// Texts for ever, ended by a null pointer.
fn kept_list<'a>(texts: impl Iterator<Item = &'a str>) -> *const *const c_char {
    let list: Vec<*const c_char> = texts.map(kept).chain([null()]).collect();
    Box::leak(list.into_boxed_slice()).as_ptr()
}

fn tables(name: &str, version: &str) -> Result<*const LimberPlugin> {
    let registry = Registry::from_inventory()?;
    let components: Vec<*const LimberPart> = registry.entries().map(component).collect();
    if components.is_empty() {
        bail!(
            "{name} registers no component; a crate that only links its components must name each: `use my_component as _;`"
        )
    }
    Ok(Box::leak(Box::new(LimberPlugin {
        // This is what 1.0 has; a component that needs more of its host says so here.
        version: 0,
        abi_major: LIMBER_ABI_MAJOR,
        n_parts: components.len() as u32,
        name: kept(name),
        release: kept(version),
        built_with: kept(concat!("limber-sdk ", env!("CARGO_PKG_VERSION"))),
        required: null(),
        parts: Box::leak(components.into_boxed_slice()).as_ptr(),
        ..LimberPlugin::empty()
    })))
}

fn component(entry: &Entry) -> *const LimberPart {
    let entry: &'static Entry = Box::leak(Box::new(entry.clone()));
    let mut component = LimberPart {
        // limber-core's components are `Sync`.
        flags: LIMBER_CONCURRENT | if entry.needs_weights { 0 } else { LIMBER_NO_WEIGHTS },
        kind: kept(&entry.kind),
        about: kept(&entry.about),
        schema: kept(&entry.schema.to_string()),
        tiny: kept(&entry.tiny.to_string()),
        files: kept_list(entry.files.iter().map(String::as_str)),
        context: (entry as *const Entry).cast::<c_void>(),
        recognises: Some(recognises),
        ..LimberPart::empty()
    };
    match &entry.maker {
        Maker::Encoder(_) => {
            (component.role, component.encoder) = (LIMBER_ENCODER, Box::leak(Box::new(encoder::table())))
        }
        Maker::Stitch(_) => (component.role, component.stitch) = (LIMBER_STITCH, Box::leak(Box::new(stitch::table()))),
        Maker::Decoder(_) => {
            (component.role, component.decoder) = (LIMBER_DECODER, Box::leak(Box::new(decoder::table())))
        }
    }
    Box::leak(Box::new(component))
}

/// The entry behind a component.
///
/// # Safety
/// `component` is null or one of this library's.
pub(crate) unsafe fn entry_of(component: *const LimberPart) -> Result<&'static Entry> {
    // SAFETY: by the caller's promise.
    let component = unsafe { read(component)? };
    // SAFETY: `context` is the entry that was kept for ever.
    unsafe { component.context.cast::<Entry>().as_ref() }.context("the component has no context")
}

/// Settings that the host gave.
///
/// # Safety
/// `settings` is null or ends in a zero byte.
pub(crate) unsafe fn settings(settings: *const c_char) -> Result<Value> {
    // SAFETY: by the caller's promise.
    let text = unsafe { call::text(settings, "settings")? };
    serde_json::from_str(&text).context("the settings are not JSON")
}

/// The weights of a build, closed when this goes.
pub(crate) struct Lent(Arc<HostSource>);

impl Lent {
    /// # Safety
    /// `source` is null or a source as the ABI says, which lives as long as this.
    pub(crate) unsafe fn new(source: *const LimberSource) -> Result<Self> {
        // SAFETY: by the caller's promise.
        Ok(Self(Arc::new(unsafe { HostSource::new(source)? })))
    }

    pub(crate) fn source(&self) -> &dyn WeightSource {
        self.0.as_ref()
    }

    /// # Safety
    /// `options` is null or as the ABI says.
    pub(crate) unsafe fn weights(&self, options: *const LimberBuild) -> Result<Weights> {
        // SAFETY: by the caller's promise.
        let options = unsafe { read(options)? };
        let dtype = match options.format.is_null() {
            true => None,
            false => {
                // SAFETY: by the caller's promise.
                let name = unsafe { call::text(options.format, "format")? };
                Some(WeightType::named(&name).with_context(|| format!("the format {name:?} is unknown"))?)
            }
        };
        Ok(Weights::new(self.0.clone(), candle_core::Device::Cpu, dtype))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.close();
    }
}

exported! {
    fn recognises(component: *const LimberPart, source: *const LimberSource, yes: *mut i32) {
        let source = Lent::new(source)?;
        let found = (entry_of(component)?.recognises)(source.source())?;
        call::set(yes, i32::from(found))
    }
}

/// A handle of the host's for `value`.
pub(crate) fn handle<H, T>(value: T) -> *mut H {
    Box::into_raw(Box::new(value)).cast()
}

/// Frees what is behind a handle; a panic of its `drop` is caught.
///
/// # Safety
/// `handle` is null, or came from [`handle`] for a `T` and is not used again.
pub(crate) unsafe extern "C" fn release<H, T>(handle: *mut H) {
    if !handle.is_null() {
        // SAFETY: by the caller's promise. Without a sink the message is lost, and nobody could act on it.
        unsafe {
            guard(null(), || {
                drop(Box::from_raw(handle.cast::<T>()));
                Ok(())
            });
        }
    }
}
