//! The section `data`: what a stitch is trained on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most threads that read ahead: more than a machine has processors, since a disk far away answers many at once.
pub const MAX_WORKERS: usize = 256;

/// How a data set is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// The original's folder: `images/<sub>/<name>.jpg`, `image_data/<sub>/<name>.json`.
    Magma,
    /// COCO's captions JSON; images in a folder beside it named after the split.
    Coco,
    /// Lines of `{"image": path, "caption": text}` or `"captions": [texts]`; `file_name` and `text` are read too.
    Jsonl,
    /// A table whose header names `image` and `caption`; `.tsv` is split at tabs.
    Csv,
    /// Tar shards as img2dataset writes them: one, a folder of them, a list of them in a `.txt`, brace ranges.
    Webdataset,
    /// LLaVA's conversations: a JSON list, or lines, of `{"image": path, "conversations": [{"from": "human", "value": text},
    /// ...]}`; the answers alone have a loss.
    Llava,
    /// A folder of images with `metadata.jsonl`, `metadata.csv` or `metadata.parquet`, as Hugging Face's `imagefolder` has it.
    Imagefolder,
    /// Parquet files of a Hugging Face data set: one, a folder of them, a pattern such as `data/train-*.parquet`.
    Parquet,
}

/// A data set of images and captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// How it is laid out.
    pub format: DataFormat,
    /// File, folder or shards.
    #[schemars(length(min = 1), extend("format" = "path"))]
    pub path: String,
    /// Folder from which the images' paths count; by default the list's own, or for `coco` the usual ones beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("format" = "path"))]
    pub images: Option<String>,
    /// The key or column of the image; by default the first common name that is there, such as `image` or `file_name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub image_column: Option<String>,
    /// The key or column of the caption; by default the first common name that is there, such as `caption` or `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub caption_column: Option<String>,
    /// Folder of features that were computed before; images are then not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("format" = "path"))]
    pub features: Option<String>,
    /// Varies images anew in every epoch, where the encoder says how (NF-ResNet: random crop and flip); by default as the
    /// original does under `compat: original`, else not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<bool>,
    /// A new order each epoch, a function of seed and epoch; without it the set's own order, each item's first caption.
    #[serde(default = "shuffle")]
    pub shuffle: bool,
    /// Threads that read and decode ahead of the step; 0 reads in the step's own.
    #[serde(default = "workers")]
    #[schemars(range(min = 0, max = MAX_WORKERS))]
    pub workers: usize,
    /// Largest fraction of items that may be corrupt or missing; they are replaced by others and named in a file.
    #[serde(default = "max_skipped")]
    #[schemars(range(min = 0, max = 1))]
    pub max_skipped: f64,
}

fn shuffle() -> bool {
    true
}

fn workers() -> usize {
    2
}

fn max_skipped() -> f64 {
    0.05
}

impl Data {
    /// A data set with every other key at its default.
    pub fn new(format: DataFormat, path: impl Into<String>) -> Self {
        Self {
            format,
            path: path.into(),
            images: None,
            image_column: None,
            caption_column: None,
            features: None,
            augment: None,
            shuffle: shuffle(),
            workers: workers(),
            max_skipped: max_skipped(),
        }
    }
}

impl DataFormat {
    /// Every format under its name in configs and flags, with its explanation in the help.
    pub const NAMED: [(&str, DataFormat, &str); 8] = [
        ("magma", DataFormat::Magma, "The original's folder: images/SUB/NAME.jpg, image_data/SUB/NAME.json"),
        ("coco", DataFormat::Coco, "COCO captions JSON, with the images in a folder beside it"),
        ("jsonl", DataFormat::Jsonl, "Lines of {\"image\": PATH, \"caption\": TEXT} or \"captions\": [TEXT, ...]"),
        ("csv", DataFormat::Csv, "A table with the columns image and caption, separated by commas or tabs"),
        ("webdataset", DataFormat::Webdataset, "Tar shards: one, a folder or a list of them, or brace ranges"),
        ("llava", DataFormat::Llava, "LLaVA's JSON of conversations, or lines of them"),
        (
            "imagefolder",
            DataFormat::Imagefolder,
            "Hugging Face's folder of images with metadata.jsonl, .csv or .parquet",
        ),
        ("parquet", DataFormat::Parquet, "Parquet files of a Hugging Face data set: one, a folder of them, a pattern"),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_alike_in_configs_and_flags() {
        for (name, format, _) in DataFormat::NAMED {
            assert_eq!(serde_json::to_value(format).unwrap(), name);
        }
        let schema = limber_core::settings::schema::<DataFormat>();
        assert_eq!(limber_core::settings::constants(&schema, &schema).len(), DataFormat::NAMED.len());
    }
}
