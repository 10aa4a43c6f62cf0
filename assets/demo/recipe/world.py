"""Reads what `limber shapes` wrote, and turns scenes into text documents for the language model.

A frozen language model reads an image prefix only if its own text taught it to condition on what came before.
So a document describes one scene several times in varied wording. One of the wordings is a layout:
the scene row by row on a 4 x 4 grid, one word a cell ("nothing", "smallredcircle"), as a person might
write down a board game.
"""
import json
import pathlib

GRID = 4
EOS = "<|endoftext|>"


def load(folder, limit=None):
    """Entries of a data set in the order of their names."""
    files = sorted(pathlib.Path(folder).glob("image_data/*/*.json"))[:limit]
    return [json.loads(f.read_bytes()) for f in files]


def objects(entry):
    return entry["metadata"]["objects"]


def cell_word(o):
    return o["size"] + o["colour"] + o["shape"]


def coverage(o, grid):
    """Share of each cell that the object's enclosing circle covers, row-major, from 6 x 6 samples a cell."""
    n, shares = 6, []
    for row in range(grid):
        for column in range(grid):
            inside = 0
            for i in range(n):
                dy = (row + (i + 0.5) / n) / grid - o["y"]
                for j in range(n):
                    dx = (column + (j + 0.5) / n) / grid - o["x"]
                    inside += dx * dx + dy * dy <= o["radius"] ** 2
            shares.append(inside / (n * n))
    return shares


def layout(entry, rng, grid=GRID):
    """One word a cell. How much of a cell an object must cover to be named varies from text to text."""
    cells, best = ["nothing"] * (grid * grid), [0.0] * (grid * grid)
    least = rng.uniform(0.1, 0.45)
    for o in objects(entry):
        shares = coverage(o, grid)
        top = max(shares)
        for i, share in enumerate(shares):
            if (share >= least or share >= 0.999 * top) and share > best[i]:
                if share < 0.999 * top and rng.random() < 0.04:
                    continue
                cells[i], best[i] = cell_word(o), share
    return cells


def rows(entry, rng):
    """The same on a 3 x 3 grid, in ordinary words."""
    split = {cell_word(o): f"{o['size']} {o['colour']} {o['shape']}" for o in objects(entry)}
    cells = [split.get(c, c) for c in layout(entry, rng, 3)]
    names = ["top", "middle", "bottom"]
    return "\n".join(f"{n}: {', '.join(cells[3 * i:3 * i + 3])}" for i, n in enumerate(names))


def pictured(entry):
    """The wording that captioning asks for."""
    return "A picture of " + entry["captions"][0]


def asked(question):
    return f"Q: {question['question']} A: {question['answer']}"


def caption(entry, rng):
    r = rng.random()
    if r < 0.75:
        return pictured(entry)
    return entry["captions"][0] if r < 0.8 else rng.choice(entry["captions"])


def document(entry, rng):
    """Segments of one document; a list is a layout. Segments are tokenised one by one and joined as they are."""
    r = rng.random()
    cells = "".join(" " + c for c in layout(entry, rng))
    questions = entry["metadata"]["questions"]
    if r < 0.70:
        return [cells, caption(entry, rng), EOS]
    if r < 0.86:
        q = rng.sample(questions, min(len(questions), rng.choice([1, 1, 2])))
        return [cells, "\n".join(asked(x) for x in q), EOS]
    lines = rng.sample(entry["captions"], 3) + [pictured(entry)]
    if rng.random() < 0.4:
        lines.append(rows(entry, rng))
    rng.shuffle(lines)
    lines += [asked(x) for x in rng.sample(questions, 1)]
    return ["\n".join(lines), EOS]
