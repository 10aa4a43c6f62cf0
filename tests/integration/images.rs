//! Decoding, resampling and preprocessing against Pillow, torchvision and transformers, and against hostile input.
//!
//! The data and the script that wrote them stand in `tests/golden/pixels/`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use limber::images::{
    DecodeOptions, Draw, ImageError, Limits, PassOrder, RgbImage, Window, augment, decode, fetch, fit, load, normalise,
    open, resize, resize_window,
};
use limber_core::spec::{ImageSpec, ResizeFilter, ResizeRule};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Output {
    size: (u32, u32),
    crc32: u32,
    upright_size: Option<(u32, u32)>,
    upright_crc32: Option<u32>,
    rgb: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(crate::ROOT).join("tests/golden/pixels")
}

fn golden<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn input(name: &str) -> Vec<u8> {
    std::fs::read(folder().join("inputs").join(name)).unwrap()
}

/// The picture that `export.py` generates as well.
fn generated(width: u32, height: u32) -> RgbImage {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let data = std::iter::repeat_with(next).take((width * height * 3) as usize).collect();
    RgbImage::from_raw(width, height, data).unwrap()
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1))))
}

fn filter(name: &str) -> ResizeFilter {
    match name {
        "bilinear" => ResizeFilter::Bilinear,
        _ => ResizeFilter::Bicubic,
    }
}

