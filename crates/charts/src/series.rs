//! Series of points: means of pieces, and a smooth line through noise.

/// A mean around each point, with weights that fall exponentially to both sides over some fiftieth of the series; points
/// whose value is not finite are left out.
pub fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.iter().copied().filter(|p| p.1.is_finite()).collect();
    let keep = 1.0 - 1.0 / (points.len() as f64 / 100.0).max(2.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let mut next = |p: &(f64, f64)| {
        (sum, weight) = (keep * sum + p.1, keep * weight + 1.0);
        (sum, weight)
    };
    let before: Vec<(f64, f64)> = points.iter().map(&mut next).collect();
    (sum, weight) = (0.0, 0.0);
    let mut all: Vec<(f64, f64)> = Vec::with_capacity(points.len());
    // From the end back, where a mean of what lies before alone would lag behind; each point itself counts once.
    for (p, (sum_before, weight_before)) in points.iter().zip(before).rev() {
        all.push((p.0, (sum + sum_before) / (weight + weight_before)));
        (sum, weight) = (keep * (sum + p.1), keep * (weight + 1.0));
    }
    all.reverse();
    all
}

/// Means over equal pieces, at their last point, so that no more than `most` are left; a piece without a finite value is
/// not a number.
pub fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let mean = |piece: &[(f64, f64)]| {
        let finite = piece.iter().map(|p| p.1).filter(|v| v.is_finite());
        let (sum, n) = finite.fold((0.0, 0), |(sum, n), v| (sum + v, n + 1));
        (piece.last().map_or(0.0, |p| p.0), if n == 0 { f64::NAN } else { sum / f64::from(n) })
    };
    points.chunks(points.len().div_ceil(most.max(1)).max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smooth_line_does_not_lag_and_leaves_out_what_is_no_number() {
        // A straight line stays where it is, but for its ends.
        let line: Vec<(f64, f64)> = (0..1000).map(|s| (f64::from(s), 3.0 - 0.002 * f64::from(s))).collect();
        let smooth = smoothed(&line);
        assert_eq!(smooth.len(), 1000);
        assert!(smooth[200..800].iter().zip(&line[200..]).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6));
        // Noise of 1 around 0 shrinks.
        let noise: Vec<(f64, f64)> = (0..1000).map(|s| (f64::from(s), f64::from(s % 2) * 2.0 - 1.0)).collect();
        assert!(smoothed(&noise)[50..950].iter().all(|p| p.1.abs() < 0.01));
        let with_gap = [(0.0, 2.0), (1.0, f64::NAN), (2.0, 4.0)];
        // Weights 1 and 1/2 of the mean over two points.
        assert_eq!(smoothed(&with_gap), [(0.0, (2.0 + 0.5 * 4.0) / 1.5), (2.0, (0.5 * 2.0 + 4.0) / 1.5)]);
        assert!(smoothed(&[]).is_empty());
    }

    #[test]
    fn pieces_are_means_at_their_end() {
        let points: Vec<(f64, f64)> = (0..10).map(|s| (f64::from(s), f64::from(s % 2))).collect();
        assert_eq!(thinned(&points, 5), [1.0, 3.0, 5.0, 7.0, 9.0].map(|at| (at, 0.5)));
        assert_eq!(thinned(&points, 10), points);
        assert!(thinned(&[(0.0, f64::NAN)], 5)[0].1.is_nan());
        assert!(thinned(&[], 5).is_empty());
    }
}
