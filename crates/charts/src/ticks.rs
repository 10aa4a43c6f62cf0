//! Round numbers along an axis, and where a value lies between them.

/// Numbers beyond this are no measurements, and sums of them would not be finite.
const LARGEST: f64 = 1e30;

/// Whether a number can be drawn.
pub fn is_drawn(value: f64) -> bool {
    value.abs() < LARGEST
}

/// An axis from `low` to `high`, with ticks at the multiples of `unit`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// The lower end.
    pub low: f64,
    /// The upper end, above the lower one.
    pub high: f64,
    unit: f64,
}

impl Axis {
    /// Covers the values with round ends and at most `most` steps between ticks, or two; 0 to 1 where there is no value.
    pub fn covering(values: impl Iterator<Item = f64>, most: usize) -> Self {
        let mut axis = Self::spanning(values, most);
        let (low, high) = (axis.low, axis.high);
        // Round ends may need one step more than the span alone does, and two are needed around 0.
        let most = most.max(2) as f64;
        loop {
            axis.low = (low / axis.unit).floor() * axis.unit;
            axis.high = (high / axis.unit).ceil() * axis.unit;
            if (axis.high - axis.low) / axis.unit <= most + 0.5 || axis.unit > LARGEST {
                return axis;
            }
            axis.unit = unit(axis.unit * 1.5);
        }
    }

    /// As [`Self::covering`], but with the values' own ends.
    pub fn spanning(values: impl Iterator<Item = f64>, most: usize) -> Self {
        let ends = |(low, high): (f64, f64), v: f64| (low.min(v), high.max(v));
        let (low, high) = values.filter(|v| is_drawn(*v)).fold((f64::INFINITY, f64::NEG_INFINITY), ends);
        let (low, high) = match high - low {
            span if !span.is_finite() => (0.0, 1.0),
            // One value alone, or several that differ in rounding alone, lie in the middle.
            span if span <= 1e-9 * high.abs().max(low.abs()) => {
                let room = if high == 0.0 { 0.5 } else { 0.1 * high.abs() };
                (low - room, high + room)
            }
            _ => (low, high),
        };
        Self { low, high, unit: unit((high - low) / most.max(1) as f64) }
    }

    /// The ticks, lowest first.
    pub fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.unit - 1e-9).ceil();
        let count = ((self.high / self.unit + 1e-9).floor() - first) as usize;
        // No tick is called -0.
        (0..=count).map(|i| (first + i as f64) * self.unit + 0.0).collect()
    }

    /// A tick's number, with the digits that the distance of ticks needs.
    pub fn label(&self, value: f64) -> String {
        if !(1e-6..1e9).contains(&self.unit) {
            return format!("{value:.1e}");
        }
        let digits = (-self.unit.log10().floor()).max(0.0) as usize;
        let plain = format!("{:.digits$}", value.abs());
        let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
        let mut grouped = String::new();
        for (i, digit) in whole.chars().enumerate() {
            if i > 0 && (whole.len() - i).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{grouped}{rest}")
    }

    /// Where a value lies: 0 at the lower end, 1 at the upper, no further out than they are.
    pub fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// The smallest of 1, 2 or 5 times a power of ten that is no smaller than `least`.
fn unit(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    // 0.2 is written as 2 times 0.1, which may lie a last digit below.
    [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|unit| *unit >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let cases: [(&[f64], usize, &[&str]); 9] = [
            (&[0.3, 6.0], 6, &["0", "1", "2", "3", "4", "5", "6"]),
            (&[0.0, 14_999.0], 4, &["0", "5,000", "10,000", "15,000"]),
            (&[0.0, 2000.0], 5, &["0", "500", "1,000", "1,500", "2,000"]),
            (&[-0.011, 0.004], 4, &["-0.015", "-0.010", "-0.005", "0.000", "0.005"]),
            (&[3.0], 5, &["2.7", "2.8", "2.9", "3.0", "3.1", "3.2", "3.3"]),
            (&[0.0, 0.0], 2, &["-0.5", "0.0", "0.5"]),
            (&[], 2, &["0.0", "0.5", "1.0"]),
            (&[f64::NAN, f64::INFINITY, 1e300], 2, &["0.0", "0.5", "1.0"]),
            (&[0.0, 4e12], 4, &["0.0e0", "1.0e12", "2.0e12", "3.0e12", "4.0e12"]),
        ];
        for (values, most, expected) in cases {
            let most = if values == [3.0] { 6 } else { most };
            let axis = Axis::covering(values.iter().copied(), most);
            let labels: Vec<String> = axis.ticks().into_iter().map(|v| axis.label(v)).collect();
            assert_eq!(labels, expected, "{values:?}");
            for value in values.iter().filter(|v| is_drawn(**v)) {
                assert!(axis.low <= *value && *value <= axis.high, "{value} outside of {axis:?}");
            }
        }
    }

    #[test]
    fn there_are_never_more_ticks_than_asked_for() {
        for power in -20..20 {
            for at in 1..40 {
                let high = f64::from(at) * 1.37 * 10f64.powi(power);
                for most in [2, 3, 5, 9] {
                    for low in [0.0, high * 0.43, -high * 0.71] {
                        let axis = Axis::covering([low, high].into_iter(), most);
                        let ticks = axis.ticks();
                        assert!(ticks.len() <= most + 1 && ticks.len() >= 2, "{low} {high} {most}: {ticks:?}");
                        assert!(axis.low <= low + 1e-9 * high && axis.high >= high * (1.0 - 1e-9), "{axis:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_axis_with_its_own_ends_keeps_them() {
        let axis = Axis::spanning([0.0, 23.0].into_iter(), 5);
        assert_eq!((axis.low, axis.high, axis.ticks()), (0.0, 23.0, vec![0.0, 5.0, 10.0, 15.0, 20.0]));
        assert_eq!((axis.share(-1.0), axis.share(11.5), axis.share(99.0)), (0.0, 0.5, 1.0));
    }
}
