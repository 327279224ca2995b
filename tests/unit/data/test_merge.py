import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets import indexed_dataset as megatron

from megatron_ext.cli.main import main
from megatron_ext.data import merge
from megatron_ext.data.indexed import DatasetStatistics, IndexedDataset, TokenizerIdentity
from megatron_ext.data.merge import merge_datasets
from megatron_ext.errors import DataError

WriteSet = Callable[..., Path]
BYTES = TokenizerIdentity(type="ByteTokenizer", vocab_size=259, sha256="0" * 64)


def write_with_megatron(prefix: Path, documents: Sequence[Sequence[int]], dtype: type[np.number]) -> Path:
    """Each document is a list of the lengths of its sequences; their tokens are random."""
    random = np.random.default_rng(sum(map(sum, documents)))
    builder = megatron.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for lengths in documents:
        builder.add_document(random.integers(0, 255, sum(lengths)).astype(dtype), list(lengths))
    builder.finalize(f"{prefix}.idx")
    return prefix


def merge_with_megatron(prefixes: Sequence[Path], output: Path, dtype: type[np.number]) -> None:
    builder = megatron.IndexedDatasetBuilder(f"{output}.bin", dtype=dtype)
    for prefix in prefixes:
        builder.add_index(str(prefix))
    builder.finalize(f"{output}.idx")


def assert_equal_files(ours: Path, theirs: Path) -> None:
    for suffix in (".bin", ".idx"):
        assert Path(f"{ours}{suffix}").read_bytes() == Path(f"{theirs}{suffix}").read_bytes()


def describe_with(prefix: Path, **change: object) -> Path:
    """Write statistics that fit the dataset, but for what is changed."""
    dataset = IndexedDataset(prefix)
    values = {
        "tokens": dataset.num_tokens,
        "documents": dataset.num_documents,
        "bytes": 10 * dataset.num_tokens,
        "tokenizer": BYTES,
        "append_eod": True,
        "prepend_bos": False,
        "eod_id": 257,
    }
    DatasetStatistics.model_validate({**values, **change}).write(prefix)
    return prefix


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint8, np.int64])
def test_the_result_is_megatron_core_s_byte_for_byte(tmp_path: Path, dtype: type[np.number]) -> None:
    corpora = ([[3], [0], [4, 0, 2]], [[7, 1]], [[0]], [], [[5], [], [2]])
    prefixes = [write_with_megatron(tmp_path / f"set.{i}", one, dtype) for i, one in enumerate(corpora)]
    merge_with_megatron(prefixes, tmp_path / "theirs", dtype)
    result = merge_datasets(prefixes, tmp_path / "folder" / "ours")
    assert_equal_files(result.prefix, tmp_path / "theirs")
    assert (result.num_tokens, result.num_documents) == (24, 8)
    assert IndexedDataset(result.prefix).num_sequences == 10


CORPUS = st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpora=st.lists(CORPUS, min_size=1, max_size=4), block=st.integers(1, 9))
def test_no_size_of_the_blocks_changes_a_byte(
    tmp_path: Path, corpora: list[list[list[int]]], block: int
) -> None:
    prefixes = [write_with_megatron(tmp_path / f"set{i}", one, np.uint16) for i, one in enumerate(corpora)]
    merge_with_megatron(prefixes, tmp_path / "theirs", np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "COPY_BYTES", block)
        patch.setattr(merge, "INDEX_VALUES", block)
        merge_datasets(prefixes, tmp_path / "ours", overwrite=True)
    assert_equal_files(tmp_path / "ours", tmp_path / "theirs")


