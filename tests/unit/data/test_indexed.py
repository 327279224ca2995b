import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets import indexed_dataset as megatron

from megatron_ext.data.indexed import (
    DatasetStatistics,
    IndexedDataset,
    IndexedDatasetWriter,
    TokenizerIdentity,
    token_dtype,
)
from megatron_ext.errors import DataError

SAME_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_with_megatron(prefix: Path, documents: list[np.ndarray], dtype: type[np.number]) -> None:
    builder = megatron.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents:
        builder.add_document(document, [len(document)])
    builder.finalize(f"{prefix}.idx")


@st.composite
def corpora(draw: st.DrawFn) -> tuple[np.dtype, list[np.ndarray]]:
    """A dtype of tokens and documents, some empty, whose ids reach both of its limits."""
    dtype = np.dtype(draw(st.sampled_from([np.uint16, np.int32, np.uint8, np.int8, np.int16, np.int64])))
    limits = np.iinfo(dtype)
    ids = st.integers(int(limits.min), int(limits.max)) | st.sampled_from(
        [0, int(limits.min), int(limits.max)]
    )
    documents = draw(st.lists(st.lists(ids, max_size=6), max_size=12))
    return dtype, [np.array(document, dtype) for document in documents]


@SAME_FOLDER
@given(corpora(), st.integers(0, 12))
def test_files_are_megatron_core_s_byte_for_byte(
    tmp_path: Path, corpus: tuple[np.dtype, list[np.ndarray]], cut: int
) -> None:
    dtype, documents = corpus
    write_with_megatron(tmp_path / "theirs", documents, dtype.type)
    with IndexedDatasetWriter(tmp_path / "our.set", dtype) as writer:
        for part in (documents[:cut], documents[cut:]):
            flat = np.concatenate([np.empty(0, dtype), *part])
            writer.add_documents(flat, np.array([len(document) for document in part], dtype=np.int32))
        assert (writer.num_documents, writer.num_tokens) == (len(documents), sum(map(len, documents)))
    for suffix in (".bin", ".idx"):
        ours, theirs = (tmp_path / f"{name}{suffix}" for name in ("our.set", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("vocab_size", [65_499, 65_500, 65_537, 128_256, 256_000])
def test_every_id_of_a_vocabulary_survives(tmp_path: Path, vocab_size: int) -> None:
    ids = np.array([0, vocab_size // 2, vocab_size - 1], dtype=np.int64)
    dtype = token_dtype(vocab_size)
    write_with_megatron(tmp_path / "theirs", [ids], megatron.DType.optimal_dtype(vocab_size))
    with IndexedDatasetWriter(tmp_path / "ours", dtype) as writer:
        writer.add_documents(ids, np.array([3]))
    for suffix in (".bin", ".idx"):
        assert (
            Path(f"{tmp_path}/ours{suffix}").read_bytes() == Path(f"{tmp_path}/theirs{suffix}").read_bytes()
        )
    assert IndexedDataset(tmp_path / "ours").read(0).tolist() == ids.tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint8, np.int8])
def test_ids_beyond_the_dtype_are_refused(tmp_path: Path, dtype: type[np.number]) -> None:
    limits = np.iinfo(dtype)
    for outside in (int(limits.max) + 1, int(limits.min) - 1):
        with (
            pytest.raises(DataError, match=f"{outside}.* do not fit {np.dtype(dtype)}"),
            IndexedDatasetWriter(tmp_path / "set", dtype) as writer,
        ):
            writer.add_documents(np.array([1, outside]), np.array([2]))
    assert list(tmp_path.iterdir()) == []


@SAME_FOLDER
@given(st.lists(st.lists(st.integers(0, 65535), max_size=6), max_size=12))
def test_megatron_core_reads_what_we_write_and_we_what_it_writes(
    tmp_path: Path, documents: list[list[int]]
) -> None:
    with IndexedDatasetWriter(tmp_path / "ours", np.uint16) as writer:
        for document in documents:
            writer.add_documents(np.array(document, dtype=np.int64), np.array([len(document)]))
    write_with_megatron(tmp_path / "theirs", [np.array(d, np.int32) for d in documents], np.int32)
    reader = IndexedDataset(tmp_path / "theirs")
    assert (reader.dtype, reader.num_sequences) == (np.int32, len(documents))
    assert reader.num_documents == len(documents)
    assert reader.num_tokens == sum(map(len, documents))
    assert reader.sequence_lengths.tolist() == [len(document) for document in documents]
    assert reader.document_indices.tolist() == list(range(len(documents) + 1))
    for i, document in enumerate(documents):
        assert reader.read(i).tolist() == document
        assert reader.read(i, 1 if document else 0).tolist() == document[1:]
    if any(documents):  # megatron-core maps an empty .bin with an error
        theirs = megatron.IndexedDataset(str(tmp_path / "ours"))
        assert [theirs[i].tolist() for i in range(len(theirs))] == documents


def test_documents_of_several_sequences_are_read(tmp_path: Path) -> None:
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "set.bin"), dtype=np.uint16)
    builder.add_document(np.arange(5), [2, 3])
    builder.add_document(np.arange(1), [1])
    builder.finalize(str(tmp_path / "set.idx"))
    dataset = IndexedDataset(tmp_path / "set")
    assert (dataset.num_sequences, dataset.num_documents) == (3, 2)
    assert dataset.document_indices.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("sequence", "offset", "length"), [(3, 0, None), (-1, 0, None), (0, 3, 1), (0, -1, 1), (0, 0, 9)]
)
def test_reads_outside_of_a_sequence_are_refused(
    write_set: Callable[..., Path], sequence: int, offset: int, length: int | None
) -> None:
    dataset = IndexedDataset(write_set("set", [3, 2, 4]))
    with pytest.raises(IndexError, match=r"set\.bin"):
        dataset.read(sequence, offset, length)


