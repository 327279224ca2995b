import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from megatron.core.datasets import indexed_dataset as megatron

from megatron_ext.cli.main import main
from megatron_ext.data import inspect
from megatron_ext.data.indexed import DatasetStatistics, TokenizerIdentity
from megatron_ext.data.inspect import Lengths, describe, read_document, read_header, verify
from megatron_ext.errors import DataError
from megatron_ext.tokenizer.byte import ByteTokenizer

WriteSet = Callable[..., Path]
ROOT = Path(__file__).parents[3]
TEXTS = ["Zwei Wörter [bold]", "", "ᐃᓄᒃ :smile:"]


def statistics(tokens: int, documents: int, vocab_size: int = 259, sha256: str = "") -> DatasetStatistics:
    identity = TokenizerIdentity(
        type="ByteTokenizer", vocab_size=vocab_size, sha256=sha256 or ByteTokenizer.fingerprint
    )
    return DatasetStatistics(
        tokens=tokens,
        documents=documents,
        bytes=30,
        tokenizer=identity,
        append_eod=True,
        prepend_bos=False,
        eod_id=257,
    )


@pytest.fixture
def text_set(write_set: WriteSet) -> Path:
    documents = [[*text.encode(), 257] for text in TEXTS]
    prefix = write_set("text[b]", list(map(len, documents)), np.concatenate(documents))
    statistics(sum(map(len, documents)), len(documents)).write(prefix)
    return prefix


def float_set(folder: Path, code: int, item_size: int) -> Path:
    """Two documents of 3 and 2 values, as GPT-NeoX or Megatron-LM may write embeddings."""
    (folder / "set.bin").write_bytes(bytes(5 * item_size))
    index = struct.pack("<2i2q3q", 3, 2, 0, 3 * item_size, 0, 1, 2)
    (folder / "set.idx").write_bytes(struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, code, 2, 3) + index)
    return folder / "set"


def test_lengths_are_of_documents_not_of_sequences(tmp_path: Path) -> None:
    documents = [[2, 3], [], [1], [0, 0], [4, 4, 2]]
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "set.bin"), dtype=np.int32)
    for lengths in documents:
        builder.add_document(np.arange(sum(lengths)), lengths)
    builder.finalize(str(tmp_path / "set.idx"))
    found = describe(tmp_path / "set")
    sums = [sum(lengths) for lengths in documents]
    assert found.lengths == Lengths(min(sums), np.median(sums), np.mean(sums), max(sums), sums.count(0))
    assert (found.header.dtype, found.header.num_sequences, found.num_tokens) == ("int32", 8, 16)
    assert (found.header.version, found.header.num_document_indices) == (1, 6)
    assert (found.bin_bytes, found.idx_bytes) == (16 * 4, 34 + 8 * 12 + 6 * 8)
    assert found.statistics is None
    for i, lengths in enumerate(documents):
        assert read_document(tmp_path / "set", i).tolist() == list(range(sum(lengths)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint16])
def test_dtypes_are_named_as_megatron_core_names_them(write_set: WriteSet, dtype: type[np.number]) -> None:
    header = read_header(write_set("set", [3], dtype=dtype))
    assert header.dtype == np.dtype(dtype).name
    assert header.code == megatron.DType.code_from_dtype(dtype)


@pytest.mark.parametrize(
    ("code", "item_size", "dtype"),
    [
        (6, 4, "float32 by GPT-NeoX's table of dtypes (code 6)"),
        (7, 8, "float64 by GPT-NeoX's table of dtypes (code 7)"),
        (6, 8, "float64 by Megatron-LM's table of dtypes (code 6)"),
        (7, 4, "float32 by Megatron-LM's table of dtypes (code 7)"),
    ],
)
def test_floats_are_told_apart_by_their_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, item_size: int, dtype: str
) -> None:
    prefix = float_set(tmp_path, code, item_size)
    assert main(["inspect", str(prefix)]) == 0
    shown = capsys.readouterr().out
    assert f"dtype {dtype} " in " ".join(shown.replace("│", " ").split())
    assert "floats are not tokens" in shown
    assert main(["inspect", str(prefix), "--verify"]) == 2
    assert "leave out --verify" in capsys.readouterr().err
    with Path(f"{prefix}.bin").open("ab") as stream:
        stream.write(bytes(item_size))
    with pytest.raises(DataError, match=r"set\.bin: has .* describes 5 floats"):
        describe(prefix)
    os.truncate(f"{prefix}.idx", 80)
    with pytest.raises(DataError, match=r"has 80 bytes, but its header announces 82"):
        describe(prefix)


def test_an_empty_dataset(write_set: WriteSet) -> None:
    found = describe(prefix := write_set("set", []))
    assert (found.num_tokens, found.lengths) == (0, None)
    assert verify(prefix).highest_id is None
    with pytest.raises(DataError, match="there is no document 0; it has none"):
        read_document(prefix, 0)


@pytest.mark.parametrize("document", [-1, 3])
def test_documents_that_are_not_there(text_set: Path, document: int) -> None:
    with pytest.raises(DataError, match=f"no document {document}; they are 0 to 2"):
        read_document(text_set, document)


