//! An encoder of one's own between the built-in components: `cargo run --release --example custom_encoder -- IMAGE`.

use limber::core::registry::{EncoderSpecs, Origin};
use limber::core::{Component, Encoder, EncoderComponent, FeatureKind, FeatureSpec, ImageSpec, InputSpec, Weights};
use limber::{Captioner, Result, built_in, config::load_text};

/// The mean colour of an image, one token of width 3.
struct MeanColour;

impl Component for MeanColour {
    type Config = std::collections::BTreeMap<String, String>;
    const KIND: &'static str = "mean-colour";
    const ABOUT: &'static str = "mean colour of an image";
    const NEEDS_WEIGHTS: bool = false;
    fn tiny() -> Self::Config {
        Self::Config::new()
    }
}

impl EncoderComponent for MeanColour {
    fn specs(_: &Self::Config) -> Result<EncoderSpecs> {
        Ok(MeanColour.spec())
    }
    fn new(_: &Self::Config, _: &Weights) -> Result<Self> {
        Ok(Self)
    }
}

impl Encoder for MeanColour {
    fn spec(&self) -> EncoderSpecs {
        let features = FeatureSpec { tokens: 1, width: 3, kind: FeatureKind::Pooled };
        EncoderSpecs { input: InputSpec::Image(ImageSpec::clip(64)), features }
    }
    fn encode(&self, pixels: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> {
        pixels.mean((2, 3))?.unsqueeze(1) // [B, 3, S, S] -> [B, 1, 3]
    }
}

fn main() -> Result<()> {
    let mut registry = built_in::registry()?;
    registry.insert_encoder::<MeanColour>(Origin::BuiltIn { package: "example".into(), version: "0".into() })?;
    let text = "encoder: {kind: mean-colour}\nstitch: {kind: linear, weights: 'random:1'}\ndecoder: {kind: gptj}";
    let config = load_text("example.yaml", text, ".".as_ref(), &["generate.max_tokens=8".to_string()])?.config;
    let captioner = Captioner::options().config(config).registry(registry).open()?;
    let image = std::env::args().nth(1).unwrap_or("assets/demo/scene-1.png".to_string());
    println!("{}", captioner.caption(image)?.text);
    Ok(())
}
