//! `config check --deep`: the shapes of a config from end to end, and what of it is not there or does not fit.
//!
//! Weights are opened and asked for every tensor by name and shape; what is mapped into memory is not read. Where weights
//! are still to be downloaded, the documents beside them tell the sizes, or else the settings do.

use crate::components::{between, open_weights, tokenizer};
use crate::missing;
use crate::model::Depth;
use crate::stitch_file::StitchMetadata;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use limber_config::{Config, Section, Start};
use limber_core::random::RandomSource;
use limber_core::registry::{Entry, PreparedDecoder, PreparedEncoder, Role};
use limber_core::weights::{FrozenData, Request, WeightError};
use limber_core::{InputSpec, Registry, WeightSource, Weights};
use limber_data as data;
use limber_weights::{self as weights, WeightSpec, cache};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What a config's components are and what is wrong with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Shapes from end to end, a line each.
    pub shapes: Vec<String>,
    /// What keeps the config from being used.
    pub problems: Vec<String>,
    /// What is still to come, or needed for some uses alone.
    pub notes: Vec<String>,
}

/// Looks at all that `config` names on this machine.
pub fn overview(config: &Config, registry: &Registry) -> Overview {
    let mut found = Overview::default();
    let mut config = config.clone();
    stitch_to_come(&mut config, &mut found);
    found.problems.extend(missing::weights_and_tokenizer(&config, registry, Depth::Text));
    let is_here = |role: Role| {
        let spec = config.section(role).weights.as_ref();
        !spec.is_some_and(|spec| spec.local().is_some() && weights::path_of(spec, &config.folder).is_none())
    };
    let encoder = is_here(Role::Encoder).then(|| encoder(&config, registry, &mut found.notes));
    let decoder = is_here(Role::Decoder).then(|| decoder(&config, registry, &mut found.notes));
    let encoder = told(encoder, Role::Encoder, &mut found.problems);
    let decoder = told(decoder, Role::Decoder, &mut found.problems);
    if let Some(encoder) = &encoder {
        let FeatureText { input, features } = FeatureText::of(encoder);
        found.shapes.push(format!("{input} -> {} -> {features}", encoder.kind));
    }
    if let (Some(encoder), Some(decoder), true) = (&encoder, &decoder, is_here(Role::Stitch)) {
        let line = stitch(&config, registry, encoder, decoder, &mut found.notes);
        found.shapes.extend(told(Some(line), Role::Stitch, &mut found.problems));
    }
    if let Some(decoder) = &decoder {
        let spec = &decoder.spec;
        found.shapes.push(format!(
            "{} x {} -> {}, {} layers -> {} vocabulary entries; context length {}",
            "T",
            spec.width,
            decoder.kind,
            spec.layers,
            grouped(spec.vocab),
            grouped(spec.context)
        ));
    }
    data_sets(&config, &mut found);
    found
}

/// A result, or its message among the problems.
fn told<T>(result: Option<Result<T>>, role: Role, problems: &mut Vec<String>) -> Option<T> {
    result?.map_err(|error| problems.push(format!("section \"{role}\": {error:#}"))).ok()
}

/// What of weights and tokenizer is not on this machine, without a look into any of them.
pub fn absent(config: &Config, registry: &Registry) -> Vec<String> {
    let mut config = config.clone();
    let to_come = trained_later(&mut config);
    to_come.into_iter().chain(missing::weights_and_tokenizer(&config, registry, Depth::Text)).collect()
}

/// Puts a stitch in the place of one that is not there and that training makes; says so.
fn trained_later(config: &mut Config) -> Option<String> {
    let starts_without = config.train.as_ref().is_some_and(|train| train.start != Start::Stitch);
    let Some(spec @ WeightSpec::Local(path)) = &config.stitch.weights else { return None };
    if !starts_without || weights::path_of(spec, &config.folder).is_some() {
        return None;
    }
    let note =
        format!("section \"stitch\": {path} is not there; `limber train` starts without it, `limber caption` needs it");
    config.stitch.weights = Some(WeightSpec::Random(0));
    Some(note)
}

/// A stitch that training is to make is no problem where training starts without it.
fn stitch_to_come(config: &mut Config, found: &mut Overview) {
    found.notes.extend(trained_later(config));
    let is_demo = config.encoder.weights.is_none() && config.decoder.weights.is_none();
    if config.stitch.weights.is_none() && !is_demo {
        found.notes.push(
            "section \"stitch\": no weights are named; `limber train` and `limber fit` make them, `limber caption` needs them"
                .to_string(),
        );
        config.stitch.weights = Some(WeightSpec::Random(0));
    }
}

