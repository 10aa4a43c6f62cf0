//! The folder that `limber train` writes, seen from outside: its config, its stitch, its checkpoints.
//!
//! ```text
//! DIR/config.yaml                                   the run's config, which names the trained stitch
//! DIR/stitch.safetensors                            the stitch at the end
//! DIR/checkpoints/step-00000500/stitch.safetensors  the stitch after 500 steps
//! DIR/checkpoints/best/stitch.safetensors           the stitch of the lowest validation loss
//! ```

use anyhow::{Context, Error, Result, bail, ensure};
use limber_config::{self as config, Loaded};
use limber_weights::{map, read_safetensors};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The run's config.
pub const CONFIG: &str = "config.yaml";
/// A stitch, of the run or of one of its checkpoints.
pub const STITCH: &str = "stitch.safetensors";

/// The folder of checkpoints.
pub fn checkpoints(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// The checkpoint after `step` steps.
pub fn step(run: &Path, step: usize) -> PathBuf {
    checkpoints(run).join(format!("step-{step:08}"))
}

/// The checkpoint of the lowest validation loss.
pub fn best(run: &Path) -> PathBuf {
    checkpoints(run).join("best")
}

/// The checkpoints by step that there are, oldest first.
///
/// # Errors
/// A folder that cannot be listed.
pub fn steps(run: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let folder = checkpoints(run);
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix("step-")).and_then(|n| n.parse().ok());
            found.extend(step.map(|step| (step, entry.path())));
        }
    }
    found.sort();
    Ok(found)
}

/// One stitch of a run: `DIR`, `DIR@best` or `DIR@step-N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    folder: PathBuf,
    which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Last,
    Best,
    Step(usize),
}

impl FromStr for RunFolder {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (folder, which) = match text.rsplit_once('@') {
            // A folder may have such a name itself.
            _ if Path::new(text).is_dir() => (text, Which::Last),
            None => (text, Which::Last),
            Some((folder, "best")) => (folder, Which::Best),
            Some((folder, name)) => match name.strip_prefix("step-").and_then(|n| n.parse().ok()) {
                Some(step) => (folder, Which::Step(step)),
                None => bail!("the run {text:?} is not allowed, expected DIR, DIR@best or DIR@step-N"),
            },
        };
        ensure!(!folder.is_empty(), "the run {text:?} names no folder, expected DIR, DIR@best or DIR@step-N");
        Ok(Self { folder: PathBuf::from(folder), which })
    }
}

impl RunFolder {
    /// Whether one checkpoint is named.
    pub fn is_one_checkpoint(&self) -> bool {
        self.which != Which::Last
    }

    /// The stitch, and what a user should know of it.
    ///
    /// # Errors
    /// A checkpoint that is not there, naming those that are; a run that has none yet.
    pub fn stitch(&self) -> Result<(PathBuf, Option<String>)> {
        let Self { folder, which } = self;
        let all = steps(folder)?;
        let wanted = match which {
            Which::Last => folder.join(STITCH),
            Which::Best => best(folder).join(STITCH),
            Which::Step(n) => step(folder, *n).join(STITCH),
        };
        let newest = all.iter().rev().map(|(n, at)| (n, at.join(STITCH))).find(|(_, stitch)| is_whole(stitch));
        if let (Which::Last, Some((n, newest))) = (which, newest)
            // A run that finished and was resumed has checkpoints that are newer than its final stitch.
            && !is_same(&wanted, &newest)
        {
            let note = format!("the run in {} has not finished; its stitch after step {n} is used", folder.display());
            return Ok((newest, Some(note)));
        }
        if wanted.is_file() {
            return Ok((wanted, None));
        }
        let mut there: Vec<String> = all.iter().map(|(n, _)| format!("step-{n}")).collect();
        if best(folder).join(STITCH).is_file() {
            there.push("best".to_string());
        }
        let there = if there.is_empty() { "no checkpoint".to_string() } else { there.join(", ") };
        let hint = match which {
            Which::Best => "; the best is kept where train.validate names held-out data",
            Which::Step(_) => "; train.keep says how many are kept",
            Which::Last => "",
        };
        bail!("there is no stitch {}; the run has {there}{hint}", wanted.display())
    }

