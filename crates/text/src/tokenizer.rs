//! `Tokenizer`: text to ids, ids to text, over a checkpoint's own tokenizer or a byte-level stand-in.
//!
//! A text is the tokens that stand in it: special tokens are recognised, none is added in front or behind, whatever
//! `add_bos_token` or a post-processor of `tokenizer.json` asks for, since a text stands behind an image or another text
//! as often as at the start. A model that was trained with a beginning of text (OPT: `</s>`) gets one where the prompt
//! says it: `"</s><image>A picture of"`. Nothing is tidied up after decoding.
//! This is transformers' `tokenizer(text, add_special_tokens=False)` and
//! `decode(ids, clean_up_tokenization_spaces=False)`.

use super::chat::ChatTemplate;
use super::folder;
use super::stream::TextStream;
use anyhow::{Result, anyhow, bail};
use limber_core::WeightSource;
use limber_core::bounded::without_mark;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What stands for the end of a text where a tokenizer does not say otherwise (GPT-2's).
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// How GPT-J's tokenizer calls rows that no text uses.
const FILLER: &str = "<|extratoken_";

/// A tokenizer and what the sampler needs to know of it.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    pub(super) inner: Inner,
    eos: Option<u32>,
    limit: u32,
    chat: Option<Chat>,
}

/// A chat template as its file has it.
#[derive(Debug, Clone)]
pub(super) struct Chat {
    /// The template's text.
    pub(super) source: String,
    /// Special tokens by name.
    pub(super) special: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) enum Inner {
    /// A checkpoint's own, with the ids that `skip_special` leaves out.
    Trained { tokenizer: Box<tokenizers::Tokenizer>, special: BTreeSet<u32>, bytes: bool },
    /// One id a byte; the end of text keeps the id of the model and shifts the bytes behind it.
    StandIn,
}

impl Tokenizer {
    /// The tokenizer of a checkpoint folder: `tokenizer.json`, else `vocab.json` and `merges.txt`, else `tokenizer.model`.
    ///
    /// # Errors
    /// No tokenizer in the folder (the message names the files looked for); a file that is broken.
    pub fn from_folder(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        folder::load(&path.display().to_string(), &|name| Ok(limber_weights::document(path, name)?))
    }

