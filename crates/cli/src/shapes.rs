//! `limber shapes --count N --seed S --out DIR`: the demo's world as a data set.

use super::progress::Progress;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use limber_world::{Split, WorldOptions, write_dataset};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Number of scenes
    #[arg(long, value_name = "N")]
    count: u64,
    /// Seed of the world; scene i depends on the seed and i alone
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Split of the world; the two have no scene in common
    #[arg(long, value_enum, default_value_t = SplitName::Train)]
    split: SplitName,
    /// Output folder, in the original's layout (images/, image_data/) with captions.json, questions.json,
    /// annotations.json and labels.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Side of the images in pixels
    #[arg(long, value_name = "P", default_value_t = 64)]
    size: u32,
    /// Number of objects in a scene, or a range such as 1-3
    #[arg(long, value_name = "LO-HI", default_value = "1-3")]
    objects: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    /// Training scenes
    Train,
    /// Held-out scenes
    Val,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let (low, high) = arguments.objects.split_once('-').unwrap_or((&arguments.objects, &arguments.objects));
    let (Ok(min_objects), Ok(max_objects)) = (low.parse(), high.parse()) else {
        bail!("--objects {:?} is not allowed, it is a number or a range such as 1-3", arguments.objects)
    };
    let options = WorldOptions {
        count: arguments.count,
        seed: arguments.seed,
        split: if arguments.split == SplitName::Val { Split::Val } else { Split::Train },
        size: arguments.size,
        min_objects,
        max_objects,
        out: arguments.out.clone(),
    };
    let mut progress = Progress::new(arguments.count, "scenes");
    write_dataset(&options, &mut |done| progress.at(done))?;
    progress.finish();
    Ok(())
}
