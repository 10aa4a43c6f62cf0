//! CLIPScore and RefCLIPScore (Hessel et al. 2021): how near a caption is to its image, and to its references, in CLIP's
//! space.
//!
//! CLIPScore is 2.5 max(cos(image, caption), 0); RefCLIPScore is the harmonic mean of it and of the best
//! max(cos(caption, reference), 0). Texts stand behind "A photo depicts", as in the authors' code.
//! The authors' and open_clip's tokenizers first repair broken Unicode and resolve HTML's entities (`ftfy`); this one is
//! the checkpoint's `tokenizer.json`, which does not.

use super::files::{Captions, References};
use super::metrics::Measure;
use super::score::Scored;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use limber_core::registry::EncoderComponent;
use limber_core::{Component, Encoder, InputSpec, Weights};
use limber_encoder_clip_vit::{ClipText, ClipVit, Config};
use limber_images::{self as images, DecodeOptions, PassOrder};
use limber_text::Tokenizer;
use limber_weights::{self as weights, WeightSpec};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What stands before every text.
pub const PREFIX: &str = "A photo depicts ";

/// The factor of CLIPScore.
const WEIGHT: f64 = 2.5;

/// Both towers of a CLIP, with its tokenizer.
pub struct Clip {
    image: ClipVit,
    text: ClipText,
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    batch: usize,
}

impl Clip {
    /// The CLIP in `weights` (a folder, a file or `hf:owner/name`), whose relative paths start at `base`. `model` names
    /// a preset of `clip-vit` where the weights do not tell all.
    ///
    /// # Errors
    /// Weights without both towers or without a `tokenizer.json` beside them.
    pub fn load(weights: &str, model: Option<&str>, base: &Path) -> Result<Self> {
        let spec: WeightSpec = weights.parse()?;
        let source = weights::open(&spec, ClipVit::FILES, base)?;
        let label = source.label();
        ensure!(
            source.document("tokenizer.json")?.is_some(),
            "{label}: no tokenizer.json, which says how texts become CLIP's ids"
        );
        let tokenizer = Tokenizer::from_source(source.as_ref())?;
        let mark = |text: &str| match tokenizer.encode(text)?.as_slice() {
            [id] => Ok(*id),
            _ => bail!("{label}: its tokenizer has no token {text:?}, so it is not CLIP's"),
        };
        let (begin, end) = (mark("<|startoftext|>")?, mark("<|endoftext|>")?);
        let settings = Config { model: model.map(String::from), pool: true, ..Config::default() };
        let settings = ClipVit::resolve(settings, source.as_ref())?;
        let weights = Weights::new(source, Device::Cpu, None);
        let image = ClipVit::new(&settings, &weights)?;
        let text = ClipText::new(&weights, settings.activation)?;
        Ok(Self { image, text, tokenizer, begin, end, batch: 32 })
    }

    /// The ids of a text with its marks, cut to the tower's length as open_clip cuts them.
    ///
    /// # Errors
    /// A text that the vocabulary cannot express.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = vec![self.begin];
        ids.extend(self.tokenizer.encode(text)?);
        ids.truncate(self.text.context() - 1);
        ids.push(self.end);
        Ok(ids)
    }

    /// Vectors of length 1 of texts as they stand.
    ///
    /// # Errors
    /// As [`Self::ids`].
    pub fn texts(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::with_capacity(texts.len());
        for group in texts.chunks(self.batch) {
            let ids: Vec<Vec<u32>> = group.iter().map(|text| self.ids(text)).collect::<Result<_>>()?;
            all.extend(unit(&self.text.encode(&ids)?)?);
        }
        Ok(all)
    }

    /// Vectors of length 1 of pixels `[3, S, S]` each.
    ///
    /// # Errors
    /// Another shape.
    pub fn pixels(&self, pixels: &[Tensor]) -> Result<Vec<Vec<f32>>> {
        unit(&self.image.encode(&Tensor::stack(pixels, 0)?)?.squeeze(1)?)
    }

    /// Vectors of length 1 of image files.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn images(&self, paths: &[PathBuf]) -> Result<Vec<Vec<f32>>> {
        let InputSpec::Image(spec) = self.image.input_spec() else { bail!("CLIP takes images") };
        let side = spec.side;
        let mut all = Vec::with_capacity(paths.len());
        for group in paths.chunks(self.batch) {
            let read = |path: &PathBuf| -> Result<Tensor> {
                let name = path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))?;
                let square = images::fit(&images::load(name, &DecodeOptions::default())?, &spec, PassOrder::default())?;
                Ok(Tensor::from_vec(images::normalise(&square, &spec), (3, side, side), &Device::Cpu)?)
            };
            all.extend(self.pixels(&group.iter().map(read).collect::<Result<Vec<_>>>()?)?);
        }
        Ok(all)
    }

    /// Adds `CLIPScore` and, from the references, `RefCLIPScore` to scores of captions; `image` finds an item's image.
    ///
    /// # Errors
    /// Scores of answers; as [`Self::images`] and [`Self::texts`].
    pub fn add_scores(
        &self,
        scored: &mut Scored,
        references: &References,
        image: &dyn Fn(&str, &Captions) -> PathBuf,
    ) -> Result<()> {
        let References::Captions(all) = references else { bail!("CLIPScore is of captions, these are answers") };
        let by_id: HashMap<&str, &Captions> = all.iter().map(|(id, item)| (id.as_str(), item)).collect();
        let items: Vec<&Captions> = scored.ids.iter().map(|id| by_id[id.as_str()]).collect();
        let images: Vec<PathBuf> = scored.ids.iter().zip(&items).map(|(id, item)| image(id, item)).collect();
        let prefixed = |text: &String| format!("{PREFIX}{text}");
        let texts = self.texts(&scored.texts.iter().map(prefixed).collect::<Vec<_>>())?;
        let vectors = self.images(&images)?;
        let flat: Vec<String> = items.iter().flat_map(|item| &item.captions).map(prefixed).collect();
        let mut said = self.texts(&flat)?.into_iter();
        let (mut plain, mut with_references) = (Vec::new(), Vec::new());
        for ((text, image), item) in texts.iter().zip(&vectors).zip(&items) {
            let own: Vec<Vec<f32>> = said.by_ref().take(item.captions.len()).collect();
            let score = clip_score(image, text);
            plain.push(score);
            with_references.push(ref_clip_score(score, text, &own));
        }
        scored.push("CLIPScore", Measure::Mean(plain));
        scored.push("RefCLIPScore", Measure::Mean(with_references));
        Ok(())
    }
}

/// CLIPScore of two vectors of length 1.
pub fn clip_score(image: &[f32], text: &[f32]) -> f64 {
    WEIGHT * cosine(image, text).max(0.0)
}

/// RefCLIPScore from a caption's CLIPScore, its vector and those of its references, all of length 1.
pub fn ref_clip_score(score: f64, text: &[f32], references: &[Vec<f32>]) -> f64 {
    let best = references.iter().map(|reference| cosine(text, reference)).fold(0.0, f64::max);
    if score + best == 0.0 { 0.0 } else { 2.0 * score * best / (score + best) }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The rows of `[B, C]`, scaled to length 1.
fn unit(rows: &Tensor) -> Result<Vec<Vec<f32>>> {
    let mut rows = rows.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
    for row in &mut rows {
        let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    Ok(rows)
}
