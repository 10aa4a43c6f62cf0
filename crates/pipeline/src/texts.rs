//! What is said of an image as ids around its prefix, and which of them are learned: a caption behind the prompt, the answers
//! of a conversation.
//!
//! Without a chat template a conversation is its texts one behind the other, each answer with an end of sequence (as LLaVA's
//! plain template); with one, what the template makes of it. The loss is on the answers and their ends alone.

use crate::generation::IMAGE_MARK;
use crate::model::Model;
use anyhow::{Context, Result, bail};
use limber_config::Config;
use limber_data::{Speaker, Tokens, Turn};
use limber_text::{ChatTemplate, Message, Speaker as Role, Tokenizer};

/// Makes ids of captions and conversations, as a config's section `train` says.
pub struct Texts<'a> {
    tokenizer: &'a Tokenizer,
    /// Text between the image and a caption.
    prompt: String,
    prompt_ids: Vec<u32>,
    chat: Option<ChatTemplate>,
    eos: Option<u32>,
}

/// A piece of a conversation: its text, and whether it is learned.
type Piece = (String, bool);

impl<'a> Texts<'a> {
    /// What a config's section `train` makes of texts.
    ///
    /// # Errors
    /// A prompt that cannot be tokenised; `train.chat` with a tokenizer without a chat template.
    pub fn new(model: &'a Model, config: &Config) -> Result<Self> {
        let train = config.train.as_ref();
        let prompt = train.and_then(|train| train.prompt.clone()).unwrap_or_default();
        let tokenizer = model.tokenizer();
        let prompt_ids = tokenizer.encode(&prompt).context("section \"train\", key \"prompt\"")?;
        let chat = match train.is_some_and(|train| train.chat) {
            true => Some(tokenizer.chat_template().context("section \"train\", key \"chat\"")?),
            false => None,
        };
        Ok(Self { tokenizer, prompt, prompt_ids, chat, eos: model.language().eos().first().copied() })
    }

    /// Tokens between the image and a caption.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_ids.len()
    }

    /// The ids of a caption behind the image and the prompt.
    ///
    /// # Errors
    /// A text that cannot be tokenised; what the chat template refuses.
    pub fn caption(&self, caption: &str) -> Result<Tokens> {
        if self.chat.is_some() {
            let user = Turn { speaker: Speaker::User, text: format!("{IMAGE_MARK}{}", self.prompt) };
            let answer = Turn { speaker: Speaker::Assistant, text: caption.to_string() };
            return self.conversation(&[user, answer]);
        }
        let mut tokens = Tokens { ends: true, ..Tokens::default() };
        tokens.push(&self.prompt_ids, false);
        tokens.push(&self.tokenizer.encode(&self.tokenizer.following(&self.prompt, caption)?)?, true);
        Ok(tokens)
    }

    /// The ids of a conversation; the image stands where its mark does, or before all.
    ///
    /// # Errors
    /// More than one mark, or one in an answer; what the chat template refuses.
    pub fn conversation(&self, turns: &[Turn]) -> Result<Tokens> {
        let marks = |turn: &&Turn| turn.text.matches(IMAGE_MARK).count();
        let (answers, others): (Vec<&Turn>, Vec<&Turn>) = turns.iter().partition(|t| t.speaker == Speaker::Assistant);
        let (in_answers, in_others): (usize, usize) = (answers.iter().map(marks).sum(), others.iter().map(marks).sum());
        if in_answers > 0 || in_others > 1 {
            bail!(
                "found {in_others} {IMAGE_MARK} marks in the questions of its conversation and {in_answers} in its answers, \
                 expected one in a question, or none"
            )
        }
        let mut turns = turns.to_vec();
        if in_others == 0
            && let Some(first) = turns.iter_mut().find(|turn| turn.speaker == Speaker::User)
        {
            first.text = format!("{IMAGE_MARK}\n{}", first.text);
        }
        let pieces = match &self.chat {
            Some(chat) => templated(chat, &turns)?,
            None => self.plain(&turns)?,
        };
        self.tokens(&pieces)
    }

    /// The texts one behind the other, a space between a question and its answer where words would run into each other.
    fn plain(&self, turns: &[Turn]) -> Result<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut is_introduced = false;
        for turn in turns {
            let before = pieces.last().map(|(text, _)| text.as_str()).unwrap_or_default();
            let is_answer = turn.speaker == Speaker::Assistant;
            let text = match turn.text.trim() {
                // Behind the image alone an answer stands as a caption does.
                IMAGE_MARK => IMAGE_MARK.to_string(),
                _ if is_answer && !before.ends_with(IMAGE_MARK) => {
                    self.tokenizer.following(before, &turn.text)?.into_owned()
                }
                _ if is_introduced && !is_answer => format!("\n{}", turn.text),
                _ => turn.text.clone(),
            };
            is_introduced = turn.speaker == Speaker::System;
            pieces.push((text, is_answer));
        }
        Ok(pieces)
    }

    /// The ids of pieces up to the last answer, with the image where its mark stands.
    fn tokens(&self, pieces: &[Piece]) -> Result<Tokens> {
        let is_plain = self.chat.is_none();
        let mut tokens = Tokens { ends: is_plain, ..Tokens::default() };
        let last = pieces.iter().rposition(|(_, is_learned)| *is_learned).unwrap_or(0);
        for (at, (text, is_learned)) in pieces.iter().take(last + 1).enumerate() {
            let mut rest = text.as_str();
            if let Some((front, back)) = text.split_once(IMAGE_MARK) {
                tokens.push(&self.tokenizer.encode(front)?, *is_learned);
                tokens.before = tokens.ids.len();
                rest = back;
            }
            tokens.push(&self.tokenizer.encode(rest)?, *is_learned);
            // The end of the last answer is the sequence's, which a step adds.
            if is_plain && *is_learned && at < last {
                tokens.push(&[self.eos.context("the decoder has no end of sequence")?], true);
            }
        }
        if !is_plain {
            // A template that does not end an answer leaves it to the sequence.
            tokens.ends = tokens.ids.last().is_some_and(|id| !self.tokenizer.is_special(*id) && self.eos != Some(*id));
        }
        Ok(tokens)
    }
}

/// What a template makes of a conversation, in pieces: what it adds where an answer begins is not learned, the answer and
/// what ends it is.
fn templated(chat: &ChatTemplate, turns: &[Turn]) -> Result<Vec<Piece>> {
    let messages: Vec<Message> = turns
        .iter()
        .map(|turn| {
            let role = match turn.speaker {
                Speaker::System => Role::System,
                Speaker::User => Role::User,
                Speaker::Assistant => Role::Assistant,
            };
            Message::new(role, turn.text.as_str())
        })
        .collect();
    let mut pieces = Vec::new();
    let mut done = String::new();
    for at in (0..messages.len()).filter(|at| messages[*at].role == Role::Assistant) {
        let before = chat.render(&messages[..at], true)?;
        let after = chat.render(&messages[..=at], false)?;
        let (Some(asked), Some(answer)) = (before.strip_prefix(&done), after.strip_prefix(&before)) else {
            bail!(
                "the tokenizer's chat template writes a conversation anew when it grows, so that the answer of turn {} cannot be \
                 told from what is around it",
                at + 1
            )
        };
        let end = answer.trim_end();
        pieces.push((asked.to_string(), false));
        pieces.push((end.to_string(), true));
        // White space behind the end of an answer is the template's.
        done = after[..before.len() + end.len()].to_string();
    }
    Ok(pieces)
}
