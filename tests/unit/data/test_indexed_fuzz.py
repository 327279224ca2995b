"""Damaged and hostile datasets: every access gives what the files say, inside of the .bin, or a clear error."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from megatron_ext import _C
from megatron_ext.data.indexed import IndexedDataset
from megatron_ext.data.inspect import describe, read_document
from megatron_ext.data.merge import merge_datasets
from megatron_ext.data.samples import TokenSet, megatron_samples, window_samples
from megatron_ext.errors import DataError

WriteSet = Callable[..., Path]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HEADER = struct.Struct("<9sQBQQ")
MAGIC = b"MMIDIDX\0\0"
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
MANY = 12_000  # sequences: an index too large to be checked in full when it is opened
HOSTILE = [0, 1, 2**31 - 1, 2**31, 2**32, 2**61 + 1, 2**63 - 1, 2**63, 2**64 - 1]


@dataclass(frozen=True)
class Plain:
    """The format read with numpy alone, by someone who believes the header."""

    dtype: np.dtype
    lengths: np.ndarray
    offsets: np.ndarray
    documents: np.ndarray

    @classmethod
    def of(cls, idx: bytes) -> "Plain":
        _, _, code, sequences, documents = HEADER.unpack_from(idx)
        return cls(
            np.dtype(DTYPES[code]),
            np.frombuffer(idx, "<i4", sequences, HEADER.size),
            np.frombuffer(idx, "<i8", sequences, HEADER.size + 4 * sequences),
            np.frombuffer(idx, "<i8", documents, HEADER.size + 12 * sequences),
        )

    def sequence(self, tokens: bytes, index: int) -> bytes:
        """Bytes of a sequence, which must lie inside."""
        start = int(self.offsets[index])
        end = start + int(self.lengths[index]) * self.dtype.itemsize
        assert 0 <= start <= end <= len(tokens)
        return tokens[start:end]


def use_everything(dataset: IndexedDataset, idx: bytes, tokens: bytes, sequences: range) -> None:
    """Read a dataset in every way there is, some sequences one by one."""
    prefix = dataset.prefix
    plain = Plain.of(idx)
    assert dataset.dtype == plain.dtype
    assert dataset.num_tokens * plain.dtype.itemsize == len(tokens)
    for i in sequences:
        if i < dataset.num_sequences:
            with right_or_refused():
                assert dataset.read(i).tobytes() == plain.sequence(tokens, i)
            with right_or_refused():
                assert dataset.reader.sequence_start(i) * plain.dtype.itemsize == plain.offsets[i]
    with right_or_refused():
        assert np.array_equal(dataset.sequence_lengths, plain.lengths)
    with right_or_refused():
        assert (np.diff(dataset.document_indices) >= 0).all()
    with right_or_refused():
        windows_are_the_stream(dataset, tokens)
    with right_or_refused():
        megatron_rows_are_of_the_stream(dataset, tokens)
    with right_or_refused():
        read_document(prefix, dataset.num_documents // 2)
    whole_tools_agree(dataset, tokens)


def whole_tools_agree(dataset: IndexedDataset, tokens: bytes) -> None:
    """What verifies a dataset either takes all of it, which then is what the .bin holds, or refuses it by name."""
    prefix, merged = dataset.prefix, dataset.prefix.parent / "merged"
    tools = (lambda: describe(prefix), lambda: merge_datasets([prefix], merged, overwrite=True))
    refused = error_of(dataset.verify)
    if refused is None:
        assert b"".join(dataset.read(i).tobytes() for i in range(dataset.num_sequences)) == tokens
        for tool in tools:
            tool()
        assert files(merged) == files(prefix)
        for path in prefix.parent.glob("merged*"):
            path.unlink()
        return
    assert str(prefix) in refused
    for tool in tools:
        assert error_of(tool) is not None
    assert not list(prefix.parent.glob("merged*"))


def error_of(action: Callable[[], object]) -> str | None:
    try:
        action()
    except DataError as error:
        return str(error)
    return None


class right_or_refused:  # noqa: N801 - reads as pytest.raises does
    """Lets a block fail in the two ways that are allowed."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> bool:
        return kind is not None and issubclass(kind, DataError | IndexError)


