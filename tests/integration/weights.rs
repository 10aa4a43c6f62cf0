//! Reading weights: every golden checkpoint, every hostile one, broken copies of both, and what messages say.

use limber::weights::{
    Checkpoint, Container, Conversion, ConvertOptions, ConvertSummary, WeightSpec, convert, embedded, folder_of, open,
    open_checkpoint, save,
};
use limber_core::WeightType;
use limber_core::weights::{FrozenData, Request, WeightError, WeightSource, ZEROS};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FILES: &[&str] = limber_core::registry::DEFAULT_FILES;

fn golden(path: &str) -> PathBuf {
    Path::new(crate::ROOT).join("tests/golden").join(path)
}

fn json(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(golden(path)).unwrap()).unwrap()
}

fn source(path: &Path) -> anyhow::Result<Arc<dyn WeightSource>> {
    open(&path.to_str().unwrap().parse()?, FILES, Path::new(""))
}

fn message(path: &Path) -> String {
    format!("{:#}", source(path).err().unwrap())
}

fn read(source: &dyn WeightSource, name: &str, shape: &[usize]) -> Result<FrozenData, WeightError> {
    source.read(&Request { name, shape, init: ZEROS, dtype: WeightType::F32 })
}

fn values(source: &dyn WeightSource, name: &str) -> Vec<f32> {
    let shape = source.tensors().unwrap()[name].clone();
    let data = read(source, name, &shape).unwrap();
    data.to_f32(0..data.elements())
}

/// Reads all there is, whatever it is.
fn exhaust(source: &dyn WeightSource) {
    for (name, shape) in source.tensors().unwrap() {
        if let Ok(data) = read(source, &name, &shape) {
            assert_eq!(data.shape(), shape);
            data.to_f32(0..data.elements().min(4));
        }
    }
}

/// The tensors that the reference wrote, under the names that this reader gives them.
fn check_tensors(file: &str, source: &dyn WeightSource, expected: &Value, strip: &str) {
    let expected = expected.as_object().unwrap();
    let found = source.tensors().unwrap();
    assert_eq!(found.len(), expected.len(), "{file}: {:?}", found.keys());
    for (name, tensor) in expected {
        let name = name.strip_prefix(strip).unwrap();
        let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).unwrap();
        assert_eq!(found[name], shape, "{file}: {name}");
        match (tensor["dtype"].as_str().unwrap(), read(source, name, &shape)) {
            ("f32" | "f16" | "bf16" | "f64" | "float32" | "float16", data) => {
                let data = data.unwrap();
                let wanted: Vec<f64> = serde_json::from_value(tensor["values"].clone()).unwrap();
                let got = data.to_f32(0..wanted.len());
                let wanted: Vec<f32> = wanted.into_iter().map(|x| x as f32).collect();
                assert_eq!(got, wanted, "{file}: {name}");
            }
            (other, error) => {
                let error = error.unwrap_err();
                assert!(matches!(error, WeightError::Type { .. }), "{file}: {name} {other}: {error}");
            }
        }
    }
}

#[test]
fn every_good_pickle_is_read() {
    for (file, case) in json("pickle/expected.json")["good"].as_object().unwrap() {
        let source = source(&golden("pickle").join(file)).unwrap_or_else(|e| panic!("{file}: {e:#}"));
        let strip = if file == "good_nested.pt" { "state_dict." } else { "" };
        check_tensors(file, source.as_ref(), &case["tensors"], strip);
    }
}

#[test]
fn every_odd_pickle_is_read_right_or_refused() {
    let mut read = Vec::new();
    let either = json("pickle/expected.json");
    for (file, case) in either["either"].as_object().unwrap() {
        match source(&golden("pickle").join(file)) {
            // A type that torch has and weights cannot have is listed, the golden leaves it out.
            Ok(source) if file == "either_complex.pt" => {
                assert_eq!(values(source.as_ref(), "x"), [1.0, 2.0]);
                assert!(matches!(self::read(source.as_ref(), "z", &[1]), Err(WeightError::Type { .. })));
                read.push(file.as_str());
            }
            Ok(source) if file == "either_checksum.pt" => exhaust(source.as_ref()),
            Ok(source) => {
                check_tensors(file, source.as_ref(), &case["tensors"], "");
                read.push(file.as_str());
            }
            Err(error) => assert!(format!("{error:#}").contains(file.as_str()), "{error:#}"),
        }
    }
    for file in ["legacy", "deflated", "big_endian", "complex", "bomb_storage", "two_types", "name_twice", "after_stop"]
    {
        assert!(read.contains(&format!("either_{file}.pt").as_str()), "{file}");
    }
}

