//! One file of a repository into the cache: under a lock, resumed where it was broken off, verified, then named.
//!
//! Bytes go straight into `blobs/ETAG.incomplete`, so whatever ends the program leaves a partial file that the next run
//! resumes. Only a complete file with the right hash becomes a blob, and only a blob is linked into a snapshot.

use super::client::{Client, GaveUp, Metadata, Subject, Trouble};
use super::store::{link, make_parent};
use super::{Event, Report};
use anyhow::{Context, Result, anyhow, bail};
use limber_core::hash::hex;
use limber_weights::cache::CachedRepository;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use ureq::http::{HeaderMap, HeaderName, StatusCode};

/// Bytes that are read, hashed and written at once.
const CHUNK: usize = 1 << 18;

/// Bytes of an earlier run whose reading is worth a word.
const NOTED: u64 = 1 << 28;

/// A file that is wanted in the cache.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The repository's folder in the cache.
    pub cached: &'a CachedRepository,
    /// The commit.
    pub commit: &'a str,
    /// The file's path in the repository.
    pub file: &'a str,
    /// Where it is asked for.
    pub url: &'a str,
    /// What the hub says of it.
    pub metadata: &'a Metadata,
    /// For messages.
    pub subject: Subject<'a>,
    /// It is file `number` of `of`.
    pub number: (usize, usize),
    /// Whether a blob of its name and length is the file, or is to be replaced.
    pub reuse: bool,
}

impl Client {
    /// Brings the file into the cache and links it into the snapshot; gives whether it had to be downloaded.
    ///
    /// # Errors
    /// A hub that gives up, refuses or sends other bytes than it says; a disk that is full or cannot be written.
    pub fn download(&self, job: &Job, report: Report) -> Result<bool> {
        let blob = job.cached.blob(&job.metadata.etag);
        let mut fetched = false;
        if !is_whole(&blob, job) {
            make_parent(&blob)?;
            let _lock = lock(&job.cached.lock(&job.metadata.etag), job.file, report)?;
            // Another process may have brought it while this one waited.
            if !is_whole(&blob, job) {
                self.fill(job, &blob, report)?;
                fetched = true;
            }
        }
        link(job.cached, &job.metadata.etag, job.commit, job.file)?;
        Ok(fetched)
    }

    /// Downloads the blob, with as many attempts as bring it further.
    fn fill(&self, job: &Job, blob: &Path, report: Report) -> Result<()> {
        let path = job.cached.incomplete(&job.metadata.etag);
        // Without a hash nothing would tell whether an old partial file belongs to this file.
        let there = std::fs::metadata(&path).map_or(0, |found| found.len());
        if there > NOTED {
            report(Event::Note(&format!("{}: reading the {there} bytes that are there", job.file)));
        }
        let mut partial = PartialFile::open(&path, job.metadata.is_resumable())?;
        let mut from_earlier = partial.length > 0;
        note_space(job, &path, partial.length, report);
        let (mut failed, mut furthest) = (0, partial.length);
        let mut validator = job.metadata.validator.clone();
        let (number, of) = job.number;
        report(Event::Begin { file: job.file, size: job.metadata.size, at: partial.length, number, of });
        loop {
            match self.transfer(job, &mut partial, &mut validator, report) {
                Ok(()) => {}
                Err(trouble) => {
                    if partial.length > furthest {
                        (failed, furthest) = (0, partial.length);
                    }
                    if let Err(error) = self.pause(trouble, &mut failed, report) {
                        // The next run goes on under what it is told of the file, which is not what sent these bytes.
                        if job.metadata.sha256.is_none() && validator != job.metadata.validator {
                            partial.restart()?;
                        }
                        return Err(kept(error, &partial, job));
                    }
                    continue;
                }
            }
            let found = partial.hash();
            match job.metadata.sha256.as_deref() {
                Some(expected) if found != expected => {
                    partial.restart()?;
                    if !from_earlier {
                        drop(partial);
                        std::fs::remove_file(&path).ok();
                        bail!(
                            "{}: the bytes that came have the sha256 {found}, {} says {expected}; nothing was kept",
                            job.file,
                            job.subject.hasher()
                        );
                    }
                    // The partial file of an earlier run was bad, or was of something else.
                    from_earlier = false;
                    report(Event::Note(&format!(
                        "{}: the partial file in the cache is not of this file; starting anew",
                        job.file
                    )));
                }
                _ => break,
            }
        }
        let size = partial.length;
        partial.seal(blob)?;
        report(Event::End { file: job.file, size });
        Ok(())
    }

