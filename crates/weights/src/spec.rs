//! The `weights` line of a config: `path`, `hf:owner/name[@revision][/file]`, `https://...`, `random:SEED`.

use anyhow::{Error, Result, bail, ensure};
use limber_core::text_setting;
use schemars::json_schema;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// What a `weights` line names. It prints and serialises as it is written, and its [`FromStr`] is the one parser that
/// reads such a line: checking a config, loading and pulling all go through it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WeightSpec {
    /// A file or folder, relative to the config's folder; reading a config replaces `~`.
    Local(String),
    /// A repository of the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repository: String,
        /// Branch, tag or commit; None is `main`.
        revision: Option<String>,
        /// A file or folder inside the repository; None looks for the names that the component asks for.
        file: Option<String>,
    },
    /// One file at an address.
    Web(WebFile),
    /// Random numbers from a seed.
    Random(u64),
}

/// One file at an address, with what the keys beside `weights` say of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebFile {
    /// `https://host/path/name`; `http://` is for this machine's own servers.
    pub address: String,
    /// The sha256 that its bytes must have, 64 digits in lower case.
    pub sha256: Option<String>,
    /// A path that takes precedence over the address if it exists.
    pub local: Option<String>,
}

impl WebFile {
    /// The path that takes precedence over the address, if it exists: from `base`, else from the working folder.
    pub fn here(&self, base: &Path) -> Option<PathBuf> {
        let local = Path::new(self.local.as_ref()?);
        [base.join(local), local.to_path_buf()].into_iter().find(|path| path.exists())
    }

    /// The file's name, the last part of the address.
    pub fn name(&self) -> &str {
        let path = self.address.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

impl WeightSpec {
    /// Whether the weights are drawn and not read.
    pub fn is_random(&self) -> bool {
        matches!(self, WeightSpec::Random(_))
    }

    /// The path, where it is one on this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            WeightSpec::Local(path) => Some(Path::new(path)),
            _ => None,
        }
    }

    /// What to say where nothing is at `path`: it may name a repository of the hub. Empty where it looks like a file.
    pub fn hub_hint(path: &str) -> String {
        const ENDS: [&str; 9] = ["safetensors", "bin", "pt", "pth", "ckpt", "gguf", "json", "npz", "npy"];
        // What `--set` named was made absolute.
        let working = std::env::current_dir().ok();
        let inside = working.and_then(|folder| Path::new(path).strip_prefix(folder).ok()?.to_str().map(str::to_string));
        let path = inside.as_deref().unwrap_or(path);
        let end = Path::new(path).extension().and_then(|end| end.to_str()).unwrap_or_default();
        let is_name = matches!(format!("hf:{path}").parse(), Ok(WeightSpec::Hub { file: None, .. }));
        match is_name && !ENDS.contains(&end.to_ascii_lowercase().as_str()) {
            true => format!("; a repository of the Hugging Face hub is written hf:{path}"),
            false => String::new(),
        }
    }

    /// Whether the weights are downloaded into the cache.
    pub fn is_remote(&self) -> bool {
        matches!(self, WeightSpec::Hub { .. } | WeightSpec::Web(_))
    }
}

impl FromStr for WeightSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(seed) = text.strip_prefix("random:") {
            return match seed.parse() {
                Ok(seed) if text == format!("random:{seed}") => Ok(WeightSpec::Random(seed)),
                _ => bail!("weights {text:?}: the seed must be a whole number from 0 to {}", u64::MAX),
            };
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return hub(text, rest);
        }
        ensure!(
            !text.is_empty(),
            "weights are empty: give a file, a folder, hf:owner/name, https://... or random:SEED"
        );
        ensure!(!text.contains('\0'), "weights {text:?}: a path holds no zero byte");
        if let Some((scheme, rest)) = text.split_once("://") {
            return web(text, scheme, rest);
        }
        Ok(WeightSpec::Local(text.to_string()))
    }
}

fn web(text: &str, scheme: &str, rest: &str) -> Result<WeightSpec> {
    let form = "expected https://host/path/file";
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let is_own = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    ensure!(
        scheme == "https" || (scheme == "http" && is_own),
        "weights {text:?}: an address of the scheme {scheme:?} is not allowed, {form}"
    );
    ensure!(!authority.contains('@'), "weights: an address with a user name in it is not allowed, {form}");
    let good = !host.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains('#');
    ensure!(good, "weights {text:?}: this is no address, {form}");
    let file = WebFile { address: text.to_string(), sha256: None, local: None };
    ensure!(!path.is_empty() && is_inside(file.name()), "weights {text:?}: the address names no file, {form}");
    Ok(WeightSpec::Web(file))
}

/// A slash in the name of a branch, behind which a file would begin.
const SLASH: &str = "%2F";

fn hub(text: &str, rest: &str) -> Result<WeightSpec> {
    let form = "the form is hf:owner/name, hf:owner/name@revision, hf:owner/name/file or hf:owner/name@revision/file";
    let (owner, rest) = rest.split_once('/').ok_or_else(|| Error::msg(format!("weights {text:?}: {form}")))?;
    let end = rest.find(['@', '/']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    for part in [owner, name] {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good = !part.is_empty() && part.chars().all(plain) && !part.contains("..") && !part.starts_with('.');
        ensure!(good, "weights {text:?}: {part:?} is no name on the hub; {form}");
    }
    let (revision, file) = match rest.strip_prefix('@') {
        None => (None, rest.strip_prefix('/')),
        Some(rest) => {
            // Pull requests are the one kind of revision whose slashes are written as they are.
            let segments = if rest.starts_with("refs/") { 3 } else { 1 };
            let end = rest.match_indices('/').nth(segments - 1).map_or(rest.len(), |(at, _)| at);
            let (revision, rest) = rest.split_at(end);
            let revision = revision.replace(SLASH, "/");
            ensure!(is_inside(&revision), "weights {text:?}: {revision:?} is no revision; {form}");
            (Some(revision), rest.strip_prefix('/'))
        }
    };
    if let Some(file) = file {
        ensure!(is_inside(file), "weights {text:?}: {file:?} is no file inside a repository; {form}");
    }
    Ok(WeightSpec::Hub { repository: format!("{owner}/{name}"), revision, file: file.map(str::to_string) })
}

/// Whether a relative path stays in its folder, on any system.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0', ':'])
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
        && path.split('/').all(|part| !part.is_empty() && part != ".")
}

