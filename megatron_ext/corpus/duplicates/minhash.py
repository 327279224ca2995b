"""Band hashes of MinHash signatures: near-duplicates share at least one."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.duplicates.config import MinHashConfig
from megatron_ext.corpus.duplicates.folding import folding
from megatron_ext.corpus.duplicates.keys import NO_KEY
from megatron_ext.errors import MissingDependencyError

# Scripts (ISO 15924) that put no space between words: those of complex context in UAX #14 (class SA), those with
# ideographic characters (class ID), Balinese and Javanese, and Tibetan, which parts syllables instead.
_COMPLEX_CONTEXT = {"Ahom", "Khmr", "Lana", "Laoo", "Mymr", "Tale", "Talu", "Tavt", "Thai"}
_IDEOGRAPHIC = {"Bopo", "Hani", "Hans", "Hant", "Hira", "Hrkt", "Jpan", "Kana", "Yiii"}
UNSPACED_SCRIPTS = frozenset({*_COMPLEX_CONTEXT, *_IDEOGRAPHIC, "Bali", "Java", "Tibt"})


def signatures(
    texts: Sequence[str], scripts: Sequence[str | None], config: MinHashConfig
) -> NDArray[np.uint64]:
    """One hash for each band of each text.

    Shingles are ``config.word_ngram`` words, or ``config.character_ngram`` characters in a script without spaces,
    of the folded text. A text with fewer words has no shingle, so no near-duplicates: only exact ones are found.
    Python's version of Unicode decides about the characters that it does not know, so all workers need one.

    Args:
        texts: documents.
        scripts: ISO 15924, of each.
        config: bands, rows, lengths of shingles, seed.

    Returns:
        uint64 ``[len(texts), bands]``; ``NO_KEY`` in all bands of a text without shingles.

    Raises:
        MissingDependencyError: rensa is not installed.
    """
    spaced = np.array([script not in UNSPACED_SCRIPTS for script in scripts], dtype=bool)
    hashes, offsets = folding().shingles(list(texts), spaced, config.word_ngram, config.character_ngram)
    keys = np.full((len(texts), config.bands), NO_KEY)
    long_enough = np.diff(offsets) > 0
    if long_enough.any():
        starts = np.concatenate([offsets[:1], offsets[1:][long_enough]])
        minima = _minima(hashes, starts, config)
        keys[long_enough] = _band_hashes(minima.reshape(-1, config.bands, config.rows))
    return keys


def _minima(
    hashes: NDArray[np.uint64], offsets: NDArray[np.uint64], config: MinHashConfig
) -> NDArray[np.uint32]:
    """uint32 ``[texts, bands × rows]``: the least of each text's hashes under each permutation."""
    # rensa's workers are sized when it is first used; a process of ours is one of many and wants one.
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    try:
        from rensa import RMinHash  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "rensa", "find near-duplicates", "pip install 'megatron-ext[corpus]'"
        ) from error
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets, config.bands * config.rows, config.seed
    )
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _band_hashes(minima: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """uint64 ``[texts, bands]`` of uint32 ``[texts, bands, rows]``.

    Nothing tells one band from another: each has permutations of its own, so that their minima differ.
    """
    hashes = np.zeros(minima.shape[:2], np.uint64)
    for row in range(minima.shape[2]):
        hashes = _mixed((hashes + np.uint64(0x9E3779B97F4A7C15)) ^ minima[:, :, row])
    return np.where(hashes == NO_KEY, np.uint64(1), hashes)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The last steps of SplitMix64 (Steele, Lea, Flood 2014): every bit depends on every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
