//! Odd images of all formats against Pillow: equal, or refused by both (`tests/golden/odd_images`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{DecodeOptions, Limits, decode};

/// Files that Pillow reads and this crate refuses, with a word of the message.
const REFUSED: [(&str, &str); 8] = [
    // A codec that no other format here needs.
    ("cmyk_lzma.tif", "LZMA"),
    ("grey_lzma.tif", "LZMA"),
    ("rgb_lzma.tif", "LZMA"),
    ("rgba_lzma.tif", "LZMA"),
    // libtiff repairs streams of JPEG's first draft in ways of its own.
    ("old_jpeg.tif", "old JPEG"),
    // Not pictures to caption: a cursor, and indices without a palette, of which Pillow makes black.
    ("cursor.cur", "CUR"),
    ("py_palette.ppm", "PyP"),
    // Damage that the `gif` crate refuses.
    ("code_size_0.gif", "code size"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/odd_images")
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder().join("files")).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

/// What an image is: its size and the first digits of the SHA-256 of its RGB bytes.
type Known = (u32, u32, String);

fn read(bytes: &[u8]) -> Result<Known, String> {
    let image = decode(bytes, &DecodeOptions::default()).map_err(|error| error.to_string())?;
    let hash = Sha256::digest(image.as_raw()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok((image.width(), image.height(), hash))
}

#[test]
fn odd_images_are_read_as_pillow_reads_them_or_refused_by_both() {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let expected: BTreeMap<String, Option<Known>> = serde_json::from_str(&text).unwrap();
    let files = files();
    assert!(expected.keys().eq(files.keys()) && files.len() >= 150, "{} files", files.len());
    let mut wrong = Vec::new();
    for (name, bytes) in &files {
        let known = expected[name].as_ref();
        let refused = REFUSED.iter().find(|(refused, _)| refused == name);
        match (read(bytes), known, refused) {
            (Ok(found), Some(known), None) if found == *known => {}
            (Err(_), None, None) => {}
            (Err(error), Some(_), Some((_, word))) if error.contains(word) => {}
            (found, known, _) => wrong.push(format!("{name}: {found:?}, {known:?} expected")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} files: {wrong:#?}", wrong.len(), files.len());
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let limits = Limits { max_pixels: 1 << 18, ..Default::default() };
    let options = DecodeOptions { limits, exif_orientation: true, ..Default::default() };
    let mut state = 5_u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for (name, bytes) in files() {
        let check = |damaged: &[u8]| {
            if let Err(error) = decode(damaged, &options) {
                assert!(!error.to_string().contains("gave up"), "a decoder panics for a damaged {name}");
            }
        };
        for _ in 0..12.min(bytes.len()) {
            check(&bytes[..random(bytes.len())]);
            let mut flipped = bytes.clone();
            for _ in 0..1 + random(3) {
                // Half of the damage falls on the header, where it does most.
                let reach = if random(2) == 0 { flipped.len().min(100) } else { flipped.len() };
                flipped[random(reach)] ^= 1 << random(8);
            }
            check(&flipped);
        }
    }
}
