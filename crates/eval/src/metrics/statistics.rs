//! How sure a score is: bootstrap confidence intervals, and paired tests between two runs over the same items.
//!
//! Items are drawn with replacement (Efron 1979), the percentiles of the scores of such sets are the interval. Two runs
//! are compared over the same draws; the p-value is that of a randomisation test, which exchanges the runs' results
//! item by item at random (Noreen 1989; Riezler and Maxwell 2005 for BLEU and its like).

use super::measure::{Measure, weighted};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use serde::Serialize;

/// How a bootstrap is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resampling {
    /// Number of sets that are drawn; 0 for no interval.
    pub draws: usize,
    /// The seed of the draws.
    pub seed: u64,
    /// The share of the drawn scores that lies in an interval.
    pub level: f64,
    /// Number of runs, from as many seeds, that follow each other in the items, each over the same examples: both seeds and
    /// examples are taken as drawn from more, and two runs are exchanged example by example.
    pub seeds: usize,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { draws: 1000, seed: 0, level: 0.95, seeds: 1 }
    }
}

/// The ends of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Two runs in one score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// The first run's score less the second's.
    pub difference: f64,
    /// The interval of the difference.
    pub interval: Interval,
    /// The probability of a difference at least as large, either way, if both runs were the same; two-sided.
    pub p: f64,
}

/// The interval of each measure; none where nothing is drawn or there are no items.
pub fn intervals(measures: &[&Measure], resampling: Resampling) -> Vec<Option<Interval>> {
    let n = measures.first().map_or(0, |m| m.len());
    if resampling.draws == 0 || n == 0 {
        return vec![None; measures.len()];
    }
    let drawn: Vec<Vec<f64>> = (0..resampling.draws)
        .into_par_iter()
        .map(|draw| {
            let weights = weights(n, resampling, draw);
            weighted(measures, |i| weights[i])
        })
        .collect();
    (0..measures.len()).map(|m| Some(interval(drawn.iter().map(|d| d[m]).collect(), resampling.level))).collect()
}

/// Compares two runs in each measure; the lists hold the same measures over the same items.
pub fn compare(pairs: &[(&Measure, &Measure)], resampling: Resampling) -> Vec<Comparison> {
    let n = pairs.first().map_or(0, |(a, _)| a.len());
    let nothing = Interval { low: 0.0, high: 0.0 };
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a.value() - b.value()).collect();
    if resampling.draws == 0 || n == 0 {
        let one = |difference: &f64| Comparison { difference: *difference, interval: nothing, p: 1.0 };
        return differences.iter().map(one).collect();
    }
    let (firsts, seconds): (Vec<&Measure>, Vec<&Measure>) = pairs.iter().copied().unzip();
    let drawn: Vec<Vec<(f64, f64)>> = (0..resampling.draws)
        .into_par_iter()
        .map(|draw| {
            let weights = weights(n, resampling, draw);
            let examples = n / resampling.seeds.max(1);
            let swaps = swaps(examples, resampling.seed, draw);
            let swapped = |i: usize| swaps[i % examples / 64] >> (i % examples % 64) & 1 == 1;
            let first = weighted(&firsts, |i| weights[i]);
            let second = weighted(&seconds, |i| weights[i]);
            pairs
                .iter()
                .zip(first.iter().zip(&second))
                .map(|((a, b), (first, second))| (first - second, a.mixed(b, swapped) - b.mixed(a, swapped)))
                .collect()
        })
        .collect();
    differences
        .iter()
        .enumerate()
        .map(|(m, difference)| {
            // Sums in another order differ in the last digits.
            let reach = difference.abs() * (1.0 - 1e-9) - 1e-15;
            let as_far = drawn.iter().filter(|d| d[m].1.abs() >= reach).count();
            Comparison {
                difference: *difference,
                interval: interval(drawn.iter().map(|d| d[m].0).collect(), resampling.level),
                p: (as_far + 1) as f64 / (resampling.draws + 1) as f64,
            }
        })
        .collect()
}

/// How often each of `n` items is drawn; a draw depends on seed and number alone.
fn weights(n: usize, resampling: Resampling, draw: usize) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(resampling.seed);
    rng.set_stream(2 * draw as u64);
    let mut counts = |n: usize| {
        let mut counts = vec![0; n];
        for _ in 0..n {
            counts[((u128::from(rng.next_u64()) * n as u128) >> 64) as usize] += 1;
        }
        counts
    };
    match resampling.seeds {
        0 | 1 => counts(n),
        seeds => {
            let (of_seed, of_example) = (counts(seeds), counts(n / seeds));
            of_seed.iter().flat_map(|seed| of_example.iter().map(move |example| seed * example)).collect()
        }
    }
}

/// One bit an item: whether the runs are exchanged.
fn swaps(n: usize, seed: u64, draw: usize) -> Vec<u64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(2 * draw as u64 + 1);
    (0..n.div_ceil(64)).map(|_| rng.next_u64()).collect()
}

