//! The files of one repository into the cache: which there are, which of them are wanted, one after the other.

use super::client::{Client, GaveUp, Subject, Trouble};
use super::download::Job;
use super::store::{mark_absent, write_reference};
use super::{Pulled, PulledFile, Report, Settings, address};
use anyhow::{Context, Result, anyhow, bail};
use limber_core::bounded::{self, TEXT_LIMIT};
use limber_core::weights::nearest;
use limber_weights::cache::{INDEX, Lack, Named, Wanted, inside, parent};
use limber_weights::{WeightSpec, is_inside, shard_names};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Largest description of a repository that is read.
const INFO_LIMIT: u64 = 64 << 20;

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The files to bring.
struct Plan {
    /// The folder in the repository that all else lies in.
    folder: String,
    weights: String,
}

/// Brings what is `wanted` of a repository into the cache, at the commit that its revision stands for now.
///
/// # Errors
/// A hub that cannot be reached or refuses, a repository without the files, a disk that cannot be written.
pub fn pull(named: &Named, wanted: &Wanted, settings: &Settings, report: Report) -> Result<Pulled> {
    let client = Client::new(settings)?;
    let info = info(&client, named, named.revision, report)?;
    let names: BTreeSet<&str> = info.siblings.iter().map(|s| s.rfilename.as_str()).filter(|n| is_inside(n)).collect();
    let plan = choose(named, wanted, &names)?;
    let run = Run { client: &client, named, commit: &info.sha };
    run.mark_absent(wanted, &plan, &names)?;
    let mut pulled = Vec::new();
    let beside = wanted.beside.iter().map(|name| inside(&plan.folder, name));
    let mut files: Vec<String> = beside.filter(|name| names.contains(name.as_str())).collect();
    if plan.weights.ends_with(INDEX) {
        pulled = run.bring(std::slice::from_ref(&plan.weights), report)?;
        let path = named.cached.snapshot(&info.sha).join(&plan.weights);
        let text = std::fs::File::open(&path).and_then(|file| bounded::text(file, TEXT_LIMIT));
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let shards = shard_names(&text).map_err(|why| anyhow!("{}: {}: {why}", named.spec, plan.weights))?;
        files.extend(shards.iter().map(|shard| inside(parent(&plan.weights), shard)));
    } else {
        files.push(plan.weights.clone());
    }
    pulled.extend(run.bring(&files, report)?);
    write_reference(&named.cached, named.revision, &info.sha)?;
    let snapshot = named.cached.snapshot(&info.sha);
    let path = named.file.map_or_else(|| snapshot.clone(), |file| snapshot.join(file));
    Ok(Pulled { path, commit: Some(info.sha), files: pulled })
}

/// Brings what lies beside the weights alone, at the commit that the revision stands for now.
///
/// # Errors
/// As [`pull`].
pub fn documents(named: &Named, wanted: &Wanted, settings: &Settings, report: Report) -> Result<()> {
    let client = Client::new(settings)?;
    let info = info(&client, named, named.revision, report)?;
    let names: BTreeSet<&str> = info.siblings.iter().map(|s| s.rfilename.as_str()).filter(|n| is_inside(n)).collect();
    let plan = choose(named, wanted, &names)?;
    let beside = wanted.beside.iter().map(|name| inside(&plan.folder, name));
    let files: Vec<String> = beside.filter(|name| names.contains(name.as_str())).collect();
    Run { client: &client, named, commit: &info.sha }.bring(&files, report)?;
    write_reference(&named.cached, named.revision, &info.sha)
}

/// Looks for documents beside weights that the cache has, at the commit that it has.
///
/// # Errors
/// As [`pull`].
pub fn complete(named: &Named, names: &[String], settings: &Settings, report: Report) -> Result<()> {
    let client = Client::new(settings)?;
    let commit = named.cached.commit(named.revision);
    let info = info(&client, named, &commit, report)?;
    let there = |name: &&String| info.siblings.iter().any(|s| s.rfilename == **name);
    for name in names.iter().filter(|name| !there(name)) {
        mark_absent(&named.cached, &commit, name)?;
    }
    let found: Vec<String> = names.iter().filter(there).cloned().collect();
    Run { client: &client, named, commit: &commit }.bring(&found, report).map(|_| ())
}

/// Whether a failure is one of the network, not of what was asked for.
pub fn is_network(error: &anyhow::Error) -> bool {
    error.downcast_ref::<GaveUp>().is_some()
}

fn info(client: &Client, named: &Named, revision: &str, report: Report) -> Result<Info> {
    let Named { repository, .. } = named;
    let endpoint = &client.settings.endpoint;
    let url = format!("{endpoint}/api/models/{repository}/revision/{}", address::quote(revision, ""));
    let subject = Subject::Hub { repository, revision: named.revision, file: None };
    let text = client.persist(report, |_| {
        let mut answer = client.get(&url, &[("Accept", "application/json")], &subject)?;
        let body = answer.body_mut().with_config().limit(INFO_LIMIT);
        body.read_to_vec().map_err(|e| Trouble::Again(format!("{url} broke off: {e}"), None))
    })?;
    let wrong = || format!("{url} does not answer as a Hugging Face hub does; is HF_ENDPOINT right?");
    let info: Info = serde_json::from_slice(&text).with_context(wrong)?;
    if !is_inside(&info.sha) || info.sha.contains('/') {
        bail!("{}: the commit {:?} is none", wrong(), info.sha)
    }
    Ok(info)
}

