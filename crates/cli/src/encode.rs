//! `limber encode --config C --stage pixels|features|prefix IMAGE... --out F.safetensors`, and
//! `limber encode --config C --data D --out DIR`: the features of a whole data set, once.

use super::options::{Shared, one_of, text};
use super::output;
use super::progress::Progress;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use clap::{Args, ValueEnum};
use limber_config::{Config, Data, DataFormat};
use limber_core::weights::FrozenData;
use limber_data as data;
use limber_data::features;
use limber_data::features::{Layout, Precision};
use limber_pipeline::encode::{self, Encoding, Summary};
use limber_pipeline::{PrefixEncoder, Preprocessor, VisionEncoder};
use limber_train::told;
use limber_weights as weights;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    /// What to compute for each image
    #[arg(long, value_enum, required_unless_present = "data")]
    stage: Option<Stage>,
    /// Output: a safetensors file with one f32 tensor per image, named after the image file's stem (or the array's
    /// name); with --data, a folder of features
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Image files, or feature files for the encoder "features"
    #[arg(required_unless_present = "data", value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    set: SetFlags,
}

/// How a data set is encoded.
#[derive(Debug, Args)]
struct SetFlags {
    /// Compute the features of a whole data set (a folder, a list, tar shards) for the key data.features; without a
    /// value, of the config's data set
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["images", "stage"])]
    data: Option<String>,
    /// Format of the data set [default: detected from its path]
    #[arg(long, value_parser = one_of(&DataFormat::NAMED), requires = "data")]
    format: Option<DataFormat>,
    /// Layout of the feature files
    #[arg(long, value_parser = one_of(&Layout::NAMED), requires = "data", default_value = "safetensors")]
    layout: Layout,
    /// Type of the stored features
    #[arg(long, value_parser = one_of(&Precision::NAMED), requires = "data", default_value = "f16")]
    precision: Precision,
    /// Number of items per shard; an interrupted run loses at most one shard
    #[arg(long, value_name = "N", requires = "data", default_value_t = 256, value_parser = at_least_one)]
    shard: usize,
    /// Batch size
    #[arg(long, value_name = "B", requires = "data", default_value_t = 8, value_parser = at_least_one)]
    batch: usize,
    /// Index of this process among those that split the work, from 0 [default: from MPI, SLURM or RANK]
    #[arg(long, value_name = "R", requires_all = ["data", "world"])]
    rank: Option<usize>,
    /// Number of processes that split the work
    #[arg(long, value_name = "W", requires_all = ["data", "rank"], value_parser = at_least_one)]
    world: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stage {
    /// Pixels [3, S, S]: resized, cropped and normalised
    Pixels,
    /// Features [N, E] of the encoder
    Features,
    /// Prefix [K, D] of the stitch (projector)
    Prefix,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a whole number, at least 1".to_string())
}

pub fn run(arguments: &Arguments) -> Result<()> {
    match (&arguments.set.data, arguments.stage) {
        (Some(path), _) => encode_set(arguments, path),
        (None, Some(stage)) => encode_images(arguments, stage),
        (None, None) => bail!("give --stage and images, or --data"),
    }
}

