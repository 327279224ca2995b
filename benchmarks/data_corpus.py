"""From 546 datasets on disk to the first batch of 8 × 4096 tokens, in a fresh process.

Indices are real; the tokens are holes of sparse files, which take no disk and read like any page in the cache. The
corpus has MaLA's 74 billion tokens in documents of 600, or a fraction of them.
"""

from pathlib import Path

import numpy as np
from data_blend import BATCH, NUM_SAMPLES, NUM_SETS, shares
from megatron_datasets import blended_dataset, start_process_group
from numpy.typing import NDArray
from sparse_sets import quiet, write_set
from timing import Figure, best, fresh

from megatron_ext.config.section_data import DataConfig, DatasetConfig
from megatron_ext.data.build import build_datasets

TOKENS, LEAST_TOKENS = 74_000_000_000, 6000
SEQ_LENGTH = 4096


def figures(folder: Path, fraction: float) -> list[Figure]:
    """Ours beside megatron-core's, whose first start builds what its later ones only read."""
    samples = round(NUM_SAMPLES * fraction)
    weights = write_corpus(folder, fraction)
    print(
        f"wrote {NUM_SETS} sets, {sum(path.stat().st_size for path in folder.glob('*.idx')) / 1e6:,.0f} MB of .idx"
    )
    cache = folder / "cache"
    ours = [fresh(our_first_batch, folder, samples, before=quiet)]
    cold = fresh(their_first_batch, folder, weights, samples, cache, before=start_process_group)
    ours.append(fresh(our_first_batch, folder, samples, before=quiet))
    warm = fresh(their_first_batch, folder, weights, samples, cache, before=start_process_group)
    ours.append(fresh(our_first_batch, folder, samples, before=quiet))
    mine = best(ours)
    shape = f"{NUM_SETS} files, {TOKENS * fraction / 1e9:g} B tokens, {samples / 1e6:g} M samples"
    return [
        Figure(f"{shape}: until the first batch", "s", mine.seconds, cold.seconds),
        Figure(
            f"{shape}: memory until then, mapped pages of files included",
            "MB",
            mine.megabytes,
            cold.megabytes,
        ),
        Figure(f"{shape}: the same, its caches there", "s", mine.seconds, warm.seconds),
    ]


def write_corpus(folder: Path, fraction: float) -> NDArray[np.float64]:
    """Write the sets; returns their share of the tokens."""
    tokens = [max(LEAST_TOKENS, round(share * TOKENS * fraction)) for share in shares(NUM_SETS)]
    for prefix, count in zip(prefixes(folder), tokens, strict=True):
        write_set(prefix, count)
    return np.array(tokens) / sum(tokens)


def prefixes(folder: Path) -> list[Path]:
    """Where the sets lie."""
    return [folder / f"set{index:03}_text_document" for index in range(NUM_SETS)]


def our_first_batch(folder: Path, samples: int) -> None:
    """As a run does it."""
    config = DataConfig(train=(DatasetConfig(path=f"{folder}/*_text_document"),))
    train = build_datasets(config, seq_length=SEQ_LENGTH, seed=0, train_samples=samples, eod_id=None).train
    train.gather(*train.blend().draw(BATCH))


def their_first_batch(folder: Path, weights: NDArray[np.float64], samples: int, cache: Path) -> None:
    """As Megatron-LM does it on its first rank, while the others wait."""
    dataset = blended_dataset(prefixes(folder), weights, SEQ_LENGTH, samples, cache)
    for index in range(BATCH):
        dataset[index]