def test_the_command_shows_all_of_it(text_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decode = ["--tokenizer-type", "ByteTokenizer"]
    for i, text in enumerate(TEXTS):
        assert main(["inspect", f"{text_set}.idx", "--document", str(i), *decode]) == 0
        shown = capsys.readouterr().out
        assert shown.endswith(f"document {i}: {len(text.encode()) + 1} tokens\n{text}\n")
    words = " ".join(shown.replace("│", " ").split())
    assert "text[b]" in words
    assert "uint16 (code 8)" in words
    assert "1 minimum, 18.0 median, 13.0 mean, 20 maximum" in words
    assert "empty documents 0" in words
    assert f"documents {len(TEXTS)}" in words
    assert "ByteTokenizer, vocabulary 259" in words
    assert ByteTokenizer.fingerprint in words
    assert main(["inspect", str(text_set), "--document", "1"]) == 0
    assert capsys.readouterr().out.endswith("document 1: 1 tokens\n257\n")


def test_another_tokenizer_than_the_dataset_s_is_warned_of(
    write_set: WriteSet, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_set("set", [2], np.array([72, 105]))
    statistics(2, 1, sha256="1" * 64).write(prefix)
    assert main(["inspect", str(prefix), "--document", "0", "--tokenizer-type", "ByteTokenizer"]) == 0
    output = capsys.readouterr()
    assert output.out.endswith("\nHi\n")
    assert "made with another tokenizer" in output.err


def test_options_that_do_not_go_together(text_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(text_set), "--tokenizer-type", "ByteTokenizer"]) == 2
    assert "--document N" in capsys.readouterr().err
    assert main(["inspect", str(text_set), "--document", "0", "--tokenizer-model", "m"]) == 2
    assert "needs --tokenizer-type" in capsys.readouterr().err


@pytest.mark.parametrize("block", [8, 16 << 20])
def test_verify_gives_hashlib_s_sums_and_the_range_of_ids(
    text_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(inspect, "HASH_BYTES", block)
    sums = {
        suffix: hashlib.sha256(Path(f"{text_set}{suffix}").read_bytes()).hexdigest()
        for suffix in (".bin", ".idx")
    }
    assert main(["inspect", str(text_set), "--verify"]) == 0
    shown = capsys.readouterr().out
    assert f"ids from {min(b''.join(text.encode() for text in TEXTS))} to 257\n" in shown
    assert "".join(f"{digest}  {text_set}{suffix}\n" for suffix, digest in sums.items()) in shown


@pytest.mark.parametrize(
    ("ids", "dtype", "told", "message"),
    [
        ([1, 258, 300], np.uint16, statistics(3, 1), "holds the id 300, outside .* of 259"),
        ([1, -7, 2], np.int32, None, "holds the id -7"),
        ([1, 2, 3], np.uint16, statistics(4, 1), r"set\.json: tells of 4 tokens in 1 documents"),
    ],
)
def test_verify_finds_what_the_index_does_not_tell(
    write_set: WriteSet, ids: list[int], dtype: type[np.number], told: DatasetStatistics | None, message: str
) -> None:
    prefix = write_set("set", [3], np.array(ids), dtype)
    if told is not None:
        told.write(prefix)
    describe(prefix)
    with pytest.raises(DataError, match=message):
        verify(prefix)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ((".idx", 0, b"X"), "does not start"),
        ((".idx", 9, b"\2"), "format version 2"),
        ((".idx", 17, b"\x09"), "dtype code 9"),
        ((".idx", 17, b"\x04"), "behind the end"),
        ((".idx", 18, b"\xff"), "cut short"),
        ((".idx", -8, b"\0"), "less than the one before"),
        ((".idx", None, b"\0"), "1 bytes more"),
        ((".bin", None, b"\0\0"), "not a pair"),
    ],
)
def test_damage_is_one_message_and_exit_code_2(
    text_set: Path,
    capsys: pytest.CaptureFixture[str],
    damage: tuple[str, int | None, bytes],
    message: str,
) -> None:
    suffix, position, content = damage
    path = Path(f"{text_set}{suffix}")
    whole = bytearray(path.read_bytes())
    at = len(whole) if position is None else position % len(whole)
    whole[at : at + len(content)] = content
    path.write_bytes(whole)
    assert main(["inspect", str(text_set), "--verify"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {text_set}.")
    assert message in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("size", [0, 33])
def test_an_index_shorter_than_its_header_or_missing(text_set: Path, size: int) -> None:
    os.truncate(f"{text_set}.idx", size)
    with pytest.raises(DataError, match=f"has {size} bytes, less than the header's 34"):
        describe(text_set)
    Path(f"{text_set}.idx").unlink()
    with pytest.raises(DataError, match=r"\.idx: cannot be opened: No such file"):
        describe(text_set)


@pytest.mark.parametrize("tool", ["merge_datasets", "inspect_dataset"])
def test_the_tools_run_from_a_clone(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert f"usage: tools/{tool}.py" in done.stdout
