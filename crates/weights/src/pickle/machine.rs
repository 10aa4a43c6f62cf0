//! The pickle machine: a stack, a memo, and the opcodes that `torch.save` and TorchScript write (protocols 2 to 5).
//!
//! Follows the opcode list of Python's `pickletools`. Classes and functions are resolved by [`super::globals`] alone.

use super::cursor::{Cursor, integer};
use super::globals::{allowed, refusal};
use super::value::{Node, Nodes, Value};
use std::collections::HashMap;

/// Values on the stack: Python's pickler hands over containers by thousands.
const STACK_LIMIT: usize = 1 << 20;
/// Open marks.
const NESTING_LIMIT: usize = 1 << 12;
/// Values in the memo and, apart from them, in containers.
const VALUE_LIMIT: usize = 1 << 22;

/// What a pickle holds.
pub struct Pickle<'a> {
    /// The arena.
    pub nodes: Nodes<'a>,
    /// The object it describes.
    pub root: Value<'a>,
    /// Where the bytes after it begin.
    pub end: usize,
}

/// Reads one pickle at the start of `bytes`, at most `limit` of them.
///
/// # Errors
/// A pickle that is cut short, malformed, too large, or names what is not on the allow-list; with its position.
pub fn read(bytes: &[u8], limit: usize) -> Result<Pickle<'_>, String> {
    let window = &bytes[..bytes.len().min(limit)];
    let mut machine = Machine { input: Cursor::new(window), ..Machine::default() };
    loop {
        let start = machine.input.at();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok(Pickle { nodes: machine.nodes, root, end: machine.input.at() }),
            Err(_) if machine.input.is_past_end() && window.len() < bytes.len() => {
                return Err(format!("the pickle is larger than the allowed size of {limit} bytes"));
            }
            Err(message) => return Err(format!("{message}, at byte {start} of the pickle")),
        }
    }
}

