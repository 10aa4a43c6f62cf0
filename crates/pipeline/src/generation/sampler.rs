//! From logits to one id: greedy, temperature, top-k, top-p, min-p, a penalty of repetitions, and the original's own nucleus.
//!
//! Order as in transformers: the penalty (Keskar et al., arXiv 1909.05858), temperature, top-k, top-p (Holtzman et al., arXiv
//! 1904.09751), min-p (Nguyen et al., arXiv 2407.01082). The penalty counts the ids that were generated, not those of the
//! prompt, as transformers does behind `inputs_embeds`. Under `compat: original` the
//! nucleus is cut before the temperature, where the cumulative probability passes 1 - top_p, as the original does.

use anyhow::{Result, bail};
use limber_config::{Compat, Config};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// How ids are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Keep the smallest set of ids whose probability reaches this; 1 keeps all.
    pub top_p: f64,
    /// Keep the k most probable ids; 0 keeps all.
    pub top_k: usize,
    /// Keep ids of at least this share of the most probable one's probability; 0 keeps all.
    pub min_p: f64,
    /// Divides positive logits of ids that were generated before, and multiplies negative ones; 1 changes nothing.
    pub repetition_penalty: f64,
    /// The original's nucleus.
    pub original_nucleus: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0, original_nucleus: false }
    }
}

impl Sampling {
    /// The sampling that a config asks for.
    pub fn of(config: &Config) -> Self {
        Self {
            temperature: config.generate.temperature,
            top_p: config.generate.top_p,
            top_k: config.generate.top_k,
            min_p: config.generate.min_p,
            repetition_penalty: config.generate.repetition_penalty,
            original_nucleus: config.compat == Some(Compat::Original),
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the setting, its value and what is allowed.
    pub fn check(&self) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            bail!("temperature {} is not allowed, it is 0 (greedy) or above", self.temperature)
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            bail!("top-p {} is not allowed, it lies above 0 and at most at 1", self.top_p)
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            bail!("min-p {} is not allowed, it lies from 0 to 1", self.min_p)
        }
        if !self.repetition_penalty.is_finite() || self.repetition_penalty <= 0.0 {
            bail!("repetition-penalty {} is not allowed, it lies above 0", self.repetition_penalty)
        }
        Ok(())
    }
}

/// Chooses the ids of one row, from its own stream of random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    /// Ids from here on are never chosen: the tokenizer cannot say them.
    limit: usize,
    rng: ChaCha8Rng,
    /// The ids that were chosen, where they are penalised.
    chosen: BTreeSet<u32>,
}

/// Ids that may be chosen with their logits.
type Candidates = Vec<(u32, f64)>;

impl Sampler {
    /// The sampler of row `row` under `seed`; what else is in the batch does not matter.
    pub fn new(sampling: Sampling, limit: usize, seed: u64, row: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(row);
        Self { sampling, limit, rng, chosen: BTreeSet::new() }
    }

