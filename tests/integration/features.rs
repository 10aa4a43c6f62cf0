//! Features from files: what NumPy and safetensors write is read as they read it, all else is a clear error, and the
//! program says of a file of features what it says of the image.

use super::golden::{folder, largest, tensors};
use super::program::{fails, limber, lines, scene, stdout};
use candle_core::{Device, Tensor};
use limber::core::weights::FrozenData;
use limber::features::read;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const N: usize = 3;
const E: usize = 4;

fn path(name: &str) -> String {
    folder("features").join(name).to_str().unwrap().to_string()
}

#[test]
fn every_form_is_read_as_its_own_library_reads_it() {
    let expected = tensors("features");
    assert!(expected.len() > 30);
    for (name, expected) in &expected {
        let n = if name.starts_with("one_") { 1 } else { N };
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(read(&path(&format!("good/{name}")), n, E).unwrap(), expected, "{name}");
    }
    // A file of one array needs no name.
    for (file, name) in
        [("stored.npz", "arr_0"), ("deflated.npz", "features"), ("one.safetensors", "image"), ("bf16.safetensors", "x")]
    {
        let expected = expected[&format!("{file}#{name}")].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(read(&path(&format!("good/{file}")), N, E).unwrap(), expected, "{file}");
    }
}

/// The message of an error, all causes in one line.
fn refused(name: &str, expected: &[&str]) {
    let message = format!("{:#}", read(name, N, E).unwrap_err());
    for part in expected {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    assert!(message.contains(name.split('#').next().unwrap()), "{message:?} does not name {name}");
}

#[test]
fn what_is_no_array_of_features_is_refused() {
    let bad = |name: &str, expected: &[&str]| refused(&path(&format!("bad/{name}")), expected);
    let fits = "expected [3, 4], tokens x width, as the encoder's settings say";
    bad("complex.npy", &["'<c8'", "floats and integers"]);
    bad("text.npy", &["shape [1, 2] does not fit"]);
    bad("objects.npy", &["shape [2, 2] does not fit"]);
    bad("records.npy", &["'<f4'", "cannot be features"]);
    bad("long_double.npy", &["'<f16'", "cannot be features"]);
    bad("days.npy", &["cannot be features"]);
    bad("scalar.npy", &["shape [] does not fit", fits]);
    bad("transposed.npy", &["shape [4, 3] does not fit", fits]);
    bad("nan.npy", &["token 1, dimension 2 is NaN", "finite"]);
    bad("beyond_f32.npy", &["token 2, dimension 3 is inf", "finite"]);
    bad("objects.npz", &["array \"arr_0\"", "shape [2, 2] does not fit"]);
    bad("empty.npz", &["without a .npy file: not an .npz"]);
    bad("pytorch.pt", &["without a .npy file: not an .npz"]);
    let good = |name: &str, expected: &[&str]| refused(&path(&format!("good/{name}")), expected);
    good("several.npz", &["2 arrays", "name one as FILE#NAME: b, a"]);
    good("several.safetensors", &["3 arrays", "name one as FILE#NAME: a, b, c"]);
    good("several.safetensors#d", &["no array \"d\"", "it holds a, b, c"]);
    good("several.npz#arr_0", &["no array \"arr_0\"", "it holds b, a"]);
    good("batch.npy#a", &["a .npy file is one array without a name"]);
    good("one_vector.npy", &["shape [4] does not fit", fits]);
    good("absent.npy", &["cannot read the features"]);
    good("absent.npz#a", &["cannot read the features"]);
    refused(&format!("{}/tests/golden/features", crate::ROOT), &["not a regular file"]);
    refused("Cargo.toml", &["in no known format", "expected .npy, .npz or safetensors"]);
    refused("http://127.0.0.1:9/a.npy", &["not from addresses"]);
    let message = format!("{:#}", read(&path("good/batch.npy"), 1, 4).unwrap_err());
    assert!(message.contains("expected [1, 4] or [4]"), "{message}");
}

#[test]
fn damaged_files_are_refused_and_never_believed() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("damaged");
    let name = file.to_str().unwrap();
    let damaged = |bytes: &[u8], expected: &[&str]| {
        std::fs::write(&file, bytes).unwrap();
        refused(name, expected);
    };
    let whole = std::fs::read(path("good/float_little_4.npy")).unwrap();
    // Another header of the same length.
    let header = |from: &str, to: &str| {
        let text = String::from_utf8_lossy(&whole[10..128]).into_owned();
        assert!(text.contains(from), "{text}");
        let text = format!("{:117}\n", text.replace(from, to).trim_end());
        [&whole[..10], text.as_bytes(), &whole[128..]].concat()
    };
    damaged(b"", &["the file is empty"]);
    for cut in [6, 7, 9, 60, 127] {
        damaged(&whole[..cut], &[&format!("{cut} bytes, cut short in its header")]);
    }
    damaged(&whole[..whole.len() - 1], &["needs 48 bytes after the header, there are 47"]);
    damaged(&[&whole, b"x".as_slice()].concat(), &["needs 48 bytes after the header, there are 49"]);
    damaged(&[b"\x93NUMPY\x02\0", [0xff; 4].as_slice(), &whole[10..]].concat(), &["a header of 4294967295 bytes"]);
    damaged(&[b"\x93NUMPY\x09\0", [100, 0, 0, 0].as_slice(), &whole[10..]].concat(), &["unsupported version"]);
    damaged(&header("(3, 4)", "(3, -4)"), &["cannot be negative"]);
    damaged(&header("(3, 4)", "(3, 4, 9223372036854775807)"), &["does not fit"]);
    damaged(&header("(3, 4)", "(99999999999999999999, 4)"), &["its header is broken"]);
    damaged(&header("'shape'", "'form'"), &["its header is broken"]);
    damaged(&header("'<f4'", "'<f5'"), &["its header is broken"]);
    damaged(&header("'<f4'", "'<f8'"), &["needs 96 bytes after the header, there are 48"]);
    damaged(&header("False", "open('x')"), &["its header is broken"]);
    // A parser that descends would run out of stack long before the brackets end.
    let nested = format!("{}\n", "(".repeat(9000));
    let deep = [b"\x93NUMPY\x01\0", (nested.len() as u16).to_le_bytes().as_slice(), nested.as_bytes()].concat();
    damaged(&deep, &["brackets in brackets"]);
    for form in ["good/stored.npz", "good/deflated.npz"] {
        let archive = std::fs::read(path(form)).unwrap();
        damaged(&archive[..archive.len() / 2], &["cut short"]);
        // A flipped bit of the data fails the checksum.
        let data = archive.len() / 3;
        let mut flipped = archive.clone();
        flipped[data] ^= 0x10;
        std::fs::write(&file, &flipped).unwrap();
        assert!(read(name, N, E).is_err(), "{form}: a flipped bit passes");
    }
    let tensors = std::fs::read(path("good/one.safetensors")).unwrap();
    damaged(&tensors[..tensors.len() - 1], &["data is cut short"]);
    damaged(&tensors[..20], &["cut short"]);
}

