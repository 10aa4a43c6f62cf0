//! Safetensors files, written whole or not at all: a temporary file in the same folder, then a rename.
//!
//! The header is JSON in a fixed order, so that the same tensors give the same bytes.
//! The format has no block types: a quantised matrix `[n, m]` is written as bytes `[n, bytes of a row]`, and the metadata
//! entry `limber.types` names the type of each such tensor.

use anyhow::{Context, Result, ensure};
use limber_core::WeightType;
use limber_core::weights::FrozenData;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The name that the format keeps for itself.
const METADATA: &str = "__metadata__";

/// The metadata entry that names the types of quantised tensors, a JSON map.
pub const TYPES: &str = "limber.types";

/// One tensor to be written.
#[derive(Debug, Clone)]
pub struct Planned<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type, in safetensors' spelling.
    pub element: &'static str,
    /// Its type where that is quantised, which the format cannot say.
    pub quantised: Option<WeightType>,
    /// Bytes of one element, which order the file so that every tensor is aligned.
    pub size: usize,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Its length in bytes.
    pub bytes: usize,
}

/// Saves tensors and metadata as one safetensors file. What was at `path` stays until the new file is complete.
///
/// # Errors
/// A folder that is not there or cannot be written, a full disk, a tensor named `__metadata__`.
pub fn save(path: &Path, tensors: &BTreeMap<String, FrozenData>, metadata: &BTreeMap<String, String>) -> Result<()> {
    fill(path, |file| put(file, tensors, metadata))
}

/// As [`save`], through the temporary file `part`, see [`fill_through`].
///
/// # Errors
/// As [`save`].
pub fn save_through(
    path: &Path,
    part: &Path,
    tensors: &BTreeMap<String, FrozenData>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    fill_through(path, part, true, |file| put(file, tensors, metadata))
}

fn put(
    file: &mut BufWriter<&mut File>,
    tensors: &BTreeMap<String, FrozenData>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut planned: Vec<Planned> = tensors.iter().map(|(name, data)| plan(name, data)).collect();
    sort(&mut planned);
    file.write_all(&header(&planned, metadata)?)?;
    for tensor in &planned {
        file.write_all(tensors[tensor.name].bytes())?;
    }
    Ok(())
}

fn plan<'a>(name: &'a str, data: &'a FrozenData) -> Planned<'a> {
    Planned::weight(name, data.dtype(), data.shape(), data.bytes().len())
}

impl<'a> Planned<'a> {
    /// A weight of this type, shape and length in bytes.
    pub fn weight(name: &'a str, dtype: WeightType, shape: &[usize], bytes: usize) -> Self {
        let mut shape = shape.to_vec();
        let quantised = dtype.is_quantised().then_some(dtype);
        if let (Some(_), Some(last)) = (quantised, shape.last_mut()) {
            let (numbers, size) = dtype.block();
            *last = *last / numbers * size;
        }
        let (element, size) = match dtype {
            WeightType::F32 => ("F32", 4),
            WeightType::F16 => ("F16", 2),
            WeightType::Bf16 => ("BF16", 2),
            WeightType::Q8_0 | WeightType::Q4K | WeightType::Blocks(_) => ("U8", 1),
        };
        Planned { name, element, quantised, size, shape, bytes }
    }
}

/// The order of a file: the largest element type first, then by name.
pub fn sort(planned: &mut [Planned]) {
    planned.sort_by(|a, b| b.size.cmp(&a.size).then(a.name.cmp(b.name)));
}

/// The length and the header of a file of these tensors in this order, padded to 8 bytes.
///
/// # Errors
/// A tensor named `__metadata__`.
pub fn header(planned: &[Planned], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut map = Map::new();
    let mut metadata = metadata.clone();
    let types: BTreeMap<&str, &str> =
        planned.iter().filter_map(|tensor| Some((tensor.name, tensor.quantised?.name()))).collect();
    metadata.remove(TYPES);
    if !types.is_empty() {
        metadata.insert(TYPES.to_string(), serde_json::to_string(&types)?);
    }
    if !metadata.is_empty() {
        map.insert(METADATA.to_string(), json!(metadata));
    }
    let mut start = 0;
    for tensor in planned {
        ensure!(tensor.name != METADATA, "no tensor can be named {METADATA:?} in a safetensors file");
        let end = start + tensor.bytes;
        let entry = json!({"dtype": tensor.element, "shape": tensor.shape, "data_offsets": [start, end]});
        map.insert(tensor.name.to_string(), entry);
        start = end;
    }
    let mut text = serde_json::to_vec(&Value::Object(map))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.append(&mut text);
    Ok(out)
}

