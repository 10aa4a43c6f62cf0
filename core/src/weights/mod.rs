//! Named frozen tensors: where they come from, and how a component asks for them.
//!
//! A [`WeightSource`] knows names, shapes and bytes (a file mapped by the host, or a random generator).
//! [`Weights`] is what a component gets: a source, a name prefix, a device and the type that weights are wanted in.
//! Weights keep their own type and their location in the mapped file; only a change of type makes a copy.

use crate::backend::Backend;
use crate::frozen::{FrozenEmbedding, FrozenLinear};
use crate::hash;
use candle_core::{Device, Tensor};
use half::f16;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

mod data;
mod dtype;

pub use data::{FrozenData, SharedBytes};
pub use dtype::WeightType;

/// What can be wrong with a weight; each message names the tensor and the source.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The source has no tensor of that name.
    #[error("{source_label}: no tensor {name:?}; {hint}")]
    Missing {
        /// The full name asked for.
        name: String,
        /// Where it was looked for.
        source_label: String,
        /// Names that are there.
        hint: String,
    },
    /// The tensor has another shape.
    #[error("{source_label}: tensor {name:?} has shape {found:?}, the settings ask for {expected:?}")]
    Shape {
        /// The full name.
        name: String,
        /// Where it stands.
        source_label: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the component's settings give.
        expected: Vec<usize>,
    },
    /// The tensor's element type cannot hold weights.
    #[error("{source_label}: tensor {name:?} has type {found}, expected f64, f32, f16, bf16 or a block type of GGUF")]
    Type {
        /// The full name.
        name: String,
        /// Where it stands.
        source_label: String,
        /// The type in the file.
        found: String,
    },
    /// Reading failed.
    #[error("{source_label}: {message}")]
    Read {
        /// Where it was read.
        source_label: String,
        /// What went wrong.
        message: String,
    },
}

/// How a tensor is drawn where the source is random, as the reference library initialises it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every element the same.
    Const(f32),
    /// Normal distribution.
    Normal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        std: f32,
    },
    /// Normal distribution of the given deviation around 0, drawn again beyond `low..high` (absolute bounds, as
    /// PyTorch's `trunc_normal_`).
    TruncatedNormal {
        /// Standard deviation before the cut.
        std: f32,
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// Normal distribution around 0, row `row` of the matrix 0: PyTorch's embedding with a padding index.
    NormalButRow {
        /// Standard deviation.
        std: f32,
        /// The row of zeros.
        row: usize,
    },
    /// Uniform distribution over `low..high`.
    Uniform {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
    },
}

/// All zeros.
pub const ZEROS: Init = Init::Const(0.0);
/// All ones.
pub const ONES: Init = Init::Const(1.0);

impl Init {
    /// PyTorch's default for linear and convolution weights and biases: uniform within 1 / sqrt(fan_in).
    pub fn fan_in(fan_in: usize) -> Self {
        let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
        Init::Uniform { low: -bound, high: bound }
    }

    /// Normal distribution around 0.
    pub fn normal(std: f32) -> Self {
        Init::Normal { mean: 0.0, std }
    }
}

/// What stands behind the name of a matrix that is stored `[n_out, n_in]` where its component reads `[n_in, n_out]`:
/// GPT-2's quantised ones, whose blocks lie along the rows that are read.
pub const TRANSPOSED: &str = ".turned";

/// One tensor asked of a source.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The full name.
    pub name: &'a str,
    /// The shape it must have.
    pub shape: &'a [usize],
    /// How a random source draws it.
    pub init: Init,
    /// The type a random source makes it in; a file gives its own.
    pub dtype: WeightType,
}

/// Where tensors come from.
pub trait WeightSource: Send + Sync {
    /// What messages call it: a path, or `random:SEED`.
    fn label(&self) -> String;

    /// The tensors there are, by name, with their shapes; None where any name is answered (a random source).
    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>>;

    /// One tensor. It has the name and the shape asked for, or this is an error.
    fn read(&self, request: &Request) -> Result<FrozenData, WeightError>;

    /// A small text that lies beside the tensors, such as `config.json`; None where there is none.
    fn document(&self, _name: &str) -> Result<Option<String>, WeightError> {
        Ok(None)
    }
}

/// What a component reads its tensors from: a source, a name prefix, a device, the type wanted.
#[derive(Clone)]
pub struct Weights {
    source: Arc<dyn WeightSource>,
    prefix: String,
    device: Device,
    dtype: Option<WeightType>,
    backend: Backend,
    /// Of each tensor that was read: what the fingerprint says of it, and its bytes.
    trace: Arc<Mutex<BTreeMap<String, (u64, usize)>>>,
}

impl Weights {
    /// All of `source`. `dtype` None keeps the type of the file (f32 where the source is random).
    pub fn new(source: Arc<dyn WeightSource>, device: Device, dtype: Option<WeightType>) -> Self {
        let backend = Backend::of(&device);
        Self { source, prefix: String::new(), device, dtype, backend, trace: Arc::default() }
    }

