//! The folder that `limber plugin new` makes: a plugin that builds and passes its own test as it stands.
//!
//! In Rust it is the example of its role under another name, in C the template; both are built and checked by our tests.

use anyhow::{Context, Result, bail, ensure};
use limber_core::registry::Role;
use std::fs;
use std::path::{Path, PathBuf};

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// A crate with the SDK.
    Rust,
    /// The header alone.
    C,
}

/// A plugin to begin with.
#[derive(Debug, Clone)]
pub struct Template<'a> {
    /// Name of the folder, of the plugin and of its part's kind.
    pub name: &'a str,
    /// What its part is.
    pub role: Role,
    /// What it is written in.
    pub language: Language,
    /// A checkout of limber whose SDK a crate depends on; None is the published one.
    pub limber: Option<&'a Path>,
}

/// An example that a crate begins as: its kind, its library, its test.
struct Example {
    kind: &'static str,
    library: &'static str,
    test: &'static str,
}

macro_rules! example {
    ($kind:literal) => {
        Example {
            kind: $kind,
            library: include_str!(concat!("../../../plugins/examples/", $kind, "/src/lib.rs")),
            test: include_str!(concat!("../../../plugins/examples/", $kind, "/tests/plugin.rs")),
        }
    };
}

/// A template in C: the part and its test.
macro_rules! template {
    ($role:literal) => {
        (
            include_str!(concat!("../../../plugins/template/c/", $role, ".c")),
            include_str!(concat!("../../../plugins/template/c/", $role, "_test.c")),
        )
    };
}

/// The headers that a plugin in C is built with.
const HEADERS: [(&str, &str); 3] = [
    ("limber_plugin.h", include_str!("../../../plugins/abi/include/limber_plugin.h")),
    ("limber_part.h", include_str!("../../../plugins/abi/include/limber_part.h")),
    ("limber_test.h", include_str!("../../../plugins/abi/include/limber_test.h")),
];

const MAKEFILE: &str = r#"# make: the library; make test: its test; make sanitize: the same under AddressSanitizer.
CC ?= cc
CFLAGS ?= -O2
FLAGS = -std=c99 -Wall -Wextra -I .
CHECKS = -g -fsanitize=address,undefined -fno-sanitize-recover=all

all: NAME.so

NAME.so: part.c limber_plugin.h limber_part.h
	$(CC) $(FLAGS) $(CFLAGS) -shared -fPIC -o $@ part.c -lm

test: NAME.so test.c
	$(CC) $(FLAGS) $(CFLAGS) -o run-test test.c -ldl -lm
	./run-test ./NAME.so

sanitize: part.c test.c
	$(CC) $(FLAGS) $(CFLAGS) $(CHECKS) -shared -fPIC -o checked.so part.c -lm
	$(CC) $(FLAGS) $(CFLAGS) $(CHECKS) -o run-checked test.c -ldl -lm
	./run-checked ./checked.so

clean:
	rm -f NAME.so checked.so run-test run-checked

.PHONY: all test sanitize clean
"#;

