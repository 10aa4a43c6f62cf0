//! `LanguageModel`: a frozen decoder with its tokenizer.

use crate::components::{Ready, tokenizer};
use crate::generation::log_softmax;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use limber_config::Config;
use limber_core::registry::{PreparedDecoder, Role};
use limber_core::{Decoder, DecoderSpec, LogitPositions, Run};
use limber_text::Tokenizer;

/// A frozen decoder with its tokenizer.
pub struct LanguageModel {
    decoder: Box<dyn Decoder>,
    spec: DecoderSpec,
    tokenizer: Tokenizer,
    device: Device,
    bytes: u64,
}

impl LanguageModel {
    pub(crate) fn build(config: &Config, ready: Ready<PreparedDecoder>) -> Result<Self> {
        let spec = ready.prepared.spec.clone();
        let tokenizer = tokenizer(config, ready.weights.source().as_ref(), &spec).context("section \"decoder\"")?;
        let device = ready.weights.device().clone();
        let (decoder, weights) = ready.build(Role::Decoder)?;
        Ok(Self { decoder, spec, tokenizer, device, bytes: weights.bytes() })
    }

    /// Bytes of the decoder's weights.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The decoder.
    pub fn decoder(&self) -> &dyn Decoder {
        self.decoder.as_ref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Ids from here on are never sampled: the tokenizer cannot say them.
    pub fn limit(&self) -> usize {
        self.tokenizer.limit().min(self.spec.vocab)
    }

    /// The ids that end a text.
    pub fn eos(&self) -> &[u32] {
        &self.spec.eos
    }

    /// Word embeddings `[1, T, D]` of ids.
    ///
    /// # Errors
    /// An id that is no row of the table.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(ids, &self.device)?.unsqueeze(0)?;
        Ok(self.decoder.embed(&ids)?)
    }

    /// Log-probabilities of `tokens`, one each, after the embeddings `before` `[1, P, D]`.
    ///
    /// # Errors
    /// No token; more positions than the decoder's context length; logits that are not a number.
    pub fn score(&self, before: &Tensor, tokens: &[u32]) -> Result<Vec<f32>> {
        // The last token predicts nothing that is asked for, so it is not read.
        let Some((_, read)) = tokens.split_last() else { bail!("there is no token to score") };
        let embeds = if read.is_empty() { before.clone() } else { Tensor::cat(&[before, &self.embed(read)?], 1)? };
        let first = before.dim(1)? - 1;
        let mut run = Run::new();
        run.logits = LogitPositions::At((0..tokens.len()).map(|i| (0, first + i)).collect());
        let logits = self.decoder.forward(&embeds, &mut run).context("the text could not be scored")?;
        let table = logits.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
        let scored = table.iter().zip(tokens).enumerate();
        scored
            .map(|(at, (row, id))| log_softmax(row, *id).with_context(|| format!("token {} of the text", at + 1)))
            .collect()
    }
}
