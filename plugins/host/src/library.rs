//! Opening a library: the file, its hash, its symbol, the handshake. What was opened stays for ever.

use crate::handshake::{self, Plugin};
use crate::{abi_version, entry};
use anyhow::{Context, Result, bail};
use limber_core::registry::Entry;
use limber_core::{Registry, hash};
use limber_plugin_abi::{ENTRY_NAME, LIMBER_ABI_MAJOR, LimberEntry};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A library that was opened, and its components.
#[derive(Clone)]
pub struct Library {
    path: PathBuf,
    plugin: Arc<Plugin>,
}

/// Every library of this process by its canonical path: a second config that names one gets the same tables.
static OPENED: Mutex<BTreeMap<PathBuf, Arc<Plugin>>> = Mutex::new(BTreeMap::new());

/// Opens the library at `path` and shakes hands. `sha256`, in hexadecimal, must be the hash of its bytes where it is given.
///
/// The path leads to a file as it stands; no search path of the system is asked.
///
/// # Errors
/// A file that cannot be read or is no library, another hash, no entry symbol or one of another major version, a table
/// that is not as the ABI says.
pub fn open(path: &Path, sha256: Option<&str>) -> Result<Library> {
    let context = || format!("plugin {}", path.display());
    // An absolute path holds a separator, so that the loader does not go and look for a name.
    let full = path.canonicalize().with_context(context)?;
    if !full.is_file() {
        bail!("plugin {}: it is not a file; a plugin is one dynamic library", path.display())
    }
    if let Some(expected) = sha256 {
        let found = std::fs::File::open(&full).and_then(hash::sha256).with_context(context)?;
        if !found.eq_ignore_ascii_case(expected) {
            bail!("plugin {}: its SHA-256 is {found}, the config says {expected}", path.display())
        }
    }
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let plugin = match opened.get(&full) {
        Some(plugin) => plugin.clone(),
        None => {
            let plugin = Arc::new(load(&full).with_context(context)?);
            opened.insert(full.clone(), plugin.clone());
            plugin
        }
    };
    Ok(Library { path: full, plugin })
}

impl Library {
    /// The file, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that its author gave it.
    pub fn name(&self) -> &str {
        &self.plugin.name
    }

    /// Its own version.
    pub fn version(&self) -> &str {
        &self.plugin.version
    }

    /// The version of the ABI that it asks for.
    pub fn abi(&self) -> &str {
        &self.plugin.abi
    }

    /// What it says it was built with; empty where it says nothing.
    pub fn built_with(&self) -> &str {
        &self.plugin.built_with
    }

    /// Its components, as the registry has them.
    pub fn entries(&self) -> Vec<Entry> {
        self.plugin.components.iter().map(|component| entry::of(component.clone(), &self.path, &self.plugin)).collect()
    }

    /// Inserts all components.
    ///
    /// # Errors
    /// A kind that is there already.
    pub fn register(&self, registry: &mut Registry) -> Result<()> {
        self.entries().into_iter().try_for_each(|entry| registry.insert(entry))
    }

    /// A registry of its components alone.
    ///
    /// # Errors
    /// A kind that it has twice.
    pub fn registry(&self) -> Result<Registry> {
        let mut registry = Registry::new();
        self.register(&mut registry)?;
        Ok(registry)
    }
}

/// Opens the library of the crate `name` (with `_`), which Cargo built beside the test that runs: for a plugin's own test.
///
/// # Errors
/// As [`open`]; where it was not built.
pub fn open_built(name: &str) -> Result<Library> {
    let test = std::env::current_exe().context("this test has no file")?;
    let file = format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    open(&test.with_file_name(file), None)
}

/// A program linked statically against musl: its `dlopen` is there and always fails.
const IS_STATIC: bool = cfg!(all(target_env = "musl", target_feature = "crt-static"));

/// A program that `is_static` is told so, instead of what its `dlopen` says.
fn needs_loader(is_static: bool) -> Result<()> {
    if is_static {
        bail!(
            "this limber is the static program for musl, which cannot load libraries; plugins need the program for glibc \
             (the release's archive *-unknown-linux-gnu)"
        )
    }
    Ok(())
}

fn load(path: &Path) -> Result<Plugin> {
    needs_loader(IS_STATIC)?;
    let library = map(path).map_err(|e| anyhow::anyhow!("it cannot be loaded: {}", cause(&e)))?;
    // SAFETY: the name is that of a function of this type, by the ABI.
    let entry = unsafe { library.get::<LimberEntry>(ENTRY_NAME.to_bytes_with_nul()) }.map(|symbol| *symbol);
    let other = (0..=9).filter(|major| *major != LIMBER_ABI_MAJOR).find(|major| {
        let name = format!("limber_plugin_v{major}\0");
        // SAFETY: the symbol is looked for, not used.
        unsafe { library.get::<*const ()>(name.as_bytes()) }.is_ok()
    });
    // Threads, thread locals and registered destructors of the library may outlive any moment of unloading.
    std::mem::forget(library);
    match (entry, other) {
        (Ok(entry), _) => handshake::shake(entry, path),
        (Err(_), Some(major)) => bail!(
            "it was built for plugin ABI {major}, this limber speaks {}; build it again with this limber's SDK or header",
            abi_version()
        ),
        (Err(_), None) => bail!(
            "it has no symbol {:?}, so it is no limber plugin (or its export_plugin! line is missing)",
            ENTRY_NAME.to_string_lossy()
        ),
    }
}

/// Maps the library into this process, all symbols bound at once: one that is missing is an error here, and not the end
/// of the process at its first call.
#[cfg(unix)]
fn map(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix;
    // SAFETY: constructors of the library run here. That this code may run at all is the user's decision, who named it.
    unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL) }.map(Into::into)
}

/// Maps the library into this process.
#[cfg(not(unix))]
fn map(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: as above.
    unsafe { libloading::Library::new(path) }
}

/// What the system's loader says, without its wrapping.
fn cause(error: &libloading::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_says_why_it_loads_no_plugin() {
        let message = needs_loader(true).unwrap_err().to_string();
        assert!(message.contains("static program for musl, which cannot load libraries"), "{message}");
        assert!(message.contains("*-unknown-linux-gnu"), "{message}");
        assert!(needs_loader(false).is_ok());
        // The tests' own program is no plugin, and what is said of it depends on how it was linked.
        let refusal = open(&std::env::current_exe().unwrap(), None).map(|_| ()).unwrap_err();
        let says_why = format!("{refusal:#}").contains("static program for musl");
        assert_eq!(says_why, IS_STATIC, "{refusal:#}");
    }
}
