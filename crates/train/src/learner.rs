//! What a step trains: a model's stitch, with the standardisation of its features before it.

use super::standard::Standard;
use anyhow::Result;
use candle_core::Tensor;
use limber_core::Mode;
use limber_core::weights::FrozenData;
use limber_pipeline::model::Model;
use std::collections::BTreeMap;

use super::checkpoint;
use candle_core::Var;

/// A model whose stitch is trained.
pub struct Learner<'a> {
    /// The components.
    pub model: &'a Model,
    standard: Option<Standard>,
}

impl<'a> Learner<'a> {
    /// The learner of a run; `standard` is what its features are standardised by.
    pub fn new(model: &'a Model, standard: Option<Standard>) -> Self {
        Self { model, standard }
    }

    /// What features are standardised by.
    pub fn standard(&self) -> Option<&Standard> {
        self.standard.as_ref()
    }

    /// The features `[B, N, E]` of inputs, as the stitch learns from them.
    ///
    /// # Errors
    /// What the encoder reports.
    pub fn features(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let features = self.model.features(inputs)?;
        Ok(match &self.standard {
            Some(standard) => standard.apply(&features)?,
            None => features,
        })
    }

    /// The prefixes `[B, K, D]` of inputs, with the graph of the stitch.
    ///
    /// # Errors
    /// What encoder and stitch report.
    pub fn prefix(&self, inputs: &[Tensor], mode: Mode) -> Result<Tensor> {
        Ok(self.model.stitch().project(&self.features(inputs)?, mode)?)
    }

    /// The stitch's file: `variables` with the standardisation folded in, so that it takes the encoder's own features.
    ///
    /// # Errors
    /// Variables that cannot be read.
    pub fn export(&self, variables: &BTreeMap<String, Var>) -> Result<BTreeMap<String, FrozenData>> {
        let tensors = checkpoint::tensors(variables)?;
        match &self.standard {
            Some(standard) => standard.fold(tensors),
            None => Ok(tensors),
        }
    }
}