/// The middle `level` of the values, between neighbours in proportion.
fn interval(mut values: Vec<f64>, level: f64) -> Interval {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let position = share * (values.len() - 1) as f64;
        let (low, rest) = (position.floor() as usize, position.fract());
        let high = (low + 1).min(values.len() - 1);
        values[low] * (1.0 - rest) + values[high] * rest
    };
    let tail = (1.0 - level) / 2.0;
    Interval { low: at(tail), high: at(1.0 - tail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_that_of_its_standard_error() {
        let measure = Measure::Mean((0..2000).map(|i| f64::from(i % 2)).collect());
        let found = intervals(&[&measure], Resampling { draws: 4000, ..Resampling::default() })[0].unwrap();
        // 1.96 standard errors of sqrt(0.25 / 2000); the percentiles of 4000 draws are known to about 4 %.
        let half = 1.96 * (0.25f64 / 2000.0).sqrt();
        assert!((found.low - (0.5 - half)).abs() < 0.1 * half, "{found:?}");
        assert!((found.high - (0.5 + half)).abs() < 0.1 * half, "{found:?}");
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut held = 0;
        for trial in 0..400 {
            let mut rng = ChaCha8Rng::seed_from_u64(trial);
            let items = (0..200).map(|_| f64::from(u8::from(rng.next_u64() % 10 < 3))).collect();
            let resampling = Resampling { draws: 300, seed: trial, ..Resampling::default() };
            let found = intervals(&[&Measure::Mean(items)], resampling)[0].unwrap();
            held += u32::from(found.low <= 0.3 && 0.3 <= found.high);
        }
        // 95 % of 400, less what a percentile interval of 200 items falls short and three standard errors (13).
        assert!((362..=397).contains(&held), "{held}");
    }

    #[test]
    fn equal_runs_do_not_differ_and_different_ones_do() {
        let a = Measure::Mean((0..500).map(|i| f64::from(i % 5)).collect());
        let better = Measure::Mean((0..500).map(|i| f64::from(i % 5) + f64::from(u8::from(i % 10 == 0))).collect());
        let found = compare(&[(&a, &a), (&better, &a)], Resampling::default());
        assert_eq!((found[0].difference, found[0].p), (0.0, 1.0));
        assert_eq!(found[0].interval, Interval { low: 0.0, high: 0.0 });
        assert!((found[1].difference - 0.1).abs() < 1e-12);
        assert!(found[1].p < 0.01 && found[1].interval.low > 0.0, "{:?}", found[1]);
    }

    #[test]
    fn seeds_are_drawn_too_and_exchanged_together() {
        let drawn = |seeds| Resampling { draws: 2000, seeds, ..Resampling::default() };
        // Seeds that differ and examples that do not: the interval is that of the seeds.
        let seeds = Measure::Mean([0.2, 0.5, 0.8].into_iter().flat_map(|x| vec![x; 50]).collect());
        let found = intervals(&[&seeds], drawn(3))[0].unwrap();
        assert!((found.low - 0.2).abs() < 1e-9 && (found.high - 0.8).abs() < 1e-9, "{found:?}");
        // Examples that differ alike in every seed: 1.96 standard errors of one seed's examples, not of all 600 items.
        let examples = Measure::Mean((0..600).map(|i| f64::from(i % 2)).collect());
        let found = intervals(&[&examples], drawn(3))[0].unwrap();
        let half = 1.96 * (0.25f64 / 200.0).sqrt();
        assert!((found.high - 0.5 - half).abs() < 0.12 * half && (0.5 - found.low - half).abs() < 0.12 * half);
        // A run that is better in 12 of 40 examples and worse in 4, alike in three seeds, is no surer than in one.
        let run = |of: fn(u32) -> f64| Measure::Mean((0..120).map(|i| of(i % 40)).collect());
        let (a, b) = (run(|i| f64::from(u8::from(i < 12))), run(|i| f64::from(u8::from((12..16).contains(&i)))));
        let p = |seeds| compare(&[(&a, &b)], drawn(seeds))[0].p;
        // The sign test of 12 in 16 has 0.077; as 36 in 48 it would have 0.0007.
        assert!((0.05..0.11).contains(&p(3)) && p(1) < 0.005, "{} {}", p(3), p(1));
    }

    #[test]
    fn p_values_of_runs_that_are_the_same_are_spread_evenly() {
        let mut small = 0;
        for trial in 0..300 {
            let mut rng = ChaCha8Rng::seed_from_u64(trial);
            let mut draw = || Measure::Mean((0..100).map(|_| (rng.next_u64() % 1000) as f64).collect());
            let (a, b) = (draw(), draw());
            let found = compare(&[(&a, &b)], Resampling { draws: 200, seed: trial, ..Resampling::default() });
            small += u32::from(found[0].p <= 0.1);
        }
        // 10 % of 300 with three standard errors (5.2).
        assert!((14..=46).contains(&small), "{small}");
    }
}
