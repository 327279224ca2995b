"""Clusters of records on disk, against connected components found by hand."""

import random
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from megatron_ext.corpus.duplicates.clusters import DuplicateClusters, rehydrated
from megatron_ext.corpus.duplicates.grouping import BYTES_PER_RECORD
from megatron_ext.corpus.duplicates.records import RecordFile, write_records
from megatron_ext.errors import CorpusError

SPREAD = np.uint64(0x9E3779B97F4A7C15)  # makes small numbers keys of the whole range
Keys = NDArray[np.uint64]


def written(folder: Path, keys: Keys, cuts: list[int]) -> list[RecordFile]:
    """The keys of all documents in files of parts that end at ``cuts``."""
    files = []
    bounds = [0, *sorted(cut for cut in cuts if cut < len(keys)), len(keys)]
    for number, (start, end) in enumerate(pairwise(bounds)):
        files.append(RecordFile(folder / f"{number}.keys", start))
        write_records(files[-1].path, keys[start:end])
    return files


def sizes(files: list[RecordFile], num_documents: int, memory_bytes: int = 1 << 30) -> list[int]:
    clusters = DuplicateClusters(num_documents)
    clusters.join(files, memory_bytes)
    return clusters.sizes().tolist()


def sizes_by_hand(keys: Keys) -> list[int]:
    """Relabel until nothing changes: every document takes the least number among those it shares a key with."""
    numbers = list(range(len(keys)))
    changed = True
    while changed:
        least: dict[int, int] = {}
        for number, row in zip(numbers, keys.tolist(), strict=True):
            for key in filter(None, row):
                least[key] = min(number, least.get(key, number))
        found = [
            min([number, *(least[key] for key in filter(None, row))])
            for number, row in zip(numbers, keys.tolist(), strict=True)
        ]
        changed, numbers = found != numbers, found
    return [numbers.count(document) for document in range(len(keys))]


@given(
    rows=st.lists(st.tuples(*[st.integers(0, 40)] * 3), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    records_in_memory=st.integers(1, 50),
    order=st.randoms(use_true_random=False),
)
def test_clusters_are_connected_components(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, int]],
    cuts: list[int],
    records_in_memory: int,
    order: random.Random,
) -> None:
    keys = np.array(rows, np.uint64).reshape(-1, 3) * SPREAD
    files = written(tmp_path_factory.mktemp("keys"), keys, cuts)
    expected = sizes_by_hand(keys)
    assert sizes(files, len(keys)) == expected
    order.shuffle(files)
    assert sizes(files, len(keys), records_in_memory * BYTES_PER_RECORD) == expected


def test_several_kinds_of_keys_join_the_same_clusters(tmp_path: Path) -> None:
    clusters = DuplicateClusters(5)
    for name, keys in (("exact", [1, 2, 1, 3, 4]), ("near", [0, 9, 9, 0, 0])):
        write_records(tmp_path / name, np.array(keys, np.uint64))
        clusters.join([RecordFile(tmp_path / name, 0)])
    assert clusters.sizes().tolist() == [3, 0, 0, 1, 1]
    assert clusters.copies().tolist() == [1, 0, 0, 1, 1]
    assert clusters.copies(rehydrate=True).tolist() == [3, 0, 0, 1, 1]


@pytest.mark.parametrize("distinct", [1, 50, 400_000])
def test_memory_is_bounded_by_the_parameter_however_often_keys_repeat(tmp_path: Path, distinct: int) -> None:
    memory, num_documents = 4_000_000, 400_000  # what a twentieth of the records would take
    keys = np.random.default_rng(0).integers(1, distinct + 1, num_documents, np.uint64) * SPREAD
    longest = memory // BYTES_PER_RECORD
    files = written(tmp_path, keys, [longest - 1, 3 * longest, 3 * longest + 1, 300_000])
    clusters = DuplicateClusters(num_documents)  # C++, which tracemalloc does not see
    tracemalloc.start()
    try:
        clusters.join(files, memory)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < memory
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    expected = np.zeros(num_documents, np.uint32)
    expected[first] = counts
    assert np.array_equal(clusters.sizes(), expected)


def test_rehydration_is_fineweb2s_table() -> None:
    table = {0: 0, 1: 1, 2: 2, 3: 3, 4: 3, 5: 5, 99: 5, 100: 8, 999: 8, 1000: 1, 10**9: 1}
    assert rehydrated(np.array(list(table), np.uint32)).tolist() == list(table.values())


def test_no_documents_make_no_clusters(tmp_path: Path) -> None:
    write_records(tmp_path / "none", np.empty((0, 14), np.uint64))
    write_records(tmp_path / "short", np.zeros((2, 14), np.uint64))
    assert sizes([], 0) == []
    assert sizes([RecordFile(tmp_path / "none", 0), RecordFile(tmp_path / "short", 0)], 2) == [1, 1]


def test_equal_keys_make_equal_bytes_and_no_temporary_file_stays(tmp_path: Path) -> None:
    keys = np.array([[3, 1], [1, 3], [0, 1]], np.uint64)
    for name in ("a", "b"):
        write_records(tmp_path / name, keys)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    found, documents = RecordFile(tmp_path / "a", 0).read()
    assert (found.tolist(), documents.tolist()) == ([1, 1, 1, 3, 3], [0, 1, 2, 0, 1])


@pytest.mark.parametrize("content", [b"", b"MGTXKEYS", b"\x00" * 40, None, "cut", "grown", "huge"])
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "part-7.keys"
    write_records(path, np.arange(1, 9, dtype=np.uint64))
    whole = path.read_bytes()
    broken = {
        "cut": whole[:-1],
        "grown": whole + b"\x00" * 12,
        "huge": whole[:8] + b"\xff" * 8 + whole[16:],
    }
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else broken[content])
    with pytest.raises(CorpusError, match=r"part-7\.keys"):
        sizes([RecordFile(path, 0)], 8)


def test_a_document_beyond_the_last_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "part", np.array([5, 5], np.uint64))
    with pytest.raises(ValueError, match="no document 4 among 4"):
        sizes([RecordFile(tmp_path / "part", 3)], 4)
