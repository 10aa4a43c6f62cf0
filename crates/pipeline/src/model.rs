//! A config's parts put together: prepared first, checked against each other, then loaded as far as is needed.

use crate::generation::{Prompt, Segment};
use crate::needs::candidates;
use crate::stitch_file::{StitchMetadata, features_text, fingerprint, prefix_text, preparation_fingerprint};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use image::RgbImage;
use limber_config::{Compat, Config, DeviceSpec, Section};
use limber_core::registry::{Entry, PartContext, PreparedDecoder, PreparedEncoder, PreparedStitch, Role};
use limber_core::{
    Decoder, DecoderSpec, Encoder, FeatureSpec, InputSpec, Mode, Registry, Stitch, WeightSource, Weights,
};
use limber_data::Picture;
use limber_data::features::{self, Expected};
use limber_images::{self as images, DecodeOptions, Limits, PassOrder};
use limber_text::Tokenizer;
use limber_weights::{self as weights, WeightSpec};
use std::path::Path;
use std::sync::Arc;

/// How far an image goes, and so which parts are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Pixels `[3, S, S]`: no weights at all.
    Pixels,
    /// Features `[N, E]`: the encoder.
    Features,
    /// Prefix `[K, D]`: encoder and stitch, and the decoder's sizes.
    Prefix,
    /// Text: everything.
    Text,
}

/// The parts of one config.
pub struct Model {
    input_spec: InputSpec,
    feature_spec: FeatureSpec,
    encoder: Option<Box<dyn Encoder>>,
    stitch: Option<Box<dyn Stitch>>,
    metadata: Option<StitchMetadata>,
    language: Option<Language>,
    /// Kind and fingerprint of the encoder.
    encoder_is: Option<(String, String)>,
    device: Device,
    decode: DecodeOptions,
    order: PassOrder,
    /// The seed under which images are varied, where the config asks for the original's behaviour.
    augment: Option<u64>,
}

/// A decoder with its tokenizer.
struct Language {
    decoder: Box<dyn Decoder>,
    spec: DecoderSpec,
    tokenizer: Tokenizer,
}

/// A prepared part and the weights it will read.
struct Ready<P> {
    prepared: P,
    weights: Weights,
}

impl Model {
    /// Loads the parts that `depth` needs. What does not fit is refused before any large weight is read.
    ///
    /// # Errors
    /// An unknown kind or setting, parts that do not fit each other, weights that are missing or unreadable.
    pub fn load(config: &Config, registry: &Registry, depth: Depth) -> Result<Self> {
        let device = device(config.device)?;
        let encoder = prepare_encoder(config, registry, &device).context("section \"encoder\"")?;
        let (input_spec, feature_spec) = (encoder.prepared.spec.input, encoder.prepared.spec.features);
        let mut model = Self {
            input_spec,
            feature_spec,
            encoder: None,
            stitch: None,
            metadata: None,
            language: None,
            encoder_is: None,
            device: device.clone(),
            decode: DecodeOptions {
                limits: Limits { max_pixels: config.images.max_pixels, ..Limits::default() },
                exif_orientation: config.images.exif_orientation,
                offline: weights::hub::is_offline(),
            },
            // The original ran on a Pillow whose passes came in the other order.
            order: match config.compat {
                Some(Compat::Original) => PassOrder::HorizontalFirst,
                None => PassOrder::default(),
            },
            augment: (config.compat == Some(Compat::Original)).then_some(config.generate.seed),
        };
        if depth == Depth::Pixels {
            return Ok(model);
        }
        let mut decoder = None;
        let mut stitch = None;
        if depth >= Depth::Prefix {
            let ready = prepare_decoder(config, registry, &device).context("section \"decoder\"")?;
            stitch = Some(
                prepare_stitch(config, registry, &encoder.prepared, &ready.prepared, &device)
                    .context("section \"stitch\"")?,
            );
            decoder = Some(ready);
        }
        let (kind, settings, specs) =
            (encoder.prepared.kind.clone(), encoder.prepared.settings.clone(), encoder.prepared.spec);
        model.encoder = Some(encoder.prepared.build(&encoder.weights).context("section \"encoder\"")?);
        let now = fingerprint(&kind, &settings, &specs, &encoder.weights)?;
        model.encoder_is = Some((kind.clone(), now.clone()));
        if let Some((ready, metadata)) = stitch {
            if let Some(metadata) = metadata {
                metadata
                    .check_fingerprint(&ready.weights.source().label(), &kind, &now)
                    .context("section \"stitch\"")?;
            }
            model.metadata = Some(StitchMetadata {
                stitch: ready.prepared.kind.clone(),
                settings: ready.prepared.settings.to_string(),
                encoder: kind,
                features: features_text(specs.features),
                prefix: prefix_text(ready.prepared.spec),
                fingerprint: now,
            });
            model.stitch = Some(ready.prepared.build(&ready.weights).context("section \"stitch\"")?);
        }
        if let (Depth::Text, Some(ready)) = (depth, decoder) {
            let spec = ready.prepared.spec.clone();
            let tokenizer = tokenizer(config, &ready, &spec).context("section \"decoder\"")?;
            let decoder = ready.prepared.build(&ready.weights).context("section \"decoder\"")?;
            model.language = Some(Language { decoder, spec, tokenizer });
        }
        Ok(model)
    }

