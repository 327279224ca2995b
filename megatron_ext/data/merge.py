"""One indexed dataset out of many: what ``tools/merge_datasets.py`` does."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from megatron_ext.data.indexed import (
    DatasetStatistics,
    IndexedDataset,
    atomic_dataset,
    bin_path,
    dataset_prefix,
    idx_path,
    statistics_path,
    writing_dataset,
)
from megatron_ext.errors import DataError
from megatron_ext.utils.console import progress

COPY_BYTES = 64 << 20  # by one system call, between two moves of the progress bar
INDEX_VALUES = 1 << 20  # of an .idx in memory at a time
HEADER_BYTES = 34  # csrc/indexed_format.h
COUNTS_OFFSET = 18  # in the header: numbers of sequences and of document indices, u64 each


@dataclass(frozen=True)
class MergeResult:
    """The dataset that was written."""

    prefix: Path
    num_tokens: int
    num_documents: int
    statistics: DatasetStatistics | None
    without_statistics: tuple[Path, ...]  # the inputs that have none, because of which there are none


@dataclass(frozen=True)
class Source:
    """What is needed of a dataset to append it; no map stays open, so there may be any number of them."""

    prefix: Path
    dtype: np.dtype[Any]
    num_sequences: int
    num_documents: int
    num_tokens: int
    statistics: DatasetStatistics | None

    @property
    def num_bytes(self) -> int:
        """Size of the tokens on disk."""
        return self.num_tokens * self.dtype.itemsize


def merge_datasets(inputs: Sequence[Path], output_prefix: Path, *, overwrite: bool = False) -> MergeResult:
    """Append datasets to one another, byte for byte as megatron-core's ``IndexedDatasetBuilder.add_index`` does.

    Every input is checked in full before anything is written. Tokens go from file to file inside the kernel
    and indices through a small buffer, so that memory does not depend on the size of the data. The result
    appears when it is complete or not at all, with statistics if all inputs have them.

    Args:
        inputs: prefixes, or ``.bin`` or ``.idx`` files, in the order in which their documents follow.
        output_prefix: path without ``.bin``/``.idx``; its folder is created.
        overwrite: replace a dataset that exists.

    Raises:
        DataError: an input is missing, damaged, named twice or also the output; the inputs differ in dtype,
            tokenizer or the tokens put around documents; the output exists or cannot be written.
    """
    prefixes = [dataset_prefix(path) for path in inputs]
    _check_names(prefixes, output_prefix, overwrite)
    sources = [_open(prefix) for prefix in prefixes]
    _check_together(sources)
    statistics = _added(sources)
    with (
        writing_dataset(output_prefix),
        progress("merging", sum(source.num_bytes for source in sources), "bytes") as advance,
    ):
        concatenate(sources, output_prefix, advance)
        if statistics is not None:
            statistics.write(output_prefix)
    return MergeResult(
        output_prefix,
        sum(source.num_tokens for source in sources),
        sum(source.num_documents for source in sources),
        statistics,
        tuple(source.prefix for source in sources if source.statistics is None),
    )


def concatenate(sources: Sequence[Source], output_prefix: Path, advance: Callable[[int, str], None]) -> None:
    """Write ``.bin`` and ``.idx`` of one dataset out of others of one dtype, at least one; no check but of lengths.

    Raises:
        DataError: a file of a source is shorter than the source says.
        OSError: the dataset cannot be written; nothing of it is left.
    """
    with atomic_dataset(output_prefix) as (bin_, idx):
        for source in sources:
            _append_tokens(source, bin_.fileno(), advance)
        _write_index(sources, idx)


def _check_names(prefixes: Sequence[Path], output: Path, overwrite: bool) -> None:
    seen: set[Path] = set()
    for prefix in prefixes:
        path = bin_path(prefix).resolve()
        if path in seen:
            raise DataError(
                f"{prefix}: named twice; merge it once (a weight in data.train repeats data in a run)"
            )
        seen.add(path)
    if output.is_dir() or not output.name:
        raise DataError(f"{output}: a folder, not a prefix; add a name to it")
    if bin_path(output).resolve() in seen:
        raise DataError(
            f"{output}: is an input and the output; choose another --output-prefix, then remove the inputs"
        )
    there = [path for path in (bin_path(output), idx_path(output), statistics_path(output)) if path.exists()]
    if there and not overwrite:
        raise DataError(f"{there[0]} exists already; choose another --output-prefix or pass --overwrite")


def _open(prefix: Path) -> Source:
    dataset = IndexedDataset(prefix)
    dataset.verify()  # the indices are copied without another look
    statistics = DatasetStatistics.read(prefix)
    if statistics is not None:
        statistics.check_describes(dataset)
    return Source(
        prefix, dataset.dtype, dataset.num_sequences, dataset.num_documents, dataset.num_tokens, statistics
    )


def _check_together(sources: Sequence[Source]) -> None:
    """Refuse inputs whose ids mean different things, as far as files can tell."""
    first = sources[0]
    known: tuple[Path, DatasetStatistics] | None = None
    for source in sources:
        if source.dtype != first.dtype:
            raise DataError(
                f"{idx_path(source.prefix)}: tokens of {source.dtype}, but of {first.dtype} in "
                f"{idx_path(first.prefix)}; preprocess both with one tokenizer"
            )
        if source.statistics is None:
            continue
        known = known or (source.prefix, source.statistics)
        for name in ("tokenizer", "append_eod", "prepend_bos", "eod_id"):
            ours, theirs = getattr(source.statistics, name), getattr(known[1], name)
            if ours != theirs:
                raise DataError(
                    f"{statistics_path(source.prefix)}: {name} is {_shown(ours)}, but {_shown(theirs)} in "
                    f"{statistics_path(known[0])}; preprocess both with one tokenizer and the same options"
                )


def _shown(value: object) -> str:
    return f"({value})" if not isinstance(value, bool | int | None) else str(value).lower()


def _added(sources: Sequence[Source]) -> DatasetStatistics | None:
    known = [source.statistics for source in sources if source.statistics is not None]
    if len(known) < len(sources):
        return None
    return known[0].model_copy(
        update={name: sum(getattr(one, name) for one in known) for name in ("tokens", "documents", "bytes")}
    )


def _append_tokens(source: Source, output: int, advance: Callable[[int, str], None]) -> None:
    with bin_path(source.prefix).open("rb") as stream:
        done = 0
        while done < source.num_bytes:
            copied = os.sendfile(output, stream.fileno(), done, min(COPY_BYTES, source.num_bytes - done))
            if copied == 0:
                raise DataError(f"{bin_path(source.prefix)}: became shorter while it was merged")
            done += copied
            advance(copied, source.prefix.name)


def _write_index(sources: Sequence[Source], output: IO[bytes]) -> None:
    """Concatenate lengths as they are; offsets and document indices count on from the inputs before."""
    sequences = sum(source.num_sequences for source in sources)
    documents = sum(source.num_documents for source in sources)
    with idx_path(sources[0].prefix).open("rb") as first:
        output.write(first.read(COUNTS_OFFSET))  # magic, version and dtype, which are the same in all
    output.write(np.array([sequences, documents + 1], dtype="<u8").tobytes())

    for source in sources:
        for lengths in _index_values(source, "<i4", HEADER_BYTES, source.num_sequences):
            output.write(lengths.tobytes())
    before = 0
    for source in sources:
        for offsets in _index_values(
            source, "<i8", HEADER_BYTES + 4 * source.num_sequences, source.num_sequences
        ):
            output.write((offsets + before).tobytes())
        before += source.num_bytes
    before = 0
    output.write(np.array([0], dtype="<i8").tobytes())
    for source in sources:
        second = HEADER_BYTES + 12 * source.num_sequences + 8  # the first document index is 0, and written
        for indices in _index_values(source, "<i8", second, source.num_documents):
            output.write((indices + before).tobytes())
        before += source.num_sequences


def _index_values(source: Source, dtype: str, start: int, count: int) -> Iterator[NDArray[Any]]:
    """Yield ``count`` values of an .idx from byte ``start`` on, some at a time."""
    with idx_path(source.prefix).open("rb") as stream:
        stream.seek(start)
        for done in range(0, count, INDEX_VALUES):
            values = np.fromfile(stream, dtype, min(INDEX_VALUES, count - done))
            if len(values) < min(INDEX_VALUES, count - done):
                raise DataError(f"{idx_path(source.prefix)}: became shorter while it was merged")
            yield values
