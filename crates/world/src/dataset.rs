//! Writes a world as a data set in the original's layout.
//!
//! ```text
//! DIR/images/<sub>/<name>.png        <sub> holds a thousand scenes
//! DIR/image_data/<sub>/<name>.json   {"image_path", "captions", "metadata"}
//! DIR/captions.json ...              lists over all scenes: `lists.rs` says which
//! ```
//!
//! Each file appears whole or not at all, the JSON after its image, so that a run that was cut short goes on
//! where it stopped, and readers never meet an image without words or words without an image.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::draw::{MIN_SIDE, draw};
use super::language::{Question, captions, questions};
use super::lists::{self, Listed};
use super::scene::{Background, MAX_OBJECTS, Object, Options, Scene, scene};

/// Largest side that is drawn.
const MAX_SIDE: u32 = 4096;
/// Scenes in one folder.
const FOLDER: u64 = 1000;

/// Which split of a world is drawn; the two share no scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// To learn from: the scenes of the seed itself.
    #[default]
    Train,
    /// Held out.
    Val,
}

impl Split {
    /// What held-out scenes' seed has beyond the seed of the world.
    const HELD_OUT: u64 = 1 << 32;

    /// The name in options and lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }

    /// The seed of this split's scenes in the world of `seed`.
    pub fn seed(self, seed: u64) -> u64 {
        match self {
            Self::Train => seed,
            Self::Val => seed ^ Self::HELD_OUT,
        }
    }
}

/// What to write where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldOptions {
    /// Number of scenes.
    pub count: u64,
    /// Seed of the world; another seed is another, disjoint stream of lots.
    pub seed: u64,
    /// Which split of it.
    pub split: Split,
    /// Side of the images in pixels, at least [`MIN_SIDE`].
    pub size: u32,
    /// Fewest objects in a scene.
    pub min_objects: usize,
    /// Most objects in a scene.
    pub max_objects: usize,
    /// The folder; made where it is missing.
    pub out: PathBuf,
}

impl WorldOptions {
    /// Options with the usual size (64) and number of objects (1 to 3).
    pub fn new(count: u64, seed: u64, out: impl Into<PathBuf>) -> Self {
        let Options { min_objects, max_objects } = Options::default();
        let (split, size) = (Split::Train, MIN_SIDE);
        Self { count, seed, split, size, min_objects, max_objects, out: out.into() }
    }

    fn check(&self) -> Result<Options> {
        let Self { count, size, min_objects, max_objects, .. } = *self;
        ensure!(count > 0, "count is 0, expected at least 1");
        ensure!((MIN_SIDE..=MAX_SIDE).contains(&size), "image size is {size}, expected {MIN_SIDE} to {MAX_SIDE}");
        ensure!(
            1 <= min_objects && min_objects <= max_objects && max_objects <= MAX_OBJECTS,
            "objects in a scene are {min_objects} to {max_objects}, expected a range within 1 to {MAX_OBJECTS}"
        );
        ensure!(
            !self.out.exists() || self.out.is_dir(),
            "{} is not a folder: name a folder, new or existing",
            self.out.display()
        );
        Ok(Options { min_objects, max_objects })
    }
}

/// One JSON file; `image_path` is relative to the data set's folder.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    image_path: String,
    captions: Vec<String>,
    metadata: Metadata,
}

#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    seed: u64,
    index: u64,
    size: u32,
    objects: Vec<Object>,
    background: Background,
    questions: Vec<Question>,
}

