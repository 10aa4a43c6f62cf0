//! From the root of a pickle to tensors by dotted name.

use super::value::{Nodes, TensorRef, Value};
use std::collections::BTreeMap;

/// Dictionaries inside of dictionaries.
const DEPTH_LIMIT: usize = 64;
/// Dictionary entries visited; a dictionary that stands in two positions is visited twice.
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
        return Err(format!("the file holds {}, no dictionary of tensors; save a state dict", root.kind(nodes)));
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
            // A TorchScript module may well have a submodule named `model`: only dictionaries are wrappers.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pickle::value::{Node, StorageRef};
    use crate::stored::Element;

    /// An arena whose node 0 is a tensor.
    fn arena() -> Nodes<'static> {
        let element = Element::named("F32").unwrap();
        let storage = StorageRef { element: Some(element), key: "0", count: 1 };
        vec![Node::Tensor(TensorRef { storage, element, offset: 0, shape: vec![1], strides: vec![1] })]
    }

    fn dict(nodes: &mut Nodes<'static>, pairs: &[(&'static str, Value<'static>)]) -> Value<'static> {
        nodes.push(Node::Dict(pairs.iter().map(|(key, value)| (Value::Text(key), *value)).collect()));
        Value::Node(nodes.len() - 1)
    }

    fn names(nodes: &Nodes<'static>, root: Value<'static>) -> Vec<String> {
        flatten(nodes, root).unwrap().into_keys().collect()
    }

    #[test]
    fn wrappers_are_stepped_into_and_other_dictionaries_are_named() {
        let (mut nodes, tensor) = (arena(), Value::Node(0));
        let inner = dict(&mut nodes, &[("a", tensor), ("n", Value::Int(3))]);
        for wrapper in WRAPPERS {
            let root = dict(&mut nodes, &[("epoch", Value::Int(1)), (wrapper, inner)]);
            assert_eq!(names(&nodes, root), ["a"], "{wrapper}");
        }
        let twice = dict(&mut nodes, &[("model", inner)]);
        let twice = dict(&mut nodes, &[("state_dict", twice)]);
        assert_eq!(names(&nodes, twice), ["a"]);
        let beside = dict(&mut nodes, &[("scale", tensor), ("model", inner)]);
        assert_eq!(names(&nodes, beside), ["model.a", "scale"]);
        let other = dict(&mut nodes, &[("encoder", inner), ("decoder", inner)]);
        assert_eq!(names(&nodes, other), ["decoder.a", "encoder.a"]);
        // A module of a TorchScript archive keeps the names of its submodules.
        let state = dict(&mut nodes, &[("model", inner)]);
        nodes.push(Node::Object(state));
        assert_eq!(names(&nodes, Value::Node(nodes.len() - 1)), ["model.a"]);
        nodes.push(Node::Dict(vec![(Value::Int(7), tensor), (Value::None, tensor)]));
        assert_eq!(names(&nodes, Value::Node(nodes.len() - 1)), ["7"]);
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let (mut nodes, tensor) = (arena(), Value::Node(0));
        let own = Value::Node(nodes.len());
        assert!(flatten(&nodes, tensor).unwrap_err().contains("holds a tensor, no dictionary"));
        dict(&mut nodes, &[("x", own)]);
        assert!(flatten(&nodes, own).unwrap_err().contains("nest deeper than 64"));
        // Thirty levels, each holding the one before ten times: 10^30 tensors.
        let mut level = dict(&mut nodes, &[("t", tensor)]);
        for _ in 0..30 {
            let pairs = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"].map(|key| (key, level));
            level = dict(&mut nodes, &pairs);
        }
        let message = flatten(&nodes, level).unwrap_err();
        assert!(message.contains("describe more than") || message.contains("names of tensors take"), "{message}");
    }
}
