import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from megatron_ext import _C
from megatron_ext.data import preprocess_read
from megatron_ext.data.preprocess_encode import EncodedChunk, Encoder, EncodeSettings, encode_chunks
from megatron_ext.data.preprocess_read import Chunk, read_chunks
from megatron_ext.data.preprocess_rows import BadRowError, Columns, Lines, Skipped, json_row, texts_of
from megatron_ext.errors import DataError

KEYS = ("text", "é")
STRING_PARTS = [
    "a", "text", "plain text of more than eight bytes", "é", "日本", "😀", "\u2028", "\x7f", r"\n", r"\"", r"\\", r"\/",
    r"\b\f\r\t", r"\u0041", r"\u00E9", r"\u0000", r"\uffff", r"\ud83d\ude00", r"\ud83d", r"\uDE00",
    r"\ud83d\ud83d\ude00", r"\ud83d\n", r"\ud83d\u0041", "\ufeff", "{", "]", ",", ":",
]  # fmt: skip
BROKEN_PARTS = ["\t", "\x00", "\x1f", r"\x", r"\u12", r"\u12g4", r"\ud83d\u12", "\\", '"']
NUMBERS = [
    "0",
    "-0",
    "7",
    "-12.50",
    "1e5",
    "1E+400",
    "2e-3",
    "1" * 600,
    "1" * 601,
    "1" * 5000,
    "0." + "1" * 700,
]
BROKEN_VALUES = [
    "01",
    "+1",
    "1.",
    ".5",
    "-",
    "1e",
    "0x1",
    "NaN",
    "Infinity",
    "-Infinity",
    "tru",
    "nulll",
    "'a'",
    "",
]


def sometimes(usual: st.SearchStrategy[str], seldom: Sequence[str]) -> st.SearchStrategy[str]:
    return st.integers(0, 30).flatmap(lambda number: usual if number else st.sampled_from(seldom))


string_parts = st.lists(sometimes(st.sampled_from(STRING_PARTS), BROKEN_PARTS), max_size=5)
strings = string_parts.map(lambda parts: '"' + "".join(parts) + '"')
blanks = sometimes(st.sampled_from(["", " ", "\t", "\r"]), ["\x0b", "\u00a0"])
commas = sometimes(st.just(","), ["", ",,", ":"])
scalars = sometimes(st.one_of(strings, st.sampled_from([*NUMBERS, "true", "false", "null"])), BROKEN_VALUES)
keys = st.one_of(strings, st.sampled_from(['"text"', '"é"', r'"te\u0078t"', r'"\u00e9"', '"id"']))


def enclosed(parts: st.SearchStrategy[str], opening: str, closing: str) -> st.SearchStrategy[str]:
    return st.tuples(st.lists(parts, max_size=4), commas).map(
        lambda made: opening + made[1].join(made[0]) + closing
    )


