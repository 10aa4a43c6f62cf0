//! The activations of MLPs by their names in `config.json`, each with backward.

use super::kernel_node::{self, Kernel};
use crate::backend::Backend;
use candle_core::{Result, Shape, Tensor};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// The activation of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x Phi(x) by the error function: PyTorch's default.
    Gelu,
    /// GELU by the tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    /// x sigmoid(1.702 x): OpenAI's CLIP.
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// x sigmoid(x).
    #[serde(alias = "swish")]
    Silu,
}

/// All names that are read, those of transformers among them, which a derived schema would leave out.
impl JsonSchema for Activation {
    fn schema_name() -> Cow<'static, str> {
        "Activation".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Self::NAMES.split(", ").collect();
        json_schema!({"description": "The activation of an MLP.", "type": "string", "enum": names})
    }
}

impl Activation {
    /// The activation of a name in transformers' `ACT2FN`; None for one that is not supported.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Some(Self::GeluNew),
            "quick_gelu" => Some(Self::QuickGelu),
            "relu" => Some(Self::Relu),
            "silu" | "swish" => Some(Self::Silu),
            _ => None,
        }
    }

    /// The names that [`Self::named`] takes, for messages.
    pub const NAMES: &'static str = "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, quick_gelu, relu, silu, swish";

    /// The name in settings, and in transformers' files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluNew => "gelu_new",
            Self::QuickGelu => "quick_gelu",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }

    /// The kernels' name of it.
    pub(crate) fn kernel(self) -> limber_kernels::Activation {
        match self {
            Self::Gelu => limber_kernels::Activation::Gelu,
            Self::GeluNew => limber_kernels::Activation::GeluNew,
            Self::QuickGelu => limber_kernels::Activation::QuickGelu,
            Self::Relu => limber_kernels::Activation::Relu,
            Self::Silu => limber_kernels::Activation::Silu,
        }
    }

    /// x f32 to f32 of the same shape.
    ///
    /// # Errors
    /// A tensor that is not f32.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        self.apply_on(Backend::of(x.device()), x)
    }

    /// [`Self::apply`] by a backend.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_on(self, backend: Backend, x: &Tensor) -> Result<Tensor> {
        if backend.is_kernels() {
            return kernel_node::apply(x, self);
        }
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluNew => x.gelu(),
            Self::QuickGelu => {
                // silu(1.702 x) / 1.702 is x sigmoid(1.702 x).
                (x * 1.702)?.silu()? / 1.702
            }
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
        }
    }
}

/// GELU by the tanh approximation: transformers' `gelu_new`, the original GPT's.
///
/// # Errors
/// A tensor that is not f32.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    Activation::GeluNew.apply(x)
}

/// GELU by the error function: PyTorch's default.
///
/// # Errors
/// A tensor that is not f32.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    Activation::Gelu.apply(x)
}

impl Kernel for Activation {
    const NAME: &'static str = "activation";
    const GRADIENT: &'static str = "activation-gradient";

    fn forward(&self, x: &[f32], _: &Shape) -> Result<Vec<f32>> {
        let mut y = vec![0f32; x.len()];
        limber_kernels::activate(self.kernel(), x, &mut y).map_err(candle_core::Error::wrap)?;
        Ok(y)
    }

    fn input_gradient(&self, x: &[f32], _: &Shape, gy: &[f32]) -> Result<Vec<f32>> {
        let mut gx = vec![0f32; x.len()];
        limber_kernels::activate_input_grad(self.kernel(), x, gy, &mut gx).map_err(candle_core::Error::wrap)?;
        Ok(gx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_lists_the_names_that_are_read() {
        let schema = crate::settings::schema::<Activation>();
        let names: Vec<String> = serde_json::from_value(schema["enum"].clone()).unwrap();
        for name in &names {
            let read: Activation = serde_json::from_value(name.as_str().into()).unwrap();
            assert_eq!(Activation::named(name), Some(read), "{name}");
            assert!(names.iter().any(|other| other == read.name()), "{name}");
        }
        assert_eq!(names.join(", "), Activation::NAMES);
    }
}
