//! Runs the table of rules: one lazily built automaton over all patterns, the longest match at every position.

use super::rules::{Cut, NAMES, RULES, Shape};
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use std::collections::HashMap;
use std::sync::OnceLock;

/// The automaton; every thread keeps a cache of its own beside it.
pub(super) struct Lexer {
    dfa: DFA,
}

/// The lexer, made at the first call.
pub(super) fn lexer() -> &'static Lexer {
    static LEXER: OnceLock<Lexer> = OnceLock::new();
    LEXER.get_or_init(|| Lexer::new().expect("the table is well formed: a test builds it"))
}

impl Lexer {
    fn new() -> Result<Self, Box<regex_automata::hybrid::BuildError>> {
        let mut names: HashMap<&str, String> = HashMap::new();
        for (name, pattern) in NAMES {
            let pattern = expand(pattern, &names);
            names.insert(name, pattern);
        }
        let patterns: Vec<String> = RULES.iter().map(|(pattern, _, _)| expand(pattern, &names)).collect();
        let config = DFA::config().match_kind(MatchKind::All).cache_capacity(32 << 20);
        let dfa = DFA::builder().configure(config).build_many(&patterns).map_err(Box::new)?;
        Ok(Self { dfa })
    }

    pub fn cache(&self) -> Cache {
        self.dfa.create_cache()
    }

    /// Hands every token of `text[..end]` to `take`, in lower case; what lies behind is only looked ahead at.
    pub fn tokens(&self, cache: &mut Cache, text: &str, end: usize, mut take: impl FnMut(&str)) {
        let mut at = 0;
        while at < end {
            let rest = &text[at..];
            let Some((rule, length)) = self.longest(cache, rest.as_bytes()) else {
                // No rule knows this character.
                at += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let (_, cut, shape) = RULES[rule];
            let token = cut_off(&rest[..length], cut);
            let token = &token[..token.len().min(end - at)];
            if let Some(shaped) = reshape(token, shape) {
                take(&shaped.to_lowercase());
            }
            at += token.len().max(1);
        }
    }

    /// The rule that matches most of the beginning of `text`, and how much.
    fn longest(&self, cache: &mut Cache, text: &[u8]) -> Option<(usize, usize)> {
        let start = start::Config::new().anchored(Anchored::Yes);
        let mut state = self.dfa.start_state(cache, &start).ok()?;
        let mut found = None;
        // A state tells of the match that ended before the byte that led to it.
        for (index, byte) in text.iter().enumerate() {
            state = self.dfa.next_state(cache, state, *byte).ok()?;
            if state.is_match() {
                found = Some((self.first(cache, state), index));
            } else if state.is_dead() {
                return found;
            }
        }
        state = self.dfa.next_eoi_state(cache, state).ok()?;
        if state.is_match() {
            found = Some((self.first(cache, state), text.len()));
        }
        found
    }

    /// The first in the table of the rules that match in this state.
    fn first(&self, cache: &Cache, state: regex_automata::hybrid::LazyStateID) -> usize {
        (0..self.dfa.match_len(cache, state))
            .map(|i| self.dfa.match_pattern(cache, state, i).as_usize())
            .min()
            .unwrap_or(0)
    }
}

/// A pattern as the automaton takes it: names filled in, letters outside of classes in both cases.
fn expand(pattern: &str, names: &HashMap<&str, String>) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '\\' => {
                length += rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..length]);
            }
            '[' => {
                length = class(rest);
                out.push_str(&rest[..length]);
            }
            '{' if rest[1..].starts_with(|c: char| c.is_ascii_lowercase()) => {
                length = rest.find('}').map_or(rest.len(), |close| close + 1);
                out.push_str("(?:");
                out.push_str(&names[&rest[1..length - 1]]);
                out.push(')');
            }
            c if c.is_ascii_alphabetic() => {
                out.extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']);
            }
            // No group is ever asked for.
            '(' => out.push_str("(?:"),
            c => out.push(c),
        }
        rest = &rest[length..];
    }
    out
}

