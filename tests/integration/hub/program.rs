//! Downloads as the program makes them: what it prints, and what is left when it is ended or the disk is full.

use super::server::{Fault, Hub, commit, noise};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SECRET: &str = "hf_very_secret";

/// The program, with a hub and a home of its own.
fn limber(hub: &Hub, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limber"));
    for name in [
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
        "HF_HUB_ETAG_TIMEOUT",
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "LIMBER_LOG",
    ] {
        command.env_remove(name);
    }
    command
        .current_dir(crate::ROOT)
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", &hub.hub.address)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A hub whose `a/b` has 3 MB of weights, and where they go.
fn large() -> (Hub, tempfile::TempDir, Vec<u8>, PathBuf, PathBuf) {
    let (hub, home, bytes) = (Hub::new(), tempfile::tempdir().unwrap(), noise(5, 3_000_000));
    hub.set("a/b", "main", &commit('1'), &[("config.json", b"{}"), ("model.safetensors", &bytes)]);
    let etag = hub.world.lock().unwrap().commits[&("a/b".to_string(), commit('1'))][1].etag();
    let repository = home.path().join("hub/models--a--b");
    let part = repository.join("blobs").join(format!("{etag}.incomplete"));
    let pointer = repository.join("snapshots").join(commit('1')).join("model.safetensors");
    (hub, home, bytes, part, pointer)
}

/// Waits until the partial file has at least so many bytes.
fn wait_for(part: &Path, bytes: u64) {
    let start = Instant::now();
    while std::fs::metadata(part).map_or(0, |found| found.len()) < bytes {
        assert!(start.elapsed() < Duration::from_secs(60), "{} does not grow", part.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn pull_prints_paths_and_plain_lines() {
    let (hub, home, bytes, _, pointer) = large();
    let snapshot = pointer.parent().unwrap().to_str().unwrap();
    let (code, stdout, stderr) = run(limber(&hub, home.path()).args(["pull", "hf:a/b"]));
    assert_eq!((code, stdout), (Some(0), format!("{snapshot}\n")), "{stderr}");
    assert!(std::fs::read(&pointer).unwrap() == bytes);
    for part in ["config.json (1 of 2): 2 B\n", "model.safetensors (2 of 2): 2.86 MiB\n", "(2 of 2): 2.86 MiB in "] {
        assert!(stderr.contains(part), "{stderr:?} lacks {part:?}");
    }
    assert!(!stderr.contains('\r') && !stderr.contains('\u{1b}'), "{stderr:?}");
    let (code, stdout, stderr) =
        run(limber(&hub, home.path()).args(["pull", "--json", "hf:a/b", "hf:a/b@main/config.json"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<&String> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["weights", "path", "commit", "files"]);
    assert_eq!((&lines[0]["weights"], &lines[0]["path"]), (&"hf:a/b".into(), &snapshot.into()));
    assert_eq!(
        lines[0]["files"][1],
        serde_json::json!({"name": "model.safetensors", "bytes": 3_000_000, "downloaded": false})
    );
    assert_eq!(lines[1]["path"], format!("{snapshot}/config.json"));

    hub.hub.forget();
    let (code, _, stderr) = run(limber(&hub, home.path()).args(["pull", "--offline", "hf:a/b", "hf:a/c"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("error: hf:a/c: ") && stderr.contains("--offline forbids the network"), "{stderr}");
    assert!(stderr.contains("models--a--c/snapshots/main/"), "{stderr}");
    assert_eq!(hub.hub.seen().len(), 0);
    for (arguments, expected) in [
        (vec!["pull"], Some(2)),
        (vec!["pull", "--set", "a=b", "hf:a/b"], Some(2)),
        (vec!["pull", "random:1"], Some(1)),
        (vec!["pull", "hf:a"], Some(1)),
    ] {
        let (code, stdout, stderr) = run(limber(&hub, home.path()).args(&arguments));
        assert_eq!((code, stdout.as_str()), (expected, ""), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_token_is_sent_and_never_printed() {
    let (hub, home, ..) = large();
    hub.world.lock().unwrap().token = Some(SECRET.to_string());
    let pull = |change: &dyn Fn(&mut Command)| {
        let mut command = limber(&hub, home.path());
        // The most that can be asked for, of the crate that writes the request too.
        change(command.env("LIMBER_LOG", "trace,ureq_proto=trace").args(["pull", "hf:a/b"]));
        let (code, stdout, stderr) = run(&mut command);
        assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "the token was printed");
        assert!(!stderr.contains("signature=") && !stderr.contains("hf_wrong"), "a secret was printed");
        (code, stderr)
    };
    let (code, stderr) = pull(&|_| ());
    let file = home.path().join("token");
    let expected =
        format!("no token was sent; it is looked for in HF_TOKEN, HUGGING_FACE_HUB_TOKEN and {}", file.display());
    assert!(code == Some(1) && stderr.contains(&expected), "{stderr}");
    let (code, stderr) = pull(&|command| {
        command.env("HF_TOKEN", "hf_wrong");
    });
    assert!(code == Some(1) && stderr.contains("the token from HF_TOKEN was sent"), "{stderr}");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    assert_eq!(pull(&|_| ()).0, Some(0));
    assert!(hub.storage.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_config_brings_what_its_components_read() {
    let golden = |name: &str| Path::new(crate::ROOT).join("tests/golden").join(name);
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(golden("clip_resnet/open_clip")).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.file_name().unwrap().to_str().unwrap().to_string(), std::fs::read(&path).unwrap()));
    }
    let mut files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    files.extend([("README.md", b"unwanted".as_slice()), ("tokenizer.json", b"unwanted")]);
    hub.set("tiny/clip", "v1", &commit('a'), &files);
    let config = home.path().join("c.yaml");
    std::fs::write(
        &config,
        "encoder: {kind: clip-resnet, weights: 'hf:tiny/clip@v1'}\nstitch: {kind: linear, weights: 'random:1'}\n\
         decoder: {kind: gptj, weights: 'hf:tiny/absent'}\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let (image, local) = ("assets/demo/scene-1.png", golden("clip_resnet/open_clip"));
    let encode = |change: &[&str], out: &Path| {
        let arguments = ["encode", "--config", config, "--stage", "features", image, "--out", out.to_str().unwrap()];
        run(limber(&hub, home.path()).args(arguments).args(change))
    };
    let (there, here) = (home.path().join("hub.safetensors"), home.path().join("local.safetensors"));
    let (code, _, stderr) = encode(&["--offline"], &there);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("section \"encoder\": hf:tiny/clip@v1: ") && stderr.contains("--offline"), "{stderr}");
    // Features need the encoder alone, so the decoder that nobody has costs nothing.
    let (code, _, stderr) = encode(&[], &there);
    assert_eq!(code, Some(0), "{stderr}");
    let asked: Vec<String> = hub.hub.seen().iter().map(|request| request.path.clone()).collect();
    assert!(!asked.iter().any(|path| path.contains("README") || path.contains("tokenizer") || path.contains("absent")));
    let (code, _, stderr) = encode(&["--set", &format!("encoder.weights={}", local.display())], &here);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(std::fs::read(&there).unwrap(), std::fs::read(&here).unwrap());

    let (code, _, stderr) = run(limber(&hub, home.path()).args(["pull", "--config", config]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("there is no repository tiny/absent"), "{stderr}");
    let (code, _, stderr) = run(limber(&hub, home.path()).args(["train", "--offline", "--config", config]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("section \"decoder\": hf:tiny/absent: ") && stderr.contains("--offline"), "{stderr}");
    let decoder = format!("decoder.weights={}", golden("gptj/f32").display());
    let (code, stdout, stderr) = run(limber(&hub, home.path()).args(["pull", "--config", config, "--set", &decoder]));
    assert_eq!((code, stderr.as_str(), stdout.lines().count()), (Some(0), "", 1));
    let out = home.path().join("converted.safetensors");
    let (code, _, stderr) =
        run(limber(&hub, home.path()).args(["convert", "hf:tiny/clip@v1", "--out", out.to_str().unwrap()]));
    assert!(code == Some(0) && out.is_file(), "{stderr}");
}

#[test]
fn two_processes_download_a_file_once() {
    let (hub, home, bytes, _, pointer) = large();
    hub.storage_faults([Fault { pace: Duration::from_millis(4), ..Fault::default() }]);
    let start = || limber(&hub, home.path()).args(["pull", "hf:a/b"]).spawn().unwrap();
    let children = [start(), start(), start()];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(std::fs::read(&pointer).unwrap() == bytes);
    assert_eq!(hub.storage.seen().len(), 1);
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_a_part_that_the_next_run_takes_up() {
    let (hub, home, bytes, part, pointer) = large();
    hub.storage_faults([Fault { stall: Some(1_000_000), ..Fault::default() }]);
    let mut child = limber(&hub, home.path()).args(["pull", "hf:a/b"]).spawn().unwrap();
    wait_for(&part, 1_000_000);
    // Not -INT: a test run in the background of a script inherits that one as ignored. Both end a process at once.
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert!(!pointer.exists());
    assert!(std::fs::read(&part).unwrap() == bytes[..1_000_000]);
    let (code, _, stderr) = run(limber(&hub, home.path()).args(["pull", "hf:a/b"]));
    assert!(code == Some(0) && stderr.contains("2.86 MiB, going on after 976.56 KiB"), "{stderr}");
    assert!(std::fs::read(&pointer).unwrap() == bytes);
    assert_eq!(hub.ranges(), ["", "bytes=1000000-"]);
}

/// A limit on the length of files ends a write as a full disk does, at an offset that can be chosen.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_takes_no_more_leaves_a_part_too() {
    let (hub, home, bytes, part, pointer) = large();
    let program = limber(&hub, home.path());
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$0\" pull hf:a/b", env!("CARGO_BIN_EXE_limber")]);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let (code, stdout, stderr) = run(&mut shell);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let expected = format!("cannot write {}: the disk does not take it after 1024000 bytes", part.display());
    assert!(stderr.contains(&expected) && stderr.contains("another run goes on"), "{stderr}");
    assert!(!pointer.exists());
    assert!(std::fs::read(&part).unwrap() == bytes[..1_024_000]);
    let (code, _, stderr) = run(limber(&hub, home.path()).args(["pull", "hf:a/b"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(std::fs::read(&pointer).unwrap() == bytes);
    assert_eq!(hub.ranges(), ["", "bytes=1024000-"]);
}
