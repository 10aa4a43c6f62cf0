//! Speaking HTTP with a hub: redirects by hand, the token for the endpoint alone, failures sorted by what helps.
//!
//! The hub answers small files itself and large ones with a redirect to a storage server, whose address is signed and
//! must not get the token. What the hub says of a file (`X-Repo-Commit`, `X-Linked-Etag`, `X-Linked-Size`) stands in
//! the first answer, not in the storage server's.

use super::settings::Settings;
use super::{Event, Report, address};
use anyhow::{Context, Result, anyhow, ensure};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// Redirects that are followed for one request.
const REDIRECTS: usize = 10;

/// Why there is no answer, by what can be done about it.
#[derive(Debug)]
pub enum Trouble {
    /// Another attempt may help, after this pause where the server asks for one.
    Again(String, Option<Duration>),
    /// Nothing was there to connect to.
    Unreachable(String),
    /// Another attempt would end in the same way.
    Never(anyhow::Error),
}

/// The error of a hub that cannot be reached, or fails again and again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct GaveUp(pub String);

/// What a request is about, for messages.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Something of the hub's.
    Hub {
        /// `owner/name`.
        repository: &'a str,
        /// Branch, tag or commit, as the user gave it.
        revision: &'a str,
        /// The file, if it is about one.
        file: Option<&'a str>,
    },
    /// A file at an address of its own.
    Web(&'a str),
}

impl Subject<'_> {
    /// Who says what the hash of the file is.
    pub fn hasher(&self) -> &'static str {
        match self {
            Subject::Hub { .. } => "the hub",
            Subject::Web(_) => "the config",
        }
    }

    /// Who says how long the file is.
    pub fn server(&self) -> &'static str {
        match self {
            Subject::Hub { .. } => "the hub",
            Subject::Web(_) => "the server",
        }
    }
}

/// What is known of a file before it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Names its content in the cache: on the hub the sha256 of large files, git's name of small ones.
    pub etag: String,
    /// Its length in bytes, where the server says it.
    pub size: Option<u64>,
    /// The sha256 that the bytes must have; None for small files of the hub, whose ETag is git's.
    pub sha256: Option<String>,
    /// The server's own strong ETag, under which a part is gone on with.
    pub validator: Option<String>,
    /// What the server tells versions of the file apart by; None where nothing does.
    pub version: Option<String>,
}

impl Metadata {
    /// A file of the hub by its ETag.
    fn of_hub(etag: &str, size: Option<u64>) -> Self {
        let is_hash = etag.len() == 64 && etag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        Self { etag: etag.to_string(), size, sha256: is_hash.then(|| etag.to_string()), validator: None, version: None }
    }

    /// Whether something tells that a part belongs to this file.
    pub fn is_resumable(&self) -> bool {
        self.sha256.is_some() || self.validator.is_some()
    }
}

/// A hub, and what is known of it.
pub struct Client {
    /// What the environment says.
    pub settings: Settings,
    agent: Agent,
}

impl Client {
    /// A client of the endpoint in `settings`.
    ///
    /// # Errors
    /// Certificates that cannot be read.
    pub fn new(settings: &Settings) -> Result<Self> {
        Self::of(settings, &settings.endpoint)
    }

