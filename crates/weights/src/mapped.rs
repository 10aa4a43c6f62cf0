//! The one module that maps files into memory.

use limber_core::weights::SharedBytes;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The bytes of a regular file, read by the system when they are touched.
///
/// # Errors
/// What the system says of a file that cannot be opened or mapped.
pub fn map(path: &Path) -> io::Result<SharedBytes> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if metadata.len() == 0 {
        return Ok(Arc::new([0u8; 0]));
    }
    // SAFETY: the map is read-only and private to this process. A checkpoint that another program changes or cuts
    // short while it is in use is outside of what any reader of mapped files can defend against; our own writers
    // replace files by renaming, which leaves the mapped one as it was.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file)? };
    Ok(Arc::new(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_is_there_and_refuses_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [&b"abc"[..], b""] {
            let path = folder.path().join("a");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!((*map(&path).unwrap()).as_ref(), bytes);
        }
        assert!(map(folder.path()).is_err());
        assert!(map(&folder.path().join("b")).is_err());
    }
}
