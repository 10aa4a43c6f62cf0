//! The features of a whole data set, computed once: block by block, each whole or not at all, so that a run that was
//! killed goes on where it was, and several ranks share the blocks.
//!
//! Images that go through the encoder together are always the same ones, whoever encodes them and however often a run
//! was cut, so that the result is the same bytes.

use crate::vision::VisionEncoder;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use limber_core::weights::FrozenData;
use limber_data::features::manifest::{Done, Layout, Manifest, Precision, Skipped, npy_file};
use limber_data::features::stored::{SKIPPED, bytes_of, skipped};
use limber_data::{Ahead, Dataset, Item, caught};
use limber_weights::{self as weights, fill_through, save_through};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Items before a share of corrupt ones counts, as in training.
const FIRST_ITEMS: usize = 100;

/// How a data set is encoded.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// Where the features go.
    pub folder: PathBuf,
    /// How they lie there.
    pub layout: Layout,
    /// The type of the stored numbers.
    pub dtype: Precision,
    /// Items of a block.
    pub block: usize,
    /// Images that go through the encoder together.
    pub batch: usize,
    /// Threads that read and decode images.
    pub workers: usize,
    /// Largest share of items that may be corrupt.
    pub max_skipped: f64,
    /// Which of `world` processes this one is; it takes the blocks whose number is `rank` modulo `world`.
    pub rank: usize,
    /// Processes that share the work.
    pub world: usize,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Items of this rank's blocks.
    pub items: usize,
    /// Blocks that were written now, and those that were there.
    pub written: usize,
    /// Blocks that an earlier run had written.
    pub there: usize,
    /// Items without features.
    pub skipped: usize,
    /// The list of them, where there are any.
    pub skipped_path: Option<PathBuf>,
}

/// An item on its way through the encoder.
struct Read {
    /// Its key, or its name where it has none.
    key: String,
    input: Result<Tensor, String>,
}

/// Encodes this rank's blocks of `set`; `watch` hears how many of how many items are done, at first with those of an
/// earlier run.
///
/// # Errors
/// A folder with features of another encoder or data set; too many corrupt items; a value that is not finite or does
/// not fit the type; whatever the encoder or the disk report. What is done stays.
pub fn encode(
    vision: &VisionEncoder,
    set: &dyn Dataset,
    how: &Encoding,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Summary> {
    let sizes = (set.len(), how.block);
    let manifest = Manifest::new(
        (how.layout, how.dtype),
        vision.preprocessor().feature_spec(),
        vision.features_fingerprint(),
        sizes,
    );
    manifest.claim(&how.folder)?;
    let mine: Vec<usize> = (how.rank..manifest.blocks()).step_by(how.world).collect();
    let (there, open): (Vec<usize>, Vec<usize>) =
        mine.iter().partition(|at| manifest.file(&how.folder, **at).is_file());
    let count = |blocks: &[usize]| blocks.iter().map(|at| manifest.range(*at).len()).sum::<usize>();
    let mut run = Run { vision, how, manifest: &manifest, skipped: Skipped::new(), bad: 0, items: count(&there) };
    for at in &there {
        let before = skipped(&manifest, &how.folder, *at)?;
        run.bad += before.len();
        run.skipped.extend(before);
    }
    let total = count(&mine);
    watch(run.items, total);
    // Every block but the set's last is full, so a position says which item it holds.
    let read = |position: u64| {
        let (at, within) = (open[position as usize / how.block], position as usize % how.block);
        let index = manifest.range(at).start + within;
        caught(|| set.name(index), || Ok(read(vision, set, index)))
    };
    let ahead = Ahead::new((0, count(&open) as u64), how.batch.max(how.workers).saturating_mul(2), read);
    let result = ahead.with_workers(how.workers, || {
        open.iter().try_for_each(|at| run.block(*at, &ahead, &mut |done| watch(done, total)))
    });
    let skipped_path = run.list()?;
    result?;
    Ok(Summary { items: total, written: open.len(), there: there.len(), skipped: run.skipped.len(), skipped_path })
}

/// Reads the image of item `index`.
fn read(vision: &VisionEncoder, set: &dyn Dataset, index: usize) -> Read {
    match set.item(index) {
        Err(error) => Read { key: set.name(index), input: Err(format!("{error:#}")) },
        Ok(Item { key, image, .. }) => {
            Read { key, input: vision.preprocessor().picture(&image, None).map_err(|error| format!("{error:#}")) }
        }
    }
}

/// A run under way.
struct Run<'a> {
    vision: &'a VisionEncoder,
    how: &'a Encoding,
    manifest: &'a Manifest,
    /// Items without features, of all blocks so far.
    skipped: Skipped,
    /// How many of them, one image as often as it is listed.
    bad: usize,
    /// Items done.
    items: usize,
}

