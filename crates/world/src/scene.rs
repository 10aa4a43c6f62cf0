//! What a scene holds, and how lots are drawn for one.
//!
//! Positions and radii are fractions of the image's side, x to the right and y down, so that a scene
//! can be drawn at any size.
//! Objects never overlap (their enclosing circles keep [`GAP`] between them), and what a caption says
//! of their positions holds by a clear margin: scenes that come out ambiguous are drawn again.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Most objects that one scene holds.
pub const MAX_OBJECTS: usize = 3;
/// Smallest distance between the enclosing circles of two objects.
pub const GAP: f32 = 0.03;
/// Smallest distance of an enclosing circle from the image's edge.
const EDGE: f32 = 0.02;
/// Two objects: least distance along the axis that the caption names.
const PAIR_ALONG: f32 = 0.28;
/// Two objects: most distance across that axis, as a share of the distance along it.
const PAIR_ACROSS: f32 = 0.45;
/// Three objects: least step between neighbours along the axis that the caption names.
const ROW_STEP: f32 = 0.14;
/// Three objects: how much smaller the least step along the other axis must be.
const ROW_MARGIN: f32 = 0.08;

/// Declares a world attribute: its variants, all of them in order, and their words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $(#[doc = concat!("In words: ", $word, ".")] $variant),+ }

        impl $name {
            /// All variants, in the order lots are drawn from.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that captions use.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// Outline of an object.
    Shape { Circle = "circle", Square = "square", Triangle = "triangle", Star = "star", Cross = "cross", Ring = "ring", Heart = "heart" }
}
words! {
    /// Colour of an object.
    Colour { Red = "red", Orange = "orange", Yellow = "yellow", Green = "green", Blue = "blue", Purple = "purple", White = "white", Black = "black" }
}
words! {
    /// Size class of an object.
    Size { Small = "small", Large = "large" }
}
words! {
    /// Pattern of a background.
    Ground { Plain = "plain", Gradient = "gradient", Noise = "noise", Stripes = "stripes", Checks = "checks" }
}

/// The direction in which a scene's objects are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// From left to right.
    Across,
    /// From top to bottom.
    Down,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Outline.
    pub shape: Shape,
    /// Colour class; `tint` varies it a little.
    pub colour: Colour,
    /// Size class; `radius` is the exact size.
    pub size: Size,
    /// Centre, as a fraction of the side from the left.
    pub x: f32,
    /// Centre, as a fraction of the side from the top.
    pub y: f32,
    /// Radius of the enclosing circle, as a fraction of the side.
    pub radius: f32,
    /// Rotation in radians, slight.
    pub turn: f32,
    /// What is added to each colour channel.
    pub tint: [i8; 3],
}

impl Object {
    /// Centre along one axis.
    pub fn at(&self, axis: Axis) -> f32 {
        match axis {
            Axis::Across => self.x,
            Axis::Down => self.y,
        }
    }
}

/// What lies behind the objects: a pattern between two muted colours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Background {
    /// Pattern.
    pub ground: Ground,
    /// First colour.
    pub base: [u8; 3],
    /// Second colour, near the first; a plain ground does not use it.
    pub other: [u8; 3],
    /// Direction of the pattern in radians.
    pub turn: f32,
    /// Periods of the pattern over the side.
    pub periods: f32,
    /// Seed of the noise.
    pub salt: u32,
}

/// One scene, with the lots that name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Seed of the data set.
    pub seed: u64,
    /// Number of the scene in its data set.
    pub index: u64,
    /// Objects in the order of the caption: along [`Scene::axis`].
    pub objects: Vec<Object>,
    /// What lies behind them.
    pub background: Background,
}

/// How many objects scenes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Fewest objects, at least 1.
    pub min_objects: usize,
    /// Most objects, at most [`MAX_OBJECTS`].
    pub max_objects: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { min_objects: 1, max_objects: MAX_OBJECTS }
    }
}

/// Lots drawn from ChaCha8, whose stream is fixed for good: libraries of distributions may change theirs.
pub(super) struct Lots(ChaCha8Rng);

impl Lots {
    /// The lots of scene `index` for one purpose, independent of all other scenes and purposes.
    pub(super) fn new(seed: u64, index: u64, purpose: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.set_stream(index);
        Self(rng)
    }

    /// A number from `0..n`; the bias of n / 2^32 does not matter here.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as usize
    }

    /// A number from `low..high`, on a grid of 2^24 steps.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.0.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// One of the items.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// Scene `index` of the world `seed`, a pure function of its arguments.
///
/// Bounds outside `1..=MAX_OBJECTS` are brought into that range; [`super::write_dataset`] refuses them.
pub fn scene(seed: u64, index: u64, options: &Options) -> Scene {
    let low = options.min_objects.clamp(1, MAX_OBJECTS);
    let high = options.max_objects.clamp(low, MAX_OBJECTS);
    let mut lots = Lots::new(seed, index, 1);
    let count = low + lots.below(high - low + 1);
    let background = background(&mut lots);
    let mut objects = loop {
        if let Some(objects) = objects(&mut lots, count) {
            break objects;
        }
    };
    if let Some(axis) = axis_of(&objects) {
        objects.sort_by(|a, b| a.at(axis).total_cmp(&b.at(axis)));
    }
    Scene { seed, index, objects, background }
}

impl Scene {
    /// The axis along which the objects are told apart; none for a single object.
    pub fn axis(&self) -> Option<Axis> {
        axis_of(&self.objects)
    }
}

