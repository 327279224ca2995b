"""The blend of EMMA-500's shape: 546 sets, 49.152 M samples, megatron-core's greedy order."""

from functools import partial

import numpy as np
from megatron.core.datasets import helpers_cpp
from numpy.typing import NDArray
from timing import REPEATS, Figure, best, fresh, rates, seconds

from megatron_ext import _C

NUM_SETS, NUM_SAMPLES = 546, 49_152_000  # 12,000 iterations of 4,096 samples
SPREAD, LARGEST_SHARE = (
    2.7,
    0.04,
)  # of the MaLA corpus' 546 largest labels: deviation of log tokens, and English
BATCH = 8
PAGES = 0.1  # MB: what is less is below what the kernel counts
CHUNK = 1_000_000
DRAWS = 1_000_000  # of a figure that is a rate
MANY_SETS, MANY_DRAWS = 10_000, 100_000


def shares(num_sets: int) -> NDArray[np.float64]:
    """Weights as unequal as those of a corpus of hundreds of languages."""
    weights = np.random.default_rng(0).lognormal(sigma=SPREAD, size=num_sets)
    weights /= weights.sum()
    weights = np.minimum(weights, LARGEST_SHARE)
    return np.asarray(weights / weights.sum())


def figures(fraction: float) -> list[Figure]:
    """All figures of the blend; megatron-core builds this fraction of the whole order."""
    weights = shares(NUM_SETS)
    samples = round(NUM_SAMPLES * fraction)
    shape = f"blend of {NUM_SETS} sets × {samples / 1e6:g} M samples"
    first = fresh(_our_first_batch, weights)
    theirs = fresh(_their_first_batch, weights, samples)
    ours = best([first, fresh(_our_first_batch, weights)])
    _check_equal(weights, samples)
    return [
        Figure(f"{shape}: until the first batch", "s", ours.seconds, theirs.seconds),
        Figure(f"{shape}: memory until then", "MB", max(ours.megabytes, PAGES), theirs.megabytes),
        *_positions(weights, samples, shape, theirs.seconds),
        *_drawing(weights, NUM_SETS, DRAWS),
        *_drawing(shares(MANY_SETS), MANY_SETS, MANY_DRAWS)[:1],
    ]


def _our_first_batch(weights: NDArray[np.float64]) -> None:
    _C.Blend(weights).draw(BATCH)


def _their_first_batch(weights: NDArray[np.float64], samples: int) -> None:
    sets, indices = _their_order(weights, samples)
    list(zip(sets[:BATCH], indices[:BATCH], strict=True))


def _their_order(weights: NDArray[np.float64], samples: int) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    sets, indices = np.zeros(samples, dtype=np.int16), np.zeros(samples, dtype=np.int64)
    helpers_cpp.build_blending_indices(sets, indices, weights, len(weights), samples, False)
    return sets, indices


def _check_equal(weights: NDArray[np.float64], samples: int) -> None:
    sets, indices = _their_order(weights, samples)
    blend = _C.Blend(weights)
    for start in range(0, samples, CHUNK):
        chunk = slice(start, min(start + CHUNK, samples))
        our_sets, our_indices = blend.draw(chunk.stop - start)
        if not (np.array_equal(our_sets, sets[chunk]) and np.array_equal(our_indices, indices[chunk])):
            raise SystemExit(f"the blend differs from megatron-core's between draw {start} and {chunk.stop}")
    print(f"all {samples:,} draws of the blend are equal to megatron-core's")


def _positions(weights: NDArray[np.float64], samples: int, shape: str, build_seconds: float) -> list[Figure]:
    """To the last position: megatron-core has to build the order in any case."""
    blend = _C.Blend(weights)
    blend.seek(samples)
    counts = blend.counts()
    without = min(seconds(lambda: _C.Blend(weights).seek(samples)) for _ in range(REPEATS))
    with_counts = min(seconds(lambda: _C.Blend(weights).restore(samples, counts)) for _ in range(REPEATS))
    return [
        Figure(f"{shape}: to the end without counters", "s", without, build_seconds),
        Figure(f"{shape}: to the end with counters", "ms", 1e3 * with_counts, 1e3 * build_seconds),
    ]


def _drawing(weights: NDArray[np.float64], num_sets: int, draws: int) -> list[Figure]:
    """The order drawn in batches of a thousand, by each instruction set of this machine, the fastest first."""

    def ours(instruction_set: str) -> None:
        stream = _C.Blend(weights, instruction_set)
        for _ in range(draws // 1000):
            stream.draw(1000)

    def theirs() -> None:
        _their_order(weights, draws)

    return [
        rates(f"blend of {num_sets:,} sets, {name}", "draws/s", draws, partial(ours, name), theirs)
        for name in _C.blend_instruction_sets()
    ]