    /// The run's config with this folder as its output, this stitch and `sets` laid over it, and what a user should know of
    /// the stitch.
    ///
    /// # Errors
    /// A folder that is no run's; every problem of its config; as [`Self::stitch`].
    pub fn load(&self, sets: &[String]) -> Result<(Loaded, Option<String>)> {
        let path = self.folder.join(CONFIG);
        if !path.is_file() {
            bail!(
                "{} is no folder of a run, it has no {CONFIG}; expected the train.output of `limber train`",
                self.folder.display()
            )
        }
        let (stitch, note) = self.stitch()?;
        let mut all = vec![set("stitch.weights", &stitch)?];
        // A folder that was moved or copied names the one that it was.
        if config::load(&path, &all)?.config.train.is_some() {
            all.push(set("train.output", &self.folder)?);
        }
        all.extend_from_slice(sets);
        Ok((config::load(&path, &all)?, note))
    }
}

/// `KEY=PATH` as `--set` takes it, the path an absolute one.
fn set(key: &str, path: &Path) -> Result<String> {
    let path = std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))?;
    let text = path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))?;
    Ok(format!("{key}={}", serde_json::Value::from(text)))
}

/// Whether the file holds the tensors that it lists.
fn is_whole(stitch: &Path) -> bool {
    map(stitch).is_ok_and(|bytes| read_safetensors(bytes).is_ok())
}

/// Whether both files are there with the same bytes.
fn is_same(a: &Path, b: &Path) -> bool {
    matches!((map(a), map(b)), (Ok(a), Ok(b)) if (*a).as_ref() == (*b).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn runs_are_named_with_their_checkpoints() {
        let check = |text: &str, folder: &str, which: Which| {
            assert_eq!(text.parse::<RunFolder>().unwrap(), RunFolder { folder: folder.into(), which });
        };
        check("runs/a", "runs/a", Which::Last);
        check("runs/a@best", "runs/a", Which::Best);
        check("runs/a@step-500", "runs/a", Which::Step(500));
        check("runs/a@step-00000500", "runs/a", Which::Step(500));
        for text in ["runs/a@last", "runs/a@step-", "runs/a@step-x", "runs/a@"] {
            let message = text.parse::<RunFolder>().unwrap_err().to_string();
            assert_eq!(message, format!("the run {text:?} is not allowed, expected DIR, DIR@best or DIR@step-N"));
        }
        for text in ["", "@best", "@step-5"] {
            let message = text.parse::<RunFolder>().unwrap_err().to_string();
            assert_eq!(message, format!("the run {text:?} names no folder, expected DIR, DIR@best or DIR@step-N"));
        }
    }

    #[test]
    fn what_a_run_has_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let named = |end: &str| format!("{}{end}", folder.path().display()).parse::<RunFolder>().unwrap();
        let fails = |end: &str, expected: &str| {
            let message = named(end).stitch().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        let message = named("").load(&[]).unwrap_err().to_string();
        assert!(message.contains("is no folder of a run, it has no config.yaml"), "{message}");
        fails("", "the run has no checkpoint");
        fails("@best", "the run has no checkpoint; the best is kept where train.validate names held-out data");
        let write = |path: &Path, step: &str| {
            let metadata = BTreeMap::from([("step".to_string(), step.to_string())]);
            limber_weights::save(path, &BTreeMap::new(), &metadata).unwrap()
        };
        for n in [5, 10] {
            std::fs::create_dir_all(step(folder.path(), n)).unwrap();
            write(&step(folder.path(), n).join(STITCH), &n.to_string());
        }
        fails("@step-7", "the run has step-5, step-10; train.keep says how many are kept");
        let (path, note) = named("").stitch().unwrap();
        assert_eq!(path, step(folder.path(), 10).join(STITCH));
        assert!(note.unwrap().contains("has not finished; its stitch after step 10 is used"));
        let last = folder.path().join(STITCH);
        write(&last, "10");
        assert_eq!(named("").stitch().unwrap(), (last.clone(), None));
        // The run was resumed after it had finished, and ended before it finished again.
        write(&last, "5");
        let (path, note) = named("").stitch().unwrap();
        assert_eq!(path, step(folder.path(), 10).join(STITCH));
        assert!(note.unwrap().contains("its stitch after step 10 is used"));
        // A checkpoint that was cut short is none.
        std::fs::write(step(folder.path(), 10).join(STITCH), "").unwrap();
        assert_eq!(named("").stitch().unwrap(), (last, None));
        assert_eq!(named("@step-5").stitch().unwrap().0, step(folder.path(), 5).join(STITCH));
    }
}