def test_memory_does_not_depend_on_the_size(
    write_set: WriteSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "INDEX_VALUES", 1 << 12)
    lengths = np.full(300_000, 10)
    prefixes = [write_set(name, lengths, np.zeros(3_000_000), np.uint16) for name in ("a", "b")]
    tracemalloc.start()
    try:
        merge_datasets(prefixes, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Path(f"{tmp_path}/out.bin").stat().st_size == 12_000_000
    assert Path(f"{tmp_path}/out.idx").stat().st_size == 34 + 12 * 600_000 + 8 * 600_001
    assert peak < 1 << 20


def test_offsets_behind_four_gigabytes(tmp_path: Path) -> None:
    """A sparse .bin of 2^31 + 8 tokens, followed by another set; only the index is written by hand."""
    long = np.array([2**30, 2**30, 8])
    with Path(f"{tmp_path}/big.bin").open("wb") as stream:
        os.truncate(stream.fileno(), 2 * int(long.sum()))
    offsets = np.array([0, 2**31, 2**32], dtype="<i8")
    index = long.astype("<i4").tobytes() + offsets.tobytes() + np.arange(4, dtype="<i8").tobytes()
    header = b"MMIDIDX\0\0" + bytes([1, 0, 0, 0, 0, 0, 0, 0, 8]) + np.array([3, 4], dtype="<u8").tobytes()
    Path(f"{tmp_path}/big.idx").write_bytes(header + index)
    source = merge._open(tmp_path / "big")
    with Path(f"{tmp_path}/out.idx").open("wb") as output:
        merge._write_index([source, source], output)
    content = Path(f"{tmp_path}/out.idx").read_bytes()
    assert np.frombuffer(content, "<i4", 6, 34).tolist() == [*long, *long]
    end = 2**32 + 16
    assert np.frombuffer(content, "<i8", 6, 34 + 24).tolist() == [*offsets, *(offsets + end)]
    assert np.frombuffer(content, "<i8", 7, 34 + 72).tolist() == list(range(7))


def test_statistics_add_up(write_set: WriteSet, tmp_path: Path) -> None:
    prefixes = [describe_with(write_set("a", [3, 4])), describe_with(write_set("b", [5]), bytes=1)]
    result = merge_datasets(prefixes, tmp_path / "out")
    written = DatasetStatistics.read(tmp_path / "out")
    assert written == result.statistics
    assert written is not None
    assert (written.tokens, written.documents, written.bytes) == (12, 3, 71)
    assert (written.tokenizer, written.append_eod, written.prepend_bos, written.eod_id) == (
        BYTES,
        True,
        False,
        257,
    )


def test_without_all_statistics_there_are_none_and_it_says_so(
    write_set: WriteSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = describe_with(write_set("a", [3, 4])), write_set("b", [5])
    output = describe_with(write_set("out", [1]))
    arguments = ["--input", f"{first}.idx", f"{second}.bin", "--output-prefix", str(output)]
    assert main(["merge", *arguments]) == 2
    assert main(["merge", *arguments, "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert f"{output}: 12 tokens, 3 documents of 2 datasets" in printed
    assert f"no statistics written, so no bits per byte: 1 of the datasets have none, {second}" in printed
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": BYTES.model_copy(update={"sha256": "1" * 64})}, r"b\.json: tokenizer is .*1111"),
        ({"append_eod": False}, r"b\.json: append_eod is false, but true in .*a\.json"),
        ({"prepend_bos": True}, "prepend_bos is true, but false"),
        ({"eod_id": None}, "eod_id is none, but 257"),
        ({"tokens": 6}, r"b\.json: tells of 6 tokens in 1 documents, but .*b\.bin holds 5 in 1"),
        ({"documents": 2}, "tells of 5 tokens in 2 documents"),
    ],
)
def test_sets_that_mean_different_things_are_refused(
    write_set: WriteSet, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    prefixes = [describe_with(write_set("a", [3])), write_set("c", [1])]
    prefixes.append(describe_with(write_set("b", [5]), **change))
    before = files_in(tmp_path)
    with pytest.raises(DataError, match=message):
        merge_datasets(prefixes, tmp_path / "out")
    assert files_in(tmp_path) == before


def test_other_dtypes_are_refused(write_set: WriteSet, tmp_path: Path) -> None:
    prefixes = [write_set("a", [3]), write_set("b", [5], dtype=np.int32)]
    with pytest.raises(DataError, match=r"b\.idx: tokens of int32, but of uint16 in .*a\.idx"):
        merge_datasets(prefixes, tmp_path / "out")


def test_names_that_cannot_be_are_refused(write_set: WriteSet, tmp_path: Path) -> None:
    a, b = write_set("a", [3]), write_set("b", [5])
    (tmp_path / "stale.json").write_text("{}")
    before = files_in(tmp_path)
    with pytest.raises(DataError, match="a: named twice"):
        merge_datasets([a, b, Path(f"{a}.idx")], tmp_path / "out")
    with pytest.raises(DataError, match="a: is an input and the output"):
        merge_datasets([a, b], a, overwrite=True)
    with pytest.raises(DataError, match=r"stale\.json exists already"):
        merge_datasets([a, b], tmp_path / "stale")
    with pytest.raises(DataError, match="a folder, not a prefix"):
        merge_datasets([a, b], tmp_path)
    with pytest.raises(DataError, match=r"none\.idx: cannot be opened"):
        merge_datasets([a, tmp_path / "none"], tmp_path / "out")
    with pytest.raises(DataError, match="cannot be written"):
        merge_datasets([a, b], tmp_path / "a.bin" / "out")
    assert files_in(tmp_path) == before


def test_a_damaged_input_is_found_before_anything_is_written(write_set: WriteSet, tmp_path: Path) -> None:
    a, b = write_set("a", [3]), write_set("b", [5])
    os.truncate(f"{b}.bin", 9)
    before = files_in(tmp_path)
    with pytest.raises(DataError, match="behind the end"):
        merge_datasets([a, b], tmp_path / "out")
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(("suffix", "size"), [(".bin", 4), (".idx", 40)])
def test_an_input_that_shrinks_meanwhile_leaves_nothing(
    write_set: WriteSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, size: int
) -> None:
    a, old = write_set("a", [3, 4]), write_set("out", [1])
    check = merge._check_together

    def check_then_cut(sources: Sequence[merge.Source]) -> None:
        check(sources)
        os.truncate(f"{a}{suffix}", size)

    monkeypatch.setattr(merge, "_check_together", check_then_cut)
    before = files_in(tmp_path)
    with pytest.raises(DataError, match=rf"a\{suffix}: became shorter"):
        merge_datasets([a], old, overwrite=True)
    after = files_in(tmp_path)
    assert after.keys() == before.keys()
    assert after["out.idx"] == before["out.idx"]
    assert after["out.bin"] == before["out.bin"]
