//! A config's components: where their weights lie, and each of them prepared from settings and small documents.

use crate::needs::candidates;
use crate::stitch_file::StitchMetadata;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use limber_config::{Config, Section};
use limber_core::bounded::{self, TEXT_LIMIT};
use limber_core::registry::{Entry, PartContext, PreparedDecoder, PreparedEncoder, PreparedStitch};
use limber_core::{DecoderSpec, Registry, WeightSource, WeightType, Weights};
use limber_text::Tokenizer;
use limber_weights::{self as weights, WeightSpec};
use std::path::Path;
use std::sync::Arc;

/// A prepared component and the weights that it will read.
pub(crate) struct Ready<P> {
    pub(crate) prepared: P,
    pub(crate) weights: Weights,
}

/// The device that a config names.
///
/// # Errors
/// A device that this program was not built for, or that is not there.
pub fn device(name: &str) -> Result<Device> {
    let built = |feature: &str| format!("device {name:?} needs a program built with the feature {feature:?}");
    match name.split_once(':').unwrap_or((name, "0")) {
        ("cpu", _) => Ok(Device::Cpu),
        ("cuda", n) if cfg!(feature = "cuda") => Ok(Device::new_cuda(n.parse().context("device number")?)?),
        ("metal", n) if cfg!(feature = "metal") => Ok(Device::new_metal(n.parse().context("device number")?)?),
        ("cuda", _) => bail!("{}", built("cuda")),
        ("metal", _) => bail!("{}", built("metal")),
        _ => bail!("unknown device {name:?}; allowed are cpu, cuda:N and metal"),
    }
}

/// A section's entry and the source of its weights; the kind `auto` is told by what lies beside them.
pub fn open_weights<'a>(
    role: &str,
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
        for (key, value) in [("weights", &section.weights), ("dtype", &section.dtype)] {
            if let Some(value) = value {
                bail!("{key} is {value:?}, but {role} {:?} reads no weights; leave the key out", entry.kind)
            }
        }
        return Ok((entry, weights::none()));
    }
    Ok((entry, source(role, section, &files, base)?))
}

/// The source of a part's weights: what the section names, or the embedded demo's.
fn source(role: &str, section: &Section, files: &[String], base: &Path) -> Result<Arc<dyn WeightSource>> {
    let Some(text) = &section.weights else {
        #[cfg(feature = "demo")]
        return limber_demo::source(role, &section.kind);
        #[cfg(not(feature = "demo"))]
        bail!("the {role} {:?} names no weights, and this program was built without the demo model", section.kind)
    };
    let spec: WeightSpec = text.parse()?;
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    weights::open(&spec, &files, weights_base(&spec, base))
}

/// Where a local path counts from: the config's folder, or the working folder where the path lies there alone.
fn weights_base<'a>(spec: &WeightSpec, base: &'a Path) -> &'a Path {
    match spec {
        WeightSpec::Local(path) if !base.join(path).exists() && Path::new(path).exists() => Path::new("."),
        _ => base,
    }
}

/// The type that a section wants its frozen weights in.
fn dtype(section: &Section) -> Result<Option<WeightType>> {
    let Some(name) = &section.dtype else { return Ok(None) };
    match WeightType::named(name) {
        Some(dtype) => Ok(Some(dtype)),
        None => {
            let known: Vec<&str> = WeightType::ALL.iter().map(|t| t.name()).collect();
            bail!("dtype {name:?} is not supported here, allowed are {}", known.join(", "))
        }
    }
}

pub(crate) fn prepare_encoder(config: &Config, registry: &Registry, device: &Device) -> Result<Ready<PreparedEncoder>> {
    let section = &config.encoder;
    let (entry, source) = open_weights("encoder", section, registry, &config.folder)?;
    let prepared = registry.encoder(&entry.kind, section.settings.clone().into(), source.as_ref())?;
    Ok(Ready { prepared, weights: Weights::new(source, device.clone(), dtype(section)?) })
}

pub(crate) fn prepare_decoder(config: &Config, registry: &Registry, device: &Device) -> Result<Ready<PreparedDecoder>> {
    let section = &config.decoder;
    let (entry, source) = open_weights("decoder", section, registry, &config.folder)?;
    let prepared = registry.decoder(&entry.kind, section.settings.clone().into(), source.as_ref())?;
    Ok(Ready { prepared, weights: Weights::new(source, device.clone(), dtype(section)?) })
}

/// The prepared stitch, and what its checkpoint says of itself.
pub(crate) type ReadyStitch = (Ready<PreparedStitch>, Option<StitchMetadata>);

pub(crate) fn prepare_stitch(
    config: &Config,
    registry: &Registry,
    encoder: &PreparedEncoder,
    decoder: &PreparedDecoder,
    device: &Device,
) -> Result<ReadyStitch> {
    let section = &config.stitch;
    let (entry, source) = open_weights("stitch", section, registry, &config.folder)?;
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
pub(crate) fn tokenizer(config: &Config, ready: &Ready<PreparedDecoder>, spec: &DecoderSpec) -> Result<Tokenizer> {
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
    let source = ready.weights.source();
    if source.tensors().is_none() {
        return Ok(Tokenizer::stand_in(spec.vocab, spec.eos.first().copied()));
    }
    Tokenizer::from_source(source.as_ref())
}
