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
        let n = self.count as f64;
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
