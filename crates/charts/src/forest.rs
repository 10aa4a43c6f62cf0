//! Forest plots: a line for each name, with a marker and its interval for each key.

use super::curves::{below, horizontal};
use super::svg::{Anchor, Canvas, EDGE, LINE, Swatch, TEXT, marker, short, stroke};
use super::text::{width, wrapped};
use super::{Frame, Interval, Key};

/// Pixels between the markers of one name.
const STEP: f64 = 13.0;

/// A name and its intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// The name.
    pub name: &'a str,
    /// Each with the number of its key.
    pub intervals: Vec<(usize, Interval)>,
}

/// Draws the rows from the top down; `reference` is a value that a line marks, such as no difference. Where no row has more
/// than one interval its numbers stand beside it.
pub fn forest(frame: &Frame, keys: &[Key], rows: &[Row], reference: Option<f64>) -> String {
    let used = |n: &usize| rows.iter().any(|row| row.intervals.iter().any(|(key, _)| key == n));
    let legend: Vec<(Key, Swatch)> = (0..keys.len()).filter(used).map(|n| (keys[n], Swatch::Marker(n))).collect();
    let mut canvas = Canvas::new(frame, &legend);
    let drawn = |row: &Row| -> Vec<(usize, Interval)> {
        row.intervals.iter().copied().filter(|(key, one)| *key < keys.len() && one.is_drawn()).collect()
    };
    let is_single = rows.iter().all(|row| row.intervals.len() <= 1);
    let numbers = |row: &Row| match row.intervals.first() {
        Some((_, one)) if is_single && one.is_drawn() => one.words(),
        _ => String::new(),
    };
    let widest = |text: &dyn Fn(&Row) -> String| rows.iter().map(|r| width(&text(r), TEXT)).fold(0.0, f64::max);
    let inner = frame.width - 2.0 * EDGE;
    let numbers_room = widest(&numbers);
    // Names stand above their lines where both side by side leave less than half for the plot.
    let is_stacked = widest(&|row| row.name.to_string()).min(0.35 * inner) + numbers_room + 24.0 > 0.55 * inner;
    let names_room = if is_stacked { inner - numbers_room - 8.0 } else { 0.35 * inner };
    let names: Vec<Vec<String>> = rows.iter().map(|row| wrapped(row.name, TEXT, names_room)).collect();
    let name_width = names.iter().flatten().map(|line| width(line, TEXT)).fold(0.0, f64::max);
    let plot = match is_stacked {
        true => (EDGE + 8.0, frame.width - EDGE - 8.0),
        false => (EDGE + name_width + 16.0, frame.width - EDGE - if is_single { numbers_room + 16.0 } else { 8.0 }),
    };
    let values: Vec<f64> = rows.iter().flat_map(drawn).flat_map(|(_, one)| one.numbers().collect::<Vec<_>>()).collect();
    let axis = horizontal(values.iter().copied().chain(reference), plot, true);
    let x = |v: f64| plot.0 + (plot.1 - plot.0) * axis.share(v);
    canvas.y += 4.0;
    let mut body = Vec::new();
    for (row, lines) in rows.iter().zip(&names) {
        let (all, text) = (drawn(row), lines.len().max(1) as f64 * LINE);
        let marks = STEP * all.len().max(1) as f64;
        let height = if is_stacked { text + marks + 8.0 } else { text.max(marks) + 8.0 };
        let first = if is_stacked { canvas.y + 4.0 } else { canvas.y + 0.5 * (height - text) };
        for (n, line) in lines.iter().enumerate() {
            body.push((EDGE, first + (n as f64 + 0.5) * LINE, Anchor::Start, line.clone()));
        }
        let middle = if is_stacked { first + text + 0.5 * marks } else { canvas.y + 0.5 * height };
        let beside = if is_stacked { first + 0.5 * LINE } else { middle };
        body.push((frame.width - EDGE, beside, Anchor::End, numbers(row)));
        if let Some(value) = reference {
            let top = if is_stacked { first + text } else { canvas.y };
            canvas.path("axis", &format!("M{} {}V{}", short(x(value)), short(top), short(canvas.y + height)));
        }
        for (n, (key, one)) in all.iter().enumerate() {
            let at = middle + (n as f64 - 0.5 * (all.len() - 1) as f64) * STEP;
            let colour = keys[*key].colour;
            if one.numbers().count() == 3 {
                let (low, high, y) = (short(x(one.low)), short(x(one.high)), short(at));
                canvas.path(&format!("line {}", stroke(colour)), &format!("M{low} {y}H{high}"));
            }
            canvas.path(&format!("f{}", colour as usize), &marker(*key, x(one.value), at));
        }
        canvas.y += height;
        canvas.path("grid", &format!("M{} {}H{}", short(EDGE), short(canvas.y), short(frame.width - EDGE)));
    }
    if rows.is_empty() {
        body.push((0.5 * frame.width, canvas.y + LINE, Anchor::Middle, "nothing to show".into()));
        canvas.y += 2.0 * LINE;
    }
    for (x, y, anchor, words) in body.iter().filter(|(.., words)| !words.is_empty()) {
        canvas.text(*x, *y, *anchor, "", words);
    }
    canvas.y += 4.0;
    below(&mut canvas, frame, &axis, plot);
    let described = |row: &Row| {
        let name = |key: usize| if is_single { String::new() } else { format!("{} ", keys[key].name) };
        let all: Vec<String> = drawn(row).iter().map(|(key, one)| name(*key) + &one.words()).collect();
        format!("{}: {}", row.name, all.join(", "))
    };
    let all: Vec<String> = rows.iter().map(described).collect();
    canvas.finish(frame.title, &format!("{}. {}.", frame.x, all.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, NARROW, WIDE};

    const KEYS: [Key; 2] = [Key { name: "F1", colour: Colour::Blue }, Key { name: "recall", colour: Colour::Green }];

    fn row(name: &str, intervals: &[(usize, f64, f64, f64)]) -> Row<'static> {
        let name = name.to_string().leak();
        let one = |(key, low, value, high): &(usize, f64, f64, f64)| {
            (*key, Interval { value: *value, low: *low, high: *high })
        };
        Row { name, intervals: intervals.iter().map(one).collect() }
    }

    #[test]
    fn numbers_stand_beside_single_intervals_alone() {
        let frame = Frame { title: "t", x: "difference", y: "", width: WIDE };
        let rows = [row("a", &[(0, -1.0, 2.0, 4.0)]), row("b", &[])];
        let single = forest(&frame, &KEYS, &rows, Some(0.0));
        assert!(single.contains(">2.00 [-1.00, 4.00]</text>"), "{single}");
        // The reference is marked in each row.
        let lines = |picture: &str| picture.matches("class=\"axis\"").count();
        assert_eq!(lines(&single), lines(&forest(&frame, &KEYS, &rows, None)) + 2);
        assert!(single.contains(">F1</text>") && !single.contains(">recall</text>"), "a key that no row has");
        let both = forest(&frame, &KEYS, &[row("a", &[(0, 1.0, 2.0, 4.0), (1, 0.0, 1.0, 3.0)])], None);
        assert!(!both.contains(">2.00 [") && both.contains("a: F1 2.00 [1.00, 4.00], recall 1.00 [0.00, 3.00]"));
    }

    #[test]
    fn names_stand_above_their_lines_where_it_is_narrow() {
        let rows = [row("CLIP ResNet over its random twin", &[(0, 5.0, 5.6, 6.0)])];
        let at = |width| {
            let picture = forest(&Frame { title: "t", x: "", y: "", width }, &KEYS, &rows, None);
            let height = |part: &str| -> f64 {
                let line = picture.lines().find(|l| l.contains(part)).expect("the element");
                let y = line.split(" y=\"").nth(1).and_then(|rest| rest.split('"').next());
                y.and_then(|y| y.parse().ok()).unwrap_or(f64::NAN)
            };
            height(">CLIP") - height(">5.60")
        };
        assert_eq!(at(WIDE), 0.0);
        assert_eq!(at(NARROW), 0.0);
    }
}
