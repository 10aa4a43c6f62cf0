//! Lists over a whole world, in the forms that other tools read, beside its images.
//!
//! ```text
//! DIR/captions.json      COCO's captions: images [{id, file_name}], annotations [{id, image_id, caption}]
//! DIR/questions.json     VQAv2's questions: questions [{question_id, image_id, question}]
//! DIR/annotations.json   VQAv2's annotations: the answer of each question, ten times, as ten people who agree
//! DIR/labels.json        classes [name], images [{id, file_name, labels: [index in classes]}]
//! ```
//!
//! `image_id` is the scene's index, `file_name` counts from DIR, `question_id` is `100 * image_id` and up.
//! Sources followed: the formats of `captions_val2014.json` (cocodataset.org) and of
//! `v2_OpenEnded_mscoco_val2014_questions.json` with its annotations (visualqa.org).

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::language::{Question, captions, questions};
use super::scene::{Colour, Scene, Shape};
use limber_weights as weights;

/// People who were asked, in VQAv2's form: its accuracy takes the mean over those left when one is left out.
const ANSWERS: usize = 10;
/// Questions that the ids leave room for.
const QUESTIONS_A_SCENE: u64 = 100;

/// One scene and its image's path from the data set's folder.
pub(super) struct Listed {
    pub(super) scene: Scene,
    pub(super) file_name: String,
}

/// The classes of [`labels`]: every shape, every colour, every colour with a shape.
pub fn classes() -> Vec<String> {
    let shapes = Shape::ALL.iter().map(|shape| shape.word().to_string());
    let colours = Colour::ALL.iter().map(|colour| colour.word().to_string());
    let both = Colour::ALL.iter().flat_map(|c| Shape::ALL.iter().map(|s| format!("{} {}", c.word(), s.word())));
    shapes.chain(colours).chain(both).collect()
}

/// Places in [`classes`] of what a scene holds, ascending, each once. Sizes, positions and numbers are no classes.
pub fn labels(scene: &Scene) -> Vec<usize> {
    let (shapes, colours) = (Shape::ALL.len(), Colour::ALL.len());
    let classes_of = |o: &super::Object| {
        // The order of the declaration is the order of `ALL`.
        let (shape, colour) = (o.shape as usize, o.colour as usize);
        [shape, shapes + colour, shapes + colours + colour * shapes + shape]
    };
    let mut labels: Vec<usize> = scene.objects.iter().flat_map(classes_of).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

/// The questions of a scene, none of them twice.
pub(super) fn asked(scene: &Scene) -> Vec<Question> {
    let mut all: Vec<Question> = Vec::new();
    for question in questions(scene) {
        if all.iter().all(|q| q.question != question.question) {
            all.push(question);
        }
    }
    all
}

/// VQAv2's class of an answer.
fn answer_type(question: &Question) -> &'static str {
    match (question.kind.as_str(), question.answer.as_str()) {
        ("count", _) => "number",
        (_, "yes" | "no") => "yes/no",
        _ => "other",
    }
}

