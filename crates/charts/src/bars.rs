//! Bars in groups, side by side, with their intervals.

use super::svg::{Anchor, Canvas, EDGE, LINE, Swatch, TEXT, short};
use super::text::{width, wrapped};
use super::ticks::Axis;
use super::{Frame, Interval, Key};

/// Degrees by which names rise that have no room side by side.
const SLANT: f64 = 35.0;

/// Bars that stand together, one for each key; None draws nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Group<'a> {
    /// The name under the bars.
    pub name: &'a str,
    /// In the order of the keys.
    pub bars: Vec<Option<Interval>>,
}

/// Draws bars from 0 with their numbers above them. A group in which one bar alone has a number gives it all its room.
pub fn bars(frame: &Frame, keys: &[Key], groups: &[Group]) -> String {
    let legend: Vec<(Key, Swatch)> = keys.iter().map(|key| (*key, Swatch::Box)).collect();
    let mut canvas = Canvas::new(frame, if keys.len() > 1 { &legend } else { &[] });
    let drawn = |group: &Group| -> Vec<(usize, Interval)> {
        let bars = group.bars.iter().copied().enumerate().take(keys.len());
        bars.filter_map(|(n, bar)| Some((n, bar?))).filter(|(_, bar)| bar.is_drawn()).collect()
    };
    let height = if frame.width < 600.0 { 200.0 } else { 260.0 };
    let values = groups.iter().flat_map(drawn).flat_map(|(_, bar)| bar.numbers().collect::<Vec<_>>());
    let axis = Axis::covering(values.chain([0.0]), (height / 45.0) as usize);
    let labels: Vec<(f64, String)> = axis.ticks().into_iter().map(|v| (v, axis.label(v))).collect();
    let left = EDGE + 8.0 + labels.iter().map(|(_, label)| width(label, TEXT)).fold(0.0, f64::max);
    let right = frame.width - EDGE;
    if !frame.y.is_empty() {
        canvas.text(EDGE, canvas.y + 0.5 * LINE, Anchor::Start, "quiet", frame.y);
        canvas.y += LINE + 4.0;
    }
    // The number of the highest bar stands above the plot.
    let top = canvas.y + LINE;
    let y = |v: f64| top + height * (1.0 - axis.share(v));
    for (value, label) in &labels {
        canvas.path("grid", &format!("M{} {}H{}", short(left), short(y(*value)), short(right)));
        canvas.text(left - 8.0, y(*value), Anchor::End, "quiet", label);
    }
    let room = (right - left) / groups.len().max(1) as f64;
    let wide = |group: &Group| (0.84 * room / drawn(group).len().max(1) as f64).min(64.0);
    let label = |bar: &Interval| format!("{:.*}", if axis.high < 20.0 { 2 } else { 1 }, bar.value);
    // Numbers stand above all bars or above none.
    let has_numbers = groups.iter().all(|g| drawn(g).iter().all(|(_, bar)| width(&label(bar), TEXT) <= wide(g)));
    for (n, group) in groups.iter().enumerate() {
        let (bars, wide) = (drawn(group), wide(group));
        let middle = left + (n as f64 + 0.5) * room;
        for (at, (key, bar)) in bars.iter().enumerate() {
            let x = middle + (at as f64 - 0.5 * (bars.len() - 1) as f64) * wide;
            let (from, to) = (y(bar.value.max(0.0)), y(bar.value.min(0.0)));
            canvas.add(&format!(
                "<rect class=\"f{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                keys[*key].colour as usize,
                short(x - 0.46 * wide),
                short(from),
                short(0.92 * wide),
                short(to - from)
            ));
            let ends: Vec<f64> = bar.numbers().map(y).collect();
            let is_whole = ends.len() == 3;
            if is_whole {
                let (low, high, arm) = (short(ends[1]), short(ends[2]), short(0.12 * wide));
                let (x, all) = (short(x), short(0.24 * wide));
                canvas.path("error", &format!("M{x} {low}V{high}M{x} {low}m-{arm} 0h{all}M{x} {high}m-{arm} 0h{all}"));
            }
            if has_numbers {
                let highest = if is_whole { ends[2].min(from) } else { from };
                canvas.text(x, highest - 0.6 * LINE, Anchor::Middle, "", &label(bar));
            }
        }
    }
    canvas.path("axis", &format!("M{} {}H{}", short(left), short(y(0.0)), short(right)));
    if groups.is_empty() {
        canvas.text(0.5 * (left + right), top + 0.5 * height, Anchor::Middle, "quiet", "nothing to show");
    }
    canvas.y = top + height + 6.0;
    names(&mut canvas, groups, left, room);
    if !frame.x.is_empty() {
        canvas.text(0.5 * (left + right), canvas.y + 0.5 * LINE, Anchor::Middle, "quiet", frame.x);
        canvas.y += LINE;
    }
    let described = |group: &Group| {
        let one = |(key, bar): (usize, Interval)| format!("{} {}", keys[key].name, bar.words());
        format!("{}: {}", group.name, drawn(group).into_iter().map(one).collect::<Vec<_>>().join(", "))
    };
    let all: Vec<String> = groups.iter().map(described).collect();
    canvas.finish(frame.title, &format!("{}. {}.", frame.y, all.join("; ")))
}

