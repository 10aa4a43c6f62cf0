//! What vision transformers add to their scores by how far two patches of a grid are apart: one number a distance and
//! head, so (2 g - 1)² of them for a grid of g x g, and never one a pair.
//!
//! Source followed: `BeitRelativePositionBias` in transformers' `modeling_beit.py`.

use candle_core::{Device, Result, Tensor};
use limber_kernels::GridBias;
use std::sync::Arc;

/// A bias on the scores of a class token followed by g x g patches, the same for every image.
#[derive(Debug, Clone)]
pub struct AttentionBias {
    /// `[H, (2 g - 1)² + 3]`, distances in ascending order of the key.
    tables: Arc<[f32]>,
    heads: usize,
    grid: usize,
}

impl AttentionBias {
    /// The bias of `table` `[(2 g - 1)² + 3, H]` f32 in BEiT's order: the distances of query and key, row-major and from
    /// the farthest key above and to the left of the query backwards, then what the class token's scores get, those of
    /// patches with it, and its own with itself.
    ///
    /// # Errors
    /// Another number of rows.
    pub fn by_distance(table: &Tensor, grid: usize) -> Result<Self> {
        let (rows, heads) = table.dims2()?;
        let distances = side(grid) * side(grid);
        if rows != distances + 3 {
            candle_core::bail!("a bias table of {rows} rows for a grid of {grid} x {grid}, expected {}", distances + 3)
        }
        let mut tables = table.t()?.flatten_all()?.to_vec1::<f32>()?;
        tables.chunks_exact_mut(rows).for_each(|head| head[..distances].reverse());
        Ok(Self { tables: tables.into(), heads, grid })
    }

    /// H.
    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    /// 1 + N: the class token and the patches.
    pub(super) fn tokens(&self) -> usize {
        1 + self.grid * self.grid
    }

    /// As the attention kernel takes it.
    pub(super) fn kernel(&self) -> GridBias<'_> {
        GridBias { tables: &self.tables, grid: self.grid }
    }

    /// The bias of every pair of tokens, `[H, 1 + N, 1 + N]`.
    pub(super) fn expanded(&self, device: &Device) -> Result<Tensor> {
        let (h, n, rows) = (self.heads, self.tokens(), self.tables.len() / self.heads.max(1));
        let tables = Tensor::from_slice(&self.tables, (h, rows), device)?;
        tables.index_select(&Tensor::new(pairs(self.grid), device)?, 1)?.reshape((h, n, n))
    }
}

/// Distances along one side.
fn side(grid: usize) -> usize {
    (2 * grid).saturating_sub(1)
}

/// The table's row for every pair of tokens, class token first: (1 + g²)² of them.
fn pairs(g: usize) -> Vec<u32> {
    let (n, side) = (g * g, side(g));
    let (from_class, to_class, itself) = (side * side, side * side + 1, side * side + 2);
    let mut indices = Vec::with_capacity((n + 1) * (n + 1));
    indices.push(itself as u32);
    indices.extend(std::iter::repeat_n(from_class as u32, n));
    for query in 0..n {
        indices.push(to_class as u32);
        for key in 0..n {
            let down = key / g + g - 1 - query / g;
            let right = key % g + g - 1 - query % g;
            indices.push((down * side + right) as u32);
        }
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bias(grid: usize, heads: usize) -> AttentionBias {
        let rows = side(grid).pow(2) + 3;
        let table = Tensor::arange(0f32, (rows * heads) as f32, &Device::Cpu).unwrap();
        // Head h has row r of the table as number r + 100 h.
        let table = table.reshape((heads, rows)).unwrap().t().unwrap();
        AttentionBias::by_distance(&table, grid).unwrap()
    }

    /// transformers' `generate_relative_position_index((2, 2))`.
    #[test]
    fn pairs_are_transformers() {
        let expected = [11, 9, 9, 9, 9, 10, 4, 3, 1, 0, 10, 5, 4, 2, 1, 10, 7, 6, 4, 3, 10, 8, 7, 5, 4];
        let two = bias(2, 2).expanded(&Device::Cpu).unwrap().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(two[0], expected.map(|x| x as f32));
        assert_eq!(two[1], expected.map(|x| (x + 12) as f32));
        // One patch has one distance, to itself.
        let one = bias(1, 1).expanded(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(one, [3.0, 1.0, 2.0, 0.0]);
    }

    #[test]
    fn another_number_of_rows_is_refused() {
        let table = Tensor::zeros((11, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let message = AttentionBias::by_distance(&table, 2).unwrap_err().to_string();
        assert!(message.starts_with("a bias table of 11 rows for a grid of 2 x 2, expected 12"), "{message}");
    }
}
