//! A frozen embedding table, of words or positions: entries are read from the mapped file, one at a time.

use super::linear::device_tensor;
use crate::backend::Backend;
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
    Mapped(FrozenData),
    Candle(Tensor),
}

impl FrozenEmbedding {
    /// The table of `weight` `[V, D]`.
    ///
    /// # Errors
    /// A weight that is not a matrix.
    pub fn new(weight: FrozenData, device: &Device) -> Result<Self> {
        Self::on(weight, device, Backend::of(device))
    }

    /// As [`Self::new`], read by `backend`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn on(weight: FrozenData, device: &Device, backend: Backend) -> Result<Self> {
        let [rows, width] = *weight.shape() else {
            candle_core::bail!("an embedding table has shape [V, D], not {:?}", weight.shape())
        };
        let table = if backend.is_kernels() && device.is_cpu() {
            Table::Mapped(weight)
        } else {
            Table::Candle(device_tensor(&weight, device)?)
        };
        Ok(Self { table, rows, width })
    }

    /// Learned positions `[B, T, D]` f32: row b has the table's rows from `past[b]` on.
    ///
    /// # Errors
    /// A position that is not a row of the table.
    pub fn following(&self, past: &[usize], t: usize) -> Result<Tensor> {
        let rows: Vec<u32> = past.iter().flat_map(|past| *past..*past + t).map(|row| row as u32).collect();
        let device = match &self.table {
            Table::Mapped(_) => &Device::Cpu,
            Table::Candle(table) => table.device(),
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
            candle_core::bail!("token id {bad} is not a row of the embedding table, expected 0..{}", self.rows)
        }
        match &self.table {
            Table::Mapped(data) => {
                let mut out = Vec::with_capacity(b * t * self.width);
                for id in list {
                    let start = id as usize * self.width;
                    out.extend(data.to_f32(start..start + self.width));
                }
                Tensor::from_vec(out, (b, t, self.width), ids.device())
            }
            Table::Candle(table) => table.index_select(&flat, 0)?.to_dtype(DType::F32)?.reshape((b, t, self.width)),
        }
    }
}
