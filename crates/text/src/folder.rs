//! Reads a tokenizer from the files of a checkpoint folder, as transformers' `GPT2TokenizerFast` does.
//!
//! `tokenizer.json` is the tokenizer; without it, `vocab.json` and `merges.txt` make a GPT-2 byte-level BPE.
//! `added_tokens.json`, `special_tokens_map.json` and `tokenizer_config.json` add tokens and name the end of text;
//! `chat_template.jinja` or `tokenizer_config.json` has the chat template.

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
const CONFIG: &str = "tokenizer_config.json";
const CHAT: &str = "chat_template.jinja";
const CHAT_JSON: &str = "chat_template.json";
/// The special tokens that have a name each.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];
/// The class whose `vocab.json` and `merges.txt` say all: GPT-2's, also that of GPT-J's and OPT's folders.
const BYTE_LEVEL: &str = "GPT2Tokenizer";

/// Gives the text of a file by its name, None where it is not there.
type Read<'a> = &'a dyn Fn(&str) -> Result<Option<String>>;

/// The tokenizer of the files that `read` gives; `label` is what messages call the folder.
pub(super) fn load(label: &str, read: Read) -> Result<Tokenizer> {
    let config = json(label, CONFIG, read)?.unwrap_or(Value::Null);
    let special = json(label, SPECIAL, read)?.unwrap_or(Value::Null);
    let mut tokenizer = match read(TOKENIZER)? {
        Some(text) => {
            // Once as plain JSON: the crate's own message for a broken file has no position.
            parse::<Value>(label, TOKENIZER, &text)?;
            tokenizers::Tokenizer::from_bytes(&text)
                .map_err(|e| anyhow!("{label}/{TOKENIZER}: not a tokenizer: {e}"))?
        }
        None => byte_level_bpe(label, read, &config, &special)?,
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
    add_tokens(&mut tokenizer, label, read, &config, &special)?;
    let eos = [&config, &special].iter().find_map(|tree| content(tree.get("eos_token")?));
    let chat = chat(label, read, &config, &special)?;
    Ok(Tokenizer::trained(tokenizer, &eos.unwrap_or_else(|| END_OF_TEXT.to_string()), chat))
}

/// The text of the chat template, where there is one: of its own file, else of the configuration, whose template for use
/// without tools counts where it has several.
fn chat(label: &str, read: Read, config: &Value, special: &Value) -> Result<Option<Chat>> {
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
    let named = NAMED.iter().filter_map(|name| {
        let token = [config, special].iter().find_map(|tree| content(tree.get(*name)?))?;
        Some((name.to_string(), token))
    });
    Ok(source.map(|source| Chat { source, special: named.collect() }))
}

/// GPT-2's byte-level BPE: no prefix space; `<|endoftext|>` is special where the files do not name all of the beginning
/// of text, the end of text and the unknown token (OPT's name `</s>` for all three).
fn byte_level_bpe(label: &str, read: Read, config: &Value, special: &Value) -> Result<tokenizers::Tokenizer> {
    let (Some(vocab), Some(merges)) = (read(VOCAB)?, read(MERGES)?) else {
        bail!(
            "no tokenizer in {label}: looked for {TOKENIZER}, and for {VOCAB} with {MERGES}; a sentencepiece tokenizer.model alone is not read: transformers' save_pretrained writes {TOKENIZER} of it"
        )
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
    let named = |key: &str| [config, special].iter().any(|tree| tree.get(key).and_then(content).is_some());
    if !["bos_token", "eos_token", "unk_token"].into_iter().all(named) {
        add(&mut tokenizer, AddedToken::from(END_OF_TEXT, true), None).with_context(|| label.to_string())?;
    }
    Ok(tokenizer)
}

/// Tokens that lie beside the vocabulary, in the order of their ids; then named special tokens.
fn add_tokens(
    tokenizer: &mut tokenizers::Tokenizer,
    label: &str,
    read: Read,
    config: &Value,
    special: &Value,
) -> Result<()> {
    let mut numbered: BTreeMap<u32, (AddedToken, &str)> = BTreeMap::new();
    if let Some(text) = read(ADDED)? {
        for (name, id) in parse::<BTreeMap<String, u32>>(label, ADDED, &text)? {
            numbered.insert(id, (AddedToken::from(name, false), ADDED));
        }
    }
    if let Some(decoder) = config.get("added_tokens_decoder").and_then(Value::as_object) {
        for (id, token) in decoder {
            let id = id.parse().map_err(|_| anyhow!("{label}/{CONFIG}: added_tokens_decoder: {id:?} is not an id"))?;
            let token = describe(token)
                .ok_or_else(|| anyhow!("{label}/{CONFIG}: added_tokens_decoder: {token} has no content"))?;
            numbered.insert(id, (token, CONFIG));
        }
    }
    for (id, (token, file)) in numbered {
        if tokenizer.token_to_id(&token.content) == Some(id)
            && tokenizer.get_added_vocabulary().get_vocab().contains_key(&token.content)
        {
            continue;
        }
        add(tokenizer, token, Some(id)).with_context(|| format!("{label}/{file}"))?;
    }
    for tree in [special, config] {
        let lists = ["additional_special_tokens", "extra_special_tokens"];
        let named = NAMED.iter().filter_map(|key| tree.get(*key));
        let listed = lists.iter().filter_map(|key| tree.get(key)?.as_array()).flatten();
        for token in named.chain(listed).filter_map(describe) {
            if !tokenizer.get_added_vocabulary().is_special_token(&token.content) {
                add(tokenizer, token.special(true).normalized(false), None).with_context(|| label.to_string())?;
            }
        }
    }
    Ok(())
}

/// Adds one token, and checks that it got the id that a file gives it.
fn add(tokenizer: &mut tokenizers::Tokenizer, token: AddedToken, id: Option<u32>) -> Result<()> {
    let content = token.content.clone();
    tokenizer.add_tokens([token]).map_err(|e| anyhow!("cannot add token {content:?}: {e}"))?;
    match (id, tokenizer.token_to_id(&content)) {
        (Some(wanted), Some(got)) if wanted != got => {
            bail!("token {content:?} has id {wanted} in the file, the vocabulary allows {got}")
        }
        _ => Ok(()),
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
    read(name)?.map(|text| parse(label, name, &text)).transpose()
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
        check(&[], &["no tokenizer in folder", TOKENIZER, VOCAB, MERGES]);
        check(&[(VOCAB, "{}")], &["no tokenizer in folder", MERGES]);
        check(&[("tokenizer.model", "")], &["sentencepiece tokenizer.model", TOKENIZER]);
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
