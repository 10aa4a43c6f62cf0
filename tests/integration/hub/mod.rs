//! Weights from a hub: the cache's layout, resumed and broken downloads, refusals, the token, offline.
//!
//! The hub is served on the loopback interface by [`server`]; pauses between attempts are a millisecond.

mod program;
mod server;
mod web;

use anyhow::Result;
use limber::hub::{Event, Patience, Pulled, Settings, Token, ensure, pull};
use limber::weights::cache::{Wanted, locate};
use limber_core::registry::DEFAULT_FILES;
use server::{Fault, Hub, commit, noise};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A hub, an empty cache, and how they are used.
struct Case {
    hub: Hub,
    folder: tempfile::TempDir,
    settings: Settings,
}

const SECRET: &str = "hf_very_secret";

/// Long enough to be kept by the storage server, and to come in many pieces.
fn weights() -> Vec<u8> {
    noise(1, 300_000)
}

impl Case {
    /// A hub whose `a/b` has a config and one file of weights at `main`.
    fn new() -> Self {
        let hub = Hub::new();
        hub.set("a/b", "main", &commit('1'), &[("config.json", b"{}"), ("model.safetensors", &weights())]);
        let folder = tempfile::tempdir().unwrap();
        let patience = Patience {
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(20),
            tries: 4,
            pause: Duration::from_millis(1),
            longest_pause: Duration::from_secs(2),
        };
        let settings = Settings {
            cache: folder.path().join("hub"),
            endpoint: hub.hub.address.clone(),
            token: None,
            token_sources: "HF_TOKEN and /home/token".to_string(),
            offline: None,
            certificates: None,
            patience,
        };
        Self { hub, folder, settings }
    }

    fn pull(&self, spec: &str) -> Result<Pulled> {
        self.pull_with_notes(spec).0
    }

    fn pull_with_notes(&self, spec: &str) -> (Result<Pulled>, Vec<String>) {
        let mut notes = Vec::new();
        let pulled = pull(&spec.parse().unwrap(), &wanted(), &self.settings, &mut |event| {
            if let Event::Note(text) = event {
                notes.push(text.to_string());
            }
        });
        (pulled, notes)
    }

