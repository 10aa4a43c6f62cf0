//! Files at addresses of their own: downloaded once, resumed, verified, a local file taking precedence.
//!
//! The storage server of [`Hub`] serves them: `/SHA256`, with ranges, a strong ETag and faults.

use super::program::{limber, run};
use super::server::{Fault, File, Hub, commit, noise};
use super::{Case, SECRET};
use limber::weights::hub::{ensure, locate, pull};
use limber::weights::{WebFile, WeightSpec};
use std::fs;
use std::path::Path;

/// A case, and the address of its 300,000 bytes.
fn served(bytes: &[u8]) -> (Case, WebFile) {
    let case = Case::new();
    case.hub.set("web/files", "main", &commit('9'), &[("f", bytes)]);
    let file = File { path: "f".to_string(), bytes: bytes.to_vec(), large: true };
    let address = format!("{}/{}", case.hub.storage.address, file.sha256());
    (case, WebFile { address, sha256: None, local: None })
}

fn spec(file: &WebFile) -> WeightSpec {
    WeightSpec::Web(file.clone())
}

fn bring(case: &Case, file: &WebFile) -> anyhow::Result<()> {
    ensure(&spec(file), &super::wanted(), &case.settings, &mut |_| ())
}

fn bytes() -> Vec<u8> {
    noise(7, 300_000)
}

#[test]
fn a_file_comes_once_and_is_resumed() {
    let (case, file) = served(&bytes());
    let there = || locate(&spec(&file), &[], &case.settings.cache);
    let message = there().unwrap_err().to_string();
    assert!(message.contains("is not in the cache") && message.contains("`limber pull http://127.0.0.1"), "{message}");
    // The answer to HEAD, then two that break off.
    case.hub.storage_faults([Fault::default(), Fault::cut(100_000), Fault::cut(50_000)]);
    bring(&case, &file).unwrap();
    assert!(fs::read(there().unwrap()).unwrap() == bytes());
    assert_eq!(case.hub.ranges(), ["", "", "bytes=100000-", "bytes=150000-"]);
    assert!(case.hub.storage.seen().iter().all(|request| request.header("authorization").is_none()));
    case.hub.storage.forget();
    bring(&case, &file).unwrap();
    assert_eq!(case.hub.storage.seen().len(), 0);
    // A pull asks whether there is another one, and brings nothing where there is none.
    let again = pull(&spec(&file), &super::wanted(), &case.settings, &mut |_| ()).unwrap();
    assert_eq!((again.commit, again.files[0].downloaded, again.files[0].bytes), (None, false, 300_000));
    let methods: Vec<String> = case.hub.storage.seen().iter().map(|request| request.method.clone()).collect();
    assert_eq!(methods, ["HEAD"]);
    // A part of an earlier run is gone on with under the ETag that it had.
    let (mut case, file) = served(&bytes());
    case.settings.patience.tries = 1;
    case.hub.storage_faults([Fault::default(), Fault::cut(200_000)]);
    let message = format!("{:#}", bring(&case, &file).unwrap_err());
    assert!(message.contains("another run goes on from there"), "{message}");
    bring(&case, &file).unwrap();
    assert_eq!(case.hub.ranges(), ["", "", "", "bytes=200000-"]);
    assert!(fs::read(locate(&spec(&file), &[], &case.settings.cache).unwrap()).unwrap() == bytes());
}

#[test]
fn other_bytes_than_the_sha256_says_are_refused() {
    let (case, file) = served(&bytes());
    let hash = file.name().to_string();
    let right = WebFile { sha256: Some(hash.clone()), ..file.clone() };
    let wrong = WebFile { sha256: Some("0".repeat(64)), ..file.clone() };
    let message = format!("{:#}", bring(&case, &wrong).unwrap_err());
    let expected =
        format!("have the sha256 {hash}, the config says {}; nothing was kept", wrong.sha256.clone().unwrap());
    assert!(message.contains(&expected), "{message}");
    assert!(locate(&spec(&wrong), &[], &case.settings.cache).is_err());
    bring(&case, &right).unwrap();
    assert!(fs::read(locate(&spec(&right), &[], &case.settings.cache).unwrap()).unwrap() == bytes());
}

