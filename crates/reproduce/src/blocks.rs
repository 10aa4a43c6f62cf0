//! A report as blocks, written as Markdown and as HTML.

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
    Table(Vec<Cell>, Vec<Vec<Cell>>),
    /// A picture by its path from the report, with what it shows.
    Picture(String, String),
}

/// One cell of a table.
#[derive(Clone)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A small picture by its path from the report, with what it shows.
    Picture(String, String),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_string())
    }
}

/// As Markdown.
pub fn markdown(blocks: &[Block]) -> String {
    let plain = |text: &str| text.replace('|', "\\|");
    let cell = |cell: &Cell| match cell {
        Cell::Text(text) => plain(text),
        Cell::Picture(path, what) => format!("![{}]({path})", plain(what)),
    };
    let line = |cells: &[Cell]| format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "));
    let mut out = String::new();
    for block in blocks {
        if !out.is_empty() {
            out.push('\n');
        }
        match block {
            Block::Heading(level, text) => {
                _ = writeln!(out, "{} {text}", "#".repeat(*level));
            }
            Block::Text(sentences) => sentences.iter().for_each(|s| _ = writeln!(out, "{s}")),
            Block::List(items) => items.iter().for_each(|item| _ = writeln!(out, "- {item}")),
            Block::Table(head, rows) => {
                out.push_str(&line(head));
                _ = writeln!(out, "|{}", "---|".repeat(head.len()));
                rows.iter().for_each(|row| out.push_str(&line(row)));
            }
            Block::Picture(path, what) => _ = writeln!(out, "![{what}]({path})"),
        }
    }
    out
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0;font-size:14px}th,td{border-bottom:1px solid #ccc;padding:.3em .7em;text-align:left;\
vertical-align:top}th{background:#f3f3f3}img{max-width:100%}td img{image-rendering:pixelated;width:96px}";

/// As one HTML page; pictures stay beside it.
pub fn html(title: &str, blocks: &[Block]) -> String {
    let cell = |cell: &Cell| match cell {
        Cell::Text(text) => escaped(text),
        Cell::Picture(path, what) => format!("<img src=\"{}\" alt=\"{}\">", escaped(path), escaped(what)),
    };
    let line = |tag: &str, cells: &[Cell]| {
        let cells: String = cells.iter().map(|c| format!("<{tag}>{}</{tag}>", cell(c))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{}</title><style>{STYLE}</style></head>\n<body>\n",
        escaped(title)
    );
    for block in blocks {
        match block {
            Block::Heading(level, text) => _ = writeln!(out, "<h{level}>{}</h{level}>", escaped(text)),
            Block::Text(sentences) => _ = writeln!(out, "<p>{}</p>", escaped(&sentences.join(" "))),
            Block::List(items) => {
                out.push_str("<ul>\n");
                items.iter().for_each(|item| _ = writeln!(out, "<li>{}</li>", escaped(item)));
                out.push_str("</ul>\n");
            }
            Block::Table(head, rows) => {
                out.push_str("<table>\n");
                out.push_str(&line("th", head));
                rows.iter().for_each(|row| out.push_str(&line("td", row)));
                out.push_str("</table>\n");
            }
            Block::Picture(path, what) => {
                _ = writeln!(out, "<p><img src=\"{}\" alt=\"{}\"></p>", escaped(path), escaped(what));
            }
        }
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// Text between tags and in attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_the_same() {
        let blocks = [
            Block::Heading(2, "A < B".into()),
            Block::Text(vec!["One.".into(), "Two.".into()]),
            Block::Table(
                vec!["a|b".into(), "c".into()],
                vec![vec![Cell::Picture("x.png".into(), "x".into()), "1".into()]],
            ),
            Block::List(vec!["item".into()]),
            Block::Picture("y.svg".into(), "y".into()),
        ];
        let expected =
            "## A < B\n\nOne.\nTwo.\n\n| a\\|b | c |\n|---|---|\n| ![x](x.png) | 1 |\n\n- item\n\n![y](y.svg)\n";
        assert_eq!(markdown(&blocks), expected);
        let page = html("t", &blocks);
        for part in [
            "<h2>A &lt; B</h2>",
            "<p>One. Two.</p>",
            "<th>a|b</th>",
            "<td><img src=\"x.png\" alt=\"x\"></td>",
            "<li>item</li>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
