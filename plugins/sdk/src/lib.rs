//! The guest side of limber's plugins: an author writes the ordinary traits of `limber-core` and one line.
//!
//! ```ignore
//! limber_sdk::export_plugin!(encoder: Palette);
//! ```
//!
//! A crate of type `cdylib` with that line is a plugin. Everything that is registered in it is exported, so a crate
//! whose components have their own `register!` lines, or that links such crates, says `export_plugin!();`.
//!
//! The line makes the library's one symbol. Behind it: settings and their JSON Schema from the component's `Config`, weights
//! from the host (memory-mapped files stay where they are), panics caught and turned into errors, `tracing` events sent
//! to the host's log, rayon's pool set to the host's thread budget.
//!
//! The library links its own candle, of whatever version `limber-core` here has; the host's may be another one.
//! Build with unwinding panics (the default): `panic = "abort"` would take the host down.

mod cache;
mod call;
mod decoder;
mod encoder;
mod export;
mod log;
mod role;
mod source;
mod stitch;
mod tensor;

pub use limber_core as core;
pub use limber_plugin_abi as abi;
pub use tracing;

#[doc(hidden)]
pub use export::entry;

/// Makes this crate a plugin: `export_plugin!(encoder: A, stitch: B);` registers and exports, `export_plugin!();`
/// exports what is registered already. Once a library.
#[macro_export]
macro_rules! export_plugin {
    ($($role:ident : $component:ty),* $(,)?) => {
        $($crate::core::register!($role, $component);)*

        /// The entry symbol of limber's plugin ABI.
        ///
        /// # Safety
        /// The host's table and the sink are as the ABI says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn limber_plugin_v1(
            host: *const $crate::abi::LimberHost,
            error: *const $crate::abi::LimberSink,
        ) -> *const $crate::abi::LimberPlugin {
            // SAFETY: the caller keeps the ABI's promises.
            unsafe { $crate::entry(host, error, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")) }
        }
    };
}
