//! Features that `limber encode --data` or the original wrote, read item by item in place of images.

use super::manifest::{Done, Layout, Manifest, Precision, Skipped, npy_file};
use crate::Item;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use limber_core::FeatureSpec;
use limber_core::weights::FrozenData;
use safetensors::tensor::Metadata;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The metadata entry of a block that names items without features, a JSON map of key and reason.
pub const SKIPPED: &str = "limber.skipped";
/// Largest header of a block.
const HEADER_LIMIT: u64 = 100_000_000;
/// Blocks that are not there and that a message names.
const NAMED: usize = 5;

/// The encoder whose features are looked for.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Their sizes.
    pub features: FeatureSpec,
    /// Kind and fingerprint of the encoder; None where it takes features itself, so that any encoder's will do.
    pub encoder: Option<(String, String)>,
    /// Where tensors go.
    pub device: Device,
}

/// A folder of features.
pub struct Stored {
    folder: PathBuf,
    features: FeatureSpec,
    /// None where the original wrote it.
    manifest: Option<Manifest>,
    /// What of the blocks is known: 16 bytes an item.
    blocks: Mutex<HashMap<usize, Arc<Block>>>,
    device: Device,
}

/// Where the tensors of a block lie.
struct Block {
    /// Hash of the key and first byte, by hash.
    tensors: Vec<(u64, u64)>,
    skipped: Skipped,
}

impl Stored {
    /// Opens `folder`, which must hold the features of all `items` items as `expected` has them.
    ///
    /// # Errors
    /// A folder that is not there or not complete; features of another encoder, size or data set, naming both sides.
    pub fn open(folder: &Path, expected: &Expected, items: usize) -> Result<Self> {
        if !folder.is_dir() {
            bail!("{}: no such folder; `limber encode --data` makes it", folder.display())
        }
        let manifest = Manifest::read(folder)?;
        match &manifest {
            Some(manifest) => check(folder, manifest, expected, items)?,
            None if expected.encoder.is_some() => tracing::warn!(
                "{}: no manifest.json in it, so which encoder made these features is not known",
                folder.display()
            ),
            None => {}
        }
        let blocks = Mutex::new(HashMap::new());
        let Expected { features, device, .. } = expected.clone();
        Ok(Self { folder: folder.to_path_buf(), features, manifest, blocks, device })
    }

    /// The features `[N, E]` f32 of an item.
    ///
    /// # Errors
    /// An item without features, with the reason why it has none; a file that cannot be read.
    pub fn read(&self, item: &Item) -> Result<Tensor> {
        let FeatureSpec { tokens: n, width: e, .. } = self.features;
        let values = match &self.manifest {
            Some(manifest) if manifest.layout == Layout::Safetensors => self.row(manifest, item)?,
            _ => {
                let path = npy_file(&self.folder, &item.key);
                super::read(path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))?, n, e)?
            }
        };
        Ok(Tensor::from_vec(values, (n, e), &self.device)?)
    }

    /// One tensor of its block.
    fn row(&self, manifest: &Manifest, item: &Item) -> Result<Vec<f32>> {
        let at = item.index / manifest.block;
        let path = manifest.file(&self.folder, at);
        let context = || format!("cannot read the features {}", path.display());
        let mut file = File::open(&path).with_context(context)?;
        let block = self.block(manifest, at, &mut file).with_context(context)?;
        let wanted = hash(&item.key);
        let Ok(found) = block.tensors.binary_search_by_key(&wanted, |(key, _)| *key) else {
            match block.skipped.get(&item.key).or_else(|| block.skipped.get(&item.name)) {
                Some(reason) => bail!("{reason}"),
                None => bail!(
                    "{} holds no features of {:?}: they were computed for another data set, or in another order",
                    path.display(),
                    item.key
                ),
            }
        };
        let dtype = manifest.dtype.weight_type();
        let elements = manifest.tokens * manifest.width;
        let mut bytes = vec![0; bytes_of(manifest.dtype, elements)];
        file.seek(SeekFrom::Start(block.tensors[found].1)).with_context(context)?;
        file.read_exact(&mut bytes).with_context(context)?;
        let length = bytes.len();
        let data = FrozenData::new(Arc::new(bytes), 0..length, dtype, &[manifest.tokens, manifest.width])
            .map_err(anyhow::Error::msg)?;
        let values = data.to_f32(0..elements);
        if values.iter().any(|v| !v.is_finite()) {
            bail!("{}: the features of {:?} are not finite", path.display(), item.key)
        }
        Ok(values)
    }

    /// What is known of block `at`, read off its header the first time.
    fn block(&self, manifest: &Manifest, at: usize, file: &mut File) -> Result<Arc<Block>> {
        if let Some(block) = self.blocks.lock().unwrap_or_else(|e| e.into_inner()).get(&at) {
            return Ok(block.clone());
        }
        let block = Arc::new(Block::read(manifest, file)?);
        self.blocks.lock().unwrap_or_else(|e| e.into_inner()).insert(at, block.clone());
        Ok(block)
    }
}