/// The entry of a section and its weights; those that are still to be downloaded are told by their documents.
fn opened<'a>(
    role: Role,
    section: &Section,
    config: &Config,
    registry: &'a Registry,
    notes: &mut Vec<String>,
) -> Result<(&'a Entry, Arc<dyn WeightSource>, bool)> {
    let opened = open_weights(role, section, registry, &config.folder);
    let Some(spec) = section.weights.as_ref().filter(|spec| spec.is_remote()) else {
        return opened.map(|(entry, source)| (entry, source, true));
    };
    match opened {
        Ok((entry, source)) => Ok((entry, source, true)),
        Err(error) if is_cached(spec, role, section, config, registry) => Err(error),
        Err(_) => {
            notes.push(format!(
                "section \"{role}\": {spec} is not in the cache yet; `limber pull --config` downloads it"
            ));
            let folder = cache::cache_folder().and_then(|folder| cache::snapshot_path(spec, &folder)).ok();
            let source: Arc<dyn WeightSource> = Arc::new(Documents { random: RandomSource::new(0), folder });
            let entry = match section.kind.as_str() {
                "auto" => registry.detect(role, source.as_ref()).context("its weights are not here yet")?,
                kind => registry.get(role, kind)?,
            };
            Ok((entry, source, false))
        }
    }
}

/// Whether the cache has the weights, so that an error is theirs.
fn is_cached(spec: &WeightSpec, role: Role, section: &Section, config: &Config, registry: &Registry) -> bool {
    let files = crate::needs::candidates(role, section, registry).unwrap_or_default();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    match spec {
        WeightSpec::Web(_) => weights::path_of(spec, &config.folder).is_some(),
        _ => cache::cache_folder().is_ok_and(|folder| cache::locate(spec, &files, &folder).is_ok()),
    }
}

fn encoder(config: &Config, registry: &Registry, notes: &mut Vec<String>) -> Result<PreparedEncoder> {
    let section = &config.encoder;
    let (entry, source, is_whole) = opened(Role::Encoder, section, config, registry, notes)?;
    let prepare = || registry.encoder(&entry.kind, section.settings.clone().into(), source.as_ref());
    if is_whole && source.tensors().is_some() {
        prepare()?.build(&Weights::new(source.clone(), Device::Cpu, None))?;
    }
    prepare()
}

fn decoder(config: &Config, registry: &Registry, notes: &mut Vec<String>) -> Result<PreparedDecoder> {
    let section = &config.decoder;
    let (entry, source, is_whole) = opened(Role::Decoder, section, config, registry, notes)?;
    let prepare = || registry.decoder(&entry.kind, section.settings.clone().into(), source.as_ref());
    if is_whole && source.tensors().is_some() {
        prepare()?.build(&Weights::new(source.clone(), Device::Cpu, None))?;
    }
    let prepared = prepare()?;
    // One that is named and not there is told with all that is not there; one beside weights comes with them.
    if section.tokenizer.as_ref().map_or(is_whole, |path| config.resolve(path).exists()) {
        tokenizer(config, source.as_ref(), &prepared.spec)?;
    }
    Ok(prepared)
}

/// `N x E -> kind, parameters -> K x D`.
fn stitch(
    config: &Config,
    registry: &Registry,
    encoder: &PreparedEncoder,
    decoder: &PreparedDecoder,
    notes: &mut Vec<String>,
) -> Result<String> {
    let section = &config.stitch;
    let (entry, source, _) = opened(Role::Stitch, section, config, registry, notes)?;
    let context = between(encoder, decoder, source.as_ref());
    let prepared = registry.stitch(&entry.kind, section.settings.clone().into(), &context)?;
    if let Some(metadata) = StitchMetadata::read(source.as_ref())? {
        metadata.check(&prepared.kind, &context, prepared.spec)?;
    }
    let (kind, prefix) = (prepared.kind.clone(), prepared.spec);
    if prefix.tokens >= decoder.spec.context {
        bail!(
            "a prefix of {} tokens leaves no room for text; the decoder's context length is {}",
            prefix.tokens,
            decoder.spec.context
        )
    }
    let stitch = prepared.build(&Weights::new(source.clone(), Device::Cpu, None))?;
    let parameters: usize = stitch.variables().values().map(|var| var.elem_count()).sum();
    let features = FeatureText::of(encoder).features;
    Ok(format!("{features} -> {kind}, {} parameters -> {} x {}", grouped(parameters), prefix.tokens, prefix.width))
}

