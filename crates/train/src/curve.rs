//! The losses of a run as an SVG, written by hand: two lines, points and axes need no drawing library.

use std::fmt::Write;

/// Size of the picture.
const SIZE: (f64, f64) = (800.0, 440.0);
/// Room left of, above, right of and below the plot.
const ROOM: (f64, f64, f64, f64) = (60.0, 20.0, 20.0, 45.0);
/// Most points of a line: more than one a pixel says nothing.
const POINTS: usize = 700;

/// Draws the losses of steps (step, loss) and the validation losses beside them.
pub fn svg(train: &[(usize, f64)], validation: &[(usize, f64)]) -> String {
    let thin = thinned(train);
    let smooth = thinned(&smoothed(train));
    let all = || thin.iter().chain(validation);
    let last = all().map(|p| p.0).max().unwrap_or(0).max(1) as f64;
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.1), h.max(p.1)));
    let (low, high) = if low.is_finite() && high > low { (low, high) } else { (0.0, 1.0) };
    let unit = tick(high - low);
    let (bottom, top) = ((low / unit).floor() * unit, (high / unit).ceil() * unit);
    let (width, height) = SIZE;
    let (left, above, right, below) = ROOM;
    let x = |step: f64| left + (width - left - right) * step / last;
    let y = |loss: f64| height - below - (height - above - below) * (loss - bottom) / (top - bottom);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let mut add = |line: String| {
        let _ = writeln!(out, "{line}");
    };
    let ticks = ((top - bottom) / unit).round() as usize;
    for i in 0..=ticks {
        let loss = bottom + unit * i as f64;
        let at = y(loss);
        add(format!("<path d=\"M{left} {at:.1}H{}\" stroke=\"#ddd\"/>", width - right));
        add(format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            at + 4.0,
            label(loss, unit)
        ));
    }
    let unit = tick(last).max(1.0);
    for i in 0..=(last / unit) as usize {
        let step = unit * i as f64;
        let at = height - below + 18.0;
        add(format!("<text x=\"{:.1}\" y=\"{at}\" text-anchor=\"middle\">{step}</text>", x(step)));
    }
    add(format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">step</text>",
        (left + width - right) / 2.0,
        height - 8.0
    ));
    let path = |points: &[(usize, f64)]| {
        let coordinates: Vec<String> = points.iter().map(|p| format!("{:.1} {:.1}", x(p.0 as f64), y(p.1))).collect();
        format!("M{}", coordinates.join("L"))
    };
    if !thin.is_empty() {
        add(format!("<path d=\"{}\" fill=\"none\" stroke=\"#9ecae1\"/>", path(&thin)));
        add(format!("<path d=\"{}\" fill=\"none\" stroke=\"#08519c\" stroke-width=\"2\"/>", path(&smooth)));
    }
    for p in validation {
        add(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"#d94801\"/>", x(p.0 as f64), y(p.1)));
    }
    let legend = [("#9ecae1", "loss of a step"), ("#08519c", "smoothed"), ("#d94801", "validation")];
    for (i, (colour, text)) in legend.iter().take(if validation.is_empty() { 2 } else { 3 }).enumerate() {
        let at = above + 16.0 * i as f64;
        add(format!("<rect x=\"{}\" y=\"{at}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>", width - right - 120.0));
        add(format!("<text x=\"{}\" y=\"{}\">{text}</text>", width - right - 100.0, at + 7.0));
    }
    out + "</svg>\n"
}

/// A round distance of ticks: 1, 2 or 5 times a power of ten, some six of them in `span`.
fn tick(span: f64) -> f64 {
    let rough = span / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|unit| *unit >= rough).unwrap_or(power)
}

/// A tick's number with the digits that its distance needs.
fn label(value: f64, unit: f64) -> String {
    let digits = (-unit.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

/// Means over equal pieces, at their last step, so that no more than [`POINTS`] are left.
fn thinned(points: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let mean = |piece: &[(usize, f64)]| {
        let step = piece.last().map_or(0, |p| p.0);
        (step, piece.iter().map(|p| p.1).sum::<f64>() / piece.len() as f64)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

/// An exponential mean over some fiftieth of the run, without the bias of its start.
fn smoothed(points: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 50.0).max(2.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let mut next = |p: &(usize, f64)| {
        (sum, weight) = (keep * sum + p.1, keep * weight + 1.0);
        (p.0, sum / weight)
    };
    points.iter().map(&mut next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        for (span, expected) in [(6.0, 1.0), (3.0, 0.5), (10.0, 2.0), (14_999.0, 5000.0), (0.011, 0.002)] {
            assert!((tick(span) - expected).abs() < 1e-9 * expected, "{span}: {}", tick(span));
        }
        assert_eq!(label(0.30000000000000004, 0.1), "0.3");
        assert_eq!(label(4.0, 2.0), "4");
    }

    #[test]
    fn a_point_lies_where_its_numbers_say() {
        let train: Vec<(usize, f64)> = (0..=10).map(|s| (s, 6.0 - 0.5 * s as f64)).collect();
        let picture = svg(&train, &[(10, 3.0)]);
        // Loss 1 to 6 over 375 pixels from 395 up, steps 0 to 10 over 720 pixels from 60 on.
        assert!(picture.contains("<path d=\"M60.0 20.0L132.0 57.5L"), "{picture}");
        assert!(picture.contains("L780.0 395.0\" fill=\"none\" stroke=\"#9ecae1\""), "{picture}");
        assert!(picture.contains("<circle cx=\"780.0\" cy=\"245.0\""), "{picture}");
        assert_eq!(picture.matches("<text").count(), 6 + 6 + 1 + 3, "{picture}");
    }

    #[test]
    fn long_runs_and_empty_ones() {
        let long: Vec<(usize, f64)> = (0..15_000).map(|s| (s, 1.0 / (1.0 + s as f64))).collect();
        let picture = svg(&long, &[]);
        assert!(picture.len() < 40_000, "{}", picture.len());
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
        for few in [&[][..], &[(0, 2.0)]] {
            let picture = svg(few, &[]);
            assert!(picture.ends_with("</svg>\n") && !picture.contains("NaN"), "{picture}");
        }
        let (last, mean) = *smoothed(&long).last().unwrap();
        assert!(last == 14_999 && (mean - 1.0 / 14_700.0).abs() < 1e-6, "{mean}");
    }
}
