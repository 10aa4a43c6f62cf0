//! CLIP's vision transformer against open_clip and transformers: `tests/golden/clip_vit`, every form a checkpoint comes
//! in, and what must be refused.

use super::golden::{drawings, encoder, folder, lists, relative, source, tensors};
use candle_core::Device;
use limber::core::weights::{FrozenData, Request, WeightError};
use limber::core::{FeatureKind, Registry, ResizeFilter, ResizeRule, WeightSource, WeightType, Weights};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// Three blocks of width 16 in f32, summed in another order; a GELU of the wrong kind is 1e-4 away or more.
const CLOSE: f32 = 1e-5;

/// A copy of a golden folder in which one JSON file is changed.
fn edited(case: &str, file: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder("clip_vit").join(case)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join(file);
    let mut tree = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut tree);
    std::fs::write(path, tree.to_string()).unwrap();
    copy
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The settings that `settings` resolve to over `source`, or the message.
fn resolved(registry: &Registry, source: &dyn WeightSource, settings: Value) -> Result<Value, String> {
    registry.encoder("clip-vit", settings, source).map(|p| p.settings).map_err(|e| format!("{e:#}"))
}

#[test]
fn every_form_gives_the_references_features() {
    let expected = tensors("clip_vit");
    let check = |form: &str, settings: Value, name: &str| {
        let tower = encoder("clip-vit", &format!("clip_vit/{form}"), settings.clone());
        let pooled = name.ends_with("pooled");
        let image = &expected[if name.starts_with("openai") { "openai.image" } else { "image" }];
        let spec = tower.feature_spec();
        assert_eq!(spec.kind, if pooled { FeatureKind::Pooled } else { FeatureKind::Patches });
        let features = tower.encode(image).unwrap();
        assert_eq!(features.dims(), [2, spec.tokens, spec.width]);
        let far = relative(&features, &expected[name]);
        assert!(far < CLOSE, "{form} {settings}: {far}");
    };
    for (form, name, layers) in [
        ("open_clip", "open_clip", 3),
        ("open_clip/open_clip_model.safetensors", "open_clip", 3),
        ("variant", "variant", 2),
        ("openai.pt", "openai", 2),
        ("torchscript.pt", "openai", 2),
        ("hugging_face", "hugging_face", 3),
        ("tower", "tower", 2),
        ("bare_tower", "tower", 2),
    ] {
        check(form, json!({}), &format!("{name}.hidden.{}", layers - 1));
        for state in 0..=layers {
            check(form, json!({"layer": state}), &format!("{name}.hidden.{state}"));
            check(form, json!({"layer": state - layers - 1}), &format!("{name}.hidden.{state}"));
        }
        check(form, json!({"layer": -1, "post_norm": true}), &format!("{name}.normed"));
        if form != "bare_tower" {
            check(form, json!({"pool": true}), &format!("{name}.pooled"));
        }
    }
    // The tower alone, with nothing beside it that tells heads and activation.
    check("visual.pt", json!({"image_size": 18, "heads": 4, "activation": "gelu"}), "open_clip.hidden.2");
    check("visual.pt", json!({"image_size": 18, "heads": 4, "activation": "quick_gelu", "pool": true}), "quick.pooled");
}

#[test]
fn other_types_of_weights_stay_near() {
    let registry = limber::built_in::registry().unwrap();
    let expected = tensors("clip_vit");
    // Rounding of one tensor: 2^-9 in bf16, 1/254 of the largest of a block in q8_0; two blocks add up to a few of them.
    for (dtype, near) in [(WeightType::Bf16, 0.02), (WeightType::Q8_0, 0.05)] {
        for (settings, name) in [(json!({"layer": -1}), "hidden.2"), (json!({"pool": true}), "pooled")] {
            let source = source(&registry, "encoder", "clip-vit", "clip_vit/openai.pt");
            let prepared = registry.encoder("clip-vit", settings, source.as_ref()).unwrap();
            let tower = prepared.build(&Weights::new(source, Device::Cpu, Some(dtype))).unwrap();
            let far = relative(&tower.encode(&expected["openai.image"]).unwrap(), &expected[&format!("openai.{name}")]);
            assert!(far > CLOSE && far < near, "{dtype} {name}: {far}");
        }
    }
}

