//! What a step trains: a model's stitch, with what stands before it (standardised features) and behind it (a prompt).

use super::standard::Standard;
use anyhow::{Context, Result};
use candle_core::Tensor;
use limber_config::Train;
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
    /// `[1, P, D]`: the text between prefix and caption.
    prompt: Option<Tensor>,
}

impl<'a> Learner<'a> {
    /// The learner of a run; `standard` is what its features are standardised by.
    ///
    /// # Errors
    /// A prompt that cannot be tokenised.
    pub fn new(model: &'a Model, settings: &Train, standard: Option<Standard>) -> Result<Self> {
        let ids = match &settings.prompt {
            Some(text) => model.tokenizer().encode(text).context("section \"train\", key \"prompt\"")?,
            None => Vec::new(),
        };
        let prompt = if ids.is_empty() { None } else { Some(model.language().embed(&ids)?.detach()) };
        Ok(Self { model, standard, prompt })
    }

    /// What features are standardised by.
    pub fn standard(&self) -> Option<&Standard> {
        self.standard.as_ref()
    }

    /// Tokens between prefix and caption.
    pub fn prompt_tokens(&self) -> Result<usize> {
        Ok(match &self.prompt {
            Some(prompt) => prompt.dim(1)?,
            None => 0,
        })
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

    /// A prefix `[B, K, D]` with the prompt behind it, `[B, K + P, D]`.
    ///
    /// # Errors
    /// No memory.
    pub fn with_prompt(&self, prefix: &Tensor) -> Result<Tensor> {
        let Some(prompt) = &self.prompt else { return Ok(prefix.clone()) };
        let (_, p, d) = prompt.dims3()?;
        let prompt = prompt.expand((prefix.dim(0)?, p, d))?.contiguous()?;
        Ok(Tensor::cat(&[prefix, &prompt], 1)?)
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
