//! The table of a stitch: features in, prefix out; the host owns the trained parameters.

use crate::LimberStatus;
use crate::decoder::LimberTape;
use crate::plugin::{LimberBuild, LimberInstance, LimberPart};
use crate::source::{LimberNames, LimberSink, LimberSource};
use crate::table::tables;
use crate::tensor::LimberTensor;
use std::ffi::c_char;

/// The two sides that a stitch stands between.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberSides {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// Visual tokens N of the encoder.
    pub tokens: u64,
    /// Encoder width E.
    pub features_width: u64,
    /// LM width D.
    pub width: u64,
    /// [`crate::LIMBER_FEATURES_PATCHES`] or [`crate::LIMBER_FEATURES_POOLED`].
    pub kind: u32,
    /// Always 0.
    pub reserved: u32,
    /// The encoder's kind, for messages.
    pub encoder: *const c_char,
    /// The decoder's kind, for messages.
    pub decoder: *const c_char,
}

/// The prefix that a stitch gives.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberPrefixSpec {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// Prefix tokens K.
    pub tokens: u64,
    /// LM width D.
    pub width: u64,
}

/// One call of `forward` or `vjp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberProject {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// 1 while training, which switches dropout on; 0 at inference.
    pub training: u32,
    /// Number of `parameters`.
    pub n_parameters: u32,
    /// Seed of this step's dropout: equal seeds give equal prefixes.
    pub seed: u64,
    /// Features `[B, N, E]` f32; the plugin checks the shape.
    pub features: *const LimberTensor,
    /// The parameters' values, each f32, in the order of `parameters`.
    pub parameters: *const *const LimberTensor,
    /// Prefix `[B, K, D]` f32 to be written; not used by `vjp`.
    pub output: *const LimberTensor,
    /// As [`crate::LimberForward::tape`]. Parameters may have changed until `vjp` is called: a tape keeps its own.
    pub tape: *mut *mut LimberTape,
}

/// The functions of a stitch; those that may be null say so.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberStitch {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// As an encoder's `prepare`, between two sides. A checkpoint in `source` that does not fit is refused here by
    /// its tensors' shapes, in a message that names both sides.
    pub prepare: Option<
        unsafe extern "C" fn(
            part: *const LimberPart,
            settings: *const c_char,
            source: *const LimberSource,
            sides: *const LimberSides,
            resolved: *const LimberSink,
            spec: *mut LimberPrefixSpec,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Builds an instance from resolved settings, with parameters from `source`.
    pub build: Option<
        unsafe extern "C" fn(
            part: *const LimberPart,
            settings: *const c_char,
            source: *const LimberSource,
            sides: *const LimberSides,
            options: *const LimberBuild,
            out: *mut *mut LimberInstance,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Frees an instance. No call of it is running, none follows; its tapes were released before.
    pub release: Option<unsafe extern "C" fn(instance: *mut LimberInstance)>,
    /// The prefix that `tokens` visual tokens give.
    pub prefix: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            tokens: u64,
            spec: *mut LimberPrefixSpec,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Gives the trained parameters to `names`: the names of the checkpoint, sorted, and their shapes.
    pub parameters: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            names: *const LimberNames,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Writes the values that parameter `index` was built with to `output`. From then on the host owns them: it gives
    /// them with every call, trains them, saves them.
    pub parameter: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            index: u32,
            output: *const LimberTensor,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Writes the prefix of features.
    pub forward: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            call: *const LimberProject,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// The vector-Jacobian product: from the gradient of the prefix, `grad_output`, those of the parameters, each
    /// written to one of `grad_parameters`, and that of the features, where `grad_features` is not null. `call` is as
    /// `forward` had it; `tape` is what that call kept, or null.
    pub vjp: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            call: *const LimberProject,
            tape: *mut LimberTape,
            grad_output: *const LimberTensor,
            grad_features: *const LimberTensor,
            grad_parameters: *const *const LimberTensor,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Frees a tape, used or not. May be null where `forward` never makes one.
    pub tape_release: Option<unsafe extern "C" fn(tape: *mut LimberTape)>,
}

tables! {
    LimberSides = 56;
    LimberPrefixSpec = 24;
    LimberProject = 56;
    LimberStitch = 80;
}
