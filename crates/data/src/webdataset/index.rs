//! Where the samples of tar files begin: headers are read, data are skipped.
//!
//! The crate `tar` understands every kind of header (ustar, GNU's long names, pax); those that stand alone are taken one
//! by one out of a window that is filled with one read, since the small members behind an image and the next image's
//! header lie in it together.

use super::super::span::{read_at, read_some_at};
use super::super::{Ahead, caught};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use tar::{Archive, EntryType, Header};

/// Bytes of one read.
const WINDOW: usize = 4096;
/// Bytes of a header, and what a member's data are padded to.
const BLOCK: u64 = 512;
/// Where a header's checksum stands.
const SUM: std::ops::Range<usize> = 148..156;
/// Shards that are listed side by side: a disk far away answers slowly, but answers many at once.
const THREADS: usize = 16;
/// How a gzip file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// One shard with where its samples begin.
pub struct Shard {
    /// The file.
    pub path: Arc<PathBuf>,
    /// What features of its samples are called by.
    pub label: String,
    file: File,
    length: u64,
    /// First byte of every sample's first header.
    starts: Vec<u64>,
    /// Where the rest cannot be read, and why: an item of its own behind the samples.
    broken: Option<(u64, String)>,
}

/// One member of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its ending, in lower case, all after the first dot of the name.
    pub ending: String,
    /// First byte of its data.
    pub start: u64,
    /// Bytes of its data.
    pub length: u64,
}

/// A sample's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Folder and name up to the first dot.
    pub name: String,
    /// Its members, in order.
    pub fields: Vec<Field>,
}

impl Sample {
    /// The endings, for messages.
    pub fn endings(&self) -> String {
        self.fields.iter().map(|field| field.ending.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Lists all shards, several side by side.
///
/// # Errors
/// The first shard that is not there or is compressed.
pub fn read(files: Vec<(PathBuf, String)>) -> Result<Vec<Shard>> {
    let open = |at: u64| {
        let (path, label) = &files[at as usize];
        caught(|| path.display().to_string(), || Shard::open(path.clone(), label.clone()))
    };
    let ahead = Ahead::new((0, files.len() as u64), files.len(), open);
    ahead.with_workers(THREADS.min(files.len()), || files.iter().map(|_| ahead.next()).collect())
}

impl Shard {
    fn open(path: PathBuf, label: String) -> Result<Self> {
        let context = || format!("cannot read the shard {}", path.display());
        let file = File::open(&path).with_context(context)?;
        let length = file.metadata().with_context(context)?.len();
        let mut magic = [0; 2];
        if length >= 2 {
            read_at(&file, &mut magic, 0).with_context(context)?;
        }
        if magic == GZIP {
            bail!("{}: it is compressed; samples are read one by one, which needs a plain tar file", path.display())
        }
        let (mut starts, mut last): (Vec<u64>, String) = (Vec::new(), String::new());
        let walked = walk(&file, 0, |member| {
            if member.name != last {
                starts.push(member.begin);
                last.clear();
                last.push_str(member.name);
            }
            true
        });
        let broken = walked.err();
        if let Some((at, reason)) = &broken {
            tracing::warn!("{}: nothing is read from byte {at} on: {reason}", path.display());
        }
        Ok(Self { path: Arc::new(path), label, file, length, starts, broken })
    }

    /// Samples, and one more where the rest cannot be read.
    pub fn len(&self) -> usize {
        self.starts.len() + usize::from(self.broken.is_some())
    }

    /// The name of sample `at`, where its header can be read.
    pub fn name(&self, at: usize) -> Option<String> {
        let mut name = None;
        let _ = walk(&self.file, *self.starts.get(at)?, |member| {
            name = Some(member.name.to_string());
            false
        });
        name
    }

    /// The members of sample `at`.
    ///
    /// # Errors
    /// A member that is cut short, a shard that cannot be read.
    pub fn sample(&self, at: usize) -> Result<Sample> {
        let Some(start) = self.starts.get(at) else {
            match &self.broken {
                Some((at, reason)) => bail!("nothing is read from byte {at} on: {reason}"),
                None => bail!("there is no such sample"),
            }
        };
        let mut sample = Sample { name: String::new(), fields: Vec::new() };
        // What is broken behind this sample is another item's.
        let _ = walk(&self.file, *start, |member| {
            let is_first = sample.fields.is_empty();
            if is_first {
                sample.name = member.name.to_string();
            }
            let is_ours = member.name == sample.name;
            if is_ours {
                let ending = member.ending.to_ascii_lowercase();
                sample.fields.push(Field { ending, start: member.start, length: member.length });
            }
            is_ours
        });
        for field in &sample.fields {
            if field.start.saturating_add(field.length) > self.length {
                bail!(
                    "its .{} of {} bytes begins at byte {}, the shard has {} bytes: cut short",
                    field.ending,
                    field.length,
                    field.start,
                    self.length
                )
            }
        }
        Ok(sample)
    }

    /// The data of a member.
    ///
    /// # Errors
    /// A shard that cannot be read.
    pub fn read(&self, field: &Field) -> Result<Vec<u8>> {
        let mut bytes = vec![0; field.length as usize];
        let context = || format!("cannot read its .{}", field.ending);
        read_at(&self.file, &mut bytes, field.start).with_context(context)?;
        Ok(bytes)
    }
}

/// A file of a shard, seen while walking.
struct Member<'a> {
    /// Folder and name up to the first dot.
    name: &'a str,
    /// All after that dot.
    ending: &'a str,
    /// First byte of its headers.
    begin: u64,
    /// First byte of its data.
    start: u64,
    /// Bytes of its data.
    length: u64,
}

/// Shows `visit` the files of a shard from byte `from` on, which begins a header, until it says false.
///
/// # Errors
/// Where no further header can be read, and why.
fn walk(file: &File, from: u64, mut visit: impl FnMut(Member) -> bool) -> Result<(), (u64, String)> {
    let mut window = Window::new(file, from);
    let mut at = from;
    loop {
        let begin = at;
        let broken = |reason: String| (begin, reason);
        let Some(block) = window.block(begin).map_err(|e| broken(e.to_string()))? else { return Ok(()) };
        // Almost every header stands alone; this is what opening a million samples waits for.
        let header = Header::from_byte_slice(block);
        if block.iter().any(|byte| *byte != 0) && header.entry_type() == EntryType::Regular {
            let sum = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
            // The sum counts its own eight bytes as spaces.
            let sum = sum - block[SUM].iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
            if header.cksum().ok() != Some(sum) {
                return Err(broken("the header's checksum does not fit".to_string()));
            }
            let length = header.entry_size().map_err(|e| broken(e.to_string()))?;
            let start = begin + BLOCK;
            at = behind(start, length);
            if !show(&header.path_bytes(), begin, start, length, &mut visit) {
                return Ok(());
            }
            continue;
        }
        let mut archive = Archive::new(Window::new(file, begin));
        let mut entries = archive.entries_with_seek().map_err(|e| broken(e.to_string()))?;
        // None is the mark at the archive's end.
        let Some(entry) = entries.next() else { return Ok(()) };
        let entry = entry.map_err(|e| broken(e.to_string()))?;
        let (start, length) = (begin + entry.raw_file_position(), entry.size());
        at = behind(start, length);
        let is_file = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous);
        if is_file && !show(&entry.path_bytes(), begin, start, length, &mut visit) {
            return Ok(());
        }
    }
}

/// The byte behind a member's padded data.
fn behind(start: u64, length: u64) -> u64 {
    start.saturating_add(length.div_ceil(BLOCK).saturating_mul(BLOCK))
}

/// Shows one file that belongs to a sample; false ends the walk.
fn show(path: &[u8], begin: u64, start: u64, length: u64, visit: &mut impl FnMut(Member) -> bool) -> bool {
    let member = std::str::from_utf8(path).ok().and_then(split);
    member.is_none_or(|(name, ending)| visit(Member { name, ending, begin, start, length }))
}

/// A sample's name and an ending, as webdataset splits them at the first dot of the file's name; None where there is
/// none, and for webdataset's own files (`__index__`).
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let file = path.rfind('/').map_or(0, |at| at + 1);
    let first = path.split('/').next().unwrap_or_default();
    let is_meta = first.len() >= 4 && first.starts_with("__") && first.ends_with("__");
    let dot = file + path[file..].find('.').filter(|at| *at > 0)?;
    (!is_meta).then(|| (&path[..dot], &path[dot + 1..]))
}

