"""The peer of the data benchmark: megatron-core's datasets over the same files, set up as a training sets them up."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split
from numpy.typing import NDArray


class Tokenizer:
    """What megatron-core asks of one."""

    eod = 2
    vocab_size = 32_000
    unique_identifiers: dict[str, str] = {}  # noqa: RUF012 - megatron-core's own form


def config(
    prefixes: Sequence[Path], weights: NDArray[np.float64], seq_length: int, cache: Path | None
) -> GPTDatasetConfig:
    """Nothing masked or reset; masks and positions are computed once, as in training."""
    return GPTDatasetConfig(
        random_seed=0, sequence_length=seq_length, reset_position_ids=False, reset_attention_mask=False,
        blend_per_split=[([str(prefix) for prefix in prefixes], weights.tolist()), None, None],
        eod_mask_loss=False, create_attention_mask=False, tokenizer=Tokenizer(),
        path_to_cache=None if cache is None else str(cache),
    )  # fmt: skip


def start_process_group() -> None:
    """Megatron-core asks for its rank before it builds an index; here there is one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


def gpt_dataset(prefix: Path, seq_length: int, num_samples: int) -> GPTDataset:
    """One dataset."""
    indexed = IndexedDataset(str(prefix))
    sequences = np.arange(len(indexed), dtype=np.int32)
    settings = config([prefix], np.ones(1), seq_length, None)
    return GPTDataset(indexed, str(prefix), sequences, num_samples, Split.train, settings)


def blended_dataset(
    prefixes: Sequence[Path], weights: NDArray[np.float64], seq_length: int, num_samples: int, cache: Path
) -> BlendedDataset:
    """Many datasets, whose indices it keeps in a cache for the next start."""
    settings = config(prefixes, weights, seq_length, cache)
    builder = BlendedMegatronDatasetBuilder(GPTDataset, [num_samples, 0, 0], lambda: True, settings)
    return builder.build()[0]
