//! A folder of files, on disk or compiled into the program.

use super::mapped::map;
use super::spec::is_inside;
use super::tokenizer_model;
use limber_core::bounded::{TEXT_LIMIT, without_mark};
use limber_core::json;
use limber_core::weights::{SharedBytes, WeightError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files by name.
#[derive(Clone)]
pub enum Folder {
    /// A folder on disk.
    Disk(PathBuf),
    /// Files in the program, under a label that messages use.
    Embedded(String, Arc<[(&'static str, &'static [u8])]>),
}

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// The folder and the name of a file.
///
/// # Errors
/// A file that is not there, naming what its folder holds.
pub fn split(path: &Path) -> Result<(Folder, String), WeightError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = Folder::disk(parent);
    let name = path.file_name().and_then(|n| n.to_str());
    match name {
        Some(name) if path.exists() => Ok((folder, name.to_string())),
        _ if parent.is_dir() => Err(unreadable(
            path.display().to_string(),
            format!("no such file or folder; {} {}", parent.display(), folder.holds()),
        )),
        _ => Err(unreadable(
            path.display().to_string(),
            format!("no such file or folder, nor is there a folder {}", parent.display()),
        )),
    }
}

/// A [`WeightError::Read`].
pub fn unreadable(source_label: String, message: impl Into<String>) -> WeightError {
    WeightError::Read { source_label, message: message.into() }
}