    /// One id from logits `[V]`. Infinite ones are more probable than all others and equally probable among themselves.
    ///
    /// # Errors
    /// Logits that are not a number, or none above minus infinity among the ids that may be chosen.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let id = self.choose(logits)?;
        self.count(id);
        Ok(id)
    }

    /// Counts an id as chosen, for the penalty of repetitions.
    pub fn count(&mut self, id: u32) {
        if self.sampling.repetition_penalty != 1.0 {
            self.chosen.insert(id);
        }
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        let (best, kept) = self.candidates(logits)?;
        if self.sampling.temperature == 0.0 {
            return Ok(best);
        }
        let weights = probabilities(&kept, self.sampling.temperature);
        // 53 bits give every multiple of 2^-53 in 0..1 exactly.
        let mut left = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut last = best;
        for ((id, _), weight) in kept.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0) {
            if left < *weight {
                return Ok(*id);
            }
            left -= weight;
            last = *id;
        }
        // Rounding may leave a rest above the last weight.
        Ok(last)
    }

    /// The ids that may be drawn from logits `[V]` with their probabilities; the best one alone where decoding is greedy.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub fn distribution(&self, logits: &[f32]) -> Result<Vec<(u32, f64)>> {
        let (best, kept) = self.candidates(logits)?;
        if self.sampling.temperature == 0.0 {
            return Ok(vec![(best, 1.0)]);
        }
        let weights = probabilities(&kept, self.sampling.temperature);
        Ok(kept.iter().zip(weights).map(|((id, _), weight)| (*id, weight)).collect())
    }

    /// The most probable id, and those that may be drawn (none where decoding is greedy).
    fn candidates(&self, logits: &[f32]) -> Result<(u32, Candidates)> {
        let mut allowed = Cow::Borrowed(&logits[..self.limit.min(logits.len())]);
        if !self.chosen.is_empty() {
            let penalty = self.sampling.repetition_penalty as f32;
            let penalised = allowed.to_mut();
            for id in &self.chosen {
                if let Some(value) = penalised.get_mut(*id as usize) {
                    *value = if *value < 0.0 { *value * penalty } else { *value / penalty };
                }
            }
        }
        let mut best: Option<usize> = None;
        for (id, value) in allowed.iter().enumerate() {
            if value.is_nan() {
                bail!("the logit of id {id} is not a number")
            }
            if *value > best.map_or(f32::NEG_INFINITY, |best| allowed[best]) {
                best = Some(id);
            }
        }
        let Some(best) = best else {
            bail!("none of the {} ids that may be chosen has a logit above minus infinity", allowed.len())
        };
        if self.sampling.temperature == 0.0 {
            return Ok((best as u32, Vec::new()));
        }
        let numbered = allowed.iter().enumerate().map(|(id, v)| (id as u32, f64::from(*v)));
        let mut kept: Candidates = match allowed[best] {
            f32::INFINITY => numbered.filter(|(_, v)| *v == f64::INFINITY).map(|(id, _)| (id, 0.0)).collect(),
            _ => numbered.collect(),
        };
        let original = self.sampling.original_nucleus;
        if self.sampling.top_k > 0 || self.sampling.top_p < 1.0 {
            // Most probable first; equal ones by id, so that the order is the same everywhere.
            kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        }
        if self.sampling.top_k > 0 {
            kept.truncate(self.sampling.top_k);
        }
        // The original takes top-k or, without it, top-p; never both.
        let nucleus = self.sampling.top_p < 1.0 && !(original && self.sampling.top_k > 0);
        if nucleus && original {
            cut(&mut kept, 1.0 - self.sampling.top_p, 1.0);
        } else if nucleus {
            cut(&mut kept, self.sampling.top_p, self.sampling.temperature);
        }
        if self.sampling.min_p > 0.0 {
            let weights = probabilities(&kept, self.sampling.temperature);
            let least = self.sampling.min_p * weights.iter().fold(0.0, |a: f64, b| a.max(*b));
            let mut weights = weights.iter();
            kept.retain(|_| weights.next().is_some_and(|weight| *weight >= least));
        }
        Ok((best as u32, kept))
    }
}

/// Keeps the ids of a sorted list until their probability passes `mass`, the one that passes it included.
fn cut(kept: &mut Vec<(u32, f64)>, mass: f64, temperature: f64) {
    let mut sum = 0.0;
    let mut keep = 0;
    for weight in probabilities(kept, temperature) {
        sum += weight;
        keep += 1;
        if sum >= mass {
            break;
        }
    }
    kept.truncate(keep.max(1));
}

