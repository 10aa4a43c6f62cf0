//! `limber fit --config C --out F`: a linear stitch in closed form, a baseline and a start for `limber train`.

use super::options::Shared;
use super::output;
use super::progress::Progress;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use limber_pipeline::model::Depth;
use limber_pipeline::plugins;
use limber_train::fit::{Method, Options, fit};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    /// Safetensors file to write, for stitch.weights
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Method of fitting
    #[arg(long, value_enum, default_value = "ridge")]
    method: Kind,
    /// Strength of the L2 penalty in ridge regression, as scikit-learn's alpha
    #[arg(long, value_name = "L", default_value_t = 1.0)]
    lambda: f64,
    /// Maximum number of items to use [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Ridge regression: least squares with an L2 penalty
    Ridge,
    /// Orthogonal Procrustes: the best orthogonal map with a scale
    Procrustes,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let method = match arguments.method {
        Kind::Ridge if arguments.lambda.is_finite() && arguments.lambda >= 0.0 => {
            Method::Ridge { lambda: arguments.lambda }
        }
        Kind::Ridge => bail!("--lambda {} is not allowed, it is a number of at least 0", arguments.lambda),
        Kind::Procrustes => Method::Procrustes,
    };
    let config = arguments.shared.load(None)?;
    let registry = plugins::registry(&config)?;
    arguments.shared.bring(&config, &registry, Depth::Text)?;
    let mut progress: Option<Progress> = None;
    let limit = arguments.limit.map(|n| n as usize);
    let options = Options { method, limit, offline: arguments.shared.network.offline };
    let fitted = fit(&config, &registry, &options, &arguments.out, &mut |done, of| {
        progress.get_or_insert_with(|| Progress::new(of as u64, "items")).at(done as u64);
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    if fitted.skipped > 0 {
        output::note(&format!("{} items could not be read", fitted.skipped));
    }
    if arguments.shared.json {
        return output::json(&json!({
            "stitch": arguments.out, "items": fitted.items, "skipped": fitted.skipped, "r2": fitted.r2,
        }));
    }
    output::line(&format!("{}: {} items, R2 {:.4}", arguments.out.display(), fitted.items, fitted.r2))
}
