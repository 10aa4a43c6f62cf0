//! Curves over steps, faint, smooth or dashed, and points.

use super::series::thinned;
use super::svg::{Anchor, Canvas, EDGE, LINE, Swatch, TEXT, short, stroke};
use super::text::width;
use super::ticks::{Axis, is_drawn};
use super::{Frame, Key};

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Thin and light, behind the others: the noise around a smooth curve.
    Faint,
    /// A full line.
    Full,
    /// A broken line.
    Dashed,
    /// A dot for each point, joined by a line.
    Dots,
}

/// Points in the order of x, and how they are drawn; what is not finite is a gap.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve<'a> {
    /// Its entry in the legend.
    pub key: Key<'a>,
    /// How it is drawn.
    pub line: Line,
    /// (x, y).
    pub points: Vec<(f64, f64)>,
}

/// Draws curves, the first behind the others, over round heights that cover them all.
pub fn curves(frame: &Frame, all: &[Curve]) -> String {
    let swatch = |line| match line {
        Line::Faint => Swatch::Line("faint thick"),
        Line::Full => Swatch::Line("thick"),
        Line::Dashed => Swatch::Line("dashed thick"),
        Line::Dots => Swatch::Dot,
    };
    let keys: Vec<(Key, Swatch)> = all.iter().map(|curve| (curve.key, swatch(curve.line))).collect();
    let mut canvas = Canvas::new(frame, &keys);
    let room = frame.width - 2.0 * EDGE;
    // More points than pixels say nothing.
    let all: Vec<(&Curve, Vec<(f64, f64)>)> =
        all.iter().map(|curve| (curve, thinned(&curve.points, room as usize))).collect();
    let drawn = || all.iter().flat_map(|(_, points)| points).filter(|p| is_drawn(p.0) && is_drawn(p.1));
    let height = if frame.width < 600.0 { 220.0 } else { 300.0 };
    let y_axis = Axis::covering(drawn().map(|p| p.1), (height / 45.0) as usize);
    let labels: Vec<(f64, String)> = y_axis.ticks().into_iter().map(|v| (v, y_axis.label(v))).collect();
    let left = EDGE + 8.0 + labels.iter().map(|(_, label)| width(label, TEXT)).fold(0.0, f64::max);
    let plot = (left, frame.width - EDGE - 8.0);
    // Steps are counted from 0, although the first that has a value is 1.
    let (low, high) = drawn().fold((f64::INFINITY, 0.0f64), |(l, h), p| (l.min(p.0), h.max(p.0)));
    let zero = (low >= 0.0 && low <= 0.1 * high).then_some(0.0);
    let x_axis = horizontal(drawn().map(|p| p.0).chain(zero), plot, false);
    if !frame.y.is_empty() {
        canvas.text(EDGE, canvas.y + 0.5 * LINE, Anchor::Start, "quiet", frame.y);
        canvas.y += LINE + 4.0;
    }
    let top = canvas.y + 4.0;
    let x = |v: f64| plot.0 + (plot.1 - plot.0) * x_axis.share(v);
    let y = |v: f64| top + height * (1.0 - y_axis.share(v));
    for (value, label) in &labels {
        canvas.path("grid", &format!("M{} {}H{}", short(plot.0), short(y(*value)), short(plot.1)));
        canvas.text(plot.0 - 8.0, y(*value), Anchor::End, "quiet", label);
    }
    for (curve, points) in &all {
        let class = match curve.line {
            Line::Faint => "line faint ",
            Line::Full | Line::Dots => "line ",
            Line::Dashed => "line dashed ",
        };
        let (mut path, mut dots) = (String::new(), Vec::<&(f64, f64)>::new());
        for piece in points.split(|p| !(is_drawn(p.0) && is_drawn(p.1))) {
            for (i, point) in piece.iter().enumerate() {
                let pen = if i == 0 { 'M' } else { 'L' };
                path.push_str(&format!("{pen}{} {}", short(x(point.0)), short(y(point.1))));
            }
            // No line leads to a point that stands alone.
            if curve.line == Line::Dots || piece.len() == 1 {
                dots.extend(piece);
            }
        }
        if !path.is_empty() {
            canvas.path(&format!("{class}{}", stroke(curve.key.colour)), &path);
        }
        for point in dots {
            let colour = curve.key.colour as usize;
            let (x, y) = (short(x(point.0)), short(y(point.1)));
            canvas.add(&format!("<circle class=\"f{colour}\" cx=\"{x}\" cy=\"{y}\" r=\"3.5\"/>"));
        }
    }
    if drawn().next().is_none() {
        canvas.text(0.5 * (plot.0 + plot.1), top + 0.5 * height, Anchor::Middle, "quiet", "nothing to show");
    }
    canvas.y = top + height;
    below(&mut canvas, frame, &x_axis, plot);
    canvas.finish(frame.title, &described(frame, &all))
}

/// An axis along the plot, with no more ticks than their labels leave room for.
pub fn horizontal(values: impl Iterator<Item = f64> + Clone, plot: (f64, f64), is_round: bool) -> Axis {
    let make = |most| match is_round {
        true => Axis::covering(values.clone(), most),
        false => Axis::spanning(values.clone(), most),
    };
    let fits = |axis: &Axis| {
        let ticks = axis.ticks();
        let widest = ticks.iter().map(|v| width(&axis.label(*v), TEXT)).fold(0.0, f64::max);
        (widest + 10.0) * ticks.len() as f64 <= plot.1 - plot.0
    };
    (2..=8).rev().map(make).find(fits).unwrap_or_else(|| make(1))
}

