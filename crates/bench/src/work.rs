//! What a component reads and computes, told by the tensors that it asks for when it is built.

use limber_core::registry::EncoderSpecs;
use limber_core::weights::{FrozenData, Request, SharedBytes, WeightError, WeightSource, WeightType};
use limber_core::{DecoderSpec, InputSpec};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// One tensor that a component asked for: shape, and type as stored.
type Asked = BTreeMap<String, (Vec<usize>, WeightType)>;

/// A source that remembers what it is asked for.
pub(super) struct Recorder {
    inner: Arc<dyn WeightSource>,
    asked: Mutex<Asked>,
    /// What stands in for random tensors, where it does.
    zeros: Option<Mutex<Arc<Vec<u8>>>>,
}

/// Bytes as a source gives them.
struct Zeros(Arc<Vec<u8>>);

impl AsRef<[u8]> for Zeros {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Recorder {
    /// Over `inner`.
    pub(super) fn new(inner: Arc<dyn WeightSource>) -> Self {
        Self { inner, asked: Mutex::default(), zeros: None }
    }

    /// Over `inner`, giving zeros that take no memory in place of what would be drawn at random: enough to build a
    /// component and see what it reads.
    pub(super) fn blank(inner: Arc<dyn WeightSource>) -> Self {
        let zeros = inner.tensors().is_none().then(Mutex::default);
        Self { zeros, ..Self::new(inner) }
    }

    /// What was asked for.
    pub(super) fn asked(&self) -> Asked {
        self.asked.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Zeros of a shape in f32; one allocation, which the system fills where it is touched, serves all.
    fn zeros(&self, zeros: &Mutex<Arc<Vec<u8>>>, request: &Request) -> Result<FrozenData, WeightError> {
        let fault =
            |message| WeightError::Read { source_label: self.label(), message: format!("{}: {message}", request.name) };
        let bytes = WeightType::F32.bytes(request.shape).ok_or_else(|| fault("too large".to_string()))?;
        let mut zeros = zeros.lock().unwrap_or_else(|e| e.into_inner());
        if zeros.len() < bytes {
            *zeros = Arc::new(vec![0; bytes]);
        }
        let shared: SharedBytes = Arc::new(Zeros(zeros.clone()));
        FrozenData::new(shared, 0..bytes, WeightType::F32, request.shape).map_err(fault)
    }
}

impl WeightSource for Recorder {
    fn label(&self) -> String {
        self.inner.label()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        self.inner.tensors()
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        let data = match &self.zeros {
            Some(zeros) => self.zeros(zeros, request)?,
            None => self.inner.read(request)?,
        };
        let mut asked = self.asked.lock().unwrap_or_else(|e| e.into_inner());
        asked.insert(request.name.to_string(), (data.shape().to_vec(), data.dtype()));
        Ok(data)
    }

    fn document(&self, name: &str) -> Result<Option<String>, WeightError> {
        self.inner.document(name)
    }
}

/// Bytes of a tensor held in `dtype`, or as stored.
fn bytes((shape, stored): &(Vec<usize>, WeightType), dtype: Option<WeightType>) -> u64 {
    let dtype = dtype.map_or(*stored, |dtype| dtype.fitting(shape));
    dtype.bytes(shape).unwrap_or(0) as u64
}

/// What a decoder reads and computes.
#[derive(Debug, Clone)]
pub(super) struct DecoderWork {
    spec: DecoderSpec,
    /// Matrices that every position is multiplied with.
    inner: Vec<(Vec<usize>, WeightType)>,
    /// Of the last block, those that have no part in keys and values: positions with logits alone are multiplied with them.
    last: Vec<(Vec<usize>, WeightType)>,
    /// The head's matrix `[V, D]`.
    head: (Vec<usize>, WeightType),
    /// Everything asked for.
    all: Vec<(Vec<usize>, WeightType)>,
}

impl DecoderWork {
    /// Of a decoder with these tensors: tables of V rows are word embeddings and head, of which one is multiplied with,
    /// and learned positions are added.
    pub(super) fn new(asked: Asked, spec: &DecoderSpec) -> Self {
        let (mut inner, mut last) = (Vec::new(), Vec::new());
        let mut head = (vec![spec.vocab, spec.width], WeightType::F32);
        for (name, tensor) in asked.iter().filter(|(_, (shape, _))| shape.len() == 2) {
            let is_positions = name.contains("wpe") || name.contains("position");
            match tensor.0[0] == spec.vocab {
                true if is_head(name) || head.1 == WeightType::F32 => head = tensor.clone(),
                true => {}
                false if is_positions => {}
                false if ends_block(name, spec.layers) => last.push(tensor.clone()),
                false => inner.push(tensor.clone()),
            }
        }
        Self { spec: spec.clone(), inner, last, head, all: asked.into_values().collect() }
    }

