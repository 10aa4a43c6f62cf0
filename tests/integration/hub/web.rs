//! Files at addresses of their own: downloaded once, resumed, verified, a local file taking precedence.
//!
//! The storage server of [`Hub`] serves them: `/SHA256`, with ranges, a strong ETag and faults.

use super::program::{limber, run};
use super::server::{Fault, File, Hub, commit, noise};
use super::{Case, SECRET};
use limber::hub::{ensure, pull};
use limber::weights::cache::locate;
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
fn two_versions_are_never_put_together() {
    let silent = |fault: Fault| Fault { etag: Some(""), ..fault };
    let newer = || Fault { bytes: Some(noise(8, 300_000)), ..Fault::default() };
    for (faults, ranges, expected) in [
        // A server that names no version: what came is worth nothing once the connection broke.
        (
            vec![silent(Fault::default()), silent(Fault::cut(100_000)), silent(newer())],
            vec!["", "", ""],
            noise(8, 300_000),
        ),
        // One that named it, and goes on with another without saying so.
        (vec![Fault::default(), Fault::cut(100_000), silent(newer())], vec!["", "", "bytes=100000-", ""], bytes()),
    ] {
        let (case, file) = served(&bytes());
        case.hub.storage_faults(faults);
        bring(&case, &file).unwrap();
        assert!(fs::read(locate(&spec(&file), &[], &case.settings.cache).unwrap()).unwrap() == expected);
        assert_eq!(case.hub.ranges(), ranges);
    }
    // What came under another ETag than the one that was announced is no beginning of the announced file.
    let (mut case, file) = served(&bytes());
    case.settings.patience.tries = 1;
    case.hub.storage_faults([Fault::default(), Fault { etag: Some("newer"), cut: Some(100_000), ..newer() }]);
    let message = format!("{:#}", bring(&case, &file).unwrap_err());
    assert!(!message.contains("another run goes on from there"), "{message}");
    bring(&case, &file).unwrap();
    assert!(fs::read(locate(&spec(&file), &[], &case.settings.cache).unwrap()).unwrap() == bytes());
    assert_eq!(case.hub.ranges(), ["", "", "", ""]);
}

#[test]
fn a_bad_file_can_be_had_anew() {
    let (case, file) = served(&bytes());
    let silent = || Fault { etag: Some(""), ..Fault::default() };
    let pulled = || pull(&spec(&file), &super::wanted(), &case.settings, &mut |_| ()).unwrap().files[0].downloaded;
    // Where the server names no version, asking for the file is asking for all of it.
    for _ in 0..2 {
        case.hub.storage_faults([silent(), silent()]);
        assert!(pulled());
    }
    assert!(pulled() && !pulled());
    let path = locate(&spec(&file), &[], &case.settings.cache).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(pulled() && !pulled());
    // The message of a file that is no checkpoint says how to get another.
    let home = case.folder.path();
    let config = home.join("c.yaml");
    let text = format!(
        "encoder: {{kind: features, tokens: 1, width: 4}}\nstitch: {{kind: linear, weights: '{}'}}\n\
         decoder: {{kind: gptj, weights: '{}/assets/demo/gptj'}}\n",
        file.address,
        crate::ROOT
    );
    fs::write(&config, text).unwrap();
    let (code, stdout, _) = run(limber(&case.hub, home).args(["config", "check", "--deep", config.to_str().unwrap()]));
    let hint =
        format!("{} came as it is there; once {} is removed it is downloaded again", file.address, path.display());
    assert!(code == Some(1) && stdout.contains(&hint), "{stdout}");
}

#[test]
fn a_sha256_holds_for_files_that_are_there() {
    let (mut case, file) = served(&bytes());
    let cache = case.settings.cache.clone();
    let hash = file.name().to_string();
    let exact = WebFile { sha256: Some(hash.clone()), ..file.clone() };
    let wrong = WebFile { sha256: Some("0".repeat(64)), ..file.clone() };
    // What came without a sha256 serves where one is asked for, and the other way round.
    bring(&case, &file).unwrap();
    let path = locate(&spec(&exact), &[], &cache).unwrap();
    assert_eq!(path, locate(&spec(&file), &[], &cache).unwrap());
    let message = locate(&spec(&wrong), &[], &cache).unwrap_err().to_string();
    let says = format!("is in the cache as {} with the sha256 {hash}, the config says 0000", path.display());
    assert!(message.contains(&says) && message.contains("`limber pull http://127.0.0.1"), "{message}");
    fs::remove_dir_all(&cache).unwrap();
    bring(&case, &exact).unwrap();
    assert!(locate(&spec(&file), &[], &cache).is_ok());
    // A file that was damaged since then is told, and comes again.
    let path = locate(&spec(&exact), &[], &cache).unwrap();
    let damage = || fs::write(&path, noise(9, 300_000)).unwrap();
    damage();
    case.settings.offline = Some("--offline forbids the network".to_string());
    let message = format!("{:#}", bring(&case, &exact).unwrap_err());
    assert!(message.contains("the config says") && message.contains("--offline forbids the network"), "{message}");
    case.settings.offline = None;
    case.hub.storage.forget();
    bring(&case, &exact).unwrap();
    assert_eq!(case.hub.storage.seen().len(), 2);
    assert!(fs::read(&path).unwrap() == bytes());
    damage();
    assert!(pull(&spec(&exact), &super::wanted(), &case.settings, &mut |_| ()).unwrap().files[0].downloaded);
    // So is a local one, which takes precedence over the address.
    let local = case.folder.path().join("mine.ckpt");
    fs::write(&local, noise(9, 300)).unwrap();
    let here = WebFile { local: Some(local.display().to_string()), ..exact };
    let message = limber::weights::open(&spec(&here), &[], Path::new("")).err().unwrap().to_string();
    let says =
        format!("mine.ckpt (local) has the sha256 {}, expected is {hash}", super::server::sha256(&noise(9, 300)));
    assert!(message.contains(&says), "{message}");
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
