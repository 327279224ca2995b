"""Datasets of any size without their tokens: indices are real, tokens are holes of sparse files.

Holes take no disk and read like any page in the cache; an index takes 20 bytes a document.
"""

import logging
import struct
from pathlib import Path

import numpy as np

DOCUMENT_TOKENS = 600


def write_set(prefix: Path, tokens: int) -> None:
    """Write a set of so many tokens, which are holes, in documents of all lengths around `DOCUMENT_TOKENS`."""
    documents = max(tokens // DOCUMENT_TOKENS, 1)
    lengths = np.random.default_rng(tokens).integers(1, 2 * DOCUMENT_TOKENS, documents)
    lengths = np.maximum(lengths * (tokens / lengths.sum()), 1).astype("<i4")
    lengths[: tokens - int(lengths.sum())] += 1
    ends = 2 * np.cumsum(lengths, dtype="<i8")
    with Path(f"{prefix}.idx").open("wb") as idx:
        idx.write(struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, documents, documents + 1))
        idx.write(lengths.tobytes())
        idx.write((ends - 2 * lengths).tobytes())
        idx.write(np.arange(documents + 1, dtype="<i8").tobytes())
    with Path(f"{prefix}.bin").open("wb") as bin_:
        bin_.truncate(int(ends[-1]))


def quiet() -> None:
    """Leave the plan of the blend out of the output."""
    logging.getLogger("megatron_ext").setLevel(logging.WARNING)
