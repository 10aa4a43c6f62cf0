//! From a file's names of tensors to the checkpoint's and back, and how llama.cpp lays tensors out.
//!
//! Source followed: llama.cpp's `gguf-py/gguf/tensor_mapping.py` and `convert_hf_to_gguf.py`.

use super::architectures::ARCHITECTURES;

/// The word embeddings in a file.
pub const WORDS: &str = "token_embd.weight";
/// The head in a file.
pub const HEAD: &str = "output.weight";

/// How rows of a file's matrix lie beside those of the checkpoint that it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they were.
    Plain,
    /// A `Conv1D` `[n_in, n_out]`, stored as `[n_out, n_in]`.
    Transposed,
    /// Heads of queries whose two halves are interleaved: rotary pairs lie side by side.
    Queries,
    /// Likewise of keys.
    Keys,
    /// For each key head its queries, its key and its value, stored as all queries, all keys, all values.
    Grouped,
    /// A norm that multiplies by 1 + its weights, stored with the 1 added.
    Gain,
    /// A norm for each head, `norms.0`, `norms.1` and so on, stored as one matrix.
    PerHead,
}

/// Whether llama.cpp reads a head of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Where a file has one, else the word embeddings.
    Optional,
    /// Always: a tied one stands in a file twice.
    Required,
    /// The word embeddings, and a file with another tensor is refused.
    Never,
}

/// A tensor's name in a file without `.weight` or `.bias`, in the checkpoint, and its form.
pub type Name = (&'static str, &'static str, Form);

/// An architecture that both sides know.
#[derive(Debug)]
pub struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// `model_type` of `config.json`; the first is what a file is read as.
    pub model_types: &'static [&'static str],
    /// Tensors outside of the layers.
    pub outer: &'static [Name],
    /// What stands before a layer's number in the checkpoint.
    pub layer: &'static str,
    /// Tensors of a layer: `blk.N.` and the name.
    pub inner: &'static [Name],
    /// Prefixes that a checkpoint's names may lack.
    pub prefix: &'static str,
    /// What llama.cpp reads the head from, by `load_arch_tensors` in its `src/models/`.
    pub head: Head,
}

impl Architecture {
    /// The one of a file.
    pub fn named(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|a| a.name == name)
    }

    /// The one of a `model_type`.
    pub fn of(model_type: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|a| a.model_types.contains(&model_type))
    }

    /// The checkpoint's name of a file's tensor, and its form; of norms of heads, what stands before `.norms`.
    pub fn checkpoint_name(&self, name: &str) -> Option<(String, Form)> {
        let (stem, end) = name.rsplit_once('.')?;
        let (before, stem, list) = match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, stem)) => {
                layer.parse::<u32>().ok()?;
                (format!("{}{layer}.", self.layer), stem, self.inner)
            }
            None => (String::new(), stem, self.outer),
        };
        let (_, own, form) = list.iter().find(|(theirs, ..)| *theirs == stem)?;
        Some((format!("{before}{own}.{end}"), *form))
    }

    /// The file's name of a checkpoint's tensor, and its form.
    pub fn file_name(&self, name: &str) -> Option<(String, Form)> {
        let (stem, end) = name.rsplit_once('.')?;
        self.stem(stem).or_else(|| self.stem(&format!("{}{stem}", self.prefix))).map(|(s, f)| (format!("{s}.{end}"), f))
    }

    /// The file's name and form of what stands before `.weight` or `.bias` in the checkpoint.
    fn stem(&self, stem: &str) -> Option<(String, Form)> {
        if let Some((layer, own)) = stem.strip_prefix(self.layer).and_then(|rest| rest.split_once('.')) {
            layer.parse::<u32>().ok()?;
            let own = own.split_once(".norms.").map_or(own, |(norms, _)| norms);
            let (theirs, _, form) = self.inner.iter().find(|(_, name, _)| *name == own)?;
            return Some((format!("blk.{layer}.{theirs}"), *form));
        }
        let (theirs, _, form) = self.outer.iter().find(|(_, name, _)| *name == stem)?;
        Some((theirs.to_string(), *form))
    }
}

/// Row `r` of the checkpoint's matrix of `rows` rows in heads of queries and of keys is row `order[r]` of the file's; None
/// where they are the same, or do not fit the heads.
pub fn order(form: Form, rows: usize, [queries, keys]: [usize; 2]) -> Option<Vec<u32>> {
    let (parts, heads) = match form {
        Form::Plain | Form::Transposed | Form::Gain | Form::PerHead => return None,
        Form::Queries => (queries.checked_mul(2)?, queries),
        Form::Keys => (keys.checked_mul(2)?, keys),
        Form::Grouped => (keys.checked_mul(2)?.checked_add(queries)?, keys),
    };
    let fits = heads > 0 && rows.is_multiple_of(parts) && u32::try_from(rows).is_ok();
    if !fits || (form == Form::Grouped && !queries.is_multiple_of(keys.max(1))) {
        return None;
    }
    let (head, dim) = (rows / heads, rows / parts);
    let of = |r: usize| {
        let (at, i) = (r / head, r % head);
        match form {
            Form::Grouped => {
                let own = head - 2 * dim;
                match i.checked_sub(own) {
                    None => at * own + i,
                    Some(i) => (queries + i / dim * keys + at) * dim + i % dim,
                }
            }
            // `dim` is half a head here.
            _ => at * head + 2 * (i % dim) + i / dim,
        }
    };
    Some((0..rows).map(|r| of(r) as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for architecture in ARCHITECTURES {
            let layers = architecture.inner.iter().map(|(theirs, ..)| format!("blk.17.{theirs}"));
            for stem in architecture.outer.iter().map(|(theirs, ..)| theirs.to_string()).chain(layers) {
                let (own, form) = architecture.checkpoint_name(&format!("{stem}.weight")).unwrap();
                let back = architecture.file_name(&own).unwrap();
                assert_eq!(back, (format!("{stem}.weight"), form), "{} {own}", architecture.name);
                let short = own.strip_prefix(architecture.prefix).unwrap_or(&own);
                assert_eq!(architecture.file_name(short).unwrap().0, back.0);
            }
            assert_eq!(architecture.checkpoint_name("blk.x.attn_norm.weight"), None);
            assert_eq!(architecture.file_name("transformer.h.0.attn.masked_bias"), None);
        }
    }

    #[test]
    fn rows_of_heads_are_told_apart() {
        // Two heads of four rows: halves 0 1 | 2 3 become pairs 0 2 1 3.
        assert_eq!(order(Form::Queries, 8, [2, 1]).unwrap(), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(order(Form::Keys, 4, [2, 1]).unwrap(), [0, 2, 1, 3]);
        // Two heads of q, k, v of two rows each.
        assert_eq!(order(Form::Grouped, 12, [2, 2]).unwrap(), [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
        // Four heads of queries and two of keys and values, of one row each.
        assert_eq!(order(Form::Grouped, 8, [4, 2]).unwrap(), [0, 1, 4, 6, 2, 3, 5, 7]);
        for (form, rows, heads) in [
            (Form::Plain, 8, [2, 2]),
            (Form::Queries, 6, [2, 2]),
            (Form::Keys, 4, [2, 0]),
            (Form::Grouped, 8, [3, 2]),
            (Form::Grouped, 12, [usize::MAX, 2]),
        ] {
            assert_eq!(order(form, rows, heads), None, "{form:?}");
        }
    }
}
