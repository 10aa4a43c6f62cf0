//! The handshake: what the host says of itself, and the plugin's list of components.

use crate::LimberStatus;
use crate::decoder::LimberDecoder;
use crate::encoder::LimberEncoder;
use crate::source::{LimberSink, LimberSource};
use crate::stitch::LimberStitch;
use crate::table::tables;
use std::ffi::{c_char, c_void};

/// The entry symbol: gives the plugin's table, or null and a message to `error`. Called once, before anything else.
pub type LimberEntry = unsafe extern "C" fn(host: *const LimberHost, error: *const LimberSink) -> *const LimberPlugin;

/// Log level: an error.
pub const LIMBER_LOG_ERROR: u32 = 1;
/// Log level: a warning.
pub const LIMBER_LOG_WARN: u32 = 2;
/// Log level: what a user may want to know.
pub const LIMBER_LOG_INFO: u32 = 3;
/// Log level: what an author may want to know.
pub const LIMBER_LOG_DEBUG: u32 = 4;
/// Log level: everything.
pub const LIMBER_LOG_TRACE: u32 = 5;

/// The host. Lives as long as the process.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberHost {
    /// Size of this struct in bytes.
    pub size: u32,
    /// The host's minor version of the ABI.
    pub version: u32,
    /// Name and version, for messages.
    pub name: *const c_char,
    /// What the host can do beyond the tables of its minor version: names, ended by a null pointer.
    pub features: *const *const c_char,
    /// Threads that a plugin may use at a time, all its components together; at least 1.
    pub threads: u32,
    /// The most detailed level that the host shows, one of `LIMBER_LOG_*`; 0 is none.
    pub log_level: u32,
    /// The host's own, first argument of `log`.
    pub context: *const c_void,
    /// Writes a line to the host's log, from any thread, at any time. `target` names the module of the plugin and may
    /// be null.
    pub log:
        Option<unsafe extern "C" fn(context: *const c_void, level: u32, target: *const c_char, message: *const c_char)>,
}

/// The plugin. Lives as long as the process, with all that it points to.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberPlugin {
    /// Size of this struct in bytes.
    pub size: u32,
    /// The lowest minor version of the ABI that a host must have.
    pub version: u32,
    /// [`crate::LIMBER_ABI_MAJOR`] of the header that the plugin was built with.
    pub abi_major: u32,
    /// Number of `parts`.
    pub n_parts: u32,
    /// The plugin's name, as its author publishes it.
    pub name: *const c_char,
    /// The plugin's own version.
    pub release: *const c_char,
    /// What it was built with, for messages; may be null.
    pub built_with: *const c_char,
    /// What the host must be able to do ([`LimberHost::features`]): names, ended by a null pointer; may be null.
    pub required: *const *const c_char,
    /// `n_parts` pointers to components.
    pub parts: *const *const LimberPart,
}

/// Role of a component: an encoder.
pub const LIMBER_ENCODER: u32 = 1;
/// Role of a component: a stitch.
pub const LIMBER_STITCH: u32 = 2;
/// Role of a component: a decoder.
pub const LIMBER_DECODER: u32 = 3;

/// Flag of a component: several threads may call one instance at the same time.
pub const LIMBER_CONCURRENT: u32 = 1;
/// Flag of a component: it reads no weights, and a config must not name any.
pub const LIMBER_NO_WEIGHTS: u32 = 2;

/// One kind of component: what a config names, and the table of its role.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberPart {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// [`LIMBER_ENCODER`], [`LIMBER_STITCH`] or [`LIMBER_DECODER`].
    pub role: u32,
    /// Any of [`LIMBER_CONCURRENT`] and [`LIMBER_NO_WEIGHTS`].
    pub flags: u32,
    /// The kind, in kebab case.
    pub kind: *const c_char,
    /// One line of what it is.
    pub about: *const c_char,
    /// The JSON Schema of its settings, an object.
    pub schema: *const c_char,
    /// Settings of a model small enough for the conformance suite, a JSON object.
    pub tiny: *const c_char,
    /// File names that are looked for in a weights folder, the first that is there is read; ended by a null pointer;
    /// null is what Hugging Face's `save_pretrained` writes.
    pub files: *const *const c_char,
    /// The plugin's own.
    pub context: *const c_void,
    /// Whether what lies beside the weights says that they are this component's (the kind `auto`): sets `yes` to 1 or 0.
    /// May be null, which is no.
    pub recognises: Option<
        unsafe extern "C" fn(
            part: *const LimberPart,
            source: *const LimberSource,
            yes: *mut i32,
            error: *const LimberSink,
        ) -> LimberStatus,
    >,
    /// The table of an encoder, null in other roles.
    pub encoder: *const LimberEncoder,
    /// The table of a stitch, null in other roles.
    pub stitch: *const LimberStitch,
    /// The table of a decoder, null in other roles.
    pub decoder: *const LimberDecoder,
}

/// What an instance is built with.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberBuild {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// The format that frozen weights are wanted in (`f32`, `f16`, `bf16`, `q8_0`, `q4_k`); null is as they are stored.
    pub format: *const c_char,
}

/// A built component; what is behind it is the plugin's own.
#[derive(Debug)]
pub struct LimberInstance {
    _own: [u8; 0],
}

tables! {
    LimberHost = 48;
    LimberPlugin = 56;
    LimberPart = 96;
    LimberBuild = 16;
}
