//! What the functions of the allow-list make of their arguments, and what BUILD does to an object.

use super::globals::Global;
use super::machine::Machine;
use super::value::{Node, StorageRef, TensorRef, Value};
use crate::stored::Element;

/// Dimensions of a tensor: PyTorch allows 64.
const RANK_LIMIT: usize = 64;

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// REDUCE: the result of `function(*arguments)`.
    ///
    /// # Errors
    /// What is no function of the list, or arguments that are not its own.
    pub fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Step<Value<'a>> {
        let Value::Global(mut global) = function else {
            return Err(format!("{} is called", function.kind(&self.nodes)));
        };
        let mut arguments = self.tuple(arguments)?;
        if global == Global::FromType {
            let [Value::Global(inner), _, inner_arguments, ..] = arguments[..] else {
                return Err("arguments of _rebuild_from_type_v2 are a function, a type and a tuple".into());
            };
            (global, arguments) = (inner, self.tuple(inner_arguments)?);
        }
        match global {
            Global::Dict => self.dict(&arguments),
            Global::Tensor => {
                self.check_flags(arguments.get(6))?;
                self.tensor(&arguments, None)
            }
            Global::TypedTensor => match arguments.get(6) {
                Some(Value::Global(Global::Type(element))) => {
                    self.check_flags(arguments.get(7))?;
                    self.tensor(&arguments, Some(*element))
                }
                _ => Err("arguments of _rebuild_tensor_v3 hold no element type".into()),
            },
            Global::First => arguments.first().copied().ok_or_else(|| "arguments of a wrapper are empty".into()),
            Global::Inert => Ok(Value::Inert),
            Global::Storage(_) | Global::Type(_) | Global::Mark | Global::Script | Global::FromType => {
                Err("a class that may only be named is called".into())
            }
        }
    }

    /// NEWOBJ: an object of a TorchScript class, or of one that no tensor is made of.
    ///
    /// # Errors
    /// Any other class.
    pub fn create(&mut self, class: Value<'a>) -> Step<Value<'a>> {
        match class {
            Value::Global(Global::Script) => self.node(Node::Object(Value::None)),
            Value::Global(Global::Inert) => Ok(Value::Inert),
            Value::Global(Global::Dict) => self.node(Node::Dict(Vec::new())),
            _ => Err(format!("{} that makes no objects is asked for one", class.kind(&self.nodes))),
        }
    }

    /// BUILD: the state of an object. Attributes of dictionaries and tensors (`_metadata`, hooks) are let go.
    ///
    /// # Errors
    /// What has no state.
    pub fn build(&mut self, object: Value<'a>, state: Value<'a>) -> Step<()> {
        match object {
            Value::Inert => return Ok(()),
            Value::Node(at) => match &mut self.nodes[at] {
                Node::Object(there) => {
                    *there = state;
                    return Ok(());
                }
                Node::Dict(_) | Node::Tensor(_) => return Ok(()),
                _ => {}
            },
            _ => {}
        }
        Err(format!("{} is given a state", object.kind(&self.nodes)))
    }

    /// BINPERSID: the storage of ("storage", class, key, location, count).
    ///
    /// # Errors
    /// Any other identity.
    pub fn storage(&mut self, id: Value<'a>) -> Step<StorageRef<'a>> {
        let parts = self.tuple(id)?;
        let [Value::Text("storage"), Value::Global(Global::Storage(element)), Value::Text(key), rest @ ..] = &parts[..]
        else {
            return Err("a persistent id that is no storage".into());
        };
        let (element, key) = (*element, *key);
        // Only files of before 2017 have views of storages.
        let ([_, count] | [_, count, Value::None]) = rest else {
            return Err("a storage that is a view of another; save the file again with a newer PyTorch".into());
        };
        let count = whole(*count).ok_or_else(|| format!("storage {key:?} has no whole number of elements"))?;
        Ok(StorageRef { element, key, count })
    }

    fn dict(&mut self, arguments: &[Value<'a>]) -> Step<Value<'a>> {
        let mut flat = Vec::new();
        match arguments {
            [] => {}
            [pairs] => {
                let pairs = pairs.items(&self.nodes).ok_or("arguments of a dictionary are no list of pairs")?;
                for pair in pairs {
                    let pair = pair.items(&self.nodes).filter(|pair| pair.len() == 2);
                    flat.extend_from_slice(pair.ok_or("arguments of a dictionary are no list of pairs")?);
                }
            }
            _ => return Err("arguments of a dictionary are more than one list".into()),
        }
        let pairs = self.pair_up(&flat)?;
        self.node(Node::Dict(pairs))
    }

    /// Refuses views whose numbers are not what their storage holds: conjugated or negated.
    fn check_flags(&self, flags: Option<&Value<'a>>) -> Step<()> {
        let pairs = flags.and_then(|flags| flags.pairs(&self.nodes)).unwrap_or_default();
        match pairs.iter().find(|(_, value)| matches!(value, Value::Bool(true))) {
            Some((Value::Text(flag @ ("conj" | "neg")), _)) => {
                Err(format!("a tensor with the flag {flag:?}; save a copy (resolve_conj, resolve_neg)"))
            }
            Some(_) => Err("a tensor with a flag that is not known; save a copy".into()),
            None => Ok(()),
        }
    }

    /// (storage, offset, shape, strides, ...).
    fn tensor(&mut self, arguments: &[Value<'a>], element: Option<Element>) -> Step<Value<'a>> {
        let [storage, offset, shape, strides, ..] = *arguments else {
            return Err(format!("{} arguments for a tensor, wanted are at least 4", arguments.len()));
        };
        let storage = match storage {
            Value::Node(at) => match self.nodes[at] {
                Node::Storage(storage) => storage,
                _ => return Err(format!("arguments of a tensor: {} is no storage", storage.kind(&self.nodes))),
            },
            _ => return Err(format!("arguments of a tensor: {} is no storage", storage.kind(&self.nodes))),
        };
        let offset = whole(offset).ok_or("the offset of a tensor is no whole number")?;
        let (shape, strides) = (self.sizes(shape, "shape")?, self.sizes(strides, "strides")?);
        if shape.len() != strides.len() {
            return Err(format!("a tensor of shape {shape:?} has strides {strides:?}"));
        }
        let element = element.or(storage.element).ok_or("a tensor of plain bytes has no element type")?;
        self.node(Node::Tensor(TensorRef { storage, element, offset, shape, strides }))
    }

    fn sizes(&self, value: Value<'a>, what: &str) -> Step<Vec<usize>> {
        let items = value.items(&self.nodes).ok_or_else(|| format!("the {what} of a tensor is no tuple"))?;
        if items.len() > RANK_LIMIT {
            return Err(format!("the {what} of a tensor has {} entries, expected at most {RANK_LIMIT}", items.len()));
        }
        let sizes = items.iter().map(|item| whole(*item)).collect::<Option<Vec<usize>>>();
        sizes.ok_or_else(|| format!("the {what} of a tensor holds what is no whole number from 0 on"))
    }

    /// The items of a tuple; a copy, which counts.
    fn tuple(&mut self, value: Value<'a>) -> Step<Vec<Value<'a>>> {
        let items = match value {
            Value::Node(at) => match &self.nodes[at] {
                Node::Tuple(items) => items.clone(),
                _ => return Err(format!("arguments are {}, not a tuple", value.kind(&self.nodes))),
            },
            _ => return Err(format!("arguments are {}, not a tuple", value.kind(&self.nodes))),
        };
        // An ordinary call is paid for by its own opcodes; only a long tuple taken from the memo again adds up.
        self.charge(items.len() / 16)?;
        Ok(items)
    }
}

fn whole(value: Value) -> Option<usize> {
    match value {
        Value::Int(n) => usize::try_from(n).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::pickle::machine::read;

    /// A pickle that rebuilds one tensor with `after` behind its shape and strides.
    fn rebuilt(function: &str, after: &[u8]) -> Result<Vec<usize>, String> {
        let mut bytes = format!("\u{1}ctorch._utils\n{function}\n((").into_bytes();
        bytes.splice(..1, *b"\x80\x02");
        bytes.extend(b"\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x06tQ");
        bytes.extend(b"K\x00K\x02K\x03\x86K\x03K\x01\x86");
        bytes.extend(after);
        bytes.extend(b"tR.");
        let pickle = read(&bytes, 1 << 20)?;
        Ok(pickle.root.tensor(&pickle.nodes).map(|t| t.shape.clone()).unwrap_or_default())
    }

    #[test]
    fn every_form_of_a_tensor() {
        let flags = |name: &str| [&b"\x89}}\x8c"[..], &[name.len() as u8], name.as_bytes(), b"\x88s"].concat();
        assert_eq!(rebuilt("_rebuild_tensor", b"").unwrap(), [2, 3]);
        assert_eq!(rebuilt("_rebuild_tensor_v2", b"\x89}").unwrap(), [2, 3]);
        assert_eq!(rebuilt("_rebuild_tensor_v3", b"\x89}ctorch\nfloat16\n").unwrap(), [2, 3]);
        for (function, after, part) in [
            ("_rebuild_tensor_v3", b"\x89}".to_vec(), "hold no element type"),
            ("_rebuild_tensor_v2", flags("conj"), "a tensor with the flag \"conj\""),
            ("_rebuild_tensor_v2", flags("neg"), "a tensor with the flag \"neg\""),
            ("_rebuild_tensor_v2", flags("other"), "a flag that is not known"),
            ("_rebuild_parameter", Vec::new(), "is no tensor"),
        ] {
            let result = rebuilt(function, &after);
            let message =
                result.map_or_else(|e| e, |shape| if shape.is_empty() { "is no tensor".into() } else { "read".into() });
            assert!(message.contains(part), "{function}: {message}");
        }
    }
}
