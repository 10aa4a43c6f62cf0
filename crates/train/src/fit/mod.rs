//! A linear stitch in closed form: least squares from an image's pooled features to the mean embedding of its caption.
//!
//! No gradient and no pass through the decoder is needed, so it is a baseline and a start for training.
//! Ridge: min |X W + b - Y|^2 + lambda |W|^2, b free, as `sklearn.linear_model.Ridge` means it. Procrustes: W = s R, R
//! the orthogonal polar factor of the centred X'Y and s the best scale for it (Schönemann 1966).

mod solve;
mod sums;

use crate::start::OfData;
use crate::tensors;
use anyhow::{Context, Result, bail};
use candle_core::{DType, Tensor, Var};
use limber_config::Config;
use limber_core::Registry;
use limber_core::hash;
use limber_data::{self as data, Dataset, Loader, Order};
use limber_pipeline::Reader;
use limber_pipeline::model::Model;
use limber_weights as weights;
use solve::{Matrix, polar, solve};
use std::path::Path;
use sums::{Moments, Sums};

/// One item in so many is held out of the map that R2 is told of.
const HELD_OUT: u64 = 10;

/// How the map is solved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// Ridge regression with this lambda, 0 or more.
    Ridge {
        /// Weight of |W|^2.
        lambda: f64,
    },
    /// Orthogonal Procrustes with a scale.
    Procrustes,
}

/// What a fit is told from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How the map is solved.
    pub method: Method,
    /// Most items that are used.
    pub limit: Option<usize>,
    /// Reads no image from an address.
    pub offline: bool,
}

/// What a fit gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// Items that were used.
    pub items: usize,
    /// Items that could not be read.
    pub skipped: usize,
    /// Share of the captions' variance that the map explains, on the same items.
    pub r2: f64,
    /// The same share on items that the map was not fitted to.
    pub held_out: Option<HeldOut>,
}

/// How well a map that is fitted to nine in ten items does on the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// Items that were held out.
    pub items: usize,
    /// Share of their captions' variance that the map explains; below 0 where their mean does better.
    pub r2: f64,
}

/// The config whose stitch names no file: only its shape counts here, and a file that is named may be the one that is to
/// be written.
pub fn without_start(config: &Config) -> Config {
    let mut config = config.clone();
    config.stitch.weights = Some(weights::WeightSpec::Random(0));
    config
}

