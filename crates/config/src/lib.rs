//! Config files: YAML or TOML to a typed [`Config`]; errors name file, line, section, key and what is expected.
//!
//! [`load`] reads a file and what it `extends`, lays `--set a.b=c` over it, and gives a [`Loaded`] config or every
//! problem at once. The types say which keys there are; their schema serves the reading, [`file_schema`], [`section`] and
//! [`tables`] alike. The sections `encoder`, `stitch` and `decoder` hold settings of components, which [`check_file`] holds
//! against the components' schemas and the registry reads when it builds. The original's flat files load as they are.
//! [`show`] prints the resolved tree, which loads again as an equal config.
//!
//! Relative paths in a config count from the config's folder ([`Config::resolve`]), in an extended file from that
//! file's folder, in `--set` from the working folder. Where a component's `kind` differs from the extended file's, nothing
//! else of that component is taken over.

mod check;
mod checkpointing;
mod data;
mod device;
mod difference;
mod eval;
mod file;
mod load;
mod merge;
pub mod original;
mod plugin;
mod problem;
mod schema;
mod section;
pub mod tables;
mod train;
mod tree;
mod types;

pub use check::{Devices, Registries, Report, check_file};
pub use data::{Data, DataFormat, MAX_WORKERS};
pub use device::DeviceSpec;
pub use difference::{Difference, differences};
pub use eval::Eval;
pub use load::{Loaded, load, load_text};
pub use plugin::Plugin;
pub use problem::{ConfigError, Note, Problem};
pub use schema::{file as file_schema, names, section};
pub use section::Section;
pub use train::{Schedule, Train, Validate, Warmup};
pub use types::{Compat, Config, DEFAULT_PROMPT, Generate, Images, MAX_THREADS};

/// The resolved config as YAML, or as one line of JSON.
pub fn show(config: &Config, json: bool) -> String {
    let tree = config.to_value();
    if json { tree.to_string() } else { tree::to_yaml(&tree).trim_end().to_string() }
}
