//! Dense linear algebra in f64 over candle's matrix product: what a closed-form stitch needs and no more.
//!
//! Sources followed: blocked Cholesky and substitution (Golub and Van Loan, "Matrix Computations", 4.2 and 3.1); the
//! polar factor by the Newton-Schulz iteration (Higham, "Functions of Matrices", 8.3).

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Rows that are factored together.
const BLOCK: usize = 96;
/// Steps of Newton-Schulz, each of which makes a small singular value 1.5 times as large: a share of 1e-10 of the norm
/// reaches 1.
const STEPS: usize = 66;

/// A row-major matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// The numbers.
    pub values: Vec<f64>,
}

impl Matrix {
    /// Zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.values, (self.rows, self.columns), &Device::Cpu)?)
    }

    fn from(tensor: &Tensor) -> Result<Self> {
        let (rows, columns) = tensor.dims2()?;
        Ok(Self { rows, columns, values: tensor.flatten_all()?.to_vec1()? })
    }

    /// The transposed matrix.
    ///
    /// # Errors
    /// No memory.
    pub fn transposed(&self) -> Result<Self> {
        Self::from(&self.tensor()?.t()?.contiguous()?)
    }

    /// The product with `other`.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn times(&self, other: &Matrix) -> Result<Self> {
        Self::from(&self.tensor()?.matmul(&other.tensor()?)?)
    }

    /// Sum of the products of equal indices.
    pub fn dot(&self, other: &Matrix) -> f64 {
        self.values.iter().zip(&other.values).map(|(a, b)| a * b).sum()
    }

    /// Rows `from..to`, columns `left..right`.
    fn part(&self, (from, to): (usize, usize), (left, right): (usize, usize)) -> Result<Tensor> {
        let rows = (from..to).flat_map(|r| &self.values[r * self.columns + left..r * self.columns + right]);
        Ok(Tensor::from_vec(rows.copied().collect::<Vec<_>>(), (to - from, right - left), &Device::Cpu)?)
    }

    /// Subtracts `other` from the block whose first entry is (from, left).
    fn subtract(&mut self, (from, left): (usize, usize), other: &Tensor) -> Result<()> {
        let (_, columns) = other.dims2()?;
        let values: Vec<f64> = other.flatten_all()?.to_vec1()?;
        let width = self.columns;
        self.values[from * width..].par_chunks_mut(width).zip(values.par_chunks(columns)).for_each(|(row, minus)| {
            row[left..left + columns].iter_mut().zip(minus).for_each(|(a, b)| *a -= b);
        });
        Ok(())
    }
}

/// X with A X = B, for a symmetric positive definite A.
///
/// # Errors
/// An A that is not positive definite; nothing is solved then.
pub fn solve(mut a: Matrix, mut b: Matrix) -> Result<Matrix> {
    cholesky(&mut a)?;
    let (n, width) = (a.rows, b.columns);
    let starts: Vec<usize> = (0..n).step_by(BLOCK).collect();
    // L Y = B, from above; then L' X = Y, from below.
    for &from in &starts {
        let to = (from + BLOCK).min(n);
        if from > 0 {
            let known = a.part((from, to), (0, from))?.matmul(&b.part((0, from), (0, width))?)?;
            b.subtract((from, 0), &known)?;
        }
        for r in from..to {
            let (above, rest) = b.values.split_at_mut(r * width);
            let row = &mut rest[..width];
            for c in from..r {
                let factor = a.values[r * n + c];
                row.iter_mut().zip(&above[c * width..][..width]).for_each(|(x, y)| *x -= factor * y);
            }
            let pivot = a.values[r * n + r];
            row.iter_mut().for_each(|x| *x /= pivot);
        }
    }
    for &from in starts.iter().rev() {
        let to = (from + BLOCK).min(n);
        if to < n {
            let known = a.part((to, n), (from, to))?.t()?.contiguous()?.matmul(&b.part((to, n), (0, width))?)?;
            b.subtract((from, 0), &known)?;
        }
        for r in (from..to).rev() {
            let (upper, below) = b.values.split_at_mut((r + 1) * width);
            let row = &mut upper[r * width..];
            for c in r + 1..to {
                let factor = a.values[c * n + r];
                row.iter_mut().zip(&below[(c - r - 1) * width..][..width]).for_each(|(x, y)| *x -= factor * y);
            }
            let pivot = a.values[r * n + r];
            row.iter_mut().for_each(|x| *x /= pivot);
        }
    }
    Ok(b)
}

