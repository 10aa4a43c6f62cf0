//! Any readable checkpoint to one safetensors file, or one of PyTorch's, a tensor at a time.
//!
//! Types are kept unless another is asked for; integers and truth values are always kept. Tensors that share their
//! bytes are written one by one, since safetensors files share nothing, and named in the summary.

use super::checkpoint::Checkpoint;
use super::gguf::{self, Architecture, Form};
use super::stored::StoredTensor;
use super::torch;
use super::write::{Planned, fill, header, sort};
use anyhow::{Context, Result, anyhow, bail, ensure};
use half::f16;
use limber_core::weights::{FrozenData, WeightSource};
use limber_core::{ModelConfig, WeightType};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;

type Tensors = BTreeMap<String, StoredTensor>;

/// The file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// Safetensors.
    #[default]
    Safetensors,
    /// PyTorch's zip pickle of a state dict, which has no metadata.
    Torch,
    /// The `model.safetensors` of a folder that transformers opens: every tensor in a type and a layout that it knows.
    Transformers,
}

/// How a checkpoint is converted.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// The type that floats are rounded to; None keeps each as it is.
    pub dtype: Option<WeightType>,
    /// The file that is written.
    pub to: Container,
    /// Metadata beside the checkpoint's own.
    pub metadata: BTreeMap<String, String>,
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy)]
pub struct ConvertProgress<'a> {
    /// The tensor just written.
    pub tensor: &'a str,
    /// Bytes written so far.
    pub done: u64,
    /// Bytes of all tensors.
    pub total: u64,
}

/// A checkpoint on its way to another form.
pub struct Conversion<'a> {
    /// What is read.
    pub checkpoint: &'a Checkpoint,
    /// How it is converted.
    pub options: ConvertOptions,
    /// Told after each tensor.
    pub progress: &'a mut dyn FnMut(ConvertProgress),
}

/// What a conversion wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConvertSummary {
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Tensors that are the same window of the same storage as an earlier one: (this, the earlier).
    pub tied: Vec<(String, String)>,
    /// Tensors of a type that safetensors files cannot hold.
    pub skipped: Vec<String>,
}

/// Writes all tensors of a checkpoint to the file `to`, which appears when it is complete.
///
/// # Errors
/// A tensor that cannot be read or does not fit the type asked for, a disk that cannot be written.
pub fn convert(conversion: Conversion<'_>, to: &Path) -> Result<ConvertSummary> {
    let Conversion { checkpoint, options, progress } = conversion;
    let (all, transposed) = match options.to {
        Container::Transformers => {
            let (all, transposed) = plain(checkpoint, options.dtype)?;
            (Some(all), transposed)
        }
        _ => (laid_out(checkpoint, options.dtype)?, BTreeSet::new()),
    };
    let stored = all.as_ref().unwrap_or(checkpoint.stored());
    let mut summary = ConvertSummary::default();
    let mut planned = Vec::new();
    let mut seen: HashMap<_, &String> = HashMap::new();
    for (name, tensor) in stored {
        if !tensor.element.is_portable() {
            summary.skipped.push(name.clone());
            continue;
        }
        if tensor.byte_len() > 0 {
            match seen.get(&tensor.identity()) {
                Some(first) => summary.tied.push((name.clone(), first.to_string())),
                None => drop(seen.insert(tensor.identity(), name)),
            }
        }
        let mut part = plan(name, tensor, options.dtype);
        if transposed.contains(name) {
            part.shape.reverse();
        }
        planned.push(part);
    }
    sort(&mut planned);
    summary.tensors = planned.len();
    summary.bytes = planned.iter().map(|p| p.bytes as u64).sum();

    let mut metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    metadata.extend(checkpoint.metadata().cloned().unwrap_or_default());
    metadata.extend(options.metadata.clone());
    let mut done = 0;
    let mut each = |part: &Planned, out: &mut dyn Write| -> Result<()> {
        let label = || format!("{}: tensor {:?}", checkpoint.label(), part.name);
        let mut tensor = stored[part.name].clone();
        let target = target(part.name, &tensor, options.dtype);
        if transposed.contains(part.name) {
            tensor =
                tensor.dense().and_then(|tensor| tensor.transposed()).map_err(|e| anyhow!(e)).with_context(label)?;
        }
        write_one(out, &tensor, target, part.bytes).with_context(label)?;
        done += part.bytes as u64;
        progress(ConvertProgress { tensor: part.name, done, total: summary.bytes });
        Ok(())
    };
    if options.to == Container::Torch {
        torch::check(&planned).with_context(|| checkpoint.label())?;
        fill(to, |file| torch::write(file, &planned, &mut each))?;
        return Ok(summary);
    }
    fill(to, |file| {
        file.write_all(&header(&planned, &metadata)?)?;
        planned.iter().try_for_each(|part| each(part, file))
    })?;
    Ok(summary)
}

