//! A checkpoint of named tensors, whatever format it lies in.

use super::folder::{Folder, unreadable};
use super::stored::StoredTensor;
use limber_core::weights::{FrozenData, Request, WeightError, WeightSource, nearest};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What a reader of one format finds in a file.
#[derive(Default)]
pub struct Contents {
    /// Tensors by the name they have in the file.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// The `__metadata__` of a safetensors file.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Texts that the file itself holds, by the name that they have beside other weights.
    pub documents: Option<Documents>,
}

/// Gives a text by its name, or says why there is none.
pub type Documents = Arc<dyn Fn(&str) -> Result<Option<String>, String> + Send + Sync>;

/// Tensors in files, and the texts that lie beside them.
pub struct Checkpoint {
    label: String,
    folder: Folder,
    contents: Contents,
}

impl Checkpoint {
    /// The contents of the file or index `name` in `folder`.
    pub(super) fn new(folder: Folder, name: &str, mut contents: Contents) -> Self {
        contents.tensors = strip_module(contents.tensors);
        Self { label: folder.label(name), folder, contents }
    }

    /// The folder it lies in; None where it is part of the program.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.path()
    }

    /// The `__metadata__` of safetensors files.
    pub fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        self.contents.metadata.as_ref()
    }

    /// The tensors as they are stored, those that cannot be weights among them.
    pub fn stored(&self) -> &BTreeMap<String, StoredTensor> {
        &self.contents.tensors
    }

    fn missing(&self, name: &str) -> WeightError {
        // Distances cost the product of both lengths, so a name of a megabyte is no candidate.
        let names = self.contents.tensors.keys().map(String::as_str).filter(|n| n.len() <= 512);
        let close: Vec<String> = nearest(name, names, 3).iter().map(|n| format!("{n:?}")).collect();
        let hint = match (self.contents.tensors.len(), close.len()) {
            (0, _) => "there are no tensors in it".to_string(),
            (n, 0) => format!("it holds {n} tensors of other names"),
            (1, _) => format!("its one tensor is {}", close.join(", ")),
            (n, _) => format!("nearest of its {n} tensors: {}", close.join(", ")),
        };
        WeightError::Missing { name: name.to_string(), source_label: self.label.clone(), hint }
    }
}

impl WeightSource for Checkpoint {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        Some(self.contents.tensors.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect())
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        let name = request.name;
        let stored = self.contents.tensors.get(name).ok_or_else(|| self.missing(name))?;
        if stored.shape != request.shape {
            return Err(WeightError::Shape {
                name: name.to_string(),
                source_label: self.label.clone(),
                found: stored.shape.clone(),
                expected: request.shape.to_vec(),
            });
        }
        let data = stored.frozen().map_err(|e| unreadable(self.label.clone(), format!("tensor {name:?}: {e}")))?;
        data.ok_or_else(|| WeightError::Type {
            name: name.to_string(),
            source_label: self.label.clone(),
            found: stored.element.name().to_lowercase(),
        })
    }

    fn document(&self, name: &str) -> Result<Option<String>, WeightError> {
        if name == "__metadata__" {
            let json = self.contents.metadata.as_ref().map(serde_json::to_string).transpose();
            return json.map_err(|e| unreadable(self.label.clone(), format!("metadata: {e}")));
        }
        let own = self.contents.documents.as_ref().map(|of| of(name)).transpose();
        match own.map_err(|message| unreadable(self.label.clone(), message))?.flatten() {
            Some(text) => Ok(Some(text)),
            None => self.folder.document(name),
        }
    }
}

/// Drops `module.` where every name begins with it.
fn strip_module(tensors: BTreeMap<String, StoredTensor>) -> BTreeMap<String, StoredTensor> {
    const PREFIX: &str = "module.";
    if tensors.keys().any(|name| !name.starts_with(PREFIX)) {
        return tensors;
    }
    tensors.into_iter().map(|(name, tensor)| (name[PREFIX.len()..].to_string(), tensor)).collect()
}
