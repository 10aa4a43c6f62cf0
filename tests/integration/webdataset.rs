//! Tar shards: samples as webdataset reads them, captions, damage, and training over them.

use super::golden::{folder, lists};
use super::train::{config, fails, log, numbers, trained};
use limber::config::{Data, DataFormat};
use limber::data::{self, Dataset, Item, Picture};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;

fn open(path: &str, base: &Path) -> anyhow::Result<Box<dyn Dataset>> {
    let data = Data::new(DataFormat::Webdataset, path);
    data::open(&data, base)
}

fn items(path: &str) -> Vec<anyhow::Result<Item>> {
    let set = open(path, &folder("webdataset")).unwrap();
    (0..set.len()).map(|i| set.item(i)).collect()
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn samples_are_webdatasets() {
    let images = ["jpg", "jpeg", "png", "webp", "npy"];
    for (shard, expected) in lists("webdataset").as_object().unwrap() {
        let items = items(shard);
        let expected = expected.as_array().unwrap();
        assert_eq!(items.len(), expected.len(), "{shard}");
        for (item, theirs) in items.iter().zip(expected) {
            let key = theirs["key"].as_str().unwrap();
            let image = theirs["parts"].as_object().unwrap().iter().find(|(k, _)| images.contains(&k.as_str()));
            let Ok(item) = item else { continue };
            let (ending, sum) = image.unwrap();
            assert!(item.name.ends_with(&format!(".tar, sample {key}")), "{} {key}", item.name);
            let label = Path::new(shard).file_stem().unwrap().to_str().unwrap();
            assert_eq!(item.key, format!("{label}/{key}.{ending}"));
            let bytes = item.image.bytes(1 << 20).unwrap().unwrap();
            assert_eq!(json!(crc(&bytes)), *sum, "{key}");
            assert!(item.image.bytes(9).unwrap_err().to_string().contains("expected at most 9"));
        }
    }
}

/// Captions of each sample, or the reason why it is passed over.
fn check(path: &str, expected: &[&str]) {
    let found: Vec<String> = items(path)
        .into_iter()
        .map(|item| match item {
            Ok(item) => item.captions.join("|"),
            Err(error) => format!("{error:#}"),
        })
        .collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (ours, expected) in found.iter().zip(expected) {
        let fits = match expected.strip_prefix("error: ") {
            Some(part) => ours.contains(part),
            None => ours == expected,
        };
        assert!(fits, "{path}: {ours:?}, not {expected:?}");
    }
}

#[test]
fn captions_come_from_texts_and_descriptions() {
    check(
        "img2dataset/{00000..00001}.tar",
        &[
            "a red circle",
            "two stars",
            "a blue square above a ring",
            "error: no caption that is not empty",
            "drei grüne Kreise",
        ],
    );
    check(
        "writer",
        &[
            "a red circle",
            "two stars",
            "a blue square above a ring|drei grüne Kreise",
            "drei grüne Kreise",
            "a small ring",
            "circle",
            "error: no caption that is not empty",
            "error: no image in it; its endings are txt, images are jpg",
            "error: no caption that is not empty",
            "error: its .txt is not UTF-8",
            "error: its .json is no description",
        ],
    );
    for form in ["ustar", "gnu", "pax"] {
        let all = ["a red circle", "two stars", "a blue square above a ring", "a small ring"];
        check(&format!("forms/{form}.tar"), &all);
    }
}

#[test]
fn what_is_left_of_damaged_shards_is_read() {
    let (first, second) = ("a red circle", "two stars");
    check("cut/member.tar", &[first, second, "error: its .jpeg of "]);
    check("cut/boundary.tar", &[first, second]);
    check("cut/header.tar", &[first, second, "error: nothing is read from byte 8192 on: "]);
    check("cut/spoilt.tar", &[first, second, "error: nothing is read from byte 8192 on: "]);
    check("cut/page.tar", &["error: nothing is read from byte 0 on: "]);
    let temp = tempfile::tempdir().unwrap();
    let message = |path: &str| format!("{:#}", open(path, temp.path()).err().unwrap());
    fs::write(temp.path().join("z.tar"), [0x1f, 0x8b, 8, 0]).unwrap();
    assert!(message("z.tar").contains("z.tar: it is compressed"));
    fs::write(temp.path().join("e.tar"), [0; 10240]).unwrap();
    assert!(message("e.tar").contains("the data set holds no item"));
    assert!(message("s-{00..11}.tar").contains("names 12 shards, of which 12 are not there"));
}

#[test]
fn a_member_may_claim_any_length() {
    // Lengths up to the end of 64 bits, in every spelling; nothing is allocated, nothing overflows.
    let temp = tempfile::tempdir().unwrap();
    for (n, size) in [0u64, 1 << 40, i64::MAX as u64, u64::MAX, u64::MAX - 511].into_iter().enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_path("a.jpg").unwrap();
        header.set_size(size);
        header.set_cksum();
        let name = format!("{n}.tar");
        fs::write(temp.path().join(&name), [header.as_bytes().as_slice(), &[7; 512]].concat()).unwrap();
        let set = open(&name, temp.path()).unwrap();
        assert!((0..set.len()).all(|i| set.item(i).is_err()), "{size}");
        assert!(set.len() <= 2);
    }
}

