//! The format of `torch.save` before 2020: five pickles (a magic number, a protocol number, the machine, the object,
//! the order of the storages), then the storages, each behind its number of elements.

use super::value::{Node, StorageRef, Value};
use super::{PICKLE_LIMIT, flatten, machine, tensor};
use crate::checkpoint::Contents;
use crate::stored::Storage;
use limber_core::weights::SharedBytes;
use std::collections::HashMap;
use std::ops::Range;

/// The magic number's pickle, after its protocol.
const MAGIC: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The tensors of a file in the old format.
///
/// # Errors
/// A pickle of another kind, one that is cut short or refused, a tensor that does not fit its storage.
pub fn read(bytes: SharedBytes) -> Result<Contents, String> {
    let whole = (*bytes).as_ref();
    let mut at = 0;
    let mut next = |what: &str| {
        let pickle = machine::read(whole.get(at..).unwrap_or_default(), PICKLE_LIMIT)
            .map_err(|e| format!("{what} at byte {at}: {e}"))?;
        at += pickle.end;
        Ok::<_, String>((pickle, at))
    };
    let (_, end) = next("pickle")?;
    if whole.get(2..end) != Some(MAGIC) {
        return Err("a pickle that PyTorch did not write; save a state dict with torch.save".into());
    }
    next("protocol")?;
    let (machine, _) = next("machine")?;
    let little = machine.root.pairs(&machine.nodes).unwrap_or_default().iter().find_map(|pair| match pair {
        (Value::Text("little_endian"), Value::Bool(little)) => Some(*little),
        _ => None,
    });
    let swapped = little == Some(false);
    let (object, _) = next("object")?;
    let (keys, start) = next("list of storages")?;
    let keys = keys.root.items(&keys.nodes).ok_or("the list of storages is no list")?;

    let mut named: HashMap<&str, StorageRef> = HashMap::new();
    for node in &object.nodes {
        if let Node::Storage(storage) = node {
            named.insert(storage.key, *storage);
        }
    }
    let mut ranges: HashMap<&str, Range<usize>> = HashMap::new();
    let mut at = start;
    for key in keys {
        let Value::Text(key) = key else { return Err("the list of storages holds what is no text".into()) };
        let storage = named.get(key).ok_or_else(|| format!("storage {key:?} belongs to no tensor"))?;
        let size = storage.element.map_or(1, |e| e.bytes());
        let cut = || format!("storage {key:?} is cut short: the file ends at byte {}", whole.len());
        let count = whole.get(at..).and_then(<[u8]>::first_chunk::<8>).ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|n| n.checked_mul(size));
        let end = length.and_then(|n| n.checked_add(at + 8)).filter(|end| *end <= whole.len()).ok_or_else(cut)?;
        ranges.insert(key, at + 8..end);
        at = end;
    }
    let mut contents = Contents::default();
    for (name, tensor) in flatten::flatten(&object.nodes, object.root)? {
        let key = tensor.storage.key;
        let range = ranges.get(key).cloned().ok_or_else(|| format!("tensor {name:?}: storage {key:?} is not there"))?;
        let stored = tensor::locate(&tensor, Storage::Plain(bytes.clone()), range, swapped);
        contents.tensors.insert(name.clone(), stored.map_err(|e| format!("tensor {name:?}: {e}"))?);
    }
    Ok(contents)
}
