//! Brace ranges: `shard-{000000..000099}.tar`, `{a,b}`, nested and one after the other, as the package `braceexpand`,
//! which webdataset calls, expands them.

use anyhow::{Result, bail};

/// Most braces inside each other.
const DEEPEST: usize = 64;
/// Most names that one pattern may stand for.
const LIMIT: usize = 10_000_000;
/// Letters in the order of their ranges.
const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// All names that `pattern` stands for, in order; a pattern without braces stands for itself.
///
/// # Errors
/// A brace without its partner, braces too deep inside each other, more names than anyone has shards.
pub fn expand(pattern: &str) -> Result<Vec<String>> {
    let mut rest = pattern;
    let all = sequence(&mut rest, pattern, 0)?;
    if rest.is_empty() {
        return Ok(all);
    }
    bail!("the name {} has a '}}' without its '{{'", shown(pattern))
}

/// Names up to the end, or inside braces up to a comma or a closing brace.
fn sequence(rest: &mut &str, pattern: &str, depth: usize) -> Result<Vec<String>> {
    let mut names = vec![String::new()];
    while let Some(next) = rest.chars().next() {
        let tails = match next {
            '}' => break,
            ',' if depth > 0 => break,
            '{' => {
                *rest = &rest[1..];
                braces(rest, pattern, depth + 1)?
            }
            '\\' if rest.len() > 1 => {
                let escaped = rest[1..].chars().next().unwrap_or('\\');
                *rest = &rest[1 + escaped.len_utf8()..];
                vec![escaped.to_string()]
            }
            plain => {
                *rest = &rest[plain.len_utf8()..];
                names.iter_mut().for_each(|name| name.push(plain));
                continue;
            }
        };
        if names.len().saturating_mul(tails.len()) > LIMIT {
            bail!("the name {} stands for more than {LIMIT} names", shown(pattern))
        }
        names = names.iter().flat_map(|name| tails.iter().map(move |tail| format!("{name}{tail}"))).collect();
    }
    Ok(names)
}

/// What a pair of braces stands for; its opening one is behind us.
fn braces(rest: &mut &str, pattern: &str, depth: usize) -> Result<Vec<String>> {
    if depth > DEEPEST {
        bail!("the name {} has more than {DEEPEST} braces inside each other", shown(pattern))
    }
    let (whole, mut names, mut commas) = (*rest, Vec::new(), 0);
    loop {
        names.extend(sequence(rest, pattern, depth)?);
        match rest.chars().next() {
            Some(',') => commas += 1,
            Some(_) => {
                let text = &whole[..whole.len() - rest.len()];
                *rest = &rest[1..];
                if commas > 0 {
                    return Ok(names);
                }
                return match range(text, pattern)? {
                    Some(range) => Ok(range),
                    // Braces around one thing are braces.
                    None => Ok(names.into_iter().map(|name| format!("{{{name}}}")).collect()),
                };
            }
            None => bail!("the name {} has a '{{' without its '}}'", shown(pattern)),
        }
        *rest = &rest[1..];
    }
}

/// `1..20`, `001..020`, `0..100..10`, `a..f`; None where the text is no range.
fn range(text: &str, pattern: &str) -> Result<Option<Vec<String>>> {
    let parts: Vec<&str> = text.split("..").collect();
    let (from, to, step) = match parts.as_slice() {
        [from, to] => (*from, *to, 1),
        [from, to, step] => match step.parse::<i64>() {
            Ok(step) => (*from, *to, step.abs().max(1)),
            Err(_) => return Ok(None),
        },
        _ => return Ok(None),
    };
    if let (Some(a), Some(b)) = (letter(from), letter(to)) {
        let mut all: Vec<String> = LETTERS[a.min(b)..=a.max(b)].iter().map(|x| char::from(*x).to_string()).collect();
        if a > b {
            all.reverse();
        }
        return Ok(Some(all.into_iter().step_by(step as usize).collect()));
    }
    let (Ok(a), Ok(b)) = (from.parse::<i64>(), to.parse::<i64>()) else { return Ok(None) };
    if from.starts_with('+') || to.starts_with('+') {
        return Ok(None);
    }
    let count = a.abs_diff(b) / step as u64 + 1;
    if count > LIMIT as u64 {
        bail!("the name {} stands for {count} names, expected at most {LIMIT}", shown(pattern))
    }
    // A leading zero on either side pads all to the longer.
    let padded = |text: &str| text.trim_start_matches('-').starts_with('0') && text.trim_start_matches('-').len() > 1;
    let width = if padded(from) || padded(to) { from.len().max(to.len()) } else { 0 };
    let step = if a <= b { step } else { -step };
    Ok(Some((0..count as i64).map(|i| format!("{:0width$}", a + i * step)).collect()))
}

/// A name as messages show it, cut where it is long.
fn shown(pattern: &str) -> String {
    let cut: String = pattern.chars().take(40).collect();
    if cut.len() < pattern.len() { format!("\"{cut}...\"") } else { format!("{pattern:?}") }
}

/// The position of a single letter.
fn letter(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [one] => LETTERS.iter().position(|letter| letter == one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_expand_as_braceexpand_expands_them() {
        // What Python's braceexpand 0.1.7 gives.
        for (pattern, expected) in [
            ("a.tar", "a.tar"),
            ("s-{000..003}.tar", "s-000.tar s-001.tar s-002.tar s-003.tar"),
            ("{8..11}", "8 9 10 11"),
            ("{08..11}", "08 09 10 11"),
            ("{3..1}", "3 2 1"),
            ("{0..7..3}", "0 3 6"),
            ("{10..1..4}", "10 6 2"),
            ("{a..d}", "a b c d"),
            ("{d..a..2}", "d b"),
            ("{a,b}{1,2}", "a1 a2 b1 b2"),
            ("x{a,b{1..3},}y", "xay xb1y xb2y xb3y xy"),
            ("{x}", "{x}"),
            ("{1..b}", "{1..b}"),
            (r"a\{b,c\}", "a{b,c}"),
            ("{-2..1}", "-2 -1 0 1"),
            ("{-02..1}", "-02 -01 000 001"),
            ("{8..011}", "008 009 010 011"),
            ("{Y..b}", "Y Z a b"),
            ("a{,b}", "a ab"),
            ("{}", "{}"),
            ("{1..3..-1}", "1 2 3"),
            ("a,b", "a,b"),
        ] {
            assert_eq!(expand(pattern).unwrap().join(" "), expected, "{pattern}");
        }
    }

    #[test]
    fn what_does_not_close_is_refused() {
        for (pattern, part) in [
            ("a{1..3", "'{' without its '}'"),
            ("a}b", "'}' without its '{'"),
            ("{a,{b}", "'{' without its '}'"),
            ("{0..99999999}", "stands for 100000000 names"),
            ("{1..9999}{1..9999}", "more than 10000000 names"),
        ] {
            let message = expand(pattern).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        for deep in ["{".repeat(100_000), "{".repeat(100_000) + &"}".repeat(100_000), "{a,".repeat(100_000)] {
            let message = expand(&deep).unwrap_err().to_string();
            assert!(
                message.ends_with("...\" has more than 64 braces inside each other") && message.len() < 200,
                "{message}"
            );
        }
        assert_eq!(expand(&("{a,".repeat(64) + &"}".repeat(64))).unwrap().len(), 65);
    }
}
