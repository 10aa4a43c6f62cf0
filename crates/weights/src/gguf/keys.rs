//! The entries of an architecture, `llama.block_count` and its kin, each held to what it can be, and the sizes among them to
//! the file's tensors: what is made of a size later is no larger than the file. Messages name an entry as the file does.

use super::header::Header;
use super::value::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// Shapes of all tensors by their names in the file.
pub type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// The entries under an architecture's name.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    header: &'a Header<'a>,
    name: &'a str,
}

impl<'a> Keys<'a> {
    /// Those of the architecture `name`.
    pub fn new(header: &'a Header<'a>, name: &'a str) -> Self {
        Self { header, name }
    }

    /// An entry as it stands.
    pub fn entry(&self, key: &str) -> Option<&'a Value<'a>> {
        self.header.metadata.get(format!("{}.{key}", self.name).as_str())
    }

    /// A message of an entry and what is expected of it.
    pub fn refusal(&self, key: &str, expected: impl Display) -> String {
        match self.entry(key) {
            None => format!("metadata entry {}.{key} is missing, {expected}", self.name),
            Some(value) => format!("metadata entry {}.{key} is {value}, {expected}", self.name),
        }
    }

    /// A whole number from 1 on; None where there is none.
    pub fn size_if_set(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.entry(key) else { return Ok(None) };
        let size = value.whole().filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
        size.map(Some).ok_or_else(|| self.refusal(key, "expected a whole number, at least 1"))
    }

    /// A whole number from 1 on.
    pub fn size(&self, key: &str) -> Result<usize, String> {
        self.size_if_set(key)?.ok_or_else(|| self.refusal(key, "expected a whole number, at least 1"))
    }

    /// A number above `bound`; None where there is none.
    pub fn number_if_set(&self, key: &str, bound: f64) -> Result<Option<f64>, String> {
        let Some(value) = self.entry(key) else { return Ok(None) };
        let number = value.real().filter(|x| x.is_finite() && *x > bound);
        number.map(Some).ok_or_else(|| self.refusal(key, format!("expected a number above {bound}")))
    }

    /// A number above 0.
    pub fn positive(&self, key: &str) -> Result<f64, String> {
        self.number_if_set(key, 0.0)?.ok_or_else(|| self.refusal(key, "expected a number above 0"))
    }

    /// `block_count`, which is the number of blocks that have tensors; a file of a tokenizer alone has none.
    pub fn blocks(&self, shapes: &Shapes) -> Result<usize, String> {
        let key = "block_count";
        let count = self.size(key)?;
        let number = |name: &str| name.strip_prefix("blk.")?.split_once('.')?.0.parse::<usize>().ok();
        let found: BTreeSet<usize> = shapes.keys().filter_map(|name| number(name)).collect();
        match found.last() {
            Some(last) if found.len() != count || *last >= count => {
                let found = format!("tensors of {} blocks, the last of them {last}", found.len());
                Err(self.refusal(key, format!("but the file has {found}")))
            }
            _ => Ok(count),
        }
    }

    /// Checks that the size `key` is that of dimension `at` of a tensor, where that is there.
    pub fn expect(&self, key: &str, size: usize, shapes: &Shapes, tensor: &str, at: usize) -> Result<(), String> {
        match shapes.get(tensor) {
            Some(shape) if shape.get(at) != Some(&size) => {
                Err(self.refusal(key, format!("but the shape of {tensor} is {shape:?}")))
            }
            _ => Ok(()),
        }
    }
}

/// Checks that the file's special tokens are tokens: ids that end or begin a text, and the list of them, against the rows of
/// the word table.
pub fn check_tokens(header: &Header, rows: usize) -> Result<(), String> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let listed = header.metadata.get(TOKENS).and_then(Value::list).map(|list| list.len());
    if let Some(count) = listed.filter(|count| *count > rows) {
        return Err(format!("metadata entry {TOKENS} lists {count} tokens, but token_embd.weight has {rows} rows"));
    }
    let count = listed.unwrap_or(rows);
    for name in ["bos", "eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{name}_token_id");
        if let Some(id) = header.metadata.get(key.as_str())
            && id.whole().is_none_or(|id| id >= count as u64)
        {
            return Err(format!("metadata entry {key} is {id}, expected one of the vocabulary's {count} ids"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(entries: &[(&'static str, Value<'static>)]) -> Header<'static> {
        Header { metadata: entries.iter().cloned().collect(), ..Header::default() }
    }

    #[test]
    fn numbers_are_held_to_their_bounds_under_the_files_names() {
        let of = |value: Value<'static>| header(&[("llama.x", value)]);
        for (value, size) in [
            (Value::Whole(0), "is 0, expected a whole number, at least 1"),
            (Value::Signed(-3), "is -3, expected a whole number"),
            (Value::Float(2.5), "is 2.5, expected a whole number"),
            (Value::Text("two".into()), "is \"two\", expected a whole number"),
        ] {
            let message = Keys::new(&of(value), "llama").size("x").unwrap_err();
            assert!(message.starts_with("metadata entry llama.x ") && message.contains(size), "{message}");
        }
        for number in [f64::NAN, f64::INFINITY, 0.0, -1e-5] {
            let message = Keys::new(&of(Value::Float(number)), "llama").positive("x").unwrap_err();
            assert_eq!(message, format!("metadata entry llama.x is {number}, expected a number above 0"));
        }
        let empty = header(&[]);
        let keys = Keys::new(&empty, "llama");
        assert_eq!((keys.size_if_set("x"), keys.number_if_set("x", 1.0)), (Ok(None), Ok(None)));
        assert_eq!(keys.positive("x").unwrap_err(), "metadata entry llama.x is missing, expected a number above 0");
    }

    #[test]
    fn blocks_are_those_of_the_tensors() {
        let blocks = |count: u64, names: &[&'static str]| {
            let header = header(&[("llama.block_count", Value::Whole(count))]);
            let shapes: Shapes = names.iter().map(|name| (*name, &[2usize, 3][..])).collect();
            Keys::new(&header, "llama").blocks(&shapes)
        };
        let two = ["blk.0.attn_q.weight", "blk.1.attn_q.weight", "output.weight"];
        assert_eq!(blocks(2, &two), Ok(2));
        for count in [1, 3, u64::from(u32::MAX), u64::MAX] {
            let message = blocks(count, &two).unwrap_err();
            let expected = format!(
                "metadata entry llama.block_count is {count}, but the file has tensors of 2 blocks, the last of them 1"
            );
            assert_eq!(message, expected);
        }
        assert!(blocks(2, &["blk.0.a.weight", "blk.4294967295.a.weight"]).is_err());
    }
}
