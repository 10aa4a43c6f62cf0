//! The table of a decoder: embeddings in, logits out; caches, taps and the vector-Jacobian product.

use crate::LimberStatus;
use crate::plugin::{LimberBuild, LimberInstance, LimberPart};
use crate::source::{LimberSink, LimberSource};
use crate::table::tables;
use crate::tensor::LimberTensor;
use std::ffi::{c_char, c_void};

/// Most end-of-sequence ids of a decoder.
pub const LIMBER_MAX_EOS: usize = 16;

/// The sizes of a decoder, known before any weight is read.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberDecoderSpec {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// LM width D.
    pub width: u64,
    /// Vocabulary size V.
    pub vocab: u64,
    /// Layers L.
    pub layers: u64,
    /// Heads of keys and values.
    pub kv_heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// Most positions that the model can take.
    pub context: u64,
    /// Number of `eos`.
    pub n_eos: u32,
    /// End-of-sequence ids, of which the first `n_eos` count.
    pub eos: [u32; LIMBER_MAX_EOS],
    /// Always 0.
    pub reserved: u32,
}

/// Logits of every position: `[B, T, V]`.
pub const LIMBER_LOGITS_ALL: u32 = 0;
/// Logits of the last valid position of every sequence: `[B, V]`.
pub const LIMBER_LOGITS_LAST: u32 = 1;
/// Logits of the listed positions: `[n, V]`.
pub const LIMBER_LOGITS_AT: u32 = 2;
/// No logits: the final hidden states `[B, T, D]`.
pub const LIMBER_LOGITS_HIDDEN: u32 = 3;

/// Tap: hidden states `[B, T, D]` f32.
pub const LIMBER_TAP_HIDDEN: u32 = 0;
/// Tap: attention probabilities `[B, H, T, P + T]` f32.
pub const LIMBER_TAP_ATTENTION: u32 = 1;

/// What the caller wants to see on the way.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberTaps {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// 1: hidden states before the first layer, then after each layer, the last after the final norm: L + 1 tensors.
    pub want_hidden: u32,
    /// 1: attention probabilities of every layer: L tensors.
    pub want_attention: u32,
    /// The host's own, first argument of `take`.
    pub context: *mut c_void,
    /// Takes one tensor, which it copies; called in the order of the layers, while `forward` runs.
    pub take: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            tap: u32,
            tensor: *const LimberTensor,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
}

/// What a run has seen before: keys and values, a state; the plugin's own.
#[derive(Debug)]
pub struct LimberCache {
    _own: [u8; 0],
}

/// What a forward call kept for its vector-Jacobian product; the plugin's own.
#[derive(Debug)]
pub struct LimberTape {
    _own: [u8; 0],
}

/// How a new cache is made.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberCacheOptions {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// Rows B.
    pub batch: u64,
    /// Maximum number of positions of a sequence; at most the context length.
    pub capacity: u64,
    /// Rows that it may grow to without a copy; a hint.
    pub slots: u64,
    /// The format that it may keep keys and values in: `f32`, `f16` or `bf16`; a hint.
    pub format: *const c_char,
}

/// Flag of a forward call: keep memory low, compute blocks again in the vector-Jacobian product; a hint.
pub const LIMBER_CALL_RECOMPUTE: u32 = 2;

/// One call of `forward` or `vjp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberForward {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// [`LIMBER_CALL_RECOMPUTE`] or 0.
    pub flags: u32,
    /// One of `LIMBER_LOGITS_*`.
    pub logits: u32,
    /// Embeddings `[B, T, D]` f32; the plugin checks the shape.
    pub embeds: *const LimberTensor,
    /// Logits (or hidden states) f32 to be written, of the shape that `logits` names; not used by `vjp`.
    pub output: *const LimberTensor,
    /// Valid positions of each of the B sequences, which are padded at the end; null: every sequence is full.
    pub lengths: *const u64,
    /// Positions that the cache holds of each of the B sequences; null where there is no cache.
    pub past: *const u64,
    /// Key mask `[B, P + T]` u8 over cached and new positions, P the longest of `past`: 1 is seen, 0 is hidden;
    /// null: all are seen.
    pub mask: *const LimberTensor,
    /// `n_positions` pairs (sequence, position in this call), for [`LIMBER_LOGITS_AT`].
    pub positions: *const u64,
    /// Number of pairs.
    pub n_positions: u64,
    /// What was seen before, grown by `forward`; null: positions count from 0.
    pub cache: *mut LimberCache,
    /// What the caller wants to see on the way; null: nothing.
    pub taps: *const LimberTaps,
    /// Where `forward` may put what `vjp` will need; null: there will be no `vjp`. Leaving null there is allowed:
    /// `vjp` then computes from its own call. Never together with a cache.
    pub tape: *mut *mut LimberTape,
}

