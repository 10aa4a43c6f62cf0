//! Reads a tokenizer from the files of a checkpoint folder, as transformers' fast tokenizers do.
//!
//! `tokenizer.json` is the tokenizer; without it, `vocab.json` and `merges.txt` make a GPT-2 byte-level BPE.
//! `added_tokens.json`, `special_tokens_map.json` and `tokenizer_config.json` add tokens, give them other flags, and name the
//! end of text; `chat_template.jinja` or `tokenizer_config.json` has the chat template.
//! Source followed: transformers' `tokenization_utils_base.py` (`_from_pretrained`) and `tokenization_utils_tokenizers.py`.

use super::tokenizer::{Chat, END_OF_TEXT, Tokenizer};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, PreTokenizerWrapper};

pub(super) const TOKENIZER: &str = "tokenizer.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const ADDED: &str = "added_tokens.json";
const SPECIAL: &str = "special_tokens_map.json";
const CHAT: &str = "chat_template.jinja";
const CHAT_JSON: &str = "chat_template.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
/// Tokens of `tokenizer_config.json` by their ids.
const DECODER: &str = "added_tokens_decoder";
/// Special tokens beside those of every tokenizer.
const EXTRA: &str = "extra_special_tokens";
/// Special tokens of every tokenizer, in the order in which they are added.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The class whose `vocab.json` and `merges.txt` say all: GPT-2's, also that of GPT-J's and OPT's folders.
const BYTE_LEVEL: &str = "GPT2Tokenizer";

/// Gives the text of a file by its name, None where it is not there.
type Read<'a> = &'a dyn Fn(&str) -> Result<Option<String>>;

/// The tokenizer of the files that `read` gives; `label` is what messages call the folder.
pub(super) fn load(label: &str, read: Read) -> Result<Tokenizer> {
    let config = json(label, CONFIG, read)?.unwrap_or(Value::Null);
    let special = json(label, SPECIAL, read)?.unwrap_or(Value::Null);
    let config = merged(config, special);
    let mut tokenizer = match read(TOKENIZER)? {
        Some(text) => {
            // Once as plain JSON: the crate's own message for a broken file has no position.
            parse::<Value>(label, TOKENIZER, &text)?;
            tokenizers::Tokenizer::from_bytes(&text)
                .map_err(|e| anyhow!("{label}/{TOKENIZER}: not a tokenizer: {e}"))?
        }
        None => byte_level_bpe(label, read, &config)?,
    };
    // A text is neither cut nor filled up, whatever the file was saved with.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| anyhow!("{label}/{TOKENIZER}: {e}"))?;
    if let (Some(space), Some(PreTokenizerWrapper::ByteLevel(level))) =
        (config.get("add_prefix_space").and_then(Value::as_bool), tokenizer.get_pre_tokenizer())
    {
        let level = level.add_prefix_space(space);
        tokenizer.with_pre_tokenizer(Some(level));
    }
    add_tokens(&mut tokenizer, label, read, &config)?;
    let eos = config.get("eos_token").and_then(content);
    let chat = chat(label, read, &config)?;
    Ok(Tokenizer::trained(tokenizer, &eos.unwrap_or_else(|| END_OF_TEXT.to_string()), chat))
}

/// The text of the chat template, where there is one: of its own file, else of the configuration, whose template for use
/// without tools counts where it has several.
fn chat(label: &str, read: Read, config: &Value) -> Result<Option<Chat>> {
    let of = |tree: &Value| match tree.get("chat_template")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(all) => {
            let default = all.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"));
            Some(default?.get("template")?.as_str()?.to_string())
        }
        _ => None,
    };
    let source = match read(CHAT)?.filter(|text| !text.trim().is_empty()) {
        Some(text) => Some(text),
        None => of(config).or(json(label, CHAT_JSON, read)?.as_ref().and_then(of)),
    };
    let named = NAMED.iter().filter_map(|name| Some((name.to_string(), content(config.get(*name)?)?)));
    Ok(source.map(|source| Chat { source, special: named.collect() }))
}

/// GPT-2's byte-level BPE: no prefix space; `<|endoftext|>` is special where the files do not name all of the beginning
/// of text, the end of text and the unknown token (OPT's name `</s>` for all three).
fn byte_level_bpe(label: &str, read: Read, config: &Value) -> Result<tokenizers::Tokenizer> {
    let (Some(vocab), Some(merges)) = (read(VOCAB)?, read(MERGES)?) else {
        bail!("no tokenizer in {label}: looked for {TOKENIZER}, for {VOCAB} with {MERGES}, and for a tokenizer.model")
    };
    // Other byte-level tokenizers split texts by patterns of their own, which these two files do not hold.
    if let Some(class) = config.get("tokenizer_class").and_then(Value::as_str)
        && class.trim_end_matches("Fast") != BYTE_LEVEL
    {
        bail!(
            "{label}/{CONFIG}: tokenizer_class is {class:?}; without {TOKENIZER} supported is {BYTE_LEVEL}; transformers' save_pretrained writes {TOKENIZER} of any other"
        )
    }
    let vocab: BTreeMap<String, u32> = parse(label, VOCAB, &vocab)?;
    let mut pairs = Vec::new();
    for (line, text) in merges.lines().enumerate() {
        if text.is_empty() || text.starts_with("#version") {
            continue;
        }
        let Some((left, right)) =
            text.split_once(' ').filter(|(l, r)| !l.is_empty() && !r.is_empty() && !r.contains(' '))
        else {
            bail!("{label}/{MERGES}: line {}: {text:?} is not two tokens with a space between", line + 1)
        };
        pairs.push((left.to_string(), right.to_string()));
    }
    let model = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), pairs)
        .build()
        .map_err(|e| anyhow!("{label}/{MERGES} does not fit {VOCAB}: {e}"))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let named = |key: &str| config.get(key).and_then(content).is_some();
    if !["bos_token", "eos_token", "unk_token"].into_iter().all(named) {
        add(&mut tokenizer, &[AddedToken::from(END_OF_TEXT, true)]).with_context(|| label.to_string())?;
    }
    Ok(tokenizer)
}