/// Writes the four lists; `scenes` are read once for each. `split` is what VQAv2 calls `data_subtype`.
///
/// # Errors
/// A file that cannot be written; what was there stays.
pub(super) fn write(
    out: &Path,
    seed: u64,
    split: &str,
    scenes: &dyn Fn() -> Box<dyn Iterator<Item = Listed>>,
) -> Result<()> {
    let info = json!({"description": "limber shapes", "version": "1", "seed": seed, "split": split});
    let head = |more: Value| {
        let mut head = json!({"info": info, "licenses": []});
        if let (Some(head), Value::Object(more)) = (head.as_object_mut(), more) {
            head.extend(more);
        }
        head
    };
    let image = |l: &Listed| json!({"id": l.scene.index, "file_name": l.file_name});
    let caption = |l: &Listed| -> Vec<Value> {
        let (index, texts) = (l.scene.index, captions(&l.scene));
        let one =
            |(n, text): (usize, String)| json!({"id": index * 100 + n as u64, "image_id": index, "caption": text});
        texts.into_iter().enumerate().map(one).collect()
    };
    weights::fill(&out.join("captions.json"), |file| {
        let mut list = List::begin(file, &head(json!({})))?;
        list.field("images", scenes().map(|l| image(&l)))?;
        list.field("annotations", scenes().flat_map(|l| caption(&l)))?;
        list.end()
    })?;
    let vqa = json!({"data_type": "shapes", "data_subtype": split, "task_type": "Open-Ended"});
    let numbered = |l: &Listed| -> Vec<(u64, u64, Question)> {
        let index = l.scene.index;
        let all = asked(&l.scene).into_iter().zip(0..);
        all.map(|(question, n)| (index * QUESTIONS_A_SCENE + n, index, question)).collect()
    };
    weights::fill(&out.join("questions.json"), |file| {
        let mut list = List::begin(file, &head(vqa.clone()))?;
        let one = |(id, image, q): (u64, u64, Question)| json!({"question_id": id, "image_id": image, "question": q.question});
        list.field("questions", scenes().flat_map(|l| numbered(&l)).map(one))?;
        list.end()
    })?;
    weights::fill(&out.join("annotations.json"), |file| {
        let mut list = List::begin(file, &head(vqa.clone()))?;
        let one = |(id, image, q): (u64, u64, Question)| {
            let answer = |n: usize| json!({"answer_id": n, "answer": q.answer, "answer_confidence": "yes"});
            json!({
                "question_id": id,
                "image_id": image,
                "question_type": q.kind,
                "answer_type": answer_type(&q),
                "multiple_choice_answer": q.answer,
                "answers": (1..=ANSWERS).map(answer).collect::<Vec<_>>(),
            })
        };
        list.field("annotations", scenes().flat_map(|l| numbered(&l)).map(one))?;
        list.end()
    })?;
    weights::fill(&out.join("labels.json"), |file| {
        let mut list = List::begin(file, &head(json!({"classes": classes()})))?;
        let one = |l: Listed| json!({"id": l.scene.index, "file_name": l.file_name, "labels": labels(&l.scene)});
        list.field("images", scenes().map(one))?;
        list.end()
    })
}

/// A JSON map whose lists are written item by item, so that no list is held in memory.
struct List<W: Write>(W);

impl<W: Write> List<W> {
    /// Begins with the entries of `head`, at least one.
    fn begin(mut file: W, head: &Value) -> Result<Self> {
        let text = serde_json::to_string(head)?;
        file.write_all(text.strip_suffix('}').unwrap_or(&text).as_bytes())?;
        Ok(Self(file))
    }

    fn field<T: Serialize>(&mut self, name: &str, items: impl Iterator<Item = T>) -> Result<()> {
        write!(self.0, ",\n\"{name}\":[")?;
        for (n, item) in items.enumerate() {
            self.0.write_all(if n == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut self.0, &item)?;
        }
        self.0.write_all(b"\n]")?;
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.0.write_all(b"}\n")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Options, scene};
    use super::*;

    #[test]
    fn labels_name_what_is_there() {
        let classes = classes();
        assert_eq!(classes.len(), 7 + 8 + 56);
        for index in 0..300 {
            let scene = scene(21, index, &Options::default());
            let named: Vec<&str> = labels(&scene).iter().map(|at| classes[*at].as_str()).collect();
            for o in &scene.objects {
                for word in [o.shape.word().to_string(), o.colour.word().to_string()] {
                    assert!(named.contains(&word.as_str()), "{named:?}");
                }
                assert!(named.contains(&format!("{} {}", o.colour.word(), o.shape.word()).as_str()), "{named:?}");
            }
            let pairs = named.iter().filter(|name| name.contains(' ')).count();
            assert_eq!(pairs, scene.objects.len(), "no two objects share colour and shape");
        }
    }

    #[test]
    fn no_question_is_asked_twice_and_the_ids_have_room() {
        let mut twice = 0;
        for index in 0..2000 {
            let scene = scene(22, index, &Options::default());
            let asked = asked(&scene);
            twice += questions(&scene).len() - asked.len();
            let texts: std::collections::BTreeSet<&str> = asked.iter().map(|q| q.question.as_str()).collect();
            assert_eq!(texts.len(), asked.len());
            assert!((asked.len() as u64) < QUESTIONS_A_SCENE);
        }
        assert!(twice > 0, "some scene asks one question twice, or this test shows nothing");
    }
}