/// Two shards of the golden features, with `spoil` changing a sample's members.
fn shards(temp: &Path, spoil: impl Fn(usize, &mut Vec<(&str, Vec<u8>)>)) {
    let text = fs::read_to_string(folder("train/data.jsonl")).unwrap();
    let mut writers: Vec<tar::Builder<Vec<u8>>> = (0..2).map(|_| tar::Builder::new(Vec::new())).collect();
    let count = text.lines().count();
    for (n, line) in text.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let features = fs::read(folder("train").join(line["image"].as_str().unwrap())).unwrap();
        let mut members = vec![("npy", features), ("txt", line["caption"].as_str().unwrap().into())];
        spoil(n, &mut members);
        for (ending, data) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            writers[2 * n / count].append_data(&mut header, format!("{n:06}.{ending}"), data.as_slice()).unwrap();
        }
    }
    for (n, writer) in writers.into_iter().enumerate() {
        fs::write(temp.join(format!("s-{n:03}.tar")), writer.into_inner().unwrap()).unwrap();
    }
}

#[test]
fn training_over_shards_is_training_over_files() {
    let temp = tempfile::tempdir().unwrap();
    shards(temp.path(), |_, _| {});
    for shuffle in [false, true] {
        let at = |name: &str| temp.path().join(format!("{name}-{shuffle}"));
        let changes = [("/train/steps", json!(4)), ("/data/shuffle", json!(shuffle))];
        trained(&config(&at("files"), &changes), &[]);
        let path = temp.path().join("s-{000..001}.tar");
        let more = [("/data/format", json!("webdataset")), ("/data/path", json!(path))];
        trained(&config(&at("shards"), &[&changes[..], &more[..]].concat()), &[]);
        assert_eq!(numbers(&at("shards")), numbers(&at("files")), "{shuffle}");
    }
}

#[test]
fn damage_is_passed_over_counted_and_named() {
    let temp = tempfile::tempdir().unwrap();
    shards(temp.path(), |n, members| match n {
        1 => members.truncate(1),
        2 => members[0].1.truncate(30),
        4 => drop(members.remove(0)),
        5 => members[1].1.clear(),
        _ => {}
    });
    let path = temp.path().join("s-001.tar");
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 2 + 700).unwrap();
    let output = temp.path().join("out");
    let path = json!(temp.path().join("s-{000..001}.tar"));
    let base = [("/data/format", json!("webdataset")), ("/data/path", path), ("/train/steps", json!(6))];
    trained(&config(&output, &[&base[..], &[("/data/max_skipped", json!(0.7))]].concat()), &[]);
    assert_eq!(log(&output).len(), 6);
    let named = fs::read_to_string(output.join("skipped.jsonl")).unwrap();
    for part in ["sample 000001", "sample 000002", "sample 000004", "sample 000005", "cut short"] {
        assert!(named.contains(part), "{part}: {named}");
    }
    let strict = temp.path().join("strict");
    let expected = ["could not be read", "data.max_skipped 0", "skipped.jsonl"];
    fails(&config(&strict, &[&base[..], &[("/data/max_skipped", json!(0.0))]].concat()), &[], &expected);
}

#[test]
fn a_picture_that_shrank_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[1; 100]).unwrap();
    let shard = std::sync::Arc::new(file.path().to_path_buf());
    let picture = |start, length| Picture::Member { shard: shard.clone(), name: "a.jpg".into(), start, length };
    assert_eq!(picture(90, 10).bytes(10).unwrap(), Some(vec![1; 10]));
    let message = picture(95, 10).bytes(10).unwrap_err().to_string();
    assert!(message.contains("a.jpg of ") && message.ends_with("cut short, 5 of 10 bytes are there"), "{message}");
}
