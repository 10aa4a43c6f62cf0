//! Where frozen weights come from: files, folders, the Hugging Face cache, bytes in the program, random numbers.
//!
//! [`open`] turns a config's `weights` line into a source of named tensors. Files are memory-mapped: opening reads
//! headers alone, and a tensor stays where it lies in the file until a component converts it.
//! What a file is, is told by its first bytes: safetensors, a PyTorch archive (`.bin`, `.pt`, `.pth`, `.ckpt`,
//! TorchScript), the PyTorch format of before 2020, GGUF, or the index of a sharded checkpoint.
//! Pickles are read by an allow-list reader that never executes anything.
//!
//! Names: where every tensor of a checkpoint is named `module.*`, as `DataParallel` and DeepSpeed save them, they are
//! listed without that prefix. Where a pickle's dictionary holds no tensor itself but a dictionary `state_dict`,
//! `model_state_dict`, `model` or `module`, that one is listed. Other nested dictionaries give dotted names.

pub mod cache;
mod checkpoint;
mod convert;
mod folder;
mod format;
mod gguf;
mod mapped;
mod nothing;
mod pickle;
mod safetensors;
mod sharded;
mod spec;
mod stored;
mod torch;
mod write;

pub use checkpoint::{Checkpoint, Contents};
pub use convert::{Container, Conversion, ConvertOptions, ConvertProgress, ConvertSummary, convert};
pub use gguf::{DecoderDocuments, write as convert_to_gguf};
pub use mapped::map;
pub use safetensors::read as read_safetensors;
pub use sharded::shards as shard_names;
pub use spec::{WebFile, WeightSpec, is_inside};
pub use stored::{Element, Storage, StoredTensor};
pub use write::{fill, fill_through, replace, save, save_through};

use anyhow::{Context, Result, anyhow, bail};
use folder::Folder;
use limber_core::random::RandomSource;
use limber_core::weights::{WeightError, WeightSource};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The source that `spec` names. `files` are looked for where it names a folder, the first that is there is read;
/// relative paths start at `base`, the config's folder.
///
/// # Errors
/// What is missing, unreadable or hostile, naming the file and what was expected of it.
pub fn open(spec: &WeightSpec, files: &[&str], base: &Path) -> Result<Arc<dyn WeightSource>> {
    match spec {
        WeightSpec::Random(seed) => Ok(Arc::new(RandomSource::new(*seed))),
        _ => Ok(Arc::new(open_checkpoint(spec, files, base)?)),
    }
}

/// A text of the folder `path` as a checkpoint in it reads it: `tokenizer.json` is made of `tokenizer.model` where there is
/// none. None where there is no such file.
///
/// # Errors
/// A file that cannot be read.
pub fn document(path: &Path, name: &str) -> Result<Option<String>, WeightError> {
    Folder::disk(path).document(name)
}

/// The source of a component that reads no weights.
pub fn none() -> Arc<dyn WeightSource> {
    Arc::new(nothing::Nothing)
}

/// As [`open`], for a source that lies in files, with all that is known of its tensors.
///
/// # Errors
/// As [`open`]; random weights have no files.
pub fn open_checkpoint(spec: &WeightSpec, files: &[&str], base: &Path) -> Result<Checkpoint> {
    let path = match spec {
        WeightSpec::Random(seed) => bail!("random:{seed} draws tensors when they are asked for, it has no files"),
        WeightSpec::Local(path) => base.join(path),
        WeightSpec::Web(file) => return open_file(file, files, base),
        WeightSpec::Hub { .. } => cache::locate(spec, files, &cache::cache_folder()?)?,
    };
    let (folder, name) = choose(&path, files).map_err(|error| match spec {
        WeightSpec::Local(text) if !path.exists() => anyhow!("{error}{}", WeightSpec::hub_hint(text)),
        _ => error.into(),
    })?;
    Ok(format::open(folder, &name)?)
}

/// The folder and the name of the file that `path` names or holds.
fn choose(path: &Path, files: &[&str]) -> Result<(Folder, String), WeightError> {
    if !path.is_dir() {
        return folder::split(path);
    }
    let folder = Folder::disk(path);
    let name = folder.choose(files)?;
    Ok((folder, name))
}

/// The local file that takes precedence over an address, with the address's sha256, or else the one in the cache.
fn open_file(file: &WebFile, files: &[&str], base: &Path) -> Result<Checkpoint> {
    if let Some(path) = file.here(base) {
        let (folder, name) = choose(&path, files)?;
        let cache = cache::cache_folder().ok();
        if let (Some(expected), Some(at)) = (&file.sha256, folder.path().map(|folder| folder.join(&name)))
            && let Some(found) = cache::other_hash(&at, expected, cache.as_deref())?
        {
            let place = at.display();
            bail!(
                "{place} (local) has the sha256 {found}, expected is {expected}, that of the file at {}",
                file.address
            )
        }
        return Ok(format::open(folder, &name)?);
    }
    let path = cache::locate_file(file, &cache::cache_folder()?, None)?;
    let (folder, name) = folder::split(&path)?;
    format::open(folder, &name).with_context(|| {
        format!("{} came as it is there; once {} is removed it is downloaded again", file.address, path.display())
    })
}

/// The folder in which `spec`'s weights lie, where tokenizer and config files are looked for; None where they lie in
/// no folder or it is not there.
pub fn folder_of(spec: &WeightSpec, base: &Path) -> Option<PathBuf> {
    let path = match spec {
        WeightSpec::Random(_) => return None,
        WeightSpec::Local(path) => base.join(path),
        WeightSpec::Web(_) => path_of(spec, base)?,
        WeightSpec::Hub { .. } => cache::snapshot_path(spec, &cache::cache_folder().ok()?).ok()?,
    };
    if path.is_dir() { Some(path) } else { path.parent().filter(|p| p.is_dir()).map(Path::to_path_buf) }
}

/// The file or folder of `spec` on this machine, where it is there: a path from `base`, else from the working folder; of an
/// address, the path that takes precedence over it, else its file in the cache.
pub fn path_of(spec: &WeightSpec, base: &Path) -> Option<PathBuf> {
    match spec {
        WeightSpec::Random(_) => None,
        WeightSpec::Local(path) => [base.join(path), PathBuf::from(path)].into_iter().find(|path| path.exists()),
        WeightSpec::Web(file) => {
            file.here(base).or_else(|| cache::snapshot_path(spec, &cache::cache_folder().ok()?).ok())
        }
        WeightSpec::Hub { .. } => {
            cache::snapshot_path(spec, &cache::cache_folder().ok()?).ok().filter(|path| path.exists())
        }
    }
}

/// A source over files that are compiled into the program, read as a folder of them would be.
///
/// # Errors
/// As [`open`].
pub fn embedded(
    label: &str,
    files: &[(&'static str, &'static [u8])],
    candidates: &[&str],
) -> Result<Arc<dyn WeightSource>> {
    let folder = Folder::embedded(label, files);
    let name = folder.choose(candidates)?;
    Ok(Arc::new(format::open(folder, &name)?))
}
