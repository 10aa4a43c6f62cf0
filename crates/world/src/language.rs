//! What is true of a scene, in words: captions, and questions with answers.
//!
//! The canonical caption names every object by size, colour and shape, and where they lie to each other:
//!
//! - one object: `a small red circle`;
//! - two: `a small red circle above a large blue square`, or `... left of ...`. The relation is on the axis
//!   along which they are further apart, and the first object is the upper or the left one;
//! - three: `a small red circle, a large blue square and a small green star from left to right`, or
//!   `... from top to bottom`, on the axis along which neighbours are furthest apart at their closest.

use serde::{Deserialize, Serialize};

use super::scene::{Axis, Colour, Ground, Lots, Object, Scene, Shape, Size};

/// A question about a scene with its one right answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The question, with its question mark.
    pub question: String,
    /// The answer, one or a few words.
    pub answer: String,
    /// What is asked for: `colour`, `shape`, `size`, `count`, `relation` or `presence`.
    pub kind: String,
}

const NUMBERS: [&str; 4] = ["zero", "one", "two", "three"];

/// `a small red circle`: an object in the canonical wording.
fn name(o: &Object) -> String {
    format!("a {} {} {}", o.size.word(), o.colour.word(), o.shape.word())
}

/// `red circle`: colour and shape, which no two objects of a scene share.
fn brief(o: &Object) -> String {
    format!("{} {}", o.colour.word(), o.shape.word())
}

/// The same object with a size word drawn by lot.
fn varied(o: &Object, lots: &mut Lots) -> String {
    let size = match o.size {
        Size::Small => lots.pick(&["small", "little", "tiny"]),
        Size::Large => lots.pick(&["large", "big", "huge"]),
    };
    format!("a {size} {}", brief(o))
}

/// The words of an axis: before and behind in a caption, where an object lies, how a row runs.
struct Words {
    before: [&'static str; 2],
    behind: [&'static str; 2],
    first: &'static str,
    middle: &'static str,
    last: &'static str,
    along: &'static str,
    against: &'static str,
}

const ACROSS: Words = Words {
    before: ["left of", "to the left of"],
    behind: ["right of", "to the right of"],
    first: "on the left",
    middle: "in the middle",
    last: "on the right",
    along: "from left to right",
    against: "from right to left",
};

const DOWN: Words = Words {
    before: ["above", "over"],
    behind: ["below", "under"],
    first: "at the top",
    middle: "in the middle",
    last: "at the bottom",
    along: "from top to bottom",
    against: "from bottom to top",
};

fn words(axis: Option<Axis>) -> &'static Words {
    match axis {
        Some(Axis::Down) => &DOWN,
        _ => &ACROSS,
    }
}

/// `in the top left`: where one object lies.
fn region(o: &Object) -> &'static str {
    let third = |v: f32| if v < 0.4 { 0 } else { 1 + usize::from(v > 0.6) };
    [
        ["in the top left", "at the top", "in the top right"],
        ["on the left", "in the middle", "on the right"],
        ["in the bottom left", "at the bottom", "in the bottom right"],
    ][third(o.y)][third(o.x)]
}

fn ground(scene: &Scene) -> &'static str {
    match scene.background.ground {
        Ground::Plain => "plain",
        Ground::Gradient => "shaded",
        Ground::Noise => "cloudy",
        Ground::Stripes => "striped",
        Ground::Checks => "checked",
    }
}

/// The canonical caption, a pure function of the objects.
pub fn canonical(scene: &Scene) -> String {
    let w = words(scene.axis());
    match scene.objects.as_slice() {
        [] => "nothing".to_string(),
        [a] => name(a),
        [a, b] => format!("{} {} {}", name(a), w.before[0], name(b)),
        [a, b, c, ..] => format!("{}, {} and {} {}", name(a), name(b), name(c), w.along),
    }
}

