//! Features that were computed before, from files: `.npy`, `.npz` or safetensors, by their first bytes.
//!
//! One array is the features `[N, E]` of one image. A file with several, such as `limber encode` writes, is named with
//! its array: `FILE#NAME`. A whole data set's features lie in a folder, see [`Stored`]. Sides of length 1 do not count, as in the original, which squeezes what it loads: `[1, N, E]`
//! is read too, and for one token `[E]` or `[1, E, 1, 1]`. Floats and integers of every width become f32.

pub mod manifest;
mod npy;
mod npz;
pub mod stored;

pub use manifest::{Layout, Manifest, Precision};
pub use stored::{Expected, Stored};

use anyhow::{Context, Result, bail};
use limber_core::weights::SharedBytes;
use limber_weights::{Contents, StoredTensor, map, read_safetensors};
use std::path::Path;
use std::sync::Arc;

/// The features `[N, E]` that `name` says, row-major: a file, or `FILE#NAME` for one array of several.
///
/// # Errors
/// A file that is missing, in another format, cut short or hostile, an array that is not there or of another shape,
/// a value that is not finite. The message names the file and what is allowed.
pub fn read(name: &str, n: usize, e: usize) -> Result<Vec<f32>> {
    if name.starts_with("http://") || name.starts_with("https://") {
        bail!("{name}: features are read from files, not from addresses")
    }
    let (file, array) = split(name);
    let bytes = map(Path::new(file)).with_context(|| format!("cannot read the features {file:?}"))?;
    finite(name, select(bytes, array, n, e), e)
}

/// The features `[N, E]` of a file's bytes; `name` is for messages.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(name: &str, bytes: Vec<u8>, n: usize, e: usize) -> Result<Vec<f32>> {
    finite(name, select(Arc::new(bytes), None, n, e), e)
}

/// Refuses values that are not finite.
fn finite(name: &str, values: Result<Vec<f32>, String>, e: usize) -> Result<Vec<f32>> {
    let values = values.map_err(anyhow::Error::msg).with_context(|| format!("features {name:?}"))?;
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        bail!(
            "features {name:?}: the value of token {}, dimension {} is {}, it must be finite",
            at / e,
            at % e,
            values[at]
        )
    }
    Ok(values)
}

/// What an image or a file of features is called in results: its array's name, or the file's stem.
pub fn stem(name: &str) -> Option<&str> {
    match split(name) {
        (_, Some(array)) => Some(array),
        (file, None) => Path::new(file).file_stem()?.to_str(),
    }
}

/// A file and the array in it; a file whose own name has a `#` is that file.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('#') {
        Some((file, array)) if !Path::new(name).exists() && Path::new(file).is_file() => (file, Some(array)),
        _ => (name, None),
    }
}

fn select(bytes: SharedBytes, array: Option<&str>, n: usize, e: usize) -> Result<Vec<f32>, String> {
    let head = (*bytes).as_ref();
    if head.starts_with(npy::MAGIC) {
        if let Some(array) = array {
            return Err(format!("a .npy file is one array without a name, so there is no array {array:?}"));
        }
        return values(&npy::read(bytes, n, e)?, n, e);
    }
    if head.starts_with(b"PK") {
        let mut archive = npz::Archive::open(&bytes)?;
        let name = choose(archive.names().iter().map(String::as_str), array)?;
        let tensor = archive.read(&name, n, e);
        return tensor.and_then(|t| values(&t, n, e)).map_err(|message| format!("array {name:?}: {message}"));
    }
    if head.is_empty() {
        return Err("the file is empty".into());
    }
    if head.get(8) != Some(&b'{') {
        let start = head[..head.len().min(8)].escape_ascii();
        return Err(format!("in no known format (it begins with \"{start}\"); expected .npy, .npz or safetensors"));
    }
    let Contents { tensors, .. } = read_safetensors(bytes)?;
    let name = choose(tensors.keys().map(String::as_str), array)?;
    values(&tensors[&name], n, e).map_err(|message| format!("array {name:?}: {message}"))
}

/// The array that is wanted, or the only one.
fn choose<'a>(names: impl Iterator<Item = &'a str>, wanted: Option<&str>) -> Result<String, String> {
    let names: Vec<&str> = names.collect();
    let listed = || {
        let more = if names.len() > 10 { format!(" and {} more", names.len() - 10) } else { String::new() };
        format!("{}{more}", names[..names.len().min(10)].join(", "))
    };
    match (wanted, names.as_slice()) {
        (_, []) => Err("there is no array in it".into()),
        (Some(wanted), _) if names.contains(&wanted) => Ok(wanted.into()),
        (Some(wanted), _) => Err(format!("there is no array {wanted:?} in it; it holds {}", listed())),
        (None, [only]) => Ok((*only).into()),
        (None, _) => Err(format!("it holds {} arrays; name one as FILE#NAME: {}", names.len(), listed())),
    }
}

/// Refuses a shape that is not N x E, sides of length 1 left out.
fn check(shape: &[usize], n: usize, e: usize) -> Result<(), String> {
    let squeezed = |shape: &[usize]| shape.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
    if squeezed(shape) == squeezed(&[n, e]) {
        return Ok(());
    }
    let one = if n == 1 { format!(" or [{e}]") } else { String::new() };
    Err(format!(
        "shape {shape:?} does not fit; expected [{n}, {e}]{one}, tokens x width, as the encoder's settings say"
    ))
}

fn values(tensor: &StoredTensor, n: usize, e: usize) -> Result<Vec<f32>, String> {
    check(&tensor.shape, n, e)?;
    let element = tensor.element.name().to_lowercase();
    tensor
        .numbers()?
        .ok_or_else(|| format!("elements of type {element} cannot be features; expected floats or integers"))
}
