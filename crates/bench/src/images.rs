//! The stages of an image, at batch 1: decoding, pixels, encoder, stitch.

use super::{Components, Line, Options, Probe, Runs, memory};
use anyhow::{Context, Result};
use candle_core::Tensor;
use image::RgbImage;
use limber_core::{InputSpec, Mode};
use limber_images::{self as images, DecodeOptions};
use limber_world as world;
use std::io::Cursor;

/// Side of the scene that is drawn where no image is given.
const SIDE: u32 = 512;

/// Measures them and gives the prefix `[1, K, D]`.
pub(super) fn run(
    components: &Components,
    options: &Options,
    probe: &mut Option<Probe>,
    out: &mut dyn FnMut(&Line) -> Result<()>,
    note: &mut dyn FnMut(&str),
) -> Result<Tensor> {
    let mut stage = |name: &'static str, work: (Option<u64>, Option<u64>), f: &mut dyn FnMut() -> Result<()>| {
        memory::reset_peak();
        // What is decoded or resized has no fraction of these peaks.
        let mut none = None;
        let probe = if work.1.is_some() { &mut *probe } else { &mut none };
        let runs = Runs::of(options.repeats, &components.device, probe, f)?;
        let line = Line { peak_bytes: memory::peak(), ..Line::new(name, 1, runs.median()) };
        out(&line.with_work(work.0, work.1, &runs.around))
    };
    let input = match components.input {
        InputSpec::Image(_) => {
            let file = match &options.image {
                Some(bytes) => bytes.clone(),
                None => drawn()?,
            };
            let decode = DecodeOptions::default();
            let image = images::decode(&file, &decode).context("the image")?;
            stage("image", (Some(file.len() as u64), None), &mut || {
                images::decode(&file, &decode)?;
                Ok(())
            })?;
            let bytes = image.as_raw().len() as u64;
            let mut pixels = components.preprocessor.pixels(&image)?;
            stage("pixels", (Some(bytes), None), &mut || {
                pixels = components.preprocessor.pixels(&image)?;
                Ok(())
            })?;
            pixels.unsqueeze(0)?
        }
        InputSpec::Features => {
            note("the encoder takes features: the stages image, pixels and encode are left out");
            let (n, e) = (components.features.tokens, components.features.width);
            Tensor::randn(0f32, 1f32, (1, n, e), &components.device)?
        }
    };
    let mut features = input.clone();
    if let InputSpec::Image(_) = components.input {
        let (bytes, flops) = components.encoder_work;
        stage("encode", (Some(bytes), flops), &mut || {
            features = components.encoder.encode(&input)?;
            Ok(())
        })?;
    }
    let (bytes, flops) = components.stitch_work;
    let mut prefix = None;
    stage("stitch", (Some(bytes), Some(flops)), &mut || {
        prefix = Some(components.stitch.project(&features, Mode::Inference)?.detach());
        Ok(())
    })?;
    prefix.context("the stitch did not run")
}

/// A scene of the demo's world as a PNG.
fn drawn() -> Result<Vec<u8>> {
    let image: RgbImage = world::draw(&world::scene(0, 0, &world::Options::default()), SIDE);
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