#[test]
fn an_archive_that_inflates_without_end_is_cut_off() {
    use std::io::Write;
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("bomb.npz");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&file).unwrap());
    let deflated = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    archive.start_file("arr_0.npy", deflated).unwrap();
    let head = std::fs::read(path("good/float_little_4.npy")).unwrap();
    archive.write_all(&head).unwrap();
    for _ in 0..256 {
        archive.write_all(&vec![0; 1 << 20]).unwrap();
    }
    archive.finish().unwrap();
    // What is read of 256 MB is a few more bytes than 3 x 4 elements can have.
    refused(file.to_str().unwrap(), &["needs 48 bytes after the header, there are 10"]);
}

/// `--set` flags that put the features encoder before the demo's stitch and decoder.
fn sets(tokens: usize, width: usize) -> Vec<String> {
    ["kind=features".to_string(), format!("tokens={tokens}"), format!("width={width}")]
        .into_iter()
        .flat_map(|set| ["--set".to_string(), format!("encoder.{set}")])
        .collect()
}

fn words<'a>(start: &[&'a str], sets: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    start.iter().copied().chain(sets.iter().map(String::as_str)).chain(rest.iter().copied()).collect()
}

/// Writes a `.npy` file of f64 in Fortran's order.
fn write_npy(file: &Path, tensor: &Tensor) {
    let (n, e) = tensor.dims2().unwrap();
    let text = format!("{{'descr': '<f8', 'fortran_order': True, 'shape': (1, {n}, {e}), }}\n");
    let columns = tensor.t().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let data: Vec<u8> = columns.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    let length = (text.len() as u16).to_le_bytes();
    std::fs::write(file, [b"\x93NUMPY\x01\0", length.as_slice(), text.as_bytes(), &data].concat()).unwrap();
}