/// Softmax of logits / temperature.
fn probabilities(kept: &[(u32, f64)], temperature: f64) -> Vec<f64> {
    let max = kept.iter().map(|(_, v)| *v).fold(f64::NEG_INFINITY, f64::max);
    let mut weights: Vec<f64> = kept.iter().map(|(_, v)| ((v - max) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

/// Log-probability of `id` under logits `[V]`, over all V of them and at temperature 1, summed in f64. Infinite logits share
/// the probability among themselves, as [`Sampler::sample`] draws.
///
/// # Errors
/// A logit that is not a number, none above minus infinity.
pub fn log_softmax(logits: &[f32], id: u32) -> Result<f32> {
    let (mut max, mut infinite) = (f32::NEG_INFINITY, 0u32);
    for (id, value) in logits.iter().enumerate() {
        if value.is_nan() {
            bail!("the logit of id {id} is not a number")
        }
        max = max.max(*value);
        infinite += u32::from(*value == f32::INFINITY);
    }
    let Some(own) = logits.get(id as usize) else { bail!("id {id} has no logit, there are {}", logits.len()) };
    Ok(match max {
        f32::NEG_INFINITY => bail!("no logit is above minus infinity"),
        f32::INFINITY if *own == f32::INFINITY => -f64::from(infinite).ln() as f32,
        f32::INFINITY => f32::NEG_INFINITY,
        _ => {
            let max = f64::from(max);
            let sum: f64 = logits.iter().map(|v| (f64::from(*v) - max).exp()).sum();
            (f64::from(*own) - max - sum.ln()) as f32
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of the probabilities 0.5, 0.25, 0.15, 0.1 and, beyond the tokenizer's range, a tempting one.
    fn logits() -> Vec<f32> {
        [0.5f32, 0.25, 0.15, 0.1].iter().map(|p| p.ln()).chain([9.0]).collect()
    }

    /// How often each of the four ids is drawn in 20,000.
    fn counts(sampling: Sampling) -> [f64; 4] {
        let mut sampler = Sampler::new(sampling, 4, 1, 0);
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[sampler.sample(&logits()).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn check(sampling: Sampling, expected: [f64; 4]) {
        for (got, want) in counts(sampling).iter().zip(expected) {
            // Five standard errors at p = 1/2, n = 20,000.
            assert!((got - want).abs() < 0.018 && (want > 0.0 || *got == 0.0), "{sampling:?}: {:?}", counts(sampling));
        }
    }

    #[test]
    fn distributions() {
        let base = Sampling { temperature: 1.0, ..Sampling::default() };
        check(Sampling::default(), [1.0, 0.0, 0.0, 0.0]);
        check(base, [0.5, 0.25, 0.15, 0.1]);
        check(Sampling { top_k: 2, ..base }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        check(Sampling { top_p: 0.7, ..base }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        check(Sampling { top_p: 0.76, ..base }, [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0]);
        // At temperature 1/2 the squares count: 0.25 of 0.345 reach 0.7 alone.
        check(Sampling { top_p: 0.7, temperature: 0.5, ..base }, [1.0, 0.0, 0.0, 0.0]);
        // The original: 0.5 passes 1 - 0.9 at once, and 1 - 0.3 = 0.7 keeps two, whatever the temperature.
        let original = Sampling { original_nucleus: true, ..base };
        check(Sampling { top_p: 0.9, ..original }, [1.0, 0.0, 0.0, 0.0]);
        check(Sampling { top_p: 0.3, temperature: 0.5, ..original }, [0.8, 0.2, 0.0, 0.0]);
    }

    #[test]
    fn a_seed_and_a_row_fix_the_draws() {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let draw = |seed, row| {
            let mut sampler = Sampler::new(sampling, 4, seed, row);
            (0..32).map(|_| sampler.sample(&logits()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn ranges_are_checked() {
        let check = |sampling: Sampling, expected: &str| {
            assert!(sampling.check().unwrap_err().to_string().contains(expected));
        };
        check(Sampling { temperature: -1.0, ..Sampling::default() }, "temperature -1 is not allowed");
        check(Sampling { temperature: f64::NAN, ..Sampling::default() }, "temperature NaN is not allowed");
        check(Sampling { top_p: 0.0, ..Sampling::default() }, "top-p 0 is not allowed");
        check(Sampling { top_p: 1.5, ..Sampling::default() }, "top-p 1.5 is not allowed");
        check(Sampling { min_p: -0.1, ..Sampling::default() }, "min-p -0.1 is not allowed");
        check(Sampling { min_p: f64::NAN, ..Sampling::default() }, "min-p NaN is not allowed");
        check(Sampling { repetition_penalty: 0.0, ..Sampling::default() }, "repetition-penalty 0 is not allowed");
    }

    #[test]
    fn what_was_chosen_is_penalised_and_what_is_unlikely_left_out() {
        let base = Sampling { temperature: 1.0, ..Sampling::default() };
        check(Sampling { min_p: 0.4, ..base }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        check(Sampling { min_p: 0.2, temperature: 0.5, ..base }, [0.8, 0.2, 0.0, 0.0]);
        // Greedy: 2 / 1.5 falls below 1.5, then -1 * 1.5 is what is left of the lower ones.
        let greedy = Sampling { repetition_penalty: 1.5, ..Sampling::default() };
        let mut sampler = Sampler::new(greedy, 3, 0, 0);
        let said: Vec<u32> = (0..4).map(|_| sampler.sample(&[2.0, 1.5, -1.0]).unwrap()).collect();
        assert_eq!(said, [0, 1, 0, 0]);
        assert_eq!(sampler.sample(&[-0.5, -0.6, -0.7]).unwrap(), 2);
    }

    /// Every way of sampling.
    fn every() -> [Sampling; 5] {
        let warm = Sampling { temperature: 0.7, ..Sampling::default() };
        [
            Sampling::default(),
            warm,
            Sampling { top_k: 2, ..warm },
            Sampling { top_p: 0.9, ..warm },
            Sampling { top_p: 0.1, original_nucleus: true, ..warm },
        ]
    }

    #[test]
    fn infinite_logits_win_and_share_the_draws() {
        const INF: f32 = f32::INFINITY;
        for sampling in every() {
            let mut sampler = Sampler::new(sampling, 5, 1, 0);
            assert_eq!(sampler.sample(&[0.0, 1.0, INF, 2.0, -INF, 9.0]).unwrap(), 2, "{sampling:?}");
            let mut counts = [0; 5];
            for _ in 0..2_000 {
                counts[sampler.sample(&[INF, 3.0, -INF, INF, f32::MAX, INF]).unwrap() as usize] += 1;
            }
            // Greedy takes the first of equal ones; five standard errors at p = 1/2, n = 2,000 are 112.
            let expected = if sampling.temperature == 0.0 { 2_000 } else { 1_000 };
            assert!(counts[0] >= expected - 112 && counts[0] + counts[3] == 2_000, "{sampling:?}: {counts:?}");
        }
        assert_eq!(log_softmax(&[INF, 3.0, INF, -INF], 2).unwrap(), 0.5f32.ln());
        assert_eq!(log_softmax(&[INF, 3.0], 1).unwrap(), -INF);
        assert_eq!(log_softmax(&[0.0, -INF, 0.0], 0).unwrap(), 0.5f32.ln());
    }

    #[test]
    fn what_has_no_probability_is_never_drawn() {
        for sampling in every() {
            let mut sampler = Sampler::new(sampling, 4, 1, 0);
            for _ in 0..1_000 {
                assert_eq!(
                    sampler.sample(&[f32::NEG_INFINITY, -9.0, f32::NEG_INFINITY, f32::NEG_INFINITY]).unwrap(),
                    1
                );
            }
        }
    }

    #[test]
    fn logits_without_an_answer_are_errors() {
        let low = f32::NEG_INFINITY;
        for sampling in every() {
            let message =
                |logits: &[f32], limit| Sampler::new(sampling, limit, 0, 0).sample(logits).unwrap_err().to_string();
            assert_eq!(message(&[0.0, f32::NAN, f32::INFINITY], 4), "the logit of id 1 is not a number");
            let none = "none of the 2 ids that may be chosen has a logit above minus infinity";
            assert_eq!(message(&[low, low], 4), none);
            assert_eq!(message(&[low, low, 1.0], 2), none);
            assert!(message(&[1.0], 0).starts_with("none of the 0 ids"));
        }
        let message = |logits: &[f32], id| log_softmax(logits, id).unwrap_err().to_string();
        assert_eq!(message(&[0.0, f32::NAN], 0), "the logit of id 1 is not a number");
        assert_eq!(message(&[low, low], 0), "no logit is above minus infinity");
        assert_eq!(message(&[0.0], 3), "id 3 has no logit, there are 1");
    }

    #[test]
    fn log_probabilities_are_over_all_rows() {
        let all: f64 = (0..5).map(|id| f64::from(log_softmax(&logits(), id).unwrap()).exp()).sum();
        assert!((all - 1.0).abs() < 1e-6);
    }
}