/// The length of the class that `text` begins with, classes within it included.
fn class(text: &str) -> usize {
    let mut depth = 0;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    text.len()
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r' | '\u{85}' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{2028}' | '\u{2029}' | '\u{3000}')
}

/// `text` without its last `n` characters.
fn without_last(text: &str, n: usize) -> &str {
    let mut chars = text.chars();
    for _ in 0..n {
        chars.next_back();
    }
    chars.as_str()
}

/// `text` without the apostrophe that ends it.
fn without_apostrophe(text: &str) -> &str {
    if text.ends_with(';') { &text[..text.len() - "&apos;".len()] } else { without_last(text, 1) }
}

/// The token at the beginning of a match.
fn cut_off(text: &str, cut: Cut) -> &str {
    match cut {
        Cut::Whole => text,
        Cut::Chars(n) => without_last(text, n),
        Cut::Acronym => {
            let token = &text[..text.find(is_blank).unwrap_or(text.len())];
            if token.len() == 2 { &token[..1] } else { token }
        }
        Cut::Number => without_last(text, 1).trim_end_matches(is_blank),
        Cut::Apostrophe => without_apostrophe(text.trim_end_matches(|c: char| c.is_ascii_alphabetic())),
        Cut::Not => without_last(without_apostrophe(without_last(text, 1)), 1),
    }
}

/// What becomes of a token; None where it is left out.
fn reshape(token: &str, shape: Shape) -> Option<String> {
    let brackets = |text: String| text.replace('(', "-LRB-").replace(')', "-RRB-");
    let joined = || token.replace(' ', "\u{a0}");
    Some(match shape {
        Shape::Nothing => return None,
        Shape::Same => token.to_string(),
        Shape::As(text) => text.to_string(),
        Shape::Soft => match token.replace('\u{ad}', "") {
            empty if empty.is_empty() => "-".to_string(),
            text => text,
        },
        Shape::Opening => quotes(token, "`", "``"),
        Shape::Closing => quotes(token, "'", "''"),
        Shape::Joined => joined(),
        Shape::Telephone => brackets(joined()),
        Shape::Brackets => brackets(token.to_string()),
        Shape::Ampersand => ampersand(token),
        Shape::Fraction => {
            let spelled =
                [("\u{bc}", "1/4"), ("\u{bd}", "1/2"), ("\u{be}", "3/4"), ("\u{2153}", "1/3"), ("\u{2154}", "2/3")];
            spelled.iter().find(|(sign, _)| *sign == token).map_or(token, |(_, text)| text).to_string()
        }
        Shape::Currency => match token {
            "\u{a2}" => "cents",
            "\u{a3}" => "#",
            "\u{80}" | "\u{a4}" | "\u{20a0}" | "\u{20ac}" => "$",
            other => other,
        }
        .to_string(),
        Shape::Hyphens if (3..=4).contains(&token.len()) => "--".to_string(),
        Shape::Hyphens => token.to_string(),
    })
}

/// Quotation marks in the manner of LaTeX; straight ones become `single` and `double`.
fn quotes(token: &str, single: &str, double: &str) -> String {
    let mut out = String::new();
    for c in token.replace("&apos;", "'").replace("&quot;", "\"").chars() {
        match c {
            '\'' => out.push_str(single),
            '"' => out.push_str(double),
            '\u{91}' | '\u{2018}' | '\u{201b}' | '\u{2039}' => out.push('`'),
            '\u{92}' | '\u{2019}' | '\u{203a}' => out.push('\''),
            '\u{93}' | '\u{201c}' | '\u{ab}' => out.push_str("``"),
            '\u{94}' | '\u{201d}' | '\u{bb}' => out.push_str("''"),
            other => out.push(other),
        }
    }
    out
}

fn ampersand(token: &str) -> String {
    let mut out = String::new();
    let mut rest = token;
    while let Some(at) = rest.find('&') {
        let (before, entity) = rest.split_at(at);
        out.push_str(before);
        out.push('&');
        let is_entity = entity.get(..5).is_some_and(|e| e.eq_ignore_ascii_case("&amp;"));
        rest = &entity[if is_entity { 5 } else { 1 }..];
    }
    out + rest
}
