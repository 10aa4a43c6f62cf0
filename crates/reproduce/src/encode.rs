//! Features of all scenes, encoded once for all runs.
//!
//! Every channel is standardised over the training scenes. That is an affine map in front of another, so a stitch
//! trained behind it is, once the two are folded into one, a stitch of the encoder itself; the same learning rate then
//! suits encoders whose features differ in scale by orders of magnitude.

use super::conditions::Condition;
use super::scenes::{Seen, World};
use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use limber_config::Config;
use limber_core::Registry;
use limber_pipeline::VisionEncoder;
use limber_weights as weights;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Images that go through an encoder together.
const BATCH: usize = 32;
/// Channels that hardly move are not blown up: this share of the mean deviation is added to each.
const FLOOR: f32 = 1e-3;
/// Prefix tokens of the no-image control, as many as the patch encoders give.
const BLIND_TOKENS: usize = 16;

/// The features of one condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureSet {
    /// N.
    pub tokens: usize,
    /// E.
    pub width: usize,
    /// Mean of each channel before; of none where there is no image.
    pub mean: Vec<f32>,
    /// What each channel was divided by.
    pub scale: Vec<f32>,
    /// Where the files lie.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl FeatureSet {
    /// Whether these are no features of anything.
    pub fn is_blind(&self) -> bool {
        self.mean.is_empty()
    }

    /// The file of scene `index` of a split.
    pub fn file(&self, split: &str, index: usize) -> PathBuf {
        self.folder.join(name(self.is_blind(), split, index))
    }

    /// The list that training reads: a file of features and a caption a line.
    pub fn list(&self) -> PathBuf {
        self.folder.join("train.jsonl")
    }
}

fn name(blind: bool, split: &str, index: usize) -> String {
    if blind { "nothing.npy".to_string() } else { format!("{split}/{index:06}.npy") }
}

/// Encodes what is not encoded yet.
///
/// # Errors
/// What the encoder, the images or the disk report.
pub fn features(
    condition: &Condition,
    config: &Config,
    registry: &Registry,
    world: &World,
    folder: &Path,
) -> Result<FeatureSet> {
    let done = folder.join("features.json");
    if done.exists() {
        let text = fs::read(&done).with_context(|| format!("cannot read {}", done.display()))?;
        let set: FeatureSet = serde_json::from_slice(&text).with_context(|| format!("{}", done.display()))?;
        return Ok(FeatureSet { folder: folder.to_path_buf(), ..set });
    }
    for split in ["train", "val"] {
        let part = folder.join(split);
        fs::create_dir_all(&part).with_context(|| format!("cannot make folder {}", part.display()))?;
    }
    let mut set =
        FeatureSet { tokens: BLIND_TOKENS, width: 1, mean: vec![], scale: vec![], folder: folder.to_path_buf() };
    if condition.sees() {
        let model = VisionEncoder::load(config, registry)?;
        let spec = model.preprocessor().feature_spec();
        (set.tokens, set.width) = (spec.tokens, spec.width);
        let (train, held) = (encode(&model, &world.train)?, encode(&model, &world.held)?);
        (set.mean, set.scale) = moments(&train, set.width);
        for (split, rows) in [("train", train), ("val", held)] {
            for (index, mut row) in rows.into_iter().enumerate() {
                for (at, value) in row.iter_mut().enumerate() {
                    *value = (*value - set.mean[at % set.width]) / set.scale[at % set.width];
                }
                write_npy(&set.file(split, index), set.tokens, set.width, &row)?;
            }
        }
    } else {
        write_npy(&set.file("train", 0), set.tokens, set.width, &vec![0.0; set.tokens * set.width])?;
    }
    weights::fill(&set.list(), |file| {
        for (index, seen) in world.train.iter().enumerate() {
            let image = name(!condition.sees(), "train", index);
            let caption = format!("{} {}", config.prompt, seen.caption);
            writeln!(file, "{}", json!({"image": image, "caption": caption}))?;
        }
        Ok(())
    })?;
    weights::replace(&done, serde_json::to_string(&set)?.as_bytes())?;
    Ok(set)
}

/// Features of each scene, flat.
fn encode(model: &VisionEncoder, scenes: &[Seen]) -> Result<Vec<Vec<f32>>> {
    let mut rows = Vec::with_capacity(scenes.len());
    for part in scenes.chunks(BATCH) {
        let input = |seen: &Seen| model.preprocessor().input(seen.image.to_str().context("a path that is not UTF-8")?);
        let inputs: Vec<Tensor> = part.iter().map(input).collect::<Result<_>>()?;
        let features = model.features(&inputs)?; // [B, N, E]
        for row in 0..part.len() {
            rows.push(features.get(row)?.flatten_all()?.to_vec1::<f32>()?);
        }
    }
    Ok(rows)
}

/// Mean and deviation of every channel over all tokens of all rows.
fn moments(rows: &[Vec<f32>], width: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut sum, mut squares, mut n) = (vec![0.0f64; width], vec![0.0f64; width], 0usize);
    for token in rows.iter().flat_map(|row| row.chunks_exact(width)) {
        n += 1;
        for (at, value) in token.iter().enumerate() {
            sum[at] += f64::from(*value);
            squares[at] += f64::from(*value).powi(2);
        }
    }
    let n = n.max(1) as f64;
    let deviation = |at: usize| (squares[at] / n - (sum[at] / n).powi(2)).max(0.0).sqrt() as f32;
    let deviations: Vec<f32> = (0..width).map(deviation).collect();
    let floor = (FLOOR * deviations.iter().sum::<f32>() / width as f32).max(f32::MIN_POSITIVE);
    (sum.iter().map(|s| (s / n) as f32).collect(), deviations.iter().map(|d| d + floor).collect())
}

/// A `.npy` file of `[N, E]` f32: NumPy's format 1.0.
fn write_npy(path: &Path, tokens: usize, width: usize, values: &[f32]) -> Result<()> {
    ensure!(values.len() == tokens * width, "{} values for {tokens} x {width}", values.len());
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({tokens}, {width}), }}");
    // Magic, version and length take ten bytes; the data begin at a multiple of 64, the header ends in a line end.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', padded - 1 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_every_channel() {
        let (mean, scale) = moments(&[vec![1.0, 5.0, 3.0, 5.0], vec![2.0, 5.0, 2.0, 5.0]], 2);
        assert_eq!(mean, [2.0, 5.0]);
        // Deviations 0.5f64.sqrt() and 0, and a thousandth of their mean.
        let floor = 0.5f32.sqrt() / 2.0 * FLOOR;
        assert!((scale[0] - 0.5f32.sqrt() - floor).abs() < 1e-6 && (scale[1] - floor).abs() < 1e-9, "{scale:?}");
    }

    #[test]
    fn what_is_written_is_read_as_features() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (tokens, width) in [(1, 1), (3, 7), (16, 768)] {
            let path = folder.path().join("x.npy");
            let values: Vec<f32> = (0..tokens * width).map(|i| i as f32 - 0.5).collect();
            write_npy(&path, tokens, width, &values).expect("written");
            let read = limber_data::features::read(path.to_str().expect("UTF-8"), tokens, width).expect("read");
            assert_eq!(read, values);
        }
    }
}