    /// Forbids the network to [`Self::read_image`].
    pub fn offline(&mut self, offline: bool) {
        self.decode.offline = offline;
    }

    /// What the encoder takes: pixels, or features from a file.
    pub fn input_spec(&self) -> InputSpec {
        self.input_spec
    }

    /// The features that pixels become.
    pub fn feature_spec(&self) -> FeatureSpec {
        self.feature_spec
    }

    /// Where tensors lie.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Reads an image from a file, or from an address where the feature `hub` is on.
    ///
    /// # Errors
    /// Names the image, what is wrong and what is allowed.
    pub fn read_image(&self, path: &str) -> Result<RgbImage> {
        Ok(images::load(path, &self.decode)?)
    }

    /// An image to pixels `[3, S, S]` f32.
    ///
    /// # Errors
    /// An image too thin to be resized, an encoder that takes features.
    pub fn pixels(&self, image: &RgbImage) -> Result<Tensor> {
        self.varied(image, None)
    }

    /// As [`Self::pixels`]; `variation` is the seed of a draw for this image alone.
    fn varied(&self, image: &RgbImage, variation: Option<u64>) -> Result<Tensor> {
        let InputSpec::Image(spec) = &self.input_spec else {
            bail!("the encoder takes features from a file, not an image")
        };
        let s = spec.side;
        let draw = match (variation, self.augment) {
            _ if spec.augment.is_none() => None,
            (Some(seed), _) => Some(images::Draw::seeded(s, seed)),
            (None, seed) => seed.map(|seed| images::Draw::new(image, s, seed)),
        };
        let square = match draw {
            Some(draw) => images::augment(image, spec, &draw, self.order)?,
            None => images::fit(image, spec, self.order)?,
        };
        Ok(Tensor::from_vec(images::normalise(&square, spec), (3, s, s), &self.device)?)
    }

    /// What the encoder takes of the file or address `path`: pixels `[3, S, S]` f32, or features `[N, E]` f32.
    ///
    /// # Errors
    /// As [`Self::read_image`] and [`Self::pixels`].
    pub fn input(&self, path: &str) -> Result<Tensor> {
        match self.input_spec {
            InputSpec::Image(_) => self.pixels(&self.read_image(path)?),
            InputSpec::Features => {
                let FeatureSpec { tokens, width, .. } = self.feature_spec;
                self.stored(features::read(path, tokens, width)?)
            }
        }
    }

