//! The tokenisation of the COCO caption tools: Stanford's PTBTokenizer in lower case, without punctuation.
//!
//! The tools write all captions into one file, one a line, so that what follows a caption can decide how its last word
//! is read (`plan B.` before `A dog` loses its stop, before `a dog` it does not). [`tokenise`] reads captions in the
//! same way.
//! Characters that the reference takes for line ends within a caption (a carriage return, U+2028) shift its lines
//! against the captions; here they part words and no more.

mod lexer;
mod rules;

use rayon::prelude::*;

/// What the tools drop. Tokens are in lower case by then, so the names of brackets stay.
const DROPPED: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// How much of the captions behind it one caption sees; no rule looks further but through markup.
const AHEAD: usize = 256;

/// The tokens of each caption, parted by single spaces; a token may hold no-break spaces.
pub fn tokenise<T: AsRef<str> + Sync>(captions: &[T]) -> Vec<String> {
    let lexer = lexer::lexer();
    (0..captions.len())
        .into_par_iter()
        .map_init(
            || (lexer.cache(), String::new()),
            |(cache, text), index| {
                text.clear();
                push_line(text, captions[index].as_ref());
                let end = text.len();
                for next in &captions[index + 1..] {
                    text.push('\n');
                    push_line(text, next.as_ref());
                    if text.len() > end + AHEAD {
                        break;
                    }
                }
                let mut line = String::with_capacity(end + 16);
                lexer.tokens(cache, text, end, |token| {
                    if !line.is_empty() {
                        line.push(' ');
                    }
                    line.push_str(token);
                });
                // An address may end in a wide blank, which the tools cut off with the rest of the line.
                let kept: Vec<&str> = line.trim_end().split(' ').filter(|token| !DROPPED.contains(token)).collect();
                kept.join(" ")
            },
        )
        .collect()
}

fn push_line(text: &mut String, caption: &str) {
    text.extend(caption.chars().map(|c| match c {
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}' => ' ',
        c => c,
    }));
}
