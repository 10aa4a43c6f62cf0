//! Odd images of all formats against Pillow: equal, or refused by both (`tests/golden/odd_images`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{DecodeOptions, Limits, decode};

/// Files that Pillow reads and this crate refuses, with a word of the message.
const REFUSED: [(&str, &str); 10] = [
    ("cmyk_lzma.tif", "LZMA"),
    ("cursor.cur", "CUR"),
    ("grey_lzma.tif", "LZMA"),
    ("lab.tif", "Lab"),
    ("lab_lzw.tif", "Lab"),
    ("old_jpeg.tif", "old JPEG"),
    ("rgb_lzma.tif", "LZMA"),
    ("rgba_lzma.tif", "LZMA"),
    ("py_palette.ppm", "PyP"),
    ("code_size_0.gif", "code size"),
];

/// Files that Pillow calls truncated and this crate reads: their last byte or two are missing, which hold no pixel.
const READ: [&str; 2] = ["422_end_4.jpg", "optimised_no_end.jpg"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/odd_images")
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder().join("files")).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

/// What is read of a file: its size and the SHA-256 of its RGB bytes.
fn read(bytes: &[u8]) -> Result<(u64, u64, String), String> {
    let image = decode(bytes, &DecodeOptions::default()).map_err(|error| error.to_string())?;
    let hash = Sha256::digest(image.as_raw()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((image.width().into(), image.height().into(), hash))
}

#[test]
fn odd_images_are_read_as_pillow_reads_them_or_refused_by_both() {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let expected: BTreeMap<String, Option<serde_json::Value>> = serde_json::from_str(&text).unwrap();
    let files = files();
    assert!(expected.keys().eq(files.keys()) && files.len() >= 150, "{} files", files.len());
    let mut wrong = Vec::new();
    for (name, bytes) in &files {
        let known = expected[name].as_ref().map(|image| {
            let side = |i: usize| image["size"][i].as_u64().unwrap();
            (side(0), side(1), image["sha256"].as_str().unwrap().to_owned())
        });
        let refused = REFUSED.iter().find(|(refused, _)| refused == name);
        match (read(bytes), known, refused) {
            (Ok(found), Some(known), None) if found == known => {}
            (Err(_), None, None) => {}
            (Ok(_), None, None) if READ.contains(&name.as_str()) => {}
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
