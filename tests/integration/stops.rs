//! What `caption` takes and says: images from everywhere, stop strings in every output, and ids as transformers' logits
//! processors choose them (`tests/golden/sampling`).

use super::golden::lists;
use super::program::{lines, scene, stdout};
use limber::generation::{Sampler, Sampling};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn distributions_are_those_of_transformers() {
    let cases = lists("sampling");
    let cases = cases["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let settings = &case["settings"];
        let number = |key: &str, default: f64| settings[key].as_f64().unwrap_or(default);
        let sampling = Sampling {
            temperature: number("temperature", 1.0),
            top_p: number("top_p", 1.0),
            top_k: number("top_k", 0.0) as usize,
            min_p: number("min_p", 0.0),
            repetition_penalty: number("repetition_penalty", 1.0),
            ..Sampling::default()
        };
        let mut greedy = Sampler::new(Sampling { temperature: 0.0, ..sampling }, 24, 0, 0);
        let mut drawn = Sampler::new(sampling, 24, 0, 0);
        for row in case["rows"].as_array().unwrap() {
            let logits: Vec<f32> = serde_json::from_value(row["logits"].clone()).unwrap();
            let mut kept = drawn.distribution(&logits).unwrap();
            kept.sort_by_key(|(id, _)| *id);
            let theirs: Vec<(u32, f64)> = serde_json::from_value(row["kept"].clone()).unwrap();
            let ids = |list: &[(u32, f64)]| list.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            assert_eq!(ids(&kept), ids(&theirs), "{settings}");
            for ((_, ours), (_, theirs)) in kept.iter().zip(&theirs) {
                // They divide and round in f32, of logits up to 8: relative 1e-6 each.
                assert!((ours - theirs).abs() < 1e-5, "{settings}: {ours} {theirs}");
            }
            assert_eq!(json!(greedy.sample(&logits).unwrap()), row["greedy"], "{settings}");
            drawn.count(row["greedy"].as_u64().unwrap() as u32);
        }
    }
}

#[test]
fn text_ends_before_a_stop_string_in_every_output() {
    let image = scene(0);
    let whole = &lines(&["caption", "--json", &image])[0];
    let text = whole["text"].as_str().unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    assert!(words.len() > 4, "{text}");
    // Across a word boundary, and inside a word.
    for stop in [format!("{} {}", words[2], words[3]), words[2][1..].to_string()] {
        let expected = text[..text.find(&stop).unwrap()].trim();
        let line = &lines(&["caption", "--json", "--stop", "nowhere", "--stop", &stop, &image])[0];
        assert_eq!((line["text"].as_str().unwrap(), &line["finish"]), (expected, &json!("stop")), "{stop:?}");
        let tokens = line["tokens"].as_array().unwrap();
        assert_eq!(tokens[..], whole["tokens"].as_array().unwrap()[..tokens.len()]);
        assert_eq!(line["logprobs"].as_array().unwrap().len(), tokens.len());
        assert!(tokens.len() < whole["tokens"].as_array().unwrap().len());
        let streamed = stdout(&["caption", "--stream", "--stop", &stop, &image]);
        assert_eq!(streamed.trim_end(), expected);
        let set = format!("generate.stop=[{}]", json!(stop));
        assert_eq!(stdout(&["caption", "--set", &set, &image]), format!("{expected}\n"));
    }
    // What is not met changes nothing, whatever was held back for it.
    let line = &lines(&["caption", "--json", "--stop", &format!("{}!", words[words.len() - 1]), &image])[0];
    assert_eq!((&line["text"], &line["finish"]), (&whole["text"], &json!("eos")));
    assert_eq!(
        stdout(&["caption", "--stream", "--stop", &format!("{}!", words[words.len() - 1]), &image]).trim_end(),
        text
    );
}

#[test]
fn flags_of_sampling_change_what_is_said() {
    let image = scene(0);
    let said =
        |more: &[&str]| -> Value { lines(&[&["caption", "--json", &image], more].concat())[0]["tokens"].clone() };
    let greedy = said(&[]);
    // One token in so many is as likely as the best one.
    assert_eq!(said(&["--temperature", "1.5", "--min-p", "1", "--seed", "3"]), greedy);
    let penalised = said(&["--repetition-penalty", "50", "--max-tokens", "8"]);
    let mut ids: Vec<u64> = penalised.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), penalised.as_array().unwrap().len(), "nothing is said twice: {penalised}");
}

