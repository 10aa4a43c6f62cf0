//! TensorBoard's event files: TFRecord frames of `Event` messages, written by hand.
//!
//! Sources followed: TensorFlow's `core/lib/io/record_writer.cc` (length, masked CRC-32C, bytes, masked CRC-32C),
//! `core/util/event.proto` and `core/framework/summary.proto`. Protocol buffers are a few varints here, and a crate
//! for them would bring a compiler.

pub mod hparams;
mod wire;

use anyhow::{Context, Result};
use limber_config::Config;
use limber_pipeline::Thumbnail;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use wire::{bytes, double, float, message, number};

/// One event file, to which a run appends.
pub struct Events {
    file: File,
}

impl Events {
    /// A new file in `folder` for steps from `step` on; what earlier files say of these steps no longer counts.
    ///
    /// # Errors
    /// A folder or file that cannot be made.
    pub fn open(folder: &Path, step: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = free(folder);
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let mut events = Self { file: file.with_context(|| format!("cannot make {}", path.display()))? };
        events.add(&version(now()))?;
        if step > 0 {
            events.add(&start(now(), step))?;
        }
        Ok(events)
    }

    /// Numbers of a step, by tag.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn numbers(&mut self, step: usize, values: &[(&str, f64)]) -> Result<()> {
        self.add(&numbers(now(), step, values))
    }

    /// A text of a step, shown as Markdown.
    ///
    /// # Errors
    /// As [`Self::numbers`].
    pub fn text(&mut self, step: usize, tag: &str, text: &str) -> Result<()> {
        self.add(&words(now(), step, tag, text))
    }

    /// An image under a heading of its own.
    ///
    /// # Errors
    /// As [`Self::numbers`].
    pub fn image(&mut self, step: usize, tag: &str, heading: &str, image: &Thumbnail) -> Result<()> {
        let parts = [image.width.to_string().into_bytes(), image.height.to_string().into_bytes(), image.png.clone()];
        self.add(&strings(now(), step, tag, "images", heading, &parts))
    }

    /// The settings of the run, to compare runs by.
    ///
    /// # Errors
    /// As [`Self::numbers`].
    pub fn settings(&mut self, config: &Config) -> Result<()> {
        self.add(&event(now(), 0, 5, &hparams::start(&hparams::of(config), now())))
    }

    /// The run has finished.
    ///
    /// # Errors
    /// As [`Self::numbers`].
    pub fn end(&mut self, step: usize) -> Result<()> {
        self.add(&event(now(), step, 5, &hparams::end(now())))
    }

    /// A frame in one write, so that a kill leaves whole frames or one cut at the end, which readers pass over.
    fn add(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&frame(event)).context("cannot write TensorBoard's event file")
    }
}

/// A name that TensorBoard knows an event file by, later in order than those that are there.
fn free(folder: &Path) -> PathBuf {
    let seconds = now() as u64;
    let name = |n: u32| folder.join(format!("events.out.tfevents.{seconds:010}.limber.{}.{n}", std::process::id()));
    (0..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// An `Event` of this time and step; `field` holds `what`.
fn event(time: f64, step: usize, field: u64, what: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(what.len() + 24);
    double(1, time, &mut out);
    // A value of 0 is the default, which is not written.
    if step > 0 {
        number(2, step as u64, &mut out);
    }
    bytes(field, what, &mut out);
    out
}

/// What a file begins with.
fn version(time: f64) -> Vec<u8> {
    event(time, 0, 3, b"brain.Event:2")
}

/// `SessionLog { status: START }`: events of this step and later in earlier files are void.
fn start(time: f64, step: usize) -> Vec<u8> {
    let mut session = Vec::new();
    number(1, 1, &mut session);
    event(time, step, 7, &session)
}

/// `Summary` of `Value { tag, simple_value }`.
fn numbers(time: f64, step: usize, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut one = message(1, tag.as_bytes());
        float(2, *value as f32, &mut one);
        bytes(1, &one, &mut summary);
    }
    event(time, step, 5, &summary)
}

/// A text of the plugin `text`.
fn words(time: f64, step: usize, tag: &str, text: &str) -> Vec<u8> {
    strings(time, step, tag, "text", "", &[text.as_bytes().to_vec()])
}

/// `Summary` of one `Value { tag, tensor, metadata }` of a plugin: a tensor of strings under a heading, the tag where that
/// is empty.
fn strings(time: f64, step: usize, tag: &str, plugin: &str, heading: &str, all: &[Vec<u8>]) -> Vec<u8> {
    const DT_STRING: u64 = 7;
    let (mut size, mut tensor) = (Vec::new(), Vec::new());
    number(1, all.len() as u64, &mut size);
    number(1, DT_STRING, &mut tensor);
    bytes(2, &message(2, &size), &mut tensor);
    all.iter().for_each(|one| bytes(8, one, &mut tensor));
    let mut metadata = message(1, &message(1, plugin.as_bytes()));
    if !heading.is_empty() {
        bytes(2, heading.as_bytes(), &mut metadata);
    }
    let mut value = message(1, tag.as_bytes());
    bytes(8, &tensor, &mut value);
    bytes(9, &metadata, &mut value);
    event(time, step, 5, &message(1, &value))
}

fn frame(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(event.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(event);
    out.extend(masked(event).to_le_bytes());
    out
}

/// TFRecord's mask of a checksum: a checksum of data that hold checksums is a bad one.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial, reflected, a bit at a time: frames are small.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn the_bytes_are_tensorboards_own() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/events/expected.tfevents");
        let golden = std::fs::read(golden).unwrap();
        let caption = "| image | said |\n|---|---|\n| a.png | a red circle é |";
        let settings: [(String, serde_json::Value); 5] = [
            ("encoder.kind".to_string(), "features".into()),
            ("data.shuffle".to_string(), false.into()),
            ("stitch.bias".to_string(), true.into()),
            ("train.lr".to_string(), 0.25.into()),
            ("train.warmup".to_string(), 0.into()),
        ];
        let settings = std::collections::BTreeMap::from(settings);
        let all = [
            version(1.5),
            numbers(2.25, 0, &[("train/loss", 3.75), ("train/lr", 0.0)]),
            numbers(1e9 + 0.125, 300, &[("validation/loss", 0.1)]),
            start(3.0, 70_000),
            words(4.0, 70_000, "captions", caption),
            strings(
                5.0,
                9,
                "validation/image 1",
                "images",
                "a red circle é",
                &[b"2".into(), b"1".into(), b"PNG".into()],
            ),
            event(6.0, 0, 5, &hparams::start(&settings, 1.5)),
            event(7.0, 70_000, 5, &hparams::end(2.5)),
        ];
        let ours: Vec<u8> = all.iter().flat_map(|event| frame(event)).collect();
        assert_eq!(ours, golden);
    }

    #[test]
    fn files_of_one_second_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        for step in [0, 0, 7] {
            Events::open(folder.path(), step).unwrap().numbers(step, &[("x", 1.0)]).unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
