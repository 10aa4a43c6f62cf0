//! A small hub on the loopback interface: the API, files, and a storage server of its own port behind redirects.
//!
//! What it answers follows huggingface.co: small files at once, large ones with a redirect whose headers name their
//! sha256 and length. [`Fault`]s are used up one a request.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is sent back.
#[derive(Debug, Clone, Default)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    cut: Option<usize>,
    /// Bytes of the body after which nothing more comes, though the connection stays.
    stall: Option<usize>,
    delay: Duration,
    /// Of every 16 KiB.
    pace: Duration,
}

/// What goes wrong with one request.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    /// This status instead of an answer, with these headers.
    pub status: Option<(u16, Vec<(&'static str, String)>)>,
    pub cut: Option<usize>,
    pub stall: Option<usize>,
    pub delay: Duration,
    pub pace: Duration,
    /// The whole file, whatever range was asked for.
    pub no_range: bool,
    /// A range that begins so many bytes further.
    pub shift: usize,
    /// Other bytes.
    pub bytes: Option<Vec<u8>>,
    /// The storage server's own ETag; of an empty one it says nothing, and gives any range that is asked for.
    pub etag: Option<&'static str>,
}

impl Fault {
    pub fn cut(after: usize) -> Self {
        Self { cut: Some(after), ..Self::default() }
    }

    pub fn status(status: u16, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, value.to_string())).collect();
        Self { status: Some((status, headers)), ..Self::default() }
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// One listening port. It closes when it is dropped.
pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start(handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (all, stopped) = (seen.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (handler, all) = (handler.clone(), all.clone());
                // A client that goes away in the middle is what some tests are about.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, &*handler, &all)));
            }
        });
        Self { address, seen, stop }
    }

    /// All requests up to now.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address.trim_start_matches("http://")).ok();
    }
}

/// Answers requests of one connection until it closes.
fn serve(stream: TcpStream, handler: &Handler, seen: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(request) = read(&mut reader)? {
        seen.lock().unwrap().push(request.clone());
        let answer = handler(&request);
        std::thread::sleep(answer.delay);
        let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !answer.headers.iter().any(|(name, _)| name == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if request.method == "HEAD" {
            continue;
        }
        let end = answer.cut.or(answer.stall).unwrap_or(answer.body.len()).min(answer.body.len());
        for piece in answer.body[..end].chunks(1 << 14) {
            stream.write_all(piece)?;
            std::thread::sleep(answer.pace);
        }
        if answer.stall.is_some() {
            // Until the client goes away, or the read times out.
            let mut line = String::new();
            reader.read_line(&mut line).ok();
        }
        if answer.cut.is_some() || answer.stall.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_string);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Some(Request { method, path, headers }));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_string());
        }
    }
}

/// A file of a commit.
#[derive(Debug, Clone)]
pub struct File {
    pub path: String,
    pub bytes: Vec<u8>,
    /// Kept by the storage server.
    pub large: bool,
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl File {
    pub fn sha256(&self) -> String {
        sha256(&self.bytes)
    }

    /// The sha256 of large files; of small ones something of the length of git's names.
    pub fn etag(&self) -> String {
        if self.large { self.sha256() } else { self.sha256()[..40].to_string() }
    }
}

/// What the hub holds, and what it will do wrong.
#[derive(Default)]
pub struct World {
    /// Branches and tags of `owner/name`.
    pub revisions: BTreeMap<(String, String), String>,
    /// Files by repository and commit.
    pub commits: BTreeMap<(String, String), Vec<File>>,
    /// Repositories that have moved.
    pub moved: BTreeMap<String, String>,
    /// Without this token, nothing is answered.
    pub token: Option<String>,
    /// Faults of the hub's own answers to HEAD and GET of files and of the API.
    pub hub_faults: VecDeque<Fault>,
    /// Faults of the storage server.
    pub storage_faults: VecDeque<Fault>,
}

/// A hub with its storage server.
pub struct Hub {
    pub world: Arc<Mutex<World>>,
    pub hub: Server,
    pub storage: Server,
}

/// A commit's name.
pub fn commit(digit: char) -> String {
    digit.to_string().repeat(40)
}

/// Bytes that repeat nowhere near, from a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

impl Hub {
    pub fn new() -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let known = world.clone();
        let storage = Server::start(Arc::new(move |request| store(&mut known.lock().unwrap(), request)));
        let (known, address) = (world.clone(), storage.address.clone());
        let hub = Server::start(Arc::new(move |request| answer(&mut known.lock().unwrap(), &address, request)));
        Self { world, hub, storage }
    }

    /// Makes `revision` of a repository stand for a commit with these files; files from 64 KiB on are large.
    pub fn set(&self, repository: &str, revision: &str, commit: &str, files: &[(&str, &[u8])]) {
        let file = |(path, bytes): &(&str, &[u8])| File {
            path: path.to_string(),
            bytes: bytes.to_vec(),
            large: bytes.len() >= 1 << 16,
        };
        let mut world = self.world.lock().unwrap();
        world.revisions.insert((repository.to_string(), revision.to_string()), commit.to_string());
        world.commits.insert((repository.to_string(), commit.to_string()), files.iter().map(file).collect());
    }

