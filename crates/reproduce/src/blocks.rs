//! A report as blocks, written as Markdown and as HTML.

use limber_charts::escaped;
use std::fmt::Write;

/// One block of a report.
pub enum Block {
    /// A heading of level 1 to 3.
    Heading(usize, String),
    /// A paragraph, one sentence a line in Markdown.
    Text(Vec<String>),
    /// Items.
    List(Vec<String>),
    /// A head, and rows of as many cells.
    Table(Vec<String>, Vec<Vec<String>>),
    /// The picture `files/NAME.svg`, with what it shows; `files/NAME-narrow.svg` is the same for a telephone.
    Picture(String, String),
    /// Short words in a row that say how things stand.
    Badges(Vec<(Tone, String)>),
    /// What was claimed and what came of it, with the heads of the Markdown table.
    Cards([&'static str; 4], Vec<Card>),
    /// Images with what was said of each, right and wrong words marked.
    Samples(Vec<Sample>),
    /// Where the report comes from.
    Footer(Vec<String>),
}

/// Whether something is as claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As claimed.
    Good,
    /// The other way.
    Bad,
    /// Neither.
    Open,
}

impl Tone {
    /// The class, and a sign for those who see no colours.
    fn class_and_sign(self) -> (&'static str, char) {
        match self {
            Tone::Good => ("badge good", '\u{2713}'),
            Tone::Bad => ("badge bad", '\u{2717}'),
            Tone::Open => ("badge", '\u{2022}'),
        }
    }
}

/// A claim and what came of it.
pub struct Card {
    /// What is claimed.
    pub claim: String,
    /// How it is judged.
    pub rule: String,
    /// What came of it.
    pub verdict: (Tone, String),
    /// The numbers that decide.
    pub numbers: Vec<String>,
}

/// An image and what was said of it.
pub struct Sample {
    /// Its path from the report.
    pub image: String,
    /// What it shows.
    pub caption: String,
    /// Who said it, and each word with whether it is right.
    pub said: Vec<(String, Vec<(String, bool)>)>,
}

/// As Markdown.
pub fn markdown(blocks: &[Block]) -> String {
    let plain = |text: &str| text.replace('|', "\\|");
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| plain(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let table = |head: &[String], rows: &[Vec<String>]| {
        let rows: String = rows.iter().map(|row| line(row)).collect();
        format!("{}|{}\n{rows}", line(head), "---|".repeat(head.len()))
    };
    let mut out = String::new();
    for block in blocks {
        if !out.is_empty() {
            out.push('\n');
        }
        match block {
            Block::Heading(level, text) => _ = writeln!(out, "{} {text}", "#".repeat(*level)),
            Block::Text(sentences) => sentences.iter().for_each(|s| _ = writeln!(out, "{s}")),
            Block::List(items) => items.iter().for_each(|item| _ = writeln!(out, "- {item}")),
            Block::Table(head, rows) => out.push_str(&table(head, rows)),
            Block::Picture(name, what) => _ = writeln!(out, "![{what}](files/{name}.svg)"),
            Block::Badges(all) => {
                let all: Vec<String> = all.iter().map(|(_, text)| format!("**{text}**")).collect();
                _ = writeln!(out, "{}", all.join(", "));
            }
            Block::Cards(head, cards) => {
                let row = |c: &Card| vec![c.claim.clone(), c.rule.clone(), c.verdict.1.clone(), c.numbers.join("; ")];
                out.push_str(&table(&head.map(String::from), &cards.iter().map(row).collect::<Vec<_>>()));
            }
            Block::Samples(samples) => {
                let names = samples.first().into_iter().flat_map(|s| s.said.iter().map(|(name, _)| name.clone()));
                let head: Vec<String> = ["image".to_string(), "caption".to_string()].into_iter().chain(names).collect();
                let said = |words: &Vec<(String, bool)>| match words.iter().all(|(_, right)| *right) {
                    true if !words.is_empty() => "=".to_string(),
                    _ => marked(words, |word, right| if right { word.to_string() } else { format!("**{word}**") }),
                };
                let row = |s: &Sample| {
                    let own = [format!("![{}]({})", s.caption, s.image), s.caption.clone()];
                    own.into_iter().chain(s.said.iter().map(|(_, words)| said(words))).collect()
                };
                out.push_str(&table(&head, &samples.iter().map(row).collect::<Vec<_>>()));
            }
            Block::Footer(sentences) => {
                out.push_str("---\n\n");
                sentences.iter().for_each(|s| _ = writeln!(out, "{s}"));
            }
        }
    }
    out
}

fn marked(words: &[(String, bool)], mark: impl Fn(&str, bool) -> String) -> String {
    words.iter().map(|(word, right)| mark(word, *right)).collect::<Vec<_>>().join(" ")
}

/// As one HTML page, light or dark as the reader's system is; pictures stay beside it.
pub fn html(title: &str, blocks: &[Block]) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{}</title>\n<style>\n{}</style></head>\n<body>\n",
        escaped(title),
        include_str!("style.css")
    );
    for block in blocks {
        match block {
            Block::Heading(level, text) => _ = writeln!(out, "<h{level}>{}</h{level}>", code(text)),
            Block::Text(sentences) => _ = writeln!(out, "<p>{}</p>", code(&sentences.join(" "))),
            Block::List(items) => _ = writeln!(out, "{}", list(items)),
            Block::Table(head, rows) => {
                let line = |tag: &str, cells: &[String]| {
                    let cells: String = cells.iter().map(|c| format!("<{tag}>{}</{tag}>", code(c))).collect();
                    format!("<tr>{cells}</tr>\n")
                };
                let rows: String = rows.iter().map(|row| line("td", row)).collect();
                // A table that is wider than the page moves under its first column; the keyboard reaches it.
                let head = line("th", head);
                _ = writeln!(out, "<div class=\"scroll\" tabindex=\"0\"><table>\n{head}{rows}</table></div>");
            }
            Block::Picture(name, what) => {
                let (name, what) = (escaped(name), escaped(what));
                _ = writeln!(
                    out,
                    "<figure><picture><source media=\"(max-width:640px)\" srcset=\"files/{name}-narrow.svg\">\
                     <img src=\"files/{name}.svg\" alt=\"{what}\"></picture></figure>"
                );
            }
            Block::Badges(all) => {
                let badges: String =
                    all.iter().map(|(tone, text)| format!("<li>{}</li>", badge(*tone, text))).collect();
                _ = writeln!(out, "<ul class=\"badges\">{badges}</ul>");
            }
            Block::Cards(_, cards) => {
                out.push_str("<div class=\"cards\">\n");
                for card in cards {
                    _ = writeln!(
                        out,
                        "<div class=\"card\">{}<p class=\"claim\">{}</p><p class=\"rule\">{}</p>{}</div>",
                        badge(card.verdict.0, &card.verdict.1),
                        code(&card.claim),
                        code(&card.rule),
                        list(&card.numbers)
                    );
                }
                out.push_str("</div>\n");
            }
            Block::Samples(samples) => {
                out.push_str("<div class=\"cards\">\n");
                samples.iter().for_each(|sample| out.push_str(&self::sample(sample)));
                out.push_str("</div>\n");
            }
            Block::Footer(sentences) => _ = writeln!(out, "<footer>{}</footer>", code(&sentences.join(" "))),
        }
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn badge(tone: Tone, text: &str) -> String {
    let (class, sign) = tone.class_and_sign();
    format!("<span class=\"{class}\">{sign} {}</span>", escaped(text))
}

fn list(items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", code(item))).collect();
    format!("<ul>\n{items}</ul>")
}

fn sample(sample: &Sample) -> String {
    let word = |word: &str, right| {
        let class = if right { "right" } else { "wrong" };
        format!("<span class=\"{class}\">{}</span>", escaped(word))
    };
    let said: String = sample
        .said
        .iter()
        .map(|(name, words)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), marked(words, word)))
        .collect();
    let (image, caption) = (escaped(&sample.image), escaped(&sample.caption));
    format!(
        "<div class=\"card sample\"><img src=\"{image}\" alt=\"{caption}\"><div><p class=\"claim\">{caption}</p><dl>\n{said}</dl></div></div>\n"
    )
}

