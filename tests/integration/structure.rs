//! The architecture's rules, read off the files themselves: arrows between packages, linked components, house style.
//!
//! Every failure names the file and, where a line is missing, the line.

use limber::core::registry::Origin;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

fn root() -> PathBuf {
    PathBuf::from(crate::ROOT)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn manifest(folder: &Path) -> Table {
    let path = folder.join("Cargo.toml");
    read(&path).parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The folders inside `path`, sorted; none where it is not there.
fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

/// A package of the workspace.
struct Package {
    name: String,
    /// Relative to the root; empty for the root package.
    folder: String,
    manifest: Table,
}

/// The root package and every member, globs at the end of a path expanded.
fn packages() -> Vec<Package> {
    let workspace = manifest(&root());
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut paths = vec![String::new()];
    for member in members.iter().map(|m| m.as_str().unwrap()) {
        match member.strip_suffix("/*") {
            None => paths.push(member.to_string()),
            Some(above) => {
                for folder in folders(&root().join(above)) {
                    paths.push(folder.strip_prefix(root()).unwrap().to_str().unwrap().to_string());
                }
            }
        }
    }
    let package = |folder: String| {
        let manifest = manifest(&root().join(&folder));
        let name = manifest["package"]["name"].as_str().unwrap().to_string();
        Package { name, folder, manifest }
    };
    paths.into_iter().map(package).collect()
}

/// Where a package stands in the picture of the architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackageKind {
    /// The facade, the package of the root.
    Facade,
    Core,
    Kernels,
    /// An encoder, a decoder or a stitch.
    Component,
    Abi,
    Sdk,
    Host,
    Template,
    Example,
    Kit,
    /// The demo's weights.
    Demo,
    /// The shipped config files.
    Configs,
    /// The folder below `crates/`, by its index in [`CRATES`].
    Crate(usize),
}

/// What each crate below `crates/` may depend on beside core: crates above it in this list, and other kinds of package.
const CRATES: [(&str, &[&str], &[PackageKind]); 15] = [
    ("vocabulary", &[], &[]),
    ("weights", &["vocabulary"], &[]),
    ("hub", &["weights"], &[]),
    ("images", &[], &[]),
    ("text", &["vocabulary", "weights"], &[]),
    ("charts", &[], &[]),
    ("config", &["weights"], &[PackageKind::Configs]),
    ("data", &["config", "weights"], &[]),
    (
        "pipeline",
        &["config", "data", "hub", "images", "text", "weights"],
        &[PackageKind::Component, PackageKind::Host, PackageKind::Demo, PackageKind::Configs],
    ),
    ("train", &["charts", "config", "data", "hub", "pipeline", "weights"], &[]),
    // CLIPScore runs both towers of a CLIP, whose names and sizes its encoder knows.
    ("eval", &["config", "images", "pipeline", "text", "weights"], &[PackageKind::Component]),
    ("world", &["weights"], &[]),
    ("reproduce", &["charts", "config", "data", "eval", "pipeline", "train", "weights", "world"], &[]),
    ("bench", &["config", "images", "pipeline", "weights", "world"], &[PackageKind::Kernels]),
    (
        "cli",
        &[
            "bench",
            "config",
            "data",
            "eval",
            "hub",
            "images",
            "pipeline",
            "reproduce",
            "text",
            "train",
            "weights",
            "world",
        ],
        &[
            PackageKind::Host,
            PackageKind::Template,
            PackageKind::Kit,
            PackageKind::Demo,
            PackageKind::Configs,
            PackageKind::Facade,
        ],
    ),
];

fn kind_of(folder: &str) -> Option<PackageKind> {
    Some(match folder {
        "" => PackageKind::Facade,
        "core" => PackageKind::Core,
        "core/kernels" => PackageKind::Kernels,
        "plugins/abi" => PackageKind::Abi,
        "plugins/sdk" => PackageKind::Sdk,
        "plugins/host" => PackageKind::Host,
        "plugins/template" => PackageKind::Template,
        "tests/kit" => PackageKind::Kit,
        "assets/demo" => PackageKind::Demo,
        "configs" => PackageKind::Configs,
        _ if folder.starts_with("plugins/examples/") => PackageKind::Example,
        _ => match folder.split_once('/')? {
            ("encoders" | "decoders" | "stitch", _) => PackageKind::Component,
            ("crates", name) => PackageKind::Crate(CRATES.iter().position(|(known, ..)| *known == name)?),
            _ => return None,
        },
    })
}

/// The allowed arrows. A test may use what it likes, but nothing ever depends on the program, and the facade serves it
/// alone.
fn allowed(from: PackageKind, to: PackageKind, dev: bool) -> bool {
    use PackageKind::*;
    let program = Crate(CRATES.len() - 1);
    match (from, to) {
        (_, to) if to == program => false,
        (Facade, Core | Crate(_)) => true,
        (Crate(_), Core) => true,
        (Crate(from), Crate(to)) => to < from && CRATES[from].1.contains(&CRATES[to].0),
        (Crate(from), to) if CRATES[from].2.contains(&to) => true,
        (_, Facade) => false,
        _ if dev => true,
        (Component, Core) | (Core, Kernels) | (Kit, Core) => true,
        (Sdk | Host | Template, Core | Abi) => true,
        (Example, Core | Sdk) => true,
        (Demo, Core | Configs) => true,
        (Demo, Crate(to)) => CRATES[to].0 == "weights",
        _ => false,
    }
}

/// Our own packages among a manifest's dependencies, with whether they are for tests alone.
fn arrows(manifest: &Table) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    let mut section = |table: &Table| {
        for (key, dev) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)] {
            for (name, value) in table.get(key).and_then(Value::as_table).into_iter().flatten() {
                let name = value.get("package").and_then(Value::as_str).unwrap_or(name);
                if name.starts_with("limber-") {
                    all.push((name.to_string(), dev));
                }
            }
        }
    };
    section(manifest);
    for target in manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values) {
        section(target.as_table().unwrap());
    }
    all
}

