//! Releases without building one: `.ci/release` checks tag and changelog, and names archives as `cargo binstall` does.

use super::program::contains;
use std::path::Path;
use std::process::{Command, Output};
use toml::Table;

/// `.ci/release` of the project at `root`.
fn release(root: &Path, arguments: &[&str]) -> Output {
    Command::new("bash")
        .arg(root.join(".ci/release"))
        .args(arguments)
        .env_remove("LIMBER_GLIBC")
        .env_remove("GITHUB_SERVER_URL")
        .env("GITHUB_REPOSITORY", "Some/Limber")
        .output()
        .unwrap()
}

fn printed(root: &Path, arguments: &[&str]) -> String {
    let output = release(root, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

fn refused(root: &Path, arguments: &[&str], expected: &[&str]) {
    let output = release(root, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    contains(&String::from_utf8_lossy(&output.stderr), expected);
}

/// The targets that the workflow builds archives for.
fn targets() -> Vec<String> {
    let workflow = std::fs::read_to_string(Path::new(crate::ROOT).join(".github/workflows/release.yml")).unwrap();
    workflow.lines().filter_map(|line| line.trim().strip_prefix("- target: ")).map(str::to_string).collect()
}

/// A project whose files are the real ones, but for the version and the changelog.
fn project(changelog: &str) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for folder in [".ci", ".github"] {
        std::fs::create_dir(temp.path().join(folder)).unwrap();
    }
    for file in [".ci/release", ".github/release-notes.md"] {
        std::fs::copy(Path::new(crate::ROOT).join(file), temp.path().join(file)).unwrap();
    }
    let manifest = "[workspace.package]\nversion = \"1.2.3\"\n[x]\nversion = \"9.9.9\"\n";
    std::fs::write(temp.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::write(temp.path().join("CHANGELOG.md"), changelog).unwrap();
    temp
}

#[test]
fn a_tag_is_that_of_the_version_and_the_changelog_has_it() {
    let root = Path::new(crate::ROOT);
    assert_eq!(printed(root, &["check"]), env!("CARGO_PKG_VERSION"));
    refused(root, &["publish"], &["the command is 'publish', expected check, name, archive, image or notes"]);
    let missing = "CHANGELOG.md has no section '## 1.2.3', or an empty one";
    for (changelog, tag, message) in [
        (
            "## 1.2.3 - 2026-01-02\n- A",
            "v1.2.4",
            Some("the tag is 'v1.2.4', expected 'v1.2.3', the version in Cargo.toml"),
        ),
        ("## 1.2.3 - 2026-01-02\n- A", "1.2.3", Some("the tag is '1.2.3', expected 'v1.2.3'")),
        ("## Unreleased\n- A\n## 1.2.30\n- B", "v1.2.3", Some(missing)),
        ("## 1.2.3\n\n## 1.2.2\n- A", "v1.2.3", Some(missing)),
        ("## Unreleased\n## 1.2.3 - 2026-01-02\n- A", "v1.2.3", None),
        ("## [1.2.3] - 2026-01-02\n- A", "v1.2.3", None),
    ] {
        let project = project(changelog);
        match message {
            Some(message) => refused(project.path(), &["check", tag], &[message]),
            None => assert_eq!(printed(project.path(), &["check", tag]), "1.2.3"),
        }
    }
}

#[test]
fn the_text_of_a_release_is_the_section_of_its_version_and_lists_the_archives() {
    let changelog =
        "# Changelog\n## Unreleased\n- later\n## 1.2.3 - 2026-01-02\n\n### Added\n- now\n## 1.2.2\n- before\n";
    let notes = printed(project(changelog).path(), &["notes"]);
    assert!(notes.starts_with("### Added\n- now\n\n### Which archive\n"), "{notes}");
    assert!(!notes.contains("- later") && !notes.contains("- before") && !notes.contains('@'), "{notes}");
    contains(&notes, &["glibc 2.28", "**which cannot load plugins**", "`ghcr.io/some/limber:1.2.3`"]);
    contains(&notes, &["https://github.com/Some/Limber/blob/v1.2.3/docs/install.md"]);
    let unreleased = printed(project("## Unreleased\n- later\n").path(), &["notes"]);
    assert!(unreleased.starts_with("- later\n"), "{unreleased}");
    let targets = targets();
    assert_eq!(targets.len(), 6, "{targets:?}");
    let install = std::fs::read_to_string(Path::new(crate::ROOT).join("docs/install.md")).unwrap();
    for target in targets {
        let name = printed(project(changelog).path(), &["name", &target]);
        contains(&notes, &[&format!("| `{name}` |")]);
        contains(&install, &[&format!("| `{target}` |")]);
    }
}

/// Its templates, filled in as its documentation says.
#[test]
fn binstall_looks_for_the_archives_names() {
    let root = Path::new(crate::ROOT);
    let manifest: Table = std::fs::read_to_string(root.join("crates/cli/Cargo.toml")).unwrap().parse().unwrap();
    let binstall = &manifest["package"]["metadata"]["binstall"];
    let version = env!("CARGO_PKG_VERSION");
    for target in targets() {
        let windows = target.contains("-windows-");
        let format = binstall["overrides"].get(&target).unwrap_or(binstall)["pkg-fmt"].as_str().unwrap();
        assert_eq!(format, if windows { "zip" } else { "tgz" }, "{target}");
        let filled = |key: &str| {
            let values = [
                ("{ repo }", "https://host/owner/limber"),
                ("{ version }", version),
                ("{ target }", &target),
                // Of "tgz" both .tgz and this.
                ("{ archive-suffix }", if windows { ".zip" } else { ".tar.gz" }),
                ("{ bin }", "limber"),
                ("{ binary-ext }", if windows { ".exe" } else { "" }),
            ];
            let template = binstall[key].as_str().unwrap().to_string();
            values.iter().fold(template, |text, (variable, value)| text.replace(variable, value))
        };
        let name = printed(root, &["name", &target]);
        assert_eq!(filled("pkg-url"), format!("https://host/owner/limber/releases/download/v{version}/{name}"));
        let program = if windows { "limber.exe" } else { "limber" };
        assert_eq!(filled("bin-dir"), format!("limber-{version}-{target}/{program}"));
    }
}
