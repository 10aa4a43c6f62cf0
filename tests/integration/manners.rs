//! What surrounds the results: versions, completions, manual pages, how much is said on stderr.

use super::program::{contains, fails, limber, scene, stdout};
use std::fs;

fn stderr(arguments: &[&str]) -> String {
    let output = limber(arguments);
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_version_says_what_was_built_and_what_runs() {
    assert_eq!(stdout(&["-V"]), format!("limber {}\n", env!("CARGO_PKG_VERSION")));
    let long = stdout(&["--version"]);
    let mut lines = long.lines();
    assert_eq!(lines.next().unwrap(), format!("limber {}", env!("CARGO_PKG_VERSION")));
    for (key, known) in
        [("commit: ", &[][..]), ("features: ", &["demo, hub"]), ("kernels: ", &["portable", "AVX2", "AVX-512"])]
    {
        let value = lines.next().unwrap().strip_prefix(key).unwrap();
        assert!(if known.is_empty() { !value.is_empty() } else { known.contains(&value) }, "{long}");
    }
}

#[test]
fn shells_complete_subcommands_and_flags() {
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef limber"), ("fish", "complete -c limber")] {
        contains(&stdout(&["completions", shell]), &[mark, "caption", "max-tokens", "repetition-penalty"]);
    }
    let wrong = limber(&["completions", "tcsh"]);
    assert_eq!(wrong.status.code(), Some(2));
    contains(&String::from_utf8_lossy(&wrong.stderr), &["tcsh", "bash", "zsh", "fish"]);
}

#[test]
fn each_subcommand_has_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("a/man1");
    stdout(&["man", pages.to_str().unwrap()]);
    let read = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    contains(&read("limber.1"), &[".TH limber 1", "caption", "verbose"]);
    contains(&read("limber-caption.1"), &["limber\\-caption", "temperature", "Sampling temperature"]);
    contains(&read("limber-config-check.1"), &["deep"]);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    fails(&["man", file.to_str().unwrap()], &["cannot write manual pages to", "file"]);
}

#[test]
fn stderr_says_as_much_as_it_is_asked_for() {
    let picture = scene(0);
    let caption = stdout(&["caption", &picture]);
    // Three images, so that there is something to count.
    let all = ["caption", &picture, &picture, &picture];
    let with = |flag| [&[flag][..], &all[..]].concat();
    contains(&stderr(&all), &["3 images in "]);
    assert_eq!(stderr(&with("--quiet")), "");
    assert_eq!(stderr(&[&all[..], &["-q"]].concat()), "");
    assert_eq!(stdout(&with("-q")), caption.repeat(3));
    let told = stderr(&with("-v"));
    contains(
        &told,
        &["limber 0", "kernels: ", "encoder clip-resnet from ", "stitch linear from ", "decoder gptj from ", " MB, "],
    );
    let note = ["score", "--image", &picture, "--text", "a cat"];
    contains(&stderr(&note), &["note: the text"]);
    assert_eq!(stderr(&[&note[..], &["--quiet"]].concat()), "");
    // What is wrong is said all the same.
    fails(&["--quiet", "caption", "no.png"], &["no.png"]);
    assert_eq!(limber(&["-q", "-v", "components"]).status.code(), Some(2));
}
