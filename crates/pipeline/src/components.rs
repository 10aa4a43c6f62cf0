//! A config's components: where their weights lie, and each of them prepared from settings and small documents.

use crate::needs::candidates;
use crate::stitch_file::StitchMetadata;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use limber_config::{Config, DeviceSpec, Section};
use limber_core::bounded::{self, TEXT_LIMIT};
use limber_core::registry::{Entry, Prepared, PreparedDecoder, PreparedEncoder, PreparedStitch, Role, StitchContext};
use limber_core::settings::SettingsError;
use limber_core::{DecoderSpec, Registry, WeightSource, Weights};
use limber_text::Tokenizer;
use limber_weights::{self as weights, WeightSpec};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A prepared component and the weights that it will read.
pub(crate) struct Ready<P> {
    pub(crate) prepared: P,
    pub(crate) weights: Weights,
}

impl<S, T: ?Sized> Ready<Prepared<S, T>> {
    /// Reads the weights, and gives back where they came from.
    pub(crate) fn build(self, role: Role) -> Result<(Box<T>, Weights)> {
        let (kind, since) = (self.prepared.kind.clone(), Instant::now());
        let built = self.prepared.build(&self.weights).with_context(|| format!("section \"{role}\""))?;
        let (label, megabytes) = (self.weights.source().label(), self.weights.bytes() as f64 / 1e6);
        tracing::info!("{role} {kind} from {label}: {megabytes:.1} MB, {:.2} s", since.elapsed().as_secs_f64());
        Ok((built, self.weights))
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

/// Names the section of an error that does not name it itself.
///
/// # Errors
/// That of `result`.
pub fn in_section<T>(role: Role, result: Result<T>) -> Result<T> {
    result.map_err(|error| match error.is::<SettingsError>() {
        true => error,
        false => error.context(format!("section \"{role}\"")),
    })
}

/// A section's entry and the source of its weights; the kind `auto` is told by what lies beside them.
///
/// # Errors
/// An unknown kind, keys that the section does not have, weights that cannot be opened.
pub fn open_weights<'a>(
    role: Role,
    section: &Section,
    registry: &'a Registry,
    base: &Path,
) -> Result<(&'a Entry, Arc<dyn WeightSource>)> {
    let files = candidates(role, section, registry)?;
    if section.kind == "auto" {
        let source = source(role, section, &files, base)?;
        let entry = registry.detect(role, source.as_ref())?;
        section.check(role, entry)?;
        return Ok((entry, source));
    }
    let entry = registry.get(role, &section.kind)?;
    section.check(role, entry)?;
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

/// The source of a component's weights: what the section names, or the embedded demo's.
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

pub(crate) fn prepare_encoder(config: &Config, registry: &Registry, device: &Device) -> Result<Ready<PreparedEncoder>> {
    let section = &config.encoder;
    let (entry, source) = open_weights(Role::Encoder, section, registry, &config.folder)?;
    let prepared = registry.encoder(&entry.kind, section.settings.clone().into(), source.as_ref())?;
    Ok(Ready { prepared, weights: Weights::new(source, device.clone(), section.dtype) })
}

pub(crate) fn prepare_decoder(config: &Config, registry: &Registry, device: &Device) -> Result<Ready<PreparedDecoder>> {
    let section = &config.decoder;
    let (entry, source) = open_weights(Role::Decoder, section, registry, &config.folder)?;
    let prepared = registry.decoder(&entry.kind, section.settings.clone().into(), source.as_ref())?;
    Ok(Ready { prepared, weights: Weights::new(source, device.clone(), section.dtype) })
}

/// The prepared stitch, and what its checkpoint says of itself.
pub(crate) type ReadyStitch = (Ready<PreparedStitch>, Option<StitchMetadata>);

/// Whether the demo's stitch maps width `e` to `d`: that of the demo's components in other files, which it belongs to.
fn is_demos_size(kind: &str, e: usize, d: usize) -> bool {
    #[cfg(feature = "demo")]
    return limber_demo::source(Role::Stitch, kind)
        .is_ok_and(|source| source.tensors().is_some_and(|all| all.get("weight") == Some(&vec![d, e])));
    #[cfg(not(feature = "demo"))]
    {
        let _ = (kind, e, d);
        false
    }
}

/// What a stitch between the two is told of them.
pub(crate) fn between<'a>(
    encoder: &'a PreparedEncoder,
    decoder: &'a PreparedDecoder,
    source: &'a dyn WeightSource,
) -> StitchContext<'a> {
    StitchContext {
        features: encoder.spec.features,
        encoder: &encoder.kind,
        width: decoder.spec.width,
        decoder: &decoder.kind,
        source,
    }
}

pub(crate) fn prepare_stitch(
    config: &Config,
    registry: &Registry,
    encoder: &PreparedEncoder,
    decoder: &PreparedDecoder,
    device: &Device,
) -> Result<ReadyStitch> {
    let section = &config.stitch;
    let is_demo = config.encoder.weights.is_none() && config.decoder.weights.is_none();
    let fits_demo = is_demo || is_demos_size(&section.kind, encoder.spec.features.width, decoder.spec.width);
    if section.weights.is_none() && !fits_demo && registry.get(Role::Stitch, &section.kind)?.needs_weights {
        let (n, e) = (encoder.spec.features.tokens, encoder.spec.features.width);
        bail!(
            "it names no weights, and encoder {} gives {n} x {e} and decoder {} takes {}, for which there is no stitch yet: \
             train one with `limber train` and name its folder in --run, solve one with `limber fit`, or name a file in \
             stitch.weights (random:SEED is an untrained one)",
            encoder.kind,
            decoder.kind,
            decoder.spec.width
        )
    }
    let (entry, source) = open_weights(Role::Stitch, section, registry, &config.folder)?;
    let context = between(encoder, decoder, source.as_ref());
    let metadata = StitchMetadata::read(source.as_ref())?;
    let prepared = registry.stitch(&entry.kind, section.settings.clone().into(), &context)?;
    if let Some(metadata) = &metadata {
        metadata.check(&prepared.kind, &context, prepared.spec)?;
    }
    Ok((Ready { prepared, weights: Weights::new(source, device.clone(), None) }, metadata))
}

/// The tokenizer: where the section says, beside the weights, or a stand-in for random weights.
pub(crate) fn tokenizer(config: &Config, source: &dyn WeightSource, spec: &DecoderSpec) -> Result<Tokenizer> {
    if let Some(path) = &config.decoder.tokenizer {
        let path = config.resolve(path);
        return if path.is_file() {
            let file = std::fs::File::open(&path).and_then(|file| bounded::bytes(file, TEXT_LIMIT));
            let bytes = file.with_context(|| format!("cannot read {}", path.display()))?;
            Tokenizer::from_bytes(&bytes).with_context(|| format!("tokenizer {}", path.display()))
        } else {
            Tokenizer::from_folder(&path)
        };
    }
    if source.tensors().is_none() {
        return Ok(Tokenizer::stand_in(spec.vocab, spec.eos.first().copied()));
    }
    Tokenizer::from_source(source)
}
