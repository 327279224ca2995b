import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from megatron_ext.data import preprocess_read
from megatron_ext.data.preprocess_encode import EncodedChunk, Encoder, EncodeSettings, encode_chunks
from megatron_ext.data.preprocess_read import Chunk, read_chunks
from megatron_ext.data.preprocess_rows import Lines, json_row
from megatron_ext.errors import DataError

TEXTS = [
    "the quick brown fox jumps over the lazy dog, 1234 times",
    "    indented:\n\tif a  b   c:\n\n        return <s> </s> <unk> <0x0A> ▁",
    "быстрая коричневая лиса 敏捷的棕色狐狸 👩‍👩‍👧‍👦 e\u0301 \u200b",
    "",
    "\0 nul and \U0010ffff",
    "\ud800",  # JSON can spell it; U+FFFD for us
    "x" * 5000,
]
WELL_FORMED = [text.replace("\ud800", "\ufffd") for text in TEXTS]


def sentencepiece_model(path: Path, model_type: str) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:3] * 20), model_writer=model, vocab_size=380, model_type=model_type,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def huggingface_model(path: Path) -> Backend:
    backend = Backend(models.WordLevel({"the": 0, "fox": 1, "?": 2}, unk_token="?"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(path))
    return backend


def write_lines(path: Path) -> Path:
    path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS * 3))
    return path


def encoded_documents(
    path: Path, settings: EncodeSettings, workers: int
) -> tuple[list[EncodedChunk], list[list[int]]]:
    chunks = list(encode_chunks(read_chunks(path, settings.json_keys), Encoder(settings), workers))
    parts = [np.split(chunk.keys[0].tokens, np.cumsum(chunk.keys[0].lengths))[:-1] for chunk in chunks]
    return chunks, [part.tolist() for some in parts for part in some]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["bpe", "unigram", "huggingface", "bytes"])
def test_ids_of_a_file_are_the_librarys(
    tmp_path: Path,
    kind: str,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(preprocess_read, "CHUNK_BYTES", 300)
    model = tmp_path / "model.json"
    if kind == "bytes":
        settings = EncodeSettings("ByteTokenizer", None, ("text",), False, False)
        expected = [list(text.encode()) for text in WELL_FORMED]
    elif kind == "huggingface":
        settings = EncodeSettings("HuggingFaceTokenizer", str(model), ("text",), False, False)
        expected = [huggingface_model(model).encode(text).ids for text in WELL_FORMED]
    else:
        settings = EncodeSettings("SentencePieceTokenizer", str(model), ("text",), False, False)
        library = sentencepiece_model(model, kind)
        expected = [library.encode(text) for text in WELL_FORMED]
    chunks, documents = encoded_documents(write_lines(tmp_path / "a.jsonl"), settings, workers)
    assert len(chunks) > 3
    assert {chunk.keys[0].tokens.dtype for chunk in chunks} == {np.dtype(np.uint16)}
    assert documents == [ids for ids in expected * 3 if ids]
    told = sum(len(text.encode()) for text, ids in zip(WELL_FORMED, expected, strict=True) if ids)
    assert sum(chunk.keys[0].text_bytes for chunk in chunks) == 3 * told
    native = kind in ("bpe", "bytes")
    assert capsys.readouterr().err.count("library") == (0 if native else 1)


def test_ids_of_four_bytes_and_both_ends(tmp_path: Path) -> None:
    backend = Backend(models.WordLevel({f"w{number}": number for number in range(70_000)}, unk_token="w0"))  # noqa: S106
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "w69999", "eos_token": "w65536"}')
    (tmp_path / "a.jsonl").write_text('{"text": "w69998"}\n{"text": "w1"}\n')
    settings = EncodeSettings("HuggingFaceTokenizer", str(tmp_path), ("text",), True, True)
    (chunk,), documents = encoded_documents(tmp_path / "a.jsonl", settings, 1)
    assert chunk.keys[0].tokens.dtype == np.int32
    assert documents == [[69_999, 69_998, 65_536], [69_999, 1, 65_536]]


def numbered_chunks(count: int, read: list[int]) -> Iterator[Chunk]:
    for number in range(count):
        read.append(number)
        size = 100_000 if number % 7 == 0 else 1  # so that threads finish in another order
        line = json.dumps({"text": f"{number} " + "x" * size}).encode()
        yield Chunk(Path("a.jsonl"), number + 1, Lines(line), len(line), json_row, ends_dataset=number == 5)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_threads_keep_the_order_and_few_chunks(workers: int) -> None:
    read: list[int] = []
    encoder = Encoder(EncodeSettings("ByteTokenizer", None, ("text",), False, False))
    chunks = encode_chunks(numbered_chunks(60, read), encoder, workers)
    for number, chunk in enumerate(chunks):
        assert len(read) - number <= 2 * workers + 1
        assert bytes(chunk.keys[0].tokens.astype(np.uint8)).split()[0] == str(number).encode()
        assert chunk.ends_dataset == (number == 5)
    assert read == list(range(60))


def test_a_reader_that_fails_ends_the_threads() -> None:
    def failing() -> Iterator[Chunk]:
        yield from numbered_chunks(10, [])
        raise DataError("cut off")

    encoder = Encoder(EncodeSettings("ByteTokenizer", None, ("text",), False, False))
    with pytest.raises(DataError, match="cut off"):
        list(encode_chunks(failing(), encoder, 2))
