//! PyTorch's zip container: `NAME/data.pkl`, and the storages `NAME/data/KEY`.
//!
//! Entries that are stored, as PyTorch writes them, are windows of the file; deflated ones are inflated when read.

use super::value::{StorageRef, TensorRef};
use super::{PICKLE_LIMIT, flatten, machine, tensor};
use crate::checkpoint::Contents;
use crate::stored::{Storage, StoredTensor};
use limber_core::weights::SharedBytes;
use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};
use zip::{CompressionMethod, ZipArchive};

/// Deflate cannot make more of a byte than this.
const DEFLATE_RATIO: u64 = 1032;
/// An archive's directory ends within this many bytes of its end: 22 and a comment.
const TAIL: usize = 22 + 0xffff;

/// The tensors of a PyTorch archive or a TorchScript archive.
///
/// # Errors
/// A container that is cut short or broken, a pickle that is refused, a tensor that does not fit its storage.
pub fn read(bytes: SharedBytes) -> Result<Contents, String> {
    let mut archive = Archive::open(bytes)?;
    let swapped = match archive.entry("byteorder")? {
        Some(entry) => archive.small(&entry, 16)? == b"big",
        None => false,
    };
    let data = archive.entry("data.pkl")?.ok_or("zip archive without a data.pkl: not a PyTorch checkpoint")?;
    let data = archive.small(&data, PICKLE_LIMIT)?;
    let pickle = machine::read(&data, PICKLE_LIMIT)?;
    let tensors = flatten::flatten(&pickle.nodes, pickle.root)?;
    let mut storages: HashMap<&str, Entry> = HashMap::new();
    let mut contents = Contents::default();
    for (name, tensor) in tensors {
        let stored = archive.tensor(&tensor, &mut storages, swapped);
        contents.tensors.insert(name.clone(), stored.map_err(|e| format!("tensor {name:?}: {e}"))?);
    }
    Ok(contents)
}

/// The file as a reader of zip archives takes it.
#[derive(Clone)]
struct Whole(SharedBytes);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

type Zip = ZipArchive<Cursor<Whole>>;

struct Archive {
    bytes: SharedBytes,
    zip: Zip,
    /// Entries by the name below the archive's own folder.
    names: BTreeMap<String, usize>,
}

/// One entry: its bytes as an interval of a storage.
#[derive(Clone)]
struct Entry {
    storage: Storage,
    range: Range<usize>,
}

impl Archive {
    fn open(bytes: SharedBytes) -> Result<Self, String> {
        let whole = (*bytes).as_ref();
        // Looked for here first, since the reader would search the whole of a file that is cut short.
        let tail = &whole[whole.len().saturating_sub(TAIL)..];
        if !tail.windows(4).any(|mark| mark == b"PK\x05\x06") {
            return Err(format!("zip archive of {} bytes without its directory: cut short", whole.len()));
        }
        let zip = ZipArchive::new(Cursor::new(Whole(bytes.clone()))).map_err(|e| format!("zip archive: {e}"))?;
        let mut top = None;
        for index in 0..zip.len() {
            let name = zip.name_for_index(index).and_then(Result::ok).unwrap_or_default();
            if let Some(folder) = name.strip_suffix("data.pkl").filter(|f| f.is_empty() || f.ends_with('/')) {
                top = Some(folder.to_string());
                break;
            }
        }
        let top = top.ok_or("zip archive without a data.pkl: not a PyTorch checkpoint")?;
        let mut names = BTreeMap::new();
        for index in 0..zip.len() {
            let name = zip.name_for_index(index).and_then(Result::ok).unwrap_or_default();
            if let Some(inner) = name.strip_prefix(top.as_str()) {
                names.insert(inner.to_string(), index);
            }
        }
        Ok(Self { bytes, zip, names })
    }