    fn fails(&self, spec: &str, expected: &[&str]) -> String {
        let message = format!("{:#}", self.pull(spec).unwrap_err());
        for part in expected {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
        assert!(!message.contains(SECRET) && !message.contains("signature"), "{message}");
        message
    }

    fn repository(&self) -> PathBuf {
        self.settings.cache.join("models--a--b")
    }

    /// The blob of the weights, and its partial file.
    fn blob(&self) -> (PathBuf, PathBuf) {
        let etag = self.hub.world.lock().unwrap().commits[&("a/b".to_string(), commit('1'))][1].etag();
        let blob = self.repository().join("blobs").join(&etag);
        (blob, self.repository().join("blobs").join(format!("{etag}.incomplete")))
    }

    /// Nothing of the weights can be taken for whole.
    fn has_no_weights(&self) {
        assert!(!self.blob().0.exists());
        assert!(!self.repository().join("snapshots").join(commit('1')).join("model.safetensors").exists());
        assert!(!self.repository().join("refs/main").exists());
    }

    fn has_weights(&self) {
        let snapshot = self.repository().join("snapshots").join(commit('1'));
        assert!(fs::read(snapshot.join("model.safetensors")).unwrap() == weights(), "other bytes");
        assert!(!self.blob().1.exists(), "the partial file is left");
    }
}

fn wanted() -> Wanted {
    Wanted::of(Some(limber::core::registry::Role::Decoder), DEFAULT_FILES)
}

/// Every file and link under a folder, a link by its target.
fn tree(folder: &Path) -> BTreeMap<String, String> {
    fn walk(top: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_string();
            if let Ok(target) = fs::read_link(&path) {
                found.insert(name, format!("-> {}", target.display()));
            } else if path.is_dir() {
                walk(top, &path, found);
            } else {
                found.insert(name, fs::metadata(&path).unwrap().len().to_string());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

#[cfg(unix)]
#[test]
fn a_pull_lays_files_out_as_python_does() {
    let case = Case::new();
    let pulled = case.pull("hf:a/b").unwrap();
    let (one, repository) = (commit('1'), "models--a--b");
    assert_eq!(pulled.path, case.repository().join("snapshots").join(&one));
    assert_eq!(pulled.commit.as_ref(), Some(&one));
    let files: Vec<(&str, u64, bool)> = pulled.files.iter().map(|f| (f.name.as_str(), f.bytes, f.downloaded)).collect();
    assert_eq!(files, [("config.json", 2, true), ("model.safetensors", 300_000, true)]);

    let world = case.hub.world.lock().unwrap();
    let [config, model] = &world.commits[&("a/b".to_string(), one.clone())][..] else { panic!("two files") };
    let (config, model) = (config.etag(), model.etag());
    drop(world);
    let mut expected = BTreeMap::from([
        (format!("{repository}/refs/main"), "40".to_string()),
        (format!("{repository}/blobs/{config}"), "2".to_string()),
        (format!("{repository}/blobs/{model}"), "300000".to_string()),
        (format!("{repository}/snapshots/{one}/config.json"), format!("-> ../../blobs/{config}")),
        (format!("{repository}/snapshots/{one}/model.safetensors"), format!("-> ../../blobs/{model}")),
        (format!(".locks/{repository}/{config}.lock"), "0".to_string()),
        (format!(".locks/{repository}/{model}.lock"), "0".to_string()),
    ]);
    for name in &wanted().beside[1..] {
        expected.insert(format!("{repository}/.no_exist/{one}/{name}"), "0".to_string());
    }
    assert_eq!(tree(&case.settings.cache), expected);
    assert_eq!(fs::read_to_string(case.repository().join("refs/main")).unwrap(), one);
    case.has_weights();

    // A second pull asks for the revision alone; a use asks nothing.
    case.hub.hub.forget();
    let again = case.pull("hf:a/b").unwrap();
    assert!(again.files.iter().all(|file| !file.downloaded));
    assert_eq!(case.hub.hub.seen().len(), 1);
    ensure(&"hf:a/b".parse().unwrap(), &wanted(), &case.settings, &mut |_| ()).unwrap();
    assert_eq!(case.hub.hub.seen().len(), 1);
    assert_eq!(case.hub.storage.seen().len(), 1);
}

#[test]
fn revisions_folders_and_shards() {
    let case = Case::new();
    let index = br#"{"weight_map": {"x": "m 1.safetensors", "y": "m-2.safetensors", "z": "m 1.safetensors"}}"#;
    let (first, second) = (noise(2, 90_000), noise(3, 70_000));
    let files: [(&str, &[u8]); 7] = [
        ("README.md", b"unwanted"),
        ("pytorch_model.bin", b"unwanted"),
        ("model.safetensors.index.json", index),
        ("m 1.safetensors", &first),
        ("m-2.safetensors", &second),
        ("sub/config.json", b"{\"sub\": 1}"),
        ("sub/model.safetensors", b"small"),
    ];
    for revision in ["main", "v1", "refs/pr/7"] {
        case.hub.set("a/c", revision, &commit('c'), &files);
    }
    let names = |pulled: &Pulled| {
        let mut names: Vec<String> = pulled.files.iter().map(|file| file.name.clone()).collect();
        names.sort();
        names
    };
    let pulled = case.pull("hf:a/c@v1").unwrap();
    assert_eq!(names(&pulled), ["m 1.safetensors", "m-2.safetensors", "model.safetensors.index.json"]);
    assert!(fs::read(pulled.path.join("m 1.safetensors")).unwrap() == first);
    assert!(fs::read(pulled.path.join("m-2.safetensors")).unwrap() == second);
    let refs = case.settings.cache.join("models--a--c/refs");
    assert_eq!(fs::read_dir(&refs).unwrap().count(), 1);

    // The same commit under other names costs no second download.
    case.hub.storage.forget();
    for revision in ["refs/pr/7", &commit('c'), "main"] {
        let again = case.pull(&format!("hf:a/c@{revision}")).unwrap();
        assert_eq!((&again.path, names(&again)), (&pulled.path, names(&pulled)), "{revision}");
    }
    assert_eq!(case.hub.storage.seen().len(), 0);
    assert_eq!(fs::read_to_string(refs.join("refs/pr/7")).unwrap(), commit('c'));
    // What a commit holds never changes: nobody is asked.
    case.hub.hub.forget();
    case.pull(&format!("hf:a/c@{}", commit('c'))).unwrap();
    assert_eq!(case.hub.hub.seen().len(), 0);

    let folder = case.pull("hf:a/c/sub").unwrap();
    assert_eq!(names(&folder), ["sub/config.json", "sub/model.safetensors"]);
    assert_eq!(fs::read(folder.path.join("model.safetensors")).unwrap(), b"small");
    let file = case.pull("hf:a/c@v1/sub/model.safetensors").unwrap();
    assert_eq!((&file.path, names(&file)), (&folder.path.join("model.safetensors"), names(&folder)));
    let found = locate(&"hf:a/c/sub".parse().unwrap(), DEFAULT_FILES, &case.settings.cache).unwrap();
    assert_eq!(found, folder.path);

    // A branch that moved is followed by a pull, not by a use of what is there.
    case.hub.set("a/c", "main", &commit('d'), &[("model.safetensors", b"new")]);
    ensure(&"hf:a/c".parse().unwrap(), &wanted(), &case.settings, &mut |_| ()).unwrap();
    assert_eq!(fs::read_to_string(refs.join("main")).unwrap(), commit('c'));
    let moved = case.pull("hf:a/c").unwrap();
    assert_eq!(fs::read(moved.path.join("model.safetensors")).unwrap(), b"new");
    assert_eq!(fs::read_to_string(refs.join("main")).unwrap(), commit('d'));
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let case = Case::new();
    // More cuts than attempts in a row: each one brings something.
    case.hub.storage_faults([40_000, 30_000, 20_000, 50_000, 10_000, 1].map(Fault::cut));
    let (pulled, notes) = case.pull_with_notes("hf:a/b");
    pulled.unwrap();
    case.has_weights();
    let ends = [40_000, 70_000, 90_000, 140_000, 150_000, 150_001];
    let mut expected = vec![String::new()];
    expected.extend(ends.map(|end| format!("bytes={end}-")));
    assert_eq!(case.hub.ranges(), expected);
    assert!(case.hub.storage.seen()[1..].iter().all(|request| request.header("if-range") == Some("\"stored\"")));
    assert_eq!(notes.len(), 6, "{notes:?}");
    assert!(notes[0].contains("model.safetensors: the connection broke after 40000 bytes"), "{notes:?}");
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let case = Case::new();
    case.hub.hub_faults([Fault::status(503, &[]), Fault::status(429, &[("Retry-After", "0")]), Fault::cut(9)]);
    case.hub.storage_faults([
        Fault::status(500, &[]),
        Fault::status(429, &[("RateLimit", "\"resolvers\";r=0;t=1")]),
        Fault { delay: Duration::from_millis(200), ..Fault::default() },
    ]);
    let (pulled, notes) = case.pull_with_notes("hf:a/b");
    pulled.unwrap();
    case.has_weights();
    assert_eq!(notes.len(), 5, "{notes:?}");
    assert!(notes[4].ends_with("answered 429 Too Many Requests; trying again in 1.0 s"), "{notes:?}");
}

#[test]
fn a_server_that_stays_silent_is_left() {
    let mut case = Case::new();
    case.settings.patience.idle = Duration::from_secs(1);
    case.hub.storage_faults([Fault { stall: Some(100_000), ..Fault::default() }]);
    let (pulled, notes) = case.pull_with_notes("hf:a/b");
    pulled.unwrap();
    case.has_weights();
    assert_eq!(case.hub.ranges(), ["", "bytes=100000-"]);
    assert!(notes[0].contains("the connection broke after 100000 bytes"), "{notes:?}");
}

#[test]
fn another_run_goes_on_with_the_part() {
    let case = Case::new();
    case.hub.storage_faults([120_000, 0, 0, 0].map(Fault::cut));
    let expected = ["the 120000 bytes that came are kept", "(4 attempts)", "model.safetensors", "or put it at"];
    case.fails("hf:a/b", &expected);
    case.has_no_weights();
    assert!(fs::read(case.blob().1).unwrap() == weights()[..120_000]);
    case.hub.storage.forget();
    case.pull("hf:a/b").unwrap();
    case.has_weights();
    assert_eq!(case.hub.ranges(), ["bytes=120000-"]);

    // All of it came, and then the program ended.
    let case = Case::new();
    fs::create_dir_all(case.repository().join("blobs")).unwrap();
    fs::write(case.blob().1, weights()).unwrap();
    case.pull("hf:a/b").unwrap();
    case.has_weights();
    assert_eq!(case.hub.ranges(), [""; 0]);
}

#[test]
fn a_part_of_something_else_is_thrown_away() {
    for (part, ranges) in
        [(noise(9, 1000), vec!["bytes=1000-", ""]), (noise(9, 300_000), vec![""]), (noise(9, 400_000), vec![""])]
    {
        let case = Case::new();
        fs::create_dir_all(case.repository().join("blobs")).unwrap();
        fs::write(case.blob().1, &part).unwrap();
        case.pull("hf:a/b").unwrap();
        case.has_weights();
        assert_eq!(case.hub.ranges(), ranges, "{}", part.len());
    }
    // A blob that is not as long as the hub says is no blob.
    let case = Case::new();
    fs::create_dir_all(case.repository().join("blobs")).unwrap();
    fs::write(case.blob().0, b"short").unwrap();
    case.pull("hf:a/b").unwrap();
    case.has_weights();
}

#[test]
fn a_server_that_cannot_go_on_sends_all() {
    let none = Fault::default;
    for (name, second) in [
        ("ignores ranges", Fault { no_range: true, ..none() }),
        ("has another file now", Fault { etag: Some("other"), ..none() }),
        ("goes on elsewhere", Fault { shift: 5, ..none() }),
        ("refuses the range", Fault::status(416, &[])),
    ] {
        let case = Case::new();
        case.hub.storage_faults([Fault::cut(50_000), second]);
        case.pull("hf:a/b").unwrap();
        case.has_weights();
        let ranges = case.hub.ranges();
        assert_eq!(ranges[..2], ["", "bytes=50000-"], "{name}");
        assert!(ranges[2..].iter().all(String::is_empty), "{name}: {ranges:?}");
    }
    // A server that ignores both ranges and their condition and always breaks off is left in the end.
    let case = Case::new();
    case.hub.storage_faults((0..9).map(|_| Fault { no_range: true, ..Fault::cut(50_000) }));
    case.fails("hf:a/b", &["(4 attempts)", "the connection broke after 50000 bytes"]);
    case.has_no_weights();
}

#[test]
fn other_bytes_than_promised_never_become_weights() {
    let wrong = |bytes: Vec<u8>| Fault { bytes: Some(bytes), ..Fault::default() };
    let case = Case::new();
    case.hub.storage_faults([wrong(noise(8, 300_000))]);
    let message = case.fails("hf:a/b", &["model.safetensors", "have the sha256", "the hub says", "nothing was kept"]);
    assert!(message.contains(case.blob().0.file_name().unwrap().to_str().unwrap()), "{message}");
    case.has_no_weights();
    assert!(!case.blob().1.exists());
    case.pull("hf:a/b").unwrap();
    case.has_weights();

    for length in [299_999, 300_001] {
        let case = Case::new();
        case.hub.storage_faults((0..4).map(|_| wrong(noise(1, length))));
        let expected = format!("the hub says 300000 bytes, the server sends {length}");
        case.fails("hf:a/b", &[&expected, "(4 attempts)"]);
        case.has_no_weights();
        // Once is a hiccup.
        let case = Case::new();
        case.hub.storage_faults([wrong(noise(1, length))]);
        case.pull("hf:a/b").unwrap();
        case.has_weights();
    }
}

#[test]
fn refusals_are_final_and_say_what_to_do() {
    let token = || Some(Token::new(SECRET, "HF_TOKEN").unwrap());
    let gated = [("X-Error-Code", "GatedRepo"), ("X-Error-Message", "Access to model a/b is restricted.")];
    for (status, headers, with_token, expected) in [
        (
            401,
            &gated[..],
            false,
            vec!["a/b is gated: accept its terms at", "no token was sent", "HF_TOKEN and /home/token"],
        ),
        (
            403,
            &gated[..],
            true,
            vec!["a/b is gated", "the token from HF_TOKEN was sent", "Access to model a/b is restricted"],
        ),
        (401, &[][..], false, vec!["there is no repository a/b", "or it is private", "HF_TOKEN and /home/token"]),
        (401, &[][..], true, vec!["or the token is not valid", "the token from HF_TOKEN was sent"]),
        (403, &[][..], true, vec!["forbids access to a/b (403)"]),
        (404, &[("X-Error-Code", "RepoNotFound")][..], false, vec!["there is no repository a/b"]),
        (404, &[][..], false, vec!["knows no a/b at revision \"main\" (404)"]),
        (418, &[][..], false, vec!["answered 418"]),
    ] {
        let mut case = Case::new();
        case.settings.token = with_token.then(token).flatten();
        case.hub.hub_faults([Fault::status(status, headers)]);
        case.fails("hf:a/b", &expected);
        assert_eq!(case.hub.hub.seen().len(), 1, "{status}: asked once");
        assert!(!case.settings.cache.exists(), "{status}");
    }
    let case = Case::new();
    case.fails("hf:a/b@v9", &["a/b has no revision \"v9\" at", "a slash in the name of a branch is written %2F"]);
    case.fails("hf:no/one", &["there is no repository no/one"]);
    case.fails("hf:a/b/other.bin", &["has no file or folder \"other.bin\"; nearest of its 2: ", "\"config.json\""]);
    // The terms of a gated repository show at its files alone.
    case.hub.hub_faults([Fault::default(), Fault::status(401, &gated)]);
    case.fails("hf:a/b", &["hf:a/b: a/b is gated"]);
    case.hub.hub_faults([Fault::default(), Fault::status(404, &[("X-Error-Code", "EntryNotFound")])]);
    case.fails("hf:a/b", &["a/b at revision \"main\" has no file \"config.json\""]);
    case.hub.storage_faults([Fault::status(403, &[])]);
    case.fails("hf:a/b", &["where http://127.0.0.1:", "keeps the file, answered 403"]);
    case.has_no_weights();

    case.hub.set("a/d", "main", &commit('d'), &[("tf_model.h5", b"x"), ("weights.pt", b"x")]);
    let expected = ["none of the weight files model.safetensors, ", "it holds weights.pt;", "hf:a/d@main/FILE"];
    case.fails("hf:a/d", &expected);
    case.hub.set("a/e", "main", &commit('e'), &[("model.safetensors.index.json", br#"{"weight_map": {"x": "../y"}}"#)]);
    case.fails("hf:a/e", &["model.safetensors.index.json: shard \"../y\" is no file name"]);
}

#[test]
fn a_hub_that_fails_again_and_again_is_given_up() {
    let case = Case::new();
    case.hub.hub_faults((0..4).map(|_| Fault::status(503, &[])));
    let here = case.repository().join("snapshots/main");
    let expected = ["answered 503", "(4 attempts)", "looked for model.safetensors or ", here.to_str().unwrap()];
    case.fails("hf:a/b", &expected);
    assert_eq!(case.hub.hub.seen().len(), 4);
    // Nobody waits for an hour without a word.
    case.hub.hub_faults([Fault::status(429, &[("Retry-After", "3600")])]);
    case.fails("hf:a/b", &["answered 429", "asks to wait 3600 s"]);
    // Something else answers at that address.
    case.hub.hub_faults([Fault::status(200, &[])]);
    case.fails("hf:a/b", &["does not answer as a Hugging Face hub does; is HF_ENDPOINT right?"]);
    case.hub.hub_faults([Fault::default(), Fault::status(200, &[("Content-Length", "2")])]);
    case.fails("hf:a/b", &["gave no ETag; is http://127.0.0.1:"]);
    case.hub.hub_faults([Fault::default(), Fault::status(200, &[("ETag", "\"../../x\""), ("Content-Length", "2")])]);
    case.fails("hf:a/b", &["which names no content"]);
    case.hub.hub_faults((0..12).map(|_| Fault::status(302, &[("Location", "/round")])));
    case.fails("hf:a/b", &["redirects more than 10 times"]);
    case.hub.world.lock().unwrap().hub_faults.clear();
    case.hub.hub_faults([Fault::status(302, &[("Location", "ftp://x/y")])]);
    case.fails("hf:a/b", &["redirects to \"ftp://x/y\", which is no address"]);
}

#[test]
fn the_token_goes_to_the_endpoint_alone() {
    let mut case = Case::new();
    case.hub.world.lock().unwrap().token = Some(SECRET.to_string());
    case.fails("hf:a/b", &["or it is private", "no token was sent"]);
    case.settings.token = Some(Token::new(SECRET, "HF_TOKEN").unwrap());
    case.hub.world.lock().unwrap().moved.insert("old/name".into(), "a/b".into());
    case.hub.hub.forget();
    // A repository that has moved answers with a redirect to itself, which keeps the token.
    case.pull("hf:old/name").unwrap();
    let bearer = format!("Bearer {SECRET}");
    assert!(case.hub.hub.seen().len() > 4);
    assert!(case.hub.hub.seen().iter().all(|request| request.header("authorization") == Some(&bearer)));
    assert_eq!(case.hub.storage.seen().len(), 1);
    assert!(case.hub.storage.seen().iter().all(|request| request.header("authorization").is_none()));
    // Nor does another server get it that the hub names for the API.
    let elsewhere = format!("{}/api", case.hub.storage.address);
    case.hub.hub_faults([Fault::status(302, &[("Location", &elsewhere)])]);
    case.hub.storage.forget();
    case.fails("hf:a/b", &["answered 404"]);
    assert_eq!(case.hub.storage.seen().len(), 1);
    assert!(case.hub.storage.seen()[0].header("authorization").is_none());
    assert!(!format!("{:?}", case.settings).contains(SECRET));
}

#[test]
fn without_the_network_the_cache_must_do() {
    let mut case = Case::new();
    case.settings.offline = Some("--offline forbids the network".to_string());
    let snapshot = case.repository().join("snapshots/main");
    let expected = ["--offline forbids the network", "looked for model.safetensors or ", snapshot.to_str().unwrap()];
    case.fails("hf:a/b", &expected);
    let use_it = |case: &Case| ensure(&"hf:a/b".parse().unwrap(), &wanted(), &case.settings, &mut |_| ());
    assert!(use_it(&case).unwrap_err().to_string().contains("--offline forbids the network"));
    assert_eq!(case.hub.hub.seen().len(), 0);
    case.settings.offline = None;
    case.pull("hf:a/b").unwrap();
    case.hub.hub.forget();
    case.settings.offline = Some("HF_HUB_OFFLINE forbids the network".to_string());
    use_it(&case).unwrap();
    let pulled = case.pull("hf:a/b").unwrap();
    assert_eq!((pulled.commit, pulled.files.len()), (Some(commit('1')), 2));
    assert_eq!(case.hub.hub.seen().len(), 0);
}

#[test]
fn where_nobody_listens_the_message_says_what_is_wanted() {
    let mut case = Case::new();
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    case.settings.endpoint = format!("http://{free}");
    let snapshot = case.repository().join("snapshots/main");
    let expected =
        ["cannot reach http://127.0.0.1", "(3 attempts)", "looked for model.safetensors or ", "or put it at"];
    let message = case.fails("hf:a/b", &expected);
    assert!(message.contains(snapshot.to_str().unwrap()), "{message}");
    // What is there is used without a word, and cannot be brought up to date.
    let there = Case::new();
    there.pull("hf:a/b").unwrap();
    case.settings.cache = there.settings.cache.clone();
    ensure(&"hf:a/b".parse().unwrap(), &wanted(), &case.settings, &mut |_| ()).unwrap();
    case.fails("hf:a/b", &["hf:a/b: the cache has it as it was, but it cannot be brought up to date: cannot reach"]);
}

#[test]
fn documents_beside_weights_that_python_brought_are_asked_for_once() {
    let case = Case::new();
    let snapshot = case.repository().join("snapshots").join(commit('1'));
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(case.repository().join("refs")).unwrap();
    fs::write(case.repository().join("refs/main"), commit('1')).unwrap();
    fs::write(snapshot.join("model.safetensors"), "python's").unwrap();
    let ensured = |case: &Case| {
        let mut notes = Vec::new();
        ensure(&"hf:a/b".parse().unwrap(), &wanted(), &case.settings, &mut |event| {
            if let Event::Note(text) = event {
                notes.push(text.to_string());
            }
        })
        .unwrap();
        notes
    };
    // A hub that fails costs one attempt and a note.
    case.hub.hub_faults([Fault::status(503, &[])]);
    let notes = ensured(&case);
    assert_eq!(case.hub.hub.seen().len(), 1);
    assert!(notes[0].contains("hf:a/b: the cache may lack config.json, generation_config.json"), "{notes:?}");
    assert_eq!(ensured(&case), [""; 0]);
    assert_eq!(fs::read(snapshot.join("config.json")).unwrap(), b"{}");
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), b"python's");
    case.hub.hub.forget();
    ensured(&case);
    assert_eq!(case.hub.hub.seen().len(), 0);
    assert!(case.folder.path().exists());
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let mut case = Case::new();
    let file = case.folder.path().join("file");
    fs::write(&file, "").unwrap();
    case.settings.cache = file.join("hub");
    case.fails("hf:a/b", &["cannot make the folder", file.to_str().unwrap()]);
}
