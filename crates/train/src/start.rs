//! Before the first step: what is measured on a few items, and the start that the settings ask for.

use super::fit::{self, Method};
use super::learner::Learner;
use super::ranks::Ranks;
use super::standard::{Measured, Standard, first_layer};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Tensor, Var};
use limber_config::{Config, Start, Train};
use limber_core::Mode;
use limber_data::{Dataset, Loader, Order, Sample};
use limber_pipeline::Reader;
use limber_pipeline::model::Model;
use std::collections::BTreeMap;
use std::fmt;

/// Items whose features are measured to standardise them.
const MEASURED: usize = 256;
/// Items whose prefixes are held against their captions' words.
const COMPARED: usize = 16;
/// Most items that a start is fitted to.
const FITTED: usize = 10_000;

/// Mean norms of a prefix token and of a caption's word embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norms {
    /// Of a prefix token.
    pub prefix: f64,
    /// Of a word embedding.
    pub word: f64,
}

/// What a start is made from.
pub struct Ground<'a> {
    /// The components; the stitch's variables are set.
    pub model: &'a Model,
    /// The run's config.
    pub config: &'a Config,
    /// Its section `train`.
    pub settings: &'a Train,
    /// The data.
    pub set: &'a dyn Dataset,
    /// What reads them.
    pub reading: &'a Reader<'a>,
    /// The processes, of which rank 0 measures.
    pub ranks: &'a dyn Ranks,
}

impl Ground<'_> {
    /// The first `items` samples of the run's order, a micro-batch at a time.
    fn samples(&self, items: usize, each: &mut dyn FnMut(Vec<Sample>) -> Result<()>) -> Result<()> {
        let data = self.config.data.as_ref().context("the config has no section \"data\"")?;
        let items = items.min(self.set.len());
        let order = Order::new(self.set.len(), self.settings.seed, data.shuffle);
        let batch = self.settings.batch.clamp(1, COMPARED);
        let loader = Loader::new(self.set, order, self.reading, (0, items as u64), (batch, data.workers));
        loader.run(|| {
            let mut done = 0;
            while done < items {
                let now = batch.min(items - done);
                each((0..now).map(|_| loader.next()).collect::<Result<_>>().context(OfData)?)?;
                done += now;
            }
            Ok(())
        })
    }

    /// Makes the start that the settings ask for, the same in all processes: standardised features, a fit, a scale.
    ///
    /// # Errors
    /// Data that cannot be read; a stitch of a kind that a setting does not know.
    pub fn prepare(&self, watch: &mut dyn FnMut(usize, usize)) -> Result<Option<Standard>> {
        let settings = self.settings;
        let variables = self.model.stitch().variables();
        let speaks = self.ranks.rank() == 0;
        let is_drawn = self.config.stitch.weights.as_ref().is_some_and(|spec| spec.is_random());
        if settings.standardise {
            first_layer(variables.keys())?;
        }
        if settings.start == Start::Fit && speaks {
            let how = (Method::Ridge { lambda: 1.0 }, Some(FITTED));
            in_setting("train.start: fit", fit::fit_into(self.model, self.config, self.set, how, watch))?;
        }
        let standard = match settings.standardise {
            true => Some(in_setting("train.standardise", self.measure())?),
            false => None,
        };
        if let Some(standard) = standard.as_ref().filter(|_| !is_drawn || settings.start == Start::Fit) {
            standard.unfold(&variables)?;
        }
        if settings.match_norm && is_drawn && speaks {
            let learner = Learner::new(self.model, standard.clone());
            let norms = in_setting("train.match_norm", self.norms(&learner))?;
            scale(&variables, norms.word / norms.prefix)?;
        }
        self.share(&variables)?;
        Ok(standard)
    }

    /// Gives rank 0's variables to all.
    fn share(&self, variables: &BTreeMap<String, Var>) -> Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        for var in variables.values() {
            let mut values = var.flatten_all()?.to_vec1::<f32>()?;
            self.of_rank_0(&mut values)?;
            var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        }
        Ok(())
    }

    fn of_rank_0(&self, values: &mut [f32]) -> Result<()> {
        if self.ranks.rank() != 0 {
            values.fill(0.0);
        }
        self.ranks.sum(values)
    }

    fn measure(&self) -> Result<Standard> {
        let e = self.model.feature_spec().width;
        let mut measured = Measured::new(e);
        if self.ranks.rank() == 0 {
            self.samples(MEASURED, &mut |samples| measured.add(&self.model.features(&inputs(&samples))?))?;
        }
        let (mut mean, mut deviation) = measured.finish();
        self.of_rank_0(&mut mean)?;
        self.of_rank_0(&mut deviation)?;
        Standard::new(mean, deviation, self.model.device())
    }

    /// The norms of prefixes and of captions' words over the first items.
    ///
    /// # Errors
    /// Data that cannot be read; norms that are not finite, or 0.
    pub fn norms(&self, learner: &Learner) -> Result<Norms> {
        let (mut prefix, mut word) = ((0.0, 0usize), (0.0, 0usize));
        self.samples(COMPARED, &mut |samples| {
            add_norms(&learner.prefix(&inputs(&samples), Mode::Inference)?.detach(), &mut prefix)?;
            samples.iter().try_for_each(|sample| {
                add_norms(&self.model.language().embed(&sample.tokens.learned_ids())?, &mut word)
            })
        })?;
        let mean = |(sum, count): (f64, usize)| sum / count.max(1) as f64;
        let norms = Norms { prefix: mean(prefix), word: mean(word) };
        let is_norm = |norm: f64| norm.is_finite() && norm > 0.0;
        if !is_norm(norms.prefix) || !is_norm(norms.word) {
            bail!(
                "the mean norm of prefixes is {}, that of words {}; expected numbers above 0",
                norms.prefix,
                norms.word
            )
        }
        Ok(norms)
    }
}