    /// The tokenizer that lies beside a model's weights.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_source(source: &dyn WeightSource) -> Result<Self> {
        folder::load(&source.label(), &|name| Ok(source.document(name)?))
    }

    /// The tokenizer of a `tokenizer.json` or a `tokenizer.model` in memory.
    ///
    /// # Errors
    /// Bytes that are no such file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(without_mark(bytes)).ok().filter(|text| text.trim_start().starts_with('{'));
        let (tokenizer, config) = match text {
            Some(text) => (text.to_string(), None),
            None => {
                let made = limber_weights::tokenizer_documents(bytes, &serde_json::Value::Null, None);
                let (tokenizer, config) =
                    made.map_err(|e| anyhow!("no tokenizer.json, and as a tokenizer.model {e}"))?;
                (tokenizer, Some(config))
            }
        };
        folder::load("memory", &|name| match name {
            folder::TOKENIZER => Ok(Some(tokenizer.clone())),
            folder::CONFIG => Ok(config.clone()),
            _ => Ok(None),
        })
    }

    /// The whole tokenizer as a `tokenizer.json`; None of a stand-in.
    pub fn to_json(&self) -> Option<String> {
        match &self.inner {
            Inner::Trained { tokenizer, .. } => tokenizer.to_string(false).ok(),
            Inner::StandIn => None,
        }
    }

    /// A stand-in for random models without a folder: one id a byte, beside the model's own end of text.
    /// Every id of `vocab` may be sampled; one that is no byte decodes to a visible `<1234>`.
    pub fn stand_in(vocab: usize, eos: Option<u32>) -> Self {
        Self { inner: Inner::StandIn, eos, limit: u32::try_from(vocab).unwrap_or(u32::MAX), chat: None }
    }

    /// A trained tokenizer with the end of text `eos`.
    pub(super) fn trained(tokenizer: tokenizers::Tokenizer, eos: &str, chat: Option<Chat>) -> Self {
        let eos = tokenizer.token_to_id(eos);
        // GPT-J's tokenizer names the unused rows of its table, so that their number is a round one.
        let vocab = tokenizer.get_vocab(true);
        let used = vocab.iter().filter(|(token, _)| !token.starts_with(FILLER)).map(|(_, id)| *id);
        let limit = used.max().map_or(0, |highest| highest + 1);
        let special =
            tokenizer.get_added_tokens_decoder().iter().filter(|(_, t)| t.special).map(|(id, _)| *id).collect();
        let bytes = matches!(tokenizer.get_decoder(), Some(tokenizers::DecoderWrapper::ByteLevel(_)));
        Self { inner: Inner::Trained { tokenizer: Box::new(tokenizer), special, bytes }, eos, limit, chat }
    }

    /// The ids of `text`: special tokens inside it are recognised, none is added.
    ///
    /// # Errors
    /// A text with a part that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.inner {
            Inner::Trained { tokenizer, .. } => {
                let encoding =
                    tokenizer.encode_fast(text, false).map_err(|e| anyhow!("cannot tokenize {text:?}: {e}"))?;
                Ok(encoding.get_ids().to_vec())
            }
            Inner::StandIn => {
                let mut ids = Vec::with_capacity(text.len());
                for (i, part) in text.split(END_OF_TEXT).enumerate() {
                    match self.eos {
                        Some(eos) if i > 0 => ids.push(eos),
                        None if i > 0 => ids.extend(END_OF_TEXT.bytes().map(u32::from)),
                        _ => {}
                    }
                    ids.extend(part.bytes().map(|byte| match self.eos {
                        Some(eos) if u32::from(byte) >= eos => u32::from(byte) + 1,
                        _ => u32::from(byte),
                    }));
                }
                if let Some(bad) = ids.iter().find(|id| **id >= self.limit) {
                    bail!("the stand-in tokenizer has no id for a byte of {text:?}: {bad} is not in 0..{}", self.limit)
                }
                Ok(ids)
            }
        }
    }

    /// The text of `ids`; bytes that are no UTF-8 become U+FFFD, ids without a token a visible `<1234>`.
    /// `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// A token that the tokenizer's decoder refuses.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        // A decoder with rules of its own sees all ids at once: it makes a character of none of the bytes in a row that are
        // not UTF-8 as a whole, which a stream cannot know in time.
        if let Inner::Trained { tokenizer, special, bytes: false } = &self.inner {
            let shown: Vec<u32> = ids.iter().filter(|id| !(skip_special && special.contains(id))).copied().collect();
            return tokenizer.decode(&shown, skip_special).map_err(|e| anyhow!("cannot decode {ids:?}: {e}"));
        }
        let mut stream = self.stream(skip_special);
        let mut text = String::new();
        for id in ids {
            text.push_str(&stream.push(*id)?);
        }
        text.push_str(&stream.finish()?);
        Ok(text)
    }

    /// Decodes id after id; what it gives together is what [`Self::decode`] gives, save that bytes in a row that are not UTF-8
    /// as a whole may have given characters before that showed.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special)
    }

    /// Number of ids that have a token.
    pub fn len(&self) -> usize {
        match &self.inner {
            Inner::Trained { tokenizer, .. } => tokenizer.get_vocab_size(true),
            Inner::StandIn => self.limit as usize,
        }
    }

    /// Whether there is no id at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest id that texts use + 1: ids from here on are never sampled.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// The end of text, where the tokenizer has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The id of a token as it stands in the vocabulary, such as `<|image|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        match &self.inner {
            Inner::Trained { tokenizer, .. } => tokenizer.token_to_id(token),
            Inner::StandIn if token == END_OF_TEXT => self.eos,
            Inner::StandIn => None,
        }
    }

    /// Whether an id is a special token, which texts do not show.
    pub fn is_special(&self, id: u32) -> bool {
        match &self.inner {
            Inner::Trained { special, .. } => special.contains(&id),
            Inner::StandIn => self.eos == Some(id),
        }
    }

    /// The template that makes a text of a conversation.
    ///
    /// # Errors
    /// A tokenizer without one, a text that is no template.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        let Some(Chat { source, special }) = &self.chat else {
            bail!(
                "the tokenizer has no chat template: looked for chat_template.jinja, and for chat_template in \
                 tokenizer_config.json; instruction-tuned models have one"
            )
        };
        ChatTemplate::new(source, special.clone())
    }

    /// Whether this stands in for a tokenizer that is not there.
    pub fn is_stand_in(&self) -> bool {
        matches!(self.inner, Inner::StandIn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_goes_there_and_back() {
        // GPT-J's sizes, an end of text among the bytes, none at all.
        for (vocab, eos) in [(50_400, Some(50_256)), (300, Some(10)), (257, Some(256)), (256, None), (300, Some(0))] {
            let tokenizer = Tokenizer::stand_in(vocab, eos);
            for text in ["", "A picture of", "naïve 日本 😀\n\0"] {
                let ids = tokenizer.encode(text).unwrap();
                assert_eq!(ids.len(), text.len());
                assert!(ids.iter().all(|id| Some(*id) != eos));
                assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{vocab} {eos:?}");
            }
            assert_eq!(tokenizer.limit(), vocab);
        }
        let tokenizer = Tokenizer::stand_in(50_400, Some(50_256));
        let ids = tokenizer.encode("a<|endoftext|>b").unwrap();
        assert_eq!(ids, [97, 50_256, 98]);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "ab");
        assert_eq!(tokenizer.decode(&[97, 1234, 50_256], false).unwrap(), "a<1234><|endoftext|>");
        assert_eq!(tokenizer.token_id(END_OF_TEXT), Some(50_256));
    }

    #[test]
    fn a_small_vocabulary_refuses_what_it_has_no_id_for() {
        let message = Tokenizer::stand_in(100, None).encode("zoo").unwrap_err().to_string();
        assert!(message.contains("\"zoo\"") && message.contains("0..100"), "{message}");
    }
}