    /// Bytes of everything in `dtype`.
    pub(super) fn size(&self, dtype: Option<WeightType>) -> u64 {
        self.all.iter().map(|tensor| bytes(tensor, dtype)).sum()
    }

    /// Bytes that holding it in `dtype` copies: what is stored in another type.
    pub(super) fn copied(&self, dtype: Option<WeightType>) -> u64 {
        let differs = |tensor: &&(Vec<usize>, WeightType)| dtype.is_some_and(|d| d.fitting(&tensor.0) != tensor.1);
        self.all.iter().filter(differs).map(|tensor| bytes(tensor, dtype)).sum()
    }

    /// Bytes read by one pass over the weights that ends in logits: every matrix once, and the keys and values of
    /// `rows` rows of `past` positions in `cache` bytes each.
    pub(super) fn bytes(&self, dtype: Option<WeightType>, rows: usize, past: usize, cache: usize) -> u64 {
        let weights: u64 =
            self.inner.iter().chain(&self.last).chain([&self.head]).map(|tensor| bytes(tensor, dtype)).sum();
        let position = 2 * self.spec.layers * self.spec.kv_heads * self.spec.head_dim * cache;
        weights + (rows * past * position) as u64
    }

    /// Operations of `new` positions in each of `rows` rows that have `past` behind them, with logits for the last.
    pub(super) fn flops(&self, rows: usize, past: usize, new: usize) -> u64 {
        let sum =
            |list: &[(Vec<usize>, WeightType)]| list.iter().map(|(shape, _)| shape.iter().product::<usize>()).sum();
        let (matrices, last): (usize, usize) = (sum(&self.inner), sum(&self.last));
        let head: usize = self.head.0.iter().product();
        // Each position sees what is behind it and itself.
        let seen = new * past + new * (new + 1) / 2;
        let attention = 4 * self.spec.layers * self.spec.width * seen;
        (rows * (2 * matrices * new + attention + 2 * (last + head))) as u64
    }
}

fn is_head(name: &str) -> bool {
    name.contains("lm_head") || name.contains("embed_out")
}

/// Whether a matrix of the last of `layers` blocks comes after its keys and values.
fn ends_block(name: &str, layers: usize) -> bool {
    let block = name.split('.').find_map(|word| word.parse::<usize>().ok());
    let before = ["q_proj", "k_proj", "v_proj", "query_key_value", "c_attn"];
    block.is_some_and(|block| block + 1 == layers) && !before.iter().any(|part| name.contains(part))
}

/// Bytes and operations of encoding one image; operations are None for a kind whose shape of work is not known here.
pub(super) fn encoder(kind: &str, asked: &Asked, specs: &EncoderSpecs) -> (u64, Option<u64>) {
    let mut read = 0;
    for tensor in asked.values().filter(|(shape, _)| shape.len() > 1) {
        // Filters are packed in f32 when they are loaded.
        read += bytes(tensor, (tensor.0.len() == 4).then_some(WeightType::F32));
    }
    let InputSpec::Image(image) = specs.input else { return (0, Some(0)) };
    let flops = match kind {
        "clip-resnet" | "nf-resnet" => resnet(kind == "nf-resnet", asked, image.side),
        "clip-vit" | "beit" | "dinov2" | "siglip" => transformer(asked, image.side),
        _ => None,
    };
    (read, flops)
}

/// Each filter at every position of its map.
fn resnet(strided: bool, asked: &Asked, side: usize) -> Option<u64> {
    let mut sum = 0;
    for (name, (shape, _)) in asked.iter().filter(|(_, (shape, _))| shape.len() == 4) {
        let at = conv_side(name, strided, side)?;
        sum += 2 * at * at * shape.iter().product::<usize>();
    }
    Some(sum as u64)
}

/// Side of the map that a convolution gives. Stems halve; each stage but the first halves once, in its first block,
/// behind the second convolution: by that one's stride (`strided`) or by a pool after it.
fn conv_side(name: &str, strided: bool, side: usize) -> Option<usize> {
    let words: Vec<&str> = name.split('.').collect();
    let stage = words.iter().enumerate().find_map(|(i, word)| match word.strip_prefix("layer") {
        Some(n) => n.parse::<usize>().ok().map(|n| (i, n.wrapping_sub(1))),
        None => (*word == "stages").then(|| words.get(i + 1)?.parse().ok()).flatten().map(|n| (i + 1, n)),
    });
    let Some((at, stage)) = stage else { return Some(side.div_ceil(2)) };
    let out = (0..stage + 2).fold(side, |side, _| side.div_ceil(2));
    let first = words.get(at + 1)? == &"0" && stage > 0;
    let before = words.contains(&"conv1") || words.contains(&"conv2") && !strided;
    Some(if first && before { 2 * out } else { out })
}

/// The patches' convolution, then each matrix for each patch, and attention among them; the few tokens beside the
/// patches are left out.
fn transformer(asked: &Asked, side: usize) -> Option<u64> {
    let (_, (patch, _)) = asked.iter().find(|(_, (shape, _))| shape.len() == 4)?;
    let tokens = (side / patch[3].max(1)).pow(2);
    let mut sum = 2 * patch.iter().product::<usize>() * tokens;
    let mut layers = std::collections::BTreeSet::new();
    for (name, (shape, _)) in asked.iter().filter(|(_, (shape, _))| shape.len() == 2) {
        // Tables of positions are added; what lies outside of the layers is for one pooled vector.
        let Some(layer) = name.split('.').find_map(|word| word.parse::<usize>().ok()) else { continue };
        if name.contains("position") {
            continue;
        }
        layers.insert(layer);
        sum += 2 * shape.iter().product::<usize>() * tokens;
    }
    Some((sum + 4 * layers.len() * patch[0] * tokens * tokens) as u64)
}

/// Bytes and operations of a stitch over `rows` vectors.
pub(super) fn stitch(asked: &Asked, rows: usize) -> (u64, u64) {
    let matrices = asked.values().filter(|(shape, _)| shape.len() == 2);
    matrices.fold((0, 0), |(read, flops), tensor| {
        (read + bytes(tensor, None), flops + (2 * rows * tensor.0.iter().product::<usize>()) as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tensors: &[(&str, &[usize])]) -> Asked {
        tensors.iter().map(|(name, shape)| (name.to_string(), (shape.to_vec(), WeightType::F32))).collect()
    }

    #[test]
    fn a_decoders_work_is_its_matrices_and_one_table() {
        let spec =
            DecoderSpec { width: 256, vocab: 1000, layers: 1, kv_heads: 2, head_dim: 128, context: 64, eos: vec![] };
        let tensors: &[(&str, &[usize])] = &[
            ("wte.weight", &[1000, 256]),
            ("wpe.weight", &[64, 256]),
            ("h.0.q_proj.weight", &[256, 256]),
            ("b", &[256]),
        ];
        let tied = DecoderWork::new(asked(tensors), &spec);
        // One matrix and the head, 2 operations a weight; a position sees itself and 10 others.
        assert_eq!(tied.flops(3, 10, 1), 3 * (2 * 256 * 256 + 4 * 256 * 11 + 2 * 1000 * 256));
        assert_eq!(tied.flops(1, 0, 4), 2 * 256 * 256 * 4 + 4 * 256 * (1 + 2 + 3 + 4) + 2 * 1000 * 256);
        let weights = 256 * 256 + 1000 * 256;
        assert_eq!(tied.bytes(None, 0, 0, 4), 4 * weights);
        assert_eq!(tied.bytes(Some(WeightType::Bf16), 0, 0, 4), 2 * weights);
        assert_eq!(tied.bytes(Some(WeightType::Q4K), 2, 10, 4), weights / 256 * 144 + 2 * 10 * 2 * 256 * 4);
        assert_eq!(tied.copied(Some(WeightType::F32)), 0);
        assert_eq!(tied.copied(Some(WeightType::Bf16)), tied.size(Some(WeightType::Bf16)));
        // What follows the last attention is for the position with logits alone.
        let longer = [tensors, &[("h.0.out_proj.weight", &[256, 256])]].concat();
        let longer = DecoderWork::new(asked(&longer), &spec);
        assert_eq!(longer.flops(1, 0, 4) - tied.flops(1, 0, 4), 2 * 256 * 256);
        assert_eq!(longer.bytes(None, 0, 0, 4) - tied.bytes(None, 0, 0, 4), 4 * 256 * 256);
        let untied = [tensors, &[("lm_head.weight", &[1000, 256])]].concat();
        let untied = DecoderWork::new(asked(&untied), &spec);
        assert_eq!((untied.flops(3, 10, 1), untied.bytes(None, 0, 0, 4)), (tied.flops(3, 10, 1), 4 * weights));
        assert_eq!(untied.size(None) - tied.size(None), 4 * 1000 * 256);
    }

    #[test]
    fn convolutions_are_counted_where_they_run() {
        for (name, strided, side) in [
            ("visual.conv1.weight", false, 192),
            ("visual.conv3.weight", false, 192),
            ("visual.layer1.0.conv2.weight", false, 96),
            ("visual.layer2.0.conv1.weight", false, 96),
            ("visual.layer2.0.conv2.weight", false, 96),
            ("visual.layer2.0.conv3.weight", false, 48),
            ("visual.layer2.0.downsample.0.weight", false, 48),
            ("visual.layer4.1.conv1.weight", false, 12),
            ("stem.conv.weight", true, 192),
            ("stages.0.0.conv1.weight", true, 96),
            ("stages.1.0.conv1.weight", true, 96),
            ("stages.1.0.conv2.weight", true, 48),
            ("stages.3.0.downsample.conv.weight", true, 12),
        ] {
            assert_eq!(conv_side(name, strided, 384), Some(side), "{name}");
        }
    }
}
