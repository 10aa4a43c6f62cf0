//! Sums over samples from which a linear map is solved: no sample is kept, so that any number of them fits.

use super::solve::Matrix;
use anyhow::Result;
use candle_core::{Device, Tensor};

/// Samples whose products are added at once.
const GROUP: usize = 256;

/// Sums of samples (x, y), x of width E, y of width D, in f64.
pub struct Sums {
    /// Samples that are not added yet, and their two sides, row-major.
    waiting: (usize, Vec<f64>, Vec<f64>),
    /// Subtracted from every x and y, so that the sums are of numbers around 0.
    shift: Option<(Vec<f64>, Vec<f64>)>,
    count: usize,
    x: Vec<f64>,
    y: Vec<f64>,
    xx: Matrix,
    xy: Matrix,
    yy: f64,
}

/// Means and centred sums.
pub struct Moments {
    /// Samples.
    pub count: usize,
    /// Mean of x, E numbers.
    pub mean_x: Vec<f64>,
    /// Mean of y, D numbers.
    pub mean_y: Vec<f64>,
    /// Sum of (x - mean)(x - mean)', E x E.
    pub xx: Matrix,
    /// Sum of (x - mean)(y - mean)', E x D.
    pub xy: Matrix,
    /// Sum of |y - mean|^2.
    pub yy: f64,
}

impl Moments {
    /// The moments of these samples and `other` ones together (Chan, Golub and LeVeque 1979).
    #[must_use]
    pub fn with(mut self, other: Moments) -> Self {
        if other.count == 0 || self.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let apart = |own: &[f64], other: &[f64]| own.iter().zip(other).map(|(a, b)| b - a).collect::<Vec<f64>>();
        let (x, y) = (apart(&self.mean_x, &other.mean_x), apart(&self.mean_y, &other.mean_y));
        let share = n * m / (n + m);
        let merge = |own: &mut Matrix, other: &Matrix, a: &[f64], b: &[f64]| {
            let rows = own.values.chunks_exact_mut(b.len()).zip(other.values.chunks_exact(b.len())).zip(a);
            rows.for_each(|((own, other), a)| {
                own.iter_mut().zip(other).zip(b).for_each(|((own, other), b)| *own += other + share * a * b);
            });
        };
        merge(&mut self.xx, &other.xx, &x, &x);
        merge(&mut self.xy, &other.xy, &x, &y);
        self.yy += other.yy + share * y.iter().map(|v| v * v).sum::<f64>();
        self.mean_x.iter_mut().zip(&x).for_each(|(mean, away)| *mean += away * m / (n + m));
        self.mean_y.iter_mut().zip(&y).for_each(|(mean, away)| *mean += away * m / (n + m));
        self.count += other.count;
        self
    }
}

impl Sums {
    /// No samples yet, of widths `e` and `d`.
    pub fn new(e: usize, d: usize) -> Self {
        Self {
            waiting: (0, Vec::new(), Vec::new()),
            shift: None,
            count: 0,
            x: vec![0.0; e],
            y: vec![0.0; d],
            xx: Matrix::zeros(e, e),
            xy: Matrix::zeros(e, d),
            yy: 0.0,
        }
    }

    /// Samples so far.
    pub fn count(&self) -> usize {
        self.count + self.waiting.0
    }

