//! A block as a layer of somebody else's decoder.

use super::*;
use crate::layers::Layers;

/// The plan without anything around its blocks, so that hidden states are what the last block gave.
fn bare(block: &BlockPlan) -> ModelPlan {
    let mut plan = model(block);
    (plan.spec.width, plan.projections, plan.positions, plan.final_norm) = (block.width, None, None, None);
    plan.input_scale = 1.0;
    plan
}

fn states(seed: u64, width: usize) -> Tensor {
    Weights::random(seed).tensor("x", &[2, T, width], Init::normal(1.0)).unwrap()
}

#[test]
fn layers_of_blocks_give_what_a_model_of_them_gives() {
    let names = ["gated", "parallel of one norm", "soft cap, linear biases and a window"];
    for (name, block) in blocks().into_iter().filter(|(name, _)| names.contains(name)) {
        for backend in [Backend::Kernels, Backend::Candle] {
            let (plan, weights) = (bare(&block), weights(backend, None));
            let model = DecoderModel::load(&plan, &weights).unwrap();
            let blocks = (0..2).map(|i| DecoderBlock::load(&block, &weights.pp(format!("h.{i}"))).unwrap());
            let layers = Layers::new(plan.spec.clone(), blocks.collect());
            let ours = |x: &Tensor, run: &mut Run| {
                let past = layers.start(x, run).unwrap();
                layers.run(x, &past, run, |x| Ok(x.clone()), |_| candle_core::bail!("no logits are asked for")).unwrap()
            };
            let x = states(1, block.width);
            let all = model.forward(&x, &mut run(LogitPositions::Hidden, Checkpointing::None)).unwrap();
            assert_eq!(largest(&ours(&x, &mut run(LogitPositions::Hidden, Checkpointing::None)), &all), 0.0, "{name}");

            let full = model.forward(&x, &mut Run { logits: LogitPositions::Hidden, ..Run::new() }).unwrap();
            let mut cache = model.new_cache(&CacheOptions::new(2, 16)).unwrap();
            for (from, count) in [(0, 3), (3, 1), (4, 3)] {
                let mut run = Run { logits: LogitPositions::Hidden, ..Run::cached(cache.as_mut()) };
                let step = ours(&x.narrow(1, from, count).unwrap(), &mut run);
                assert!(largest(&step, &full.narrow(1, from, count).unwrap()) < 2e-5, "{name} from {from}");
            }

            let x = Var::from_tensor(&x).unwrap();
            let weighting = states(9, block.width);
            let gradient = |y: Tensor| {
                let grads = (y * &weighting).unwrap().sum_all().unwrap().backward().unwrap();
                grads.get(x.as_tensor()).unwrap().clone()
            };
            for checkpointing in [Checkpointing::None, Checkpointing::Full, Checkpointing::Selective] {
                let mut own = run(LogitPositions::Hidden, checkpointing);
                let expected = gradient(model.forward(x.as_tensor(), &mut own).unwrap());
                let found = gradient(ours(x.as_tensor(), &mut run(LogitPositions::Hidden, checkpointing)));
                assert!(largest(&found, &expected) < 2e-4, "{name}, {backend:?}, {checkpointing:?}");
                assert!(largest(&expected, &expected.zeros_like().unwrap()) > 0.1, "{name}");
            }
        }
    }
}