    pub fn storage_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.world.lock().unwrap().storage_faults.extend(faults);
    }

    pub fn hub_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.world.lock().unwrap().hub_faults.extend(faults);
    }

    /// The ranges that the storage server was asked for, empty where it was asked for all.
    pub fn ranges(&self) -> Vec<String> {
        self.storage.seen().iter().map(|request| request.header("range").unwrap_or_default().to_string()).collect()
    }
}

fn error(status: u16, code: &str) -> Answer {
    Answer { status, headers: vec![("X-Error-Code".into(), code.into())], ..Answer::default() }
}

fn faulty(fault: &Fault) -> Option<Answer> {
    let (status, headers) = fault.status.as_ref()?;
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    Some(Answer { status: *status, headers, delay: fault.delay, ..Answer::default() })
}

fn answer(world: &mut World, storage: &str, request: &Request) -> Answer {
    let fault = world.hub_faults.pop_front().unwrap_or_default();
    if let Some(answer) = faulty(&fault) {
        return answer;
    }
    if let Some(token) = &world.token
        && request.header("authorization") != Some(&format!("Bearer {token}"))
    {
        return error(401, "RepoNotFound");
    }
    for (from, to) in &world.moved {
        for top in ["/", "/api/models/"] {
            if let Some(rest) = request.path.strip_prefix(&format!("{top}{from}/")) {
                let headers = vec![("Location".to_string(), format!("{top}{to}/{rest}"))];
                return Answer { status: 307, headers, ..Answer::default() };
            }
        }
    }
    if let Some(rest) = request.path.strip_prefix("/api/models/") {
        let Some((repository, revision)) = rest.split_once("/revision/") else { return error(404, "") };
        let Some(commit) = resolve(world, repository, revision) else { return missing(world, repository) };
        let files = &world.commits[&(repository.to_string(), commit.clone())];
        let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({"rfilename": file.path})).collect();
        let body = serde_json::json!({"id": repository, "sha": commit, "siblings": siblings}).to_string();
        return Answer {
            status: 200,
            body: body.into_bytes(),
            delay: fault.delay,
            cut: fault.cut,
            ..Answer::default()
        };
    }
    let Some((repository, rest)) = request.path[1..].split_once("/resolve/") else { return error(404, "") };
    let (revision, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(commit) = resolve(world, repository, revision) else { return missing(world, repository) };
    let mut headers = vec![("X-Repo-Commit".to_string(), commit.clone())];
    let files = &world.commits[&(repository.to_string(), commit)];
    let Some(file) = files.iter().find(|file| file.path == path.replace("%20", " ")) else {
        let mut answer = error(404, "EntryNotFound");
        answer.headers.extend(headers);
        return answer;
    };
    if file.large {
        headers.push(("X-Linked-Etag".into(), format!("\"{}\"", file.etag())));
        headers.push(("X-Linked-Size".into(), file.bytes.len().to_string()));
        headers.push(("Location".into(), format!("{storage}/{}?signature=secret", file.sha256())));
        return Answer { status: 302, headers, delay: fault.delay, ..Answer::default() };
    }
    headers.push(("ETag".into(), format!("W/\"{}\"", file.etag())));
    let body = fault.bytes.unwrap_or_else(|| file.bytes.clone());
    Answer { status: 200, headers, body, delay: fault.delay, cut: fault.cut, ..Answer::default() }
}

/// The commit of a branch, tag or commit, as it stands in an address.
fn resolve(world: &World, repository: &str, revision: &str) -> Option<String> {
    let (repository, revision) = (repository.to_string(), revision.replace("%2F", "/"));
    let named = world.revisions.get(&(repository.clone(), revision.clone())).cloned();
    named.or_else(|| world.commits.contains_key(&(repository, revision.clone())).then_some(revision))
}

fn missing(world: &World, repository: &str) -> Answer {
    let known = world.revisions.keys().any(|(name, _)| name == repository);
    if known { error(404, "RevisionNotFound") } else { error(404, "RepoNotFound") }
}

fn store(world: &mut World, request: &Request) -> Answer {
    let fault = world.storage_faults.pop_front().unwrap_or_default();
    if let Some(answer) = faulty(&fault) {
        return answer;
    }
    let hash = request.path[1..].split('?').next().unwrap_or_default();
    let Some(file) = world.commits.values().flatten().find(|file| file.sha256() == hash) else { return error(404, "") };
    let bytes = fault.bytes.clone().unwrap_or_else(|| file.bytes.clone());
    let etag = format!("\"{}\"", fault.etag.unwrap_or("stored"));
    let mut headers = vec![("Accept-Ranges".to_string(), "bytes".to_string())];
    let is_silent = fault.etag == Some("");
    if !is_silent {
        headers.push(("ETag".to_string(), etag.clone()));
    }
    let same = is_silent || request.header("if-range").is_none_or(|wanted| wanted == etag);
    let start = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let start: Option<usize> = start.filter(|_| same && !fault.no_range);
    let rest = Answer { cut: fault.cut, stall: fault.stall, delay: fault.delay, pace: fault.pace, ..Answer::default() };
    match start {
        Some(start) if start >= bytes.len() => Answer { status: 416, headers, ..rest },
        Some(start) => {
            let from = start + fault.shift;
            headers.push(("Content-Range".into(), format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())));
            Answer { status: 206, headers, body: bytes[from..].to_vec(), ..rest }
        }
        None => Answer { status: 200, headers, body: bytes, ..rest },
    }
}