#[test]
fn what_cannot_be_had_says_why() {
    let (mut case, file) = served(&bytes());
    let absent = WebFile { address: format!("{}/proj.ckpt?key={SECRET}", case.hub.storage.address), ..file.clone() };
    let message = format!("{:#}", bring(&case, &absent).unwrap_err());
    assert!(message.contains("has no file at") && message.contains("is the address right?"), "{message}");
    case.settings.offline = Some("--offline forbids the network".to_string());
    let file = WebFile { local: Some("here/proj.ckpt".to_string()), ..file };
    let message = format!("{:#}", bring(&case, &file).unwrap_err());
    for part in ["is not in the cache", "--offline forbids the network", "put it at here/proj.ckpt"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(case.hub.storage.seen().len(), 1);
    case.settings.offline = None;
    let gone = WebFile { address: "http://127.0.0.1:1/proj.ckpt".to_string(), ..file };
    let message = format!("{:#}", bring(&case, &gone).unwrap_err());
    assert!(message.contains("cannot reach http://127.0.0.1:1") && message.contains("put it at"), "{message}");
}

#[test]
fn a_config_names_an_address_and_a_local_file_goes_before_it() {
    let stitch = fs::read(Path::new(crate::ROOT).join("assets/demo/proj.ckpt")).unwrap();
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    hub.set("web/files", "main", &commit('9'), &[("f", &stitch)]);
    let file = File { path: "f".to_string(), bytes: stitch.clone(), large: true };
    let (root, hash) = (crate::ROOT, file.sha256());
    let address = format!("{}/{hash}", hub.storage.address);
    let config = home.path().join("c.yaml");
    let text = format!(
        "encoder: {{kind: clip-resnet, weights: '{root}/assets/demo/clip'}}\n\
         stitch: {{kind: linear, weights: '{address}', sha256: {hash}, local: mine/proj.ckpt}}\n\
         decoder: {{kind: gptj, weights: '{root}/assets/demo/gptj'}}\n"
    );
    fs::write(&config, text).unwrap();
    let (config, image) = (config.to_str().unwrap(), "assets/demo/scene-1.png");
    let caption =
        |more: &[&str]| run(limber(&hub, home.path()).args(["caption", "--config", config, image]).args(more));
    let (_, demo, _) = run(limber(&hub, home.path()).args(["caption", image]));
    let (code, _, stderr) = caption(&["--offline"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("section \"stitch\": ") && stderr.contains("put it at mine/proj.ckpt"), "{stderr}");
    let (code, stdout, stderr) = run(limber(&hub, home.path()).args(["pull", "--json", "--config", config]));
    assert_eq!(code, Some(0), "{stderr}");
    let line: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&line["weights"], &line["files"][0]["downloaded"]), (&address.into(), &true.into()));
    let (code, stdout, stderr) = caption(&["--offline"]);
    assert_eq!((code, stdout), (Some(0), demo.clone()), "{stderr}");
    // What is missing here is said before anything is asked for.
    hub.storage.forget();
    fs::remove_dir_all(home.path().join("hub")).unwrap();
    for (set, expected) in [
        ("decoder.weights=no/decoder", "section \"decoder\", key \"weights\": there is no file or folder"),
        ("decoder.tokenizer=no/tokenizer", "section \"decoder\", key \"tokenizer\": there is no file or folder"),
    ] {
        let (code, _, stderr) = caption(&["--set", set]);
        assert!(code == Some(1) && stderr.contains(expected), "{stderr}");
    }
    let (code, _, stderr) = run(limber(&hub, home.path()).args(["caption", "--config", config, "no-such.png"]));
    assert!(code == Some(1) && stderr.contains("there is no image no-such.png"), "{stderr}");
    assert_eq!(hub.storage.seen().len(), 0);
    fs::create_dir(home.path().join("mine")).unwrap();
    fs::write(home.path().join("mine/proj.ckpt"), &stitch).unwrap();
    let (code, stdout, stderr) = caption(&[]);
    assert_eq!((code, stdout, hub.storage.seen().len()), (Some(0), demo, 0), "{stderr}");
    // Other weights in its place have nothing to do with its hash.
    let (code, _, stderr) = caption(&["--set", "stitch.weights=random:1", "--max-tokens", "1"]);
    assert!(code == Some(0) && stderr.contains("the stitch is random (random:1)"), "{stderr}");
}