impl fmt::Display for WeightSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            WeightSpec::Local(path) => f.write_str(path),
            WeightSpec::Random(seed) => write!(f, "random:{seed}"),
            WeightSpec::Web(file) => f.write_str(&file.address),
            WeightSpec::Hub { repository, revision, file } => {
                write!(f, "hf:{repository}")?;
                let written = |r: &String| if r.starts_with("refs/") { r.clone() } else { r.replace('/', SLASH) };
                revision.iter().map(written).try_for_each(|r| write!(f, "@{r}"))?;
                file.iter().try_for_each(|p| write!(f, "/{p}"))
            }
        }
    }
}

text_setting!(
    WeightSpec,
    "Weights",
    json_schema!({
        "type": "string",
        "format": "weights",
        "errorMessage": "expected a file or folder, hf:owner/name[@revision][/file], https://... or random:SEED",
    })
);

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(repository: &str, revision: Option<&str>, file: Option<&str>) -> WeightSpec {
        let owned = |s: Option<&str>| s.map(str::to_string);
        WeightSpec::Hub { repository: repository.into(), revision: owned(revision), file: owned(file) }
    }

    fn web(address: &str) -> WeightSpec {
        WeightSpec::Web(WebFile { address: address.into(), sha256: None, local: None })
    }

    #[test]
    fn reads_and_prints_every_form() {
        for (text, expected) in [
            ("random:0", WeightSpec::Random(0)),
            ("random:18446744073709551615", WeightSpec::Random(u64::MAX)),
            ("checkpoints/proj.ckpt", WeightSpec::Local("checkpoints/proj.ckpt".into())),
            ("~/a", WeightSpec::Local("~/a".into())),
            ("C:\\weights", WeightSpec::Local("C:\\weights".into())),
            ("hf:timm/resnet50x16_clip.openai", hub("timm/resnet50x16_clip.openai", None, None)),
            ("hf:EleutherAI/gpt-j-6b@float16", hub("EleutherAI/gpt-j-6b", Some("float16"), None)),
            ("hf:a/b/open_clip_model.safetensors", hub("a/b", None, Some("open_clip_model.safetensors"))),
            ("hf:a/b@v1.0/sub/x.bin", hub("a/b", Some("v1.0"), Some("sub/x.bin"))),
            ("hf:a/b@feature%2Fx/sub/x.bin", hub("a/b", Some("feature/x"), Some("sub/x.bin"))),
            ("hf:a/b@refs/pr/7", hub("a/b", Some("refs/pr/7"), None)),
            ("hf:a/b@refs/pr/7/x.bin", hub("a/b", Some("refs/pr/7"), Some("x.bin"))),
            ("https://x.org/a/proj.ckpt?raw=1", web("https://x.org/a/proj.ckpt?raw=1")),
            ("http://127.0.0.1:80/proj.ckpt", web("http://127.0.0.1:80/proj.ckpt")),
        ] {
            let spec: WeightSpec = text.parse().unwrap();
            assert_eq!(spec, expected);
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<WeightSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn what_may_be_meant_for_the_hub_is_told() {
        for (path, is_meant) in [
            ("EleutherAI/gpt-j-6b", true),
            ("timm/resnet50x16_clip.openai", true),
            ("Qwen/Qwen3-0.6B@main", true),
            ("checkpoints/proj.ckpt", false),
            ("checkpoints/proj.PT", false),
            ("gpt2", false),
            ("./gpt2", false),
            ("../a", false),
            ("/a/b", false),
            ("a/b/c", false),
        ] {
            let expected = format!("; a repository of the Hugging Face hub is written hf:{path}");
            assert_eq!(WeightSpec::hub_hint(path), if is_meant { expected } else { String::new() });
        }
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for (text, part) in [
            ("", "weights are empty"),
            ("random:", "the seed must be a whole number"),
            ("random:-1", "the seed must be a whole number"),
            ("random:007", "the seed must be a whole number"),
            ("http://example.org/x.bin", "the scheme \"http\" is not allowed, expected https://host/path/file"),
            ("ftp://example.org/x.bin", "the scheme \"ftp\" is not allowed"),
            ("https://u:secret@example.org/x.bin", "with a user name in it is not allowed"),
            ("https:///x.bin", "is no address"),
            ("https://example.org/a b", "is no address"),
            ("https://example.org/", "names no file"),
            ("https://example.org/a/..", "names no file"),
            ("hf:gpt2", "the form is hf:owner/name"),
            ("hf:/x", "\"\" is no name"),
            ("hf:a/..", "\"..\" is no name"),
            ("hf:a/b@", "\"\" is no revision"),
            ("hf:a/b@..", "\"..\" is no revision"),
            ("hf:a/b@..%2Fx", "\"../x\" is no revision"),
            ("hf:a/b/", "\"\" is no file"),
            ("hf:a/b/../../etc/passwd", "is no file inside a repository"),
            ("hf:a/b//etc/passwd", "is no file inside a repository"),
        ] {
            let message = text.parse::<WeightSpec>().unwrap_err().to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }
}