/// The state between two opcodes.
#[derive(Default)]
pub struct Machine<'a> {
    input: Cursor<'a>,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    values: usize,
    /// The arena.
    pub nodes: Nodes<'a>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Runs one opcode; the root at the end.
    fn step(&mut self) -> Step<Option<Value<'a>>> {
        let [opcode] = self.input.array()?;
        match opcode {
            0x80 => {
                let [protocol] = self.input.array()?;
                if !(2..=5).contains(&protocol) {
                    return Err(format!("pickle protocol {protocol}, expected 2 to 5"));
                }
            }
            // A frame only says how much to read at once.
            0x95 => self.input.skip(8)?,
            b'.' => return self.pop().map(Some),
            b'(' => {
                if self.marks.len() == NESTING_LIMIT {
                    return Err(format!("nesting deeper than {NESTING_LIMIT} marks"));
                }
                self.marks.push(self.stack.len());
            }
            b'0' => self.discard()?,
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88))?,
            b'J' => {
                let value = i32::from_le_bytes(self.input.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let [value] = self.input.array()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.input.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a | 0x8b => {
                let length = if opcode == 0x8a { self.input.length(1)? } else { self.input.length(4)? };
                let value = integer(self.input.take(length)?);
                self.push(value)?;
            }
            b'G' => self.inert(8)?,
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            // The text of Python 2.
            b'U' => self.text(1)?,
            b'T' => self.text(4)?,
            b'B' => self.counted(4)?,
            b'C' => self.counted(1)?,
            0x8e | 0x96 => self.counted(8)?,
            b')' => self.push_node(Node::Tuple(Vec::new()))?,
            b']' => self.push_node(Node::List(Vec::new()))?,
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            0x8f => self.push(Value::Inert)?,
            b't' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Tuple(items))?;
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push_node(Node::List(items))?;
            }
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let mut items = vec![Value::None; n];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.push_node(Node::Tuple(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                let pairs = self.pair_up(&items)?;
                self.push_node(Node::Dict(pairs))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            0x90 => {
                self.pop_mark()?;
                self.top()?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Inert)?;
            }
            b'q' | b'r' => {
                let index = if opcode == b'q' { self.input.length(1)? } else { self.input.length(4)? };
                self.remember(index as u32)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' | b'j' => {
                let index = if opcode == b'h' { self.input.length(1)? } else { self.input.length(4)? };
                let value = self.memo.get(&(index as u32)).copied();
                self.push(value.ok_or_else(|| format!("the memo has no entry {index}"))?)?;
            }
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.push_global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("a global is named by what is no text".into());
                };
                self.push_global(module, name)?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                let result = if opcode == b'R' { self.call(function, arguments) } else { self.create(function) };
                self.push(result?)?;
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                self.build(object, state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push_node(Node::Storage(storage))?;
            }
            b'i' | b'o' | 0x92 | 0x82..=0x84 | b'P' => {
                return Err(format!("refuses opcode 0x{opcode:02x}, which calls a class or names it by a number"));
            }
            _ => return Err(format!("unknown opcode 0x{opcode:02x}")),
        }
        Ok(None)
    }

    /// Counts `n` more values in containers.
    pub fn charge(&mut self, n: usize) -> Step<()> {
        self.values += n;
        if self.values > VALUE_LIMIT {
            return Err(format!("the pickle holds more values than the allowed size of {VALUE_LIMIT}"));
        }
        Ok(())
    }

    /// Puts a node into the arena.
    pub fn node(&mut self, node: Node<'a>) -> Step<Value<'a>> {
        let inner = match &node {
            Node::List(items) | Node::Tuple(items) => items.len(),
            Node::Dict(pairs) => pairs.len(),
            Node::Object(_) | Node::Storage(_) => 0,
            Node::Tensor(tensor) => tensor.shape.len(),
        };
        self.charge(1 + inner)?;
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() - 1))
    }

    /// Keys and values in turn, as pairs.
    pub fn pair_up(&self, items: &[Value<'a>]) -> Step<Vec<(Value<'a>, Value<'a>)>> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("the stack holds a key without its value".into());
        }
        pairs.iter().map(|[key, value]| Ok((self.key(*key)?, *value))).collect()
    }

    fn key(&self, key: Value<'a>) -> Step<Value<'a>> {
        match key {
            Value::Node(at) if !matches!(self.nodes[at], Node::Tuple(_)) => {
                Err(format!("{} is no key of a dictionary", key.kind(&self.nodes)))
            }
            _ => Ok(key),
        }
    }

    fn push_node(&mut self, node: Node<'a>) -> Step<()> {
        let value = self.node(node)?;
        self.push(value)
    }

    fn push_global(&mut self, module: &str, name: &str) -> Step<()> {
        let global = allowed(module, name).ok_or_else(|| refusal(module, name))?;
        self.push(Value::Global(global))
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.stack.len() == STACK_LIMIT {
            return Err(format!("the stack is deeper than {STACK_LIMIT} values"));
        }
        self.stack.push(value);
        Ok(())
    }

    /// The lowest index of the stack that is not closed off by a mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty where a value is wanted".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty where a value is wanted".into())
    }

    fn top(&self) -> Step<Value<'a>> {
        let above = self.stack.get(self.floor()..).and_then(<[_]>::last);
        above.copied().ok_or_else(|| "the stack is empty where a value is wanted".into())
    }

    /// POP takes a mark where there is nothing above it.
    fn discard(&mut self) -> Step<()> {
        if self.stack.len() > self.floor() || self.marks.is_empty() {
            self.pop().map(drop)
        } else {
            self.pop_mark().map(drop)
        }
    }

    fn pop_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("the stack has no mark where one is wanted")?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, index: u32) -> Step<()> {
        let top = self.top()?;
        if self.memo.len() == VALUE_LIMIT {
            return Err(format!("the memo is larger than {VALUE_LIMIT} values"));
        }
        self.memo.insert(index, top);
        Ok(())
    }

    fn append(&mut self, new: Vec<Value<'a>>) -> Step<()> {
        self.charge(new.len())?;
        self.add_to_top("items are appended to", |node| match node {
            Node::List(items) => {
                items.extend(new);
                true
            }
            _ => false,
        })
    }

    fn set_items(&mut self, items: &[Value<'a>]) -> Step<()> {
        let new = self.pair_up(items)?;
        self.charge(new.len())?;
        self.add_to_top("items are set in", |node| match node {
            Node::Dict(pairs) => {
                pairs.extend(new);
                true
            }
            _ => false,
        })
    }

    /// `add`s to the value on top, unless it is inert; `add` says whether it is of the kind that it adds to.
    fn add_to_top(&mut self, what: &str, add: impl FnOnce(&mut Node<'a>) -> bool) -> Step<()> {
        let top = self.top()?;
        let added = match top {
            Value::Node(at) => add(&mut self.nodes[at]),
            Value::Inert => true,
            _ => false,
        };
        if added { Ok(()) } else { Err(format!("{what} {}", top.kind(&self.nodes))) }
    }

    fn text(&mut self, width: usize) -> Step<()> {
        let length = self.input.length(width)?;
        let bytes = self.input.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".to_string())?;
        self.push(Value::Text(text))
    }

    fn counted(&mut self, width: usize) -> Step<()> {
        let length = self.input.length(width)?;
        self.inert(length)
    }

    fn inert(&mut self, length: usize) -> Step<()> {
        self.input.skip(length)?;
        self.push(Value::Inert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(bytes: &[u8]) -> Result<String, String> {
        let pickle = read(bytes, 1 << 20)?;
        Ok(pickle.root.kind(&pickle.nodes).to_string())
    }

    #[test]
    fn plain_values() {
        for (bytes, expected) in [
            (b"\x80\x02N.".as_slice(), "None"),
            (b"\x80\x02}q\0(X\x01\0\0\0aK\x01u.", "a dictionary"),
            (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x01a\x94\x8c\x01b\x94\x86\x94.", "a tuple"),
            (b"\x80\x02](K\x01K\x02e.", "a list"),
            (b"\x80\x02ccollections\nOrderedDict\n)R.", "a dictionary"),
            (b"\x80\x02c__torch__.a\nB\n)\x81}X\x01\0\0\0wNsb.", "an object"),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "a plain value"),
            (b"\x80\x05\x96\x02\0\0\0\0\0\0\0ab.", "a plain value"),
            (b"\x80\x02cbuiltins\nset\n](K\x01e\x85R.", "a plain value"),
            (b"\x80\x02(0N.", "None"),
        ] {
            assert_eq!(root(bytes).unwrap(), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn faults_have_their_position() {
        for (bytes, expected) in [
            (b"".as_slice(), "ends where a length of 1 bytes is wanted and 0 are left, at byte 0"),
            (b"\x80\x02X\xff\xff\xff\xffabc.", "a length of 4294967295 bytes is wanted and 4 are left, at byte 2"),
            (b"\x80\x02cos\nsystem\n)R.", "refuses the global \"os.system\""),
            (b"\x80\x02\x8c\x05posix\x8c\x06system\x93.", "refuses the global \"posix.system\""),
            (b"\x80\x02(X\x04\0\0\0trueios\nsystem\n.", "refuses opcode 0x69"),
            (b"\x80\x02R.", "the stack is empty where a value is wanted, at byte 2"),
            (b"\x80\x02(.", "the stack is empty"),
            (b"\x80\x02t.", "the stack has no mark"),
            (b"\x80\x02h\x05.", "the memo has no entry 5"),
            (b"\x80\x02}](N]u.", "items are set in a list"),
            (b"\x80\x02}(]Nu.", "a list is no key of a dictionary"),
            (b"\x80\x02}(Nu.", "a key without its value"),
            (b"\x80\x09N.", "pickle protocol 9, expected 2 to 5"),
            (b"\x80\x02\xff.", "unknown opcode 0xff"),
            (b"\x80\x02cos", "ends in the middle of a name"),
            (b"\x80\x02ctorch\nFloatStorage\nK\x05\x85R.", "is called"),
        ] {
            let message = root(bytes).unwrap_err();
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }

    #[test]
    fn limits_hold() {
        assert!(root(&b"(".repeat(10_000)).unwrap_err().contains("nesting deeper than"));
        assert!(root(&b"N".repeat(1 << 20)).unwrap_err().contains("ends where"));
        let many = read(&b"N".repeat(STACK_LIMIT + 2), usize::MAX).err().unwrap();
        assert!(many.contains("the stack is deeper than"), "{many}");
        let nodes = read(&b"]0".repeat(VALUE_LIMIT + 1), usize::MAX).err().unwrap();
        assert!(nodes.contains("more values than the allowed size"), "{nodes}");
        let long = read(&b"]0".repeat(100), 100).err().unwrap();
        assert!(long.contains("larger than the allowed size of 100 bytes"), "{long}");
        // One list of a thousand pairs, copied again and again: the copies count.
        let mut pairs = b"\x80\x02](".to_vec();
        pairs.extend(b"K\x01K\x02\x86".repeat(1000));
        pairs.extend(b"eq\x000");
        pairs.extend(b"ccollections\nOrderedDict\nh\x00\x85R0".repeat(5000));
        let message = root(&pairs).unwrap_err();
        assert!(message.contains("more values than the allowed size"), "{message}");
    }
}