/// A file from a byte on, read through one buffer, in which it seeks without asking the system.
struct Window<'a> {
    file: &'a File,
    from: u64,
    /// Where the next byte is read.
    at: u64,
    /// The buffer's first byte, seen from the file's beginning, and how many there are.
    first: u64,
    filled: usize,
    buffer: Box<[u8; WINDOW]>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, from: u64) -> Self {
        Self { file, from, at: from, first: 0, filled: 0, buffer: Box::new([0; WINDOW]) }
    }
}

impl Window<'_> {
    /// The block that begins at byte `at`; None at the file's end.
    fn block(&mut self, at: u64) -> io::Result<Option<&[u8]>> {
        let block = BLOCK as usize;
        if at < self.first || at.saturating_add(BLOCK) > self.first + self.filled as u64 {
            // A read may give less than there is.
            (self.first, self.filled) = (at, 0);
            while self.filled < block && i64::try_from(at).is_ok() {
                match read_some_at(self.file, &mut self.buffer[self.filled..], at + self.filled as u64)? {
                    0 => break,
                    n => self.filled += n,
                }
            }
        }
        match self.filled - ((at - self.first) as usize).min(self.filled) {
            0 => Ok(None),
            n if n < block => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a header is cut short")),
            _ => Ok(Some(&self.buffer[(at - self.first) as usize..][..block])),
        }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let inside = self.at >= self.first && self.at < self.first + self.filled as u64;
        if !inside {
            self.filled = 0;
            self.filled = read_some_at(self.file, self.buffer.as_mut_slice(), self.at)?;
            self.first = self.at;
        }
        let behind = (self.at - self.first) as usize;
        let count = out.len().min(self.filled - behind);
        out[..count].copy_from_slice(&self.buffer[behind..behind + count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => self.from.checked_add(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        // A header may ask for more than there is.
        self.at = at.filter(|at| *at >= self.from && i64::try_from(*at).is_ok()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at - self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_the_first_dot_of_the_file() {
        for (path, expected) in [
            ("000.jpg", Some(("000", "jpg"))),
            ("./a/000.seg.png", Some(("a/000", "seg.png"))),
            ("a.b/c.txt", Some(("a.b/c", "txt"))),
            ("a/plain", None),
            (".hidden.jpg", None),
            ("__meta__/x.json", None),
            ("__x.json", Some(("__x", "json"))),
            ("x.", Some(("x", ""))),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }
}
