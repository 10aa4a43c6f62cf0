//! A decoder with a cache type of its own generates as one without a cache does: sequences that share a prefix, are
//! admitted while others run, and finish at different steps.

use candle_core::{Device, Result, Tensor};
use limber::core::decoder::select_positions;
use limber::core::{
    CacheOptions, CacheType, Decoder, DecoderCache, DecoderSpec, Init, KvCache, Run, SequenceLengths, Weights,
};
use limber::generation::{Request, Sampling, generate};
use std::sync::atomic::{AtomicUsize, Ordering};

const D: usize = 8;
const V: usize = 23;

/// After each position, the running average of the embeddings, which halves what it held at every step.
#[derive(Clone)]
struct Averages {
    kept: Vec<Vec<[f32; D]>>,
    lengths: SequenceLengths,
}

impl Averages {
    /// What `lengths` says of other sequences: those listed, cut to their lengths.
    fn of(&self, sequences: &[usize], lengths: SequenceLengths) -> Self {
        Self { kept: sequences.iter().map(|sequence| self.kept[*sequence].clone()).collect(), lengths }
    }
}

impl DecoderCache for Averages {
    fn sequences(&self) -> &SequenceLengths {
        &self.lengths
    }

    fn truncate(&mut self, length: usize) -> Result<()> {
        self.lengths.truncate(length);
        self.kept.iter_mut().for_each(|sequence| sequence.truncate(length));
        Ok(())
    }

    fn select_sequences(&mut self, sequences: &[usize]) -> Result<()> {
        *self = self.of(sequences, self.lengths.select(sequences)?);
        Ok(())
    }

    fn copy_sequences(&self, sequences: &[usize], slots: usize, capacity: usize) -> Result<Box<dyn DecoderCache>> {
        Ok(Box::new(self.of(sequences, self.lengths.copy(sequences, slots, capacity)?)))
    }

    fn push_sequences(&mut self, other: &dyn DecoderCache) -> Result<()> {
        let other: &Self = other.downcast_ref()?;
        self.lengths = self.lengths.push(&other.lengths);
        self.kept.extend_from_slice(&other.kept);
        Ok(())
    }
}

/// Logits are products of that average with each word; counts the positions that it computes.
struct Averaging {
    words: Tensor,
    computed: AtomicUsize,
}

impl Averaging {
    fn new() -> Self {
        let words = Weights::random(3).tensor("words", &[V, D], Init::normal(1.0)).unwrap();
        Self { words, computed: AtomicUsize::new(0) }
    }
}