    /// A client of the server at `address`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(settings: &Settings, address: &str) -> Result<Self> {
        let patience = &settings.patience;
        let mut config = Agent::config_builder()
            .user_agent(concat!("limber/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_per_read(Some(patience.idle))
            .timeout_per_write(Some(patience.idle));
        // What this machine serves itself is behind no proxy.
        if address::is_loopback(address) {
            config = config.proxy(None);
        }
        if let Some(path) = &settings.certificates {
            config = config.tls_config(TlsConfig::builder().root_certs(certificates(path)?).build());
        }
        Ok(Self { settings: settings.clone(), agent: config.build().into() })
    }

    /// What the hub says of a file at a commit.
    ///
    /// # Errors
    /// As [`Trouble`].
    pub fn metadata(&self, commit: &str, file: &str, subject: &Subject) -> Result<Metadata, Trouble> {
        let Subject::Hub { repository, .. } = subject else { return self.web_metadata(file, subject) };
        let mut url = self.file_address(repository, commit, file);
        let header = |headers: &HeaderMap, name: &str| Some(headers.get(name)?.to_str().ok()?.to_string());
        let (mut linked, mut size) = (None, None);
        for _ in 0..REDIRECTS {
            let answer = self.send(Method::HEAD, &url, &[("Accept-Encoding", "identity")])?;
            let headers = answer.headers();
            if let Some(found) = header(headers, "X-Repo-Commit").filter(|found| found != commit) {
                let message = format!("{} answered with commit {found}, asked for was {commit}", address::shown(&url));
                return Err(Trouble::Never(anyhow!(message)));
            }
            linked = linked.or_else(|| header(headers, "X-Linked-Etag"));
            size = size.or_else(|| header(headers, "X-Linked-Size")?.parse().ok());
            let redirected = answer.status().is_redirection();
            if redirected && linked.is_none() {
                url = next_address(&url, headers)?;
                continue;
            }
            if !redirected {
                self.check(&url, &answer, subject)?;
                linked = linked.or_else(|| header(headers, "ETag"));
                size = size.or_else(|| header(headers, "Content-Length")?.parse().ok());
            }
            let etag = linked.as_deref().map(normalised).unwrap_or_default();
            if etag.is_empty() || etag.len() > 200 || !etag.bytes().all(is_plain) || etag.starts_with('.') {
                let what = match &linked {
                    Some(etag) => format!("the ETag {etag:?}, which names no content"),
                    None => "no ETag".to_string(),
                };
                let (from, endpoint) = (address::shown(&url), &self.settings.endpoint);
                return Err(Trouble::Never(anyhow!("{from} gave {what}; is {endpoint} a Hugging Face hub?")));
            }
            return Ok(Metadata::of_hub(etag, size));
        }
        Err(Trouble::Never(anyhow!("{} redirects more than {REDIRECTS} times", address::shown(&url))))
    }

    /// What the server says of the file at `url`; its name in the cache and its hash are the caller's to fill in.
    fn web_metadata(&self, url: &str, subject: &Subject) -> Result<Metadata, Trouble> {
        let mut url = url.to_string();
        for _ in 0..REDIRECTS {
            let answer = self.send(Method::HEAD, &url, &[("Accept-Encoding", "identity")])?;
            if answer.status().is_redirection() {
                url = next_address(&url, answer.headers())?;
                continue;
            }
            // Some servers know GET alone.
            if !matches!(answer.status().as_u16(), 405 | 501) {
                self.check(&url, &answer, subject)?;
            }
            let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_string());
            let is_plain = answer.status().is_success() && header("Content-Encoding").is_none_or(|e| e == "identity");
            let size = header("Content-Length").filter(|_| is_plain).and_then(|length| length.parse().ok());
            let etag = header("ETag").filter(|_| is_plain);
            let validator = etag.clone().filter(|etag| etag.starts_with('"'));
            let dated = || Some(format!("{}, {} bytes", header("Last-Modified")?, size?));
            return Ok(Metadata { etag: String::new(), size, sha256: None, validator, version: etag.or_else(dated) });
        }
        Err(Trouble::Never(anyhow!("{} redirects more than {REDIRECTS} times", address::shown(&url))))
    }

    /// The answer to a GET, redirects followed; 200, 206 and 416 come back, anything else is trouble.
    ///
    /// # Errors
    /// As [`Trouble`].
    pub fn get(&self, url: &str, headers: &[(&str, &str)], subject: &Subject) -> Result<Response<Body>, Trouble> {
        let mut url = url.to_string();
        for _ in 0..REDIRECTS {
            let answer = self.send(Method::GET, &url, headers)?;
            if answer.status().is_redirection() {
                url = next_address(&url, answer.headers())?;
                continue;
            }
            if answer.status() != StatusCode::RANGE_NOT_SATISFIABLE {
                self.check(&url, &answer, subject)?;
            }
            return Ok(answer);
        }
        Err(Trouble::Never(anyhow!("{} redirects more than {REDIRECTS} times", address::shown(&url))))
    }

    /// Where a file is asked for.
    pub fn file_address(&self, repository: &str, commit: &str, file: &str) -> String {
        format!(
            "{}/{repository}/resolve/{}/{}",
            self.settings.endpoint,
            address::quote(commit, ""),
            address::quote(file, "/")
        )
    }

