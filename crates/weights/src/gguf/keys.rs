//! The entries of an architecture, `llama.block_count` and its kin, held to what they can be, and the sizes among them to the
//! file's tensors, before anything is made of them: what a size asks for is then no larger than the file. Messages name an
//! entry as the file does.

use super::header::Header;
use super::value::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// Shapes of all tensors by their names in the file.
pub type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// Numbers that are above a bound wherever they are set.
const NUMBERS: [(&str, f64); 6] = [
    ("attention.layer_norm_epsilon", 0.0),
    ("attention.layer_norm_rms_epsilon", 0.0),
    ("rope.freq_base", 1.0),
    ("rope.freq_base_swa", 1.0),
    ("rope.scaling.yarn_beta_fast", 0.0),
    ("rope.scaling.yarn_beta_slow", 0.0),
];
/// Numbers of which 0 is none.
const FACTORS: [&str; 9] = [
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "attention.scale",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
];

/// Checks what the file says of its decoder, of the architecture `name`; what it leaves out is for who asks for it.
///
/// # Errors
/// The first entry that no model of these tensors can have.
pub fn check(name: &str, header: &Header, shapes: &Shapes) -> Result<(), String> {
    let keys = Keys { header, name };
    for (key, bound) in NUMBERS {
        keys.above(key, bound)?;
    }
    for key in FACTORS {
        if keys.entry(key).is_some_and(|value| value.real() != Some(0.0)) {
            keys.above(key, 0.0)?;
        }
    }
    keys.blocks(shapes)?;
    keys.sizes(shapes)?;
    match shapes.get("token_embd.weight").and_then(|shape| shape.first()) {
        Some(0) => Err("token_embd.weight has no rows".into()),
        Some(rows) => check_tokens(header, *rows),
        None => Ok(()),
    }
}

/// The entries under an architecture's name.
struct Keys<'a> {
    header: &'a Header<'a>,
    name: &'a str,
}

impl<'a> Keys<'a> {
    fn entry(&self, key: &str) -> Option<&'a Value<'a>> {
        self.header.metadata.get(format!("{}.{key}", self.name).as_str())
    }

    fn refusal(&self, key: &str, expected: impl Display) -> String {
        match self.entry(key) {
            None => format!("metadata entry {}.{key} is missing, {expected}", self.name),
            Some(value) => format!("metadata entry {}.{key} is {value}, {expected}", self.name),
        }
    }

    /// A whole number from 1 on, where it is set.
    fn size(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.entry(key) else { return Ok(None) };
        let size = value.whole().filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
        size.map(Some).ok_or_else(|| self.refusal(key, "expected a whole number, at least 1"))
    }

    /// A number is above `bound`, where it is set.
    fn above(&self, key: &str, bound: f64) -> Result<(), String> {
        match self.entry(key) {
            Some(value) if !value.real().is_some_and(|x| x.is_finite() && x > bound) => {
                Err(self.refusal(key, format!("expected a number above {bound}")))
            }
            _ => Ok(()),
        }
    }

    /// `block_count` is the number of blocks that have tensors; a file of a tokenizer alone has none.
    fn blocks(&self, shapes: &Shapes) -> Result<(), String> {
        let key = "block_count";
        let Some(count) = self.size(key)? else { return Ok(()) };
        let number = |name: &str| name.strip_prefix("blk.")?.split_once('.')?.0.parse::<usize>().ok();
        let found: BTreeSet<usize> = shapes.keys().filter_map(|name| number(name)).collect();
        match found.last() {
            Some(last) if found.len() != count || *last >= count => {
                let found = format!("tensors of {} blocks, the last of them {last}", found.len());
                Err(self.refusal(key, format!("but the file has {found}")))
            }
            _ => Ok(()),
        }
    }