/// The section whose items could not be read, whichever setting asked for them.
#[derive(Debug, Clone, Copy)]
pub struct OfData;

impl fmt::Display for OfData {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("section \"data\"")
    }
}

/// Names the setting of an error that is its own.
fn in_setting<T>(setting: &'static str, result: Result<T>) -> Result<T> {
    result.map_err(|error| if error.is::<OfData>() { error } else { error.context(setting) })
}

fn inputs(samples: &[Sample]) -> Vec<Tensor> {
    samples.iter().map(|sample| sample.input.clone()).collect()
}

/// Adds the norms of the vectors `[B, T, D]`.
fn add_norms(vectors: &Tensor, (sum, count): &mut (f64, usize)) -> Result<()> {
    let norms = vectors.to_dtype(DType::F32)?.sqr()?.sum(2)?.sqrt()?.flatten_all()?.to_vec1::<f32>()?;
    *sum += norms.iter().map(|norm| f64::from(*norm)).sum::<f64>();
    *count += norms.len();
    Ok(())
}

/// Multiplies what a stitch gives: its layer norm, or else its last linear layer.
fn scale(variables: &BTreeMap<String, Var>, factor: f64) -> Result<()> {
    let index = |name: &String| name.strip_suffix(".weight")?.parse::<usize>().ok();
    let last = variables.keys().filter_map(index).max().map(|n| format!("{n}."));
    let prefix = match last {
        _ if variables.contains_key("ln.weight") => "ln.".to_string(),
        Some(last) => last,
        None => String::new(),
    };
    for name in ["weight", "bias"].map(|tensor| format!("{prefix}{tensor}")) {
        let Some(var) = variables.get(&name) else {
            let names: Vec<&str> = variables.keys().map(String::as_str).collect();
            bail!(
                "train.match_norm scales the stitch's last layer, but the stitch has {}; expected the kind \"linear\" or \"mlp\"",
                names.join(", ")
            )
        };
        var.set(&(var.as_tensor() * factor)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_last_layer_is_scaled() {
        let check = |names: &[&str], scaled: &[&str]| {
            let var = |name: &&str| (name.to_string(), Var::from_slice(&[2f32], 1, &Device::Cpu).unwrap());
            let variables: BTreeMap<String, Var> = names.iter().map(var).collect();
            scale(&variables, 0.5).unwrap();
            for (name, var) in &variables {
                let expected = if scaled.contains(&name.as_str()) { 1.0 } else { 2.0 };
                assert_eq!(var.to_vec1::<f32>().unwrap(), [expected], "{name}");
            }
        };
        check(&["weight", "bias"], &["weight", "bias"]);
        check(&["weight", "bias", "ln.weight", "ln.bias"], &["ln.weight", "ln.bias"]);
        check(&["0.weight", "0.bias", "2.weight", "2.bias", "10.weight", "10.bias"], &["10.weight", "10.bias"]);
        let other = BTreeMap::from([("queries".to_string(), Var::from_slice(&[2f32], 1, &Device::Cpu).unwrap())]);
        assert!(scale(&other, 0.5).unwrap_err().to_string().contains("the stitch has queries"));
    }
}
