//! The same components twice: compiled into this test, and in a library with its own candle behind the C ABI.
//!
//! Both sides run the same code, so everything is equal bit for bit where it is computed in the same order; gradients
//! are allowed 1e-6 of the largest.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use limber_core::ops::cross_entropy;
use limber_core::registry::StitchContext;
use limber_core::{
    CacheOptions, CacheType, Checkpointing, Decoder, DecoderCache, Encoder, Init, LogitPositions, Mode, Registry, Run,
    Stitch, WeightSource, WeightType, Weights,
};
use limber_decoder_gptj as _;
use limber_encoder_clip_resnet as _;
use limber_stitch_linear as _;
use limber_stitch_mlp as _;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Cargo builds examples with the tests of their package and puts them beside `deps`.
fn library() -> PathBuf {
    let name = format!("{}built_in_components{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = std::env::current_exe().unwrap().parent().unwrap().join("../examples").join(name);
    assert!(path.is_file(), "{} is not built; run `cargo test --release --workspace`", path.display());
    path
}

/// The compiled-in components, and those of the library.
fn registries() -> [Registry; 2] {
    let loaded = limber_plugin_host::open(&library(), None).unwrap().registry().unwrap();
    [Registry::from_inventory().unwrap(), loaded]
}

fn weights(seed: u64, dtype: Option<WeightType>) -> Weights {
    Weights::new(Arc::new(limber_core::random::RandomSource::new(seed)), Device::Cpu, dtype)
}

fn tiny(registry: &Registry, role: &str, kind: &str) -> Value {
    registry.get(role, kind).unwrap().tiny.clone()
}

fn encoder(registry: &Registry, dtype: Option<WeightType>) -> Box<dyn Encoder> {
    let w = weights(1, dtype);
    let settings = tiny(registry, "encoder", "clip-resnet");
    registry.encoder("clip-resnet", settings, w.source().as_ref()).unwrap().build(&w).unwrap()
}

fn decoder(registry: &Registry, dtype: Option<WeightType>) -> Box<dyn Decoder> {
    let w = weights(2, dtype);
    registry.decoder("gptj", tiny(registry, "decoder", "gptj"), w.source().as_ref()).unwrap().build(&w).unwrap()
}

fn stitch(registry: &Registry, kind: &str, encoder: &dyn Encoder, decoder: &dyn Decoder) -> Box<dyn Stitch> {
    let w = weights(3, None);
    let source: &dyn WeightSource = w.source().as_ref();
    let (features, width) = (encoder.feature_spec(), decoder.spec().width);
    let context = StitchContext { features, encoder: "clip-resnet", width, decoder: "gptj", source };
    registry.stitch(kind, tiny(registry, "stitch", kind), &context).unwrap().build(&w).unwrap()
}

fn noise(shape: &[usize], seed: u64) -> Tensor {
    Weights::random(seed).tensor("noise", shape, Init::normal(1.0)).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Equal bit for bit, and not trivially so.
fn same(a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims());
    assert_eq!(values(a), values(b));
    assert!(values(a).iter().any(|x| *x != 0.0));
}

/// The largest difference over the largest value.
fn apart(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let largest = values(a).iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.0);
    values(a).iter().zip(values(b)).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn every_component_of_the_library_passes_the_conformance_suite() {
    let [built_in, loaded] = registries();
    let kinds = |r: &Registry| r.entries().map(|e| (e.maker.role(), e.kind.clone())).collect::<Vec<_>>();
    assert_eq!(kinds(&loaded), kinds(&built_in));
    for entry in loaded.entries() {
        let twin = built_in.get(entry.maker.role(), &entry.kind).unwrap();
        assert_eq!((&entry.schema, &entry.tiny, &entry.files), (&twin.schema, &twin.tiny, &twin.files));
        assert_eq!((&entry.about, entry.needs_weights), (&twin.about, twin.needs_weights));
        assert!(entry.origin.to_string().contains("ABI 1.0"), "{}", entry.origin);
        let report = limber_kit::check_entry(entry);
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn an_encoder_gives_bit_identical_features() {
    let [built_in, loaded] = registries();
    for dtype in [None, Some(WeightType::Bf16), Some(WeightType::Q8_0)] {
        let (a, b) = (encoder(&built_in, dtype), encoder(&loaded, dtype));
        let side = a.input_spec().image().unwrap().side;
        for batch in [1, 3] {
            let pixels = noise(&[batch, 3, side, side], 4);
            same(&a.encode(&pixels).unwrap(), &b.encode(&pixels).unwrap());
        }
    }
}

#[test]
fn weights_are_noted_for_the_fingerprint() {
    let [built_in, loaded] = registries();
    let [a, b] = [&built_in, &loaded].map(|registry| {
        let w = weights(1, None);
        let settings = tiny(registry, "encoder", "clip-resnet");
        registry.encoder("clip-resnet", settings, w.source().as_ref()).unwrap().build(&w).unwrap();
        w.fingerprint()
    });
    assert_eq!(a, b);
    assert_ne!(a, weights(1, None).fingerprint());
}

#[test]
fn a_decoder_gives_the_same_logits_taps_and_gradients() {
    let [built_in, loaded] = registries();
    for dtype in [None, Some(WeightType::F16), Some(WeightType::Q8_0)] {
        let (a, b) = (decoder(&built_in, dtype), decoder(&loaded, dtype));
        assert_eq!(a.spec(), b.spec());
        let ids = Tensor::new(&[[1u32, 7, 3, 9, 2], [5, 5, 8, 0, 4]], &Device::Cpu).unwrap();
        let embeds = a.embed(&ids).unwrap();
        same(&embeds, &b.embed(&ids).unwrap());
        let mask = Tensor::new(&[[1u8, 0, 1, 1, 1], [1, 1, 1, 1, 1]], &Device::Cpu).unwrap();
        let positions = [
            LogitPositions::All,
            LogitPositions::Last,
            LogitPositions::Hidden,
            LogitPositions::At(vec![(1, 0), (0, 3), (0, 3)]),
        ];
        for (logits, checkpointing) in
            positions.iter().flat_map(|logits| [(logits, Checkpointing::None), (logits, Checkpointing::Full)])
        {
            let [(y, gradient, taps), (y2, gradient2, taps2)] = [&a, &b].map(|decoder| {
                let embeds = Var::from_tensor(&embeds).unwrap();
                let run = || Run {
                    lengths: Some(vec![5, 3]),
                    mask: Some(mask.clone()),
                    logits: logits.clone(),
                    checkpointing,
                    ..Run::new()
                };
                let y = decoder.forward(embeds.as_tensor(), &mut run()).unwrap();
                let loss = y.mul(&noise(y.dims(), 6)).unwrap().sum_all().unwrap();
                let gradient = loss.backward().unwrap().remove(embeds.as_tensor()).unwrap();
                let mut run = run();
                (run.taps.want_hidden, run.taps.want_attention) = (true, true);
                decoder.forward(&embeds.as_tensor().detach(), &mut run).unwrap();
                (y, gradient, run.taps)
            });
            same(&y, &y2);
            assert!(apart(&gradient, &gradient2) <= 1e-6);
            assert_eq!((taps.hidden.len(), taps.attention.len()), (a.spec().layers + 1, a.spec().layers));
            for (x, y) in taps.hidden.iter().zip(&taps2.hidden).chain(taps.attention.iter().zip(&taps2.attention)) {
                same(x, y);
            }
        }
    }
}

#[test]
fn a_cache_is_cut_copied_and_joined_the_same() {
    let [built_in, loaded] = registries();
    let (a, b) = (decoder(&built_in, None), decoder(&loaded, None));
    let step = |decoder: &dyn Decoder, cache: &mut dyn DecoderCache, t: usize, seed: u64| {
        let rows = cache.lengths().len();
        let run = &mut Run { logits: LogitPositions::All, ..Run::cached(cache) };
        decoder.forward(&noise(&[rows, t, decoder.spec().width], seed), run).unwrap()
    };
    for dtype in [CacheType::F32, CacheType::F16, CacheType::Bf16] {
        let [all_a, all_b] = [&a, &b].map(|decoder| {
            let decoder = decoder.as_ref();
            let mut seen = Vec::new();
            let mut cache = decoder.new_cache(&CacheOptions::new(2, 20).with_type(dtype).with_slots(3)).unwrap();
            seen.push(step(decoder, cache.as_mut(), 4, 1));
            cache.truncate(3).unwrap();
            seen.push(step(decoder, cache.as_mut(), 2, 2));
            let mut copy = cache.copy_sequences(&[1, 0, 1], 4, 30).unwrap();
            cache.select_sequences(&[1]).unwrap();
            seen.push(step(decoder, cache.as_mut(), 1, 3));
            cache.push_sequences(copy.as_ref()).unwrap();
            assert_eq!(cache.lengths(), [6, 5, 5, 5]);
            seen.push(step(decoder, cache.as_mut(), 1, 4));
            copy.select_sequences(&[2, 0, 1, 1]).unwrap();
            seen.push(step(decoder, copy.as_mut(), 3, 5));
            // A cache that has not begun takes in one that has.
            let mut fresh = decoder.new_cache(&CacheOptions::new(0, 20).with_type(dtype).with_slots(4)).unwrap();
            fresh.push_sequences(copy.as_ref()).unwrap();
            seen.push(step(decoder, fresh.as_mut(), 1, 6));
            seen
        });
        for (x, y) in all_a.iter().zip(&all_b) {
            same(x, y);
        }
    }
    // A cache of another decoder is refused, not read.
    let mut other = a.new_cache(&CacheOptions::new(1, 8)).unwrap();
    let embeds = noise(&[1, 2, b.spec().width], 7);
    let message = b.forward(&embeds, &mut Run::cached(other.as_mut())).unwrap_err().to_string();
    assert!(message.contains("another decoder"), "{message}");
    let mut other = decoder(&loaded, None).new_cache(&CacheOptions::new(1, 8)).unwrap();
    let message = b.forward(&embeds, &mut Run::cached(other.as_mut())).unwrap_err().to_string();
    assert!(message.contains("another decoder"), "{message}");
}

/// A captioning loss through all three components, and the gradients of the stitch.
fn train(encoder: &dyn Encoder, stitch: &dyn Stitch, decoder: &dyn Decoder) -> (f32, Vec<(String, Tensor)>) {
    let side = encoder.input_spec().image().unwrap().side;
    let features = encoder.encode(&noise(&[2, 3, side, side], 8)).unwrap();
    let prefix = stitch.project(&features, Mode::Training { seed: 5 }).unwrap();
    let k = prefix.dim(1).unwrap();
    let ids = Tensor::new(&[[3u32, 1, 4], [1, 5, 9]], &Device::Cpu).unwrap();
    let embeds = Tensor::cat(&[&prefix, &decoder.embed(&ids).unwrap()], 1).unwrap();
    let at = (0..2).flat_map(|row| (0..3).map(move |i| (row, k - 1 + i))).collect();
    let mut run = Run { logits: LogitPositions::At(at), checkpointing: Checkpointing::Full, ..Run::new() };
    let logits = decoder.forward(&embeds, &mut run).unwrap();
    let loss = cross_entropy(&logits, &[3, 1, 4, 1, 5, 9]).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    let of = |(name, variable): (String, Var)| {
        let gradient = grads.get(variable.as_tensor()).unwrap_or_else(|| panic!("no gradient of {name}")).clone();
        (name, gradient)
    };
    (loss.to_scalar().unwrap(), stitch.variables().into_iter().map(of).collect())
}

#[test]
fn training_through_the_library_gives_the_gradients_of_the_twin() {
    let [built_in, loaded] = registries();
    for kind in ["linear", "mlp"] {
        let parts = |registry: &Registry| {
            let (encoder, decoder) = (encoder(registry, None), decoder(registry, None));
            let stitch = stitch(registry, kind, encoder.as_ref(), decoder.as_ref());
            (encoder, stitch, decoder)
        };
        let (a, b) = (parts(&built_in), parts(&loaded));
        let (loss, expected) = train(a.0.as_ref(), a.1.as_ref(), a.2.as_ref());
        // Each component alone from the library, then all three.
        for (encoder, stitch, decoder) in
            [(&b.0, &a.1, &a.2), (&a.0, &a.1, &b.2), (&a.0, &b.1, &a.2), (&b.0, &b.1, &b.2)]
        {
            let (ours, gradients) = train(encoder.as_ref(), stitch.as_ref(), decoder.as_ref());
            assert!((ours - loss).abs() <= 1e-6 * loss, "{ours} {loss}");
            assert_eq!(gradients.len(), expected.len());
            for ((name, gradient), (twin, other)) in gradients.iter().zip(&expected) {
                assert_eq!(name, twin);
                let far = apart(other, gradient);
                assert!(far <= 1e-6, "{kind}, {name}: {far:.1e}");
            }
        }
    }
}

#[test]
fn the_gradient_reaches_features_that_have_a_graph() {
    let [built_in, loaded] = registries();
    let (e, d) = (encoder(&built_in, None), decoder(&built_in, None));
    let features = e.feature_spec();
    let input = noise(&[2, features.tokens, features.width], 9);
    let [a, b] = [&built_in, &loaded].map(|registry| {
        let stitch = stitch(registry, "mlp", e.as_ref(), d.as_ref());
        let input = Var::from_tensor(&input).unwrap();
        let prefix = stitch.project(input.as_tensor(), Mode::Inference).unwrap();
        let loss = prefix.mul(&noise(prefix.dims(), 10)).unwrap().sum_all().unwrap();
        loss.backward().unwrap().remove(input.as_tensor()).unwrap()
    });
    assert!(apart(&a, &b) <= 1e-6);
}

#[test]
fn errors_of_the_library_arrive_with_its_name() {
    let [_, loaded] = registries();
    let w = weights(1, None);
    let error = loaded.encoder("clip-resnet", json!({"widht": 3}), w.source().as_ref()).err().unwrap();
    let message = format!("{error:#}");
    for part in ["clip-resnet", "built_in_components", "prepare", "key \"widht\": unknown key"] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}