#[test]
fn the_program_says_of_features_what_it_says_of_their_image() {
    let (a, b) = (scene(0), scene(1));
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name).to_str().unwrap().to_string();
    let (one, both, npy) = (at("one.safetensors"), at("both.safetensors"), at("a.npy"));
    stdout(&["encode", "--stage", "features", &a, "--out", &one]);
    stdout(&["encode", "--stage", "features", &a, &b, "--out", &both]);
    let stem = |path: &str| Path::new(path).file_stem().unwrap().to_str().unwrap().to_string();
    let features = candle_core::safetensors::load(&one, &Device::Cpu).unwrap();
    let features = &features[&stem(&a)];
    write_npy(Path::new(&npy), features);
    let (n, e) = features.dims2().unwrap();
    let sets = sets(n, e);
    let (first, second) = (format!("{both}#{}", stem(&a)), format!("{both}#{}", stem(&b)));

    let images = lines(&["caption", "--json", &a, &b]);
    let files = lines(&words(&["caption", "--json", "--batch", "3"], &sets, &[&one, &second, &npy]));
    for (file, image) in files.iter().zip([&images[0], &images[1], &images[0]]) {
        for key in ["text", "tokens", "finish"] {
            assert_eq!(file[key], image[key], "{key} of {}", file["image"]);
        }
        let logprobs = |line: &Value| serde_json::from_value::<Vec<f32>>(line["logprobs"].clone()).unwrap();
        for (ours, theirs) in logprobs(file).iter().zip(logprobs(image)) {
            // A batch of three against one image alone: sums in another order.
            assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
        }
    }
    assert_eq!((&files[0]["image"], &files[1]["image"]), (&json!(one), &json!(second)));

    let prompt = "<image>A picture of a thing. <image>A picture of";
    let generate = |start: &[&str], a: &str, b: &str| {
        let rest = ["--json", "--max-tokens", "4", "--image", a, "--image", b, "--prompt", prompt];
        lines(&words(start, if start.len() > 1 { &[] } else { &sets }, &rest)).remove(0)
    };
    assert_eq!(
        generate(&["generate", "--threads", "2"], &a, &b)["tokens"],
        generate(&["generate"], &first, &npy_of(&b, &at("b.npy")))["tokens"]
    );
    let score = |sets: &[String], image: &str| {
        lines(&words(&["score", "--json"], sets, &["--image", image, "--text", " a red circle"])).remove(0)["total"]
            .clone()
    };
    assert_eq!(score(&[], &a), score(&sets, &first));

    // Encoded again, features are what they were, under the name of their array.
    let out = at("out.safetensors");
    stdout(&words(&["encode", "--stage", "features"], &sets, &[&first, &second, "--out", &out]));
    let again = candle_core::safetensors::load(&out, &Device::Cpu).unwrap();
    assert_eq!(again.len(), 2);
    assert_eq!(largest(&again[&stem(&a)], features), 0.0);
    stdout(&words(&["encode", "--stage", "prefix"], &sets, &[&npy, "--out", &out]));
    assert!(candle_core::safetensors::load(&out, &Device::Cpu).unwrap().contains_key("a"));
}

/// The demo's features of an image, as a `.npy` file.
fn npy_of(image: &str, file: &str) -> String {
    let out = format!("{file}.safetensors");
    stdout(&["encode", "--stage", "features", image, "--out", &out]);
    write_npy(Path::new(file), candle_core::safetensors::load(&out, &Device::Cpu).unwrap().values().next().unwrap());
    file.to_string()
}