/// Writes the data set; `progress` hears the number of scenes that are there after each one.
///
/// # Errors
/// Options out of range, a folder that cannot be written, or one that holds another world:
/// scenes of another seed, size or number of objects under the names that this run would use.
pub fn write_dataset(options: &WorldOptions, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let bounds = options.check()?;
    let seed = options.split.seed(options.seed);
    for index in 0..options.count {
        let image_path = image_path(index);
        let image = options.out.join(&image_path);
        let json = options.out.join(format!("image_data/{:05}/{index:08}.json", index / FOLDER));
        if index % FOLDER == 0 {
            for file in [&image, &json] {
                let folder = file.parent().unwrap_or(&options.out);
                fs::create_dir_all(folder).with_context(|| format!("cannot make folder {}", folder.display()))?;
            }
        }
        let scene = scene(seed, index, &bounds);
        if image.is_file() && json.is_file() {
            check_same(&json, &scene, options.size)?;
        } else {
            let mut png = Cursor::new(Vec::new());
            draw(&scene, options.size)
                .write_to(&mut png, image::ImageFormat::Png)
                .with_context(|| format!("cannot encode {}", image.display()))?;
            save(&image, png.get_ref())?;
            let entry = Entry {
                image_path,
                captions: captions(&scene),
                metadata: Metadata {
                    seed: scene.seed,
                    index,
                    size: options.size,
                    questions: questions(&scene),
                    objects: scene.objects,
                    background: scene.background,
                },
            };
            let text = serde_json::to_vec(&entry).context("cannot write a scene as JSON")?;
            save(&json, &text)?;
        }
        progress(index + 1);
    }
    let count = options.count;
    let listed = move |index| Listed { scene: scene(seed, index, &bounds), file_name: image_path(index) };
    let scenes = || -> Box<dyn Iterator<Item = Listed>> { Box::new((0..count).map(listed)) };
    lists::write(&options.out, seed, options.split.name(), &scenes)
}

/// Where the image of scene `index` lies in its data set's folder.
pub fn image_path(index: u64) -> String {
    format!("images/{:05}/{index:08}.png", index / FOLDER)
}

/// Refuses to go on in a folder that holds another world.
fn check_same(json: &Path, scene: &Scene, size: u32) -> Result<()> {
    let text = fs::read(json).with_context(|| format!("cannot read {}", json.display()))?;
    let entry: Entry = serde_json::from_slice(&text).with_context(|| format!("{} is no scene", json.display()))?;
    let there = entry.metadata;
    ensure!(
        there.seed == scene.seed && there.size == size && there.objects.len() == scene.objects.len(),
        "{} holds a scene of seed {}, size {}, {} objects, asked for were seed {}, size {size}, {} objects: name another folder",
        json.display(),
        there.seed,
        there.size,
        there.objects.len(),
        scene.seed,
        scene.objects.len()
    );
    Ok(())
}