#[test]
fn the_config_beside_the_weights_counts() {
    let expected = tensors("clip_vit");
    let check = |change: fn(&mut Value), name: &str| {
        let copy = edited("open_clip", "open_clip_config.json", change);
        for (settings, kept) in [(json!({}), "hidden.2"), (json!({"pool": true}), "pooled")] {
            let features = encoder("clip-vit", text(copy.path()), settings).encode(&expected["image"]).unwrap();
            let far = relative(&features, &expected[&format!("{name}.{kept}")]);
            assert!(far < CLOSE, "{name} {kept}: {far}");
        }
    };
    check(|c| c["model_cfg"]["quick_gelu"] = true.into(), "quick");
    check(|c| c["model_cfg"]["vision_cfg"]["act_kwargs"] = json!({"approximate": "tanh"}), "tanh");
    check(|c| c["model_cfg"]["vision_cfg"]["norm_kwargs"] = json!({"eps": 0.1}), "epsilon");
    // The settings' word lies above the file's.
    let tower = encoder("clip-vit", "clip_vit/open_clip", json!({"activation": "quick_gelu"}));
    assert!(relative(&tower.encode(&expected["image"]).unwrap(), &expected["quick.hidden.2"]) < CLOSE);
}

#[test]
fn the_image_is_prepared_as_the_library_says() {
    let image = |form: &str, settings: Value| encoder("clip-vit", form, settings).input_spec().image().unwrap();
    let open_clip = image("clip_vit/open_clip", json!({}));
    assert_eq!((open_clip.side, open_clip.resize, open_clip.filter), (18, ResizeRule::Squash, ResizeFilter::Bilinear));
    assert_eq!((open_clip.mean, open_clip.std), ([0.5, 0.4, 0.3], [0.3, 0.25, 0.2]));
    let hugging_face = image("clip_vit/hugging_face", json!({"std": [0.5, 0.5, 0.5]}));
    assert_eq!((hugging_face.resize, hugging_face.filter), (ResizeRule::ShorterSideCropFloor, ResizeFilter::Bicubic));
    assert_eq!((hugging_face.mean, hugging_face.std), ([0.5, 0.4, 0.3], [0.5; 3]));
    let larger = edited("hugging_face", "preprocessor_config.json", |c| c["size"] = json!({"shortest_edge": 21}));
    assert_eq!(image(text(larger.path()), json!({})).resized(), 21);
    let openai = image("clip_vit/openai.pt", json!({}));
    assert_eq!(openai, limber::core::ImageSpec::clip(24));
    // Two of 18 pixels a side are never seen, so one more or less changes nothing that was trained.
    assert_eq!(image("clip_vit/visual.pt", json!({"heads": 4, "activation": "gelu"})).side, 16);
    assert_eq!(image("clip_vit/open_clip", json!({"image_size": 19})).side, 19);
}

#[test]
fn presets_have_the_sizes_of_their_libraries() {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "encoder", "clip-vit", "random:1");
    let check = |model: &str, side: usize, tokens: usize, width: usize, pooled: usize, activation: &str| {
        for (pool, expected) in [(false, (tokens, width)), (true, (1, pooled))] {
            let settings = json!({"model": model, "pool": pool});
            let prepared = registry.encoder("clip-vit", settings, source.as_ref()).unwrap();
            assert_eq!((prepared.spec.features.tokens, prepared.spec.features.width), expected, "{model}");
            assert_eq!(prepared.spec.input.image().unwrap().side, side);
            assert_eq!(prepared.settings["activation"], activation, "{model}");
        }
    };
    check("ViT-B/32", 224, 49, 768, 512, "quick_gelu");
    check("vit-b/16", 224, 196, 768, 512, "quick_gelu");
    check("ViT-L/14", 224, 256, 1024, 768, "quick_gelu");
    check("ViT-L/14@336px", 336, 576, 1024, 768, "quick_gelu");
    check("ViT-B-32", 224, 49, 768, 512, "gelu");
    check("ViT-L-14-336-quickgelu", 336, 576, 1024, 768, "quick_gelu");
    check("ViT-H-14", 224, 256, 1280, 1024, "gelu");
    check("ViT-g-14", 224, 256, 1408, 1024, "gelu");
    check("ViT-bigG-14-quickgelu", 224, 256, 1664, 1280, "quick_gelu");
}