/// Writes `bytes` to `path`, whole or not at all.
///
/// # Errors
/// As [`save`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    fill(path, |file| Ok(file.write_all(bytes)?))
}

/// Writes a file through `fill` and puts it at `path` once it is complete and on the disk.
///
/// # Errors
/// What `fill` or the disk says; then `path` is as it was, and nothing else is left behind.
pub fn fill(path: &Path, fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "{}: there is no folder {}", path.display(), folder.display());
    ensure!(!path.is_dir(), "{}: a folder where a file is wanted", path.display());
    let write = || -> Result<()> {
        let mut temporary = new_file(folder)?;
        put_down(temporary.as_file_mut(), true, fill)?;
        temporary.persist(path)?;
        keep_names(folder);
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// As [`fill`], through a temporary file of a name of its own: what a run that was killed has left there, the next run,
/// which makes the same file again, writes over. Without `durable` the disk may keep the name before the bytes.
///
/// # Errors
/// As [`fill`].
pub fn fill_through(
    path: &Path,
    part: &Path,
    durable: bool,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>,
) -> Result<()> {
    let write = || -> Result<()> {
        put_down(&mut File::create(part)?, durable, fill)?;
        std::fs::rename(part, path)?;
        if durable && let Some(folder) = path.parent() {
            keep_names(folder);
        }
        Ok(())
    };
    let written = write().with_context(|| format!("cannot write {}", path.display()));
    if written.is_err() {
        std::fs::remove_file(part).ok();
    }
    written
}

/// Writes through a buffer, with `durable` to the disk itself.
fn put_down(file: &mut File, durable: bool, fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>) -> Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, &mut *file);
    fill(&mut writer)?;
    writer.flush()?;
    drop(writer);
    if durable {
        file.sync_all()?;
    }
    Ok(())
}

/// A rename lasts only once the folder is on the disk; systems without that notion say no here.
fn keep_names(folder: &Path) {
    File::open(folder).and_then(|f| f.sync_all()).ok();
}

/// A temporary file with the permissions of an ordinary one.
fn new_file(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".limber-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
        builder.tempfile_in(folder)
    }
    #[cfg(not(unix))]
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use half::{bf16, f16};

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut tensors = BTreeMap::new();
        tensors.insert("h".to_string(), FrozenData::from_f16(vec![f16::ONE; 3], &[3]));
        tensors.insert("b".to_string(), FrozenData::from_bf16(vec![bf16::ONE; 2], &[1, 2]));
        tensors.insert("f".to_string(), FrozenData::from_f32(vec![1.0, 2.0], &[2]));
        tensors.insert("scalar".to_string(), FrozenData::from_f32(vec![7.0], &[]));
        tensors.insert("none".to_string(), FrozenData::from_f32(vec![], &[0, 4]));
        let metadata = BTreeMap::from([("kind".to_string(), "linear \"x\"".to_string())]);
        save(&path, &tensors, &metadata).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.len(), 5);
        for (name, data) in &tensors {
            let tensor = read.tensor(name).unwrap();
            assert_eq!((tensor.shape(), tensor.data()), (data.shape(), data.bytes()), "{name}");
        }
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["kind"], "linear \"x\"");
        save(&path, &tensors, &metadata).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_failed_save_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        std::fs::write(&path, "old").unwrap();
        let error = fill(&path, |file| {
            file.write_all(&[0; 1 << 21])?;
            bail!("no space left on device")
        });
        assert!(format!("{:#}", error.unwrap_err()).ends_with("a.safetensors: no space left on device"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let reserved = BTreeMap::from([(METADATA.to_string(), FrozenData::from_f32(vec![], &[0]))]);
        assert!(save(&path, &reserved, &BTreeMap::new()).is_err());
        let nowhere = save(&folder.path().join("x/a"), &BTreeMap::new(), &BTreeMap::new());
        assert!(nowhere.unwrap_err().to_string().contains("there is no folder"));
        let onto = save(folder.path(), &BTreeMap::new(), &BTreeMap::new());
        assert!(onto.unwrap_err().to_string().contains("a folder where a file is wanted"));
    }

    #[cfg(unix)]
    #[test]
    fn a_saved_file_has_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("a"), folder.path().join("b"));
        save(&ours, &BTreeMap::new(), &BTreeMap::new()).unwrap();
        std::fs::write(&plain, "").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