/// Ticks and name of the horizontal axis, at the plot's foot.
pub fn below(canvas: &mut Canvas, frame: &Frame, axis: &Axis, plot: (f64, f64)) {
    let y = canvas.y;
    canvas.path("axis", &format!("M{} {}H{}", short(plot.0), short(y), short(plot.1)));
    for value in axis.ticks() {
        let x = plot.0 + (plot.1 - plot.0) * axis.share(value);
        canvas.path("axis", &format!("M{} {}v4", short(x), short(y)));
        let label = axis.label(value);
        // A label at an end stays within the picture.
        let half = 0.5 * width(&label, TEXT);
        let x = x.clamp(EDGE + half, (frame.width - 4.0 - half).max(EDGE + half));
        canvas.text(x, y + 6.0 + 0.5 * LINE, Anchor::Middle, "quiet", &label);
    }
    canvas.y += 6.0 + LINE;
    if !frame.x.is_empty() {
        canvas.text(0.5 * (plot.0 + plot.1), canvas.y + 0.5 * LINE, Anchor::Middle, "quiet", frame.x);
        canvas.y += LINE;
    }
}

fn described(frame: &Frame, all: &[(&Curve, Vec<(f64, f64)>)]) -> String {
    let one = |(curve, _): &(&Curve, Vec<(f64, f64)>)| {
        let mut finite = curve.points.iter().filter(|p| is_drawn(p.0) && is_drawn(p.1));
        match (finite.clone().next(), finite.next_back()) {
            (Some(first), Some(last)) => {
                format!("{}: {:.3} at {} to {:.3} at {}", curve.key.name, first.1, first.0, last.1, last.0)
            }
            _ => format!("{}: nothing", curve.key.name),
        }
    };
    let all: Vec<String> = all.iter().map(one).collect();
    format!("{} over {}. {}.", frame.y, frame.x, all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, WIDE};

    const FRAME: Frame = Frame { title: "t", x: "steps", y: "loss", width: WIDE };

    fn curve(points: &[(f64, f64)], line: Line) -> Curve<'static> {
        Curve { key: Key { name: "a & b", colour: Colour::Blue }, line, points: points.to_vec() }
    }

    #[test]
    fn a_point_lies_where_its_numbers_say() {
        let points: Vec<(f64, f64)> = (0..=10).map(|s| (f64::from(s), 6.0 - 0.5 * f64::from(s))).collect();
        let picture = curves(&FRAME, &[curve(&points, Line::Full), curve(&[(10.0, 3.0)], Line::Dots)]);
        // Loss 1 to 6 over 300 pixels; 10 steps over what the label of a single digit leaves.
        let left = 20.0 + 0.64 * TEXT;
        let x = |step: f64| short(left + (780.0 - left) * step / 10.0);
        for expected in
            [format!("d=\"M{} 88L{} 118L", x(0.0), x(1.0)), "L780 388\"".into(), "cx=\"780\" cy=\"268\"".into()]
        {
            assert!(picture.contains(&expected), "{expected} in {picture}");
        }
    }

    #[test]
    fn steps_are_counted_from_zero_unless_they_begin_late() {
        for (first, expected) in [(1.0, ">0<"), (800.0, ">850<")] {
            let picture = curves(&FRAME, &[curve(&[(first, 1.0), (1000.0, 2.0)], Line::Full)]);
            let ticks = picture.lines().filter(|l| l.contains("text-anchor=\"middle\"")).collect::<String>();
            assert!(ticks.contains(expected) && ticks.contains(">1,000<"), "{first}: {ticks}");
        }
    }

    #[test]
    fn what_is_no_number_is_a_gap() {
        let points = [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, f64::INFINITY), (5.0, 1.0)];
        let picture = curves(&FRAME, &[curve(&points, Line::Full)]);
        let path = picture.lines().find(|l| l.contains("line s0")).expect("a line");
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (3, 1), "{path}");
        assert!(picture.contains("a &amp; b: 1.000 at 0 to 1.000 at 5."));
        // Two points have no neighbour.
        assert_eq!(picture.matches("<circle").count(), 2, "{picture}");
        assert!(picture.contains("cx=\"780\""), "{picture}");
    }

    #[test]
    fn a_single_point_is_seen() {
        for line in [Line::Faint, Line::Full, Line::Dashed, Line::Dots] {
            let picture = curves(&FRAME, &[curve(&[(1.0, 2.5)], line)]);
            assert_eq!(picture.matches("<circle").count(), 1, "{picture}");
        }
    }

    #[test]
    fn long_runs_have_no_more_points_than_pixels() {
        let long: Vec<(f64, f64)> = (0..15_000).map(|s| (f64::from(s), 1.0 / (1.0 + f64::from(s)))).collect();
        let picture = curves(&FRAME, &[curve(&long, Line::Faint)]);
        assert!(picture.len() < 20_000, "{}", picture.len());
    }
}