/// Refuses features that are not those of this encoder and data set.
fn check(folder: &Path, manifest: &Manifest, expected: &Expected, items: usize) -> Result<()> {
    let context = folder.display();
    let FeatureSpec { tokens, width, .. } = expected.features;
    if (manifest.tokens, manifest.width) != (tokens, width) {
        bail!(
            "{context}: holds features of {} x {} (N x E), the config's encoder gives {tokens} x {width}",
            manifest.tokens,
            manifest.width
        )
    }
    if let Some((kind, fingerprint)) = &expected.encoder
        && (&manifest.encoder, &manifest.fingerprint) != (kind, fingerprint)
    {
        bail!(
            "{context}: holds features of the encoder {} with the fingerprint {}, the config's is {kind} with {fingerprint}: \
             other settings, other weights or another preparation of images",
            manifest.encoder,
            manifest.fingerprint
        )
    }
    if manifest.items != items {
        bail!("{context}: holds features of a data set of {} items, the config's has {items}", manifest.items)
    }
    let missing: Vec<usize> = (0..manifest.blocks()).filter(|at| !manifest.file(folder, *at).is_file()).collect();
    if !missing.is_empty() {
        let named: Vec<String> = missing
            .iter()
            .take(NAMED)
            .filter_map(|at| Some(manifest.file(folder, *at).file_name()?.to_string_lossy().into_owned()))
            .collect();
        let more = if missing.len() > NAMED { format!(" and {} more", missing.len() - NAMED) } else { String::new() };
        bail!(
            "{context}: not complete, {} of {} blocks are missing ({}{more}); run limber encode --data again",
            missing.len(),
            manifest.blocks(),
            named.join(", ")
        )
    }
    Ok(())
}

impl Block {
    /// Reads the header of a block's file.
    fn read(manifest: &Manifest, file: &mut File) -> Result<Self> {
        let total = file.metadata()?.len();
        let mut length = [0; 8];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_LIMIT || length + 8 > total {
            bail!("it asks for a header of {length} bytes, the file has {total}: cut short, or no safetensors file")
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)?;
        let header: Metadata = serde_json::from_slice(&header).context("safetensors header")?;
        let data = 8 + length;
        if data + header.data_len() as u64 != total {
            bail!("its tensors need {} bytes, it has {}: cut short", data + header.data_len() as u64, total)
        }
        let mut block = Self { tensors: Vec::new(), skipped: Skipped::new() };
        for (key, info) in header.tensors() {
            let dtype = info.dtype.to_string().to_lowercase();
            if info.shape != [manifest.tokens, manifest.width] || dtype != manifest.dtype.weight_type().name() {
                bail!("tensor {key:?} is {dtype} of shape {:?}, not as the manifest says", info.shape)
            }
            block.tensors.push((hash(&key), data + info.data_offsets.0 as u64));
        }
        block.tensors.sort_unstable();
        if let Some(text) = header.metadata().as_ref().and_then(|map| map.get(SKIPPED)) {
            block.skipped = serde_json::from_str(text).with_context(|| format!("metadata entry {SKIPPED:?}"))?;
        }
        Ok(block)
    }
}

/// The items of a finished block that have no features.
///
/// # Errors
/// A file that cannot be read, or is not the manifest's.
pub fn skipped(manifest: &Manifest, folder: &Path, at: usize) -> Result<Skipped> {
    let path = manifest.file(folder, at);
    let context = || format!("cannot read {}", path.display());
    match manifest.layout {
        Layout::Safetensors => {
            let mut file = File::open(&path).with_context(context)?;
            Ok(Block::read(manifest, &mut file).with_context(context)?.skipped)
        }
        Layout::Npy => {
            let text = std::fs::read_to_string(&path).with_context(context)?;
            let done: Done = serde_json::from_str(&text).with_context(context)?;
            Ok(done.skipped)
        }
    }
}

/// Bytes of `elements` numbers.
pub fn bytes_of(dtype: Precision, elements: usize) -> usize {
    let (numbers, bytes) = dtype.weight_type().block();
    elements / numbers * bytes
}

/// 64 bits of a key: a block's keys are few, so that two of them do not share any.
fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
