"""Writes the items of `train/` as Parquet files in the forms that Hugging Face data sets have.

`bytes.parquet` has `image: {bytes, path}` and `text`, as `datasets` writes it, in row groups of five, snappy-compressed;
`data/` the same in two shards with lists of captions and gzip, without dictionaries and with pages of one row;
`paths.parquet` has paths and captions in a null-padded column of another name; `talk.parquet` conversations.

Run: `python tests/golden/parquet/export.py`, after `train/export.py`
"""

import json
import sys
from pathlib import Path

import pyarrow
from pyarrow import parquet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start  # noqa: E402


def main():
    folder = start(__file__, "pyarrow")
    train = folder.parent / "train"
    items = [json.loads(line) for line in (train / "data.jsonl").read_text().splitlines()]
    images = [{"bytes": (train / item["image"]).read_bytes(), "path": Path(item["image"]).name} for item in items]
    captions = [item["caption"] for item in items]
    image = pyarrow.array(images, pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))

    whole = pyarrow.table({"id": pyarrow.array(range(len(items))), "image": image, "text": captions})
    parquet.write_table(whole, folder / "bytes.parquet", row_group_size=5, compression="snappy")

    (folder / "data").mkdir(exist_ok=True)
    lists = pyarrow.table({"image": image, "captions": [["", caption, None] for caption in captions]})
    for number, (first, last) in enumerate([(0, 6), (6, len(items))]):
        parquet.write_table(
            lists.slice(first, last - first),
            folder / "data" / f"train-{number:05}-of-00002.parquet",
            compression="gzip",
            use_dictionary=False,
            data_page_size=1,
            write_batch_size=1,
        )

    paths = [{"bytes": None, "path": f"../train/{item['image']}"} for item in items]
    named = pyarrow.table({"picture": pyarrow.array(paths, image.type), "blip_caption": captions, "caption": ["no"] * len(items)})
    parquet.write_table(named, folder / "paths.parquet", compression="none", data_page_version="2.0")

    talk = [[{"from": "human", "value": "<image>\n"}, {"from": "gpt", "value": caption}] for caption in captions]
    parquet.write_table(pyarrow.table({"image": image, "conversations": talk}), folder / "talk.parquet", compression="snappy")

    parquet.write_table(pyarrow.table({"img": image, "label": list(range(len(items)))}), folder / "labels.parquet")
    for path in sorted(folder.rglob("*.parquet")):
        print(path.relative_to(folder), path.stat().st_size, parquet.ParquetFile(path).metadata.num_row_groups, "row groups")


main()
