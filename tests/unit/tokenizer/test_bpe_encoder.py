"""Ids of the encoder in C++ are the library's: with models as its trainer makes them, and as nobody would."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import CONTROL, LOWEST_SCORE, NORMAL, UNUSED, USER_DEFINED, Pair, Piece, pair_of

from megatron_ext import _C
from megatron_ext.tokenizer.build import build_tokenizer

# With Llama 2's settings (the fixture's), and what other models of its kind change.
TRAINED = {
    "as Llama 2": {},
    "without dummy prefix": {"add_dummy_prefix": False},
    "with user-defined pieces": {"user_defined_symbols": ["[REF_0]", "[REF_1]", "[", "the▁q", "über", "😀"]},
    "with control pieces": {"control_symbols": ["[INST]", "[/INST]"], "vocab_size": 440},
    "with rare characters as bytes": {"character_coverage": 0.98},
    "across words": {"split_by_whitespace": False, "split_by_number": False, "split_digits": False},
    "across scripts": {"split_by_unicode_script": False, "max_sentencepiece_length": 30},
}
TEXTS = [
    "the quick brown fox, über",
    "    def f(x):\n        return x[0]  # 4 spaces\n\tif tab:\n\t\t\tpass\r\n",
    " " * 70 + "a" + " " * 17 + "\t" * 40 + "\n" * 100,
    "<s> [INST] the </s>\n<unk><0x0A> [/INST]",
    "nul\0inside\0\0",
    "a▁b▁▁c ▁ d",
    "👨‍👩‍👧‍👦 👍🏽 🇩🇪 😀😀",
    "[REF_0][REF_1[REF_1]][[the qthe quick",
    "1234567890 3.14 2024-01-02",
    "unseen: ✓ ᐃᓄᒃ नमस्ते 한국어 \u0301\u200d\ufeff\U0010ffff",
    "быстрая 敏捷的棕色狐狸 ﬁ Å e\u0301",
    "=" * 500 + "the" * 100 + "https://example.org/a/b?c=d&e=%20f",
]


@pytest.fixture(scope="module", params=TRAINED.values(), ids=TRAINED)
def trained(request: pytest.FixtureRequest, train_sentencepiece: Callable[..., Path]) -> Pair:
    return Pair(train_sentencepiece(**request.param).read_bytes())


def test_a_trained_model(trained: Pair) -> None:
    for text in TEXTS:
        trained.check(text.encode())
    for first, second in itertools.product(TEXTS, TEXTS):
        trained.check((first + second).encode())


def test_a_trained_model_on_pieces_of_text(trained: Pair) -> None:
    """Any bytes, most of them cut out of plausible text, so that characters are cut as well."""
    rng = random.Random(1)
    sources = [text.encode() for text in TEXTS]
    for _ in range(3000):
        parts = []
        for _ in range(rng.randrange(8)):
            source = rng.choice(sources)
            start = rng.randrange(len(source))
            parts.append(source[start : start + rng.randrange(20)])
        trained.check(b"".join(parts) + rng.randbytes(rng.choice([0, 0, 1, 4])))


ALPHABET = ["a", "b", "c", "▁", "é", "中", "😀", "\n"]
TEXT_PARTS = [*ALPHABET, " ", "  ", "ab", "ba", "aab", "ца", "\ufffd", "\0", "<s>", "<0x41>"]


@st.composite
def models(draw: st.DrawFn) -> list[Piece]:
    """Pieces of few characters, so that merges compete: tied scores, some characters without a piece."""
    texts = draw(st.lists(st.text(ALPHABET[: draw(st.integers(1, 8))], min_size=1, max_size=6), unique=True))
    texts += draw(st.sets(st.sampled_from([*ALPHABET, "a b", "ab", "aa", "▁▁"]))) - set(texts)
    scores = st.sampled_from([0.0, -1.0, -2.0, -3.5, LOWEST_SCORE])
    kinds = st.sampled_from([NORMAL] * 6 + [UNUSED] * 2 + [USER_DEFINED, CONTROL])
    pieces: list[Piece] = []
    for text in texts:
        kind = draw(kinds)
        if len(text) == 1 and kind in {UNUSED, CONTROL}:
            kind = NORMAL
        pieces.append((text, draw(scores), kind))
    return pieces


@given(models(), st.booleans(), st.lists(st.lists(st.sampled_from(TEXT_PARTS)).map("".join), max_size=8))
@settings(max_examples=1500, deadline=None)
def test_models_that_nobody_would_make(pieces: list[Piece], dummy_prefix: bool, texts: list[str]) -> None:
    pair = pair_of(pieces, dummy_prefix=dummy_prefix)
    for text in texts:
        pair.check(text.encode())


@given(models(), st.lists(st.one_of(st.binary(max_size=3), st.sampled_from(TEXT_PARTS).map(str.encode))))
@settings(max_examples=500, deadline=None)
def test_bytes_that_are_no_text(pieces: list[Piece], parts: list[bytes]) -> None:
    pair_of(pieces).check(b"".join(parts))


@given(models(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_long_chunks(pieces: list[Piece], seed: int) -> None:
    """Long enough for the heap, in which merges overtake each other, and for several blocks."""
    rng = random.Random(seed)
    pair = pair_of(pieces)
    for length in (60, 70, 300, 2000):
        pair.check("".join(rng.choices(ALPHABET[:3], k=length)).encode())
        pair.check("".join(rng.choices(["ab", "abc", "cab", "a▁", "b"], k=length)).encode())


@pytest.mark.parametrize("length", [255, 256, 257, 258, 511, 512, 513, 768, 999, 1000])
def test_what_the_end_of_a_text_decides_at_its_beginning(length: int) -> None:
    """Each pair goes before the one to its left, so that blocks of a long chunk take back all before them."""
    characters = [chr(0x4E00 + i) for i in range(1000)]
    pairs: list[Piece] = [("".join(pair), i) for i, pair in enumerate(itertools.pairwise(characters))]
    pair = pair_of([*((character, -1) for character in characters), *pairs])
    ids = pair.check("".join(characters[:length]).encode())
    assert len(ids) == (length + 1) // 2


def test_a_line_of_ten_megabytes_without_a_boundary() -> None:
    pieces: list[Piece] = [(letter, -100) for letter in "abcd"]
    pieces += [("".join(pair), -i) for i, pair in enumerate(itertools.product("abcd", "abcd"))]
    pieces += [
        ("".join(four), -20 - i) for i, four in enumerate(itertools.product(["ab", "cd", "bb"], ["ca", "db"]))
    ]
    pair = pair_of(pieces)
    text = "".join(random.Random(2).choices("abcd", k=10_000_000)).encode()
    ids = pair.native.encode(text)
    assert "".join(pair.library.id_to_piece(ids.tolist())).encode() == text
    part = text[:300_000]
    assert pair.native.encode(part).tolist() == pair.library.encode(part)
    assert pair.native.encode(b"abca").tolist() == pair.library.encode(b"abca")


def test_more_different_chunks_than_are_remembered(train_sentencepiece: Callable[..., Path]) -> None:
    pair = Pair(train_sentencepiece().read_bytes())
    rng = random.Random(3)
    words = [f"{rng.randrange(10**9)}{rng.choice(['th', 'qu', 'ov'])}{i}" for i in range(40_000)]
    text = " ".join(rng.choices(words, k=120_000)).encode()
    assert pair.native.encode(text).tolist() == pair.library.encode(text)


def test_the_tokenizer_offers_it(sentencepiece_model: Path) -> None:
    tokenizer = build_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    assert tokenizer.no_native_encoder is None
    encoder = tokenizer.native_encoder()
    assert isinstance(encoder, _C.BpeEncoder)
    for text in TEXTS:
        assert encoder.encode(text.encode()).tolist() == tokenizer.encode(text)