/// Writes beside the file, then renames.
fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension(format!("part{}", std::process::id()));
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(options: &WorldOptions) -> Result<u64> {
        let mut last = 0;
        write_dataset(options, &mut |n| last = n)?;
        Ok(last)
    }

    #[test]
    fn a_data_set_is_complete_repeatable_and_resumable() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = WorldOptions::new(5, 3, folder.path());
        assert_eq!(write(&options).expect("written"), 5);
        let image = folder.path().join("images/00000/00000002.png");
        let json = folder.path().join("image_data/00000/00000002.json");
        let entry: Entry = serde_json::from_slice(&fs::read(&json).expect("json")).expect("entry");
        assert_eq!(entry.image_path, "images/00000/00000002.png");
        assert_eq!(entry.metadata.index, 2);
        let decoded = image::open(&image).expect("a PNG").to_rgb8();
        assert_eq!(decoded, draw(&scene(3, 2, &Options::default()), 64));

        // A lost image comes back the same; a file that is there is left alone.
        let before = fs::read(&image).expect("image");
        fs::remove_file(&image).expect("removed");
        let untouched = folder.path().join("images/00000/00000000.png");
        fs::write(&untouched, b"mine").expect("written");
        assert_eq!(write(&options).expect("resumed"), 5);
        assert_eq!(fs::read(&image).expect("image"), before);
        assert_eq!(fs::read(&untouched).expect("image"), b"mine");

        // A longer run keeps what is there and adds to it.
        let longer = WorldOptions { count: 7, ..options.clone() };
        assert_eq!(write(&longer).expect("extended"), 7);

        let error = write(&WorldOptions { seed: 4, ..options.clone() }).expect_err("another world");
        assert!(error.to_string().contains("seed 3"), "{error}");
        // The held-out scenes of the same seed are other scenes.
        let error = write(&WorldOptions { split: Split::Val, ..options }).expect_err("the other split");
        assert!(error.to_string().contains("seed 4294967299"), "{error}");
    }

    #[test]
    fn the_lists_hold_every_scene_and_agree_with_each_other() {
        use serde_json::Value;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = WorldOptions { split: Split::Val, ..WorldOptions::new(12, 3, folder.path()) };
        write(&options).expect("written");
        let read = |name: &str| -> Value {
            let text = fs::read(folder.path().join(name)).expect("a list");
            serde_json::from_slice(&text).expect("JSON")
        };
        let files = ["captions.json", "questions.json", "annotations.json", "labels.json"];
        let [captioned, asked, answered, labelled] = files.map(read);
        for list in [&captioned, &asked, &answered, &labelled] {
            assert_eq!((&list["info"]["split"], &list["info"]["seed"]), (&"val".into(), &4_294_967_299_u64.into()));
        }
        assert_eq!(captioned["images"].as_array().expect("images").len(), 12);
        for (index, image) in captioned["images"].as_array().expect("images").iter().enumerate() {
            assert_eq!(image["id"], index);
            assert!(folder.path().join(image["file_name"].as_str().expect("a name")).is_file());
            assert_eq!(labelled["images"][index]["file_name"], image["file_name"]);
            let json = folder.path().join(format!("image_data/00000/{index:08}.json"));
            let entry: Entry = serde_json::from_slice(&fs::read(json).expect("json")).expect("entry");
            let own = |list: &Value, key: &str, what: &str| -> Vec<String> {
                let of = list[key].as_array().expect("a list").iter().filter(|item| item["image_id"] == index);
                of.map(|item| item[what].as_str().expect("text").to_string()).collect()
            };
            assert_eq!(own(&captioned, "annotations", "caption"), entry.captions);
            let mut there: Vec<(String, String)> = Vec::new();
            for q in entry.metadata.questions {
                if !there.iter().any(|(question, _)| *question == q.question) {
                    there.push((q.question, q.answer));
                }
            }
            let listed = own(&asked, "questions", "question").into_iter();
            let answers = own(&answered, "annotations", "multiple_choice_answer");
            assert_eq!(listed.zip(answers).collect::<Vec<_>>(), there);
        }
        let (questions, annotations) = (&asked["questions"], &answered["annotations"]);
        let ids = |list: &Value| -> Vec<u64> {
            list.as_array().expect("a list").iter().map(|q| q["question_id"].as_u64().expect("a number")).collect()
        };
        assert_eq!(ids(questions), ids(annotations));
        assert!(ids(questions).windows(2).all(|pair| pair[0] < pair[1]));
        for annotation in annotations.as_array().expect("a list") {
            let answers = annotation["answers"].as_array().expect("answers");
            assert_eq!(answers.len(), 10);
            assert!(answers.iter().all(|answer| answer["answer"] == annotation["multiple_choice_answer"]));
            assert!(["yes/no", "number", "other"].contains(&annotation["answer_type"].as_str().expect("text")));
        }
    }

    #[test]
    fn wrong_options_are_refused_with_what_is_allowed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let good = WorldOptions::new(1, 1, folder.path().join("world"));
        let file = folder.path().join("file");
        fs::write(&file, b"x").expect("written");
        let check = |options: WorldOptions, expected: &str| {
            let error = write(&options).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(WorldOptions { count: 0, ..good.clone() }, "count is 0");
        check(WorldOptions { size: 63, ..good.clone() }, "64 to 4096");
        check(WorldOptions { min_objects: 0, ..good.clone() }, "within 1 to 3");
        check(WorldOptions { max_objects: 4, ..good.clone() }, "within 1 to 3");
        check(WorldOptions { min_objects: 3, max_objects: 2, ..good.clone() }, "3 to 2");
        check(WorldOptions { out: file, ..good }, "is not a folder");
    }
}
