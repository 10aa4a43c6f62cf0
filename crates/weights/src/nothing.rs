//! The source of a component that reads no weights.

use limber_core::weights::{FrozenData, Request, WeightError, WeightSource};
use std::collections::BTreeMap;

/// Holds no tensor and no text.
pub struct Nothing;

impl WeightSource for Nothing {
    fn label(&self) -> String {
        "no weights".into()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        Some(BTreeMap::new())
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        let hint = "the component is registered as one that reads none".to_string();
        Err(WeightError::Missing { name: request.name.into(), source_label: self.label(), hint })
    }
}