    /// One request: appends what is missing. `validator` is the ETag of the server that sent the bytes so far.
    fn transfer(
        &self,
        job: &Job,
        partial: &mut PartialFile,
        validator: &mut Option<String>,
        report: Report,
    ) -> Result<(), Trouble> {
        let size = job.metadata.size;
        if size.is_some_and(|size| partial.length > size) {
            partial.restart().map_err(Trouble::Never)?;
        }
        if size == Some(partial.length) {
            return Ok(());
        }
        // Without a hash or a validator nothing tells whether the rest would be of the same version.
        if partial.length > 0 && job.metadata.sha256.is_none() && validator.is_none() {
            report(Event::At(0));
            partial.restart().map_err(Trouble::Never)?;
        }
        let range = format!("bytes={}-", partial.length);
        let mut headers = vec![("Accept-Encoding", "identity")];
        if partial.length > 0 {
            headers.push(("Range", &range));
            headers.extend(validator.as_deref().map(|etag| ("If-Range", etag)));
        }
        let answer = self.get(job.url, &headers, &job.subject)?;
        let etag = text(answer.headers(), &ETAG).filter(|etag| etag.starts_with('"'));
        let again = |message: String| Trouble::Again(format!("{}: {message}", job.file), None);
        match answer.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => {
                *validator = None;
                return Err(anew(partial, report, again("the server refused to go on, so it begins anew".into())));
            }
            StatusCode::PARTIAL_CONTENT => {
                let found = text(answer.headers(), &CONTENT_RANGE).unwrap_or_default();
                let is_unsure = etag.is_none() && job.metadata.sha256.is_none();
                let changed = validator.is_some() && *validator != etag && (etag.is_some() || is_unsure);
                if changed || !goes_on(&found, partial.length, size) {
                    *validator = None;
                    let what = if changed { "changed meanwhile" } else { "was continued at another offset" };
                    return Err(anew(partial, report, again(format!("the file {what}, so it begins anew"))));
                }
            }
            // The whole file, from a server that knows no ranges or has another file now.
            _ if partial.length > 0 => {
                report(Event::At(0));
                partial.restart().map_err(Trouble::Never)?;
            }
            _ => {}
        }
        if etag.is_some() || answer.status() != StatusCode::PARTIAL_CONTENT {
            *validator = etag;
        }
        let offered = (!is_encoded(answer.headers())).then(|| text(answer.headers(), &CONTENT_LENGTH)).flatten();
        if let (Some(size), Some(offered)) = (size, offered.and_then(|length| length.parse::<u64>().ok()))
            && partial.length + offered != size
        {
            let total = partial.length + offered;
            let message = format!("{} says {size} bytes, the server sends {total}", job.subject.server());
            return Err(anew(partial, report, again(message)));
        }
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let got = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(again(format!("the connection broke after {} bytes ({e})", partial.length))),
            };
            if let Some(size) = size.filter(|size| partial.length + got as u64 > *size) {
                return Err(anew(partial, report, again(format!("more bytes came than the {size} of the file"))));
            }
            partial.append(&buffer[..got]).map_err(Trouble::Never)?;
            report(Event::At(partial.length));
        }
        match size {
            Some(size) if partial.length < size => {
                Err(again(format!("the connection ended after {} of {size} bytes", partial.length)))
            }
            _ => Ok(()),
        }
    }
}

/// Forgets what came: the server has something else now, or cannot go on from there.
fn anew(partial: &mut PartialFile, report: Report, trouble: Trouble) -> Trouble {
    report(Event::At(0));
    partial.restart().map_or_else(Trouble::Never, |()| trouble)
}

/// A blob on its way.
struct PartialFile {
    path: PathBuf,
    file: File,
    length: u64,
    hash: Sha256,
}

impl PartialFile {
    /// What an earlier run left, hashed, or an empty one.
    fn open(path: &Path, keep: bool) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            let (mut length, mut hash) = (file.metadata()?.len(), Sha256::new());
            if !keep && length > 0 {
                file.set_len(0)?;
                length = 0;
            }
            let mut buffer = vec![0; CHUNK];
            let mut left = length;
            while left > 0 {
                let want = left.min(CHUNK as u64) as usize;
                file.read_exact(&mut buffer[..want])?;
                hash.update(&buffer[..want]);
                left -= want as u64;
            }
            Ok(Self { path: path.to_path_buf(), file, length, hash })
        };
        open().with_context(|| format!("cannot open {}", path.display()))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match self.file.write(rest) {
                Ok(written) if written > 0 => written,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => return Err(self.unwritable(other.err())),
            };
            self.hash.update(&rest[..written]);
            self.length += written as u64;
            rest = &rest[written..];
        }
        Ok(())
    }

    fn unwritable(&self, error: Option<io::Error>) -> anyhow::Error {
        let error = error.unwrap_or_else(|| io::ErrorKind::WriteZero.into());
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let what = if full { "the disk is full" } else { "the disk does not take it" };
        let message = format!(
            "cannot write {}: {what} after {} bytes, with which another run goes on",
            self.path.display(),
            self.length
        );
        anyhow!(error).context(message)
    }

    /// Forgets all that came.
    fn restart(&mut self) -> Result<()> {
        if self.length > 0 {
            self.file.set_len(0).with_context(|| format!("cannot empty {}", self.path.display()))?;
        }
        (self.length, self.hash) = (0, Sha256::new());
        Ok(())
    }

    fn hash(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// Becomes the blob once it is on the disk.
    fn seal(self, blob: &Path) -> Result<()> {
        let seal = || -> io::Result<()> {
            self.file.sync_all()?;
            std::fs::rename(&self.path, blob)
        };
        seal().with_context(|| format!("cannot move {} to {}", self.path.display(), blob.display()))
    }
}

