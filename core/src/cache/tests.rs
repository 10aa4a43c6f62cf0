//! Keys and values are those of their sequences wherever these go; what does not fit is refused and changes nothing.

use super::*;
use crate::spec::DecoderSpec;
use crate::weights::{Init, Weights};
use candle_core::{DType, Tensor};

const SPEC: DecoderSpec =
    DecoderSpec { width: 6, vocab: 1, layers: 2, kv_heads: 2, head_dim: 3, context: 32, eos: Vec::new() };

fn noise(b: usize, t: usize, seed: u64) -> Tensor {
    Weights::random(seed).tensor("x", &[b, 2, t, 3], Init::normal(1.0)).unwrap()
}

fn empty(batch: usize, slots: usize, dtype: CacheType) -> KvCache {
    KvCache::new(&SPEC, &CacheOptions::new(batch, 10).with_type(dtype).with_slots(slots)).unwrap()
}

/// Sequences of lengths 4, 2 and 3, the same in both layers but for the seed.
fn filled(dtype: CacheType, slots: usize) -> KvCache {
    let mut cache = empty(3, slots, dtype);
    for layer in 0..2 {
        cache.append(layer, &noise(3, 4, layer as u64), &noise(3, 4, 9 + layer as u64)).unwrap();
    }
    cache.advance(&[4, 2, 3]).unwrap();
    cache
}

/// What is seen of each sequence: keys and values of layer 1 up to its length.
fn seen(cache: &mut dyn DecoderCache) -> Vec<Vec<f32>> {
    let cache: &mut KvCache = cache.downcast_mut().unwrap();
    let b = cache.lengths().len();
    let (k, v) = cache.append(1, &noise(b, 1, 77), &noise(b, 1, 78)).unwrap();
    let flat = |x: &Tensor| x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let sequence = |r: usize| {
        let len = cache.lengths()[r];
        let part = |x: &Tensor| flat(&x.get(r).unwrap().narrow(1, 0, len).unwrap());
        [part(&k), part(&v)].concat()
    };
    (0..b).map(sequence).collect()
}

#[test]
fn sequences_finish_and_are_admitted_in_every_type() {
    for dtype in [CacheType::F32, CacheType::F16, CacheType::Bf16] {
        let all = seen(&mut filled(dtype, 3));
        for sequences in [&[2, 1][..], &[0, 2], &[1, 0, 1], &[2, 2, 2, 2], &[]] {
            let expected: Vec<Vec<f32>> = sequences.iter().map(|r| all[*r].clone()).collect();
            let mut cache = filled(dtype, 3);
            cache.select_sequences(sequences).unwrap();
            if !sequences.is_empty() {
                assert_eq!(seen(&mut cache), expected, "{dtype:?} {sequences:?}");
            }
            let mut grown = filled(dtype, 3).copy_sequences(sequences, 5, 20).unwrap();
            assert_eq!(grown.capacity(), 20);
            if !sequences.is_empty() {
                assert_eq!(seen(grown.as_mut()), expected, "{dtype:?} {sequences:?}");
            }
        }
        // Into free slots, into too few of them, into an empty cache, and from a longer one.
        for (slots, capacity) in [(8, 10), (3, 10), (3, 30)] {
            let mut cache = filled(dtype, slots);
            let other = filled(dtype, 3).copy_sequences(&[1, 2], 2, capacity).unwrap();
            cache.push_sequences(other.as_ref()).unwrap();
            assert_eq!((cache.lengths(), cache.capacity()), (&[4, 2, 3, 2, 3][..], capacity));
            let expected = [0, 1, 2, 1, 2].map(|r: usize| all[r].clone());
            assert_eq!(seen(&mut cache), expected, "{dtype:?} {slots} {capacity}");
        }
        let mut none = empty(0, 4, dtype);
        none.push_sequences(&filled(dtype, 3)).unwrap();
        assert_eq!(seen(&mut none), all);
    }
}

#[test]
fn positions_are_taken_back() {
    let mut cache = filled(CacheType::F32, 3);
    let all = seen(&mut cache);
    cache.truncate(3).unwrap();
    assert_eq!(cache.lengths(), [3, 2, 3]);
    let shorter = seen(&mut cache);
    assert_eq!(shorter[1..], all[1..]);
    // Two heads of three positions of three numbers, of the four there were.
    assert_eq!((shorter[0].len(), &shorter[0][..9]), (36, &all[0][..9]));
    cache.truncate(9).unwrap();
    assert_eq!(cache.lengths(), [3, 2, 3]);
}

