//! The order of the samples: a permutation of each epoch that is a function of seed and epoch, one number at a time.
//!
//! A Feistel network over the next power of four permutes 0..2^2k; numbers beyond the set are sent through again
//! (cycle walking), so that any position of any epoch costs the same, whatever came before it.

use limber_core::hash;

/// Rounds of the network; four suffice for a permutation that passes for random (Luby and Rackoff), more cost little.
const ROUNDS: u64 = 6;

/// The order in which `len` samples are read, epoch after epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    len: u64,
    seed: u64,
    shuffle: bool,
    share: Share,
}

/// Whose positions these are, where several processes share the run: groups of `batch` samples go round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    rank: u64,
    ranks: u64,
    batch: u64,
}

impl Order {
    /// The order of a set of `len` samples, at least 1.
    pub fn new(len: usize, seed: u64, shuffle: bool) -> Self {
        let share = Share { rank: 0, ranks: 1, batch: 1 };
        Self { len: len.max(1) as u64, seed, shuffle, share }
    }

    /// The order of one of `ranks` processes, which take turns at micro-batches of `batch`: its positions count its own
    /// samples alone.
    pub fn share(self, rank: usize, ranks: usize, batch: usize) -> Self {
        let share = Share { rank: rank as u64, ranks: ranks.max(1) as u64, batch: batch.max(1) as u64 };
        Self { share, ..self }
    }

    /// The position in the whole run of this process's position `at`.
    fn whole(&self, at: u64) -> u64 {
        let Share { rank, ranks, batch } = self.share;
        (at / batch * ranks + rank) * batch + at % batch
    }

    /// The sample at position `at` of the run (of this process's share), and its epoch.
    pub fn at(&self, at: u64) -> (usize, u64) {
        let at = self.whole(at);
        let (epoch, position) = (at / self.len, at % self.len);
        (if self.shuffle { self.permuted(epoch, position) } else { position } as usize, epoch)
    }

    /// A number drawn for position `at`: which caption, for instance.
    pub fn draw(&self, at: u64, purpose: &str) -> u64 {
        self.hash(&[&self.whole(at).to_le_bytes(), purpose.as_bytes()])
    }

    /// A number drawn for item `index` in an epoch, wherever in it the item stands: how its image is varied.
    pub fn variation(&self, epoch: u64, index: usize) -> u64 {
        self.hash(&[b"variation", &epoch.to_le_bytes(), &(index as u64).to_le_bytes()])
    }

    fn hash(&self, parts: &[&[u8]]) -> u64 {
        hash::number(&[&[&self.seed.to_le_bytes()[..]], parts].concat())
    }

    /// Whether each epoch has its own order.
    pub fn shuffles(&self) -> bool {
        self.shuffle
    }

    fn permuted(&self, epoch: u64, position: u64) -> u64 {
        let half = (64 - (self.len - 1).leading_zeros()).div_ceil(2).max(1);
        let mask = (1u64 << half) - 1;
        let mut x = position;
        loop {
            let (mut left, mut right) = (x >> half, x & mask);
            for round in 0..ROUNDS {
                (left, right) = (right, left ^ (mix(self.seed, epoch, round, right) & mask));
            }
            x = left << half | right;
            if x < self.len {
                return x;
            }
        }
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood 2014) over its four numbers, one after the other.
fn mix(seed: u64, epoch: u64, round: u64, x: u64) -> u64 {
    [seed, epoch, round, x].into_iter().fold(0x9E37_79B9_7F4A_7C15, |state: u64, word| {
        let mut z = (state ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_reads_each_sample_once_in_an_order_of_its_own() {
        for len in [1usize, 2, 3, 7, 64, 65, 1000] {
            let order = Order::new(len, 3, true);
            let epoch = |e: usize| (0..len).map(|i| order.at((e * len + i) as u64)).collect::<Vec<_>>();
            for e in 0..3 {
                let mut seen: Vec<usize> = epoch(e).iter().map(|(i, _)| *i).collect();
                assert!(epoch(e).iter().all(|(_, of)| *of == e as u64));
                seen.sort_unstable();
                assert_eq!(seen, (0..len).collect::<Vec<_>>(), "{len}");
            }
            if len > 60 {
                let samples = |o: &Order| (0..len as u64).map(|i| o.at(i).0).collect::<Vec<_>>();
                assert_ne!(
                    epoch(0).iter().map(|x| x.0).collect::<Vec<_>>(),
                    epoch(1).iter().map(|x| x.0).collect::<Vec<_>>()
                );
                assert_ne!(samples(&order), samples(&Order::new(len, 4, true)));
                assert_ne!(samples(&order), (0..len).collect::<Vec<_>>());
            }
        }
        let plain = Order::new(5, 3, false);
        assert_eq!((0..7).map(|i| plain.at(i).0).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 0, 1]);
    }

    #[test]
    fn processes_share_the_run_without_gap_or_overlap() {
        let whole = Order::new(100, 3, true);
        let (ranks, batch) = (3, 4);
        let shares: Vec<Order> = (0..ranks).map(|rank| whole.share(rank, ranks, batch)).collect();
        // Micro-batch by micro-batch, one process after the other.
        let dealt = (0..30).flat_map(|micro| shares.iter().flat_map(move |s| (0..4).map(move |i| (s, 4 * micro + i))));
        for (at, (share, own)) in dealt.enumerate() {
            assert_eq!((share.at(own), share.draw(own, "x")), (whole.at(at as u64), whole.draw(at as u64, "x")));
        }
        assert_eq!(whole.share(0, 1, 7).at(23), whole.at(23));
    }

    #[test]
    fn neighbours_do_not_stay_neighbours() {
        // The mean distance of two draws without replacement from 0..n is about n / 3.
        let order = Order::new(10_000, 1, true);
        let all: Vec<i64> = (0..10_000).map(|i| order.at(i).0 as i64).collect();
        let mean = all.windows(2).map(|w| (w[0] - w[1]).abs() as f64).sum::<f64>() / 9_999.0;
        assert!((mean - 3333.0).abs() < 120.0, "{mean}");
    }

    #[test]
    fn the_order_of_a_seed_is_fixed() {
        // Drawn once and kept: a resumed run must meet the samples in the order of the first.
        let order = Order::new(1_000_000, 42, true);
        assert_eq!([0, 1, 2].map(|i| order.at(i).0), [EXPECTED[0], EXPECTED[1], EXPECTED[2]]);
    }

    const EXPECTED: [usize; 3] = [529_187, 203_672, 239_618];
}
