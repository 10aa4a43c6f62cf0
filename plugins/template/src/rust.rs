//! A plugin in Rust: the example of its role under another name, with a manifest of its own.

use crate::{File, Limber, readme};
use anyhow::{Result, ensure};
use limber_core::registry::Role;

/// The example of a role: its kind, its library, its test.
macro_rules! example {
    ($kind:literal, $role:literal) => {
        ($kind, include_str!(concat!("../rust/", $role, ".rs")), include_str!(concat!("../rust/", $role, "_test.rs")))
    };
}

pub(crate) fn files(name: &str, role: Role, limber: &Limber) -> Result<Vec<File>> {
    let (kind, library, test) = match role {
        Role::Encoder => example!("timm-vit", "encoder"),
        Role::Decoder => example!("fading", "decoder"),
        Role::Stitch => example!("resampler", "stitch"),
    };
    ensure!(
        library.contains("export_plugin!") && test.contains("plugin_conforms!"),
        "this limber was built from a checkout without symbolic links (git config core.symlinks true)"
    );
    let crate_name = name.replace('-', "_");
    let renamed = |text: &str| {
        let own = format!("limber_example_{}", kind.replace('-', "_"));
        [("`", "`"), ("\"", "\""), ("\"", ": ")].iter().fold(text.replace(&own, &crate_name), |text, (a, b)| {
            text.replace(&format!("{a}{kind}{b}"), &format!("{a}{name}{b}"))
        })
    };
    let built = format!("{}{crate_name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    Ok(vec![
        ("Cargo.toml", manifest(name, limber)?),
        ("src/lib.rs", renamed(library)),
        ("tests/plugin.rs", renamed(test)),
        (".gitignore", "/target\n".to_string()),
        readme(name, "cargo test --release", &format!("target/release/{built}")),
    ])
}

fn manifest(name: &str, limber: &Limber) -> Result<String> {
    Ok(format!(
        "# A workspace of its own, wherever the folder lies.\n[workspace]\n\n\
         [package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         # `cdylib` is what makes it a plugin, `rlib` lets its own test link the same component.\n\
         [lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n\n\
         [dependencies]\nlimber-sdk = {}\nanyhow = \"1\"\ncandle-core = \"0.11.1\"\n\
         schemars = {{ version = \"1.2\", features = [\"preserve_order\"] }}\n\
         serde = {{ version = \"1\", features = [\"derive\"] }}\n\n\
         [dev-dependencies]\nlimber-kit = {}\nlimber-plugin-host = {}\n",
        limber.dependency("plugins/sdk")?,
        limber.dependency("tests/kit")?,
        limber.dependency("plugins/host")?,
    ))
}