/// Captions of a scene: the canonical one first, then right paraphrases.
pub fn captions(scene: &Scene) -> Vec<String> {
    let mut lots = Lots::new(scene.seed, scene.index, 3);
    let l = &mut lots;
    let w = words(scene.axis());
    let ground = ground(scene);
    let mut captions = vec![canonical(scene)];
    captions.extend(match scene.objects.as_slice() {
        [] => vec![],
        [a] => vec![
            varied(a, l),
            format!("{} {}", varied(a, l), region(a)),
            format!("there is {} {}", varied(a, l), region(a)),
            format!("{} on a {ground} background", varied(a, l)),
            format!("a {} that is {} and {}", a.shape.word(), a.colour.word(), a.size.word()),
            format!("one object: {}", varied(a, l)),
        ],
        [a, b] => vec![
            format!("{} {} {}", varied(a, l), l.pick(&w.before), varied(b, l)),
            format!("{} {} {}", varied(b, l), l.pick(&w.behind), varied(a, l)),
            format!("there is {} {} {}", varied(a, l), l.pick(&w.before), varied(b, l)),
            format!("{} with {} {} it", varied(b, l), varied(a, l), l.pick(&w.before)),
            format!("{} {} and {} {}", varied(a, l), w.first, varied(b, l), w.last),
            format!("two objects: {} {} {}", varied(b, l), l.pick(&w.behind), varied(a, l)),
            format!("{} {} and {} {}", varied(a, l), region(a), varied(b, l), region(b)),
            format!("{} and {} on a {ground} background", varied(b, l), varied(a, l)),
        ],
        [a, b, c, ..] => vec![
            format!("{}, {}, {} and {}", w.along, varied(a, l), varied(b, l), varied(c, l)),
            format!("{}, {} and {} {}", varied(c, l), varied(b, l), varied(a, l), w.against),
            format!("three objects {}: {}, {}, {}", w.along, varied(a, l), varied(b, l), varied(c, l)),
            format!("{} {}, {} {} and {} {}", varied(a, l), w.first, varied(b, l), w.middle, varied(c, l), w.last),
            format!("{} between {} {} and {} {}", varied(b, l), varied(a, l), w.first, varied(c, l), w.last),
            format!(
                "{} {}, {} {} and {} {}",
                varied(a, l),
                region(a),
                varied(b, l),
                region(b),
                varied(c, l),
                region(c)
            ),
            format!("{}, {} and {} on a {ground} background", varied(b, l), varied(c, l), varied(a, l)),
        ],
    });
    captions
}

/// Questions about a scene, each with one right answer.
pub fn questions(scene: &Scene) -> Vec<Question> {
    let mut lots = Lots::new(scene.seed, scene.index, 4);
    let objects = &scene.objects;
    let mut questions = Vec::new();
    let mut ask = |kind: &str, question: String, answer: &str| {
        let (kind, answer) = (kind.to_string(), answer.to_string());
        questions.push(Question { question, answer, kind });
    };
    for o in objects {
        let (shape, colour) = (o.shape.word(), o.colour.word());
        if objects.iter().filter(|p| p.shape == o.shape).count() == 1 {
            ask("colour", format!("what colour is the {shape}?"), colour);
            ask("size", format!("is the {shape} small or large?"), o.size.word());
        }
        if objects.iter().filter(|p| p.colour == o.colour).count() == 1 {
            ask("shape", format!("what shape is the {colour} object?"), shape);
        }
    }
    ask("count", "how many objects are there?".to_string(), NUMBERS[objects.len().min(3)]);
    let shape = lots.pick(Shape::ALL);
    let plural = if shape == Shape::Cross { "crosses".to_string() } else { format!("{}s", shape.word()) };
    let count = objects.iter().filter(|o| o.shape == shape).count();
    ask("count", format!("how many {plural} are there?"), NUMBERS[count.min(3)]);

    if let (Some(axis), true) = (scene.axis(), objects.len() > 1) {
        // Neighbours along the scene's axis are clearly apart on it, whatever the other axis says.
        let at = lots.below(objects.len() - 1);
        let (a, b) = (brief(&objects[at]), brief(&objects[at + 1]));
        let (before, behind, ask_by) = match axis {
            Axis::Across => ("left", "right", "left or right of"),
            Axis::Down => ("above", "below", "above or below"),
        };
        ask("relation", format!("is the {a} {ask_by} the {b}?"), before);
        ask("relation", format!("is the {b} {ask_by} the {a}?"), behind);
        if objects.len() == 2 {
            let w = words(Some(axis));
            ask("relation", format!("what is {} the {b}?", w.before[0]), &name(&objects[0]));
            ask("relation", format!("what is {} the {a}?", w.behind[0]), &name(&objects[1]));
        }
    }
    let there = &objects[lots.below(objects.len().max(1)).min(objects.len().saturating_sub(1))];
    ask("presence", format!("is there a {}?", described(there.colour, there.shape)), "yes");
    let (colour, shape) = (lots.pick(Colour::ALL), lots.pick(Shape::ALL));
    let is_there = objects.iter().any(|o| o.colour == colour && o.shape == shape);
    let question = format!("is there a {}?", described(colour, shape));
    ask("presence", question, if is_there { "yes" } else { "no" });
    questions
}

