//! Texts in a picture: their estimated width, lines of a width, and what XML needs escaped.

/// The width of a line of text in pixels, estimated after the wide sans-serif font DejaVu Sans: seldom below the truth.
pub fn width(text: &str, size: f64) -> f64 {
    let em: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '\'' => 0.29,
            ' ' | '.' | ',' | ':' | ';' | '|' | '!' | 'I' => 0.34,
            '-' | '(' | ')' | '[' | ']' | 'f' | 't' | 'r' | '/' => 0.41,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.99,
            'c' | 'k' | 's' | 'v' | 'x' | 'y' | 'z' => 0.6,
            'E' | 'F' | 'J' | 'L' | 'P' | 'S' | 'T' | 'Y' => 0.64,
            'A' | 'B' | 'C' | 'K' | 'R' | 'V' | 'X' | 'Z' => 0.71,
            'A'..='Z' | '<' | '>' | '=' | '+' | '~' | '&' | '#' => 0.8,
            '\0'..='\u{2ff}' => 0.64,
            _ => 1.0,
        })
        .sum();
    em * size
}

/// Lines no wider than `room`, broken at spaces; a word that is wider has a line of its own. None for no words.
pub fn wrapped(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(" ", size) + width(word, size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// Text for XML and HTML, between tags and in attributes; what XML 1.0 does not allow is left out.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_where_words_do() {
        for (text, room, expected) in [
            ("CLIP ResNet, random", 100.0, vec!["CLIP ResNet,", "random"]),
            ("CLIP ResNet, random", 400.0, vec!["CLIP ResNet, random"]),
            ("incomprehensibilities are  rare", 60.0, vec!["incomprehensibilities", "are rare"]),
            (" ", 60.0, vec![]),
        ] {
            assert_eq!(wrapped(text, 12.0, room), expected);
        }
    }

    #[test]
    fn nothing_breaks_out_of_xml() {
        assert_eq!(escaped("a<b> & \"c\" 'd'\u{0}\u{1b}\u{ffff}\n"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;\n");
    }
}