/// `tokenizer_config.json` with what `special_tokens_map.json` says, which counts where the former does not describe tokens by
/// their ids, and otherwise where it says nothing.
fn merged(mut config: Value, special: Value) -> Value {
    let is_whole = config.get(DECODER).is_some();
    let Value::Object(special) = special else { return config };
    if config.is_null() {
        return Value::Object(special);
    }
    if let Some(map) = config.as_object_mut() {
        for (key, value) in special {
            match map.get_mut(&key) {
                Some(own) if is_whole && !own.is_null() => {}
                Some(Value::Array(own)) if key == EXTRA => {
                    let more = value.as_array().into_iter().flatten().filter(|token| !own.contains(token)).cloned();
                    own.extend(more.collect::<Vec<_>>());
                }
                _ => drop(map.insert(key, value)),
            }
        }
    }
    config
}

/// Special tokens that a config names: those of every tokenizer first, those of a kind of model, lists and maps of others.
fn named(config: &Value) -> Vec<AddedToken> {
    let Some(map) = config.as_object() else { return Vec::new() };
    let usual = NAMED.iter().filter_map(|key| map.get(*key));
    let own = map
        .iter()
        .filter(|(key, value)| key.ends_with("_token") && value.is_string() && !NAMED.contains(&key.as_str()));
    let own = own.map(|(_, value)| value);
    let is_set = |value: &&Value| value.as_array().is_none_or(|list| !list.is_empty()) && !value.is_null();
    // The second is the older name of the first.
    let extra = [EXTRA, "additional_special_tokens"].iter().find_map(|key| map.get(*key).filter(is_set));
    let of = |value: Option<&Value>| -> Vec<Value> {
        match value {
            Some(Value::Array(list)) => list.clone(),
            Some(Value::Object(names)) => names.values().cloned().collect(),
            _ => Vec::new(),
        }
    };
    let listed = of(map.get("model_specific_special_tokens")).into_iter().chain(of(extra));
    usual
        .chain(own)
        .cloned()
        .chain(listed)
        .filter_map(|value| describe(&value))
        .map(|token| token.special(true))
        .collect()
}

/// Tokens that lie beside the vocabulary, in the order of their ids; then named special tokens.
fn add_tokens(tokenizer: &mut tokenizers::Tokenizer, label: &str, read: Read, config: &Value) -> Result<()> {
    let named = named(config);
    let known = tokenizer.get_added_tokens_decoder();
    let mut numbered: BTreeMap<u32, (AddedToken, &str)> = BTreeMap::new();
    if let Some(text) = read(ADDED)? {
        for (name, id) in parse::<BTreeMap<String, u32>>(label, ADDED, &text)? {
            // The file has no flags, so a token that is there keeps its own.
            if known.get(&id).is_none_or(|token| token.content != name) {
                let is_special = named.iter().any(|token| token.content == name);
                numbered.insert(id, (AddedToken::from(name, is_special), ADDED));
            }
        }
    }
    if let Some(decoder) = config.get(DECODER).and_then(Value::as_object) {
        for (id, token) in decoder {
            let id = id.parse().map_err(|_| anyhow!("{label}/{CONFIG}: {DECODER}: {id:?} is not an id"))?;
            let token =
                describe(token).ok_or_else(|| anyhow!("{label}/{CONFIG}: {DECODER}: {token} has no content"))?;
            numbered.insert(id, (token, CONFIG));
        }
    }
    numbered.retain(|id, (token, _)| known.get(id) != Some(token));
    let tokens: Vec<AddedToken> = numbered.values().map(|(token, _)| token.clone()).collect();
    add(tokenizer, &tokens).with_context(|| label.to_string())?;
    for (id, (token, file)) in &numbered {
        match tokenizer.token_to_id(&token.content) {
            Some(got) if got != *id => {
                let content = &token.content;
                bail!("{label}/{file}: token {content:?} has id {id} in the file, the vocabulary allows {got}")
            }
            _ => {}
        }
    }
    let known = tokenizer.get_added_tokens_decoder();
    let known: BTreeMap<&str, &AddedToken> = known.values().map(|token| (token.content.as_str(), token)).collect();
    let missing = named.into_iter().filter_map(|token| match known.get(token.content.as_str()) {
        Some(own) if own.special => None,
        Some(own) => Some((*own).clone().special(true)),
        None => Some(token.normalized(false)),
    });
    add(tokenizer, &missing.collect::<Vec<_>>()).with_context(|| label.to_string())
}

