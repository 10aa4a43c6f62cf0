"""Pictures of emoji with their names as captions, from two npm packages: `python emoji.py FOLDER` (needs npm, and Pillow).

FOLDER/images/        two pictures of each of 1,412 emoji, in Google's style and in Twitter's, 224 px on white
FOLDER/train.jsonl    lines of {"image": path, "caption": name}
FOLDER/held.jsonl     the same of 15 % of the emoji, none of which stands in train.jsonl

Pictures and names: emoji-datasource (MIT), with Noto Emoji (Apache-2.0) and Twemoji (CC-BY 4.0).
"""

import io
import json
import random
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

VERSION = "16.0.0"
STYLES = ["google", "twitter"]


def package(style):
    """The files of a style's package, by their paths."""
    with tempfile.TemporaryDirectory() as folder:
        name = f"emoji-datasource-{style}@{VERSION}"
        packed = subprocess.run(["npm", "pack", "--silent", name], cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
        wanted = f"package/img/{style}/64/"
        with tarfile.open(Path(folder) / packed) as archive:
            return {
                member.name.removeprefix(wanted): archive.extractfile(member).read()
                for member in archive
                if member.isfile() and (member.name.startswith(wanted) or member.name == "package/emoji.json")
            }


def write(picture, path):
    picture = Image.open(io.BytesIO(picture)).convert("RGBA")
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture)
    page.convert("RGB").resize((224, 224), Image.BICUBIC).save(path)


def main():
    folder = Path(sys.argv[1])
    (folder / "images").mkdir(parents=True, exist_ok=True)
    files = {style: package(style) for style in STYLES}
    emoji = [
        entry
        for entry in json.loads(files["google"]["package/emoji.json"])
        if all(entry[f"has_img_{style}"] for style in STYLES) and entry["category"] not in ("Flags", "Symbols", "Component")
    ]
    random.seed(7)
    random.shuffle(emoji)
    held = int(len(emoji) * 0.15)
    for split, entries in (("train", emoji[held:]), ("held", emoji[:held])):
        lines = []
        for entry in entries:
            name = (entry["name"] or entry["short_name"].replace("_", " ")).lower().strip()
            for style in STYLES:
                path = f"images/{style}-{entry['image']}"
                write(files[style][entry["image"]], folder / path)
                lines.append(json.dumps({"image": path, "caption": name}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{folder / split}.jsonl: {len(lines)} pictures of {len(entries)} emoji")


main()