/// Text for HTML; what stands between backquotes is code, as in Markdown.
fn code(text: &str) -> String {
    let mut out = String::new();
    for (at, piece) in text.split('`').enumerate() {
        match at % 2 {
            0 => out.push_str(&escaped(piece)),
            _ => out.push_str(&format!("<code>{}</code>", escaped(piece))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_the_same() {
        let words = |all: &[(&str, bool)]| all.iter().map(|(w, right)| (w.to_string(), *right)).collect();
        let blocks = [
            Block::Heading(2, "A < B".into()),
            Block::Text(vec!["One `x`.".into(), "Two.".into()]),
            Block::Table(vec!["a|b".into(), "c".into()], vec![vec!["<d>".into(), "1".into()]]),
            Block::List(vec!["item".into()]),
            Block::Picture("y".into(), "why \"y\"".into()),
            Block::Badges(vec![(Tone::Good, "2 hold".into()), (Tone::Bad, "1 does not".into())]),
            Block::Cards(
                ["claim", "rule", "here", "numbers"],
                vec![Card {
                    claim: "C".into(),
                    rule: "R".into(),
                    verdict: (Tone::Open, "not decided".into()),
                    numbers: vec!["1".into(), "2".into()],
                }],
            ),
            Block::Samples(vec![Sample {
                image: "s.png".into(),
                caption: "a ring".into(),
                said: vec![
                    ("e".into(), words(&[("a", true), ("<cross>", false)])),
                    ("f".into(), words(&[("a", true), ("ring", true)])),
                    ("g".into(), words(&[])),
                ],
            }]),
            Block::Footer(vec!["By x.".into()]),
        ];
        let expected = "## A < B\n\nOne `x`.\nTwo.\n\n| a\\|b | c |\n|---|---|\n| <d> | 1 |\n\n- item\n\n\
             ![why \"y\"](files/y.svg)\n\n**2 hold**, **1 does not**\n\n\
             | claim | rule | here | numbers |\n|---|---|---|---|\n| C | R | not decided | 1; 2 |\n\n\
             | image | caption | e | f | g |\n|---|---|---|---|---|\n\
             | ![a ring](s.png) | a ring | a **<cross>** | = |  |\n\n---\n\nBy x.\n";
        assert_eq!(markdown(&blocks), expected);
        let page = html("t", &blocks);
        for part in [
            "<h2>A &lt; B</h2>",
            "<p>One <code>x</code>. Two.</p>",
            "<th>a|b</th>",
            "<td>&lt;d&gt;</td>",
            "<li>item</li>",
            "srcset=\"files/y-narrow.svg\"><img src=\"files/y.svg\" alt=\"why &quot;y&quot;\">",
            "<span class=\"badge good\">\u{2713} 2 hold</span>",
            "<span class=\"badge\">\u{2022} not decided</span><p class=\"claim\">C</p>",
            "<dt>e</dt><dd><span class=\"right\">a</span> <span class=\"wrong\">&lt;cross&gt;</span></dd>",
            "<footer>By x.</footer>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