/// Bytes embedded in the program.
struct Static(&'static [u8]);

impl AsRef<[u8]> for Static {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl Folder {
    /// A folder on disk.
    pub fn disk(path: &Path) -> Self {
        Folder::Disk(path.to_path_buf())
    }

    /// Files in the program.
    pub fn embedded(label: &str, files: &[(&'static str, &'static [u8])]) -> Self {
        Folder::Embedded(label.to_string(), files.into())
    }

    /// What messages call the file `name`.
    pub fn label(&self, name: &str) -> String {
        match self {
            Folder::Disk(path) => path.join(name).display().to_string(),
            Folder::Embedded(label, _) => format!("{label}/{name}"),
        }
    }

    /// Where it lies, if on disk.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Folder::Disk(path) => Some(path),
            Folder::Embedded(..) => None,
        }
    }

    /// The first of `candidates` that is there.
    ///
    /// # Errors
    /// None of them, or a folder under that name.
    pub fn choose(&self, candidates: &[&str]) -> Result<String, WeightError> {
        for name in candidates {
            match self.kind(name) {
                Some(Kind::File) => return Ok(name.to_string()),
                Some(Kind::Folder) => return Err(unreadable(self.label(name), "a folder where a file is wanted")),
                None => {}
            }
        }
        let label = match self {
            Folder::Disk(path) => path.display().to_string(),
            Folder::Embedded(label, _) => label.clone(),
        };
        let wanted = candidates.join(", ");
        Err(unreadable(label, format!("none of the weight files {wanted} is there; the folder {}", self.holds())))
    }

    /// The bytes of a file: mapped, or where the program has them.
    ///
    /// # Errors
    /// A file that is not there or cannot be read.
    pub fn bytes(&self, name: &str) -> Result<SharedBytes, WeightError> {
        match self {
            Folder::Disk(path) => {
                let path = path.join(name);
                if path.is_dir() {
                    return Err(unreadable(self.label(name), "a folder where a file is wanted"));
                }
                map(&path).map_err(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => {
                        unreadable(self.label(name), format!("no such file; its folder {}", self.holds()))
                    }
                    _ => unreadable(self.label(name), format!("cannot be read: {e}")),
                })
            }
            Folder::Embedded(_, files) => match files.iter().find(|(n, _)| *n == name) {
                Some((_, bytes)) => Ok(Arc::new(Static(bytes))),
                None => Err(unreadable(self.label(name), format!("no such file; its folder {}", self.holds()))),
            },
        }
    }

    /// A text of at most [`TEXT_LIMIT`] bytes; None where there is no such file.
    ///
    /// # Errors
    /// A name that leaves the folder, a text that is too long or not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, WeightError> {
        if !is_inside(name) {
            return Err(unreadable(self.label(name), "the name leads out of its folder"));
        }
        if self.kind(name).is_none() {
            return Ok(None);
        }
        let bytes = self.bytes(name)?;
        let bytes = without_mark((*bytes).as_ref());
        if bytes.len() as u64 > TEXT_LIMIT {
            let message = format!("{} bytes, expected at most {TEXT_LIMIT} for a text", bytes.len());
            return Err(unreadable(self.label(name), message));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.to_string())),
            Err(e) => Err(unreadable(self.label(name), format!("not UTF-8 at byte {}", e.valid_up_to()))),
        }
    }

    /// A text as [`Self::text`]; of a tokenizer that lies there as `tokenizer.model` alone, what its files would say.
    ///
    /// # Errors
    /// As [`Self::text`]; a model that is none.
    pub fn document(&self, name: &str) -> Result<Option<String>, WeightError> {
        let is_made = ["tokenizer.json", "tokenizer_config.json"].contains(&name)
            && ["tokenizer.json", "vocab.json"].iter().all(|name| self.kind(name).is_none());
        let model = tokenizer_model::NAMES.into_iter().find(|model| is_made && self.kind(model) == Some(Kind::File));
        let Some(model) = model else { return self.text(name) };
        let read = |name: &str| -> Result<serde_json::Value, WeightError> {
            let Some(text) = self.text(name)? else { return Ok(serde_json::Value::Null) };
            json::parse(&text).map_err(|e| unreadable(self.label(name), e.to_string()))
        };
        let (config, described) = (read("tokenizer_config.json")?, read("config.json")?);
        let bytes = self.bytes(model)?;
        let bytes = (*bytes).as_ref();
        if bytes.len() as u64 > TEXT_LIMIT {
            let message = format!("{} bytes, expected at most {TEXT_LIMIT} for a tokenizer", bytes.len());
            return Err(unreadable(self.label(model), message));
        }
        let (tokenizer, config) = tokenizer_model::documents(bytes, &config, described["model_type"].as_str())
            .map_err(|message| unreadable(self.label(model), message))?;
        Ok(Some(if name == "tokenizer.json" { tokenizer } else { config }))
    }

    fn kind(&self, name: &str) -> Option<Kind> {
        match self {
            Folder::Disk(path) => {
                let path = path.join(name);
                if path.is_dir() { Some(Kind::Folder) } else { path.exists().then_some(Kind::File) }
            }
            Folder::Embedded(_, files) => files.iter().any(|(n, _)| *n == name).then_some(Kind::File),
        }
    }

    /// What is there, for messages: at most 20 names.
    fn holds(&self) -> String {
        let mut names: Vec<String> = match self {
            Folder::Disk(path) => match std::fs::read_dir(path) {
                Ok(entries) => entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect(),
                Err(e) => return format!("cannot be listed: {e}"),
            },
            Folder::Embedded(_, files) => files.iter().map(|(n, _)| n.to_string()).collect(),
        };
        names.sort();
        match names.len() {
            0 => "is empty".to_string(),
            1..=20 => format!("holds {}", names.join(", ")),
            n => format!("holds {} and {} more", names[..20].join(", "), n - 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_candidate_wins_and_messages_say_what_is_there() {
        let folder = Folder::embedded("demo", &[("b.bin", b"x"), ("config.json", b"{}")]);
        assert_eq!(folder.choose(&["a.bin", "b.bin", "config.json"]).unwrap(), "b.bin");
        assert_eq!(
            folder.choose(&["a.bin", "c.bin"]).unwrap_err().to_string(),
            "demo: none of the weight files a.bin, c.bin is there; the folder holds b.bin, config.json"
        );
        assert_eq!(folder.text("config.json").unwrap().unwrap(), "{}");
        assert_eq!(folder.text("none.json").unwrap(), None);
        assert!(folder.text("../config.json").is_err());
    }

    #[test]
    fn disk_folders_say_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let here = Folder::disk(folder.path());
        let message = here.choose(&["a.bin"]).unwrap_err().to_string();
        assert!(message.ends_with("none of the weight files a.bin is there; the folder is empty"), "{message}");
        std::fs::create_dir(folder.path().join("a.bin")).unwrap();
        let message = here.choose(&["a.bin"]).unwrap_err().to_string();
        assert!(message.ends_with("a.bin: a folder where a file is wanted"), "{message}");
        let message = split(&folder.path().join("x/y.bin")).err().unwrap().to_string();
        assert!(message.contains("nor is there a folder"), "{message}");
        let message = split(&folder.path().join("y.bin")).err().unwrap().to_string();
        assert!(message.contains("no such file or folder") && message.ends_with("holds a.bin"), "{message}");
        std::fs::write(folder.path().join("marked.json"), "\u{feff}{}").unwrap();
        assert_eq!(here.text("marked.json").unwrap().unwrap(), "{}");
        std::fs::write(folder.path().join("t"), [b'a', 0xff]).unwrap();
        assert!(here.text("t").unwrap_err().to_string().ends_with("not UTF-8 at byte 1"));
        // Sparse: no disk is used.
        let long = std::fs::File::create(folder.path().join("long.json")).unwrap();
        long.set_len(TEXT_LIMIT + 1).unwrap();
        assert!(here.text("long.json").unwrap_err().to_string().contains("expected at most 67108864 for a text"));
    }
}