def members(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    colons = sometimes(st.just(":"), ["", "=", "::"])
    return st.tuples(blanks, keys, blanks, colons, blanks, values, blanks).map("".join)


values = st.recursive(
    scalars,
    lambda inner: st.one_of(enclosed(inner, "[", "]"), enclosed(members(inner), "{", "}")),
    max_leaves=8,
)
wanted = st.tuples(st.just('"text":'), strings, st.just(',"é": '), strings).map("".join)
objects = st.tuples(wanted, st.lists(members(values), max_size=3), st.booleans()).map(
    lambda made: "{" + ",".join([*made[1], made[0]] if made[2] else [made[0], *made[1]]) + "}"
)
lines = st.tuples(blanks, sometimes(objects, ["", " \x0b\x0c", "{}", "7", "\ufeff{}"]), blanks).map("".join)
line_ends = sometimes(st.just("\n"), ["\r\n", "\n\n", "\n \t\r\n", "\r", ""])
line_blocks = st.lists(st.tuples(lines, line_ends).map("".join), min_size=1, max_size=6).map(
    lambda made: "".join(made).encode()
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Lines of JSON, most of them good; with bytes changed, cut out or put in."""
    block = bytearray(draw(line_blocks))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(block)))
        block[place : place + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"}", b"\n", b"\0", b"\x80", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"]
            )
        )
    return bytes(block)


def by_python(line: bytes, wanted: Sequence[str]) -> list[str] | BadRowError | None:
    """What Python's json makes of a line."""
    try:
        row = json_row(line)
        return None if row is None else texts_of(row, wanted)
    except BadRowError as error:
        return error


@settings(max_examples=500, deadline=None)
@given(damaged())
@example(b'{"text": "\\ud83d", "\\u00e9": "\\ude00", "a": {"text": 7}}')
def test_a_plain_line_has_the_texts_that_pythons_json_finds(block: bytes) -> None:
    texts, whole = Lines(block).texts(KEYS), io.BytesIO(block).readlines()
    odd = texts.odd_rows()
    assert len(texts) == len(Lines(block)) == len(whole) == len(list(Lines(block)))
    for row in odd:
        assert by_python(whole[row], KEYS) is not None, "a blank line"
        texts.drop(row)
    plain = [by_python(line, KEYS) for row, line in enumerate(whole) if row not in odd]
    assert [[texts.strings(0)[row], texts.strings(1)[row]] for row in range(len(texts.strings(0)))] == [
        found for found in plain if found is not None
    ]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(
    row=st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=5),
    text=st.text(),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, (",", ":"), (" , ", " : ")]),
)
def test_what_json_writes_is_plain(
    row: dict[str, Any], text: str, ascii_only: bool, indent: tuple[str, str] | None
) -> None:
    row = {**row, "text": text}
    texts = Lines(json.dumps(row, ensure_ascii=ascii_only, separators=indent).encode()).texts(["text"])
    assert texts.odd_rows() == []
    assert texts.strings(0) == [text]


@pytest.mark.parametrize(
    ("line", "odd"),
    [
        (b'{"text": "a", "text": "b"}', True),  # the last counts
        (b'{"text": "a", "x": 1, "x": 2}', False),
        (b'{"text": "a", "x": NaN}', True),
        (b'{"text": "a", "\\ud800": 1}', True),
        (b'{"text": "a", "x": ' + b"[" * 63 + b"]" * 63 + b"}", False),
        (b'{"text": "a", "x": ' + b"[" * 64 + b"]" * 64 + b"}", True),
        (b'{"text": "a", "x": ' + b"[" * 100_000 + b"}", True),
        (b'\xef\xbb\xbf{"text": "a"}', True),
        (b'{"text": "a"} {"text": "b"}', True),
        (b'{"text": "a"}\r', False),
    ],
)
def test_which_lines_are_left_to_python(line: bytes, odd: bool) -> None:
    assert Lines(line).texts(["text"]).odd_rows() == ([0] if odd else [])


def test_every_sequence_that_is_not_utf8_is_odd() -> None:
    tails = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    starts = [bytes([first, second]) for first in range(256) for second in tails]
    candidates = [start + rest for start in starts for rest in (b"", b"\x80", b"\xbf\x80", b"\x80\x80\xbf")]
    texts = Columns({"text": [b"x" * (len(one) % 3) + one for one in candidates]}).texts(["text"])
    odd = set(texts.odd_rows())
    for row, candidate in enumerate(candidates):
        assert (row in odd) == (candidate.decode(errors="replace").encode() != candidate), candidate


def byte_encoder(wanted: Sequence[str] = KEYS, *, skip: bool = True) -> Encoder:
    return Encoder(EncodeSettings("ByteTokenizer", None, tuple(wanted), False, False, skip))