/// The weights to bring, and the folder that they lie in.
fn choose(named: &Named, wanted: &Wanted, names: &BTreeSet<&str>) -> Result<Plan> {
    let folder = match named.file {
        Some(file) if names.contains(file) => {
            return Ok(Plan { folder: parent(file).to_string(), weights: file.to_string() });
        }
        folder => folder.unwrap_or_default(),
    };
    let (repository, revision) = (named.repository, named.revision);
    if !folder.is_empty() && !names.iter().any(|name| name.starts_with(&inside(folder, ""))) {
        let close: Vec<String> = nearest(folder, names.iter().copied(), 5).iter().map(|n| format!("{n:?}")).collect();
        bail!(
            "{}: {repository} at revision {revision:?} has no file or folder {folder:?}; nearest of its {}: {}",
            named.spec,
            names.len(),
            close.join(", ")
        )
    }
    let candidates = wanted.weights.iter().map(|name| inside(folder, name));
    match candidates.clone().find(|name| names.contains(name.as_str())) {
        Some(weights) => Ok(Plan { folder: folder.to_string(), weights }),
        None => {
            let ends = [".safetensors", ".bin", ".pt", ".pth", ".ckpt", INDEX];
            let held: Vec<&str> = names.iter().copied().filter(|n| ends.iter().any(|end| n.ends_with(end))).collect();
            let holds = match held.len() {
                0 => "it holds no file of weights".to_string(),
                1..=20 => format!("it holds {}", held.join(", ")),
                n => format!("it holds {} and {} more", held[..20].join(", "), n - 20),
            };
            let (repository, revision, file) =
                (repository.to_string(), Some(revision.to_string()), Some("FILE".into()));
            let example = WeightSpec::Hub { repository, revision, file };
            bail!(
                "{}: none of the weight files {} is in {} at revision {:?}; {holds}; \
                 a file can be named: {example}",
                named.spec,
                candidates.collect::<Vec<_>>().join(", "),
                named.repository,
                named.revision,
            )
        }
    }
}

/// What one call brings.
struct Run<'a> {
    client: &'a Client,
    named: &'a Named<'a>,
    commit: &'a str,
}

impl Run<'_> {
    /// Notes what the repository does not have of all that was looked for, so that nobody asks again.
    fn mark_absent(&self, wanted: &Wanted, plan: &Plan, names: &BTreeSet<&str>) -> Result<()> {
        let before = wanted.weights.iter().map(|name| inside(&plan.folder, name)).take_while(|n| *n != plan.weights);
        let before = before.filter(|_| self.named.file != Some(plan.weights.as_str()));
        let beside = wanted.beside.iter().map(|name| inside(&plan.folder, name));
        for name in before.chain(beside).filter(|name| !names.contains(name.as_str())) {
            mark_absent(&self.named.cached, self.commit, &name)?;
        }
        Ok(())
    }

    /// Brings these files, what the snapshot has already aside.
    fn bring(&self, files: &[String], report: Report) -> Result<Vec<PulledFile>> {
        let snapshot = self.named.cached.snapshot(self.commit);
        let mut pulled = Vec::new();
        let mut jobs = Vec::new();
        for file in files {
            // A snapshot's files never change: what is there is right.
            if let Ok(found) = std::fs::metadata(snapshot.join(file)) {
                pulled.push(PulledFile { name: file.clone(), bytes: found.len(), downloaded: false });
                continue;
            }
            let Named { repository, revision, .. } = self.named;
            let subject = Subject::Hub { repository, revision, file: Some(file) };
            let metadata = self.client.persist(report, |_| self.client.metadata(self.commit, file, &subject));
            jobs.push((file, subject, metadata.with_context(|| self.named.spec.to_string())?));
        }
        let of = jobs.len();
        for (i, (file, subject, metadata)) in jobs.iter().enumerate() {
            let cached = &self.named.cached;
            let url = self.client.file_address(self.named.repository, self.commit, file);
            let (commit, subject) = (self.commit, *subject);
            let job = Job { cached, commit, file, url: &url, metadata, subject, number: (i + 1, of), reuse: true };
            let downloaded = self.client.download(&job, report).with_context(|| self.named.spec.to_string())?;
            let bytes = std::fs::metadata(snapshot.join(file)).map_or(0, |found| found.len());
            pulled.push(PulledFile { name: file.to_string(), bytes, downloaded });
        }
        Ok(pulled)
    }
}

/// Whether nothing at all is to be asked of the network: a commit's files never change.
pub fn is_settled(named: &Named, wanted: &Wanted) -> bool {
    let is_commit = named.revision.len() == 40 && named.revision.bytes().all(|b| b.is_ascii_hexdigit());
    is_commit && named.lack(wanted) == Lack::Nothing
}