/// The functions of a decoder; those that may be null say so.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberDecoder {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// As an encoder's `prepare`.
    pub prepare: Option<
        unsafe extern "C" fn(
            part: *const LimberPart,
            settings: *const c_char,
            source: *const LimberSource,
            resolved: *const LimberSink,
            spec: *mut LimberDecoderSpec,
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
    /// Frees an instance. No call of it is running, none follows; its caches and tapes were released before.
    pub release: Option<unsafe extern "C" fn(instance: *mut LimberInstance)>,
    /// Word embeddings `[B, T, D]` f32 of `ids` `[B, T]` i64, written to `output`. An id outside 0..V is an error.
    pub embed: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            ids: *const LimberTensor,
            output: *const LimberTensor,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Logits of embeddings. A sequence gives the same whatever else is in the batch, and however it is padded. Where
    /// it fails, the cache holds what it held.
    pub forward: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            call: *const LimberForward,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// The vector-Jacobian product: from the gradient of the output, `grad_output`, that of the embeddings
    /// `[B, T, D]` f32, written to `grad_embeds`. `call` is as `forward` had it, without cache and taps; `tape` is what
    /// that call kept, or null. Null: the decoder can caption, but no stitch can be trained through it.
    pub vjp: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            call: *const LimberForward,
            tape: *mut LimberTape,
            grad_output: *const LimberTensor,
            grad_embeds: *const LimberTensor,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Frees a tape, used or not. May be null where `forward` never makes one.
    pub tape_release: Option<unsafe extern "C" fn(tape: *mut LimberTape)>,
    /// Makes an empty cache.
    pub cache_new: Option<
        unsafe extern "C" fn(
            instance: *mut LimberInstance,
            options: *const LimberCacheOptions,
            out: *mut *mut LimberCache,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Drops the positions from `length` on in every sequence.
    pub cache_truncate:
        Option<unsafe extern "C" fn(cache: *mut LimberCache, length: u64, error: *const LimberSink) -> LimberStatus>,
    /// Keeps the `n_rows` sequences listed, in that order; an index may stand twice.
    pub cache_select: Option<
        unsafe extern "C" fn(
            cache: *mut LimberCache,
            rows: *const u64,
            n_rows: u64,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Makes a new cache of the `n_rows` sequences listed, of the sizes in `options` (whose `batch` is `n_rows`).
    pub cache_copy: Option<
        unsafe extern "C" fn(
            cache: *const LimberCache,
            rows: *const u64,
            n_rows: u64,
            options: *const LimberCacheOptions,
            out: *mut *mut LimberCache,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Appends all sequences of `other`, which stays as it is; the capacity becomes the larger of both.
    pub cache_append: Option<
        unsafe extern "C" fn(
            cache: *mut LimberCache,
            other: *const LimberCache,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Frees a cache.
    pub cache_release: Option<unsafe extern "C" fn(cache: *mut LimberCache)>,
    /// Whether the common prefix of sequences of up to `positions` has the same keys and values whatever follows it:
    /// 1 or 0. Null: always.
    pub begins_alike: Option<unsafe extern "C" fn(instance: *mut LimberInstance, positions: u64) -> i32>,
}

tables! {
    LimberDecoderSpec = 128;
    LimberTaps = 32;
    LimberCacheOptions = 40;
    LimberForward = 96;
    LimberDecoder = 120;
}