def windows_are_the_stream(dataset: IndexedDataset, tokens: bytes) -> None:
    source = window_samples(TokenSet("set", dataset, 0, dataset.num_sequences, None), 5, None)
    windows = min(source.samples_per_epoch, 50)
    rows, valid = _C.SampleGather([source]).gather(np.zeros(windows, np.int32), np.arange(windows))
    stream = np.frombuffer(tokens, dataset.dtype)
    for i in range(windows):
        assert np.array_equal(rows[i, : valid[i]], stream[5 * i : 5 * i + 6])


def megatron_rows_are_of_the_stream(dataset: IndexedDataset, tokens: bytes) -> None:
    whole = TokenSet("set", dataset, 0, dataset.num_sequences, None)
    rows, _ = _C.SampleGather([megatron_samples(whole, 5, 1, 20)]).gather(
        np.zeros(20, np.int32), np.arange(20)
    )
    assert np.isin(rows, np.frombuffer(tokens, dataset.dtype)).all()


def check(prefix: Path, idx: bytes, tokens: bytes, sequences: range) -> None:
    Path(f"{prefix}.idx").write_bytes(idx)
    Path(f"{prefix}.bin").write_bytes(tokens)
    refused = error_of(lambda: IndexedDataset(prefix))
    event("refused at open" if refused else "opened")
    if refused is not None:
        assert str(prefix) in refused
        return
    use_everything(IndexedDataset(prefix), idx, tokens, sequences)


def files(prefix: Path) -> tuple[bytes, bytes]:
    return Path(f"{prefix}.idx").read_bytes(), Path(f"{prefix}.bin").read_bytes()


@pytest.fixture(params=[6, MANY], ids=["small", "large"])
def corpus(request: pytest.FixtureRequest, write_set: WriteSet) -> tuple[Path, bytes, bytes]:
    lengths = np.random.default_rng(1).integers(0, 4, request.param).tolist()
    prefix = write_set("set", lengths)
    return prefix, *files(prefix)


