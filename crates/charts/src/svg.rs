//! The picture itself: elements, the two themes, and what every chart has around its plot.

use super::text::{escaped, width, wrapped};
use super::{Colour, Frame, Key};
use std::fmt::Write;

/// Size of text, and of headings.
pub const TEXT: f64 = 13.0;
const HEADING: f64 = 16.0;
/// Height of a line of text.
pub const LINE: f64 = 18.0;
/// Room between the picture's edge and what is in it.
pub const EDGE: f64 = 12.0;

/// Light, with dark where the reader's system is; a program that knows no style sheets' conditions shows it light.
const STYLE: &str = "text{font-family:system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#222}\
.bg{fill:#fff}.quiet{fill:#666}.grid{stroke:#ddd;fill:none}.axis{stroke:#888;fill:none}\
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.faint{stroke-width:1;opacity:.4}\
.dashed{stroke-dasharray:6 5}.thick{stroke-width:4}.error{stroke:#222;fill:none}\
.s0{stroke:#0072b2}.s1{stroke:#d55e00}.s2{stroke:#009e73}.s3{stroke:#cc79a7}.s4{stroke:#e69f00}.s5{stroke:#56b4e9}\
.s6{stroke:#888}.s7{stroke:#222}\
.f0{fill:#0072b2}.f1{fill:#d55e00}.f2{fill:#009e73}.f3{fill:#cc79a7}.f4{fill:#e69f00}.f5{fill:#56b4e9}\
.f6{fill:#888}.f7{fill:#222}\
@media (prefers-color-scheme:dark){text{fill:#e6e6e6}.bg{fill:#15181c}.quiet{fill:#a0a0a0}.grid{stroke:#353a40}\
.axis{stroke:#808080}.error{stroke:#e6e6e6}.s0{stroke:#56b4e9}.s5{stroke:#0072b2}.s7{stroke:#e6e6e6}\
.f0{fill:#56b4e9}.f5{fill:#0072b2}.f7{fill:#e6e6e6}}";

/// Where a text lies from its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// To the right of it.
    Start,
    /// Around it.
    Middle,
    /// To the left of it.
    End,
}

/// A picture under construction, from the top down.
pub struct Canvas {
    body: String,
    width: f64,
    /// Where the next thing goes.
    pub y: f64,
}

/// How a key is drawn in the legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swatch {
    /// A filled square.
    Box,
    /// A piece of line with these classes.
    Line(&'static str),
    /// A dot.
    Dot,
    /// The marker of this number.
    Marker(usize),
}

impl Canvas {
    /// Begins with the heading and the legend, whose keys flow in as many lines as they need.
    pub fn new(frame: &Frame, keys: &[(Key, Swatch)]) -> Self {
        let mut canvas = Self { body: String::new(), width: frame.width, y: EDGE };
        // Bold letters are wider.
        for line in wrapped(frame.title, 1.1 * HEADING, frame.width - 2.0 * EDGE) {
            canvas.y += 20.0;
            canvas.words(EDGE, canvas.y - 5.0, Anchor::Start, "", HEADING, &line);
        }
        canvas.y += 6.0;
        let (mut x, swatch) = (EDGE, 24.0);
        for (key, kind) in keys {
            let needed = swatch + width(key.name, TEXT);
            if x > EDGE && x + needed > frame.width - EDGE {
                (x, canvas.y) = (EDGE, canvas.y + LINE);
            }
            let (colour, middle) = (key.colour as usize, canvas.y + 0.5 * LINE);
            match kind {
                Swatch::Box => canvas.add(&format!(
                    "<rect class=\"f{colour}\" x=\"{}\" y=\"{}\" width=\"12\" height=\"12\"/>",
                    short(x + 4.0),
                    short(middle - 6.0)
                )),
                Swatch::Line(class) => {
                    canvas.path(&format!("line {class} s{colour}"), &format!("M{} {}h18", short(x), short(middle)));
                }
                Swatch::Dot => {
                    canvas.path(&format!("f{colour}"), &marker(0, x + 9.0, middle));
                }
                Swatch::Marker(n) => canvas.path(&format!("f{colour}"), &marker(*n, x + 9.0, middle)),
            }
            canvas.text(x + swatch, middle, Anchor::Start, "", key.name);
            x += needed + 16.0;
        }
        canvas.y += if keys.is_empty() { 0.0 } else { LINE + 6.0 };
        canvas
    }

    /// Adds an element.
    pub fn add(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    /// Adds a path of these classes.
    pub fn path(&mut self, class: &str, data: &str) {
        self.add(&format!("<path class=\"{class}\" d=\"{data}\"/>"));
    }

    /// Adds a text whose middle lies at height `y`.
    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, words: &str) {
        self.words(x, y + 0.35 * TEXT, anchor, class, TEXT, words);
    }

    /// Adds a text that ends at a point, rising to it from the left.
    pub fn slanted(&mut self, x: f64, y: f64, degrees: f64, words: &str) {
        let (x, y) = (short(x), short(y));
        self.add(&format!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" font-size=\"{TEXT}\" transform=\"rotate(-{degrees} {x} {y})\">{}</text>",
            escaped(words)
        ));
    }

    fn words(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, size: f64, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let weight = if size > TEXT { " font-weight=\"600\"" } else { "" };
        self.add(&format!(
            "<text{class} x=\"{}\" y=\"{}\"{anchor} font-size=\"{size}\"{weight}>{}</text>",
            short(x),
            short(y),
            escaped(words)
        ));
    }

    /// The whole picture, as high as what was drawn; `description` says in words what it shows.
    pub fn finish(self, title: &str, description: &str) -> String {
        let (width, height) = (short(self.width), short((self.y + EDGE).ceil()));
        let mut out = String::with_capacity(self.body.len() + STYLE.len() + 600);
        _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">"
        );
        _ = writeln!(out, "<title>{}</title>\n<desc>{}</desc>", escaped(title), escaped(description));
        _ = writeln!(out, "<style>{STYLE}</style>\n<rect class=\"bg\" width=\"100%\" height=\"100%\"/>");
        out + &self.body + "</svg>\n"
    }
}

/// The class of a colour's strokes.
pub fn stroke(colour: Colour) -> String {
    format!("s{}", colour as usize)
}

/// A marker around a point: circle, square, diamond or triangle, so that series differ by more than their colour.
pub fn marker(kind: usize, x: f64, y: f64) -> String {
    let at = |dx: f64, dy: f64| format!("{} {}", short(x + dx), short(y + dy));
    match kind % 4 {
        0 => format!("M{}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", at(-4.5, 0.0)),
        1 => format!("M{}h8v8h-8z", at(-4.0, -4.0)),
        2 => format!("M{}l5.5 5.5l-5.5 5.5l-5.5 -5.5z", at(0.0, -5.5)),
        _ => format!("M{}l5 9h-10z", at(0.0, -5.5)),
    }
}

/// A number of pixels with one digit where it needs one.
pub fn short(value: f64) -> String {
    let tenths = (value * 10.0).round() + 0.0;
    if tenths % 10.0 == 0.0 { format!("{:.0}", tenths / 10.0) } else { format!("{:.1}", tenths / 10.0) }
}