    /// Widths, heads and positions fit each other and the tensors.
    fn sizes(&self, shapes: &Shapes) -> Result<(), String> {
        let (width, heads) = (self.size("embedding_length")?, self.size("attention.head_count")?);
        self.expect("embedding_length", width, shapes, "token_embd.weight", 1)?;
        let positions = self.size("context_length")?;
        self.expect("context_length", positions, shapes, "position_embd.weight", 0)?;
        // Phi-3's gate and its MLP are one matrix.
        let inner =
            self.size("feed_forward_length")?.map(|n| if self.name == "phi3" { n.saturating_mul(2) } else { n });
        self.expect("feed_forward_length", inner, shapes, "blk.0.ffn_up.weight", 0)?;
        let keys = self.size("attention.head_count_kv")?;
        let (Some(width), Some(heads)) = (width, heads) else { return Ok(()) };
        let key = "attention.key_length";
        let dim = match self.size(key)? {
            None if width.is_multiple_of(heads) => width / heads,
            None => {
                let expected = format!("expected a divisor of embedding_length, {width}");
                return Err(self.refusal("attention.head_count", expected));
            }
            Some(dim) => {
                let rows = |heads: usize| Some(heads.saturating_mul(dim));
                self.expect(key, rows(heads), shapes, "blk.0.attn_q.weight", 0)?;
                self.expect(key, rows(keys.unwrap_or(heads)), shapes, "blk.0.attn_k.weight", 0)?;
                dim
            }
        };
        if keys.is_some_and(|keys| !heads.is_multiple_of(keys)) {
            let expected = format!("expected a divisor of attention.head_count, {heads}");
            return Err(self.refusal("attention.head_count_kv", expected));
        }
        if self.size("attention.value_length")?.is_some_and(|n| n != dim) {
            return Err(self.refusal("attention.value_length", format!("supported is that of keys, {dim}")));
        }
        let key = "rope.dimension_count";
        match self.size(key)? {
            Some(n) if n > dim || n % 2 != 0 => {
                let expected = format!("expected an even number, at most a head's width, {dim}");
                Err(self.refusal(key, expected))
            }
            Some(n) if n != dim && ["llama", "qwen2"].contains(&self.name) => {
                Err(self.refusal(key, format!("supported is a head's width, {dim}")))
            }
            _ => Ok(()),
        }
    }

    /// The size `key` is that of dimension `at` of a tensor, where both are there.
    fn expect(&self, key: &str, size: Option<usize>, shapes: &Shapes, tensor: &str, at: usize) -> Result<(), String> {
        match (size, shapes.get(tensor)) {
            (Some(size), Some(shape)) if shape.get(at) != Some(&size) => {
                Err(self.refusal(key, format!("but the shape of {tensor} is {shape:?}")))
            }
            _ => Ok(()),
        }
    }
}

/// Checks that the file's special tokens are tokens: ids that end or begin a text, and the list of them, against the rows of
/// the word table.
fn check_tokens(header: &Header, rows: usize) -> Result<(), String> {
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
        let check =
            |key: &'static str, value: Value<'static>| super::check("llama", &header(&[(key, value)]), &Shapes::new());
        for (value, expected) in [
            (Value::Whole(0), "is 0, expected a whole number, at least 1"),
            (Value::Signed(-3), "is -3, expected a whole number, at least 1"),
            (Value::Float(2.5), "is 2.5, expected a whole number, at least 1"),
            (Value::Text("two".into()), "is \"two\", expected a whole number, at least 1"),
        ] {
            let message = check("llama.context_length", value).unwrap_err();
            assert_eq!(message, format!("metadata entry llama.context_length {expected}"));
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1e-5] {
            let message = check("llama.attention.layer_norm_rms_epsilon", Value::Float(number)).unwrap_err();
            let key = "llama.attention.layer_norm_rms_epsilon";
            assert_eq!(message, format!("metadata entry {key} is {number}, expected a number above 0"));
            // What another architecture's entry says is nobody's business.
            assert!(check("gpt2.attention.layer_norm_epsilon", Value::Float(number)).is_ok());
        }
        assert!(check("llama.rope.scaling.factor", Value::Float(0.0)).is_ok());
        assert!(check("llama.rope.scaling.factor", Value::Float(-0.5)).is_err());
        assert!(check("llama.rope.freq_base", Value::Float(1.0)).is_err());
    }

    #[test]
    fn blocks_are_those_of_the_tensors() {
        let blocks = |count: u64, names: &[&'static str]| {
            let header = header(&[("llama.block_count", Value::Whole(count))]);
            let shapes: Shapes = names.iter().map(|name| (*name, &[2usize, 3][..])).collect();
            check("llama", &header, &shapes)
        };
        let two = ["blk.0.attn_q.weight", "blk.1.attn_q.weight", "output.weight"];
        assert_eq!((blocks(2, &two), blocks(7, &["output.weight"])), (Ok(()), Ok(())));
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