#[track_caller]
fn refused<T>(result: Result<T>, expected: &str) {
    let message = result.err().expect("refused").to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut cache = filled(CacheType::F32, 3);
    refused(cache.select_sequences(&[3]), "sequence 3 is not in 0..3");
    refused(
        cache.copy_sequences(&[0], 1, 3),
        "1 sequences of up to 4 positions do not fit a cache of 1 sequences of 3",
    );
    refused(cache.copy_sequences(&[0, 1], 1, 9), "do not fit a cache of 1 sequences");
    refused(cache.copy_sequences(&[0], 1, 33), "context length, which allows 32");
    refused(KvCache::new(&SPEC, &CacheOptions::new(1, 33)), "context length, which allows 32");
    refused(
        cache.push_sequences(&filled(CacheType::F16, 3)),
        "sequences of a cache of 2 layers of 2 heads of width 3 in f16 do not fit one of 2 layers of 2 heads of width 3 in f32",
    );
    refused(cache.append(2, &noise(3, 1, 1), &noise(3, 1, 1)), "layer 2 is not in 0..2");
    refused(
        cache.append(0, &noise(3, 7, 1), &noise(3, 7, 1)),
        "11 positions are more than the cache holds, which is 10",
    );
    refused(cache.append(0, &noise(2, 1, 1), &noise(2, 1, 1)), "do not fit a cache of [3, 2, 10, 3]");
    refused(cache.append(0, &noise(3, 1, 1), &noise(3, 2, 1)), "values of [3, 2, 2, 3] do not fit");
    refused(cache.advance(&[1, 1]), "2 lengths for a cache of 3 sequences");
    // The first sequence would fit; nothing changes where another does not.
    refused(cache.advance(&[1, 9, 1]), "11 positions are more");
    refused(cache.advance(&[1, usize::MAX, 1]), "positions are more");
    assert_eq!((cache.lengths(), cache.capacity()), (&[4, 2, 3][..], 10));
}

/// A cache that counts positions and keeps nothing, as a decoder without our keys and values would have one.
struct Counted(SequenceLengths);

impl DecoderCache for Counted {
    fn sequences(&self) -> &SequenceLengths {
        &self.0
    }

    fn truncate(&mut self, length: usize) -> Result<()> {
        self.0.truncate(length);
        Ok(())
    }

    fn select_sequences(&mut self, sequences: &[usize]) -> Result<()> {
        self.0 = self.0.select(sequences)?;
        Ok(())
    }

    fn copy_sequences(&self, sequences: &[usize], slots: usize, capacity: usize) -> Result<Box<dyn DecoderCache>> {
        Ok(Box::new(Self(self.0.copy(sequences, slots, capacity)?)))
    }

    fn push_sequences(&mut self, other: &dyn DecoderCache) -> Result<()> {
        self.0 = self.0.push(&other.downcast_ref::<Self>()?.0);
        Ok(())
    }
}

#[test]
fn lengths_follow_their_sequences() {
    let mut cache = Counted(SequenceLengths::new(&CacheOptions::new(2, 10).with_slots(5), 32).unwrap());
    cache.0.advance(&[4, 6]).unwrap();
    cache.truncate(5).unwrap();
    assert_eq!((cache.lengths(), cache.0.slots(), cache.0.longest()), (&[4, 5][..], 5, 5));
    let copy = cache.copy_sequences(&[1, 1, 0], 4, 20).unwrap();
    assert_eq!((copy.lengths(), copy.capacity()), (&[5, 5, 4][..], 20));
    cache.select_sequences(&[1]).unwrap();
    cache.push_sequences(copy.as_ref()).unwrap();
    assert_eq!((cache.lengths(), cache.capacity(), cache.0.slots()), (&[5, 5, 5, 4][..], 20, 5));
    cache.select_sequences(&[0, 1, 2, 3, 3, 3]).unwrap();
    assert_eq!((cache.0.batch(), cache.0.slots()), (6, 6));
}

#[test]
fn the_cache_of_another_decoder_is_refused_by_name() {
    let mut counted = Counted(SequenceLengths::new(&CacheOptions::new(1, 10), 32).unwrap());
    let mut kept = filled(CacheType::F32, 3);
    let message = "the cache is that of another decoder: it is a limber_core::cache::tests::Counted, \
                   expected a limber_core::cache::kv::KvCache";
    refused(kept.push_sequences(&counted), message);
    refused(counted.push_sequences(&kept), "expected a limber_core::cache::tests::Counted");
    let mut run = crate::Run::cached(&mut counted);
    refused(run.cache_as::<KvCache>().map(|_| ()), message);
    assert!(run.cache_as::<Counted>().unwrap().is_some());
    assert!(crate::Run::new().cache_as::<KvCache>().unwrap().is_none());
}