fn encode_set(arguments: &Arguments, path: &str) -> Result<()> {
    let (shared, set) = (&arguments.shared, &arguments.set);
    let config = shared.load(None)?;
    let (data, base) = the_data(&config, path, set.format)?;
    let (rank, world) = match (set.rank, set.world) {
        (Some(rank), Some(world)) => (rank, world),
        _ => told().and_then(|told| Some((told.rank?, told.size))).unwrap_or((0, 1)),
    };
    if rank >= world {
        bail!("--rank {rank} is not allowed, must be below --world {world}")
    }
    if set.layout == Layout::Npy && set.precision == Precision::Bf16 {
        bail!("--precision bf16 is not allowed with --layout npy: NumPy has no bf16; expected f16 or f32")
    }
    let items = data::open(&data, base).context("section \"data\"")?;
    let vision = shared.vision(&config)?;
    let how = Encoding {
        folder: arguments.out.clone(),
        layout: set.layout,
        dtype: set.precision,
        block: set.shard,
        batch: set.batch,
        workers: data.workers,
        max_skipped: data.max_skipped,
        rank,
        world,
    };
    if world > 1 {
        output::note(&format!("rank {rank} of {world}"));
    }
    let mut progress = None;
    let summary = encode::encode(&vision, items.as_ref(), &how, &mut |done, total| {
        let is_first = progress.is_none();
        let progress = progress.get_or_insert_with(|| Progress::new(total as u64, "images"));
        if is_first { progress.from(done as u64) } else { progress.at(done as u64) }
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    report(arguments, &summary)
}

fn report(arguments: &Arguments, summary: &Summary) -> Result<()> {
    let list = summary.skipped_path.as_ref().map(|path| path.display().to_string());
    if let Some(list) = &list {
        output::note(&format!("{} items could not be read; {list} names them", summary.skipped));
    }
    let out = arguments.out.display().to_string();
    if !arguments.shared.json {
        return output::line(&out);
    }
    output::json(&json!({
        "out": out, "items": summary.items, "skipped": summary.skipped,
        "shards": {"written": summary.written, "there": summary.there},
    }))
}

/// The data set that `--data` means, and the folder from which its path counts.
fn the_data<'a>(config: &'a Config, path: &str, format: Option<DataFormat>) -> Result<(Data, &'a Path)> {
    if path.is_empty() {
        let data =
            config.data.clone().context("--data without a value is the config's, which has no section \"data\"")?;
        return Ok((Data { format: format.unwrap_or(data.format), ..data }, &config.folder));
    }
    let format = match format {
        Some(format) => format,
        None => data::format_of(path)?,
    };
    let usual = Data::new(format, path);
    let (workers, max_skipped) =
        config.data.as_ref().map_or((usual.workers, usual.max_skipped), |data| (data.workers, data.max_skipped));
    Ok((Data { workers, max_skipped, ..usual }, Path::new("")))
}

/// What computes a stage, loaded as far as the stage asks for.
enum StageEncoder {
    Pixels(Preprocessor),
    Features(VisionEncoder),
    Prefix(PrefixEncoder),
}

impl StageEncoder {
    fn load(shared: &Shared, config: &Config, stage: Stage) -> Result<Self> {
        Ok(match stage {
            Stage::Pixels => {
                let preprocessor = shared.preprocessor(config)?;
                if preprocessor.input_spec().image().is_none() {
                    bail!(
                        "--stage pixels: the encoder takes features from files, not images; expected features or prefix"
                    )
                }
                Self::Pixels(preprocessor)
            }
            Stage::Features => Self::Features(shared.vision(config)?),
            Stage::Prefix => Self::Prefix(shared.prefix_encoder(config)?),
        })
    }

    /// The stage of several images, with a leading batch dimension.
    fn encode(&self, paths: &[&str]) -> Result<Tensor> {
        let preprocessor = match self {
            Self::Pixels(preprocessor) => preprocessor,
            Self::Features(vision) => vision.preprocessor(),
            Self::Prefix(prefix) => prefix.preprocessor(),
        };
        let inputs: Vec<Tensor> = paths.iter().map(|path| preprocessor.input(path)).collect::<Result<_>>()?;
        match self {
            Self::Pixels(_) => Ok(Tensor::stack(&inputs, 0)?),
            Self::Features(vision) => vision.features(&inputs),
            Self::Prefix(prefix) => prefix.prefix(&prefix.vision().features(&inputs)?),
        }
    }
}

fn encode_images(arguments: &Arguments, stage: Stage) -> Result<()> {
    let config = arguments.shared.load(None)?;
    let mut named = BTreeMap::new();
    for path in &arguments.images {
        let path = text(path)?;
        let stem = features::stem(path).with_context(|| format!("{path:?} has no name"))?;
        if let Some(other) = named.insert(stem.to_string(), path) {
            bail!("{other} and {path} would both be the tensor {stem:?}; rename one")
        }
    }
    let encoder = StageEncoder::load(&arguments.shared, &config, stage)?;
    let mut tensors = BTreeMap::new();
    let all: Vec<(&String, &&str)> = named.iter().collect();
    for group in all.chunks(config.generate.batch) {
        let paths: Vec<&str> = group.iter().map(|(_, path)| **path).collect();
        let computed = encoder.encode(&paths)?;
        for (row, (stem, path)) in group.iter().enumerate() {
            let tensor = computed.get(row)?.to_device(&Device::Cpu)?;
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