def test_nothing_is_left_of_a_writer_that_fails(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with IndexedDatasetWriter(tmp_path / "set", np.uint16) as writer:
            writer.add_documents(np.arange(3), np.array([3]))
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_leaves_the_old_dataset(write_set: Callable[..., Path]) -> None:
    prefix = write_set("set", [3])
    before = {path.name: path.read_bytes() for path in prefix.parent.iterdir()}
    with (
        pytest.raises(DataError, match="do not fit uint16"),
        IndexedDatasetWriter(prefix, np.uint16) as writer,
    ):
        writer.add_documents(np.array([70_000]), np.array([1]))
    assert {path.name: path.read_bytes() for path in prefix.parent.iterdir()} == before


def test_replacing_a_dataset_removes_its_old_statistics(write_set: Callable[..., Path]) -> None:
    statistics().write(write_set("set", [3]))
    assert DatasetStatistics.read(write_set("set", [4])) is None


@pytest.mark.parametrize("lengths", [[2], [2, 2], [-1, 4], [2**31]])
def test_lengths_that_do_not_fit_the_tokens_are_refused(tmp_path: Path, lengths: list[int]) -> None:
    with (
        pytest.raises(ValueError, match="length"),
        IndexedDatasetWriter(tmp_path / "set", np.uint16) as writer,
    ):
        writer.add_documents(np.arange(3), np.array(lengths))


def test_a_writer_is_used_inside_its_block(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with block"):
        IndexedDatasetWriter(tmp_path / "set", np.uint16).add_documents(np.arange(3), np.array([3]))
    with (
        pytest.raises(ValueError, match="cannot be stored"),
        IndexedDatasetWriter(tmp_path / "set", np.float32),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_dtype_follows_the_vocabulary_as_in_megatron_core() -> None:
    for size in (259, 32_000, 65_499, 65_500, 128_256):
        assert token_dtype(size) == megatron.DType.optimal_dtype(size)


HEADER = struct.Struct("<9sQBQQ")
INDEX = struct.Struct("<3i3q4q")
MAGIC = b"MMIDIDX\0\0"
LENGTHS, OFFSETS, DOCUMENTS = (3, 0, 4), (0, 6, 6), (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("header", "index", "message"),
    [
        ((b"TNTIDX\0\0\0", 1, 8, 3, 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "does not start"),
        ((MAGIC, 2, 8, 3, 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "version 2"),
        ((MAGIC, 1, 0, 3, 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "dtype code 0"),
        ((MAGIC, 1, 6, 3, 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "dtype code 6"),
        ((MAGIC, 1, 7, 3, 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "dtype code 7"),
        ((MAGIC, 1, 255, 3, 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "dtype code 255"),
        ((MAGIC, 1, 8, 4, 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "cut short"),
        ((MAGIC, 1, 8, 2**61 + 1, 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "cut short"),
        ((MAGIC, 1, 8, 3, 2**61 + 4), (*LENGTHS, *OFFSETS, *DOCUMENTS), "cut short"),
        ((MAGIC, 1, 8, 3, 3), (*LENGTHS, *OFFSETS, *DOCUMENTS), "8 bytes more"),
        ((MAGIC, 1, 8, 3, 4), (-3, 0, 4, *OFFSETS, *DOCUMENTS), "negative length"),
        ((MAGIC, 1, 8, 3, 4), (3, 0, 5, *OFFSETS, *DOCUMENTS), "behind the end"),
        ((MAGIC, 1, 8, 3, 4), (3, 0, 2**31 - 1, *OFFSETS, *DOCUMENTS), "behind the end"),
        ((MAGIC, 1, 8, 3, 4), (3, 0, 3, *OFFSETS, *DOCUMENTS), "not a pair"),
        ((MAGIC, 1, 4, 3, 4), (*LENGTHS, 0, 12, 12, *DOCUMENTS), "behind the end"),
        (
            (MAGIC, 1, 8, 3, 4),
            (*LENGTHS, 0, 8, 8, *DOCUMENTS),
            "ends at byte 6, but sequence 1 starts at byte 8",
        ),
        ((MAGIC, 1, 8, 3, 4), (*LENGTHS, 0, 6, -6, *DOCUMENTS), "starts at byte -6"),
        ((MAGIC, 1, 8, 3, 4), (*LENGTHS, *OFFSETS, 1, 1, 2, 3), "instead of 0"),
        ((MAGIC, 1, 8, 3, 4), (*LENGTHS, *OFFSETS, 0, 2, 1, 3), "less than the one before"),
        ((MAGIC, 1, 8, 3, 4), (*LENGTHS, *OFFSETS, 0, 1, 2, 4), "instead of the 3"),
    ],
)
def test_a_hostile_index_is_refused_by_name(
    tmp_path: Path, header: tuple[bytes, int, int, int, int], index: tuple[int, ...], message: str
) -> None:
    (tmp_path / "set.bin").write_bytes(bytes(14))
    (tmp_path / "set.idx").write_bytes(HEADER.pack(*header) + INDEX.pack(*index))
    with pytest.raises(DataError, match=message) as error:
        IndexedDataset(tmp_path / "set")
    assert str(tmp_path / "set.") in str(error.value)


def test_the_format_of_these_tests_is_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "set.bin").write_bytes(bytes(14))
    (tmp_path / "set.idx").write_bytes(
        HEADER.pack(MAGIC, 1, 8, 3, 4) + INDEX.pack(*LENGTHS, *OFFSETS, *DOCUMENTS)
    )
    assert IndexedDataset(tmp_path / "set").num_tokens == 7


def test_files_that_are_missing_empty_or_folders(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"no-such\.idx: cannot be opened"):
        IndexedDataset(tmp_path / "no-such")
    prefix = write_set("set", [3])
    Path(f"{prefix}.bin").unlink()
    with pytest.raises(DataError, match=r"set\.bin: cannot be opened"):
        IndexedDataset(prefix)
    Path(f"{prefix}.bin").mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        IndexedDataset(prefix)
    Path(f"{prefix}.idx").write_bytes(b"")
    with pytest.raises(DataError):
        IndexedDataset(prefix)


@SAME_FOLDER
@given(st.data())
def test_no_damage_leads_to_a_read_outside_of_the_files(
    write_set: Callable[..., Path], data: st.DataObject
) -> None:
    """Whatever is done to the index, either it is refused or every read gives what the .bin holds."""
    prefix = write_set("set", [3, 0, 4, 1])
    idx, tokens = Path(f"{prefix}.idx"), np.fromfile(f"{prefix}.bin", np.uint8).tobytes()
    content = bytearray(idx.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    idx.write_bytes(
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    try:
        dataset = IndexedDataset(prefix)
    except DataError:
        return
    assert b"".join(dataset.read(i).tobytes() for i in range(dataset.num_sequences)) == tokens


def statistics() -> DatasetStatistics:
    return DatasetStatistics(
        tokens=7,
        documents=2,
        bytes=30,
        tokenizer=TokenizerIdentity(type="ByteTokenizer", vocab_size=259, sha256="0" * 64),
        append_eod=True,
        prepend_bos=False,
        eod_id=257,
    )


def test_statistics_survive_and_are_optional(tmp_path: Path) -> None:
    assert DatasetStatistics.read(tmp_path / "set") is None
    statistics().write(tmp_path / "set")
    assert DatasetStatistics.read(tmp_path / "set") == statistics()


@pytest.mark.parametrize("change", [{"tokens": -1}, {"surprise": 1}, {"tokenizer": None}])
def test_wrong_statistics_are_refused_by_name(tmp_path: Path, change: dict[str, object]) -> None:
    content = {**statistics().model_dump(), **change}
    (tmp_path / "set.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"set.json.*{next(iter(change))}"):
        DatasetStatistics.read(tmp_path / "set")
    (tmp_path / "set.json").write_text("{")
    with pytest.raises(DataError, match=r"set\.json"):
        DatasetStatistics.read(tmp_path / "set")