    /// As [`Self::input`], of an image of a data set. With a `variation`, an encoder whose images are varied at random
    /// (NF-ResNet) sees it as drawn from that seed; without one, as at inference.
    ///
    /// # Errors
    /// As [`Self::input`], and a shard that cannot be read.
    pub fn picture(&self, picture: &Picture, variation: Option<u64>) -> Result<Tensor> {
        let place = || format!("{picture}");
        match (self.input_spec, picture.path()?) {
            (InputSpec::Image(_), Some(path)) => self.varied(&self.read_image(path)?, variation),
            (InputSpec::Features, Some(path)) => self.input(path),
            (InputSpec::Image(_), None) => {
                let bytes = picture.bytes(self.decode.limits.max_bytes)?.unwrap_or_default();
                self.varied(&images::decode(&bytes, &self.decode).with_context(place)?, variation)
            }
            (InputSpec::Features, None) => {
                let FeatureSpec { tokens, width, .. } = self.feature_spec;
                let bytes = picture.bytes(self.decode.limits.max_bytes)?.unwrap_or_default();
                self.stored(features::read_bytes(&place(), bytes, tokens, width)?)
            }
        }
    }

    /// Features `[N, E]` that were computed before.
    fn stored(&self, values: Vec<f32>) -> Result<Tensor> {
        let FeatureSpec { tokens, width, .. } = self.feature_spec;
        Ok(Tensor::from_vec(values, (tokens, width), &self.device)?)
    }

    /// Inputs, each as [`Self::input`] gives them, to features `[B, N, E]` f32. Features `[N, E]` that were computed
    /// before are put together as they are.
    ///
    /// # Errors
    /// What the encoder reports.
    pub fn features(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let encoder = self.encoder.as_ref().context("the encoder is not loaded at this depth")?;
        let inputs = Tensor::stack(inputs, 0)?;
        let FeatureSpec { tokens, width, .. } = self.feature_spec;
        match inputs.dims() {
            [_, n, e] if (*n, *e) == (tokens, width) => Ok(inputs),
            _ => Ok(encoder.encode(&inputs)?),
        }
    }

    /// The encoder's kind, and a hash of all that decides the features of an image: settings, weights, preparation.
    ///
    /// # Errors
    /// A model that was loaded for pixels alone.
    pub fn features_fingerprint(&self) -> Result<(String, String)> {
        let (kind, encoder) = self.encoder_is.as_ref().context("the encoder is not loaded at this depth")?;
        let Some(spec) = self.input_spec.image() else { return Ok((kind.clone(), encoder.clone())) };
        let seed = self.augment.filter(|_| !spec.augment.is_none());
        Ok((kind.clone(), preparation_fingerprint(encoder, self.decode.exif_orientation, self.order, seed)))
    }

    /// What features that were computed before must be, to stand in for this encoder's. An encoder of the kind
    /// `features` stands for whichever made them.
    ///
    /// # Errors
    /// As [`Self::features_fingerprint`].
    pub fn expected_features(&self) -> Result<Expected> {
        let is_known = self.input_spec.image().is_some();
        let encoder = is_known.then(|| self.features_fingerprint()).transpose()?;
        Ok(Expected { features: self.feature_spec, encoder, device: self.device.clone() })
    }

    /// Features `[B, N, E]` to a prefix `[B, K, D]` f32, without dropout.
    ///
    /// # Errors
    /// What the stitch reports.
    pub fn prefix(&self, features: &Tensor) -> Result<Tensor> {
        let stitch = self.stitch.as_ref().context("the stitch is not loaded at this depth")?;
        Ok(stitch.project(features, Mode::Inference)?.detach())
    }

    /// The stitch.
    ///
    /// # Errors
    /// A model that was not loaded to the depth of prefixes.
    pub fn stitch(&self) -> Result<&dyn Stitch> {
        Ok(self.stitch.as_ref().context("the stitch is not loaded at this depth")?.as_ref())
    }