impl Decoder for Averaging {
    fn spec(&self) -> DecoderSpec {
        DecoderSpec { width: D, vocab: V, layers: 1, kv_heads: 1, head_dim: D, context: 64, eos: vec![7] }
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        self.words.index_select(&ids.flatten_all()?, 0)?.reshape((b, t, D))
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> Result<Tensor> {
        let (b, t, _) = embeds.dims3()?;
        let lengths = run.sequence_lengths(b, t)?;
        let mut none = Averages { kept: vec![vec![]; b], lengths: SequenceLengths::new(&CacheOptions::new(b, t), 64)? };
        let cache = run.cache_as::<Averages>()?.unwrap_or(&mut none);
        let mut out = vec![[0f32; D]; b * t];
        for (sequence, inputs) in embeds.to_vec3::<f32>()?.iter().enumerate() {
            for (at, input) in inputs.iter().enumerate().take(lengths[sequence]) {
                let before = cache.kept[sequence].last().copied().unwrap_or([0.0; D]);
                out[sequence * t + at] = std::array::from_fn(|i| 0.5 * before[i] + input[i]);
                cache.kept[sequence].push(out[sequence * t + at]);
                self.computed.fetch_add(1, Ordering::Relaxed);
            }
        }
        cache.lengths.advance(&lengths)?;
        let hidden = Tensor::from_vec(out.concat(), (b, t, D), &Device::Cpu)?;
        let hidden = select_positions(&hidden, &run.logits, &lengths)?;
        // Away from what was said: the words nearest to the average would be said again without end.
        hidden.broadcast_matmul(&self.words.t()?.neg()?)
    }

    fn new_cache(&self, options: &CacheOptions) -> Result<Box<dyn DecoderCache>> {
        let lengths = SequenceLengths::new(options, self.spec().context)?;
        Ok(Box::new(Averages { kept: vec![vec![]; options.batch], lengths }))
    }
}

/// Ten greedy tokens of one prompt, all positions computed again for each.
fn uncached(decoder: &Averaging, prompt: &Tensor) -> Vec<u32> {
    let (mut embeds, mut tokens) = (prompt.clone(), Vec::new());
    while tokens.len() < 10 {
        let logits = decoder.forward(&embeds, &mut Run::new()).unwrap();
        let last = logits.get(0).unwrap().get(embeds.dim(1).unwrap() - 1).unwrap();
        let id = last.argmax(0).unwrap().to_scalar::<u32>().unwrap();
        tokens.push(id);
        let next = decoder.embed(&Tensor::new(&[[id]], &Device::Cpu).unwrap()).unwrap();
        embeds = Tensor::cat(&[&embeds, &next], 1).unwrap();
    }
    tokens
}

#[test]
fn a_cache_of_its_own_generates_the_same_text() {
    let decoder = Averaging::new();
    // Twelve common positions, then zero to six of their own.
    let prompt = |n: usize| {
        let ids: Vec<u32> = (0..12).chain((0..n % 7).map(|i| (5 * n + 3 * i + 1) % V)).map(|id| id as u32).collect();
        let noise = Weights::random(n as u64).tensor("noise", &[1, ids.len() - 12 + 1, D], Init::normal(0.3)).unwrap();
        let shared = decoder.embed(&Tensor::new(&ids[..11], &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap();
        let own = decoder.embed(&Tensor::new(&ids[11..], &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap();
        Tensor::cat(&[&shared, &own.add(&noise).unwrap()], 1).unwrap()
    };
    let prompts: Vec<Tensor> = (0..9).map(prompt).collect();
    let whole: Vec<Vec<u32>> = prompts.iter().map(|p| uncached(&decoder, p)).collect();
    // A token that ends some at different steps and others not at all, so that sequences finish and are admitted while
    // others run.
    let cut = |eos: u32| -> Vec<Vec<u32>> {
        whole.iter().map(|all| all.iter().copied().take_while(|id| *id != eos).collect()).collect()
    };
    let ends = |eos: &u32| cut(*eos).iter().map(Vec::len).collect::<std::collections::BTreeSet<_>>();
    let eos = (0..V as u32).filter(|eos| ends(eos).contains(&10)).max_by_key(|eos| ends(eos).len()).unwrap();
    assert!(ends(&eos).len() > 2, "{whole:?}");
    let expected = cut(eos);
    for batch in [1, 2, 3, 9] {
        decoder.computed.store(0, Ordering::Relaxed);
        let (sampling, eos) = (Sampling::default(), vec![eos]);
        let request =
            Request { max_tokens: 10, sampling, seed: 0, limit: V, eos, stop: None, batch, cache: CacheType::F32 };
        let texts = generate(&decoder, &prompts, &request, &mut |_, _| Ok(())).unwrap();
        let tokens: Vec<Vec<u32>> = texts.into_iter().map(|text| text.tokens).collect();
        assert_eq!(tokens, expected, "batch {batch}");
        // Each position once: the shared ones not for every prompt.
        let own: usize = prompts.iter().map(|p| p.dim(1).unwrap() - 11).sum();
        let steps: usize = expected.iter().map(|tokens| tokens.len().min(9)).sum();
        let computed = decoder.computed.load(Ordering::Relaxed);
        assert!(computed <= own + steps + 3 * 12, "{computed} positions, {own} and {steps} of them not shared");
    }
}

#[test]
fn caches_of_other_decoders_are_refused() {
    let decoder = Averaging::new();
    let mut other = KvCache::new(&decoder.spec(), &CacheOptions::new(1, 8)).unwrap();
    let embeds = Tensor::zeros((1, 2, D), candle_core::DType::F32, &Device::Cpu).unwrap();
    let message = decoder.forward(&embeds, &mut Run::cached(&mut other)).unwrap_err().to_string();
    assert!(
        message.contains("the cache is that of another decoder: it is a limber_core::cache::kv::KvCache"),
        "{message}"
    );
    let mut own = decoder.new_cache(&CacheOptions::new(1, 8)).unwrap();
    let message = own.push_sequences(&other).unwrap_err().to_string();
    assert!(message.contains("expected a") && message.contains("Averages"), "{message}");
}
