//! Conversations about an image, as LLaVA writes them (`{"from": "human", "value": text}`) or as chat models take them
//! (`{"role": "user", "content": text}`).

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// What goes before a conversation.
    System,
    /// Who asks.
    User,
    /// Who answers: what is learned.
    Assistant,
}

/// What one says in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who says it.
    pub speaker: Speaker,
    /// What is said; an `<image>` in it stands for the image.
    pub text: String,
}

/// The turns of a list.
///
/// # Errors
/// A turn without speaker or text, a speaker that is not known, a conversation without an answer.
pub fn read(list: &[Value]) -> Result<Vec<Turn>> {
    let turns: Vec<Turn> = list
        .iter()
        .enumerate()
        .map(|(at, turn)| one(turn).with_context(|| format!("turn {} of its conversation", at + 1)))
        .collect::<Result<_>>()?;
    if !turns.iter().any(|turn| turn.speaker == Speaker::Assistant && !turn.text.trim().is_empty()) {
        bail!("its conversation of {} turns has no answer that is not empty", turns.len())
    }
    Ok(turns)
}

fn one(turn: &Value) -> Result<Turn> {
    let field = |names: [&str; 2]| names.iter().find_map(|name| turn.get(*name)).and_then(Value::as_str);
    let (Some(speaker), Some(text)) = (field(["from", "role"]), field(["value", "content"])) else {
        bail!(
            "found {}, expected {{\"from\": ..., \"value\": text}} or {{\"role\": ..., \"content\": text}}",
            shown(turn)
        )
    };
    let speaker = match speaker {
        "human" | "user" => Speaker::User,
        "gpt" | "assistant" => Speaker::Assistant,
        "system" => Speaker::System,
        other => bail!("the speaker {other:?} is not known, expected human, gpt or system (user, assistant or system)"),
    };
    Ok(Turn { speaker, text: text.to_string() })
}

/// A value as messages show it, cut where it is long.
pub fn shown(value: &Value) -> String {
    const LONGEST: usize = 120;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(list: Value, expected: Result<&str, &str>) {
        let told = read(list.as_array().unwrap());
        let told =
            told.map(|all| all.iter().map(|t| format!("{:?}:{}", t.speaker, t.text)).collect::<Vec<_>>().join(" "));
        match expected {
            Ok(turns) => assert_eq!(told.unwrap(), turns),
            Err(part) => {
                let message = format!("{:#}", told.unwrap_err());
                assert!(message.contains(part), "{message}");
            }
        }
    }

    #[test]
    fn turns_are_read_under_both_names() {
        check(json!([{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]), Ok("User:Q Assistant:A"));
        check(
            json!([{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]),
            Ok("System:S User:Q Assistant:A"),
        );
        check(json!([{"from": "human", "value": "Q"}]), Err("its conversation of 1 turns has no answer"));
        check(
            json!([{"from": "bot", "value": "Q"}]),
            Err("turn 1 of its conversation: the speaker \"bot\" is not known"),
        );
        check(json!([{"from": "human"}]), Err("turn 1 of its conversation: found {\"from\":\"human\"}, expected"));
        check(json!([{"from": "gpt", "value": "x".repeat(999)}, 7]), Err("turn 2 of its conversation: found 7"));
    }
}