/// Shapes and documents without values: real models' descriptions, checked without their weights.
#[derive(Default)]
struct Paper {
    tensors: BTreeMap<String, Vec<usize>>,
    documents: Vec<(&'static str, Value)>,
}

impl WeightSource for Paper {
    fn label(&self) -> String {
        "paper".into()
    }
    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        Some(self.tensors.clone())
    }
    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        Err(WeightError::Read { source_label: self.label(), message: format!("no values of {}", request.name) })
    }
    fn document(&self, name: &str) -> Result<Option<String>, WeightError> {
        Ok(self.documents.iter().find(|(n, _)| *n == name).map(|(_, tree)| tree.to_string()))
    }
}

impl Paper {
    fn new(tensors: &[(&str, &[usize])]) -> Self {
        let tensors = tensors.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
        Self { tensors, documents: Vec::new() }
    }

    /// A tower of width E, patches of side P, a grid of G x G and L blocks under OpenAI's names.
    fn openai(e: usize, p: usize, g: usize, l: usize) -> Self {
        let names = ["class_embedding", "conv1.weight", "positional_embedding", "ln_pre.weight"];
        let fc1 = |i| format!("transformer.resblocks.{i}.mlp.c_fc.weight");
        Self::tower("visual", names, fc1, ("visual.proj", [e, 512]), [e, p, g, l])
    }

    /// The same under Hugging Face's names.
    fn hugging_face(e: usize, p: usize, g: usize, l: usize) -> Self {
        let names = [
            "embeddings.class_embedding",
            "embeddings.patch_embedding.weight",
            "embeddings.position_embedding.weight",
            "pre_layrnorm.weight",
        ];
        let fc1 = |i| format!("encoder.layers.{i}.mlp.fc1.weight");
        Self::tower("vision_model", names, fc1, ("visual_projection.weight", [512, e]), [e, p, g, l])
    }

    /// A tower of these sizes; `names` are those of the class token, the patches, the positions and the first norm.
    fn tower(
        prefix: &str,
        names: [&str; 4],
        fc1: impl Fn(usize) -> String,
        (projection, shape): (&str, [usize; 2]),
        [e, p, g, l]: [usize; 4],
    ) -> Self {
        let [class, patches, positions, norm] = names.map(|name| format!("{prefix}.{name}"));
        let mut paper = Self::new(&[
            (&class, &[e]),
            (&patches, &[e, 3, p, p]),
            (&positions, &[g * g + 1, e]),
            (&norm, &[e]),
            (projection, &shape),
        ]);
        for i in 0..l {
            paper.tensors.insert(format!("{prefix}.{}", fc1(i)), vec![4 * e, e]);
        }
        paper
    }

    fn archive(mut self) -> Self {
        for name in ["input_resolution", "context_length", "vocab_size"] {
            self.tensors.insert(name.into(), vec![]);
        }
        self
    }

    fn with(mut self, name: &'static str, document: Value) -> Self {
        self.documents.push((name, document));
        self
    }
}

