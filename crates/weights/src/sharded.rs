//! Sharded checkpoints: `*.index.json` maps every tensor to the file that holds it. A tensor that is not in its shard, such as
//! the buffers of frequencies that older indices list, is not there: who asks for it is told so.

use super::checkpoint::Contents;
use super::folder::{Folder, unreadable};
use super::format;
use limber_core::weights::WeightError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| format!("no index of shards: {e}"))
    }

    /// The shards' names, each once.
    fn shards(&self) -> Result<BTreeSet<String>, String> {
        match self.weight_map.values().find(|shard| !is_plain(shard)) {
            Some(shard) => Err(format!("shard {shard:?} is no file name of the index's own folder")),
            None => Ok(self.weight_map.values().cloned().collect()),
        }
    }
}

/// The tensors that the index `name` lists, from all its shards.
///
/// # Errors
/// An index that is not one or lists nothing that is there, a shard that is missing or lies elsewhere.
pub fn read(folder: &Folder, name: &str) -> Result<Contents, WeightError> {
    let label = folder.label(name);
    let fault = |message: String| unreadable(label.clone(), message);
    let text = folder.text(name)?.ok_or_else(|| fault("no such file".into()))?;
    let index = Index::parse(&text).map_err(fault)?;
    let mut shards: BTreeMap<String, Contents> = BTreeMap::new();
    for shard in index.shards().map_err(fault)? {
        let bytes = folder.bytes(&shard).map_err(|e| fault(format!("shard {shard:?} cannot be opened: {e}")))?;
        let contents = format::read(&folder.label(&shard), bytes)?;
        shards.insert(shard, contents);
    }
    let mut all = Contents::default();
    for (tensor, shard) in &index.weight_map {
        if let Some(found) = shards.get(shard).and_then(|contents| contents.tensors.get(tensor)) {
            all.tensors.insert(tensor.clone(), found.clone());
        }
    }
    if let (true, Some((tensor, shard))) = (all.tensors.is_empty(), index.weight_map.first_key_value()) {
        return Err(fault(format!("tensor {tensor:?} is not in its shard {shard:?}, nor is any other in its own")));
    }
    for metadata in shards.into_values().filter_map(|contents| contents.metadata) {
        all.metadata.get_or_insert_default().extend(metadata);
    }
    Ok(all)
}

/// The names of the shards that an index lists.
///
/// # Errors
/// A text that is no index, a shard that does not lie in the index's own folder.
pub fn shards(text: &str) -> Result<BTreeSet<String>, String> {
    Index::parse(text)?.shards()
}

fn is_plain(name: &str) -> bool {
    super::spec::is_inside(name) && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: &[u8] =
        b"\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  \0\0\0\0";

    fn index(text: &'static str) -> Result<Contents, WeightError> {
        let files = [("x.index.json", text.as_bytes()), ("s1", SHARD), ("s2", b"PK")];
        read(&Folder::embedded("demo", &files), "x.index.json")
    }

    #[test]
    fn every_fault_has_its_message() {
        assert_eq!(index(r#"{"weight_map": {"a": "s1"}}"#).unwrap().tensors.len(), 1);
        let buffer = r#"{"weight_map": {"a": "s1", "rotary_emb.inv_freq": "s1"}}"#;
        assert_eq!(index(buffer).unwrap().tensors.keys().collect::<Vec<_>>(), ["a"]);
        for (text, part) in [
            ("{}", "missing field `weight_map`"),
            ("[1", "no index of shards"),
            (r#"{"weight_map": {"a": "s3"}}"#, "shard \"s3\" cannot be opened: demo/s3: no such file"),
            (r#"{"weight_map": {"b": "s1"}}"#, "tensor \"b\" is not in its shard \"s1\""),
            (r#"{"weight_map": {"a": "../s1"}}"#, "shard \"../s1\" is no file name"),
            (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "is no file name"),
            (r#"{"weight_map": {"a": "sub/s1"}}"#, "is no file name"),
            (r#"{"weight_map": {"a": ""}}"#, "is no file name"),
            (r#"{"weight_map": {"a": "s2"}}"#, "demo/s2: "),
        ] {
            let message = index(text).err().unwrap().to_string();
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
