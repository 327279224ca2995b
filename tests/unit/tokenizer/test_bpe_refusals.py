"""Models that the encoder in C++ leaves to the library, and files that are no models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import CONTROL, NORMAL, UNUSED, USER_DEFINED, Pair, bpe_model
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from megatron_ext import _C
from megatron_ext.tokenizer.build import TOKENIZER_TYPES, build_tokenizer

PIECES = [("a", -1.0), ("b", -2.0), ("ab", -3.0)]

REFUSED: dict[str, Callable[[ModelProto], object]] = {
    "uses the unigram algorithm": lambda proto: setattr(proto.trainer_spec, "model_type", 1),
    "uses the word algorithm": lambda proto: setattr(proto.trainer_spec, "model_type", 3),
    "uses the character algorithm": lambda proto: setattr(proto.trainer_spec, "model_type", 4),
    "has no byte fallback": lambda proto: setattr(proto.trainer_spec, "byte_fallback", False),
    "puts white space at the end": lambda proto: setattr(
        proto.trainer_spec, "treat_whitespace_as_suffix", True
    ),
    "with a character map": lambda proto: setattr(proto.normalizer_spec, "precompiled_charsmap", b"x"),
    "removes extra white space": lambda proto: proto.normalizer_spec.ClearField("remove_extra_whitespaces"),
    "does not escape white space": lambda proto: setattr(proto.normalizer_spec, "escape_whitespaces", False),
    "has a piece that is empty": lambda proto: proto.pieces.add(piece="", score=0),
    "has a piece of more than 1024 bytes": lambda proto: proto.pieces.add(piece="é" * 513, score=0),
    "has a piece with a NUL": lambda proto: proto.pieces.add(piece="a\0", score=0),
    "is not a number: ü": lambda proto: proto.pieces.add(piece="ü", score=float("nan")),
    "has a piece twice: ab": lambda proto: proto.pieces.add(piece="ab", score=0),
    "has a piece twice: <s>": lambda proto: proto.pieces.add(piece="<s>", score=0, type=USER_DEFINED),
    "piece of one character: €": lambda proto: proto.pieces.add(piece="€", score=0, type=CONTROL),
    "piece of one character: ▁": lambda proto: proto.pieces.add(piece="▁", score=0, type=UNUSED),
    "names no byte: <0x0a>": lambda proto: setattr(proto.pieces[13], "piece", "<0x0a>"),
    "no piece for some of the bytes": lambda proto: setattr(proto.pieces[13], "type", NORMAL),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_models_that_are_refused(reason: str) -> None:
    proto = bpe_model(PIECES)
    _C.BpeEncoder(proto.SerializeToString())
    REFUSED[reason](proto)
    with pytest.raises(ValueError, match=reason):
        _C.BpeEncoder(proto.SerializeToString())


def test_a_file_that_says_nothing_has_the_formats_defaults() -> None:
    with pytest.raises(ValueError, match="uses the unigram algorithm"):
        _C.BpeEncoder(b"")
    proto = bpe_model(PIECES, dummy_prefix=True)
    proto.normalizer_spec.ClearField("add_dummy_prefix")
    proto.normalizer_spec.ClearField("escape_whitespaces")
    assert Pair(proto.SerializeToString()).check(b"ab")[0] == 3 + 0xE2


def test_a_repeated_part_of_the_file_adds_to_the_first() -> None:
    proto, more = bpe_model(PIECES), ModelProto()
    more.normalizer_spec.add_dummy_prefix = True
    assert Pair(proto.SerializeToString() + more.SerializeToString()).check(b"ab")[0] == 3 + 0xE2


@pytest.mark.parametrize(
    ("model_type", "settings", "reason"),
    [
        ("unigram", {}, "uses the unigram algorithm"),
        ("bpe", {"normalization_rule_name": "nmt_nfkc"}, "normalises text with a character map"),
        ("bpe", {"remove_extra_whitespaces": True}, "removes extra white space"),
        ("bpe", {"byte_fallback": False}, "has no byte fallback"),
        ("bpe", {"treat_whitespace_as_suffix": True}, "puts white space at the end of a word"),
    ],
)
def test_trained_models_that_the_library_encodes(
    train_sentencepiece: Callable[..., Path], model_type: str, settings: dict[str, object], reason: str
) -> None:
    model = train_sentencepiece(**{"model_type": model_type, "vocab_size": 340, **settings})
    tokenizer = build_tokenizer("SentencePieceTokenizer", str(model))
    assert tokenizer.native_encoder() is None
    assert tokenizer.no_native_encoder == f"{model} {reason}: encoded by the sentencepiece library"
    assert tokenizer.encode("the fox") == sentencepiece.SentencePieceProcessor(str(model)).encode("the fox")


def test_every_tokenizer_has_an_encoder_or_a_reason(
    sentencepiece_model: Path, hugging_face_folder: Path
) -> None:
    model = {"SentencePieceTokenizer": sentencepiece_model, "HuggingFaceTokenizer": hugging_face_folder}
    for kind in TOKENIZER_TYPES:
        tokenizer = build_tokenizer(kind, str(model[kind]) if kind in model else None)
        assert (tokenizer.native_encoder() is None) == (tokenizer.no_native_encoder is not None)


BROKEN = {
    "is cut short": b"\x0a\x05ab",
    "a number that does not end": b"\x0a" + b"\xff" * 12,
    "an unknown kind": b"\x0b\x0c",
    "a length beyond the address space": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "a score cut short": b"\x0a\x03\x15\x00\x00",
}


@pytest.mark.parametrize("model", BROKEN.values(), ids=BROKEN)
def test_broken_files(model: bytes) -> None:
    with pytest.raises(ValueError, match=r"is cut short|does not end|unknown kind"):
        _C.BpeEncoder(model)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_damaged_files_are_refused_or_read_as_the_library_reads_them(data: st.DataObject) -> None:
    model = bytearray(bpe_model(PIECES).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(model[: data.draw(st.integers(0, len(model)))] if data.draw(st.booleans()) else model)
    try:
        encoder = _C.BpeEncoder(damaged)
    except ValueError:
        return
    try:
        library = sentencepiece.SentencePieceProcessor(model_proto=damaged)
    except RuntimeError:  # the library has refused it, and nobody asks us
        return
    for text in (b"ab ba", "é▁\0".encode(), b"\xff<s>"):
        assert encoder.encode(text).tolist() == library.encode(text)
