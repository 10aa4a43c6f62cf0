//! The images that a command line names: files, folders, patterns, a list of paths, standard input.

use super::options::text;
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limber_config::Config;
use limber_core::bounded::{self, Lines};
use limber_data::{IMAGE_ENDINGS, images_below, matching};
use limber_pipeline::Model;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What stands for standard input.
const STDIN: &str = "-";
/// Most bytes of an image from standard input, as of one from a file.
const BYTES_LIMIT: u64 = 256 << 20;
/// Most bytes of a path in a list.
const PATH_LIMIT: u64 = 64 << 10;
/// Endings of files of features.
const FEATURE_ENDINGS: [&str; 3] = ["npy", "npz", "safetensors"];

/// One image.
#[derive(Debug)]
pub struct Image {
    /// What results call it: its path or address, `-` for standard input.
    pub name: String,
    /// Its bytes, where they came from standard input.
    pub bytes: Option<Vec<u8>>,
}

impl Image {
    /// What the encoder takes of it.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn input(&self, model: &Model) -> Result<Tensor> {
        match &self.bytes {
            Some(bytes) => model.preprocessor().input_bytes("standard input", bytes.clone()),
            None => model.input(&self.name),
        }
    }
}

/// The images that `named` and the list `from` name, in this order.
///
/// # Errors
/// A folder without images, a pattern that names none, a list or standard input that cannot be read.
pub fn find(named: &[PathBuf], from: Option<&Path>, config: &Config) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    let reads_list = from.is_some_and(|from| from.as_os_str() == STDIN);
    let of_stdin = named.iter().filter(|path| path.as_os_str() == STDIN).count();
    if of_stdin + usize::from(reads_list) > 1 {
        bail!("standard input (-) is named {} times, expected once", of_stdin + usize::from(reads_list))
    }
    for path in named {
        one(path, config, &mut images)?;
    }
    if let Some(from) = from {
        let context = || format!("cannot read the list of images {}", from.display());
        let reader: Box<dyn BufRead> = match reads_list {
            true => Box::new(std::io::stdin().lock()),
            false => Box::new(BufReader::new(File::open(from).with_context(context)?)),
        };
        for line in Lines::new(reader, PATH_LIMIT) {
            let (_, line) = line.with_context(context)?;
            if !line.trim().is_empty() {
                // A list says what it means: its paths are no patterns.
                images.push(Image { name: line, bytes: None });
            }
        }
        if images.is_empty() {
            bail!("{}: found no path, expected one on each line", from.display())
        }
    }
    Ok(images)
}

fn one(path: &Path, config: &Config, images: &mut Vec<Image>) -> Result<()> {
    let name = text(path)?;
    if name == STDIN {
        let bytes = bounded::bytes(std::io::stdin().lock(), BYTES_LIMIT).context("cannot read standard input")?;
        if bytes.is_empty() {
            bail!("standard input is empty, expected the bytes of an image (--files-from - reads paths)")
        }
        images.push(Image { name: name.to_string(), bytes: Some(bytes) });
        return Ok(());
    }
    let endings: &[&str] = if config.encoder.kind == "features" { &FEATURE_ENDINGS } else { &IMAGE_ENDINGS };
    let found = match () {
        _ if name.contains("://") => None,
        _ if path.is_dir() => {
            let found = images_below(path, endings)?;
            if found.is_empty() {
                bail!("{name}: found no image in this folder or below it, expected {}", endings.join(", "))
            }
            Some(found)
        }
        _ => match matching(name)? {
            Some(found) if found.is_empty() => bail!("no file matches the pattern {name:?}"),
            found => found,
        },
    };
    for path in found.unwrap_or_else(|| vec![path.to_path_buf()]) {
        images.push(Image { name: text(&path)?.to_string(), bytes: None });
    }
    Ok(())
}

/// Images that a model is asked about.
#[derive(Debug, Clone, Copy)]
pub enum Images<'a> {
    /// Those of a data set, which is opened before.
    OfData,
    /// At least one of them is needed.
    Any(&'a [PathBuf]),
    /// Each of them is needed.
    All(&'a [PathBuf]),
}

impl Images<'_> {
    /// Refuses images that are not there, before anything large is downloaded for them.
    ///
    /// # Errors
    /// An image that is needed and is not there.
    pub fn check(self) -> Result<()> {
        match self {
            Images::Any([first, others @ ..]) if !is_there(first) && !others.iter().any(|path| is_there(path)) => {
                let others = match others.len() {
                    0 => String::new(),
                    n => format!(", nor any of the {n} others"),
                };
                bail!("there is no image {}{others}", first.display())
            }
            Images::All(images) => match images.iter().find(|path| !is_there(path)) {
                Some(path) => bail!("there is no image {}", path.display()),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Whether something is at the path of an image, or what it names is an address; `FILE#NAME` is an array of a file.
fn is_there(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return path.exists() };
    let file = text.rsplit_once('#').map_or(text, |(file, _)| file);
    text.contains("://") || path.exists() || Path::new(file).exists()
}

/// Whether one image was named by itself, so that its caption needs no name.
pub fn is_alone(named: &[PathBuf], images: &[Image]) -> bool {
    match (named, images) {
        ([path], [image]) => path.as_os_str() == image.name.as_str(),
        _ => false,
    }
}
