//! Models of candle's own crates over limber's weights: a `VarBuilder` whose tensors a component's function answers.
//!
//! Such models multiply dense f32 tensors, so what they read is copied out of the mapped file; [`matrix`] still honours
//! the type that the weights are wanted in.

use crate::weights::{Init, WeightError, Weights};
use candle_core::{DType, Device, Error, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

type Result<T, E = Error> = std::result::Result<T, E>;

/// A `VarBuilder` over `weights`. A model asks for a name and a shape; `answer` gives that tensor in f32, from whatever
/// name and shape it has in the file, and says how a random source draws it.
pub fn var_builder<F>(weights: &Weights, answer: F) -> VarBuilder<'static>
where
    F: Fn(&Weights, &str, &[usize]) -> Result<Tensor, WeightError> + Send + Sync + 'static,
{
    let bridge = Bridge { weights: weights.clone(), answer };
    VarBuilder::from_backend(Box::new(bridge), DType::F32, weights.device().clone())
}

/// One frozen tensor in f32 on the device, rounded to the type that `weights` are wanted in.
///
/// # Errors
/// As [`Weights::frozen`].
pub fn matrix(weights: &Weights, name: &str, shape: &[usize], init: Init) -> Result<Tensor, WeightError> {
    let data = weights.frozen(name, shape, init)?;
    Tensor::from_vec(data.to_f32(0..data.elements()), shape, weights.device())
        .map_err(|e| WeightError::Read { source_label: weights.source().label(), message: e.to_string() })
}

struct Bridge<F> {
    weights: Weights,
    answer: F,
}

impl<F> SimpleBackend for Bridge<F>
where
    F: Fn(&Weights, &str, &[usize]) -> Result<Tensor, WeightError> + Send + Sync,
{
    fn get(&self, shape: Shape, name: &str, _: candle_nn::Init, dtype: DType, device: &Device) -> Result<Tensor> {
        // The message alone: a user's mistake needs no backtrace.
        let tensor = (self.answer)(&self.weights, name, shape.dims()).map_err(|e| Error::Msg(e.to_string()))?;
        if tensor.dims() != shape.dims() {
            candle_core::bail!("tensor {name:?} has shape {:?}, the model asks for {shape:?}", tensor.dims())
        }
        tensor.to_device(device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("tensor {name:?} is asked for without a shape, which limber's weights do not answer")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.weights.has(name).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{FrozenData, ONES, Request, WeightSource, WeightType, ZEROS};
    use candle_nn::Module;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    struct Two;

    impl WeightSource for Two {
        fn label(&self) -> String {
            "here".into()
        }
        fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
            Some(BTreeMap::from([("tower.w".into(), vec![1, 2]), ("tower.b".into(), vec![1])]))
        }
        fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
            match request.name {
                "tower.w" => Ok(FrozenData::from_f32(vec![1.0, 1.0 / 3.0], &[1, 2])),
                "tower.b" => Ok(FrozenData::from_f32(vec![10.0], &[1])),
                name => Err(WeightError::Missing {
                    name: name.into(),
                    source_label: self.label(),
                    hint: "names are tower.b, tower.w".into(),
                }),
            }
        }
    }

    fn builder(dtype: Option<WeightType>) -> VarBuilder<'static> {
        let weights = Weights::new(Arc::new(Two), Device::Cpu, dtype).pp("tower");
        var_builder(&weights, |weights, name, shape| match name {
            "linear.weight" => matrix(weights, "w", shape, ONES),
            "linear.bias" => weights.tensor("b", shape, ZEROS),
            other => weights.tensor(other, shape, ZEROS),
        })
    }

    #[test]
    fn a_model_of_candles_reads_through_the_components_names() {
        let run = |dtype| {
            let linear = candle_nn::linear(2, 1, builder(dtype).pp("linear")).unwrap();
            let x = Tensor::new(&[[1f32, 3.0]], &Device::Cpu).unwrap();
            linear.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
        };
        assert_eq!(run(None), 12.0);
        // A third in bf16 is 0.333984375.
        assert_eq!(run(Some(WeightType::Bf16)), 12.001_953);
    }

    #[test]
    fn what_is_missing_is_named_as_the_file_names_it() {
        let message = candle_nn::linear(2, 1, builder(None).pp("other")).unwrap_err().to_string();
        assert_eq!(message, "here: no tensor \"tower.other.weight\"; names are tower.b, tower.w");
        let message = candle_nn::linear(3, 1, builder(None).pp("linear")).unwrap_err().to_string();
        assert!(message.contains("tower.w") && message.contains("[1, 2]") && message.contains("[1, 3]"), "{message}");
        let builder = builder(None);
        assert!(builder.contains_tensor("w") && !builder.contains_tensor("x"));
        assert!(builder.get_unchecked("w").unwrap_err().to_string().contains("without a shape"));
    }
}