    /// The same weights, computed with by `backend`: candle's operations on the CPU are what an accelerator runs.
    pub fn with_backend(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// What computes with these weights.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Random weights of `seed` on the CPU in f32, for tests and `random:SEED`.
    pub fn random(seed: u64) -> Self {
        Self::new(Arc::new(crate::random::RandomSource::new(seed)), Device::Cpu, None)
    }

    /// The tensors under `name.`, candle's `pp`.
    pub fn pp(&self, name: impl fmt::Display) -> Self {
        let mut inner = self.clone();
        inner.prefix = if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        inner
    }

    /// The device that tensors are put on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type that frozen weights are wanted in; None is as they are stored.
    pub fn dtype(&self) -> Option<WeightType> {
        self.dtype
    }

    /// One tensor as its source gives it, in no other type: what a host of external components hands on.
    ///
    /// # Errors
    /// As [`Self::frozen`].
    pub fn stored(&self, request: &Request) -> Result<FrozenData, WeightError> {
        self.read(request.name, request.shape, request.init, request.dtype)
    }

    /// The source.
    pub fn source(&self) -> &Arc<dyn WeightSource> {
        &self.source
    }

    /// Whether the source has such a tensor; None where it is random and has whatever is asked.
    pub fn has(&self, name: &str) -> Option<bool> {
        self.shape_of(name).map(|s| s.is_some())
    }

    /// The shape of a tensor: None where the source is random, `Some(None)` where it has no such tensor.
    pub fn shape_of(&self, name: &str) -> Option<Option<Vec<usize>>> {
        let name = self.full(name);
        self.source.tensors().map(|all| all.get(&name).cloned())
    }

    /// The first of `prefixes` under which `probe` stands (the empty prefix is the tensors as they are).
    /// A random source answers with the first.
    pub fn under_any(&self, prefixes: &[&str], probe: &str) -> Self {
        let all = self.source.tensors();
        for prefix in prefixes {
            let candidate = if prefix.is_empty() { self.clone() } else { self.pp(prefix) };
            match &all {
                Some(all) if !all.contains_key(&candidate.full(probe)) => {}
                _ => return candidate,
            }
        }
        self.clone()
    }

    /// One tensor as it is frozen: in the file's type, or in the type wanted.
    ///
    /// # Errors
    /// A missing tensor, another shape, a type that cannot hold weights, an unreadable file.
    pub fn frozen(&self, name: &str, shape: &[usize], init: Init) -> Result<FrozenData, WeightError> {
        let data = self.read(name, shape, init, self.dtype.unwrap_or(WeightType::F32).fitting(shape))?;
        Ok(match self.dtype {
            Some(dtype) => data.convert(dtype),
            None => data,
        })
    }

    /// One small tensor (a norm, a bias, a convolution) in f32 on the device.
    ///
    /// # Errors
    /// As [`Self::frozen`].
    pub fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, WeightError> {
        let data = self.read(name, shape, init, WeightType::F32)?;
        let values = data.to_f32(0..data.elements());
        Tensor::from_vec(values, shape, &self.device).map_err(|e| self.error(&e.to_string()))
    }

    /// A frozen linear layer from `weight` `[n_out, n_in]` and, where `bias` is given, `bias` `[n_out]`.
    ///
    /// # Errors
    /// As [`Self::frozen`].
    pub fn linear(
        &self,
        n_in: usize,
        n_out: usize,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<FrozenLinear, WeightError> {
        self.with_bias(self.frozen("weight", &[n_out, n_in], weight)?, bias)
    }

    /// As [`Self::linear`], from a `weight` that is stored as `[n_in, n_out]`: GPT-2's `Conv1D`.
    ///
    /// The matrix is transposed once, in the type that it is stored in, unless the source has it transposed, see
    /// [`TRANSPOSED`].
    ///
    /// # Errors
    /// As [`Self::frozen`]; a matrix in blocks, which cannot be transposed.
    pub fn linear_transposed(
        &self,
        n_in: usize,
        n_out: usize,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<FrozenLinear, WeightError> {
        let transposed = format!("weight{TRANSPOSED}");
        if self.has(&transposed) == Some(true) {
            return self.with_bias(self.frozen(&transposed, &[n_out, n_in], weight)?, bias);
        }
        // Blocks lie along the rows of the transposed matrix, so it is drawn in full.
        let drawn = self.dtype.filter(|dtype| !dtype.is_quantised()).unwrap_or(WeightType::F32);
        let stored = self.read("weight", &[n_in, n_out], weight, drawn)?;
        let transposed =
            stored.transposed().map_err(|e| self.error(&format!("tensor {:?}: {e}", self.full("weight"))))?;
        let transposed = match self.dtype {
            Some(dtype) => transposed.convert(dtype),
            None => transposed,
        };
        self.with_bias(transposed, bias)
    }

    /// The layer of a weight `[n_out, n_in]`, with `bias` `[n_out]` where it has one.
    fn with_bias(&self, weight: FrozenData, bias: Option<Init>) -> Result<FrozenLinear, WeightError> {
        let n_out = weight.shape().first().copied().unwrap_or(0);
        let bias = bias.map(|init| self.tensor("bias", &[n_out], init)).transpose()?;
        FrozenLinear::on(weight, bias, &self.device, self.backend).map_err(|e| self.failure(e))
    }

    /// A frozen embedding table from `weight` `[rows, width]`.
    ///
    /// # Errors
    /// As [`Self::frozen`].
    pub fn embedding(&self, rows: usize, width: usize, init: Init) -> Result<FrozenEmbedding, WeightError> {
        let data = self.frozen("weight", &[rows, width], init)?;
        FrozenEmbedding::on(data, &self.device, self.backend).map_err(|e| self.failure(e))
    }

    /// Word embeddings and head of a model that has one table `weight` `[rows, width]` for both; with a `bias` under `head`
    /// where one is given.
    ///
    /// Some checkpoints hold the table twice, under `head` too, and some under `head` alone.
    ///
    /// # Errors
    /// As [`Self::frozen`]; a head in the source that is another table.
    pub fn tied(
        &self,
        head: &Weights,
        rows: usize,
        width: usize,
        init: Init,
        bias: Option<Init>,
    ) -> Result<(FrozenEmbedding, FrozenLinear), WeightError> {
        let shape = [rows, width];
        if head.has("weight") == Some(true) {
            if self.has("weight") == Some(false) {
                return head.tied(head, rows, width, init, bias);
            }
            let bits = |weights: &Weights| {
                let name = weights.full("weight");
                self.source.read(&Request { name: &name, shape: &shape, init, dtype: WeightType::F32 })
            };
            let (table, other) = (bits(self)?, bits(head)?);
            let same = table.dtype() == other.dtype() && table.shape() == other.shape();
            if !same || table.bytes() != other.bytes() {
                let (table, other) = (self.full("weight"), head.full("weight"));
                return Err(self.error(&format!(
                    "tie_word_embeddings is true, but {other:?} is another matrix than {table:?}; set tie_word_embeddings to false to use it"
                )));
            }
        }
        let table = self.frozen("weight", &shape, init)?;
        let bias = bias.map(|init| head.tensor("bias", &[rows], init)).transpose()?;
        let layer = || -> candle_core::Result<_> {
            Ok((
                FrozenEmbedding::on(table.clone(), &self.device, self.backend)?,
                FrozenLinear::on(table.clone(), bias, &self.device, self.backend)?,
            ))
        };
        layer().map_err(|e| self.failure(e))
    }

    /// A fingerprint of the tensors read so far: of names relative to no prefix, of shapes, and of sampled values
    /// rounded to f16, so that a copy of the same weights in f16, or under another prefix, has the same one.
    pub fn fingerprint(&self) -> String {
        let trace = self.trace.lock().unwrap_or_else(|e| e.into_inner());
        let mut samples: Vec<u64> = trace.values().map(|(sample, _)| *sample).collect();
        samples.sort_unstable();
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        hash::short(&[&bytes])
    }

    fn read(&self, name: &str, shape: &[usize], init: Init, dtype: WeightType) -> Result<FrozenData, WeightError> {
        let full = self.full(name);
        let data = self.source.read(&Request { name: &full, shape, init, dtype })?;
        if data.shape() != shape {
            return Err(WeightError::Shape {
                name: full,
                source_label: self.source.label(),
                found: data.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        let mut trace = self.trace.lock().unwrap_or_else(|e| e.into_inner());
        trace.entry(full).or_insert_with(|| {
            let wanted = self.dtype.filter(|_| shape.len() > 1).and_then(|dtype| dtype.fitting(shape).bytes(shape));
            (sample(&data), wanted.unwrap_or(data.bytes().len()))
        });
        Ok(data)
    }

    /// Bytes of the tensors read so far, in the type that they are held in.
    pub fn bytes(&self) -> u64 {
        let trace = self.trace.lock().unwrap_or_else(|e| e.into_inner());
        trace.values().map(|(_, bytes)| *bytes as u64).sum()
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// What candle reports of these weights.
    pub(crate) fn failure(&self, error: candle_core::Error) -> WeightError {
        self.error(&error.to_string())
    }

    fn error(&self, message: &str) -> WeightError {
        WeightError::Read { source_label: self.source.label(), message: message.to_string() }
    }
}

/// 64 bits that tell tensors apart: shape and up to 32 values spread over it, in f16.
fn sample(data: &FrozenData) -> u64 {
    let mut bytes: Vec<u8> = data.shape().iter().flat_map(|dim| (*dim as u64).to_le_bytes()).collect();
    let n = data.elements();
    let step = (n / 32).max(1);
    for at in (0..n).step_by(step).take(32) {
        let value = data.to_f32(at..at + 1)[0];
        bytes.extend(f16::from_f32(value).to_bits().to_le_bytes());
    }
    hash::number(&[&bytes])
}

/// Up to `limit` of `names` that resemble `wanted` most, for messages.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, limit: usize) -> Vec<&'a str> {
    let mut all: Vec<(usize, &str)> = names.map(|n| (distance(wanted, n), n)).collect();
    all.sort();
    all.into_iter().take(limit).map(|(_, n)| n).collect()
}

/// Levenshtein distance of two names.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
