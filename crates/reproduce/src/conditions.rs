//! What is compared: an encoder for each of the paper's configs, the random twin of each, and no image at all.

/// One encoder, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Its name in folders.
    pub name: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// What the encoder was trained on.
    pub saw: &'static str,
    /// Its config in `configs/world`.
    pub config: &'static str,
    /// Whether it was trained at all.
    pub trained: bool,
    /// The name of the same encoder with random weights.
    pub twin: Option<&'static str>,
}

impl Condition {
    /// Whether it reads images.
    pub fn sees(&self) -> bool {
        self.name != BLIND
    }
}

/// The condition without images: a prefix is trained all the same, the same for every scene.
pub const BLIND: &str = "blind";

/// All conditions, in the order of tables.
pub const CONDITIONS: [Condition; 8] = [
    Condition {
        name: "clip",
        title: "CLIP ResNet",
        saw: "images with captions",
        config: "clip_linear.yaml",
        trained: true,
        twin: Some("clip_random"),
    },
    Condition {
        name: "nfrn50",
        title: "NF-ResNet",
        saw: "class labels",
        config: "nfrn50_linear.yaml",
        trained: true,
        twin: Some("nfrn50_random"),
    },
    Condition {
        name: "beit",
        title: "BEiT",
        saw: "masked patches",
        config: "beit_linear.yaml",
        trained: true,
        twin: Some("beit_random"),
    },
    Condition {
        name: "beit_ft",
        title: "BEiT, fine-tuned",
        saw: "masked patches, then class labels",
        config: "beit_ft_linear.yaml",
        trained: true,
        twin: Some("beit_random"),
    },
    Condition {
        name: "clip_random",
        title: "CLIP ResNet, random",
        saw: "nothing",
        config: "clip_random_linear.yaml",
        trained: false,
        twin: None,
    },
    Condition {
        name: "nfrn50_random",
        title: "NF-ResNet, random",
        saw: "nothing",
        config: "nfrn50_random_linear.yaml",
        trained: false,
        twin: None,
    },
    Condition {
        name: "beit_random",
        title: "BEiT, random",
        saw: "nothing",
        config: "beit_random_linear.yaml",
        trained: false,
        twin: None,
    },
    Condition { name: BLIND, title: "no image", saw: "-", config: "clip_linear.yaml", trained: false, twin: None },
];

/// The condition of a name.
pub fn named(name: &str) -> Option<&'static Condition> {
    CONDITIONS.iter().find(|condition| condition.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trained_encoder_has_an_untrained_twin() {
        for condition in &CONDITIONS {
            let twin = condition.twin.and_then(named);
            assert_eq!(condition.trained, twin.is_some_and(|twin| !twin.trained && twin.sees()), "{}", condition.name);
        }
        assert!(named(BLIND).is_some_and(|blind| !blind.sees() && !blind.trained));
    }
}