#[test]
fn real_descriptions_resolve() {
    let registry = limber::built_in::registry().unwrap();
    let check = |paper: Paper, settings: Value, expected: Value| {
        let found = resolved(&registry, &paper, settings).unwrap();
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&found[key], value, "{key} of {found}");
        }
        assert!(registry.detect("encoder", &paper).is_ok_and(|entry| entry.kind == "clip-vit"));
    };
    // OpenAI's own archive tells all; so does the preset's name.
    let b32 = json!({"image_size": 224, "width": 768, "layers": 12, "heads": 12, "mlp_width": 3072, "activation": "quick_gelu"});
    check(Paper::openai(768, 32, 7, 12).archive(), json!({}), b32.clone());
    check(Paper::openai(768, 32, 7, 12), json!({"model": "ViT-B/32"}), b32.clone());
    // openai/clip-vit-base-patch32: sections twice, a processor file of an old version.
    let section = json!({"hidden_size": 768, "patch_size": 32, "image_size": 224, "hidden_act": "quick_gelu", "num_hidden_layers": 12,
                         "num_attention_heads": 12, "intermediate_size": 3072, "model_type": "clip_vision_model", "projection_dim": 512});
    let processor = json!({"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true, "size": 224,
                           "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3,
                           "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]});
    let old =
        json!({"model_type": "clip", "vision_config": section, "vision_config_dict": null, "projection_dim": 512});
    let base = || Paper::hugging_face(768, 32, 7, 12).with("preprocessor_config.json", processor.clone());
    check(base().with("config.json", old), json!({"model": "ViT-B/32", "pool": true}), b32.clone());
    // A section that says nothing has transformers' defaults.
    check(base().with("config.json", json!({"model_type": "clip"})), json!({}), b32);
    // laion's H/14: the second section counts, its heads are 80 wide.
    let h14 = json!({"hidden_size": 1280, "patch_size": 14, "hidden_act": "gelu", "num_hidden_layers": 32,
                     "num_attention_heads": 16, "intermediate_size": 5120});
    let twice = json!({"model_type": "clip", "vision_config": {"hidden_act": "quick_gelu"}, "vision_config_dict": h14});
    check(
        Paper::hugging_face(1280, 14, 16, 32).with("config.json", twice),
        json!({}),
        json!({"heads": 16, "activation": "gelu", "layer": 31}),
    );
    let vision = json!({"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14});
    let text = json!({"context_length": 77, "width": 1024});
    let config = json!({"model_cfg": {"embed_dim": 1024, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {"mean": 0.5, "std": 0.25}});
    check(
        Paper::openai(1280, 14, 16, 32).with("open_clip_config.json", config),
        json!({}),
        json!({"heads": 16, "activation": "gelu", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}),
    );
    // CoCa's pooling is none of patch tokens' business.
    let coca = json!({"model_cfg": {"vision_cfg": {"layers": 12, "width": 768, "patch_size": 32, "attentional_pool": true}, "multimodal_cfg": {}}});
    check(Paper::openai(768, 32, 7, 12).with("open_clip_config.json", coca), json!({}), json!({"activation": "gelu"}));
}

#[test]
fn the_activation_is_never_guessed() {
    let registry = limber::built_in::registry().unwrap();
    let check = |paper: Paper, settings: Value, expected: &str| {
        let message = resolved(&registry, &paper, settings).unwrap_err();
        assert!(message.contains(expected), "{message}");
    };
    let unknown = "paper: nothing tells which activation this clip-vit was trained with; set activation (quick_gelu for the weights of OpenAI, MetaCLIP and DFN, gelu for most of open_clip's) or model";
    check(Paper::openai(768, 32, 7, 12), json!({}), unknown);
    check(Paper::hugging_face(768, 32, 7, 12), json!({}), unknown);
    check(
        Paper::openai(768, 32, 7, 12).archive(),
        json!({"model": "ViT-B-32"}),
        "the activation is gelu by model \"ViT-B-32\", quick_gelu by paper; set activation to the one these weights were trained with",
    );
    let gelu = || {
        let config = json!({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}});
        Paper::hugging_face(768, 32, 7, 12).with("config.json", config)
    };
    check(
        gelu(),
        json!({"model": "ViT-B/32"}),
        "the activation is quick_gelu by model \"ViT-B/32\", gelu by the config.json beside it; set activation",
    );
    let settings = json!({"model": "ViT-B/32", "activation": "gelu"});
    assert_eq!(resolved(&registry, &gelu(), settings).unwrap()["activation"], "gelu");
    check(
        Paper::openai(768, 32, 7, 12)
            .archive()
            .with("open_clip_config.json", json!({"model_cfg": {"vision_cfg": {"patch_size": 32}}})),
        json!({}),
        "the activation is quick_gelu by paper, gelu by the open_clip_config.json beside it",
    );
    // Wide towers have wide heads, which no shape tells.
    check(
        Paper::openai(1280, 14, 16, 32),
        json!({"activation": "gelu"}),
        "paper does not tell the heads of a tower of width 1280; set heads or model",
    );
    let h14 =
        resolved(&registry, &Paper::openai(1280, 14, 16, 32), json!({"activation": "gelu", "heads": 16})).unwrap();
    assert_eq!(h14["heads"], 16);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let registry = limber::built_in::registry().unwrap();
    let open_clip = |key: &str, value: Value, settings: Value, expected: &str| {
        let copy = edited("open_clip", "open_clip_config.json", |c| c["model_cfg"]["vision_cfg"][key] = value);
        let source = source(&registry, "encoder", "clip-vit", text(copy.path()));
        let message = resolved(&registry, source.as_ref(), settings).unwrap_err();
        assert!(
            message.contains("open_clip_config.json, model_cfg, vision_cfg") && message.contains(expected),
            "{message}"
        );
    };
    let not = |what: &str| format!("{what}, which clip-vit does not support");
    open_clip("timm_model_name", json!("vit_base"), json!({}), &not("timm_model_name is \"vit_base\""));
    open_clip("qk_norm", json!(true), json!({}), &not("qk_norm is true"));
    open_clip("scale_fc", json!(true), json!({}), &not("scale_fc is true"));
    open_clip("block_type", json!("custom"), json!({}), "block_type is \"custom\", supported is \"default\"");
    open_clip("rope", json!(false), json!({}), "rope is false, a key that clip-vit does not know");
    open_clip(
        "layers",
        json!([3, 4, 6, 3]),
        json!({}),
        "layers is [3,4,6,3], a list is a ResNet's, see kind clip-resnet",
    );
    open_clip(
        "act_kwargs",
        json!({"approximate": "x"}),
        json!({}),
        "act_kwargs is {\"approximate\":\"x\"}, supported is",
    );
    open_clip("act_kwargs", json!({"slope": 1}), json!({}), "act_kwargs is {\"slope\":1}, supported is");
    open_clip(
        "norm_kwargs",
        json!({"bias": false}),
        json!({}),
        "norm_kwargs: bias is false, a key that clip-vit does not know",
    );
    open_clip("head_width", json!(5), json!({}), "head_width is 5, it must divide the width 16");
    open_clip("image_size", json!([18, 18]), json!({}), "image_size is [18,18], expected a whole number");
    let pooled = json!({"pool": true});
    open_clip(
        "attentional_pool",
        json!(true),
        pooled.clone(),
        "attentional_pool is true, which clip-vit with pool or post_norm does not support",
    );
    open_clip(
        "attentional_pool",
        json!("parallel"),
        json!({"post_norm": true}),
        "attentional_pool is \"parallel\", which",
    );
    open_clip("pool_type", json!("avg"), pooled.clone(), "pool_type is \"avg\", supported is \"tok\"");
    open_clip(
        "global_average_pool",
        json!(true),
        pooled,
        "global_average_pool is true, which clip-vit with pool does not support",
    );

    let file = |case: &str, file: &str, change: &dyn Fn(&mut Value), expected: &str| {
        let copy = edited(case, file, change);
        let source = source(&registry, "encoder", "clip-vit", text(copy.path()));
        let message = resolved(&registry, source.as_ref(), json!({})).unwrap_err();
        assert!(message.contains(expected), "{message}");
    };
    let open_clip_file = "open_clip_config.json";
    file(
        "open_clip",
        open_clip_file,
        &|c| c["preprocess_cfg"]["resize_mode"] = "longest".into(),
        "preprocess_cfg: resize_mode is \"longest\", supported is \"shortest\", \"squash\"",
    );
    file(
        "open_clip",
        open_clip_file,
        &|c| c["preprocess_cfg"]["mean"] = json!([0.5]),
        "mean is [0.5], expected one number a channel",
    );
    file(
        "open_clip",
        open_clip_file,
        &|c| c["model_cfg"] = Value::Null,
        "open_clip_config.json: model_cfg is null, it says what the model is",
    );
    file(
        "open_clip",
        open_clip_file,
        &|c| c["model_cfg"]["vision_cfg"]["layers"] = 4.into(),
        "clip-vit: layers is 3 by the settings, 4 by the open_clip_config.json beside it",
    );
    file(
        "hugging_face",
        "config.json",
        &|c| c["model_type"] = "siglip".into(),
        "config.json: model_type is \"siglip\", clip-vit takes \"clip\", \"clip_vision_model\"",
    );
    file(
        "hugging_face",
        "config.json",
        &|c| c["quantization_config"] = json!({"bits": 4}),
        "quantization_config is {\"bits\":4}, which clip-vit does not support",
    );
    file(
        "hugging_face",
        "config.json",
        &|c| c["vision_config"]["hidden_act"] = "mish".into(),
        "vision_config: hidden_act is \"mish\", supported is gelu, ",
    );
    file(
        "hugging_face",
        "config.json",
        &|c| c["vision_config"]["num_channels"] = 4.into(),
        "num_channels is 4, supported is 3",
    );
    file("tower", "config.json", &|c| c["model_type"] = "clip_text_model".into(), "model_type is \"clip_text_model\"");
    file(
        "hugging_face",
        "preprocessor_config.json",
        &|c| c["size"] = json!(17),
        "crop_size is {\"height\":18,\"width\":18}, supported is at most the size, 17",
    );
    file(
        "hugging_face",
        "preprocessor_config.json",
        &|c| {
            c["size"] = json!(20);
            c["crop_size"] = json!(20);
        },
        "image_size is 18, preprocessor_config.json makes images of side 20",
    );

    let tensors = |names: &[&str], expected: &str| {
        let paper = Paper::new(&names.iter().map(|name| (*name, [4].as_slice())).collect::<Vec<_>>());
        let message = resolved(&registry, &paper, json!({})).unwrap_err();
        assert!(
            message.starts_with("paper: the tensors are no vision transformer of CLIP: ") && message.contains(expected),
            "{message}"
        );
        assert!(registry.detect("encoder", &paper).is_err() || names[0].contains("conv3"));
    };
    tensors(&["visual.conv3.weight", "visual.layer4.0.conv1.weight"], "they are a ResNet's, see kind clip-resnet");
    tensors(&["visual.trunk.blocks.0.norm1.weight"], "they have timm's names");
    tensors(&["vision_model.embeddings.patch_embedding.weight"], "they have no class token, as SigLIP's");
    tensors(
        &["text_projection"],
        "looked for visual.class_embedding (OpenAI, open_clip) and vision_model.embeddings.class_embedding",
    );
    let mut odd = Paper::openai(768, 32, 7, 12);
    odd.tensors.insert("visual.positional_embedding".into(), vec![51, 768]);
    let message = resolved(&registry, &odd, json!({"model": "ViT-B/32"})).unwrap_err();
    assert_eq!(
        message,
        "paper: tensor \"visual.positional_embedding\" has shape [51, 768], clip-vit takes one position a patch of a square and one more"
    );
}

#[test]
fn settings_that_cannot_be() {
    let registry = limber::built_in::registry().unwrap();
    let check = |weights: &str, settings: Value, expected: &str| {
        let source = source(&registry, "encoder", "clip-vit", weights);
        let message = resolved(&registry, source.as_ref(), settings).unwrap_err();
        assert!(message.contains(expected), "{message}");
    };
    let sizes = |key: &str, value: Value| {
        let mut settings = json!({"model": "ViT-B/32"});
        settings[key] = value;
        settings
    };
    let random = "random:1";
    check(
        random,
        json!({"model": "ViT-B/8"}),
        "unknown clip-vit model \"ViT-B/8\"; known models: ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px, ViT-B-32, ",
    );
    check(random, json!({"model": "ViT-B/32-quickgelu"}), "unknown clip-vit model");
    check(
        random,
        json!({"activation": "gelu"}),
        "no model is set and the sizes cannot be read off random:1; set model (",
    );
    check(
        random,
        json!({"activation": "gelu", "patch_size": 8, "width": 64, "layers": 2}),
        "image_size is not set and cannot be read off random:1",
    );
    check(
        random,
        json!({"image_size": 32, "patch_size": 8, "width": 64, "layers": 2}),
        "nothing tells which activation",
    );
    check(random, sizes("activation", json!("mish")), "\"activation\"");
    check(random, sizes("depth", json!(3)), "key \"depth\": unknown key");
    check(random, sizes("heads", json!(5)), "5 heads do not divide the width 768");
    check(
        random,
        sizes("heads", json!(0)),
        "key \"heads\": value 0 is not allowed, expected a whole number, at least 1",
    );
    check(random, sizes("patch_size", json!(0)), "key \"patch_size\": value 0 is not allowed");
    check(random, sizes("patch_size", json!(225)), "patch_size 225 is not allowed, the image has 224 pixels a side");
    check(
        random,
        sizes("resize_to", json!(223)),
        "resize_to 223 is not allowed, the square that is cut out has 224 pixels a side",
    );
    check(random, sizes("epsilon", json!(0.0)), "epsilon 0 is not allowed, it must be a number above 0");
    check(random, sizes("std", json!([0.5, 0.0, 0.5])), "std 0 is not allowed");
    check(random, sizes("initializer_factor", json!(-1.0)), "initializer_factor -1 is not allowed");
    check(random, sizes("layer", json!(13)), "layer 13 is not allowed, a tower of 12 blocks has 0 to 12, or -1 to -13");
    check(random, sizes("layer", json!(-14)), "layer -14 is not allowed");
    check(
        random,
        json!({"model": "ViT-B/32", "pool": true, "layer": -2}),
        "layer -2 is not allowed with pool, which takes the last",
    );
    check(random, json!({"model": "ViT-B/32", "pool": true, "post_norm": true}), "post_norm is not allowed with pool");
    let golden = |form: &str, settings: Value, expected: &str| check(&format!("clip_vit/{form}"), settings, expected);
    golden("bare_tower", json!({"pool": true}), "pool needs a projection, and ");
    golden("open_clip", json!({"image_size": 20}), "image_size 20 gives 5 x 5 patches, the positions in ");
    golden(
        "open_clip",
        json!({"image_size": 20}),
        "are for 4 x 4; they are not interpolated, expected image_size 16 to 19",
    );
    golden("open_clip", json!({"layers": 2}), "layers is 2 by the settings, 3 by ");
    golden("open_clip", json!({"model": "ViT-B/32"}), "patch_size is 32 by the settings, 4 by ");
    golden("hugging_face", json!({"heads": 2}), "heads is 2 by the settings, 4 by the config.json beside it");
}

#[test]
fn other_models_with_such_a_tower_are_not_taken_for_it() {
    let registry = limber::built_in::registry().unwrap();
    let kind = |path: &str| {
        let source = source(&registry, "encoder", "clip-vit", path);
        registry.detect("encoder", source.as_ref()).map(|entry| entry.kind.clone()).map_err(|e| e.to_string())
    };
    // Other models of Hugging Face's name their towers alike.
    let other = edited("hugging_face", "config.json", |c| c["model_type"] = "chinese_clip".into());
    assert!(
        kind(text(other.path())).unwrap_err().contains("model_type is \"chinese_clip\", which no encoder here reads")
    );
}

#[test]
fn random_weights_are_drawn_as_transformers_draws_them() {
    let registry = limber::built_in::registry().unwrap();
    let expected = lists("clip_vit");
    let expected = expected["init"].as_object().unwrap();
    let settings = json!({"image_size": 32, "patch_size": 8, "width": 48, "layers": 3, "heads": 4, "mlp_width": 80, "projection": 20,
                          "pool": true, "activation": "quick_gelu", "initializer_factor": 1.5, "initializer_range": 0.03});
    let mut kept: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for seed in 0..40 {
        let (source, drawn) = drawings(seed);
        let prepared = registry.encoder("clip-vit", settings.clone(), source.as_ref()).unwrap();
        prepared.build(&Weights::new(source, Device::Cpu, None)).unwrap();
        for (name, (_, data)) in drawn.lock().unwrap().iter() {
            kept.entry(name.clone()).or_default().extend(data.to_f32(0..data.elements()));
        }
    }
    assert!(kept.keys().eq(expected.keys().collect::<std::collections::BTreeSet<_>>()), "{:?}", kept.keys());
    for (name, values) in kept.iter() {
        let reference: [f64; 4] = serde_json::from_value(expected[name].clone()).unwrap();
        let [count, mean, std, within] = reference;
        let n = values.len() as f64;
        assert_eq!(n, count, "{name}");
        let ours = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let deviation = (values.iter().map(|v| (f64::from(*v) - ours).powi(2)).sum::<f64>() / n).sqrt();
        let inside = values.iter().filter(|v| (f64::from(**v) - ours).abs() <= deviation).count() as f64 / n;
        // Five standard errors of the difference of two samples of n: of means, of deviations, of shares near 0.68.
        let error = 5.0 * (2.0 / n).sqrt();
        assert!((ours - mean).abs() <= error * std, "{name}: mean {ours}, transformers {mean}");
        assert!(
            (deviation - std).abs() <= error * std / 2f64.sqrt(),
            "{name}: deviation {deviation}, transformers {std}"
        );
        assert!(
            (inside - within).abs() <= error * 0.47,
            "{name}: share within a deviation {inside}, transformers {within}"
        );
    }
}