    /// What a file of this model's stitch says of itself.
    ///
    /// # Errors
    /// As [`Self::stitch`].
    pub fn stitch_metadata(&self) -> Result<&StitchMetadata> {
        self.metadata.as_ref().context("the stitch is not loaded at this depth")
    }

    /// The decoder.
    ///
    /// # Errors
    /// A model that was not loaded to the depth of text.
    pub fn decoder(&self) -> Result<&dyn Decoder> {
        Ok(self.language()?.decoder.as_ref())
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// As [`Self::decoder`].
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        Ok(&self.language()?.tokenizer)
    }

    /// Ids from here on are never sampled: the tokenizer cannot say them.
    ///
    /// # Errors
    /// As [`Self::decoder`].
    pub fn limit(&self) -> Result<usize> {
        let language = self.language()?;
        Ok(language.tokenizer.limit().min(language.spec.vocab))
    }

    /// The ids that end a text.
    ///
    /// # Errors
    /// As [`Self::decoder`].
    pub fn eos(&self) -> Result<Vec<u32>> {
        Ok(self.language()?.spec.eos.clone())
    }

    /// Word embeddings `[1, T, D]` of ids.
    ///
    /// # Errors
    /// An id that is no row of the table.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(ids, &self.device)?.unsqueeze(0)?;
        Ok(self.decoder()?.embed(&ids)?)
    }

    /// A prompt as embeddings `[1, T, D]`; `prefixes` holds the prefix `[K, D]` of each image.
    ///
    /// # Errors
    /// A prompt of nothing, or that names an image that is not there.
    pub fn embed_prompt(&self, prompt: &Prompt, prefixes: &[Tensor]) -> Result<Tensor> {
        let mut pieces = Vec::with_capacity(prompt.segments.len());
        for segment in &prompt.segments {
            match segment {
                Segment::Image(index) => {
                    let prefix = prefixes.get(*index).with_context(|| format!("the prompt names image {index}"))?;
                    pieces.push(prefix.unsqueeze(0)?);
                }
                Segment::Text(text) => {
                    let ids = self.tokenizer()?.encode(text)?;
                    if !ids.is_empty() {
                        pieces.push(self.embed(&ids)?);
                    }
                }
            }
        }
        if pieces.is_empty() {
            bail!("the prompt holds no token and no image")
        }
        Ok(Tensor::cat(&pieces, 1)?)
    }

    fn language(&self) -> Result<&Language> {
        self.language.as_ref().context("the decoder is not loaded at this depth")
    }
}

/// The device that a config names.
///
/// # Errors
/// A device that this program was not built for, or that is not there.
pub fn device(spec: DeviceSpec) -> Result<Device> {
    let built = |feature: &str| format!("device {spec} needs a program built with the feature {feature:?}");
    match spec {
        DeviceSpec::Cpu => Ok(Device::Cpu),
        DeviceSpec::Cuda(number) if cfg!(feature = "cuda") => Ok(Device::new_cuda(number.unwrap_or(0))?),
        DeviceSpec::Metal if cfg!(feature = "metal") => Ok(Device::new_metal(0)?),
        DeviceSpec::Cuda(_) => bail!("{}", built("cuda")),
        DeviceSpec::Metal => bail!("{}", built("metal")),
    }
}

/// A section's entry and the source of its weights; the kind `auto` is told by what lies beside them.
pub fn open<'a>(
    role: Role,
    section: &Section,
    registry: &'a Registry,
    base: &Path,
) -> Result<(&'a Entry, Arc<dyn WeightSource>)> {
    let files = candidates(role, section, registry)?;
    if section.kind == "auto" {
        let source = source(role, section, &files, base)?;
        return Ok((registry.detect(role, source.as_ref())?, source));
    }
    let entry = registry.get(role, &section.kind)?;
    if !entry.needs_weights {
        let weights = section.weights.as_ref().map(ToString::to_string);
        for (key, value) in [("weights", weights), ("dtype", section.dtype.map(|dtype| dtype.to_string()))] {
            if let Some(value) = value {
                bail!("{key} is {value:?}, but {role} {:?} reads no weights; leave the key out", entry.kind)
            }
        }
        return Ok((entry, weights::none()));
    }
    Ok((entry, source(role, section, &files, base)?))
}

