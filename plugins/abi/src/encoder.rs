//! The table of an encoder: pixels in, visual tokens out.

use crate::LimberStatus;
use crate::plugin::{LimberBuild, LimberInstance, LimberPart};
use crate::source::{LimberSink, LimberSource};
use crate::table::tables;
use crate::tensor::LimberTensor;
use std::ffi::c_char;

/// Input of an encoder: pixels `[B, 3, S, S]` f32.
pub const LIMBER_INPUT_IMAGE: u32 = 0;
/// Input of an encoder: features `[B, N, E]` f32 that were computed before.
pub const LIMBER_INPUT_FEATURES: u32 = 1;

/// Resize the shorter side, keep the aspect ratio, crop the centre.
pub const LIMBER_RESIZE_SHORTER_SIDE_CROP: u32 = 0;
/// Resize both sides, whatever the aspect ratio.
pub const LIMBER_RESIZE_SQUASH: u32 = 1;
/// As `LIMBER_RESIZE_SHORTER_SIDE_CROP`, half of an odd number of pixels to cut off rounded down.
pub const LIMBER_RESIZE_SHORTER_SIDE_CROP_FLOOR: u32 = 2;

/// Pillow's triangle filter.
pub const LIMBER_FILTER_BILINEAR: u32 = 0;
/// Pillow's cubic filter.
pub const LIMBER_FILTER_BICUBIC: u32 = 1;

/// Features are one token a patch, row-major.
pub const LIMBER_FEATURES_PATCHES: u32 = 0;
/// Features are one vector (or a few) for the whole image.
pub const LIMBER_FEATURES_POOLED: u32 = 1;

/// What an encoder takes and gives, known before any weight is read.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberEncoderSpec {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// [`LIMBER_INPUT_IMAGE`] or [`LIMBER_INPUT_FEATURES`].
    pub input: u32,
    /// [`LIMBER_FEATURES_PATCHES`] or [`LIMBER_FEATURES_POOLED`].
    pub kind: u32,
    /// Visual tokens N.
    pub tokens: u64,
    /// Encoder width E.
    pub width: u64,
    /// Side S of the pixels; this and all below is for images alone.
    pub side: u64,
    /// What the rule resizes to before the centre is cut out; 0 is `side`.
    pub resize_to: u64,
    /// One of `LIMBER_RESIZE_*`.
    pub resize: u32,
    /// One of `LIMBER_FILTER_*`.
    pub filter: u32,
    /// Mean a channel (red, green, blue) on the scale 0..1, subtracted from the pixels.
    pub mean: [f32; 3],
    /// Standard deviation a channel, that divides the pixels.
    pub std: [f32; 3],
}

/// Flag of a call: the input belongs to a graph that records operations, the output must not.
pub const LIMBER_CALL_TRACKED: u32 = 1;

/// One call of `encode`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberEncode {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// [`LIMBER_CALL_TRACKED`] or 0. Only a library that records graphs of its own needs to look at it.
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
    /// Pixels `[B, 3, S, S]` f32, or features `[B, N, E]` f32; the plugin checks the shape.
    pub input: *const LimberTensor,
    /// Features `[B, N, E]` f32 to be written, all finite.
    pub output: *const LimberTensor,
}

/// The functions of an encoder; none may be null.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberEncoder {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// Checks `settings` (a JSON object), fills them from what lies beside the weights, gives the resolved settings
    /// to `resolved` and writes `spec`. Reads no large weight. An unknown key is an error that names it.
    pub prepare: Option<
        unsafe extern "C" fn(
            part: *const LimberPart,
            settings: *const c_char,
            source: *const LimberSource,
            resolved: *const LimberSink,
            spec: *mut LimberEncoderSpec,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Builds an instance from resolved settings.
    pub build: Option<
        unsafe extern "C" fn(
            part: *const LimberPart,
            settings: *const c_char,
            source: *const LimberSource,
            options: *const LimberBuild,
            out: *mut *mut LimberInstance,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Frees an instance. No call of it is running, none follows.
    pub release: Option<unsafe extern "C" fn(instance: *mut LimberInstance)>,
    /// Writes the features. An image gives the same ones whatever else is in the batch.
    pub encode: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            call: *const LimberEncode,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
}

tables! {
    LimberEncoderSpec = 80;
    LimberEncode = 32;
    LimberEncoder = 40;
}