#[test]
fn every_bad_pickle_is_refused_for_its_reason() {
    let bad = json("pickle/expected.json");
    let bad = bad["bad"].as_object().unwrap();
    assert!(bad.len() > 90);
    for (file, reason) in bad {
        let started = Instant::now();
        let error = message(&golden("pickle").join(file));
        assert!(started.elapsed() < Duration::from_secs(5), "{file} took {:?}", started.elapsed());
        let wanted: &[&str] = match reason.as_str().unwrap() {
            "call" => &["refuses the global", "refuses opcode", "is called", "arguments", "the global"],
            "class" => &["refuses the global \"torch.nn.modules.container.Sequential\""],
            "arguments" => &["arguments for a tensor"],
            "storage" => &["storage"],
            "shape" => &["shape"],
            "stride" | "offset" => &["strides", "offset"],
            "size" => &["size", "unknown opcode"],
            "zip" => &["zip", "the file is empty", "in no known format", "pickle"],
            "format" => &["Git LFS", "HTML", "in no known format"],
            "end" => &["the pickle ends"],
            "length" => &["a length of"],
            "number" | "opcode" => &["unknown opcode"],
            "stack" => &["the stack"],
            "text" => &["UTF-8"],
            "no dictionary" | "cycle" => &["no dictionary of tensors"],
            "nesting" => &["nesting deeper"],
            "memo" => &["the memo has no entry"],
            "key" => &["is no key"],
            "dtype" => &["refuses the global \"torch.QuantumStorage\""],
            other => panic!("{file}: no message is known for {other}"),
        };
        assert!(error.contains(file.as_str()), "{file}: {error}");
        assert!(wanted.iter().any(|part| error.contains(part)), "{file} ({reason}): {error}");
        assert!(error.len() < 1000, "{file}: {} bytes of message", error.len());
    }
    let error = message(&golden("pickle/bad_posix_system.pt"));
    let wanted = "refuses the global \"posix.system\": a weights file may hold tensors and plain containers only";
    assert!(error.contains(wanted), "{error}");
}

#[test]
fn torchscript_archives_are_read() {
    for (file, tensors) in json("torchscript/expected.json").as_object().unwrap() {
        check_tensors(file, source(&golden("torchscript").join(file)).unwrap().as_ref(), tensors, "");
    }
    // The whole tower as OpenAI publishes it, against the same values in a plain pickle.
    let script = source(&golden("clip_resnet/torchscript.pt")).unwrap();
    let plain = source(&golden("clip_resnet/openai_f16.pt")).unwrap();
    let names: Vec<String> = script.tensors().unwrap().into_keys().filter(|n| n.starts_with("visual.")).collect();
    assert!(names.len() > 100);
    for name in names.iter().filter(|n| !n.ends_with("num_batches_tracked")) {
        assert_eq!(values(script.as_ref(), name), values(plain.as_ref(), name), "{name}");
    }
}

#[test]
fn projections_are_read_in_every_dress() {
    let expected = source(&golden("proj/proj_plain.safetensors")).unwrap();
    let (weight, bias) = (values(expected.as_ref(), "weight"), values(expected.as_ref(), "bias"));
    for file in ["f32", "dict", "parameters", "strided", "state_dict", "dataparallel", "legacy"] {
        let source = source(&golden(&format!("proj/proj_{file}.ckpt"))).unwrap();
        assert_eq!(values(source.as_ref(), "weight"), weight, "{file}");
        assert_eq!(values(source.as_ref(), "bias"), bias, "{file}");
    }
    let deepspeed = source(&golden("proj/proj_deepspeed.ckpt")).unwrap();
    assert_eq!(values(deepspeed.as_ref(), "image_prefix.proj.weight"), weight);
}