/// The names of the groups: in lines where every word fits under its group, else slanted.
fn names(canvas: &mut Canvas, groups: &[Group], left: f64, room: f64) {
    let lines: Vec<Vec<String>> = groups.iter().map(|group| wrapped(group.name, TEXT, room - 2.0)).collect();
    let middle = |n: usize| left + (n as f64 + 0.5) * room;
    if lines.iter().flatten().all(|line| width(line, TEXT) <= room - 2.0) {
        for (n, lines) in lines.iter().enumerate() {
            for (row, line) in lines.iter().enumerate() {
                canvas.text(middle(n), canvas.y + (row as f64 + 0.5) * LINE, Anchor::Middle, "", line);
            }
        }
        canvas.y += LINE * lines.iter().map(Vec::len).max().unwrap_or(0) as f64;
        return;
    }
    let (sin, cos) = SLANT.to_radians().sin_cos();
    let mut lowest = 0.0f64;
    for (n, group) in groups.iter().enumerate() {
        let x = middle(n) + 0.3 * TEXT;
        // What would leave the picture at the left is cut.
        let most = (x - 4.0 - TEXT * sin) / cos;
        let name = cut(group.name, most);
        canvas.slanted(x, canvas.y + 0.7 * TEXT, SLANT, &name);
        lowest = lowest.max(width(&name, TEXT) * sin);
    }
    canvas.y += lowest + TEXT;
}

/// The name, or as much of it as has room, with an ellipsis.
fn cut(name: &str, room: f64) -> String {
    if width(name, TEXT) <= room {
        return name.to_string();
    }
    let mut short: String = name.to_string();
    while !short.is_empty() && width(&short, TEXT) + TEXT > room {
        short.pop();
    }
    short.trim_end().to_string() + "\u{2026}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, NARROW, WIDE};

    const KEYS: [Key; 2] =
        [Key { name: "trained", colour: Colour::Blue }, Key { name: "random", colour: Colour::Orange }];

    fn bar(value: f64, low: f64, high: f64) -> Option<Interval> {
        Some(Interval { value, low, high })
    }

    #[test]
    fn twins_stand_side_by_side_from_zero() {
        let frame = Frame { title: "t", x: "", y: "score", width: WIDE };
        let groups = [
            Group { name: "one", bars: vec![bar(4.0, 3.0, 5.0), bar(2.0, f64::NAN, 3.0)] },
            Group { name: "two", bars: vec![None, bar(f64::NAN, 0.0, 1.0)] },
        ];
        let picture = bars(&frame, &KEYS, &groups);
        // 0 to 5 over 260 pixels from 362 up; bars of 64, the pair around the middle of its half.
        for part in ["y=\"154\" width=\"58.9\" height=\"208\"", "y=\"258\" width=\"58.9\" height=\"104\"", ">4.00<"] {
            assert!(picture.contains(part), "{part} in {picture}");
        }
        assert_eq!(picture.matches("class=\"error\"").count(), 1, "an end that is no number is not drawn");
        assert!(picture.contains("one: trained 4.00 [3.00, 5.00], random 2.00 [NaN, 3.00]; two: ."));
    }

    #[test]
    fn names_are_wrapped_or_slanted() {
        let frame = |width| Frame { title: "t", x: "", y: "", width };
        let groups: Vec<Group> = ["CLIP ResNet", "NF-ResNet", "BEiT, fine-tuned", "no image", "x", "y", "z"]
            .map(|name| Group { name, bars: vec![bar(1.0, 0.5, 1.5), None] })
            .to_vec();
        assert!(!bars(&frame(WIDE), &KEYS, &groups).contains("rotate"));
        assert!(bars(&frame(NARROW), &KEYS, &groups).contains("rotate"));
        assert_eq!(cut("incomprehensibilities", 60.0), "incom\u{2026}");
    }
}