/// Fits the stitch of `config` to its data and saves it at `out`; `watch` hears of every item.
///
/// # Errors
/// A stitch that is no plain linear map, features without a unique solution, what components, data and disk report.
pub fn fit(
    config: &Config,
    registry: &Registry,
    options: &Options,
    out: &Path,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Fitted> {
    let settings = config.data.as_ref().context("the config has no section \"data\"")?;
    let set = data::open(settings, &config.folder).context("section \"data\"")?;
    let config = without_start(config);
    let mut model = Model::load(&config, registry)?;
    model.offline(options.offline || limber_hub::is_offline());
    let fitted = fit_into(&model, &config, set.as_ref(), (options.method, options.limit), watch)?;
    let variables = model.stitch().variables();
    weights::save(out, &tensors(&variables)?, &model.prefix_encoder().stitch_metadata().to_map()?)?;
    Ok(fitted)
}

/// Sets the stitch of `model` to a fit to at most `limit` items of `set`, the data of `config`.
///
/// # Errors
/// As [`fit`].
pub fn fit_into(
    model: &Model,
    config: &Config,
    set: &dyn Dataset,
    (method, limit): (Method, Option<usize>),
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Fitted> {
    let settings = config.data.as_ref().context("the config has no section \"data\"")?;
    let variables = model.stitch().variables();
    let kind = &model.prefix_encoder().stitch_metadata().stitch;
    let (Some(weight), Some(bias), 2, "linear") =
        (variables.get("weight"), variables.get("bias"), variables.len(), kind.as_str())
    else {
        let names: Vec<&str> = variables.keys().map(String::as_str).collect();
        bail!(
            "a fit gives a plain linear map, but the stitch {kind:?} has {}; expected the kind \"linear\" without layer_norm",
            names.join(", ")
        )
    };
    let (rows, e) = weight.dims2()?;
    let d = model.decoder().spec().width;
    let items = limit.unwrap_or(usize::MAX).min(set.len());
    let reading = Reader::new(model, config, settings, set.len())?.fixed();
    // The set's own order: every item once, its first caption.
    let order = Order::new(set.len(), 0, false);
    let batch = config.train.as_ref().map_or(8, |t| t.batch);
    let loader = Loader::new(set, order, &reading, (0, items as u64), (batch, settings.workers));
    let (mut sums, mut held, mut skipped) = (Sums::new(e, d), Sums::new(e, d), 0);
    loader.run(|| {
        let mut done = 0;
        while done < items {
            let samples = (done..items.min(done + batch)).map(|_| loader.next()).collect::<Result<Vec<_>>>();
            let samples = samples.context(OfData)?;
            let first = done;
            done += samples.len();
            // What stands in for an item that cannot be read has its own position.
            let samples: Vec<_> = (first..).zip(samples).filter(|(_, sample)| sample.skipped.is_empty()).collect();
            skipped = done - sums.count() - held.count() - samples.len();
            if skipped as f64 > settings.max_skipped * items as f64 {
                bail!(
                    "{skipped} items of {items} could not be read, more than the share data.max_skipped {} allows",
                    settings.max_skipped
                )
            }
            if samples.is_empty() {
                continue;
            }
            let inputs: Vec<Tensor> = samples.iter().map(|(_, sample)| sample.input.clone()).collect();
            let pooled = model.features(&inputs)?.to_dtype(DType::F64)?.mean(1)?.to_vec2::<f64>()?; // [B, E]
            for (x, (at, sample)) in pooled.iter().zip(&samples) {
                let words = model.language().embed(&sample.tokens.learned_ids())?; // [1, T, D]
                let y = words.to_dtype(DType::F64)?.mean(1)?.squeeze(0)?.to_vec1::<f64>()?; // [D]
                let is_held = hash::number(&[b"held out", &(*at as u64).to_le_bytes()]).is_multiple_of(HELD_OUT);
                if is_held { held.add(x, &y)? } else { sums.add(x, &y)? }
            }
            watch(done, items);
        }
        Ok(())
    })?;
    if sums.count() + held.count() < 2 {
        bail!("{} items are too few to fit a map to", sums.count() + held.count())
    }
    let (own, held) = (sums.moments()?, held.moments()?);
    let held_out = held_out(&own, &held, method);
    let moments = own.with(held);
    let map = solved(&moments, method)?; // [E, D]
    let r2 = explained(&moments, &map)?;
    // y = x W' + b; every prefix token of a pooled encoder is the same.
    let transposed = map.transposed()?;
    let start: Vec<f64> = (0..d)
        .map(|r| {
            let row = &transposed.values[r * e..][..e];
            moments.mean_y[r] - row.iter().zip(&moments.mean_x).map(|(w, x)| w * x).sum::<f64>()
        })
        .collect();
    set_to(weight, transposed.values.iter().cycle().take(rows * e))?;
    set_to(bias, start.iter().cycle().take(rows))?;
    Ok(Fitted { items: moments.count, skipped, r2, held_out })
}

/// A map fitted to `own` alone, held against the items of `held`; None where they are too few for either.
fn held_out(own: &Moments, held: &Moments, method: Method) -> Option<HeldOut> {
    if own.count < 2 || held.count < 2 || held.yy <= 0.0 {
        return None;
    }
    let map = solved(own, method).ok()?;
    let rest = held.yy - 2.0 * map.dot(&held.xy) + map.dot(&held.xx.times(&map).ok()?);
    // The means of both sides are not those that the map was fitted to.
    let away_x: Vec<f64> = held.mean_x.iter().zip(&own.mean_x).map(|(held, own)| held - own).collect();
    let width = map.columns;
    let off = (0..width).map(|c| {
        let moved: f64 = away_x.iter().enumerate().map(|(r, x)| x * map.values[r * width + c]).sum();
        held.mean_y[c] - own.mean_y[c] - moved
    });
    let off: f64 = off.map(|v| v * v).sum();
    Some(HeldOut { items: held.count, r2: 1.0 - (rest + held.count as f64 * off) / held.yy })
}

/// The map [E, D] from centred x to centred y.
fn solved(moments: &Moments, method: Method) -> Result<Matrix> {
    match method {
        Method::Ridge { lambda } => {
            let mut normal = moments.xx.clone();
            let e = normal.rows;
            (0..e).for_each(|i| normal.values[i * e + i] += lambda);
            solve(normal, moments.xy.clone()).with_context(|| {
                format!(
                    "the features of {} items do not determine a map from {e} numbers with lambda {lambda}; a larger lambda does",
                    moments.count
                )
            })
        }
        Method::Procrustes => {
            let mut map = polar(&moments.xy)?;
            let length = map.dot(&moments.xx.times(&map)?);
            let scale = map.dot(&moments.xy) / length;
            map.values.iter_mut().for_each(|v| *v *= scale);
            Ok(map)
        }
    }
}

/// 1 - |Y - X W|^2 / |Y|^2 over centred sides.
fn explained(moments: &Moments, map: &Matrix) -> Result<f64> {
    let rest = moments.yy - 2.0 * map.dot(&moments.xy) + map.dot(&moments.xx.times(map)?);
    Ok(1.0 - rest / moments.yy)
}

fn set_to<'a>(variable: &Var, values: impl Iterator<Item = &'a f64>) -> Result<()> {
    let values: Vec<f32> = values.map(|v| *v as f32).collect();
    if let Some(value) = values.iter().find(|v| !v.is_finite()) {
        bail!("the map has the value {value}, which is not finite")
    }
    Ok(variable.set(&Tensor::from_vec(values, variable.shape(), variable.device())?)?)
}