/// The source of a part's weights: what the section names, or the embedded demo's.
fn source(role: Role, section: &Section, files: &[String], base: &Path) -> Result<Arc<dyn WeightSource>> {
    let Some(spec) = &section.weights else {
        #[cfg(feature = "demo")]
        return limber_demo::source(role, &section.kind);
        #[cfg(not(feature = "demo"))]
        bail!("the {role} {:?} names no weights, and this program was built without the demo model", section.kind)
    };
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    weights::open(spec, &files, weights_base(spec, base))
}

/// Where a local path counts from: the config's folder, or the working folder where the path lies there alone.
fn weights_base<'a>(spec: &WeightSpec, base: &'a Path) -> &'a Path {
    match spec {
        WeightSpec::Local(path) if !base.join(path).exists() && Path::new(path).exists() => Path::new("."),
        _ => base,
    }
}

fn prepare_encoder(config: &Config, registry: &Registry, device: &Device) -> Result<Ready<PreparedEncoder>> {
    let section = &config.encoder;
    let (entry, source) = open(Role::Encoder, section, registry, &config.folder)?;
    let prepared = registry.encoder(&entry.kind, section.settings.clone().into(), source.as_ref())?;
    Ok(Ready { prepared, weights: Weights::new(source, device.clone(), section.dtype) })
}

fn prepare_decoder(config: &Config, registry: &Registry, device: &Device) -> Result<Ready<PreparedDecoder>> {
    let section = &config.decoder;
    let (entry, source) = open(Role::Decoder, section, registry, &config.folder)?;
    let prepared = registry.decoder(&entry.kind, section.settings.clone().into(), source.as_ref())?;
    Ok(Ready { prepared, weights: Weights::new(source, device.clone(), section.dtype) })
}

/// The prepared stitch, and what its checkpoint says of itself.
type ReadyStitch = (Ready<PreparedStitch>, Option<StitchMetadata>);

fn prepare_stitch(
    config: &Config,
    registry: &Registry,
    encoder: &PreparedEncoder,
    decoder: &PreparedDecoder,
    device: &Device,
) -> Result<ReadyStitch> {
    let section = &config.stitch;
    let (entry, source) = open(Role::Stitch, section, registry, &config.folder)?;
    let context = PartContext {
        features: encoder.spec.features,
        encoder: &encoder.kind,
        width: decoder.spec.width,
        decoder: &decoder.kind,
        source: source.as_ref(),
    };
    let metadata = StitchMetadata::read(source.as_ref())?;
    let prepared = registry.stitch(&entry.kind, section.settings.clone().into(), &context)?;
    if let Some(metadata) = &metadata {
        metadata.check(&prepared.kind, &context, prepared.spec)?;
    }
    Ok((Ready { prepared, weights: Weights::new(source, device.clone(), None) }, metadata))
}

/// The tokenizer: where the section says, beside the weights, or a stand-in for random weights.
fn tokenizer(config: &Config, ready: &Ready<PreparedDecoder>, spec: &DecoderSpec) -> Result<Tokenizer> {
    if let Some(path) = &config.decoder.tokenizer {
        let path = config.resolve(path);
        return if path.is_file() {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Tokenizer::from_bytes(&bytes).with_context(|| format!("tokenizer {}", path.display()))
        } else {
            Tokenizer::from_folder(&path)
        };
    }
    let source = ready.weights.source();
    if source.tensors().is_none() {
        return Ok(Tokenizer::stand_in(spec.vocab, spec.eos.first().copied()));
    }
    Tokenizer::from_source(source.as_ref())
}