/// Adds tokens; one that is there already gets the flags that it has here.
fn add(tokenizer: &mut tokenizers::Tokenizer, tokens: &[AddedToken]) -> Result<()> {
    match tokens.is_empty() {
        true => Ok(()),
        false => tokenizer.add_tokens(tokens.to_vec()).map(drop).map_err(|e| anyhow!("cannot add tokens: {e}")),
    }
}

/// A token as these files write it: a string, or an object with `content` and flags.
fn describe(value: &Value) -> Option<AddedToken> {
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    let token = AddedToken::from(content(value)?, flag("special"));
    let normalized = value.get("normalized").and_then(Value::as_bool).unwrap_or(token.normalized);
    Some(token.lstrip(flag("lstrip")).rstrip(flag("rstrip")).single_word(flag("single_word")).normalized(normalized))
}

fn content(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_string)
}

fn json(label: &str, name: &str, read: Read) -> Result<Option<Value>> {
    let text = read(name)?;
    text.map(|text| limber_core::json::parse(&text).map_err(|e| anyhow!("{label}/{name}: {e}"))).transpose()
}

/// JSON whose errors name file, line and column.
fn parse<T: serde::de::DeserializeOwned>(label: &str, name: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| anyhow!("{label}/{name}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(files: &[(&str, &str)]) -> String {
        let read = |name: &str| Ok(files.iter().find(|(n, _)| *n == name).map(|(_, text)| text.to_string()));
        format!("{:#}", load("folder", &read).unwrap_err())
    }

    #[test]
    fn every_broken_file_is_named_with_its_place() {
        let check = |files: &[(&str, &str)], expected: &[&str]| {
            let message = message(files);
            for part in expected {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        };
        check(&[], &["no tokenizer in folder", TOKENIZER, VOCAB, MERGES, "tokenizer.model"]);
        check(&[(VOCAB, "{}")], &["no tokenizer in folder", MERGES]);
        let qwen = r#"{"tokenizer_class": "Qwen2Tokenizer"}"#;
        check(
            &[(VOCAB, "{}"), (MERGES, ""), (CONFIG, qwen)],
            &["tokenizer_class is \"Qwen2Tokenizer\"", "supported is GPT2Tokenizer", TOKENIZER],
        );
        check(&[(TOKENIZER, "{\n \"model\": }")], &["folder/tokenizer.json", "line 2 column 11"]);
        check(&[(TOKENIZER, "{}")], &["folder/tokenizer.json", "not a tokenizer"]);
        check(&[(VOCAB, "{\"a\": \"b\"}"), (MERGES, "")], &["folder/vocab.json", "line 1 column"]);
        check(&[(VOCAB, "{\"a\": 0}"), (MERGES, "#version: 0.2\na\n")], &["folder/merges.txt", "line 2", "\"a\""]);
        check(
            &[(VOCAB, "{\"a\": 0}"), (MERGES, "a b\n")],
            &["folder/merges.txt", "vocab.json", "\"b\"".trim_matches('"')],
        );
        let base = [(VOCAB, "{\"a\": 0, \"<|endoftext|>\": 1}"), (MERGES, "")];
        check(&[base[0], base[1], (ADDED, "[")], &["folder/added_tokens.json", "line 1"]);
        check(&[base[0], base[1], (ADDED, "{\"x\": 7}")], &["folder/added_tokens.json", "\"x\"", "7", "2"]);
        check(&[base[0], base[1], (CONFIG, "{,")], &["folder/tokenizer_config.json", "line 1"]);
        check(&[base[0], base[1], (SPECIAL, "nul")], &["folder/special_tokens_map.json", "line 1"]);
    }

    #[test]
    fn files_beside_the_vocabulary_are_honoured() {
        let files = [
            (VOCAB, "{\"a\": 0, \"b\": 1, \"Ġ\": 2, \"<|endoftext|>\": 3}"),
            (MERGES, "#version: 0.2\n"),
            (ADDED, "{\"<x>\": 4, \"<y>\": 5}"),
            (SPECIAL, "{\"additional_special_tokens\": [\"<|image|>\"]}"),
            (CONFIG, "{\"eos_token\": {\"content\": \"<y>\"}, \"add_prefix_space\": true}"),
        ];
        let read = |name: &str| Ok(files.iter().find(|(n, _)| *n == name).map(|(_, text)| text.to_string()));
        let tokenizer = load("folder", &read).unwrap();
        assert_eq!(tokenizer.encode("a<x>b<|image|>").unwrap(), [2, 0, 4, 2, 1, 6]);
        assert_eq!((tokenizer.eos(), tokenizer.len(), tokenizer.limit()), (Some(5), 7, 7));
        assert_eq!(tokenizer.decode(&[0, 4, 5, 6], true).unwrap(), "a<x>");
    }
}
