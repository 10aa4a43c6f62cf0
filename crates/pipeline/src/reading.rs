//! Items to samples, with a model's own preparation: images to the encoder's input, or features that were computed
//! before; captions and conversations to ids.

use crate::model::Model;
use crate::texts::Texts;
use crate::vision::VisionEncoder;
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limber_config::{Compat, Config, Data};
use limber_data::features::Stored;
use limber_data::{Item, Reading, Tokens};

/// Reads the images of a data set for an encoder.
pub struct Inputs<'a> {
    vision: &'a VisionEncoder,
    features: Option<Stored>,
    /// Whether an image is varied anew each time, where the encoder varies images.
    vary: bool,
}

impl<'a> Inputs<'a> {
    /// The inputs of a config's section `data`, whose set has `items` items.
    ///
    /// # Errors
    /// Features of another encoder, or of another data set; features together with random variation.
    pub fn new(vision: &'a VisionEncoder, config: &Config, data: &Data, items: usize) -> Result<Self> {
        let input = vision.preprocessor().input_spec();
        let is_varied = input.image().is_some_and(|spec| !spec.augment.is_none());
        let vary = is_varied && data.augment.unwrap_or(config.compat == Some(Compat::Original));
        let features = match &data.features {
            None => None,
            Some(_) if vary => bail!(
                "data.features holds one view of each image, but the encoder's images are varied anew in every epoch; \
                 set data.augment to false, or leave data.features out"
            ),
            Some(folder) => {
                let stored = Stored::open(&config.resolve(folder), &vision.expected_features(), items);
                Some(stored.context("data.features")?)
            }
        };
        Ok(Self { vision, features, vary })
    }

    /// The same without random variation, for evaluation.
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
            None => self.vision.preprocessor().picture(&item.image, self.vary.then_some(variation)),
        }
    }
}

/// Reads the items of a data set, images and captions, for a model.
pub struct Reader<'a> {
    inputs: Inputs<'a>,
    text: Texts<'a>,
}

impl<'a> Reader<'a> {
    /// A reader of a config's section `data`, whose set has `items` items.
    ///
    /// # Errors
    /// As [`Inputs::new`] and [`Texts::new`].
    pub fn new(model: &'a Model, config: &Config, data: &Data, items: usize) -> Result<Self> {
        Ok(Self { inputs: Inputs::new(model.vision(), config, data, items)?, text: Texts::new(model, config)? })
    }

    /// As [`Inputs::fixed`].
    #[must_use]
    pub fn fixed(self) -> Self {
        Self { inputs: self.inputs.fixed(), ..self }
    }

    /// What makes ids of the texts.
    pub fn texts(&self) -> &Texts<'a> {
        &self.text
    }
}

impl Reading for Reader<'_> {
    fn read(&self, item: &Item, caption: usize, variation: u64) -> Result<(Tensor, Tokens)> {
        let tokens = match item.captions.get(caption) {
            Some(caption) => self.text.caption(caption)?,
            None => self.text.conversation(&item.conversation)?,
        };
        Ok((self.inputs.input(item, variation)?, tokens))
    }
}