impl Run<'_> {
    /// Encodes and writes one block.
    fn block(&mut self, at: usize, ahead: &Ahead<Read>, done: &mut dyn FnMut(usize)) -> Result<()> {
        let mut rows: BTreeMap<String, Option<FrozenData>> = BTreeMap::new();
        let (mut keys, mut inputs, mut skipped) = (Vec::new(), Vec::new(), Skipped::new());
        let range = self.manifest.range(at);
        for index in range.clone() {
            let Read { key, input } = ahead.next()?;
            match input {
                Err(reason) => {
                    self.bad += 1;
                    skipped.insert(key, reason);
                    self.check_share(index - range.start + 1, &skipped)?;
                }
                // An image with several captions may be listed several times.
                Ok(input) if !rows.contains_key(&key) => {
                    rows.insert(key.clone(), None);
                    keys.push(key);
                    inputs.push(input);
                }
                Ok(_) => {}
            }
            if !keys.is_empty() && (keys.len() == self.how.batch || index + 1 == range.end) {
                self.batch(&keys, &inputs, &mut rows)?;
                (keys, inputs) = (Vec::new(), Vec::new());
            }
            done(self.items + index - range.start + 1);
        }
        let path = self.manifest.file(&self.how.folder, at);
        match self.how.layout {
            Layout::Safetensors => {
                let tensors = rows.into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
                let mut metadata = BTreeMap::new();
                if !skipped.is_empty() {
                    metadata.insert(SKIPPED.to_string(), serde_json::to_string(&skipped)?);
                }
                save_through(&path, &self.part(&path), &tensors, &metadata)?;
            }
            Layout::Npy => {
                let folder = path.parent().unwrap_or(Path::new("."));
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
                let text = serde_json::to_string(&Done { skipped: skipped.clone() })? + "\n";
                fill_through(&path, &self.part(&path), true, |file| Ok(file.write_all(text.as_bytes())?))?;
            }
        }
        self.items += range.len();
        self.skipped.extend(skipped);
        Ok(())
    }

    /// Encodes images that go together, and keeps or writes their features.
    fn batch(&self, keys: &[String], inputs: &[Tensor], rows: &mut BTreeMap<String, Option<FrozenData>>) -> Result<()> {
        let Manifest { tokens, width, .. } = *self.manifest;
        let elements = tokens * width;
        let files: Vec<PathBuf> = keys.iter().map(|key| npy_file(&self.how.folder, key)).collect();
        let header = npy_header(self.how.dtype, tokens, width)?;
        let length = (header.len() + bytes_of(self.how.dtype, elements)) as u64;
        let is_there = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == length);
        if self.how.layout == Layout::Npy && files.iter().all(is_there) {
            return Ok(());
        }
        let features = self.vision.features(inputs)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        for ((key, values), path) in keys.iter().zip(features.chunks_exact(elements)).zip(files) {
            let data = convert(values, self.how.dtype, &[tokens, width]).with_context(|| format!("image {key:?}"))?;
            match self.how.layout {
                Layout::Safetensors => drop(rows.insert(key.clone(), Some(data))),
                Layout::Npy => {
                    let folder = path.parent().unwrap_or(Path::new("."));
                    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
                    // Millions of small files: the disk is asked to keep them when the block is done.
                    fill_through(&path, &self.part(&path), false, |file| {
                        file.write_all(&header)?;
                        Ok(file.write_all(data.bytes())?)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The temporary file of `path`: a run that was killed leaves it, the next one writes over it. Each process has its
    /// own, for an image that is listed in the blocks of two of them is written by both.
    fn part(&self, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(match (self.how.rank, self.how.world) {
            (_, 1) => format!(".{name}.part"),
            (rank, world) => format!(".{name}.{rank}-of-{world}.part"),
        })
    }

    /// Refuses to go on where too many items are corrupt.
    fn check_share(&mut self, within: usize, skipped: &Skipped) -> Result<()> {
        let read = (self.items + within).max(FIRST_ITEMS);
        if self.bad as f64 / read as f64 <= self.how.max_skipped {
            return Ok(());
        }
        self.skipped.extend(skipped.clone());
        let path = self.list()?.unwrap_or_default();
        bail!(
            "{} items of the first {read} could not be read, more than the share data.max_skipped {} allows; they are named in {}",
            self.bad,
            self.how.max_skipped,
            path.display()
        )
    }

    /// Writes the list of items without features; the file, where there are any.
    fn list(&self) -> Result<Option<PathBuf>> {
        let name = match (self.how.rank, self.how.world) {
            (_, 1) => "skipped.jsonl".to_string(),
            (rank, world) => format!("skipped-{rank}-of-{world}.jsonl"),
        };
        let path = self.how.folder.join(name);
        if self.skipped.is_empty() && !path.exists() {
            return Ok(None);
        }
        let line = |(item, reason): (&String, &String)| format!("{}\n", json!({"item": item, "reason": reason}));
        let text: String = self.skipped.iter().map(line).collect();
        weights::replace(&path, text.as_bytes())?;
        Ok((!self.skipped.is_empty()).then_some(path))
    }
}

/// Features as they are stored.
fn convert(values: &[f32], dtype: Precision, shape: &[usize]) -> Result<FrozenData> {
    if let Some(value) = values.iter().find(|v| !v.is_finite()) {
        bail!("the encoder gives {value}, features must be finite")
    }
    if dtype == Precision::F16
        && let Some(value) = values.iter().find(|v| f16::from_f32(**v).is_infinite())
    {
        bail!("the value {value} does not fit f16, whose largest is 65504; store the features in f32 or bf16")
    }
    Ok(match dtype {
        Precision::F32 => FrozenData::from_f32(values.to_vec(), shape),
        Precision::F16 => FrozenData::from_f16(values.iter().map(|v| f16::from_f32(*v)).collect(), shape),
        Precision::Bf16 => FrozenData::from_bf16(values.iter().map(|v| bf16::from_f32(*v)).collect(), shape),
    })
}

/// NumPy's header, version 1: a dictionary, padded with spaces so that the elements begin at a multiple of 64.
fn npy_header(dtype: Precision, n: usize, e: usize) -> Result<Vec<u8>> {
    let descr = match dtype {
        Precision::F32 => "<f4",
        Precision::F16 => "<f2",
        Precision::Bf16 => bail!("NumPy has no bf16, so .npy files hold f16 or f32"),
    };
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({n}, {e}), }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((length as u16).to_le_bytes());
    header.extend(format!("{text:<width$}\n", width = length - 1).bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_numpys() {
        // np.lib.format.header_data_from_array_1_0 and write_array of NumPy 2.4, for shape (144, 3072).
        let header = npy_header(Precision::F16, 144, 3072).unwrap();
        assert_eq!(header.len(), 128);
        let start = b"\x93NUMPY\x01\x00v\x00{'descr': '<f2', 'fortran_order': False, 'shape': (144, 3072), }  ";
        assert!(header.starts_with(start));
        assert!(header.ends_with(b" \n"));
        assert!(npy_header(Precision::Bf16, 1, 1).unwrap_err().to_string().contains("f16 or f32"));
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let message = |v: f32, dtype| convert(&[0.0, v], dtype, &[2, 1]).err().map(|e| e.to_string());
        assert!(message(65_520.0, Precision::F16).unwrap().contains("65520 does not fit f16"));
        assert_eq!(message(65_504.0, Precision::F16), None);
        assert_eq!(message(65_520.0, Precision::Bf16), None);
        for dtype in [Precision::F32, Precision::F16, Precision::Bf16] {
            assert!(message(f32::NAN, dtype).unwrap().contains("the encoder gives NaN"));
        }
    }
}