#[test]
fn every_layout_of_a_model_holds_the_same_tensors() {
    let whole = source(&golden("gptj/f32")).unwrap();
    let shapes = whole.tensors().unwrap();
    assert!(shapes.len() > 20);
    for folder in ["sharded", "bin", "bin-sharded"] {
        let other = source(&golden("gptj").join(folder)).unwrap();
        let there = other.tensors().unwrap();
        for (name, shape) in &shapes {
            assert_eq!(there.get(name), Some(shape), "{folder}: {name}");
            assert_eq!(values(other.as_ref(), name), values(whole.as_ref(), name), "{folder}: {name}");
        }
        assert!(other.document("config.json").unwrap().unwrap().contains("n_layer"));
    }
    assert!(whole.document("__metadata__").unwrap().unwrap().contains("\"format\":\"pt\""));
    let shard = source(&golden("gptj/sharded/model.safetensors.index.json")).unwrap();
    assert_eq!(shard.tensors().unwrap(), shapes);
}

#[test]
fn messages_name_what_is_wrong_and_what_is_there() {
    let source = source(&golden("proj/proj_f32.ckpt")).unwrap();
    let missing = read(source.as_ref(), "wieght", &[16, 12]).unwrap_err().to_string();
    assert!(missing.contains("proj_f32.ckpt: no tensor \"wieght\"; nearest of its 2 tensors: \"weight\""), "{missing}");
    let shape = read(source.as_ref(), "weight", &[16, 13]).unwrap_err().to_string();
    assert!(shape.contains("has shape [16, 12], the settings ask for [16, 13]"), "{shape}");
    let integer = self::source(&golden("pickle/good_dtypes.pt")).unwrap();
    let kind = read(integer.as_ref(), "i64", &[2]).unwrap_err().to_string();
    assert!(kind.contains("tensor \"i64\" has type i64, expected f64, f32, f16, bf16"), "{kind}");

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let empty = message(folder.path());
    assert!(empty.contains("none of the weight files model.safetensors, model.safetensors.index.json"), "{empty}");
    assert!(empty.contains("the folder is empty"), "{empty}");
    fs::write(at("notes.txt"), "x").unwrap();
    assert!(message(folder.path()).ends_with("the folder holds notes.txt"));
    assert!(message(&at("a.bin")).contains("no such file or folder"));
    fs::write(at("lfs.safetensors"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").unwrap();
    assert!(message(&at("lfs.safetensors")).contains("a Git LFS pointer"));
    fs::write(at("page.bin"), "<!doctype html>\n<title>Log in</title>").unwrap();
    assert!(message(&at("page.bin")).contains("an HTML page"));
    let whole = fs::read(golden("gptj/f32/model.safetensors")).unwrap();
    fs::write(at("cut.safetensors"), &whole[..100]).unwrap();
    assert!(message(&at("cut.safetensors")).contains("is longer than the file (100 bytes): cut short"));
    fs::write(at("cut.safetensors"), &whole[..whole.len() - 1]).unwrap();
    assert!(message(&at("cut.safetensors")).contains("data is cut short"));
    let index = golden("gptj/sharded/model.safetensors.index.json");
    fs::copy(&index, at("model.safetensors.index.json")).unwrap();
    let shards = message(folder.path());
    assert!(
        shards.contains("-of-00003.safetensors\" cannot be opened: ") && shards.contains("no such file"),
        "{shards}"
    );
    let hub = open(&"hf:no-such-owner/no-such-name".parse().unwrap(), FILES, Path::new("")).err().unwrap();
    assert!(format!("{hub:#}").contains("is not in the Hugging Face cache"), "{hub:#}");
}

#[test]
fn folders_and_embedded_files() {
    let local: WeightSpec = "gptj/f32".parse().unwrap();
    assert_eq!(folder_of(&local, &golden("")), Some(golden("gptj/f32")));
    let file: WeightSpec = "proj/proj_f32.ckpt".parse().unwrap();
    assert_eq!(folder_of(&file, &golden("")), Some(golden("proj")));
    assert_eq!(folder_of(&WeightSpec::Random(1), &golden("")), None);
    assert!(open(&WeightSpec::Random(1), FILES, Path::new("")).unwrap().tensors().is_none());
    assert!(open_checkpoint(&WeightSpec::Random(1), FILES, Path::new("")).is_err());

    const PROJ: &[u8] = include_bytes!("../golden/proj/proj_f16.ckpt");
    let source = embedded("demo", &[("proj.ckpt", PROJ), ("config.json", b"{}")], &["proj.ckpt"]).unwrap();
    assert_eq!(source.label(), "demo/proj.ckpt");
    assert_eq!(source.tensors().unwrap()["weight"], [16, 12]);
    assert_eq!(values(source.as_ref(), "weight").len(), 192);
    assert_eq!(source.document("config.json").unwrap().unwrap(), "{}");
    assert_eq!(source.document("tokenizer.json").unwrap(), None);
    assert!(embedded("demo", &[("a", b"x")], &["b"]).is_err());
}

/// As `convert`, unwatched.
fn rewrite(checkpoint: &Checkpoint, to: &Path, options: &ConvertOptions) -> anyhow::Result<ConvertSummary> {
    convert(Conversion { checkpoint, options: options.clone(), progress: &mut |_| () }, to)
}

fn converted(path: &str, options: &ConvertOptions) -> (ConvertSummary, Arc<dyn WeightSource>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out.safetensors");
    let checkpoint = open_checkpoint(&golden(path).to_str().unwrap().parse().unwrap(), FILES, Path::new("")).unwrap();
    let mut last = (0, 0);
    let progress = &mut |p: limber::weights::ConvertProgress| {
        assert!(p.done >= last.0 && p.done <= p.total);
        last = (p.done, p.total);
    };
    let summary = convert(Conversion { checkpoint: &checkpoint, options: options.clone(), progress }, &to).unwrap();
    assert_eq!(last, (summary.bytes, summary.bytes));
    (summary, source(&to).unwrap(), fs::read(&to).unwrap())
}

#[test]
fn pytorchs_container_byte_for_byte_as_pytorch_has_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("proj.ckpt");
    let write = |path: &str, options: &ConvertOptions| {
        let from = golden(path).to_str().unwrap().parse().unwrap();
        let checkpoint = open_checkpoint(&from, FILES, Path::new("")).unwrap();
        rewrite(&checkpoint, &to, options)
    };
    let options = ConvertOptions { to: Container::Torch, ..ConvertOptions::default() };
    let summary = write("torch/input.safetensors", &options).unwrap();
    assert_eq!(summary.tensors, 13);
    assert_eq!(fs::read(&to).unwrap(), fs::read(golden("torch/expected.ckpt")).unwrap());
    // There and back.
    let again = source(&to).unwrap();
    let before = source(&golden("torch/input.safetensors")).unwrap();
    assert_eq!(again.tensors(), before.tensors());
    for name in ["weight", "bias", "half.weight", "b16", "scalar", "empty"] {
        let shape = &before.tensors().unwrap()[name];
        let (a, b) = (read(before.as_ref(), name, shape).unwrap(), read(again.as_ref(), name, shape).unwrap());
        assert_eq!((a.dtype(), a.bytes()), (b.dtype(), b.bytes()), "{name}");
    }
    // Rounded on the way, and what PyTorch has no type for.
    let half = ConvertOptions { dtype: Some(WeightType::F16), ..options.clone() };
    write("torch/input.safetensors", &half).unwrap();
    let weight = read(source(&to).unwrap().as_ref(), "weight", &[20, 13]).unwrap();
    assert_eq!(weight.bytes(), read(before.as_ref(), "half.weight", &[20, 13]).unwrap().bytes());
    let quantised = ConvertOptions { dtype: Some(WeightType::Q8_0), ..options };
    let message = format!("{:#}", write("gptj/bin", &quantised).unwrap_err());
    assert!(message.contains("has the type q8_0, which a PyTorch state dict cannot hold"), "{message}");
}

#[test]
fn conversion_keeps_every_value() {
    for path in
        ["gptj/bin", "gptj/bin-sharded", "clip_resnet/torchscript.pt", "pickle/good_strided.pt", "proj/proj_bf16.ckpt"]
    {
        let before = source(&golden(path)).unwrap();
        let (summary, after, _) = converted(path, &ConvertOptions::default());
        assert_eq!(before.tensors(), after.tensors(), "{path}");
        assert_eq!(summary.tensors, before.tensors().unwrap().len());
        for (name, shape) in before.tensors().unwrap() {
            match (read(before.as_ref(), &name, &shape), read(after.as_ref(), &name, &shape)) {
                (Ok(a), Ok(b)) => assert_eq!((a.dtype(), a.bytes()), (b.dtype(), b.bytes()), "{path}: {name}"),
                (Err(WeightError::Type { found: a, .. }), Err(WeightError::Type { found: b, .. })) => assert_eq!(a, b),
                _ => panic!("{path}: {name}"),
            }
        }
    }
}

#[test]
fn conversion_of_types_ties_and_other_orders() {
    let (summary, _, bytes) = converted("pickle/good_dtypes.pt", &ConvertOptions::default());
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!((summary.tensors, tensors.len()), (10, 10));
    for (name, tensor) in tensors.tensors() {
        assert_eq!(tensor.dtype().to_string().to_lowercase(), name);
    }
    let i64s: Vec<u8> = [-1i64, 1 << 40].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(tensors.tensor("i64").unwrap().data(), i64s);

    let metadata = BTreeMap::from([("note".to_string(), "x".to_string())]);
    let (_, rounded, bytes) = converted(
        "pickle/good_dtypes.pt",
        &ConvertOptions { dtype: Some(WeightType::Bf16), metadata, ..ConvertOptions::default() },
    );
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for name in ["f32", "f16", "bf16", "f64"] {
        assert_eq!(tensors.tensor(name).unwrap().dtype().to_string(), "BF16");
    }
    assert_eq!(tensors.tensor("i16").unwrap().dtype().to_string(), "I16");
    assert_eq!(rounded.document("__metadata__").unwrap().unwrap(), r#"{"format":"pt","note":"x"}"#);

    let (tied, _, _) = converted("pickle/good_tied.pt", &ConvertOptions::default());
    assert!(!tied.tied.is_empty(), "{tied:?}");
    let (complex, after, _) = converted("pickle/either_complex.pt", &ConvertOptions::default());
    assert_eq!((complex.tensors, complex.skipped.len(), after.tensors().unwrap().len()), (2, 0, 2));
    let (_, swapped, _) = converted("pickle/either_big_endian.pt", &ConvertOptions::default());
    assert_eq!(values(swapped.as_ref(), "x"), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn conversion_to_f16_refuses_what_overflows_and_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let tensors = BTreeMap::from([("w".to_string(), FrozenData::from_f32(vec![1.0, f32::INFINITY, 1e5], &[3]))]);
    save(&from, &tensors, &BTreeMap::new()).unwrap();
    fs::write(&to, "old").unwrap();
    let checkpoint = open_checkpoint(&from.to_str().unwrap().parse().unwrap(), FILES, Path::new("")).unwrap();
    let options = ConvertOptions { dtype: Some(WeightType::F16), ..Default::default() };
    let error = format!("{:#}", rewrite(&checkpoint, &to, &options).unwrap_err());
    assert!(error.contains("tensor \"w\": the value 100000 does not fit f16"), "{error}");
    assert_eq!(fs::read(&to).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    // Over itself: the map keeps the old file alive while the new one is written.
    let options = ConvertOptions { dtype: Some(WeightType::Bf16), ..Default::default() };
    rewrite(&checkpoint, &from, &options).unwrap();
    assert_eq!(source(&from).unwrap().tensors().unwrap()["w"], [3]);
}

#[test]
fn quantised_conversion_keeps_norms_and_maps_the_rest() {
    let (_, plain, _) = converted("gptj/f32/model.safetensors", &ConvertOptions::default());
    for (dtype, far_allowed) in [(WeightType::Q8_0, 0.01), (WeightType::Q4K, 0.01)] {
        let options = ConvertOptions { dtype: Some(dtype), ..Default::default() };
        let (summary, source, bytes) = converted("gptj/f32/model.safetensors", &options);
        let shapes = source.tensors().unwrap();
        assert_eq!(summary.tensors, shapes.len());
        let (mut quantised, mut kept) = (0, 0);
        for (name, shape) in &shapes {
            assert_eq!(Some(shape), plain.tensors().unwrap().get(name), "{name}");
            let data = read(source.as_ref(), name, shape).unwrap();
            let (ours, exact) = (values(source.as_ref(), name), values(plain.as_ref(), name));
            if data.dtype() == WeightType::F32 {
                kept += 1;
                assert_eq!(ours, exact, "{name}");
                continue;
            }
            // Its rows are 32 or 128 wide, so q4_k gives way to q8_0, whose step is amax / 127.
            assert_eq!((data.dtype(), shape.len()), (WeightType::Q8_0, 2), "{name}");
            quantised += 1;
            let largest = exact.iter().fold(0f32, |m, x| m.max(x.abs()));
            let far = ours.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(far <= far_allowed * largest, "{name}: {far} of {largest}");
        }
        assert!(quantised > 10 && kept > 5, "{quantised} {kept}");
        // The reference library reads the file; blocks are bytes to it.
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("lm_head.weight").unwrap().dtype().to_string(), "U8");
    }
}

#[test]
fn what_is_not_finite_cannot_be_quantised() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("a.safetensors");
    let mut numbers = vec![0f32; 64];
    numbers[40] = f32::NAN;
    let tensors = BTreeMap::from([("w".to_string(), FrozenData::from_f32(numbers, &[2, 32]))]);
    save(&from, &tensors, &BTreeMap::new()).unwrap();
    let checkpoint = open_checkpoint(&from.to_str().unwrap().parse().unwrap(), FILES, Path::new("")).unwrap();
    let options = ConvertOptions { dtype: Some(WeightType::Q8_0), ..Default::default() };
    let error = rewrite(&checkpoint, &folder.path().join("b.safetensors"), &options).unwrap_err();
    assert!(format!("{error:#}").contains("tensor \"w\": the value NaN cannot be quantised"), "{error:#}");
}

/// A small generator, so that a failing case can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn flipped_bytes_in_an_index_never_panic() {
    let (folder, mut dice) = (tempfile::tempdir().unwrap(), Dice(9));
    let index = fs::read(golden("gptj/sharded/model.safetensors.index.json")).unwrap();
    for shard in fs::read_dir(golden("gptj/sharded")).unwrap() {
        let shard = shard.unwrap();
        fs::copy(shard.path(), folder.path().join(shard.file_name())).unwrap();
    }
    let mut refused = 0;
    for _ in 0..300 {
        let mut broken = index.clone();
        let at = dice.below(broken.len());
        broken[at] = dice.below(256) as u8;
        fs::write(folder.path().join("model.safetensors.index.json"), &broken).unwrap();
        match source(folder.path()) {
            Ok(source) => exhaust(source.as_ref()),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Resident memory of this process in KiB that no file backs, and in all.
#[cfg(target_os = "linux")]
fn resident() -> (usize, usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = |key: &str| {
        let line = status.lines().find(|l| l.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    (line("RssAnon:"), line("VmRSS:"))
}

#[cfg(target_os = "linux")]
#[test]
fn twelve_gigabytes_open_in_no_time_and_no_memory() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (rows, width, count) = (16384usize, 4096usize, 96usize);
    let bytes = rows * width * 2;
    let mut header = serde_json::Map::new();
    for i in 0..count {
        let offsets = [i * bytes, (i + 1) * bytes];
        let entry = serde_json::json!({"dtype": "F16", "shape": [rows, width], "data_offsets": offsets});
        header.insert(format!("h.{i}.weight"), entry);
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    // Sparse: 12.9 GB long, some kilobytes on the disk.
    let total = (8 + header.len() + count * bytes) as u64;
    if file.set_len(total).is_err() {
        eprintln!("no file of {total} bytes can be made here, not tested");
        return;
    }
    let before = resident();
    let started = Instant::now();
    let source = source(folder.path()).unwrap();
    let opened = started.elapsed();
    let shapes = source.tensors().unwrap();
    assert_eq!(shapes.len(), count);
    let data = read(source.as_ref(), "h.95.weight", &[rows, width]).unwrap();
    assert_eq!(data.to_f32(0..2), [0.0, 0.0]);
    let after = resident();
    // Milliseconds are usual; a second allows for a busy machine. Other tests of this process use memory meanwhile.
    assert!(opened < Duration::from_secs(1), "{opened:?}");
    assert!(after.1.saturating_sub(before.1) < 1 << 20, "{before:?} KiB before, {after:?} KiB after");
    eprintln!("{} GB opened in {opened:?}, {before:?} -> {after:?} KiB", total / 1_000_000_000);
}
