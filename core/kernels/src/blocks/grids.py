"""Writes grids.bin, the code books of ggml's iq formats as the `gguf` package has them.

Run: `python core/kernels/src/blocks/grids.py`
"""

from pathlib import Path

from gguf import quants

BOOKS = [quants.IQ2_XXS, quants.IQ2_XS, quants.IQ2_S, quants.IQ1_S, quants.IQ3_XXS, quants.IQ3_S]
# A number of three bits has four, as in the package.
out = b"".join(bytes.fromhex(book.grid_hex.decode()) for book in BOOKS)
assert len(out) == 512 + 1024 + 2048 + 4096 + 512 + 1024
(Path(__file__).parent / "grids.bin").write_bytes(out)
print(len(out), "bytes")
