//! What the environment says of the hub: who serves it, with which token, or not at all.
//!
//! The variables are those of `huggingface_hub`, in its order (`constants.py`, `utils/_auth.py`).

use anyhow::{Context, Result, ensure};
use limber_weights::cache::environment::{Variables, choose_cache, hf_home, path, variable};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where the hub is, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache's folder.
    pub cache: PathBuf,
    /// `https://huggingface.co`, or what `HF_ENDPOINT` says; no slash at its end.
    pub endpoint: String,
    /// The token that the endpoint gets, and nobody else.
    pub token: Option<Token>,
    /// Where a token was looked for, for messages.
    pub token_sources: String,
    /// Why the network may not be used; None where it may.
    pub offline: Option<String>,
    /// A file of certificates to trust in place of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// How long to wait, and how often to try.
    pub patience: Patience,
}

/// How long to wait, and how often to try.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub idle: Duration,
    /// Attempts that may fail in a row, none of which brought a byte.
    pub tries: u32,
    /// Before the second attempt; twice as long before each further one.
    pub pause: Duration,
    /// The longest pause that a server may ask for.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(300),
        }
    }
}

/// A secret that never prints.
#[derive(Clone)]
pub struct Token {
    secret: String,
    from: String,
}

impl Token {
    /// The token that was found in `from`; surrounding space and line ends do not count.
    ///
    /// # Errors
    /// A text that cannot stand in a header; the message does not show it.
    pub fn new(secret: &str, from: &str) -> Result<Self> {
        let secret = secret.trim();
        let fits = !secret.is_empty() && secret.bytes().all(|b| b.is_ascii_graphic());
        ensure!(fits, "the token in {from} is empty or holds characters that no token has");
        Ok(Self { secret: secret.to_string(), from: from.to_string() })
    }

    /// The value of the header `Authorization`.
    #[cfg(feature = "hub")]
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.secret)
    }

    /// Where it was found.
    pub fn from(&self) -> &str {
        &self.from
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Token(from {}, {} characters)", self.from, self.secret.len())
    }
}

impl Settings {
    /// What this process's environment says; `offline` is the flag `--offline`.
    ///
    /// # Errors
    /// No home folder, an endpoint that is no address, a token that cannot be read.
    pub fn from_environment(offline: bool) -> Result<Self> {
        Self::read(&variable, offline)
    }

    fn read(variable: Variables, offline: bool) -> Result<Self> {
        let endpoint = text(variable, "HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        ensure!(
            host.is_some_and(|host| !host.is_empty()),
            "HF_ENDPOINT {endpoint:?} is no address, it must begin with https:// or http://"
        );
        let (token, token_sources) = find_token(variable)?;
        let mut patience = Patience::default();
        for (name, field) in
            [("HF_HUB_ETAG_TIMEOUT", &mut patience.connect), ("HF_HUB_DOWNLOAD_TIMEOUT", &mut patience.idle)]
        {
            if let Some(text) = text(variable, name) {
                let seconds = text.parse().ok().filter(|s| *s > 0);
                let seconds = seconds.with_context(|| format!("{name} {text:?} is no whole number of seconds"))?;
                *field = Duration::from_secs(seconds);
            }
        }
        Ok(Self {
            cache: choose_cache(variable)?,
            endpoint,
            token,
            token_sources,
            offline: why_offline(variable, offline),
            certificates: ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"].iter().find_map(|n| variable(n)).map(PathBuf::from),
            patience,
        })
    }
}

/// Whether the environment forbids the network, as Hugging Face's libraries are told.
pub fn is_offline() -> bool {
    offline_variable(&variable).is_some()
}

/// A variable that is no path; one that is not UTF-8 has no meaning there.
fn text(variable: Variables, name: &str) -> Option<String> {
    variable(name).map(|value| value.to_string_lossy().into_owned())
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

fn offline_variable(variable: Variables) -> Option<&'static str> {
    // The first that is set decides, as in huggingface_hub.
    let name = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| variable(name).is_some())?;
    text(variable, name).filter(|value| is_true(value)).map(|_| name)
}

fn why_offline(variable: Variables, flag: bool) -> Option<String> {
    if cfg!(not(feature = "hub")) {
        return Some("this program was built without the feature \"hub\", so it cannot download".to_string());
    }
    if flag {
        return Some("--offline forbids the network".to_string());
    }
    offline_variable(variable).map(|name| format!("{name} forbids the network"))
}

