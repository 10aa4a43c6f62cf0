//! `.npz`: a zip archive of `NAME.npy` files, stored or deflated.

use super::npy;
use limber_core::weights::SharedBytes;
use limber_weights::StoredTensor;
use std::io::{Cursor, Read};
use std::sync::Arc;
use zip::ZipArchive;

/// An archive's directory ends within this many bytes of its end: 22 and a comment.
const TAIL: usize = 22 + 0xffff;

/// An open archive.
pub struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
}

impl<'a> Archive<'a> {
    /// The archive in `bytes`.
    ///
    /// # Errors
    /// An archive that is cut short or broken, or that holds no `.npy` file.
    pub fn open(bytes: &'a SharedBytes) -> Result<Self, String> {
        let whole = (**bytes).as_ref();
        let tail = &whole[whole.len().saturating_sub(TAIL)..];
        if !tail.windows(4).any(|mark| mark == b"PK\x05\x06") {
            return Err(format!("zip archive of {} bytes without its directory: cut short", whole.len()));
        }
        let zip = ZipArchive::new(Cursor::new(whole)).map_err(|e| format!("zip archive: {e}"))?;
        let archive = Self { zip };
        if archive.names().is_empty() {
            return Err("a zip archive without a .npy file: not an .npz".into());
        }
        Ok(archive)
    }

    /// The arrays' names, as NumPy gives them.
    pub fn names(&self) -> Vec<String> {
        let names = self.zip.file_names().flatten();
        names.filter_map(|name| Some(name.strip_suffix(".npy")?.to_string())).collect()
    }

    /// One array, where its shape is that of N x E features.
    ///
    /// # Errors
    /// An entry that is encrypted, does not inflate or holds more than such features can, and all of [`npy::read`].
    pub fn read(&mut self, name: &str, n: usize, e: usize) -> Result<StoredTensor, String> {
        let file = self.zip.by_name(&format!("{name}.npy")).map_err(|e| format!("zip entry: {e}"))?;
        // What the entry states of its size is not believed.
        let limit = npy::limit(n, e);
        let mut bytes = Vec::new();
        let read = file.take(limit as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|e| format!("zip entry does not inflate: {e}"))?;
        if !bytes.starts_with(npy::MAGIC) {
            return Err("not a .npy file".into());
        }
        npy::read(Arc::new(bytes), n, e)
    }
}
