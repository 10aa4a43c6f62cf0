//! A frozen embedding table: rows are read from the mapped file, one at a time.

use super::linear::device_tensor;
use crate::weights::FrozenData;
use candle_core::{DType, Device, Result, Tensor};

/// A table `[V, D]`: ids `[B, T]` to `[B, T, D]` f32, no graph.
#[derive(Debug, Clone)]
pub struct FrozenEmbedding {
    table: Table,
    rows: usize,
    width: usize,
}

#[derive(Debug, Clone)]
enum Table {
    Cpu(FrozenData),
    Device(Tensor),
}

impl FrozenEmbedding {
    /// The table of `weight` `[V, D]`.
    ///
    /// # Errors
    /// A weight that is not a matrix.
    pub fn new(weight: FrozenData, device: &Device) -> Result<Self> {
        let [rows, width] = *weight.shape() else {
            candle_core::bail!("an embedding table has shape [V, D], not {:?}", weight.shape())
        };
        let table = if device.is_cpu() { Table::Cpu(weight) } else { Table::Device(device_tensor(&weight, device)?) };
        Ok(Self { table, rows, width })
    }

    /// Learned positions `[B, T, D]` f32: row b has the table's rows from `past[b]` on.
    ///
    /// # Errors
    /// A position that is not a row of the table.
    pub fn following(&self, past: &[usize], t: usize) -> Result<Tensor> {
        let rows: Vec<u32> = past.iter().flat_map(|past| *past..*past + t).map(|row| row as u32).collect();
        let device = match &self.table {
            Table::Cpu(_) => &Device::Cpu,
            Table::Device(table) => table.device(),
        };
        self.forward(&Tensor::from_vec(rows, (past.len(), t), device)?)
    }

    /// ids `[B, T]` u32 to `[B, T, D]` f32.
    ///
    /// # Errors
    /// An id that is not a row of the table.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let flat = ids.to_dtype(DType::U32)?.flatten_all()?;
        let list = flat.to_vec1::<u32>()?;
        if let Some(bad) = list.iter().find(|id| **id as usize >= self.rows) {
            candle_core::bail!("token id {bad} is not a row of the embedding table, allowed are 0..{}", self.rows)
        }
        match &self.table {
            Table::Cpu(data) => {
                let mut out = Vec::with_capacity(b * t * self.width);
                for id in list {
                    let start = id as usize * self.width;
                    out.extend(data.to_f32(start..start + self.width));
                }
                Tensor::from_vec(out, (b, t, self.width), ids.device())
            }
            Table::Device(table) => table.index_select(&flat, 0)?.to_dtype(DType::F32)?.reshape((b, t, self.width)),
        }
    }
}
