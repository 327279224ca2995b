from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import DTypeLike

from megatron_ext.data.indexed import IndexedDataset, IndexedDatasetWriter
from megatron_ext.data.samples import TokenSet

WriteSet = Callable[..., Path]


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """Writes a dataset of documents with given lengths; unless said otherwise its tokens are 1, 2, 3, …"""

    def write(
        name: str,
        lengths: Sequence[int],
        tokens: np.ndarray | None = None,
        dtype: DTypeLike = np.uint16,
    ) -> Path:
        prefix = tmp_path / name
        flat = np.arange(1, sum(lengths) + 1) if tokens is None else tokens
        with IndexedDatasetWriter(prefix, dtype) as writer:
            writer.add_documents(flat, np.array(lengths, dtype=np.int64))
        return prefix

    return write


@pytest.fixture
def make_set(write_set: WriteSet) -> Callable[..., TokenSet]:
    def make(
        name: str,
        lengths: Sequence[int],
        tokens: np.ndarray | None = None,
        dtype: DTypeLike = np.uint16,
    ) -> TokenSet:
        dataset = IndexedDataset(write_set(name, lengths, tokens, dtype))
        return TokenSet(name, dataset, 0, dataset.num_sequences, None)

    return make
