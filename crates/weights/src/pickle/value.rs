//! What the machine knows of the objects in a pickle. Containers lie in one arena, so that neither a cycle nor deep
//! nesting makes reading, copying or dropping them recurse.

use super::globals::Global;
use crate::stored::Element;

/// One object; cheap to copy.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// A class or function of the allow-list.
    Global(Global),
    /// A container, object, storage or tensor in the arena.
    Node(usize),
    /// What no tensor is made of: floats, bytes, sets, larger integers.
    Inert,
}

/// What lies in the arena.
#[derive(Debug)]
pub enum Node<'a> {
    /// A list.
    List(Vec<Value<'a>>),
    /// A tuple.
    Tuple(Vec<Value<'a>>),
    /// A dictionary, ordered or not; a later pair replaces an earlier one of the same key.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// An object of a TorchScript class, and its state.
    Object(Value<'a>),
    /// A storage.
    Storage(StorageRef<'a>),
    /// A tensor.
    Tensor(TensorRef<'a>),
}

/// A storage as the pickle names it.
#[derive(Debug, Clone, Copy)]
pub struct StorageRef<'a> {
    /// The type of its elements; None where it is plain bytes.
    pub element: Option<Element>,
    /// Its key in the archive.
    pub key: &'a str,
    /// Its number of elements.
    pub count: usize,
}

/// A tensor as the pickle describes it; not yet compared with its storage.
#[derive(Debug, Clone)]
pub struct TensorRef<'a> {
    /// The storage it is a window of.
    pub storage: StorageRef<'a>,
    /// The type of its elements.
    pub element: Element,
    /// Its first element.
    pub offset: usize,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its strides, in elements.
    pub strides: Vec<usize>,
}

/// The arena.
pub type Nodes<'a> = Vec<Node<'a>>;

impl<'a> Value<'a> {
    /// What messages call it.
    pub fn kind(self, nodes: &Nodes<'a>) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a truth value",
            Value::Int(_) => "an integer",
            Value::Text(_) => "a text",
            Value::Global(_) => "a class or function",
            Value::Inert => "a plain value",
            Value::Node(at) => match nodes[at] {
                Node::List(_) => "a list",
                Node::Tuple(_) => "a tuple",
                Node::Dict(_) => "a dictionary",
                Node::Object(_) => "an object",
                Node::Storage(_) => "a storage",
                Node::Tensor(_) => "a tensor",
            },
        }
    }

    /// The items of a list or tuple.
    pub fn items<'n>(self, nodes: &'n Nodes<'a>) -> Option<&'n [Value<'a>]> {
        match self {
            Value::Node(at) => match &nodes[at] {
                Node::List(items) | Node::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// The pairs of a dictionary, or of the attributes of an object.
    pub fn pairs<'n>(self, nodes: &'n Nodes<'a>) -> Option<&'n [(Value<'a>, Value<'a>)]> {
        match self {
            Value::Node(at) => match &nodes[at] {
                Node::Dict(pairs) => Some(pairs),
                Node::Object(Value::Node(state)) => match &nodes[*state] {
                    Node::Dict(pairs) => Some(pairs),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// The tensor, if it is one.
    pub fn tensor<'n>(self, nodes: &'n Nodes<'a>) -> Option<&'n TensorRef<'a>> {
        match self {
            Value::Node(at) => match &nodes[at] {
                Node::Tensor(tensor) => Some(tensor),
                _ => None,
            },
            _ => None,
        }
    }
}