/// The axis on which neighbours are furthest apart at their closest, where the margin is clear.
fn axis_of(objects: &[Object]) -> Option<Axis> {
    let step = |axis| {
        let mut at: Vec<f32> = objects.iter().map(|o| o.at(axis)).collect();
        at.sort_by(f32::total_cmp);
        at.windows(2).map(|w| w[1] - w[0]).fold(f32::MAX, f32::min)
    };
    if objects.len() < 2 {
        return None;
    }
    let (across, down) = (step(Axis::Across), step(Axis::Down));
    let (axis, along, other) = if across > down { (Axis::Across, across, down) } else { (Axis::Down, down, across) };
    let clear = if objects.len() == 2 {
        along >= PAIR_ALONG && other <= PAIR_ACROSS * along
    } else {
        along >= ROW_STEP && other <= along - ROW_MARGIN
    };
    clear.then_some(axis)
}

/// Draws objects that keep the world's rules, or none where the lots do not fit.
fn objects(lots: &mut Lots, count: usize) -> Option<Vec<Object>> {
    let mut objects: Vec<Object> = Vec::with_capacity(count);
    for _ in 0..count {
        let (shape, colour) = (lots.pick(Shape::ALL), lots.pick(Colour::ALL));
        let size = lots.pick(Size::ALL);
        let radius = match size {
            Size::Small => lots.between(0.120, 0.138),
            Size::Large => lots.between(0.200, 0.225),
        };
        let turn = lots.between(-0.16, 0.16);
        let tint = [0; 3].map(|_: i8| lots.below(25) as i8 - 12);
        if objects.iter().any(|o| o.shape == shape && o.colour == colour) {
            return None;
        }
        objects.push(Object { shape, colour, size, x: 0.5, y: 0.5, radius, turn, tint });
    }
    for _ in 0..60 {
        for object in &mut objects {
            let edge = object.radius + EDGE;
            object.x = lots.between(edge, 1.0 - edge);
            object.y = lots.between(edge, 1.0 - edge);
        }
        let apart = |(i, a): (usize, &Object)| {
            objects[..i].iter().all(|b| (a.x - b.x).hypot(a.y - b.y) >= a.radius + b.radius + GAP)
        };
        if objects.iter().enumerate().all(apart) && (count == 1 || axis_of(&objects).is_some()) {
            return Some(objects);
        }
    }
    None
}

/// Draws a background whose colours are of middle lightness and low saturation, unlike any object's.
fn background(lots: &mut Lots) -> Background {
    let ground = lots.pick(Ground::ALL);
    let middle = lots.between(110.0, 185.0);
    let base = [0; 3].map(|_: u8| (middle + lots.between(-14.0, 14.0)) as u8);
    let shift = lots.between(14.0, 26.0) * if lots.below(2) == 0 { 1.0 } else { -1.0 };
    let other = base.map(|c| (f32::from(c) + shift + lots.between(-5.0, 5.0)).clamp(95.0, 205.0) as u8);
    Background {
        ground,
        base,
        other,
        turn: lots.between(0.0, std::f32::consts::TAU),
        periods: lots.between(3.0, 7.0),
        salt: lots.below(u32::MAX as usize) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_depends_on_seed_and_index_alone() {
        let options = Options::default();
        assert_eq!(scene(3, 17, &options), scene(3, 17, &options));
        assert_ne!(scene(3, 17, &options), scene(3, 18, &options));
        assert_ne!(scene(3, 17, &options), scene(4, 17, &options));
    }

    #[test]
    fn objects_stay_apart_inside_and_in_order() {
        for index in 0..3000 {
            let scene = scene(1, index, &Options::default());
            for (i, a) in scene.objects.iter().enumerate() {
                assert!(a.x - a.radius > 0.0 && a.x + a.radius < 1.0, "{scene:?}");
                assert!(a.y - a.radius > 0.0 && a.y + a.radius < 1.0, "{scene:?}");
                for b in &scene.objects[..i] {
                    let distance = (a.x - b.x).hypot(a.y - b.y);
                    assert!(distance >= a.radius + b.radius + GAP, "{scene:?}");
                    assert!((a.shape, a.colour) != (b.shape, b.colour), "{scene:?}");
                }
            }
            if scene.objects.len() > 1 {
                let axis = scene.axis().expect("scenes of several objects have an axis");
                let step = if scene.objects.len() == 2 { PAIR_ALONG } else { ROW_STEP };
                for pair in scene.objects.windows(2) {
                    assert!(pair[1].at(axis) - pair[0].at(axis) >= step, "{scene:?}");
                }
            }
        }
    }

    #[test]
    fn counts_and_attributes_all_occur() {
        for (low, high) in [(1, 1), (2, 2), (1, 2), (3, 3), (1, 3)] {
            let options = Options { min_objects: low, max_objects: high };
            let mut seen = [0usize; MAX_OBJECTS + 1];
            for index in 0..400 {
                seen[scene(9, index, &options).objects.len()] += 1;
            }
            for (count, &seen) in seen.iter().enumerate() {
                assert_eq!(seen > 0, (low..=high).contains(&count), "{low}..={high}");
            }
        }
        let all: Vec<Object> = (0..500).flat_map(|i| scene(5, i, &Options::default()).objects).collect();
        assert!(Shape::ALL.iter().all(|s| all.iter().any(|o| o.shape == *s)));
        assert!(Colour::ALL.iter().all(|c| all.iter().any(|o| o.colour == *c)));
    }
}
