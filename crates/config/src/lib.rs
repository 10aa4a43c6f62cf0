//! Config files: YAML or TOML to a typed [`Config`]; errors name file, line, section, key and what is allowed.
//!
//! [`load`] reads a file and what it `extends`, lays `--set a.b=c` over it, and gives a [`Loaded`] config or every
//! problem at once. The sections `encoder`, `stitch` and `decoder` hold settings of parts, which [`check`] compares
//! with the parts' schemas and the registry reads when it builds. The original's flat files load as they are. [`show`]
//! prints the resolved tree, which loads again as an equal config.
//!
//! Relative paths in a config count from the config's folder ([`Config::resolve`]), in an extended file from that
//! file's folder, in `--set` from the working folder. Where a part's `kind` differs from the extended file's, nothing
//! else of that part is taken over.

mod check;
mod difference;
mod eval;
mod load;
mod merge;
pub mod original;
mod problem;
mod reader;
mod schema;
mod section;
mod train;
mod tree;
mod types;

pub use check::{Report, Schemas, check, check_file, check_file_with};
pub use difference::{Difference, differences};
pub use eval::Eval;
pub use load::{Loaded, load, load_text};
pub use problem::{ConfigError, Note, Problem};
pub use schema::violations;
pub use section::{DTYPES, ROLES, Section, is_local};
pub use train::{Data, DataFormat, MAX_WORKERS, Recompute, Schedule, Train, Validate, Warmup};
pub use types::{Compat, Config, DEFAULT_PROMPT, Generate, Images, MAX_THREADS, Plugin};

/// The resolved config as YAML, or as one line of JSON.
pub fn show(config: &Config, json: bool) -> String {
    let tree = config.to_value();
    if json { tree.to_string() } else { tree::to_yaml(&tree).trim_end().to_string() }
}
