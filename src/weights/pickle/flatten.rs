//! From the root of a pickle to tensors by dotted name.

use super::value::{Nodes, TensorRef, Value};
use std::collections::BTreeMap;

/// Dictionaries inside of dictionaries.
const DEPTH_LIMIT: usize = 64;
/// Dictionary entries looked at; a dictionary that stands in two places is looked at twice.
const VISIT_LIMIT: usize = 1 << 22;
/// Bytes of all names.
const NAMES_LIMIT: usize = 64 << 20;
/// Where training programs put the state dict.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// The tensors under `root`, by dotted name; what is no tensor, dictionary or object is passed over.
///
/// # Errors
/// A root that is no dictionary or object, nesting without end.
pub fn flatten<'a>(nodes: &Nodes<'a>, root: Value<'a>) -> Result<BTreeMap<String, TensorRef<'a>>, String> {
    if root.pairs(nodes).is_none() {
        return Err(format!(
            "the file holds {}, no dictionary of tensors; save a state dict",
            root.kind(nodes)
        ));
    }
    let mut walk = Walk { nodes, found: BTreeMap::new(), visits: 0, names: 0, prefix: String::new() };
    walk.enter(unwrapped(nodes, root), 0)?;
    Ok(walk.found)
}

/// Steps into `state_dict` and its like, as long as the dictionary around it holds no tensor of its own.
fn unwrapped<'a>(nodes: &Nodes<'a>, root: Value<'a>) -> Value<'a> {
    let mut value = root;
    for _ in 0..WRAPPERS.len() {
        let pairs = value.pairs(nodes).unwrap_or_default();
        if pairs.iter().any(|(_, v)| v.tensor(nodes).is_some()) {
            break;
        }
        let inner = WRAPPERS.iter().find_map(|wanted| {
            let is_wanted = |key: &Value| matches!(key, Value::Text(text) if text == wanted);
            let (_, inner) = pairs.iter().rev().find(|(key, _)| is_wanted(key))?;
            // A TorchScript module may well have a part named `model`: only dictionaries are wrappers.
            let dict = !is_object(nodes, value) && inner.pairs(nodes).is_some_and(|pairs| !pairs.is_empty());
            dict.then_some(*inner)
        });
        match inner {
            Some(inner) => value = inner,
            None => break,
        }
    }
    value
}

fn is_object(nodes: &Nodes, value: Value) -> bool {
    matches!(value, Value::Node(at) if matches!(nodes[at], super::value::Node::Object(_)))
}

struct Walk<'n, 'a> {
    nodes: &'n Nodes<'a>,
    found: BTreeMap<String, TensorRef<'a>>,
    visits: usize,
    names: usize,
    prefix: String,
}

impl<'a> Walk<'_, 'a> {
    fn enter(&mut self, value: Value<'a>, depth: usize) -> Result<(), String> {
        let nodes = self.nodes;
        let pairs = value.pairs(nodes).unwrap_or_default();
        if depth == DEPTH_LIMIT && !pairs.is_empty() {
            return Err(format!("dictionaries nest deeper than {DEPTH_LIMIT}, or hold themselves"));
        }
        for (key, inner) in pairs {
            self.visits += 1;
            if self.visits > VISIT_LIMIT {
                return Err(format!("dictionaries describe more than {VISIT_LIMIT} entries"));
            }
            let tensor = inner.tensor(nodes);
            if tensor.is_none() && inner.pairs(nodes).is_none() {
                continue;
            }
            let length = self.prefix.len();
            if depth > 0 {
                self.prefix.push('.');
            }
            match key {
                Value::Text(text) => self.prefix.push_str(text),
                Value::Int(n) => self.prefix.push_str(&n.to_string()),
                _ => {
                    // A tensor under any other key has no name.
                    self.prefix.truncate(length);
                    continue;
                }
            }
            self.names += self.prefix.len();
            if self.names > NAMES_LIMIT {
                return Err(format!("names of tensors take more than {NAMES_LIMIT} bytes"));
            }
            match tensor {
                Some(tensor) => drop(self.found.insert(self.prefix.clone(), tensor.clone())),
                None => self.enter(*inner, depth + 1)?,
            }
            self.prefix.truncate(length);
        }
        Ok(())
    }
}
