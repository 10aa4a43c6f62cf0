//! The text of a config file, of a bounded size: what a path names may be anything.

use limber_core::bounded;
use std::fs::{self, File, FileType};
use std::io;
use std::path::Path;

/// Most bytes of a config file.
const MOST_BYTES: u64 = 4 << 20;

/// The text of the file at `path`.
///
/// # Errors
/// Says why there is none: no such file, no file at all, too long, not UTF-8.
pub fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    // Looked at before it is opened, since opening a named pipe waits for someone who writes to it.
    let kind = fs::metadata(path).map_err(cannot)?.file_type();
    if kind.is_dir() {
        return Err("is a folder, expected a config file".to_string());
    }
    if !kind.is_file() && !is_handed_over(path, kind) {
        return Err("is a device, a socket or a named pipe, expected a config file".to_string());
    }
    File::open(path).and_then(|file| bounded::text(file, MOST_BYTES)).map_err(cannot)
}

/// Whether the path is a pipe that the shell has opened already: `--config <(make-config)`, `/dev/stdin`.
#[cfg(unix)]
fn is_handed_over(path: &Path, kind: FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_fifo() && path.starts_with("/dev")
}

#[cfg(not(unix))]
fn is_handed_over(_: &Path, _: FileType) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_config_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("long"), vec![b' '; MOST_BYTES as usize + 1]).unwrap();
        fs::write(at("latin"), b"prompt: caf\xe9").unwrap();
        fs::write(at("good"), "\u{feff}prompt: x").unwrap();
        let check = |path: &Path, expected: &str| {
            let message = read(path).unwrap_err();
            assert!(message.contains(expected), "{path:?}: {message}");
        };
        check(&at("none"), "cannot be read: ");
        check(folder.path(), "is a folder, expected a config file");
        check(&at("long"), "it has more than 4194304 bytes");
        check(&at("latin"), "cannot be read: it is not UTF-8 at byte 11");
        assert_eq!(read(&at("good")).unwrap(), "prompt: x");
        if cfg!(unix) {
            check(Path::new("/dev/zero"), "is a device, a socket or a named pipe");
            let pipe = at("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            if made.is_ok_and(|status| status.success()) {
                check(&pipe, "is a device, a socket or a named pipe");
            }
        }
    }
}
