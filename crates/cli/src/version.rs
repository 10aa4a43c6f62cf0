//! What this program is: its version, the commit and the features that it was built from, the kernels that this CPU runs.

use limber_core::Backend;
use std::sync::LazyLock;

/// The features of the build.
const FEATURES: [(&str, bool); 5] = [
    ("demo", cfg!(feature = "demo")),
    ("hub", cfg!(feature = "hub")),
    ("cuda", cfg!(feature = "cuda")),
    ("metal", cfg!(feature = "metal")),
    ("mpi", cfg!(feature = "mpi")),
];

/// The version, then a line each of what else there is to know.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let built: Vec<&str> = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
        let features = if built.is_empty() { "none".to_string() } else { built.join(", ") };
        format!(
            "{}\ncommit: {}\nfeatures: {features}\nkernels: {}",
            env!("CARGO_PKG_VERSION"),
            option_env!("LIMBER_COMMIT").unwrap_or("unknown"),
            Backend::instruction_set(),
        )
    });
    &TEXT
}