impl Template<'_> {
    /// Writes the folder `name` into `into` and gives its path; it appears whole or not at all.
    ///
    /// # Errors
    /// A name that is not in kebab case, a folder that is there already, a checkout that is none, a disk that is full.
    pub fn write(&self, into: &Path) -> Result<PathBuf> {
        let name = self.name;
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.ends_with('-') || !name.chars().all(letters) {
            bail!("the name {name:?} is not allowed: small letters, digits and -, a letter first, as in my-encoder")
        }
        let folder = into.join(name);
        ensure!(fs::symlink_metadata(&folder).is_err(), "{} is there already", folder.display());
        let files = match self.language {
            Language::Rust => self.rust()?,
            Language::C => self.c(),
        };
        let place = || format!("cannot write {}", folder.display());
        let part = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(into).with_context(place)?;
        for (path, text) in files {
            let path = part.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(part.path())).with_context(place)?;
            fs::write(&path, text).with_context(place)?;
        }
        // A temporary folder is its owner's alone; this one becomes an ordinary one.
        #[cfg(unix)]
        fs::set_permissions(part.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).with_context(place)?;
        fs::rename(part.keep(), &folder).with_context(place)?;
        Ok(folder)
    }

    fn c(&self) -> Vec<(&'static str, String)> {
        let (role, (part, test)) = match self.role {
            Role::Encoder => ("my-encoder", template!("encoder")),
            Role::Decoder => ("my-decoder", template!("decoder")),
            Role::Stitch => ("my-stitch", template!("stitch")),
        };
        let mut files = vec![
            ("part.c", part.replace(role, self.name)),
            ("test.c", test.to_string()),
            ("Makefile", MAKEFILE.replace("NAME", self.name)),
            (".gitignore", "*.so\nrun-test\nrun-checked\n".to_string()),
            ("README.md", self.readme("make test", &format!("{}.so", self.name))),
        ];
        files.extend(HEADERS.map(|(name, text)| (name, text.to_string())));
        files
    }

    fn rust(&self) -> Result<Vec<(&'static str, String)>> {
        let example = match self.role {
            Role::Encoder => example!("timm-vit"),
            Role::Decoder => example!("fading"),
            Role::Stitch => example!("resampler"),
        };
        let crate_name = self.name.replace('-', "_");
        let renamed = |text: &str| {
            let own = format!("limber_example_{}", example.kind.replace('-', "_"));
            [("`", "`"), ("\"", "\""), ("\"", ": ")].iter().fold(text.replace(&own, &crate_name), |text, (a, b)| {
                text.replace(&format!("{a}{}{b}", example.kind), &format!("{a}{}{b}", self.name))
            })
        };
        let library = format!("{}{crate_name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        Ok(vec![
            ("Cargo.toml", self.manifest()?),
            ("src/lib.rs", renamed(example.library)),
            ("tests/plugin.rs", renamed(example.test)),
            (".gitignore", "/target\n".to_string()),
            ("README.md", self.readme("cargo test --release", &format!("target/release/{library}"))),
        ])
    }

    fn manifest(&self) -> Result<String> {
        let checkout = match self.limber {
            Some(path) => {
                let full = path.canonicalize().with_context(|| format!("--limber {}", path.display()))?;
                let sdk = full.join("plugins/sdk/Cargo.toml");
                ensure!(sdk.is_file(), "--limber {}: there is no plugins/sdk/Cargo.toml", path.display());
                Some(full)
            }
            None => None,
        };
        let ours = |name: &str, folder: &str| {
            let version = env!("CARGO_PKG_VERSION");
            match &checkout {
                Some(root) => format!("{name} = {{ path = {:?} }}\n", root.join(folder)),
                None => format!("{name} = \"{version}\"\n"),
            }
        };
        Ok(format!(
            "# A workspace of its own, wherever the folder lies.\n[workspace]\n\n\
             [package]\nname = {:?}\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             # `cdylib` is what makes it a plugin, `rlib` lets its own test link the same part.\n\
             [lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n\n\
             [dependencies]\n{}anyhow = \"1\"\ncandle-core = \"0.11.1\"\n\
             schemars = {{ version = \"1.2\", features = [\"preserve_order\"] }}\n\
             serde = {{ version = \"1\", features = [\"derive\"] }}\n\n\
             [dev-dependencies]\n{}{}",
            self.name,
            ours("limber-sdk", "plugins/sdk"),
            ours("limber-kit", "tests/kit"),
            ours("limber-plugin-host", "plugins/host"),
        ))
    }

    fn readme(&self, test: &str, library: &str) -> String {
        let name = self.name;
        format!(
            "# {name}\n\nA plugin for limber.\n\n```sh\n{test}\nlimber plugin check {library}\n```\n\n\
             A config uses it with `plugins: [{library}]` and `kind: {name}`.\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_is_refused_and_leaves_nothing() {
        let into = tempfile::tempdir().unwrap();
        fs::create_dir(into.path().join("there")).unwrap();
        let message = |name: &str, limber: Option<&Path>| {
            let template = Template { name, role: Role::Encoder, language: Language::Rust, limber };
            format!("{:#}", template.write(into.path()).unwrap_err())
        };
        for name in ["", "My", "1st", "a b", "a/b", "..", "end-"] {
            assert!(message(name, None).contains(&format!("the name {name:?} is not allowed")), "{name}");
        }
        assert!(message("there", None).contains("there is there already"));
        assert!(message("a", Some(into.path())).contains("there is no plugins/sdk/Cargo.toml"));
        assert!(message("a", Some(Path::new("/no/such"))).contains("--limber /no/such"));
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), 1);
    }
}
