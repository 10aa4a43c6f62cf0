//! The stitch of the lowest validation loss, kept beside the last checkpoints: `checkpoints/best`.

use super::log::Validated;
use anyhow::{Context, Result};
use limber_config::Validate;
use limber_core::weights::FrozenData;
use limber_pipeline::run_folder::{self, STITCH};
use limber_pipeline::stitch_file::StitchMetadata;
use limber_weights as weights;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What is known of the best stitch so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Found {
    /// Steps done.
    step: usize,
    /// Its validation loss.
    loss: f64,
    /// The held-out items: losses of others are not to be compared.
    of: Value,
}

/// The best stitch of a run.
pub struct Best {
    folder: PathBuf,
    of: Value,
    found: Option<Found>,
}

impl Best {
    /// The best stitch of the run in `output`; a run that is `resumed` goes on from the one that is there.
    pub fn open(output: &Path, validate: Option<&Validate>, resumed: bool) -> Self {
        let folder = run_folder::best(output);
        let of = validate.map_or(Value::Null, |v| json!({"data": v.data, "items": v.items}));
        let read = || serde_json::from_slice::<Found>(&fs::read(folder.join("best.json")).ok()?).ok();
        let found = if resumed { read().filter(|found| found.of == of) } else { None };
        Self { folder, of, found }
    }

    /// Keeps the stitch `tensors` where its loss is lower than all before.
    ///
    /// # Errors
    /// A folder that cannot be written; the one that was best stays.
    pub fn offer(
        &mut self,
        validated: &Validated,
        tensors: impl FnOnce() -> Result<BTreeMap<String, FrozenData>>,
        metadata: &StitchMetadata,
    ) -> Result<()> {
        if self.found.as_ref().is_some_and(|found| found.loss <= validated.loss) {
            return Ok(());
        }
        let found = Found { step: validated.step, loss: validated.loss, of: self.of.clone() };
        self.write(&found, &tensors()?, metadata).context("cannot keep the best stitch")?;
        self.found = Some(found);
        Ok(())
    }

    /// Writes a folder of its own and puts it in the place of the last one.
    fn write(&self, found: &Found, tensors: &BTreeMap<String, FrozenData>, metadata: &StitchMetadata) -> Result<()> {
        let above = self.folder.parent().context("a folder without one above it")?;
        fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
        let part = tempfile::Builder::new().prefix(".best-").suffix(".part").tempdir_in(above)?;
        let fresh = part.path().join("new");
        fs::create_dir(&fresh)?;
        weights::save(&fresh.join(STITCH), tensors, &metadata.to_map()?)?;
        weights::replace(&fresh.join("best.json"), serde_json::to_string_pretty(found)?.as_bytes())?;
        if self.folder.exists() {
            fs::rename(&self.folder, part.path().join("old"))?;
        }
        fs::rename(&fresh, &self.folder).with_context(|| format!("cannot write {}", self.folder.display()))
    }
}
