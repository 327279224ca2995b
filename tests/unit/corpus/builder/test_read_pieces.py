"""Ranges of a file's bytes give each of its lines once, and no line takes more memory than it may."""

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_ext.corpus.builder import read
from megatron_ext.corpus.builder.parts import Piece
from megatron_ext.corpus.builder.read import read_piece, row_number
from megatron_ext.data.preprocess_plan import InputIdentity
from megatron_ext.data.preprocess_read import kind_of
from megatron_ext.data.preprocess_rows import BadRowError
from megatron_ext.errors import DataError

LIMIT = 1 << 20


def pieces(path: Path, *cuts: int) -> Iterator[Piece]:
    identity = InputIdentity.of(path)
    edges = [0, *sorted(cuts), identity.size]
    for start, end in itertools.pairwise(edges):
        yield Piece(identity, kind_of(path), start, end)


def texts(piece: Piece, limit: int = LIMIT) -> list[str]:
    found: list[str] = []

    def refuse(_index: int, error: BadRowError) -> None:
        raise error

    for chunk in read_piece(piece, ["text"], limit):
        found += chunk.settled_texts(["text"], refuse).strings(0)
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ranges_give_each_line_once_and_in_order(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wanted = data.draw(st.lists(st.text(max_size=12), min_size=1, max_size=12))
    end = data.draw(st.sampled_from(["", "\n"]))
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in wanted) + end)
    cuts = data.draw(st.lists(st.integers(1, path.stat().st_size - 1), max_size=4, unique=True))
    found = [texts(piece) for piece in pieces(path, *cuts)]
    assert [text for of_piece in found for text in of_piece] == wanted
    before = 0
    for piece, of_piece in zip(pieces(path, *cuts), found, strict=True):
        assert not of_piece or row_number(piece, 1) == before + 1
        before += len(of_piece)


def test_small_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    wanted = [str(number) * number for number in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in wanted))
    for size in (1, 7, 64):
        monkeypatch.setattr(read, "CHUNK_BYTES", size)
        assert [text for piece in pieces(path, 100, 1000) for text in texts(piece)] == wanted


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_longer_line_is_one_bad_row_and_the_next_is_read(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "CHUNK_BYTES", 256)
    lines = [json.dumps({"text": text}) for text in ("before", "x" * 10_000, "behind")]
    content = "\n".join(lines).encode()
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    bad: list[tuple[int, str]] = []
    found: list[str] = []
    for chunk in read_piece(next(pieces(path)), ["text"], 1000):

        def count(index: int, error: BadRowError, first: int = chunk.first_row) -> None:
            bad.append((first + index, str(error)))

        found += chunk.settled_texts(["text"], count).strings(0)
    assert found == ["before", "behind"]
    assert bad == [(2, "longer than 1,000 bytes; cut it into documents, or raise max_document_bytes")]


def test_a_long_text_file_is_a_bad_row_of_which_little_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * 5000)
    with pytest.raises(BadRowError, match="longer than 1,000 bytes"):
        texts(next(pieces(path)), 1000)
    assert texts(next(pieces(path)), 5000) == ["x" * 5000]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), DataError),
        ("a.txt", "text".encode("utf-16"), BadRowError),
        ("a.jsonl", b"\x7fELF\x02\x01\x01\0\0\0", DataError),
        ("a.txt", b"\x7fELF\x02\x01\x01\0\0\0", BadRowError),
    ],
)
def test_what_is_no_text_is_said_to_be_none(
    tmp_path: Path, name: str, content: bytes, error: type[Exception]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=r"is zero; a binary file, or UTF-16 \(convert it with iconv -t UTF-8\)"):
        texts(next(pieces(path)))


def test_a_compressed_file_that_ends_too_early_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot be read to its end"):
        texts(next(pieces(path)))