#[test]
fn the_program_refuses_what_does_not_go_with_features() {
    let a = scene(0);
    let sets = sets(4, 768);
    let with = |start: &[&'static str], rest: &[&str], expected: &[&str]| fails(&words(start, &sets, rest), expected);
    with(&["caption"], &[&a], &[&a, "in no known format", ".npy, .npz or safetensors"]);
    with(&["caption"], &[&path("good/batch.npy")], &["batch.npy", "shape [1, 3, 4] does not fit", "[4, 768]"]);
    with(
        &["encode", "--stage", "pixels", "--out", "x.safetensors"],
        &[&path("good/batch.npy")],
        &["--stage pixels", "takes features from files"],
    );
    with(
        &["caption", "--set", "encoder.weights=random:1"],
        &[&a],
        &["encoder", "weights is \"random:1\"", "\"features\" reads no weights"],
    );
    with(&["caption", "--set", "encoder.dtype=f16"], &[&a], &["dtype is \"f16\"", "reads no weights"]);
    fails(&["caption", "--set", "encoder.kind=features", &a], &["encoder", "key \"tokens\": missing key"]);
    let zero = ["--set", "encoder.kind=features", "--set", "encoder.tokens=0", "--set", "encoder.width=8"];
    fails(&[&["caption"], zero.as_slice(), &[&a]].concat(), &["\"tokens\"", "value 0", "at least 1"]);
    // The demo's projection takes 768.
    let wide = ["--set", "encoder.kind=features", "--set", "encoder.tokens=4", "--set", "encoder.width=2048"];
    fails(&[&["caption"], wide.as_slice(), &[&a]].concat(), &["stitch", "encoder features gives 4 x 2048"]);
}

#[test]
fn a_stitch_trained_on_an_encoder_takes_its_features_from_files_and_the_other_way_round() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name).to_str().unwrap().to_string();
    let (a, file, checkpoint) = (scene(0), at("a.safetensors"), at("stitch.safetensors"));
    stdout(&["encode", "--stage", "features", &a, "--out", &file]);
    let save = |encoder: &str, features: &str| {
        let metadata = [
            ("limber.stitch", "linear"),
            ("limber.settings", "{}"),
            ("limber.encoder", encoder),
            ("limber.features", features),
            ("limber.prefix", "16 x 160"),
            ("limber.fingerprint", "00"),
        ];
        let metadata = metadata.map(|(k, v)| (k.to_string(), v.to_string())).into_iter().collect();
        let zeros = |shape: &[usize]| FrozenData::from_f32(vec![0.0; shape.iter().product()], shape);
        let tensors = BTreeMap::from([("weight".into(), zeros(&[160, 768])), ("bias".into(), zeros(&[160]))]);
        limber::weights::save(Path::new(&checkpoint), &tensors, &metadata).unwrap();
    };
    let stitch = format!("stitch.weights={checkpoint}");
    let start = ["caption", "--max-tokens", "1", "--set", &stitch];
    let sets = sets(16, 768);
    let from_file = words(&start, &sets, &[&file]);
    let from_image = words(&start, &[], &[&a]);
    save("clip-resnet", "16 x 768");
    stdout(&from_file);
    fails(&from_image, &["fingerprint 00", "other settings or other weights"]);
    save("features", "16 x 768");
    stdout(&from_image);
    save("beit", "16 x 768");
    stdout(&from_file);
    fails(&from_image, &["trained with encoder kind beit, the config gives clip-resnet"]);
    save("clip-resnet", "9 x 768");
    fails(&from_file, &["trained with features (N x E) 9 x 768, the config gives 16 x 768"]);
}

#[test]
fn the_originals_identity_encoders_resolve_and_project_token_by_token() {
    let temporary = tempfile::tempdir().unwrap();
    for (name, n, e) in [("clr_identity", 144, 3072), ("nfresnet50_identity", 2, 2048)] {
        let config = temporary.path().join(format!("{name}.yml"));
        std::fs::write(&config, format!("{{encoder_name: '{name}', image_seq_len: 7}}")).unwrap();
        let features = temporary.path().join(format!("{name}.npy"));
        let values: Vec<f32> = (0..n * e).map(|i| (i % 13) as f32 - 6.0).collect();
        write_npy(&features, &Tensor::from_vec(values, (n, e), &Device::Cpu).unwrap());
        let out = temporary.path().join("out.safetensors");
        // A small decoder of random weights stands in for GPT-J.
        let sets = [
            "stitch.weights=random:1",
            "decoder.weights=random:2",
            "decoder.n_embd=64",
            "decoder.n_head=2",
            "decoder.rotary_dim=8",
            "decoder.n_layer=1",
            "decoder.vocab_size=300",
            "decoder.eos_token_id=299",
        ];
        let sets: Vec<String> = sets.iter().flat_map(|set| ["--set".to_string(), set.to_string()]).collect();
        let start = ["encode", "--stage", "prefix", "--config", config.to_str().unwrap()];
        let output = limber(&words(&start, &sets, &[features.to_str().unwrap(), "--out", out.to_str().unwrap()]));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let prefix = candle_core::safetensors::load(&out, &Device::Cpu).unwrap();
        // Linear(E, D) on each token, so K = N, whatever image_seq_len says.
        assert_eq!(prefix[name].dims(), [n, 64], "{name}");
    }
}