    /// The entry of that name below the archive's own folder.
    fn entry(&mut self, name: &str) -> Result<Option<Entry>, String> {
        let Some(&index) = self.names.get(name) else { return Ok(None) };
        let fault = |e: &dyn std::fmt::Display| format!("zip entry {name:?}: {e}");
        let file = self.zip.by_index_raw(index).map_err(|e| fault(&e))?;
        if file.encrypted() {
            return Err(fault(&"encrypted entries are not read"));
        }
        let (start, packed, size) = (file.data_start(), file.compressed_size(), file.size());
        let start = start.and_then(|s| usize::try_from(s).ok()).ok_or_else(|| fault(&"its header is broken"))?;
        let end = usize::try_from(packed).ok().and_then(|n| start.checked_add(n));
        let total = (*self.bytes).as_ref().len();
        let end = end.filter(|end| *end <= total).ok_or_else(|| fault(&format!("{packed} bytes, past the end")))?;
        match file.compression() {
            CompressionMethod::Stored => {
                Ok(Some(Entry { storage: Storage::Plain(self.bytes.clone()), range: start..end }))
            }
            CompressionMethod::Deflated if size <= packed.saturating_mul(DEFLATE_RATIO).saturating_add(64) => {
                let size = usize::try_from(size).map_err(|e| fault(&e))?;
                drop(file);
                let packed = Deflated { zip: self.zip.clone(), index, size, inflated: Mutex::default() };
                Ok(Some(Entry { storage: Storage::Deflated(Arc::new(packed)), range: 0..size }))
            }
            CompressionMethod::Deflated => {
                Err(fault(&format!("{size} bytes out of {packed}, more than deflate can make")))
            }
            other => Err(fault(&format!("compressed by {other}, expected a stored or deflated entry"))),
        }
    }

    /// The bytes of a small entry.
    fn small(&self, entry: &Entry, limit: usize) -> Result<Vec<u8>, String> {
        if entry.range.len() > limit {
            return Err(format!("a description of {} bytes, the allowed size is {limit}", entry.range.len()));
        }
        let bytes = match &entry.storage {
            Storage::Plain(bytes) => bytes.clone(),
            Storage::Deflated(entry) => entry.inflate()?,
            Storage::Shuffled(_) => return Err("an archive holds no rows in another order".into()),
        };
        Ok((*bytes).as_ref()[entry.range.clone()].to_vec())
    }

    fn tensor<'a>(
        &mut self,
        tensor: &TensorRef<'a>,
        storages: &mut HashMap<&'a str, Entry>,
        swapped: bool,
    ) -> Result<StoredTensor, String> {
        let StorageRef { key, .. } = tensor.storage;
        let entry = match storages.get(key) {
            Some(entry) => entry.clone(),
            None => {
                let entry = self.entry(&format!("data/{key}"))?;
                let entry = entry.ok_or_else(|| format!("storage {key:?} is not in the archive"))?;
                storages.insert(key, entry.clone());
                entry
            }
        };
        tensor::locate(tensor, entry.storage, entry.range, swapped)
    }
}

/// A deflated entry; inflated once for as long as a tensor holds it.
pub struct Deflated {
    zip: Zip,
    index: usize,
    size: usize,
    inflated: Mutex<Option<Weak<Vec<u8>>>>,
}

impl Deflated {
    /// Its bytes.
    ///
    /// # Errors
    /// An entry that does not inflate to the size it states, or has another checksum.
    pub fn inflate(&self) -> Result<SharedBytes, String> {
        let mut kept = self.inflated.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(bytes) = kept.as_ref().and_then(Weak::upgrade) {
            return Ok(bytes);
        }
        let mut zip = self.zip.clone();
        let file = zip.by_index(self.index).map_err(|e| format!("zip entry: {e}"))?;
        let mut bytes = Vec::new();
        let limit = self.size as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(|e| format!("zip entry does not inflate: {e}"))?;
        if bytes.len() != self.size {
            return Err(format!("zip entry of another size than the {} bytes it states", self.size));
        }
        let bytes = Arc::new(bytes);
        *kept = Some(Arc::downgrade(&bytes));
        Ok(bytes)
    }
}
