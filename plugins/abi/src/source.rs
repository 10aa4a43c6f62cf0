//! What the host lends a plugin: callbacks for text and lists, and the weights that a config names.

use crate::LimberStatus;
use crate::table::tables;
use crate::tensor::LimberTensor;
use std::ffi::{c_char, c_void};

/// Takes a text: a message, a name, JSON. The taker copies it before it returns.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberSink {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// The taker's own, first argument of `text`.
    pub context: *mut c_void,
    /// Takes `text`, which is UTF-8 and ends in a zero byte. A second call replaces the first.
    pub text: Option<unsafe extern "C" fn(context: *mut c_void, text: *const c_char)>,
}

/// Takes a list of named tensors: what a source holds, what a stitch trains.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberNames {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// The taker's own, first argument of `name`.
    pub context: *mut c_void,
    /// Takes one name with the `ndim` sizes of its tensor; called once a tensor, in the list's order.
    pub name: Option<unsafe extern "C" fn(context: *mut c_void, name: *const c_char, shape: *const i64, ndim: i32)>,
}

/// Every element is `a`.
pub const LIMBER_INIT_CONST: u32 = 0;
/// Normal of mean `a` and deviation `b`.
pub const LIMBER_INIT_NORMAL: u32 = 1;
/// Normal of mean 0 and deviation `a`, drawn again below `b` or above `c`.
pub const LIMBER_INIT_TRUNCATED_NORMAL: u32 = 2;
/// Normal of mean 0 and deviation `a`, row `row` of the matrix 0.
pub const LIMBER_INIT_NORMAL_BUT_ROW: u32 = 3;
/// Uniform from `a` to `b`.
pub const LIMBER_INIT_UNIFORM: u32 = 4;

/// One tensor asked of a source.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberRequest {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// The tensor's name.
    pub name: *const c_char,
    /// The `ndim` sizes that it must have.
    pub shape: *const i64,
    /// Number of dimensions.
    pub ndim: i32,
    /// How a random source draws it: one of `LIMBER_INIT_*`.
    pub init: u32,
    /// First number of `init`.
    pub a: f32,
    /// Second number of `init`.
    pub b: f32,
    /// Third number of `init`.
    pub c: f32,
    /// Always 0.
    pub reserved: u32,
    /// The row of [`LIMBER_INIT_NORMAL_BUT_ROW`].
    pub row: u64,
    /// The format that a random source makes it in: `f32`, `f16`, `bf16`, `q8_0` or `q4_k`; null is `f32`. A file
    /// gives its own.
    pub format: *const c_char,
}

/// One tensor of a source, lent until `release` is called with `lease`: it may outlive the source, and usually lies in
/// a mapped file.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberWeight {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// The elements, never to be written: of the shape asked for where `format` is `f32`, `f16` or `bf16`; bytes
    /// `[n]` u8 of GGUF's blocks, row by row, where it is `q8_0` or `q4_k`. Lives as long as the lease.
    pub tensor: *const LimberTensor,
    /// `f32`, `f16`, `bf16`, `q8_0` or `q4_k`. Lives as long as the lease.
    pub format: *const c_char,
    /// What `release` takes.
    pub lease: *mut c_void,
    /// Ends the lease; to be called once, from any thread.
    pub release: Option<unsafe extern "C" fn(lease: *mut c_void)>,
}

/// The weights that a config names for a component. Valid while the call lasts that it is given to.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberSource {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// The host's own, first argument of every function.
    pub context: *const c_void,
    /// Gives what messages call the source to `text`: a path, or `random:SEED`.
    pub label: Option<unsafe extern "C" fn(context: *const c_void, text: *const LimberSink)>,
    /// Gives every tensor to `names` and sets `known` to 1; or sets it to 0 where the source is random and answers
    /// any name.
    pub tensors: Option<
        unsafe extern "C" fn(context: *const c_void, names: *const LimberNames, known: *mut i32) -> LimberStatus,
    >,
    /// Lends a tensor: `out` has its size and version set by the plugin and is filled by the host.
    pub read: Option<
        unsafe extern "C" fn(
            context: *const c_void,
            request: *const LimberRequest,
            out: *mut LimberWeight,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// Gives a small text that lies beside the tensors, such as `config.json`, to `text` and sets `found` to 1; sets
    /// it to 0 where there is none of this name.
    pub document: Option<
        unsafe extern "C" fn(
            context: *const c_void,
            name: *const c_char,
            text: *const LimberSink,
            found: *mut i32,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
}

tables! {
    LimberSink = 24;
    LimberNames = 24;
    LimberRequest = 64;
    LimberWeight = 40;
    LimberSource = 48;
}
