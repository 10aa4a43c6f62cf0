//! The gradient of a plugin's decoder: what a forward call kept for it, and the vector-Jacobian product.

use super::Built;
use super::call::Asked;
use crate::custom_op::Backward;
use crate::memory::{Output, with_slice, with_values, with_view};
use candle_core::{Device, Error, Tensor};
use limber_plugin_abi::LimberTape;
use std::ptr::null_mut;
use std::sync::Arc;

/// What a forward call kept for its gradient; null where it kept nothing.
pub(super) struct Tape {
    built: Arc<Built>,
    pub raw: *mut LimberTape,
}

// SAFETY: tapes may be used from any thread, one at a time, as the ABI says.
unsafe impl Send for Tape {}
// SAFETY: as above; `vjp` takes the instance's lock where the component is not concurrent, and does not change a tape.
unsafe impl Sync for Tape {}

impl Tape {
    /// An empty one, for a call of this decoder to fill.
    pub(super) fn new(built: &Arc<Built>) -> Self {
        Self { built: built.clone(), raw: null_mut() }
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        if let (false, Some(release)) = (self.raw.is_null(), self.built.table.tape_release) {
            let (_, _own) = self.built.instance.enter();
            // SAFETY: called once, and nothing uses the tape any more.
            unsafe { release(self.raw) };
        }
    }
}

pub(super) struct Gradient {
    pub tape: Tape,
    pub asked: Asked,
}

impl Backward for Gradient {
    const NAME: &'static str = "plugin-decoder";

    fn backward(&self, inputs: &[&Tensor], gradient: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
        let built = &self.tape.built;
        let Some(vjp) = built.table.vjp else {
            candle_core::bail!("{} has no vector-Jacobian product", built.component.label())
        };
        let embeds = inputs[0];
        let mut output = Output::new(embeds.dims());
        let gradients = with_values(gradient, |values| {
            with_view(embeds, |embeds| {
                with_slice(values, gradient.dims(), |gradient| {
                    self.asked.with(embeds, |call| {
                        let view = output.view();
                        let (instance, _own) = built.instance.enter();
                        // SAFETY: all arguments live beyond the call; instance and tape are not yet released.
                        let done = built.component.call("vector-Jacobian product", |error| unsafe {
                            vjp(instance, &call, self.tape.raw, gradient, &view, error)
                        });
                        done.map_err(Error::msg)
                    })
                })
            })?;
            let gradients = output.tensor("gradients", &[values], &Device::Cpu);
            gradients.map_err(|message| built.error("vector-Jacobian product", message))
        })?;
        Ok(vec![Some(gradients)])
    }
}