#[test]
fn files_decode_as_pillow_decodes_them() {
    let mut wrong = Vec::new();
    for (name, expected) in golden::<BTreeMap<String, Output>>("outputs.json") {
        match decode(&input(&name), &DecodeOptions::default()) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(image) if image.dimensions() != expected.size => wrong.push(format!("{name}: {:?}", image.dimensions())),
            Ok(image) if crc(&image) == expected.crc32 => {}
            Ok(image) => {
                let difference = expected.rgb.map(|text| largest_difference(&text, &image));
                wrong.push(format!("{name}: differs by {difference:?} levels"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn largest_difference(hex: &str, image: &[u8]) -> u8 {
    let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
    bytes.zip(image).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn orientation_is_applied_where_asked_for() {
    let options = DecodeOptions { exif_orientation: true, ..Default::default() };
    let outputs = golden::<BTreeMap<String, Output>>("outputs.json");
    for (name, expected) in outputs.iter().filter(|(name, _)| name.starts_with("orientation.")) {
        let image = decode(&input(name), &options).unwrap();
        assert_eq!(
            (Some(image.dimensions()), Some(crc(&image))),
            (expected.upright_size, expected.upright_crc32),
            "{name}"
        );
    }
}

#[test]
fn resampling_is_pillows_bit_for_bit() {
    for [w, h, to_w, to_h, expected @ ..] in golden::<Vec<[u32; 8]>>("resize.json") {
        let image = generated(w, h);
        let to = (to_w as usize, to_h as usize);
        let all = Window { left: 0, top: 0, width: to.0, height: to.1 };
        for (filter, expected) in [ResizeFilter::Bilinear, ResizeFilter::Bicubic].into_iter().zip(expected.chunks(2)) {
            for (order, expected) in [PassOrder::HorizontalFirst, PassOrder::Pillow13].into_iter().zip(expected) {
                let resized = resize_window(&image, to, all, filter, order).unwrap();
                assert_eq!(crc(&resized), *expected, "{filter:?} {order:?} {w} x {h} -> {to:?}");
            }
            assert_eq!(crc(&resize(&image, to.0, to.1, filter).unwrap()), expected[1], "Pillow 13's order by default");
        }
    }
}

#[test]
fn pixels_are_torchvisions_and_transformers() {
    type Case = (String, u32, u32, usize, usize, String, u32);
    for (rule, w, h, resize_to, side, name, expected) in golden::<Vec<Case>>("preprocess.json") {
        let image = generated(w, h);
        let resize_to = (resize_to != side).then_some(resize_to);
        let spec = ImageSpec { filter: filter(&name), resize_to, ..ImageSpec::clip(side) };
        // The libraries that wrote the data sat on Pillow 13.
        let resize = if rule == "squash" { ResizeRule::Squash } else { ResizeRule::ShorterSideCrop };
        let square = fit(&image, &ImageSpec { resize, ..spec }, PassOrder::Pillow13).unwrap();
        let floats = || normalise(&square, &spec).iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let found = if rule == "squash" { crc(&square) } else { crc(&floats()) };
        assert_eq!(found, expected, "{rule} {name} {w} x {h} -> {resize_to:?} -> {side}");
    }
}

#[test]
fn augmented_pixels_are_magmas_for_every_draw() {
    type Row = (u32, u32, usize, usize, usize, usize, bool, u32);
    for (w, h, side, size, left, top, flip, expected) in golden::<Vec<Row>>("augment.json") {
        let draw = Draw { size, left, top, flip };
        // Where an image only grows, every Pillow has one order of passes.
        let square = augment(&generated(w, h), &ImageSpec::clip(side), &draw, PassOrder::HorizontalFirst).unwrap();
        assert_eq!(crc(&square), expected, "{w} x {h} -> {side}: {draw:?}");
    }
}

#[test]
fn draws_are_even() {
    let image = generated(40, 30);
    let draws: Vec<Draw> = (0..4000).map(|seed| Draw::new(&image, 256, seed)).collect();
    let count = |is: &dyn Fn(&Draw) -> bool| draws.iter().filter(|d| is(d)).count();
    // A deviation of 32 at 4000 even draws, of 22 at 2000: five of them.
    let larger = count(&|d| d.size == 257);
    assert!(larger.abs_diff(2000) < 160 && larger + count(&|d| d.size == 256) == 4000, "{larger}");
    assert!(count(&|d| d.flip).abs_diff(2000) < 160);
    for (left, top) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let there = count(&|d| d.size == 257 && (d.left, d.top) == (left, top));
        assert!(there.abs_diff(500) < 110, "{left} {top}: {there}");
    }
    assert_eq!(count(&|d| d.size == 256 && (d.left, d.top) == (0, 0)), 4000 - larger);
    let image = generated(30, 40);
    let draws: Vec<Draw> = (0..4000).map(|seed| Draw::new(&image, 64, seed)).collect();
    // From 256 down to 64 there are 193 offsets each way, 0 to 192: the first and the last of them come up too.
    let mean = draws.iter().map(|d| d.left as f64).sum::<f64>() / 4000.0;
    assert!((mean - 96.0).abs() < 5.0 * 55.7 / f64::sqrt(4000.0), "{mean}");
    assert_eq!(draws.iter().map(|d| d.top).min(), Some(0));
    assert_eq!(draws.iter().map(|d| d.top).max(), Some(192));
}

fn samples() -> Vec<(String, Vec<u8>)> {
    let names = golden::<BTreeMap<String, Output>>("outputs.json").into_keys();
    names.map(|name| (name.clone(), input(&name))).collect()
}

#[test]
fn cut_files_never_panic_and_halves_are_refused() {
    for (name, bytes) in samples() {
        // Every length near the ends, and a spread between them, keeps the test short in debug builds.
        let (start, end) = (64.min(bytes.len()), bytes.len().saturating_sub(16));
        let lengths = (0..start).chain((start..end).step_by(61)).chain(end..bytes.len());
        for length in lengths {
            let _ = decode(&bytes[..length], &DecodeOptions::default());
        }
        let half = decode(&bytes[..bytes.len() / 2], &DecodeOptions::default());
        // The first frame of an animation may end before its file does.
        assert!(half.is_err() || name.starts_with("animated"), "half of {name} passes for a whole image");
    }
}

#[test]
fn damaged_files_never_panic() {
    let options = DecodeOptions {
        limits: Limits { max_pixels: 1 << 20, ..Default::default() },
        exif_orientation: true,
        ..Default::default()
    };
    let rounds = if cfg!(debug_assertions) { 20 } else { 200 };
    let mut state = 9_u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for (_, bytes) in samples() {
        for _ in 0..rounds {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random(4) {
                // Half of the damage falls on the header, where it does most.
                let reach = if random(2) == 0 { damaged.len().min(100) } else { damaged.len() };
                damaged[random(reach)] = random(256) as u8;
            }
            let _ = decode(&damaged, &options);
        }
    }
}

#[test]
fn files_are_opened_by_content_and_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (liar, text) = (folder.path().join("really_a.png"), folder.path().join("text.jpg"));
    std::fs::write(&liar, input("grey.jpg")).unwrap();
    std::fs::write(&text, "no image").unwrap();
    let options = DecodeOptions::default();
    assert_eq!(open(&liar, &options).unwrap(), decode(&input("grey.jpg"), &options).unwrap());
    let error = open(&text, &options).unwrap_err().to_string();
    assert!(error.contains("text.jpg") && error.contains("known formats are PNG"), "{error}");
}

/// Answers one request a response, each on its own connection, and gives the server's address.
fn serve(responses: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for response in responses {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&response);
        }
    });
    address
}

fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
#[cfg(feature = "hub")]
fn addresses_are_fetched_within_limits() {
    let image = input("rgb.png");
    let options = DecodeOptions::default();
    let moved = response("302 Found", "Location: /there.png\r\n", b"");
    let address = serve(vec![moved, response("200 OK", "", &image)]);
    assert_eq!(load(&format!("{address}/here.png"), &options).unwrap(), decode(&image, &options).unwrap());

    let small = Limits { max_bytes: image.len() as u64 - 1, ..Default::default() };
    let address = serve(vec![response("200 OK", "", &image)]);
    assert!(matches!(fetch(&address, &small), Err(ImageError::TooManyBytes { .. })));

    let address = serve(vec![response("404 Not Found", "", b"")]);
    let error = fetch(&format!("{address}/gone.png"), &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("/gone.png") && error.contains("404"), "{error}");

    // A server that takes the call and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hasty = Limits { timeout: std::time::Duration::from_millis(200), ..Default::default() };
    let error = fetch(&format!("http://{}", silent.local_addr().unwrap()), &hasty).unwrap_err().to_string();
    assert!(error.contains("timeout"), "{error}");
    assert!(fetch("file:///etc/passwd", &hasty).is_err());
}

#[test]
#[cfg(not(feature = "hub"))]
fn without_the_feature_an_address_is_a_clear_error() {
    let address = serve(vec![response("200 OK", "", b"")]);
    let error = load(&format!("{address}/a.png"), &DecodeOptions::default()).unwrap_err();
    assert!(matches!(&error, ImageError::Fetch { .. }) && error.to_string().contains("--features hub"), "{error}");
    assert!(fetch(&address, &Limits::default()).is_err());
}