#[test]
fn packages_depend_along_the_allowed_arrows() {
    let packages = packages();
    let mut problems = Vec::new();
    for package in &packages {
        let Some(from) = kind_of(&package.folder) else {
            problems.push(format!("{}: the architecture has no such package", package.folder));
            continue;
        };
        for (name, dev) in arrows(&package.manifest) {
            let Some(to) = packages.iter().find(|p| p.name == name).and_then(|p| kind_of(&p.folder)) else {
                problems.push(format!("{}/Cargo.toml: {name:?} is no member of the workspace", package.folder));
                continue;
            };
            if !allowed(from, to, dev) {
                problems.push(format!(
                    "{}/Cargo.toml: {} ({from:?}) may not depend on {name} ({to:?})",
                    package.folder, package.name
                ));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn an_arrow_against_the_rules_is_seen() {
    let table = |text: &str| text.parse::<Table>().unwrap();
    let found = arrows(&table(
        "[dependencies]\nlimber-core.workspace = true\nserde = \"1\"\n[dev-dependencies]\nx = { package = \"limber-vlm\" }\n\
         [target.'cfg(unix)'.dependencies]\nlimber-kernels = { path = \"..\" }",
    ));
    let names: Vec<(&str, bool)> = found.iter().map(|(name, dev)| (name.as_str(), *dev)).collect();
    assert_eq!(names, [("limber-core", false), ("limber-vlm", true), ("limber-kernels", false)]);
    for (from, to) in [
        (PackageKind::Component, PackageKind::Kernels),
        (PackageKind::Component, PackageKind::Component),
        (PackageKind::Core, PackageKind::Component),
        (PackageKind::Abi, PackageKind::Core),
        (PackageKind::Crate(0), PackageKind::Crate(1)),
        (PackageKind::Crate(5), PackageKind::Crate(6)),
        (PackageKind::Crate(0), PackageKind::Component),
        (PackageKind::Facade, PackageKind::Crate(CRATES.len() - 1)),
        (PackageKind::Crate(6), PackageKind::Facade),
    ] {
        assert!(!allowed(from, to, false), "{from:?} {to:?}");
    }
    assert!(!allowed(PackageKind::Kit, PackageKind::Facade, true));
    assert!(!allowed(PackageKind::Kit, PackageKind::Crate(CRATES.len() - 1), true));
    assert!(kind_of("helpers/x").is_none());
}

/// What belongs to the program alone, or to what the library does without.
const OF_THE_PROGRAM: [&str; 7] =
    ["clap", "clap_complete", "clap_mangen", "indicatif", "ctrlc", "tracing-subscriber", "limber-kit"];

#[test]
fn the_library_does_without_what_belongs_to_the_program() {
    for package in packages() {
        let mut banned: Vec<&str> = OF_THE_PROGRAM.to_vec();
        match package.folder.as_str() {
            "crates/cli" => continue,
            // A plugin's tests run the suite.
            _ if package.folder.starts_with("plugins/examples/") => continue,
            // It draws.
            "crates/world" => {}
            _ => banned.push("tiny-skia"),
        }
        let dependencies = package.manifest.get("dependencies").and_then(Value::as_table);
        let found: Vec<&String> =
            dependencies.into_iter().flat_map(Table::keys).filter(|name| banned.contains(&name.as_str())).collect();
        assert!(found.is_empty(), "{}/Cargo.toml depends on {found:?}, which the program alone may", package.folder);
    }
    let facade = manifest(&root());
    for name in ["limber-charts", "limber-world", "limber-reproduce", "limber-bench"] {
        assert!(facade["dependencies"].get(name).is_none(), "the library depends on {name}");
    }
}

#[test]
fn packages_are_named_after_the_project() {
    for package in packages() {
        let named = package.name.starts_with("limber-");
        assert!(named, "{}/Cargo.toml: package {:?} is not named limber-*", package.folder, package.name);
    }
}

/// The lines that a built-in component needs and does not have.
fn missing_lines(
    name: &str,
    folder: &str,
    pipeline: &Table,
    built_in: &str,
    registered: &BTreeSet<String>,
) -> Vec<String> {
    let mut missing = Vec::new();
    let crate_name = name.replace('-', "_");
    if pipeline["dependencies"].get(name).is_none() {
        missing.push(format!("crates/pipeline/Cargo.toml, [dependencies], lacks the line `{name}.workspace = true`"));
    }
    let line = format!("use {crate_name} as _;");
    if !built_in.lines().any(|l| l.trim() == line) {
        missing.push(format!("crates/pipeline/src/built_in.rs lacks the line `{line}`"));
    }
    if missing.is_empty() && !registered.contains(name) {
        missing.push(format!(
            "{folder}/src/lib.rs lacks a line `limber_core::register!(...);`: nothing of {name} is registered"
        ));
    }
    missing
}

#[test]
fn every_component_is_linked_and_registered() {
    let pipeline = manifest(&root().join("crates/pipeline"));
    let built_in = read(&root().join("crates/pipeline/src/built_in.rs"));
    let registry = limber::built_in::registry().unwrap();
    let registered: BTreeSet<String> = registry
        .entries()
        .filter_map(|entry| match &entry.origin {
            Origin::BuiltIn { package, .. } => Some(package.clone()),
            Origin::Library { .. } => None,
        })
        .collect();
    let members: BTreeSet<String> = packages().into_iter().map(|p| p.folder).collect();
    let mut missing = Vec::new();
    for above in ["encoders", "decoders", "stitch"] {
        for path in folders(&root().join(above)) {
            let folder = format!("{above}/{}", path.file_name().unwrap().to_str().unwrap());
            if !members.contains(&folder) {
                missing.push(format!("Cargo.toml, [workspace] members, lacks the line `\"{folder}\",`"));
                continue;
            }
            let name = manifest(&path)["package"]["name"].as_str().unwrap().to_string();
            missing.extend(missing_lines(&name, &folder, &pipeline, &built_in, &registered));
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn a_missing_line_is_named() {
    let full = "[dependencies]\nlimber-encoder-x.workspace = true";
    let check = |manifest: &str, built_in: &str, registered: &[&str], expected: &[&str]| {
        let registered = registered.iter().map(|name| name.to_string()).collect();
        let found = missing_lines("limber-encoder-x", "encoders/x", &manifest.parse().unwrap(), built_in, &registered);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?} lacks {expected:?}");
        }
    };
    let line = "use limber_encoder_x as _;";
    check(full, line, &["limber-encoder-x"], &[]);
    check(full, "", &[], &["crates/pipeline/src/built_in.rs lacks the line `use limber_encoder_x as _;`"]);
    check(full, &format!("// {line}"), &[], &["crates/pipeline/src/built_in.rs lacks the line"]);
    check(full, line, &[], &["encoders/x/src/lib.rs lacks a line `limber_core::register!"]);
    check("[dependencies]", line, &[], &["[dependencies], lacks the line `limber-encoder-x.workspace = true`"]);
}

#[test]
fn every_component_passes_the_conformance_suite() {
    let registry = limber::built_in::registry().unwrap();
    let reports: Vec<_> = registry.entries().map(limber_kit::check_entry).collect();
    assert!(!reports.is_empty());
    let failed: Vec<String> = reports.iter().filter(|r| !r.passed()).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// Every Rust file of the workspace, relative to the root.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap_or_default();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    let tops = [
        "assets", "benches", "configs", "core", "crates", "decoders", "encoders", "examples", "plugins", "src",
        "stitch", "tests",
    ];
    for top in tops.map(|top| root().join(top)).iter().filter(|top| top.is_dir()) {
        walk(top, &mut found);
    }
    found.sort();
    let relative = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
    found.iter().map(|path| (relative(path), read(path))).collect()
}

#[test]
fn every_file_says_what_it_is() {
    // The facade's documentation is the README.
    let opens = |text: &str| text.starts_with("//!") || text.starts_with("#![doc = include_str!");
    let silent: Vec<String> = sources().into_iter().filter(|(_, text)| !opens(text)).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "files that do not open with `//!`: {silent:?}");
}

#[test]
fn no_module_is_called_utils_or_common() {
    let vague = ["utils", "util", "common", "helpers", "misc"];
    for (path, _) in sources() {
        let parts = path.trim_end_matches(".rs").split('/');
        let bad: Vec<&str> = parts.filter(|part| vague.contains(part)).collect();
        assert!(bad.is_empty(), "{path}: {bad:?} says nothing of what is in it");
    }
}

#[test]
fn unsafe_code_stays_where_it_is_allowed() {
    // Spelled in two halves, so that this file does not find itself.
    let word = concat!("un", "safe");
    let forms = ["{", "fn", "impl", "extern", "trait"].map(|form| format!("{word} {form}"));
    let mut maps = Vec::new();
    for (path, text) in sources() {
        if path.starts_with("core/kernels/") || path.starts_with("plugins/") {
            continue;
        }
        for (i, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !forms.iter().any(|form| code.contains(form.as_str())) {
                continue;
            }
            let location = format!("{path}:{}", i + 1);
            let in_main = ["set_var(", "mallopt(", "extern \"C\""];
            if path == "crates/cli/src/main.rs" && in_main.iter().any(|call| code.contains(call)) {
                continue;
            }
            assert!(
                code.contains("Mmap::map("),
                "{location}: {word} is allowed in core/kernels, plugins, the one mmap call, main's set_var and mallopt"
            );
            maps.push(location);
        }
    }
    assert!(maps.len() <= 1, "one module maps files, here are {maps:?}");
}
