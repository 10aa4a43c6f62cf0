//! One run: the stitch of a condition trained from a seed, by the same trainer as `limber train`.

use super::encode::FeatureSet;
use super::plan::Plan;
use anyhow::{Context, Result, bail};
use limber_config::Config;
use limber_core::random::RandomSource;
use limber_core::weights::{FrozenData, Request, WeightSource};
use limber_core::{Init, Registry, WeightType};
use limber_pipeline::model::Model;
use limber_train::{self as train, train};
use limber_weights as weights;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What every prefix token means before training: the word of the language model's texts for a cell without an object.
const EMPTY: &str = " nothing";
/// Deviation of the prefix around that word, as a share of the word embeddings' own.
const SPREAD: f32 = 0.3;

/// A run of a condition.
pub struct Run<'a> {
    /// The condition's config, with the real encoder.
    pub config: &'a Config,
    /// Features of all scenes.
    pub set: &'a FeatureSet,
    /// Sizes.
    pub plan: &'a Plan,
    /// Seed of the start and of the order of the scenes.
    pub seed: u64,
    /// Where its files lie.
    pub folder: PathBuf,
}

impl Run<'_> {
    /// Trains the stitch if that is not done.
    ///
    /// # Errors
    /// What the trainer reports.
    pub fn train(&self, registry: &Registry, stop: &AtomicBool) -> Result<()> {
        if self.trained().exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot make folder {}", self.folder.display()))?;
        let start = self.folder.join("start.safetensors");
        if !start.exists() {
            self.start(&start, registry)?;
        }
        let config = self.config(&start)?;
        let resume = self.has_checkpoint();
        let options = train::Options { resume, offline: true, stop, ranks: &train::Alone };
        train(&config, registry, &options, &mut |_| ()).with_context(|| format!("in {}", self.folder.display()))?;
        self.fold()
    }

    /// The model with its trained stitch, which takes features from files.
    ///
    /// # Errors
    /// A run that is not trained; what the components report.
    pub fn model(&self, registry: &Registry) -> Result<Model> {
        Model::load(&self.config(&self.trained())?, registry)
    }

    /// Loss of every step.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn log(&self) -> Result<Vec<f64>> {
        let path = self.folder.join("log.jsonl");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let loss = |line: &str| -> Result<f64> {
            let value: Value = serde_json::from_str(line).with_context(|| format!("{}", path.display()))?;
            value["loss"].as_f64().with_context(|| format!("{}: a line without a loss: {line}", path.display()))
        };
        text.lines().map(loss).collect()
    }

    /// Whether an earlier attempt left a whole checkpoint.
    fn has_checkpoint(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.folder.join("checkpoints")) else { return false };
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
    }

    fn trained(&self) -> PathBuf {
        self.folder.join("stitch.safetensors")
    }

    /// The config of the run: features from files, `weights` as the stitch's.
    fn config(&self, weights: &Path) -> Result<Config> {
        let mut tree = self.config.to_value();
        tree["encoder"] = json!({"kind": "features", "tokens": self.set.tokens, "width": self.set.width});
        tree["stitch"]["weights"] = text(weights)?.into();
        if self.set.tokens > 1 {
            // A number of tokens belongs to encoders with one vector.
            tree["stitch"].as_object_mut().and_then(|stitch| stitch.remove("tokens"));
        }
        tree["train"]["output"] = text(&self.folder)?.into();
        tree["train"]["seed"] = self.seed.into();
        if let Some(steps) = self.plan.steps {
            tree["train"]["steps"] = steps.into();
            tree["train"]["warmup"] = (steps / 10).into();
        }
        tree["data"] = json!({"format": "jsonl", "path": text(&self.set.list())?, "workers": 1});
        Config::from_tree(tree, &self.config.folder).map_err(|problems| {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", all.join("; "))
        })
    }

    /// Writes the stitch that training starts from: every prefix token near the word for nothing, so that training
    /// begins inside the language that the frozen model knows.
    fn start(&self, path: &Path, registry: &Registry) -> Result<()> {
        let mut config = self.config(path)?;
        config.stitch.weights = Some(weights::WeightSpec::Random(self.seed));
        let model = Model::load(&config, registry)?;
        let ids: Vec<u32> = (0..model.language().limit() as u32).collect();
        let table = model.language().embed(&ids)?.flatten_all()?.to_vec1::<f32>()?;
        let mean = table.iter().map(|x| f64::from(*x)).sum::<f64>() / table.len() as f64;
        let variance = table.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / table.len() as f64;
        let Some(word) = model.tokenizer().encode(EMPTY)?.first().copied() else {
            bail!("the decoder's tokenizer has no token for {EMPTY:?}")
        };
        let word = model.language().embed(&[word])?.flatten_all()?.to_vec1::<f32>()?; // [D]
        let variables = model.stitch().variables();
        let rows = variables.get("bias").context("the stitch has no bias")?.elem_count();
        let shape = [rows, self.set.width];
        let init = Init::normal(SPREAD * variance.sqrt() as f32 / (self.set.width as f32).sqrt());
        let request = Request { name: "weight", shape: &shape, init, dtype: WeightType::F32 };
        let weight = RandomSource::new(self.seed).read(&request)?;
        let bias = FrozenData::from_f32(word.iter().copied().cycle().take(rows).collect(), &[rows]);
        let tensors = BTreeMap::from([("weight".to_string(), weight), ("bias".to_string(), bias)]);
        weights::save(path, &tensors, &BTreeMap::new())
    }

    /// Writes `proj.safetensors`, the stitch as it is behind the encoder itself: W (x - m) / s + b = (W / s) x + b'.
    fn fold(&self) -> Result<()> {
        let FeatureSet { mean, scale, width, .. } = self.set;
        if self.set.is_blind() {
            return Ok(());
        }
        let spec = weights::WeightSpec::Local(text(&self.trained())?.to_string());
        let source = weights::open(&spec, &[], Path::new(""))?;
        let shapes = source.tensors().context("a stitch without a list of tensors")?;
        let read = |name: &str| -> Result<Vec<f32>> {
            let shape = shapes.get(name).with_context(|| format!("the stitch has no {name:?}"))?;
            let data = source.read(&Request { name, shape, init: Init::Const(0.0), dtype: WeightType::F32 })?;
            Ok(data.to_f32(0..data.elements()))
        };
        let (mut weight, mut bias) = (read("weight")?, read("bias")?);
        for (row, bias) in weight.chunks_exact_mut(*width).zip(&mut bias) {
            let mut shift = 0.0f64;
            for ((value, mean), scale) in row.iter_mut().zip(mean).zip(scale) {
                *value /= scale;
                shift += f64::from(*value) * f64::from(*mean);
            }
            *bias -= shift as f32;
        }
        let rows = bias.len();
        let tensors = BTreeMap::from([
            ("weight".to_string(), FrozenData::from_f32(weight, &[rows, *width])),
            ("bias".to_string(), FrozenData::from_f32(bias, &[rows])),
        ]);
        weights::save(&self.folder.join("proj.safetensors"), &tensors, &BTreeMap::new())
    }
}

/// A path as text.
fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))
}