    fn send(&self, method: Method, url: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, Trouble> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.settings.token
            && address::same_origin(url, &self.settings.endpoint)
        {
            request = request.header("Authorization", token.bearer());
        }
        let request =
            request.body(()).map_err(|e| Trouble::Never(anyhow!("cannot ask for {}: {e}", address::shown(url))))?;
        self.agent.run(request).map_err(|error| self.explain(url, error))
    }

    fn explain(&self, url: &str, error: ureq::Error) -> Trouble {
        // A signed address is long and a secret for its time; the server's name says enough.
        let server = address::origin(url).unwrap_or_else(|| url.to_string());
        let message = format!("cannot reach {server}: {error}");
        match error {
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => {
                Trouble::Unreachable(message)
            }
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => Trouble::Unreachable(message),
            ureq::Error::Io(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::ConnectionRefused
                        | std::io::ErrorKind::HostUnreachable
                        | std::io::ErrorKind::NetworkUnreachable
                ) =>
            {
                Trouble::Unreachable(message)
            }
            // TLS failures, certificates among them, come as data that is not valid.
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                let hint = "a file of certificates to trust can be named in SSL_CERT_FILE";
                Trouble::Never(anyhow!("{message}; {hint}"))
            }
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => Trouble::Again(message, None),
            _ => Trouble::Never(anyhow!(message)),
        }
    }

    /// Trouble where the status is not one of success.
    fn check(&self, url: &str, answer: &Response<Body>, subject: &Subject) -> Result<(), Trouble> {
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let server = address::origin(url).unwrap_or_else(|| url.to_string());
        let headers = answer.headers();
        if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
            return Err(Trouble::Again(format!("{server} answered {status}"), asked_pause(headers)));
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (code, words) = (text("X-Error-Code"), text("X-Error-Message").chars().take(300).collect::<String>());
        let own = address::same_origin(url, &self.settings.endpoint);
        let mut message = match subject {
            Subject::Web(address) if status.as_u16() == 404 => {
                format!("{server} has no file at {} ({status}); is the address right?", address::shown(address))
            }
            Subject::Web(address) => format!("{server} answered {status} for {}", address::shown(address)),
            Subject::Hub { repository, revision, file } if own => {
                self.refusal(status, code, (repository, revision, *file))
            }
            Subject::Hub { .. } => {
                format!("{server}, where {} keeps the file, answered {status}", self.settings.endpoint)
            }
        };
        if !words.is_empty() {
            message = format!("{message} (the hub says: {words})");
        }
        Err(Trouble::Never(anyhow!(message)))
    }

    /// What a status of the hub's own means for the user.
    fn refusal(
        &self,
        status: StatusCode,
        code: &str,
        (repository, revision, file): (&str, &str, Option<&str>),
    ) -> String {
        let endpoint = &self.settings.endpoint;
        let sources = &self.settings.token_sources;
        let token = match &self.settings.token {
            Some(token) => format!("the token from {} was sent", token.from()),
            None => format!("no token was sent; it is looked for in {sources}"),
        };
        match (status.as_u16(), code) {
            (401 | 403, "GatedRepo") => format!(
                "{repository} is gated: accept its terms at {endpoint}/{repository} with your account, then give that \
                 account's token; {token}"
            ),
            (_, "RepoNotFound") | (401, _) => format!(
                "there is no repository {repository} at {endpoint}, or it is private, or the token is not valid ({}); {token}",
                status.as_u16()
            ),
            (403, _) => format!("{endpoint} forbids access to {repository} (403); {token}"),
            (404, "RevisionNotFound") => format!(
                "{repository} has no revision {revision:?} at {endpoint}; a slash in the name of a branch is written %2F"
            ),
            (404, _) => match file {
                Some(file) => format!("{repository} at revision {revision:?} has no file {file:?} at {endpoint}"),
                None => format!("{endpoint} knows no {repository} at revision {revision:?} (404); {token}"),
            },
            _ => format!("{endpoint} answered {status} for {repository}"),
        }
    }

    /// Attempts until one succeeds or nothing more is to be hoped for.
    ///
    /// # Errors
    /// [`GaveUp`] after too many attempts; what an attempt says will not get better.
    pub fn persist<T>(&self, report: Report, mut attempt: impl FnMut(Report) -> Result<T, Trouble>) -> Result<T> {
        let mut failed = 0;
        loop {
            match attempt(report) {
                Ok(value) => return Ok(value),
                Err(trouble) => self.pause(trouble, &mut failed, report)?,
            }
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// [`GaveUp`] where there is none.
    pub fn pause(&self, trouble: Trouble, failed: &mut u32, report: Report) -> Result<()> {
        let patience = &self.settings.patience;
        *failed += 1;
        let (reason, asked, tries) = match trouble {
            Trouble::Never(error) => return Err(error),
            Trouble::Again(reason, asked) => (reason, asked, patience.tries),
            // Nothing listens there, or there is no network: waiting long seldom helps.
            Trouble::Unreachable(reason) => (reason, None, patience.tries.min(3)),
        };
        if *failed >= tries {
            let times = if *failed == 1 { String::new() } else { format!(" ({failed} attempts)") };
            return Err(GaveUp(format!("{reason}{times}")).into());
        }
        let back_off = patience.pause.saturating_mul(1 << (*failed - 1).min(5)).min(Duration::from_secs(16));
        // Many programs that lost one server must not come back all at once.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos() % 1000);
        let pause = asked.unwrap_or_else(|| back_off.mul_f64(0.75 + f64::from(nanos) / 2000.0));
        if pause > patience.longest_pause {
            let message = format!("{reason}, and asks to wait {} s: try again then", pause.as_secs());
            return Err(GaveUp(message).into());
        }
        report(Event::Note(&format!("{reason}; trying again in {:.1} s", pause.as_secs_f64())));
        std::thread::sleep(pause);
        Ok(())
    }
}

/// An ETag without its marks: `W/"x"` is x.
pub fn normalised(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'=')
}

