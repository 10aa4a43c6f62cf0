//! The config files of this folder as texts, so that a program holds them without the folder.

/// The demo model's config: components without weights are the embedded demo's.
pub const DEMO: &str = include_str!("../demo.yaml");

macro_rules! configs {
    ($demo:literal, published: [$($published:literal),+ $(,)?], ours: [$($ours:literal),+ $(,)?]) => {
        /// The configs of the paper, whose checkpoints are found by their names.
        pub const PUBLISHED: &[&str] = &[$($published),+];

        /// The configs that go by a name alone: name and text. None of them extends another, and their relative paths
        /// mean something in any folder.
        pub const NAMED: &[(&str, &str)] = configs!($demo, $($published,)+ $($ours),+);
    };
    ($($name:literal),+) => { &[$(($name, include_str!(concat!("../", $name, ".yaml")))),+] };
}

configs! {
    "demo",
    published: [
        "clip_linear",
        "beit_linear",
        "beit_ft_linear",
        "beit_random_linear",
        "nfrn50_4096_linear",
        "nfrn50_4096_random_linear",
    ],
    ours: ["emoji", "combine/clip_vit_opt", "combine/dinov2_pythia", "combine/siglip_qwen"]
}

/// The text of the config `name`; a folder in front and the ending `.yaml` may be left out.
pub fn named(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix(".yaml").unwrap_or(name);
    let is = |known: &str| known == name || known.rsplit_once('/').is_some_and(|(_, last)| last == name);
    NAMED.iter().find(|(known, _)| is(known)).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_go_by_their_names() {
        assert_eq!(named("demo"), Some(DEMO));
        for name in ["combine/siglip_qwen", "siglip_qwen", "siglip_qwen.yaml"] {
            assert!(named(name).is_some_and(|text| text.contains("siglip")), "{name}");
        }
        for name in ["", "linear", "configs/clip_linear", "clip_linear.yml", "demo_train"] {
            assert_eq!(named(name), None, "{name}");
        }
        assert!(NAMED.iter().all(|(_, text)| !text.contains("\nextends:")));
    }
}
