//! Charts as SVG: [`curves`], grouped [`bars`] with intervals, and [`forest`] plots of intervals.
//!
//! A picture is light or dark as the reader's system is (`prefers-color-scheme`), its colours are those of Okabe and Ito,
//! which colour-blind readers tell apart, and `<title>` and `<desc>` say in words what it shows. It needs no fonts to be
//! made: widths of texts are estimated, on the large side. The same numbers give the same bytes.

mod bars;
mod curves;
mod forest;
mod series;
mod svg;
mod text;
mod ticks;

pub use bars::{Group, bars};
pub use curves::{Curve, Line, curves};
pub use forest::{Row, forest};
pub use series::smoothed;
pub use text::escaped;

/// The width of a picture for a page, in pixels.
pub const WIDE: f64 = 800.0;
/// The width of a picture for a telephone.
pub const NARROW: f64 = 430.0;

/// What stands around the data of a chart.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The heading.
    pub title: &'a str,
    /// What the horizontal axis counts; may be empty.
    pub x: &'a str,
    /// What the vertical axis counts; may be empty.
    pub y: &'a str,
    /// Pixels, [`WIDE`] or [`NARROW`]; the height follows from what is shown.
    pub width: f64,
}

/// A colour of Okabe and Ito; each has a light and a dark form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Blue; sky blue on dark ground.
    Blue,
    /// Vermillion.
    Vermillion,
    /// Bluish green.
    Green,
    /// Reddish purple.
    Purple,
    /// Orange.
    Orange,
    /// Sky blue; blue on dark ground.
    Sky,
    /// Grey.
    Grey,
    /// Black; white on dark ground.
    Ink,
}

impl Colour {
    /// All of them, those with the most contrast first.
    pub const ALL: [Colour; 8] = [
        Colour::Blue,
        Colour::Vermillion,
        Colour::Green,
        Colour::Purple,
        Colour::Orange,
        Colour::Sky,
        Colour::Grey,
        Colour::Ink,
    ];
}

/// A name in the legend and its colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key<'a> {
    /// The name.
    pub name: &'a str,
    /// Its colour.
    pub colour: Colour,
}

/// A number and the ends of its interval; ends that are not finite are not drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The number.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// `7.21 [7.00, 7.40]`.
    fn words(&self) -> String {
        let number = |v: f64| if v.abs() < 1e6 { format!("{v:.2}") } else { format!("{v:.2e}") };
        format!("{} [{}, {}]", number(self.value), number(self.low), number(self.high))
    }

    fn is_drawn(&self) -> bool {
        ticks::is_drawn(self.value)
    }

    /// The finite ones of the three numbers.
    fn numbers(&self) -> impl Iterator<Item = f64> {
        [self.value, self.low, self.high].into_iter().filter(|v| ticks::is_drawn(*v))
    }
}

#[cfg(test)]
mod overlaps;
