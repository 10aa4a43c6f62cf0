//! Items to samples, with a model's own preparation: images to the encoder's input, or features that were computed
//! before; captions to ids.

use crate::model::Model;
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limber_config::{Compat, Config, Data};
use limber_data::features::Stored;
use limber_data::{Item, Reading};

/// Reads the items of a data set for a model.
pub struct Reader<'a> {
    model: &'a Model,
    features: Option<Stored>,
    /// Whether an image is varied anew each time, where the encoder varies images.
    vary: bool,
}

impl<'a> Reader<'a> {
    /// A reader of a config's section `data`, whose set has `items` items.
    ///
    /// # Errors
    /// Features of another encoder, or of another data set; features together with random variation.
    pub fn new(model: &'a Model, config: &Config, data: &Data, items: usize) -> Result<Self> {
        let is_varied = model.input_spec().image().is_some_and(|spec| !spec.augment.is_none());
        let vary = is_varied && data.augment.unwrap_or(config.compat == Some(Compat::Original));
        let features = match &data.features {
            None => None,
            Some(_) if vary => bail!(
                "data.features holds one view of each image, but the encoder's images are varied anew in every epoch; \
                 set data.augment to false, or leave data.features out"
            ),
            Some(folder) => Some(
                Stored::open(&config.resolve(folder), &model.expected_features()?, items).context("data.features")?,
            ),
        };
        Ok(Self { model, features, vary })
    }

    /// The same without random variation, for images that are looked at and not learnt from.
    #[must_use]
    pub fn fixed(self) -> Self {
        Self { vary: false, ..self }
    }

    /// What the encoder takes of an item's image, or its features `[N, E]`.
    ///
    /// # Errors
    /// What is wrong with this item.
    pub fn input(&self, item: &Item, variation: u64) -> Result<Tensor> {
        match &self.features {
            Some(stored) => Ok(stored.read(item)?),
            None => self.model.picture(&item.image, self.vary.then_some(variation)),
        }
    }
}

impl Reading for Reader<'_> {
    fn read(&self, item: &Item, caption: &str, variation: u64) -> Result<(Tensor, Vec<u32>)> {
        Ok((self.input(item, variation)?, self.model.tokenizer()?.encode(caption)?))
    }
}
