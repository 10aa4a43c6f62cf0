//! Reads samples ahead of the step: several threads, a bounded number of samples in memory, delivered in order.
//!
//! A corrupt item is replaced by another, drawn from the seed and the position, as the original replaces it; what was
//! passed over travels with the sample that stands in for it, so that a resumed run tells the same story.

use super::{Ahead, Dataset, Item, Order, Panicked, caught};
use anyhow::{Result, bail};
use candle_core::Tensor;

/// Replacements that are tried for one position.
const TRIES: u64 = 64;

/// What turns an item into tensors.
pub trait Reading: Sync {
    /// The encoder's input for the item's image (or its features `[N, E]`), and the ids of its caption `caption` or of its
    /// conversation. `variation` is a function of seed, epoch and item, from which an image that is varied at random is drawn.
    ///
    /// # Errors
    /// What is wrong with this item.
    fn read(&self, item: &Item, caption: usize, variation: u64) -> Result<(Tensor, Tokens)>;
}

/// The ids around an image, and which of them are learned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens {
    /// The ids, without the image's prefix.
    pub ids: Vec<u32>,
    /// Whether each id has a loss.
    pub learned: Vec<bool>,
    /// How many ids go before the image.
    pub before: usize,
    /// Whether an end of sequence is to be learned behind the last id.
    pub ends: bool,
}

impl Tokens {
    /// Adds ids that all have a loss, or none.
    pub fn push(&mut self, ids: &[u32], learned: bool) {
        self.ids.extend(ids);
        self.learned.resize(self.ids.len(), learned);
    }

    /// The ids that have a loss.
    pub fn learned_ids(&self) -> Vec<u32> {
        self.ids.iter().zip(&self.learned).filter(|(_, learned)| **learned).map(|(id, _)| *id).collect()
    }
}

/// One sample, ready for the step.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The item's name.
    pub name: String,
    /// The encoder's input, without a batch dimension.
    pub input: Tensor,
    /// What is said of the image.
    pub tokens: Tokens,
    /// Items that stood here and could not be read: name and reason.
    pub skipped: Vec<(String, String)>,
}

/// Samples of a range of positions, read by other threads.
pub struct Loader<'a> {
    ahead: Ahead<'a, Sample>,
    workers: usize,
}

impl<'a> Loader<'a> {
    /// The samples at positions `start..end` of the run, read by `workers` threads; in memory are at most two batches
    /// of `batch` samples, or two samples a thread.
    pub fn new(
        set: &'a dyn Dataset,
        order: Order,
        reading: &'a dyn Reading,
        positions: (u64, u64),
        (batch, workers): (usize, usize),
    ) -> Self {
        let source = Source { set, order, reading };
        // One batch is read while the other is worked on.
        let ahead = batch.max(workers).saturating_mul(2);
        Self { ahead: Ahead::new(positions, ahead, move |position| source.sample(position)), workers }
    }

    /// Runs `body` while the threads read ahead of it.
    ///
    /// # Errors
    /// A thread that cannot be started, and what `body` reports.
    pub fn run<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<R> {
        self.ahead.with_workers(self.workers, body)
    }

    /// The next sample in order. Without reading threads the caller's own reads it.
    ///
    /// # Errors
    /// A position for which no item could be read, or a panic while one was read.
    pub fn next(&self) -> Result<Sample> {
        self.ahead.next()
    }
}

/// Where samples come from.
struct Source<'a> {
    set: &'a dyn Dataset,
    order: Order,
    reading: &'a dyn Reading,
}