/// `shape that is colour`, which needs no choice between "a" and "an".
fn described(colour: Colour, shape: Shape) -> String {
    format!("{} that is {}", shape.word(), colour.word())
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Background, Options, scene};
    use super::*;

    fn object(size: Size, colour: Colour, shape: Shape, x: f32, y: f32) -> Object {
        let radius = if size == Size::Small { 0.13 } else { 0.21 };
        Object { shape, colour, size, x, y, radius, turn: 0.0, tint: [0; 3] }
    }

    fn made(objects: Vec<Object>) -> Scene {
        let background =
            Background { ground: Ground::Plain, base: [128; 3], other: [140; 3], turn: 0.0, periods: 4.0, salt: 0 };
        Scene { seed: 0, index: 0, objects, background }
    }

    #[test]
    fn known_scenes_have_known_captions() {
        let circle = |x, y| object(Size::Small, Colour::Red, Shape::Circle, x, y);
        let square = |x, y| object(Size::Large, Colour::Blue, Shape::Square, x, y);
        let star = |x, y| object(Size::Small, Colour::Orange, Shape::Star, x, y);
        let check = |objects: Vec<Object>, expected: &str| {
            let captions = captions(&made(objects));
            assert_eq!(captions[0], expected);
            assert!(captions.len() >= 6);
        };
        check(vec![circle(0.2, 0.2)], "a small red circle");
        check(vec![circle(0.5, 0.2), square(0.5, 0.7)], "a small red circle above a large blue square");
        check(vec![square(0.25, 0.5), circle(0.8, 0.45)], "a large blue square left of a small red circle");
        check(
            vec![circle(0.15, 0.2), square(0.5, 0.6), star(0.85, 0.2)],
            "a small red circle, a large blue square and a small orange star from left to right",
        );
    }

    #[test]
    fn every_relation_is_true_of_the_positions() {
        let options = Options { min_objects: 2, max_objects: 2 };
        for index in 0..2000 {
            let scene = scene(11, index, &options);
            let [a, b] = scene.objects.as_slice() else { panic!("two objects were asked for") };
            let caption = canonical(&scene);
            if caption.contains("above") {
                assert!(b.y - a.y > 2.0 * (b.x - a.x).abs(), "{scene:?}");
            } else {
                assert!(caption.contains("left of"), "{caption}");
                assert!(b.x - a.x > 2.0 * (b.y - a.y).abs(), "{scene:?}");
            }
        }
    }

    #[test]
    fn questions_cover_all_kinds_and_are_never_asked_twice_with_two_answers() {
        let mut kinds = std::collections::BTreeSet::new();
        for index in 0..500 {
            let scene = scene(12, index, &Options::default());
            let questions = questions(&scene);
            for q in &questions {
                kinds.insert(q.kind.clone());
                let same = questions.iter().filter(|p| p.question == q.question);
                assert!(same.into_iter().all(|p| p.answer == q.answer), "{q:?}");
            }
        }
        let kinds: Vec<_> = kinds.iter().map(String::as_str).collect();
        assert_eq!(kinds, ["colour", "count", "presence", "relation", "shape", "size"]);
    }
}