/// The shapes of an encoder's two sides.
struct FeatureText {
    input: String,
    features: String,
}

impl FeatureText {
    fn of(encoder: &PreparedEncoder) -> Self {
        let features = format!("{} x {}", encoder.spec.features.tokens, encoder.spec.features.width);
        let input = match encoder.spec.input {
            InputSpec::Image(image) => format!("3 x {0} x {0}", image.side),
            InputSpec::Features => features.clone(),
        };
        Self { input, features }
    }
}

/// The items of data sets that are there.
fn data_sets(config: &Config, found: &mut Overview) {
    let missing = missing::data_sets(config);
    let validate = config.train.as_ref().and_then(|train| train.validate.as_ref()).map(|validate| &validate.data);
    for (section, set) in [("data", config.data.as_ref()), ("train.validate.data", validate)] {
        let Some(set) = set.filter(|_| !missing.iter().any(|m| m.starts_with(&format!("section {section:?}, "))))
        else {
            continue;
        };
        let first = data::open(set, &config.folder).and_then(|set| set.item(0).map(|_| set.len()));
        match first {
            Ok(items) => found.shapes.push(format!("{section}: {} items", grouped(items))),
            Err(error) => found.problems.push(format!("section {section:?}: {error:#}")),
        }
    }
    for what in missing {
        let users = match what.starts_with("section \"data\"") {
            true => "`limber train` and `limber fit` need",
            false => "`limber train` needs",
        };
        found.notes.push(format!("{what}; {users} it, `limber caption` does not"));
    }
}

/// A number with commas between thousands.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Weights that are still to be downloaded: their documents, as far as they are there, and no tensor.
struct Documents {
    random: RandomSource,
    folder: Option<PathBuf>,
}

impl WeightSource for Documents {
    fn label(&self) -> String {
        "weights that are not here yet".to_string()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        None
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        self.random.read(request)
    }

    fn document(&self, name: &str) -> Result<Option<String>, WeightError> {
        use limber_core::bounded::{TEXT_LIMIT, text};
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.is_file()) else {
            return Ok(None);
        };
        let read = std::fs::File::open(&path).and_then(|file| text(file, TEXT_LIMIT));
        let fault = |error: std::io::Error| WeightError::Read {
            source_label: path.display().to_string(),
            message: error.to_string(),
        };
        read.map(Some).map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limber_config::load_text;
    use std::path::Path;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn shapes_are_told_from_end_to_end() {
        let of = |text: &str| {
            let config = load_text("c.yaml", text, Path::new("."), &[]).unwrap().config;
            overview(&config, &crate::built_in::registry().unwrap())
        };
        let decoder = "decoder: {kind: gptj, n_embd: 32, n_head: 4, rotary_dim: 4, n_layer: 2, vocab_size: 300, weights: 'random:1'}";
        let found =
            of(&format!("encoder: {{kind: features, tokens: 3, width: 12}}\nstitch: {{kind: linear}}\n{decoder}"));
        assert_eq!(found.problems, [""; 0]);
        let shapes = ["3 x 12 -> features -> 3 x 12", "3 x 12 -> linear, 416 parameters -> 3 x 32"];
        assert_eq!(found.shapes[..2], shapes);
        assert!(found.shapes[2].starts_with("T x 32 -> gptj, 2 layers -> 300 vocabulary entries"), "{found:?}");
        assert!(
            found.notes[0].contains("no weights are named; `limber train` and `limber fit` make them"),
            "{found:?}"
        );
        let found = of(&format!(
            "encoder: {{kind: features, tokens: 3, width: 12}}\nstitch: {{kind: linear, weights: no.ckpt, tokens: 4}}\n{decoder}\n\
             train: {{start: random}}\ndata: {{format: jsonl, path: no.jsonl}}"
        ));
        let expected = ["section \"stitch\": "];
        assert_eq!(found.problems.len(), expected.len(), "{found:?}");
        for (problem, start) in found.problems.iter().zip(expected) {
            assert!(problem.starts_with(start), "{found:?}");
        }
        assert!(found.notes[0].contains("no.ckpt is not there; `limber train` starts without it"), "{found:?}");
        let data = &found.notes[1];
        assert!(data.starts_with("section \"data\", key \"path\": there is no file"), "{found:?}");
        assert!(data.ends_with("; `limber train` and `limber fit` need it, `limber caption` does not"), "{found:?}");
    }
}