impl Source<'_> {
    fn sample(&self, position: u64) -> Result<Sample> {
        let mut skipped = Vec::new();
        for attempt in 0..TRIES {
            let index = match attempt {
                0 => self.order.at(position).0,
                n => (self.order.draw(position, &format!("replacement {n}")) % self.set.len() as u64) as usize,
            };
            match caught(|| self.set.name(index), || self.read(position, index)) {
                Ok((name, input, tokens)) => return Ok(Sample { name, input, tokens, skipped }),
                Err(error) if error.is::<Panicked>() => return Err(error),
                Err(error) => {
                    let (name, reason) = (self.set.name(index), format!("{error:#}"));
                    let own = reason.strip_prefix(&name).and_then(|rest| rest.strip_prefix(": "));
                    let reason = own.unwrap_or(&reason).to_string();
                    skipped.push((name, reason));
                }
            }
        }
        match skipped.last() {
            Some((name, reason)) => bail!("{TRIES} items in a row could not be read, the last is {name}: {reason}"),
            None => bail!("no item was tried"),
        }
    }

    fn read(&self, position: u64, index: usize) -> Result<(String, Tensor, Tokens)> {
        let item = self.set.item(index)?;
        if item.captions.is_empty() && item.conversation.is_empty() {
            bail!("it has no caption")
        }
        let which = if self.order.shuffles() { self.order.draw(position, "caption") } else { 0 };
        let which = (which % item.captions.len().max(1) as u64) as usize;
        let variation = self.order.variation(self.order.at(position).1, index);
        let (input, tokens) = self.reading.read(&item, which, variation)?;
        if !tokens.learned.contains(&true) {
            match item.captions.get(which) {
                Some(caption) => bail!("the caption {caption:?} has no token"),
                None => bail!("its answers have no token"),
            }
        }
        Ok((item.name, input, tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Picture;
    use candle_core::Device;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Numbers(usize);

    impl Dataset for Numbers {
        fn len(&self) -> usize {
            self.0
        }
        fn name(&self, index: usize) -> String {
            format!("item {index}")
        }
        fn item(&self, index: usize) -> Result<Item> {
            let captions = vec![format!("{index}"), format!("{index}")];
            let (name, key) = (self.name(index), format!("{index}"));
            Ok(Item { name, index, image: Picture::File(key.clone().into()), key, captions, conversation: Vec::new() })
        }
    }

    struct Read {
        bad: fn(usize) -> bool,
        calls: AtomicUsize,
    }

    impl Reading for Read {
        fn read(&self, item: &Item, caption: usize, _variation: u64) -> Result<(Tensor, Tokens)> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let n: usize = item.captions[caption].parse()?;
            if (self.bad)(n) {
                bail!("{n} is bad")
            }
            let mut tokens = Tokens::default();
            tokens.push(&[n as u32], true);
            Ok((Tensor::new(n as f32, &Device::Cpu)?, tokens))
        }
    }

    /// Ids and what was skipped of positions `start..end`, by `workers` threads.
    fn all(workers: usize, (start, end): (u64, u64), bad: fn(usize) -> bool) -> Result<Vec<(u32, usize)>> {
        let (set, reading) = (Numbers(100), Read { bad, calls: AtomicUsize::new(0) });
        let loader = Loader::new(&set, Order::new(100, 5, true), &reading, (start, end), (2, workers));
        loader.run(|| (start..end).map(|_| loader.next().map(|s| (s.tokens.ids[0], s.skipped.len()))).collect())
    }

    #[test]
    fn threads_do_not_change_what_is_delivered() {
        for bad in [(|_| false) as fn(usize) -> bool, |n| n % 7 == 0] {
            let expected = all(0, (0, 250), bad).unwrap();
            for workers in [1, 2, 5] {
                assert_eq!(all(workers, (0, 250), bad).unwrap(), expected);
                assert_eq!(all(workers, (90, 250), bad).unwrap(), expected[90..]);
            }
            assert_eq!(expected.iter().any(|(_, skipped)| *skipped > 0), bad(7));
            assert!(expected.iter().all(|(id, _)| !bad(*id as usize)));
        }
    }

    #[test]
    fn no_more_than_asked_is_read_ahead() {
        let (set, reading) = (Numbers(100), Read { bad: |_| false, calls: AtomicUsize::new(0) });
        let loader = Loader::new(&set, Order::new(100, 5, false), &reading, (0, 100), (2, 1));
        let taken = loader.run(|| {
            for done in 0..20 {
                assert_eq!(loader.next()?.tokens.ids, [done as u32]);
                // The one just taken, four ahead, and the one being handed over.
                assert!(reading.calls.load(Ordering::Relaxed) <= done + 1 + 4);
            }
            Ok(())
        });
        taken.unwrap();
    }

    #[test]
    fn a_set_that_cannot_be_read_at_all_says_why() {
        let message = all(2, (0, 3), |_| true).unwrap_err().to_string();
        assert!(message.starts_with("64 items in a row could not be read, the last is item "), "{message}");
        assert!(message.ends_with("is bad"), "{message}");
    }

    #[test]
    fn a_panic_ends_the_run_with_its_message_and_the_item() {
        for workers in [0, 1, 3] {
            let message = all(workers, (0, 250), |n| {
                assert!(n != 7, "a decoder fell over");
                false
            });
            let message = message.unwrap_err().to_string();
            assert_eq!(message, "item 7: the program panicked: a decoder fell over", "{workers} threads");
        }
    }

    #[test]
    fn threads_end_when_the_body_panics() {
        let (set, reading) = (Numbers(100), Read { bad: |_| false, calls: AtomicUsize::new(0) });
        let loader = Loader::new(&set, Order::new(100, 5, false), &reading, (0, 100), (2, 2));
        let body = std::panic::AssertUnwindSafe(|| loader.run(|| -> Result<()> { panic!("the step fell over") }));
        assert!(std::panic::catch_unwind(body).is_err());
    }
}