@FUZZ
@given(data=st.data())
def test_bits_that_flip(corpus: tuple[Path, bytes, bytes], data: st.DataObject) -> None:
    prefix, idx, tokens = corpus
    damaged = bytearray(idx)
    positions = data.draw(st.lists(st.integers(0, len(idx) - 1), min_size=1, max_size=3))
    for position in positions:
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    sequences = len(tokens) and int.from_bytes(idx[18:26], "little")
    near = min(max((positions[0] - HEADER.size) // data.draw(st.sampled_from([4, 8, 12])), 2), sequences)
    check(prefix, bytes(damaged), tokens, range(near - 2, near + 3))


@FUZZ
@given(data=st.data())
def test_files_that_are_cut_or_grow(corpus: tuple[Path, bytes, bytes], data: st.DataObject) -> None:
    prefix, idx, tokens = corpus
    changed = []
    for content in (idx, tokens):
        size = data.draw(st.integers(0, len(content)) | st.just(len(content)))
        changed.append(content[:size] + data.draw(st.binary(max_size=30)))
    check(prefix, *changed, range(6))


@FUZZ
@given(
    header=st.tuples(
        st.sampled_from([MAGIC, MAGIC, MAGIC, b"TNTIDX\0\0\0", bytes(9)]),
        st.sampled_from([1, 1, 1, 0, 2, 2**64 - 1]),
        st.sampled_from([*DTYPES, 8, 8, 0, 6, 7, 9, 255]),
        st.sampled_from([6, MANY, *HOSTILE]),
        st.sampled_from([7, MANY + 1, *HOSTILE]),
    )
)
def test_hostile_headers(corpus: tuple[Path, bytes, bytes], header: tuple[bytes, int, int, int, int]) -> None:
    prefix, idx, tokens = corpus
    content = HEADER.pack(*header) + idx[HEADER.size :]
    check(prefix, content, tokens, range(6))


INT32 = st.integers(0, 4) | st.sampled_from([-1, -(2**31), 2**31 - 1, 2**30])
INT64 = st.integers(0, 24) | st.sampled_from([-1, -2, -(2**63), 2**63 - 1, 2**63 - 2, 2**62, 2**32])


@FUZZ
@given(
    code=st.sampled_from(list(DTYPES)),
    lengths=st.lists(INT32, min_size=1, max_size=5),
    large=st.booleans(),
    data=st.data(),
)
def test_hostile_lengths_and_offsets(
    tmp_path: Path, code: int, lengths: list[int], large: bool, data: st.DataObject
) -> None:
    """Values without any order: alone, or behind the start and before the end of a large index that are right."""
    count = len(lengths)
    offsets = data.draw(st.lists(INT64, min_size=count, max_size=count))
    documents = data.draw(st.lists(INT64, min_size=1, max_size=4))
    size = np.dtype(DTYPES[code]).itemsize
    if large:
        lengths = [0, 0, *lengths, *[0] * MANY]
        offsets = [0, 0, *offsets, *[24 * size] * MANY]
        documents = [0, *documents, len(lengths)]
    idx = (
        HEADER.pack(MAGIC, 1, code, len(lengths), len(documents))
        + np.array(lengths, "<i4").tobytes()
        + np.array(offsets, "<i8").tobytes()
        + np.array(documents, "<i8").tobytes()
    )
    check(tmp_path / "set", idx, bytes(range(24)) * size, range(8))


def test_the_index_of_another_dataset_is_refused(write_set: WriteSet) -> None:
    idx, _ = files(write_set("one", [3, 4]))
    prefix = write_set("other", [3, 5])
    Path(f"{prefix}.idx").write_bytes(idx)
    with pytest.raises(DataError, match=r"other\.bin: has 16 bytes, but .*other\.idx describes 14"):
        IndexedDataset(prefix)


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("lengths", -1, "sequence 4000 has a negative length, -1"),
        ("lengths", 9, "sequence 4000 ends at byte .*, but sequence 4001 starts at byte"),
        ("lengths", 2**31 - 1, "sequence 4000 ends behind the end"),
        ("offsets", -2, "sequence 4000 starts at byte -2"),
        ("offsets", 2**63 - 1, "sequence 4000 starts at byte 9223372036854775807"),
        ("offsets", 3, "sequence 4000 starts at byte 3, inside of a token"),
        ("offsets", 0, "sequence 4000 ends at byte"),
    ],
)
def test_damage_inside_of_a_large_index_is_found_where_it_is_used(
    write_set: WriteSet, tmp_path: Path, array: str, value: int, message: str
) -> None:
    prefix = write_set("set", [3] * MANY)
    idx = bytearray(files(prefix)[0])
    if array == "lengths":
        struct.pack_into("<i", idx, HEADER.size + 4 * 4000, value)
    else:
        struct.pack_into("<q", idx, HEADER.size + 4 * MANY + 8 * 4000, value)
    Path(f"{prefix}.idx").write_bytes(idx)
    dataset = IndexedDataset(prefix)
    assert dataset.read(3998).tolist() == [11995, 11996, 11997]
    part = TokenSet("part", dataset, 4000, MANY, None)
    for use in (
        lambda: dataset.read(4000),
        lambda: dataset.reader.sequence_start(4000),
        lambda: window_samples(part, 5, 1),
    ):
        with pytest.raises(DataError, match=message) as error:
            use()
        assert f"{prefix}.idx" in str(error.value)
    for use in (dataset.verify, lambda: merge_datasets([prefix], tmp_path / "out"), lambda: describe(prefix)):
        with pytest.raises(DataError, match=r"sequence (3999|4000) "):
            use()


def test_documents_in_disorder_inside_of_a_large_index(write_set: WriteSet) -> None:
    prefix = write_set("set", [3] * MANY)
    idx = bytearray(files(prefix)[0])
    struct.pack_into("<q", idx, HEADER.size + 12 * MANY + 8 * 4000, 2**40)
    Path(f"{prefix}.idx").write_bytes(idx)
    dataset = IndexedDataset(prefix)
    for use in (lambda: dataset.document_indices, dataset.verify, lambda: read_document(prefix, 3)):
        with pytest.raises(
            DataError, match=r"set\.idx: document index 4001 is 4001, less than the one before"
        ):
            use()
