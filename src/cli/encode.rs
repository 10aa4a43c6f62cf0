//! `limber encode --config C --stage pixels|features|prefix IMAGE... --out F.safetensors`

use super::options::{Shared, text};
use super::output;
use crate::model::Depth;
use crate::{features, weights};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use clap::{Args, ValueEnum};
use limber_core::weights::FrozenData;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    /// What is written of each image
    #[arg(long, value_enum)]
    stage: Stage,
    /// The safetensors file: one f32 tensor an image, named by the file's stem (an array's name where one is given)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Image files, or files of features where the encoder takes them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stage {
    /// [3, S, S] after resizing, cropping and normalising
    Pixels,
    /// [N, E] of the encoder
    Features,
    /// [K, D] of the stitch
    Prefix,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let config = arguments.shared.load(None)?;
    let mut named = BTreeMap::new();
    for path in &arguments.images {
        let path = text(path)?;
        let stem = features::stem(path).with_context(|| format!("{path:?} has no name"))?;
        if let Some(other) = named.insert(stem.to_string(), path) {
            bail!("{other} and {path} would both be the tensor {stem:?}; rename one")
        }
    }
    let depth = match arguments.stage {
        Stage::Pixels => Depth::Pixels,
        Stage::Features => Depth::Features,
        Stage::Prefix => Depth::Prefix,
    };
    let model = arguments.shared.model(&config, depth)?;
    if depth == Depth::Pixels && model.input_spec().image().is_none() {
        bail!("--stage pixels: the encoder takes features from files, not images; allowed are features and prefix")
    }
    let mut tensors = BTreeMap::new();
    let all: Vec<(&String, &&str)> = named.iter().collect();
    for group in all.chunks(config.generate.batch) {
        let pixels: Vec<Tensor> = group.iter().map(|(_, path)| model.input(path)).collect::<Result<_>>()?;
        let stage = match depth {
            Depth::Pixels => Tensor::stack(&pixels, 0)?,
            Depth::Features => model.features(&pixels)?,
            _ => model.prefix(&model.features(&pixels)?)?,
        };
        for (row, (stem, path)) in group.iter().enumerate() {
            let tensor = stage.get(row)?.to_device(&Device::Cpu)?;
            if arguments.shared.json {
                output::json(&json!({"image": path, "tensor": stem, "shape": tensor.dims()}))?;
            }
            let data = FrozenData::from_f32(tensor.flatten_all()?.to_vec1::<f32>()?, tensor.dims());
            tensors.insert(stem.to_string(), data);
        }
    }
    weights::save(&arguments.out, &tensors, &BTreeMap::new())?;
    Ok(())
}
