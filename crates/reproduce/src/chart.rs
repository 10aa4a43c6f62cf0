//! Two kinds of pictures in SVG: curves over steps, and bars with their intervals.

use super::blocks::escaped;
use super::measure::Value;
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
/// Room for the axis at the left, the legend at the right, the title above and the labels below.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// Colours that those who see red and green alike can tell apart (Okabe and Ito).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999", "#000000"];

/// A curve for each name: y from 0 over x, whose last place is `last`.
pub fn curves(title: &str, x: &str, last: usize, y: &str, all: &[(&str, Vec<f64>)]) -> String {
    let longest = all.iter().map(|(_, v)| v.len()).max().unwrap_or(0).max(2);
    let finite = || all.iter().flat_map(|(_, v)| v).copied().filter(|v| v.is_finite());
    let top = finite().fold(f64::MIN_POSITIVE, f64::max);
    let mut out = begin(title, y, top);
    let at = |i: usize, v: f64| (LEFT + i as f64 / (longest - 1) as f64 * plot_width(), level(v, top));
    for (n, (name, values)) in all.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .filter(|(_, v)| v.is_finite())
            .map(|(i, v)| at(i, *v))
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>",
            points.join(" ")
        );
        let (lx, ly) = (WIDTH - RIGHT + 12.0, TOP + 10.0 + 20.0 * n as f64);
        _ = writeln!(
            out,
            "<line x1=\"{lx}\" y1=\"{ly}\" x2=\"{}\" y2=\"{ly}\" stroke=\"{colour}\" stroke-width=\"3\"/>",
            lx + 18.0
        );
        text(&mut out, lx + 24.0, ly + 4.0, "start", name);
    }
    for share in 0..=4 {
        let x = LEFT + plot_width() * share as f64 / 4.0;
        text(&mut out, x, HEIGHT - BOTTOM + 18.0, "middle", &(last * share / 4).to_string());
    }
    text(&mut out, LEFT + plot_width() / 2.0, HEIGHT - 8.0, "middle", x);
    out.push_str("</svg>\n");
    out
}

/// A bar for each name, with its interval.
pub fn bars(title: &str, y: &str, all: &[(&str, &Value)]) -> String {
    let top = all.iter().map(|(_, v)| v.high.max(v.value)).fold(f64::MIN_POSITIVE, f64::max);
    let mut out = begin(title, y, top);
    let room = plot_width() / all.len().max(1) as f64;
    for (n, (name, value)) in all.iter().enumerate() {
        let middle = LEFT + (n as f64 + 0.5) * room;
        let (high, base) = (level(value.value, top), level(0.0, top));
        _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            middle - 0.3 * room,
            0.6 * room,
            base - high,
            COLOURS[n % COLOURS.len()]
        );
        let (low, up) = (level(value.low, top), level(value.high, top));
        _ = writeln!(
            out,
            "<path d=\"M{middle:.1} {low:.1}V{up:.1}M{:.1} {low:.1}h10M{:.1} {up:.1}h10\" stroke=\"#222\"/>",
            middle - 5.0,
            middle - 5.0
        );
        let (lx, ly) = (WIDTH - RIGHT + 12.0, TOP + 10.0 + 20.0 * n as f64);
        _ = writeln!(
            out,
            "<rect x=\"{lx}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            ly - 6.0,
            COLOURS[n % COLOURS.len()]
        );
        text(&mut out, lx + 20.0, ly + 4.0, "start", name);
    }
    out.push_str("</svg>\n");
    out
}

fn plot_width() -> f64 {
    WIDTH - LEFT - RIGHT
}

/// Where a value lies on a scale from 0 to `top`.
fn level(value: f64, top: f64) -> f64 {
    HEIGHT - BOTTOM - (value / top).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
}

/// The frame, the title and the scale of y.
fn begin(title: &str, y: &str, top: f64) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    text(&mut out, LEFT, 20.0, "start", title);
    text(&mut out, 8.0, TOP + 4.0, "start", y);
    for share in 0..=4 {
        let value = top * f64::from(share) / 4.0;
        let at = level(value, top);
        _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
            WIDTH - RIGHT
        );
        text(
            &mut out,
            LEFT - 6.0,
            at + 4.0,
            "end",
            &if top < 20.0 { format!("{value:.2}") } else { format!("{value:.0}") },
        );
    }
    out
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(words));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_value_lies_higher_and_nothing_leaves_the_frame() {
        let picture = curves("t", "steps", 8, "loss", &[("a & b", vec![4.0, 2.0, f64::NAN, 1.0]), ("c", vec![])]);
        assert!(picture.contains(">2</text>") && picture.contains("a &amp; b") && picture.ends_with("</svg>\n"));
        // Level of 4 is the top, of 1 three quarters down; what is not a number is left out.
        assert!(picture.contains("points=\"56.0,34.0 260.7,175.0 670.0,245.5\""), "{picture}");
        let value = Value { value: 2.0, low: 1.0, high: 4.0, seeds: vec![] };
        let picture = bars("t", "score", &[("x", &value)]);
        assert!(picture.contains("M363.0 245.5V34.0"), "{picture}");
    }
}