/// `limber caption` with something on its standard input.
fn captioned(arguments: &[&str], input: &[u8]) -> (bool, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_limber"))
        .arg("caption")
        .args(arguments)
        .current_dir(crate::ROOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn images_come_from_folders_patterns_lists_and_standard_input() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("b")).unwrap();
    let copies = ["2.png", "a[1].png", "b/1.PNG"];
    for (at, name) in copies.iter().enumerate() {
        fs::copy(Path::new(crate::ROOT).join(scene(at)), temp.path().join(name)).unwrap();
    }
    fs::write(temp.path().join("notes.txt"), "no image").unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_string();
    let alone: Vec<String> = (0..3).map(|at| stdout(&["caption", &scene(at)]).trim_end().to_string()).collect();
    let expected = |which: &[usize]| -> String {
        which.iter().map(|at| format!("{}: {}\n", path(copies[*at]), alone[*at])).collect()
    };
    let told = |arguments: &[&str], input: &str| {
        let (is_done, out, error) = captioned(arguments, input.as_bytes());
        assert!(is_done, "{arguments:?}: {error}");
        out
    };
    assert_eq!(told(&[temp.path().to_str().unwrap()], ""), expected(&[0, 1, 2]));
    assert_eq!(told(&[&path("*.png")], ""), expected(&[0, 1]));
    assert_eq!(told(&[&path("**/[0-9].PNG")], ""), expected(&[2]));
    // A file of that name is no pattern, and one image alone needs no name.
    assert_eq!(told(&[&path("a[1].png")], ""), format!("{}\n", alone[1]));
    let list = format!("{}\n\n{}\n", path("b/1.PNG"), path("a[1].png"));
    fs::write(temp.path().join("list.txt"), &list).unwrap();
    assert_eq!(told(&["--files-from", &path("list.txt")], ""), expected(&[2, 1]));
    assert_eq!(told(&[&path("2.png"), "--files-from", "-"], &list), expected(&[0, 2, 1]));
    let bytes = fs::read(Path::new(crate::ROOT).join(scene(2))).unwrap();
    let (is_done, out, error) = captioned(&["-", "--json"], &bytes);
    assert!(is_done, "{error}");
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["image"], &line["text"]), (&json!("-"), &json!(alone[2])));
    for (arguments, input, expected) in [
        (vec!["-"], "", "standard input is empty"),
        (vec!["-"], "no image", "standard input: "),
        (vec!["-", "--files-from", "-"], "", "standard input (-) is named 2 times"),
        (vec!["--files-from", "-"], "\n", "-: found no path"),
        (vec!["tests/golden/chat"], "", "tests/golden/chat: found no image in this folder or below it"),
        (vec!["no-*.png"], "", "no file matches the pattern \"no-*.png\""),
    ] {
        let (is_done, out, error) = captioned(&arguments, input.as_bytes());
        assert!(!is_done && out.is_empty() && error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn a_caption_of_several_lines_is_one_line() {
    let temp = tempfile::tempdir().unwrap();
    let golden = super::golden::folder("train");
    let file = super::train::config(&temp.path().join("out"), &[]);
    let (file, image) = (file.to_str().unwrap().to_string(), golden.join("features/03.npy"));
    let base = ["caption", "--config", &file, "--temperature", "9", "--max-tokens", "24", image.to_str().unwrap()];
    // Nearly every token is as likely as the next, some of which are line breaks.
    let found = (0..200).find_map(|seed: u32| {
        let seed = seed.to_string();
        let text = lines(&[&base[..], &["--json", "--seed", &seed]].concat())[0]["text"].as_str().unwrap().to_string();
        text.contains('\n').then_some((seed, text))
    });
    let (seed, text) = found.expect("a seed with a line break");
    let plain = stdout(&[&base[..], &["--seed", &seed]].concat());
    assert_eq!(plain, format!("{}\n", text.replace("\r\n", "\\n").replace(['\n', '\r'], "\\n")));
}

#[test]
fn spaces_between_prompt_and_text_are_told_of() {
    let image = scene(0);
    let notes = |arguments: &[&str]| String::from_utf8(super::program::limber(arguments).stderr).unwrap();
    let score = |text: &str| notes(&["score", "--image", &image, "--prompt", "A picture of", "--text", text]);
    assert!(score("a circle").contains("note: the text \"a circle\" is scored as it stands"), "{}", score("a circle"));
    assert_eq!(score(" a circle"), "");
    assert_eq!(score(", a circle"), "");
    assert_eq!(notes(&["score", "--image", &image, "--prompt", "", "--text", "a circle"]), "");
    assert!(notes(&["caption", "--prompt", "A picture of ", &image]).contains("note: the prompt ends in a space"));
}
