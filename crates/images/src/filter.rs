//! The weights of Pillow's resampling along one axis, a block of output positions at a time.
//!
//! An output position has as many weights as input positions fall on it, so the weights of all positions take a multiple
//! of the axis itself: 2.9 GB for 178,956,970 pixels. A block takes at most [`BLOCK`] bytes, or one position's weights.

use limber_core::spec::ResizeFilter;
use rayon::prelude::*;
use std::ops::Range;

/// Bits after the point: 32 less 8 for the byte and 2 for weights that overshoot.
pub(super) const PRECISION: u32 = 22;
/// Bytes of weights that are held at a time.
const BLOCK: usize = 32 << 20;
/// Weights above which threads are worth waking.
const PARALLEL: usize = 1 << 18;

/// An axis that is resampled from `input` positions to `output`, of which `from .. from + count` are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    pub from: usize,
    pub count: usize,
    pub filter: ResizeFilter,
}

/// For each output position of a block, the input positions that weigh on it.
pub(super) struct Weights {
    /// The positions, counted from the first that is wanted.
    pub block: Range<usize>,
    /// First input position and number of weights, an output position.
    spans: Vec<(usize, usize)>,
    /// Fixed-point weights, `stride` for each output position.
    values: Vec<i32>,
    stride: usize,
}

impl Axis {
    /// Most weights of an output position.
    pub fn stride(&self) -> usize {
        (self.support().ceil() as usize * 2 + 1).min(self.input)
    }

    /// The wanted positions in blocks, with their weights.
    pub fn blocks(self) -> impl Iterator<Item = Weights> {
        let size = (BLOCK / size_of::<i32>() / self.stride().max(1)).max(1);
        (0..self.count).step_by(size).map(move |start| self.weights(start..self.count.min(start + size)))
    }

    /// The input positions that any wanted position uses.
    pub fn reach(&self) -> Range<usize> {
        match self.count {
            0 => 0..0,
            n => self.span(0).0..self.span(n - 1).1,
        }
    }

    fn radius(&self) -> f64 {
        match self.filter {
            ResizeFilter::Bilinear => 1.0,
            ResizeFilter::Bicubic => 2.0,
        }
    }

    /// Input positions to an output position. Pillow passes the size through an f32.
    fn scale(&self) -> f64 {
        f64::from(self.input as f32) / self.output as f64
    }

    fn support(&self) -> f64 {
        self.radius() * self.scale().max(1.0)
    }

    fn centre(&self, at: usize) -> f64 {
        ((self.from + at) as f64 + 0.5) * self.scale()
    }

    /// The first input position that weighs on the wanted position `at`, and the one behind the last.
    fn span(&self, at: usize) -> (usize, usize) {
        let (centre, support) = (self.centre(at), self.support());
        let first = ((centre - support + 0.5) as i64).max(0) as usize;
        let last = ((centre + support + 0.5) as i64).clamp(0, self.input as i64) as usize;
        (first, last)
    }

    fn weights(&self, block: Range<usize>) -> Weights {
        let stride = self.stride();
        let mut values = vec![0; block.len() * stride];
        let spans = block.clone().map(|at| self.span(at)).map(|(first, last)| (first, last.saturating_sub(first)));
        let spans = spans.collect();
        let fill = |row: &mut Vec<f64>, (at, slot): (usize, &mut [i32])| self.fill(block.start + at, row, slot);
        if values.len() > PARALLEL {
            values.par_chunks_exact_mut(stride).enumerate().for_each_init(Vec::new, fill);
        } else {
            let mut row = Vec::with_capacity(stride);
            values.chunks_exact_mut(stride).enumerate().for_each(|slot| fill(&mut row, slot));
        }
        Weights { block, spans, values, stride }
    }

    /// The weights of the wanted position `at`; `row` is room for them before they are rounded.
    fn fill(&self, at: usize, row: &mut Vec<f64>, slot: &mut [i32]) {
        match self.filter {
            ResizeFilter::Bilinear => self.fill_by(bilinear, at, row, slot),
            ResizeFilter::Bicubic => self.fill_by(bicubic, at, row, slot),
        }
    }

    fn fill_by(&self, kernel: impl Fn(f64) -> f64, at: usize, row: &mut Vec<f64>, slot: &mut [i32]) {
        let ((first, last), centre, inverse) = (self.span(at), self.centre(at), 1.0 / self.scale().max(1.0));
        row.clear();
        row.extend((first..last).map(|x| kernel((x as f64 - centre + 0.5) * inverse)));
        let total: f64 = row.iter().sum();
        for (value, weight) in slot.iter_mut().zip(row) {
            let weight = if total == 0.0 { *weight } else { *weight / total };
            let scaled = weight * f64::from(1 << PRECISION);
            *value = (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
        }
    }
}

impl Weights {
    /// The first input position and the weights of the output position `at` of the block.
    pub fn of(&self, at: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[at];
        (first, &self.values[at * self.stride..][..count])
    }

    /// The input positions that any output position of the block uses.
    pub fn reach(&self) -> Range<usize> {
        let first = self.spans.first().map_or(0, |span| span.0);
        first..self.spans.last().map_or(0, |span| span.0 + span.1)
    }

    /// Bytes that the weights take.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.values.len() * size_of::<i32>()
    }
}

fn bilinear(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic with a = -1/2, its terms in Pillow's order so that every bit agrees.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_side_that_is_read_is_weighed_in_blocks() {
        // Pillow's most pixels in one line, to BEiT's side; all weights at once were 2.9 GB.
        let axis = Axis { input: 178_956_970, output: 384, from: 0, count: 384, filter: ResizeFilter::Bicubic };
        assert_eq!(axis.reach(), 0..axis.input);
        let first = axis.blocks().next().expect("a block");
        assert_eq!(first.block.start, 0);
        assert!(!first.block.is_empty() && first.bytes() <= BLOCK, "{} bytes", first.bytes());
    }

    #[test]
    fn blocks_hold_the_weights_of_the_whole() {
        for (input, output, from, count) in
            [(53, 31, 0, 31), (31, 53, 7, 20), (1_000_000, 9, 2, 5), (5, 5_000, 100, 60)]
        {
            for filter in [ResizeFilter::Bilinear, ResizeFilter::Bicubic] {
                let axis = Axis { input, output, from, count, filter };
                let whole = axis.weights(0..count);
                assert_eq!(whole.reach(), axis.reach());
                for size in [1, 3, count] {
                    for start in (0..count).step_by(size) {
                        let block = axis.weights(start..count.min(start + size));
                        for at in block.block.clone() {
                            assert_eq!(block.of(at - start), whole.of(at), "{axis:?}, position {at}");
                        }
                    }
                }
            }
        }
    }
}