/// The token, and the sources that were searched.
fn find_token(variable: Variables) -> Result<(Option<Token>, String)> {
    if text(variable, "HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
        return Ok((None, "nowhere, since HF_HUB_DISABLE_IMPLICIT_TOKEN is set".to_string()));
    }
    const NAMES: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
    let file = path(variable, "HF_TOKEN_PATH").or_else(|| hf_home(variable).map(|p| p.join("token")));
    let mut sources = NAMES.join(", ");
    if let Some(file) = &file {
        sources = format!("{sources} and {}", file.display());
    }
    for name in NAMES {
        if let Some(secret) = text(variable, name).filter(|s| !s.trim().is_empty()) {
            return Ok((Some(Token::new(&secret, name)?), sources));
        }
    }
    let Some(file) = file else { return Ok((None, sources)) };
    match std::fs::read_to_string(&file) {
        Ok(secret) if secret.trim().is_empty() => Ok((None, sources)),
        Ok(secret) => Ok((Some(Token::new(&secret, &file.display().to_string())?), sources)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((None, sources)),
        Err(e) => Err(e).with_context(|| format!("cannot read the token in {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn from<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())
    }

    #[test]
    fn the_endpoint_is_an_address() {
        let read = |endpoint: &str| Settings::read(&from(&[("HOME", "/u"), ("HF_ENDPOINT", endpoint)]), false);
        assert_eq!(read("https://hub.example/").unwrap().endpoint, "https://hub.example");
        assert_eq!(Settings::read(&from(&[("HOME", "/u")]), false).unwrap().endpoint, "https://huggingface.co");
        for wrong in ["hub.example", "https://", "ftp://hub.example"] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(message.contains("must begin with https:// or http://"), "{message}");
        }
        let set = [("HOME", "/u"), ("HF_HUB_DOWNLOAD_TIMEOUT", "7")];
        assert_eq!(Settings::read(&from(&set), false).unwrap().patience.idle, Duration::from_secs(7));
        for wrong in ["0", "soon", "-1"] {
            let set = [("HOME", "/u"), ("HF_HUB_DOWNLOAD_TIMEOUT", wrong)];
            let message = Settings::read(&from(&set), false).unwrap_err().to_string();
            assert!(message.starts_with("HF_HUB_DOWNLOAD_TIMEOUT") && message.contains(wrong), "{message}");
        }
    }

    #[test]
    fn the_token_comes_from_its_sources_in_order_and_never_prints() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "hf_home\n").unwrap();
        std::fs::write(folder.path().join("other"), "hf_path").unwrap();
        std::fs::write(folder.path().join("blank"), " \n").unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let in_home = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        let (other, blank, dir) = (in_home("other"), in_home("blank"), in_home("folder"));
        let found = |set: &[(&str, &str)]| find_token(&from(set)).map(|(t, _)| t.map(|t| (t.secret, t.from)));
        let some = |secret: &str, from: &str| Some((secret.to_string(), from.to_string()));
        assert_eq!(found(&[("HF_HOME", home)]).unwrap(), some("hf_home", &in_home("token")));
        assert_eq!(found(&[("HF_HOME", home), ("HF_TOKEN_PATH", &other)]).unwrap(), some("hf_path", &other));
        assert_eq!(found(&[("HF_TOKEN", " hf_a\n"), ("HF_HOME", home)]).unwrap(), some("hf_a", "HF_TOKEN"));
        let legacy = [("HUGGING_FACE_HUB_TOKEN", "hf_b"), ("HF_HOME", home)];
        assert_eq!(found(&legacy).unwrap(), some("hf_b", "HUGGING_FACE_HUB_TOKEN"));
        assert_eq!(found(&[("HF_TOKEN_PATH", &blank)]).unwrap(), None);
        assert_eq!(found(&[("HF_HOME", "/nowhere")]).unwrap(), None);
        assert_eq!(found(&[("HF_TOKEN", "hf_a"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap(), None);
        assert!(found(&[("HF_TOKEN_PATH", &dir)]).unwrap_err().to_string().contains("cannot read the token in"));

        let (token, sources) = find_token(&from(&[("HF_TOKEN", "hf_secret"), ("HF_HOME", "/h")])).unwrap();
        assert_eq!(sources, "HF_TOKEN, HUGGING_FACE_HUB_TOKEN and /h/token");
        assert_eq!(format!("{:?}", token.unwrap()), "Token(from HF_TOKEN, 9 characters)");
        let message = format!("{:#}", Token::new("hf_sec\nret", "HF_TOKEN").unwrap_err());
        assert!(message.contains("the token in HF_TOKEN") && !message.contains("sec"), "{message}");
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_the_feature_there_is_no_network() {
        let settings = Settings::read(&from(&[("HOME", "/u")]), false).unwrap();
        assert!(settings.offline.unwrap().contains("built without the feature \"hub\""));
    }

    #[cfg(feature = "hub")]
    #[test]
    fn the_network_is_forbidden_by_flag_and_by_variable() {
        let why = |set: &[(&str, &str)], flag: bool| why_offline(&from(set), flag);
        assert_eq!(why(&[], false), None);
        assert_eq!(why(&[("HF_HUB_OFFLINE", "0")], false), None);
        assert_eq!(why(&[], true).unwrap(), "--offline forbids the network");
        for value in ["1", "on", "Yes", "TRUE"] {
            assert_eq!(why(&[("HF_HUB_OFFLINE", value)], false).unwrap(), "HF_HUB_OFFLINE forbids the network");
        }
        assert!(why(&[("TRANSFORMERS_OFFLINE", "1")], false).is_some());
        assert_eq!(why(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")], false), None);
    }
}