    /// Adds one sample.
    ///
    /// # Errors
    /// No memory.
    pub fn add(&mut self, x: &[f64], y: &[f64]) -> Result<()> {
        debug_assert!(x.len() == self.x.len() && y.len() == self.y.len());
        self.waiting.0 += 1;
        self.waiting.1.extend_from_slice(x);
        self.waiting.2.extend_from_slice(y);
        if self.waiting.0 == GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let (n, mut x, mut y) = std::mem::take(&mut self.waiting);
        if n == 0 {
            return Ok(());
        }
        let (e, d) = (self.x.len(), self.y.len());
        let (shift_x, shift_y) = self.shift.get_or_insert_with(|| (mean(&x, e, n), mean(&y, d, n)));
        center(&mut x, shift_x);
        center(&mut y, shift_y);
        x.chunks_exact(e).for_each(|row| add(&mut self.x, row));
        y.chunks_exact(d).for_each(|row| add(&mut self.y, row));
        self.yy += y.iter().map(|v| v * v).sum::<f64>();
        let x = Tensor::from_vec(x, (n, e), &Device::Cpu)?;
        let y = Tensor::from_vec(y, (n, d), &Device::Cpu)?;
        let transposed = x.t()?;
        add(&mut self.xx.values, &transposed.matmul(&x)?.flatten_all()?.to_vec1::<f64>()?);
        add(&mut self.xy.values, &transposed.matmul(&y)?.flatten_all()?.to_vec1::<f64>()?);
        self.count += n;
        Ok(())
    }

    /// Means and centred sums of all samples.
    ///
    /// # Errors
    /// No memory.
    pub fn moments(mut self) -> Result<Moments> {
        self.flush()?;
        let n = self.count.max(1) as f64;
        let (shift_x, shift_y) = self.shift.unwrap_or_else(|| (self.x.clone(), self.y.clone()));
        let away = |sums: &[f64]| sums.iter().map(|s| s / n).collect::<Vec<f64>>();
        let (x, y) = (away(&self.x), away(&self.y));
        let centred = |sums: &mut Matrix, a: &[f64], b: &[f64]| {
            let width = b.len();
            sums.values.chunks_exact_mut(width).zip(a).for_each(|(row, a)| {
                row.iter_mut().zip(b).for_each(|(sum, b)| *sum -= n * a * b);
            });
        };
        centred(&mut self.xx, &x, &x);
        centred(&mut self.xy, &x, &y);
        let yy = self.yy - n * y.iter().map(|v| v * v).sum::<f64>();
        let mean = |shift: &[f64], away: &[f64]| shift.iter().zip(away).map(|(s, a)| s + a).collect();
        let (mean_x, mean_y) = (mean(&shift_x, &x), mean(&shift_y, &y));
        Ok(Moments { count: self.count, mean_x, mean_y, xx: self.xx, xy: self.xy, yy })
    }
}

fn mean(rows: &[f64], width: usize, n: usize) -> Vec<f64> {
    let mut sum = vec![0.0; width];
    rows.chunks_exact(width).for_each(|row| add(&mut sum, row));
    sum.iter().map(|s| s / n as f64).collect()
}

fn center(rows: &mut [f64], shift: &[f64]) {
    rows.chunks_exact_mut(shift.len()).for_each(|row| row.iter_mut().zip(shift).for_each(|(v, s)| *v -= s));
}

fn add(sum: &mut [f64], row: &[f64]) {
    sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_parts_are_those_of_the_whole() {
        let sample = |i: u32| {
            let v = f64::from(i * i % 17);
            ([v, 100.0 + v * f64::from(i % 3), f64::from(i)], [2.0 * v - 5.0, f64::from(i % 5)])
        };
        let of = |range: &mut dyn Iterator<Item = u32>| {
            let mut sums = Sums::new(3, 2);
            range.for_each(|i| sums.add(&sample(i).0, &sample(i).1).unwrap());
            sums.moments().unwrap()
        };
        let whole = of(&mut (0..300));
        for split in [0, 1, 120, 300] {
            let both = of(&mut (0..split)).with(of(&mut (split..300)));
            assert_eq!(both.count, 300);
            let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-9 * (1.0 + b.abs()));
            assert!(close(&both.mean_x, &whole.mean_x) && close(&both.mean_y, &whole.mean_y), "{split}");
            assert!(close(&both.xx.values, &whole.xx.values) && close(&both.xy.values, &whole.xy.values), "{split}");
            assert!(close(&[both.yy], &[whole.yy]), "{split}");
        }
    }
}
