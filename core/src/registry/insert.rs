//! How a component of Rust becomes an entry of the registry.

use super::{
    Component, DecoderComponent, EncoderComponent, Entry, Maker, Origin, PrepareFn, Prepared, Registry, Role,
    StitchComponent, StitchContext,
};
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::settings;
use crate::stitch::Stitch;
use crate::weights::Weights;
use anyhow::Result;
use std::sync::Arc;

impl Registry {
    /// Inserts encoder `P`.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_encoder<P: EncoderComponent>(&mut self, origin: Origin) -> Result<()> {
        let new = |config: &P::Config, weights: &Weights| Ok(Box::new(P::new(config, weights)?) as Box<dyn Encoder>);
        self.insert(entry::<P>(origin, Maker::Encoder(prepare::<P, _, _>(Role::Encoder, P::specs, new)))?)
    }

    /// Inserts decoder `P`.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_decoder<P: DecoderComponent>(&mut self, origin: Origin) -> Result<()> {
        let new = |config: &P::Config, weights: &Weights| Ok(Box::new(P::new(config, weights)?) as Box<dyn Decoder>);
        self.insert(entry::<P>(origin, Maker::Decoder(prepare::<P, _, _>(Role::Decoder, P::specs, new)))?)
    }

    /// Inserts stitch `P`.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_stitch<P: StitchComponent>(&mut self, origin: Origin) -> Result<()> {
        let maker = Maker::Stitch(Arc::new(|settings, context| {
            let config = P::resolve(settings::parse("stitch", settings)?, context.source)?;
            let spec = P::specs(&config, context)?;
            let (features, width) = (context.features, context.width);
            let (encoder, decoder) = (context.encoder.to_string(), context.decoder.to_string());
            Ok(Prepared::new(P::KIND, settings::to_value(&config)?, spec, move |weights| {
                let context = StitchContext {
                    features,
                    encoder: &encoder,
                    width,
                    decoder: &decoder,
                    source: weights.source().as_ref(),
                };
                Ok(Box::new(P::new(&config, &context, weights)?) as Box<dyn Stitch>)
            }))
        }));
        self.insert(entry::<P>(origin, maker)?)
    }
}

/// Prepares a component of two steps: its specs, then itself.
fn prepare<P: Component, S, T: ?Sized + 'static>(
    role: Role,
    specs: fn(&P::Config) -> Result<S>,
    new: fn(&P::Config, &Weights) -> Result<Box<T>>,
) -> PrepareFn<S, T>
where
    S: 'static,
{
    Arc::new(move |settings, source| {
        let config = P::resolve(settings::parse(role.name(), settings)?, source)?;
        let spec = specs(&config)?;
        Ok(Prepared::new(P::KIND, settings::to_value(&config)?, spec, move |weights| new(&config, weights)))
    })
}

fn entry<P: Component>(origin: Origin, maker: Maker) -> Result<Entry> {
    Ok(Entry {
        kind: P::KIND.to_string(),
        about: P::ABOUT.to_string(),
        origin,
        files: P::FILES.iter().map(|f| f.to_string()).collect(),
        needs_weights: P::NEEDS_WEIGHTS,
        schema: settings::schema::<P::Config>(),
        tiny: settings::to_value(&P::tiny())?,
        recognises: Arc::new(P::recognises),
        maker,
    })
}