/// All tensors with GPT-2's matrices transposed, where they are to be quantised: blocks lie along the rows that are
/// read, and a quantised matrix cannot be transposed when it is loaded. None where all stay as they are.
fn laid_out(checkpoint: &Checkpoint, dtype: Option<WeightType>) -> Result<Option<Tensors>> {
    if !dtype.is_some_and(WeightType::is_quantised) {
        return Ok(None);
    }
    // What is beside the weights may be no description of a decoder.
    let Ok(Some(config)) = ModelConfig::read(checkpoint) else { return Ok(None) };
    let Some(architecture) = config.model_type().and_then(Architecture::of) else { return Ok(None) };
    let mut all = BTreeMap::new();
    for (name, tensor) in checkpoint.stored() {
        match architecture.file_name(name) {
            Some((_, Form::Transposed)) if tensor.shape.len() == 2 => {
                let transposed =
                    tensor.transposed().map_err(|e| anyhow!("{}: tensor {name:?}: {e}", checkpoint.label()))?;
                all.insert(format!("{name}{}", gguf::TRANSPOSED), transposed);
            }
            _ => drop(all.insert(name.clone(), tensor.clone())),
        }
    }
    Ok(Some(all))
}

/// All tensors as transformers reads them, and those that are still to be transposed when they are written, one at a time.
fn plain(checkpoint: &Checkpoint, dtype: Option<WeightType>) -> Result<(Tensors, BTreeSet<String>)> {
    const DENSE: &str = "transformers reads f32, f16 and bf16: set one of them as the type";
    if let Some(dtype) = dtype.filter(|dtype| dtype.is_quantised()) {
        bail!("{}: the type is {}, {DENSE}", checkpoint.label(), dtype.name())
    }
    let (mut all, mut transposed) = (BTreeMap::new(), BTreeSet::new());
    for (name, tensor) in checkpoint.stored() {
        let coded = tensor.element.weight_type().filter(|dtype| dtype.is_quantised());
        if let (Some(coded), None) = (coded, dtype) {
            bail!("{}: tensor {name:?} is of the type {}, {DENSE}", checkpoint.label(), coded.name())
        }
        let own = name.strip_suffix(gguf::TRANSPOSED).unwrap_or(name).to_string();
        if own != *name {
            transposed.insert(own.clone());
        }
        all.insert(own, tensor.clone());
    }
    Ok((all, transposed))
}

/// The type that a tensor is rounded to; None where it stays as it is. Matrices alone are quantised: norms, biases,
/// convolutions and learned positions keep their type, and so do rows that are no whole blocks.
fn target(name: &str, tensor: &StoredTensor, dtype: Option<WeightType>) -> Option<WeightType> {
    let own = tensor.element.weight_type();
    let is_float = own.is_some() || tensor.element.name() == "F64";
    let mut dtype = dtype.filter(|_| is_float)?;
    if dtype.is_quantised() {
        dtype = dtype.fitting(&tensor.shape);
        let is_positions = name.contains("wpe.") || name.contains("embed_positions.");
        if tensor.shape.len() != 2 || is_positions || !dtype.is_quantised() {
            return None;
        }
    }
    (own != Some(dtype)).then_some(dtype)
}

fn plan<'a>(name: &'a str, tensor: &'a StoredTensor, dtype: Option<WeightType>) -> Planned<'a> {
    let shape = &tensor.shape;
    match target(name, tensor, dtype).or(tensor.element.weight_type()) {
        Some(dtype) => Planned::weight(name, dtype, shape, dtype.bytes(shape).unwrap_or(0)),
        None => {
            let (element, size) = (tensor.element.name(), tensor.element.bytes());
            Planned { name, element, quantised: None, size, shape: shape.clone(), bytes: tensor.byte_len() }
        }
    }
}

/// Writes the bytes of a tensor, rounded to `target` where that is another type.
pub(super) fn write_one(
    file: &mut dyn Write,
    tensor: &StoredTensor,
    target: Option<WeightType>,
    planned: usize,
) -> Result<()> {
    let Some(dtype) = target else {
        let (bytes, range) = tensor.contiguous().map_err(|e| anyhow!(e))?;
        let bytes = (*bytes).as_ref().get(range).context("its bytes lie outside its storage")?;
        ensure!(bytes.len() == planned, "{} bytes, planned were {planned}", bytes.len());
        return Ok(file.write_all(bytes)?);
    };
    let data = tensor.frozen().map_err(|e| anyhow!(e))?.context("not a float")?;
    if dtype.is_quantised() {
        check_finite(&data)?;
    }
    let rounded = data.clone().convert(dtype);
    if dtype == WeightType::F16 {
        check_range(&data, &rounded)?;
    }
    Ok(file.write_all(rounded.bytes())?)
}

/// A block shares one scale: a value that is not finite would spoil its neighbours.
fn check_finite(data: &FrozenData) -> Result<()> {
    const BLOCK: usize = 1 << 16;
    for start in (0..data.elements()).step_by(BLOCK) {
        let values = data.to_f32(start..(start + BLOCK).min(data.elements()));
        if let Some(value) = values.iter().find(|x| !x.is_finite()) {
            bail!("the value {value} cannot be quantised, expected a finite one");
        }
    }
    Ok(())
}

/// f16 ends at 65504: what was finite must stay so.
fn check_range(data: &FrozenData, rounded: &FrozenData) -> Result<()> {
    const BLOCK: usize = 1 << 16;
    for start in (0..data.elements()).step_by(BLOCK) {
        let range = start..(start + BLOCK).min(data.elements());
        let after = rounded.to_f32(range.clone());
        if after.iter().all(|x| x.is_finite()) {
            continue;
        }
        let before = data.to_f32(range);
        if let Some((value, _)) = before.iter().zip(&after).find(|(b, a)| b.is_finite() && !a.is_finite()) {
            bail!("the value {value} does not fit f16, whose largest is {}; take bf16 or f32", f16::MAX);
        }
    }
    Ok(())
}