def documents(chunks: Sequence[EncodedChunk], key: int) -> list[str]:
    """Texts of the documents, from the ids of their bytes."""
    return [
        part.astype(np.uint8).tobytes().decode()
        for chunk in chunks
        for part in np.split(chunk.keys[key].tokens, np.cumsum(chunk.keys[key].lengths))[:-1]
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=damaged(), chunk_bytes=st.integers(1, 200), workers=st.integers(1, 2))
def test_files_in_blocks_of_any_size(tmp_path: Path, block: bytes, chunk_bytes: int, workers: int) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess_read, "CHUNK_BYTES", chunk_bytes)
        encoded = list(encode_chunks(read_chunks(source, KEYS), byte_encoder(), workers))
    expected, skipped = [], Skipped()
    for number, line in enumerate(io.BytesIO(block).readlines(), start=1):
        found = by_python(line, KEYS)
        if isinstance(found, BadRowError):
            skipped.add(found.reason, f"{source}:{number}: {found}")
        elif found is not None:
            expected.append(found)
    total = Skipped()
    for chunk in encoded:
        total.merge(chunk.skipped)
    assert total == skipped
    assert sum(chunk.file_bytes for chunk in encoded) == len(block)
    for key in range(2):
        assert documents(encoded, key) == [texts[key] for texts in expected if texts[key]]
        assert sum(chunk.keys[key].empty for chunk in encoded) == [texts[key] for texts in expected].count("")


def test_the_first_bad_line_ends_the_call_whatever_the_order(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(b'{"text": "good"}\n' * 20_000 + b'{"text": 1}\n' + b"{\n" * 20_000)
    for workers in (1, 2):
        with pytest.raises(DataError, match=r"a.jsonl:20001: 'text' holds a number"):
            list(encode_chunks(read_chunks(source, ["text"]), byte_encoder(["text"], skip=False), workers))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode), st.none()), max_size=8)
)
def test_columns_have_the_texts_that_are_utf8(cells: list[bytes | None]) -> None:
    texts = Columns({"text": cells, "other": [b"x"] * len(cells)}).texts(["other", "text"])
    good = [cell for cell in cells if cell is not None and cell.decode(errors="replace").encode() == cell]
    for row in texts.odd_rows():
        assert cells[row] not in good
        texts.drop(row)
    assert texts.strings(1) == [cell.decode() for cell in good]
    assert texts.strings(0) == ["x"] * len(good)


def test_odd_rows_have_to_be_settled() -> None:
    encoder, dtype = _C.ByteEncoder(), np.dtype(np.uint16)
    texts = Lines(b'{"text": "a"}\n{}\n\n{}\n').texts(["text"])
    with pytest.raises(ValueError, match="row 1 is odd"):
        texts.encode(encoder, 0, dtype, None, None)
    for settle in (texts.drop, lambda row: texts.replace(row, [b"a"])):
        for row in (0, 2, 4):
            with pytest.raises(ValueError, match=f"row {row} is not odd"):
                settle(row)
    with pytest.raises(ValueError, match="2 texts, not 1"):
        texts.replace(1, [b"a", b"b"])
    texts.replace(1, [b"bc"])
    texts.drop(3)
    tokens, lengths, text_bytes, empty = texts.encode(encoder, 0, dtype, 256, 257)
    assert tokens.tolist() == [256, 97, 257, 256, 98, 99, 257]
    assert (lengths.tolist(), text_bytes, empty) == ([3, 4], 3, 0)
    with pytest.raises(ValueError, match="no key 1"):
        texts.strings(1)
    with pytest.raises(ValueError, match="uint16 or int32"):
        texts.encode(encoder, 0, np.dtype(np.int64), None, None)


def test_texts_outlive_what_they_were_read_from() -> None:
    texts = Lines(b'{"text": "' + b"x" * 100_000 + b'"}').texts(["text"])
    columns = Columns({"text": [b"y" * 100_000]}).texts(["text"])
    noise = [bytes([number]) * 100_000 for number in range(100)]
    assert texts.strings(0) == ["x" * 100_000]
    assert columns.strings(0) == ["y" * 100_000]
    assert len(noise) == 100


def test_chunks_are_sequences_of_what_parse_takes(tmp_path: Path) -> None:
    chunk = Chunk(tmp_path, 1, Lines(b'{"text": "a"}\r\n\n{"text": "b"}'), 0, json_row)
    assert [chunk.parse(row) for row in chunk.rows] == [{"text": "a"}, None, {"text": "b"}]
    assert list(chunk.rows[1:]) == [b"\n", b'{"text": "b"}']
    columns = Columns({"text": [b"a", b"b"], "id": [1, 2]})
    assert list(columns) == [{"text": b"a", "id": 1}, {"text": b"b", "id": 2}]
    assert columns[1:] == [{"text": b"b", "id": 2}]
