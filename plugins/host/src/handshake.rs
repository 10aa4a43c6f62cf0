//! The handshake: the host's table, the plugin's table, what each asks of the other.

use crate::component::Component;
use anyhow::{Context, Error, Result, bail};
use limber_plugin_abi::lend::{self, c_text, text};
use limber_plugin_abi::{
    LIMBER_ABI_MAJOR, LIMBER_ABI_MINOR, LIMBER_LOG_DEBUG, LIMBER_LOG_ERROR, LIMBER_LOG_INFO, LIMBER_LOG_TRACE,
    LIMBER_LOG_WARN, LimberEntry, LimberHost, read,
};
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::ptr::null;
use std::sync::Arc;

/// What this host can do beyond the tables of its minor version; none yet.
const FEATURES: [&str; 0] = [];

/// Maximum number of components of one plugin: a table that says more is not a table.
const MOST_COMPONENTS: u32 = 4096;

/// A plugin after the handshake.
pub(crate) struct Plugin {
    pub name: String,
    pub version: String,
    pub abi: String,
    pub built_with: String,
    pub components: Vec<Arc<Component>>,
}

/// Calls the entry and reads what it gives.
pub(crate) fn shake(entry: LimberEntry, path: &Path) -> Result<Plugin> {
    let label = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let host = host(label);
    let mut message = None;
    let sink = lend::sink(&mut message);
    // SAFETY: the entry has this type by its name; the host's table lives for ever, the sink beyond the call.
    let plugin = unsafe { entry(host, &*sink) };
    if plugin.is_null() {
        bail!("it refuses to start: {}", message.as_deref().unwrap_or("it gives no reason"))
    }
    // SAFETY: the plugin keeps the ABI's promise that this is its table and lives for ever.
    unsafe {
        let table = read(plugin)?;
        let abi = format!("{}.{}", table.abi_major, table.version);
        if table.abi_major != LIMBER_ABI_MAJOR {
            bail!("it was built for plugin ABI {abi}, this limber speaks {LIMBER_ABI_MAJOR}.{LIMBER_ABI_MINOR}")
        }
        if table.version > LIMBER_ABI_MINOR {
            bail!(
                "it needs plugin ABI {abi}, this limber speaks {LIMBER_ABI_MAJOR}.{LIMBER_ABI_MINOR}; a newer limber is needed"
            )
        }
        if let Some(unknown) = list(table.required)?.iter().find(|name| !FEATURES.contains(&name.as_str())) {
            let known = if FEATURES.is_empty() { "none".to_string() } else { FEATURES.join(", ") };
            bail!("it needs a host with the feature {unknown:?}; this one has: {known}")
        }
        let name = text(table.name, "its name").map_err(Error::msg)?;
        let version = text(table.release, "its version").map_err(Error::msg)?;
        let built_with = if table.built_with.is_null() {
            String::new()
        } else {
            text(table.built_with, "what it was built with").map_err(Error::msg)?
        };
        if table.n_parts == 0 || table.n_parts > MOST_COMPONENTS || table.parts.is_null() {
            bail!("its table lists {} components, expected 1 to {MOST_COMPONENTS}", table.n_parts)
        }
        let pointers = std::slice::from_raw_parts(table.parts, table.n_parts as usize);
        let mut components = Vec::new();
        for (index, component) in pointers.iter().enumerate() {
            components.push(Arc::new(
                Component::read(*component, label_of(path)).with_context(|| format!("component {index}"))?,
            ));
        }
        Ok(Plugin { name, version, abi, built_with, components })
    }
}

fn label_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Texts that end in a null pointer; none where the pointer is null.
///
/// # Safety
/// `list` is null or such a list.
pub(crate) unsafe fn list(list: *const *const c_char) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    if list.is_null() {
        return Ok(texts);
    }
    // SAFETY: by the caller's promise the list goes on to its null pointer.
    unsafe {
        for index in 0.. {
            let item = *list.add(index);
            if item.is_null() {
                break;
            }
            texts.push(text(item, "an entry of a list").map_err(Error::msg)?);
        }
    }
    Ok(texts)
}

/// The host's table for the library `label`, for ever.
fn host(label: String) -> *const LimberHost {
    let features: Vec<*const c_char> =
        FEATURES.iter().map(|name| c_text(name).into_raw().cast_const()).chain([null()]).collect();
    Box::leak(Box::new(LimberHost {
        name: c_text(concat!("limber ", env!("CARGO_PKG_VERSION"))).into_raw(),
        features: Box::leak(features.into_boxed_slice()).as_ptr(),
        threads: rayon::current_num_threads() as u32,
        log_level: log_level(),
        context: (Box::leak(Box::new(label)) as *const String).cast(),
        log: Some(log),
        ..LimberHost::empty()
    }))
}

/// The most detailed level that a subscriber here may show.
fn log_level() -> u32 {
    use tracing::level_filters::LevelFilter;
    match LevelFilter::current() {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => LIMBER_LOG_ERROR,
        LevelFilter::WARN => LIMBER_LOG_WARN,
        LevelFilter::INFO => LIMBER_LOG_INFO,
        LevelFilter::DEBUG => LIMBER_LOG_DEBUG,
        _ => LIMBER_LOG_TRACE,
    }
}

unsafe extern "C" fn log(context: *const c_void, level: u32, target: *const c_char, message: *const c_char) {
    // A subscriber that panics must not unwind into the plugin.
    let _ = std::panic::catch_unwind(|| {
        // SAFETY: the context is the label of `host`; texts are null or end in a zero byte, as the ABI says.
        let (library, target, message) = unsafe {
            let lossy = |text: *const c_char| match text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            };
            let library = context.cast::<String>().as_ref().map_or("", String::as_str);
            (library, lossy(target), lossy(message))
        };
        match level {
            LIMBER_LOG_ERROR => tracing::error!(target: "limber_plugin", library, at = target, "{message}"),
            LIMBER_LOG_WARN => tracing::warn!(target: "limber_plugin", library, at = target, "{message}"),
            LIMBER_LOG_INFO => tracing::info!(target: "limber_plugin", library, at = target, "{message}"),
            LIMBER_LOG_DEBUG => tracing::debug!(target: "limber_plugin", library, at = target, "{message}"),
            _ => tracing::trace!(target: "limber_plugin", library, at = target, "{message}"),
        }
    });
}