/// Whether the blob is there in its full length.
fn is_whole(blob: &Path, job: &Job) -> bool {
    let is_long = |found: std::fs::Metadata| job.metadata.size.is_none_or(|size| size == found.len());
    job.reuse && std::fs::metadata(blob).is_ok_and(|found| found.is_file() && is_long(found))
}

/// What giving up says of the partial file that stays.
fn kept(error: anyhow::Error, partial: &PartialFile, job: &Job) -> anyhow::Error {
    match error.downcast::<GaveUp>() {
        Ok(GaveUp(reason)) if partial.length > 0 && job.metadata.is_resumable() => {
            GaveUp(format!("{reason}; the {} bytes that came are kept, another run goes on from there", partial.length))
                .into()
        }
        Ok(gave_up) => gave_up.into(),
        Err(error) => error,
    }
}

/// Whether `Content-Range` begins at `start` and names the same total.
fn goes_on(range: &str, start: u64, size: Option<u64>) -> bool {
    let parse = || {
        let (first, rest) = range.strip_prefix("bytes ")?.split_once('-')?;
        Some((first.trim().parse::<u64>().ok()?, rest.split_once('/')?.1.trim().parse::<u64>().ok()))
    };
    parse().is_some_and(|(first, total)| first == start && (total.is_none() || size.is_none() || total == size))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_string())
}

/// Whether the length of the answer is not that of the file.
fn is_encoded(headers: &HeaderMap) -> bool {
    text(headers, &CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"))
}

/// Holds `path` locked, as `huggingface_hub` does, until the file is dropped; None where the file system has no locks.
fn lock(path: &Path, file: &str, report: Report) -> Result<Option<File>> {
    make_parent(path)?;
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let lock = open.with_context(|| format!("cannot open the lock {}", path.display()))?;
    let mut said = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
        if !said {
            report(Event::Note(&format!("{file}: another process downloads it, waiting for {}", path.display())));
            said = true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Says so where the disk has less room than the file needs.
fn note_space(job: &Job, path: &Path, have: u64, report: Report) {
    #[cfg(unix)]
    if let (Some(size), Some(Ok(space))) = (job.metadata.size, path.parent().map(rustix::fs::statvfs)) {
        let (need, free) = (size.saturating_sub(have), space.f_bavail.saturating_mul(space.f_frsize));
        if free < need {
            let name = job.file;
            report(Event::Note(&format!("{name}: {need} bytes are to come, {} has room for {free}", path.display())));
        }
    }
    #[cfg(not(unix))]
    let _ = (job, path, have, report);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_do_not_go_on_are_seen() {
        for (range, goes) in [
            ("bytes 5-9/10", true),
            ("bytes 5-9/*", true),
            ("bytes 4-9/10", false),
            ("bytes 5-9/11", false),
            ("bytes */10", false),
            ("5-9/10", false),
            ("", false),
        ] {
            assert_eq!(goes_on(range, 5, Some(10)), goes, "{range}");
        }
    }

    #[test]
    fn a_part_is_taken_up_with_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.incomplete");
        let mut partial = PartialFile::open(&path, true).unwrap();
        partial.append(b"ab").unwrap();
        drop(partial);
        let mut partial = PartialFile::open(&path, true).unwrap();
        assert_eq!(partial.length, 2);
        partial.append(b"c").unwrap();
        // The well-known digest of "abc".
        assert_eq!(partial.hash(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        partial.restart().unwrap();
        partial.append(b"abc").unwrap();
        assert!(partial.hash().starts_with("ba7816bf"));
        partial.seal(&folder.path().join("x")).unwrap();
        assert_eq!(std::fs::read(folder.path().join("x")).unwrap(), b"abc");
        std::fs::write(&path, "old").unwrap();
        assert_eq!(PartialFile::open(&path, false).unwrap().length, 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.incomplete");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let message = format!("{:#}", PartialFile::open(&path, true).unwrap().append(b"a").unwrap_err());
        assert!(message.contains("x.incomplete: the disk is full after 0 bytes"), "{message}");
    }
}