/// Where a redirect leads.
fn next_address(url: &str, headers: &HeaderMap) -> Result<String, Trouble> {
    let location = headers.get("Location").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let never = |why: &str| {
        Trouble::Never(anyhow!("{} redirects to {:?}, {why}", address::shown(url), address::shown(location)))
    };
    let next = address::join(url, location).ok_or_else(|| never("which is no address"))?;
    if url.starts_with("https://") && !next.starts_with("https://") {
        return Err(never("which is not encrypted"));
    }
    Ok(next)
}

/// The pause that a server asks for: `Retry-After` in seconds, or `t=` of the hub's `RateLimit`.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let seconds = text("Retry-After")
        .and_then(|value| value.trim().parse().ok())
        .or_else(|| text("RateLimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok()))?;
    Some(Duration::from_secs(seconds))
}

/// The certificates of a PEM file.
fn certificates(path: &std::path::Path) -> Result<RootCerts> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read the certificates in {}", path.display()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) =
            item.with_context(|| format!("{} is no file of certificates", path.display()))?
        {
            found.push(certificate);
        }
    }
    ensure!(!found.is_empty(), "{} holds no certificate (SSL_CERT_FILE, REQUESTS_CA_BUNDLE)", path.display());
    Ok(RootCerts::from(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_read_from_either_header() {
        for (name, value, expected) in [
            ("Retry-After", "7", Some(7)),
            ("Retry-After", "soon", None),
            ("RateLimit", "\"api\";r=0;t=55", Some(55)),
            ("RateLimit", "\"api\"", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ureq::http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            assert_eq!(asked_pause(&headers), expected.map(Duration::from_secs), "{name}: {value}");
        }
    }

    #[test]
    fn etags_lose_their_marks() {
        for (etag, expected) in [("\"a1\"", "a1"), ("W/\"a1\"", "a1"), ("a1", "a1"), ("\"W/\"", "W/")] {
            assert_eq!(normalised(etag), expected);
        }
        let metadata = |etag: &str| Metadata::of_hub(etag, None);
        assert!(metadata(&"0a".repeat(32)).is_resumable());
        assert!(metadata(&"0a".repeat(20)).sha256.is_none());
        assert!(metadata(&"0g".repeat(32)).sha256.is_none());
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.pem");
        assert!(certificates(&path).unwrap_err().to_string().contains("cannot read the certificates in"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(certificates(&path).unwrap_err().to_string().contains("holds no certificate"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(certificates(&path).unwrap_err().to_string().contains("is no file of certificates"));
    }
}