/// The lower triangle becomes L with A = L L'; the upper one is left as it is.
fn cholesky(a: &mut Matrix) -> Result<()> {
    let n = a.rows;
    let scale = (0..n).map(|i| a.values[i * n + i]).fold(0.0, f64::max);
    for from in (0..n).step_by(BLOCK) {
        let to = (from + BLOCK).min(n);
        for j in from..to {
            let row: Vec<f64> = a.values[j * n + from..j * n + j].to_vec();
            let pivot = a.values[j * n + j] - row.iter().map(|x| x * x).sum::<f64>();
            // What is left of a direction without data is the rounding of the sums.
            if pivot.is_nan() || pivot <= scale * 1e-14 {
                bail!("column {j} is a combination of those before it (pivot {pivot:e} of {scale:e})")
            }
            let root = pivot.sqrt();
            a.values[j * n + j] = root;
            a.values[(j + 1) * n..].par_chunks_mut(n).for_each(|below| {
                let dot: f64 = below[from..j].iter().zip(&row).map(|(x, y)| x * y).sum();
                below[j] = (below[j] - dot) / root;
            });
        }
        if to < n {
            let panel = a.part((to, n), (from, to))?;
            a.subtract((to, to), &panel.matmul(&panel.t()?)?)?;
        }
    }
    Ok(())
}

/// The orthogonal polar factor U V' of M = U S V'; directions whose singular value is below some 1e-10 of the norm, which
/// no data tell anything of, are mapped to 0.
///
/// # Errors
/// A matrix of zeros or one that is not finite.
pub fn polar(m: &Matrix) -> Result<Matrix> {
    let norm = m.dot(m).sqrt();
    if !(norm > 0.0 && norm.is_finite()) {
        bail!("features and captions have nothing in common: the norm of their covariance is {norm}")
    }
    let wide = m.rows <= m.columns;
    let m = if wide { m.tensor()? } else { m.tensor()?.t()?.contiguous()? };
    let mut x = (m / norm)?;
    let identity = Tensor::eye(x.dim(0)?, candle_core::DType::F64, &Device::Cpu)?;
    let newton_schulz = |x: &Tensor, gram: &Tensor| (x * 1.5)? - (gram.matmul(x)? * 0.5)?;
    let mut complete = false;
    for _ in 0..STEPS {
        let gram = x.matmul(&x.t()?)?;
        let far = (&gram - &identity)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt();
        x = newton_schulz(&x, &gram)?;
        if far < 1e-7 {
            // The step just taken squares what was missing.
            complete = true;
            break;
        }
    }
    if !complete {
        // Cubing leaves what has reached 1 and drops what has not.
        x = x.matmul(&x.t()?)?.matmul(&x)?;
        x = newton_schulz(&x, &x.matmul(&x.t()?)?)?;
    }
    Matrix::from(&if wide { x } else { x.t()?.contiguous()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that repeat nowhere near these sizes.
    fn matrix(rows: usize, columns: usize, seed: u64) -> Matrix {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        Matrix { rows, columns, values: (0..rows * columns).map(|_| next()).collect() }
    }

    #[test]
    fn what_is_solved_solves() {
        for n in [1, 5, 95, 96, 97, 250] {
            let x = matrix(n, 2 * n + 3, 1);
            let mut a = x.times(&x.transposed().unwrap()).unwrap();
            (0..n).for_each(|i| a.values[i * n + i] += 0.1);
            let b = matrix(n, 7, 2);
            let solution = solve(a.clone(), b.clone()).unwrap();
            let back = a.times(&solution).unwrap();
            let far = back.values.iter().zip(&b.values).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            // Condition numbers of some hundreds.
            assert!(far < 1e-11, "{n}: {far}");
        }
        let x = matrix(120, 50, 3);
        let singular = x.times(&x.transposed().unwrap()).unwrap();
        let message = solve(singular, matrix(120, 1, 4)).unwrap_err().to_string();
        assert!(message.contains("is a combination of those before it"), "{message}");
    }

    #[test]
    fn the_polar_factor_is_orthogonal_and_leaves_a_symmetric_rest() {
        for (rows, columns) in [(7, 7), (20, 31), (31, 20)] {
            let m = matrix(rows, columns, 5);
            let q = polar(&m).unwrap();
            let t = q.transposed().unwrap();
            let gram = if rows <= columns { q.times(&t).unwrap() } else { t.times(&q).unwrap() };
            for i in 0..gram.rows {
                for j in 0..gram.rows {
                    assert!((gram.values[i * gram.rows + j] - f64::from(i == j)).abs() < 1e-12);
                }
            }
            // M = Q P with P symmetric and, for this sign of Q, positive.
            let rest = if rows <= columns { m.times(&t).unwrap() } else { t.times(&m).unwrap() };
            let transposed = rest.transposed().unwrap();
            assert!(rest.values.iter().zip(&transposed.values).all(|(a, b)| (a - b).abs() < 1e-12));
            assert!((0..rest.rows).all(|i| rest.values[i * rest.rows + i] > 0.0));
        }
        assert!(polar(&Matrix::zeros(3, 3)).is_err());
    }
}
