//! The scenes of a reproduction: one or two objects, one caption and one question each.

use super::plan::Plan;
use anyhow::{Context, Result};
use limber_world::{self as world, Question, Split, WorldOptions, canonical, image_path, questions, write_dataset};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Most objects in a scene.
const OBJECTS: usize = 2;

/// One scene in words, and its picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The picture.
    pub image: PathBuf,
    /// The canonical caption.
    pub caption: String,
    /// One question; every kind is as likely as every other.
    pub question: Question,
}

/// Scenes to train on and held-out ones.
#[derive(Debug)]
pub struct World {
    /// To train on, and to draw few-shot examples from.
    pub train: Vec<Seen>,
    /// To be described and asked about.
    pub held: Vec<Seen>,
}

impl World {
    /// Draws what is not there yet.
    ///
    /// # Errors
    /// A folder that cannot be written or holds another world.
    pub fn draw(plan: &Plan, folder: &Path) -> Result<Self> {
        let mut parts = Vec::new();
        for (split, count) in [(Split::Train, plan.train_scenes), (Split::Val, plan.held_scenes)] {
            let out = folder.join(split.name());
            let options = WorldOptions { split, max_objects: OBJECTS, ..WorldOptions::new(count, plan.world, &out) };
            write_dataset(&options, &mut |_| ()).with_context(|| format!("scenes of {}", split.name()))?;
            let bounds = world::Options { max_objects: OBJECTS, ..world::Options::default() };
            let seed = split.seed(plan.world);
            let seen = |index| {
                let scene = world::scene(seed, index, &bounds);
                let question = question(questions(&scene), seed, index).context("a scene without a question")?;
                Ok(Seen { image: out.join(image_path(index)), caption: canonical(&scene), question })
            };
            parts.push((0..count).map(seen).collect::<Result<Vec<Seen>>>()?);
        }
        let held = parts.pop().unwrap_or_default();
        Ok(Self { train: parts.pop().unwrap_or_default(), held })
    }

    /// Indices in `train` of the few-shot examples of held-out question `index`: each number of shots begins
    /// with those of the smaller ones, so that numbers of shots differ by what is added alone.
    pub fn examples(&self, index: usize, shots: usize, seed: u64) -> Vec<usize> {
        let mut lots = lots(seed ^ 0x5107, index as u64);
        let mut indices = Vec::new();
        while indices.len() < shots.min(self.train.len()) {
            let index = below(&mut lots, self.train.len());
            if !indices.contains(&index) {
                indices.push(index);
            }
        }
        indices
    }
}

fn question(all: Vec<Question>, seed: u64, index: u64) -> Option<Question> {
    let mut lots = lots(seed, index);
    let kinds: BTreeSet<&str> = all.iter().map(|q| q.kind.as_str()).collect();
    let at = below(&mut lots, kinds.len());
    let kind = kinds.into_iter().nth(at)?;
    let of_kind: Vec<&Question> = all.iter().filter(|q| q.kind == kind).collect();
    of_kind.get(below(&mut lots, of_kind.len())).map(|q| (*q).clone())
}

fn lots(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut lots = ChaCha8Rng::seed_from_u64(seed);
    lots.set_stream(stream);
    lots
}

/// A number from `0..n`, 0 of none.
fn below(lots: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(lots.next_u64()) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn kinds_of_questions_are_even_and_examples_nested() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let plan = Plan { train_scenes: 400, held_scenes: 5, ..Plan::quick() };
        let world = World::draw(&plan, folder.path()).expect("drawn");
        let mut kinds = BTreeMap::new();
        for seen in &world.train {
            *kinds.entry(seen.question.kind.as_str()).or_insert(0) += 1;
            assert!(seen.image.is_file());
        }
        // 5 kinds for one object, 6 for two: at least 1 in 12 each, less five standard errors.
        assert!(kinds.len() == 6 && kinds.values().all(|n| *n > 15), "{kinds:?}");
        let four = world.examples(3, 4, 1);
        assert_eq!(four.iter().collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(world.examples(3, 2, 1), four[..2]);
        assert_ne!(world.examples(2, 4, 1), four);
        assert_ne!(world.examples(3, 4, 2), four);
    }
}
