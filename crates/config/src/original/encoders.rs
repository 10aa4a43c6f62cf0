//! The encoders that the original accepts, and what stands for them here.

/// An encoder that the original accepts.
pub struct Known {
    /// `encoder_name`.
    pub name: &'static str,
    /// The kind here.
    pub kind: &'static str,
    /// The preset here.
    pub model: &'static str,
    /// Where its weights lie.
    pub weights: &'static str,
    /// Side S of the image where the encoder decides it.
    pub side: Option<u64>,
    /// Visual tokens N of a patch encoder, none for a pooled one.
    pub tokens: Option<u64>,
}

#[rustfmt::skip]
pub const ENCODERS: [Known; 8] = [
    Known { name: "clip", kind: "clip-vit", model: "ViT-B/32", weights: "hf:openai/clip-vit-base-patch32", side: Some(224), tokens: None },
    Known { name: "clip_resnet", kind: "clip-resnet", model: "RN50x4", weights: "hf:timm/resnet50x4_clip.openai", side: Some(288), tokens: Some(81) },
    Known { name: "clip_resnet_large", kind: "clip-resnet", model: "RN50x16", weights: "hf:timm/resnet50x16_clip.openai", side: Some(384), tokens: Some(144) },
    Known { name: "nfresnet50", kind: "nf-resnet", model: "nf_resnet50", weights: "hf:timm/nf_resnet50.ra2_in1k", side: None, tokens: None },
    Known { name: "microsoft/beit-large-patch16-224-pt22k", kind: "beit", model: "beit-large-patch16-224-pt22k", weights: "hf:microsoft/beit-large-patch16-224-pt22k", side: Some(224), tokens: Some(196) },
    Known { name: "microsoft/beit-large-patch16-224-pt22k-ft22k", kind: "beit", model: "beit-large-patch16-224-pt22k-ft22k", weights: "hf:microsoft/beit-large-patch16-224-pt22k-ft22k", side: Some(224), tokens: Some(196) },
    Known { name: "clr_identity", kind: "features", model: "", weights: "", side: None, tokens: Some(144) },
    Known { name: "nfresnet50_identity", kind: "features", model: "", weights: "", side: None, tokens: Some(2) },
];
