"""Cases in which a plausible BPE differs from sentencepiece's, smallest first. Every expectation is the library's."""

import pytest
from model_files import (
    CONTROL,
    LOWEST_SCORE,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    Pair,
    Piece,
    bpe_model,
    pair_of,
)

from megatron_ext import _C


def letters(text: str, score: float = -100) -> list[Piece]:
    return [(letter, score) for letter in text]


def bytes_of(text: str) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in text.encode()]


def test_score_decides_and_not_the_id() -> None:
    # As in Llama's models: the runs of spaces come first and score worst.
    runs: list[Piece] = [("▁" * length, LOWEST_SCORE) for length in (4, 3, 2)]
    pair = pair_of([*runs, ("▁b", -1), *letters("▁ab")], dummy_prefix=True)
    assert pair.pieces("a  b") == [" ", "a", " ", " b"]
    assert pair.pieces(" b") == [" ", " b"]
    assert pair.pieces("    a") == ["    ", " ", "a"]


def test_the_leftmost_of_equal_scores_goes_first() -> None:
    pair = pair_of([("bc", -1), ("ab", -1), *letters("abc")])
    assert pair.pieces("abc") == ["ab", "c"]
    assert pair.pieces("bcbcab") == ["bc", "bc", "ab"]
    equal = pair_of([("aa", -1), ("aaa", -1), ("ba", -1), *letters("ab")])
    for length in range(1, 200):
        equal.check(b"a" * length)
        equal.check(b"ba" * length)


def test_a_better_score_further_right_goes_first() -> None:
    pair = pair_of([("ab", -2), ("bc", -1), *letters("abc")])
    assert pair.pieces("abc") == ["a", "bc"]


def test_scores_that_differ_in_the_last_bit_only() -> None:
    pair = pair_of([("ab", -1.0000001), ("bc", -1.0), *letters("abc")])
    assert pair.pieces("abc") == ["a", "bc"]


def test_user_defined_pieces_are_matched_first_and_never_merged() -> None:
    symbols: list[Piece] = [("[A]", 0, USER_DEFINED), ("[A][B]", 0, USER_DEFINED), ("b", 0, USER_DEFINED)]
    pair = pair_of([*symbols, ("]a", -1), ("a[", -1), ("ab", -1), ("A]", -1), *letters("[]Aa")])
    assert pair.pieces("a[A]a") == ["a", "[A]", "a"]
    assert pair.pieces("[A][B][A]") == ["[A][B]", "[A]"]  # the longest
    assert pair.pieces("[A][") == ["[A]", "["]
    assert pair.pieces("ab") == ["a", "b"]
    assert pair.pieces("[[A]A]") == ["[", "[A]", "A]"]


def test_user_defined_pieces_match_from_the_left() -> None:
    pair = pair_of([("ab", 0, USER_DEFINED), ("bcd", 0, USER_DEFINED), ("cd", -1), *letters("abcd")])
    assert pair.pieces("abcd") == ["ab", "cd"]
    assert pair.pieces("bcd") == ["bcd"]


def test_user_defined_pieces_hold_escaped_spaces() -> None:
    symbols: list[Piece] = [("▁x", 0, USER_DEFINED), ("y▁z", 0, USER_DEFINED), ("p q", 0, USER_DEFINED)]
    pair = pair_of([*symbols, *letters("▁xyzpq")], dummy_prefix=True)
    assert pair.pieces("x") == [" x"]
    assert pair.pieces("y z▁x") == [" ", "y z", " x"]
    assert pair.pieces("p q") == [" ", "p", " ", "q"]


def test_empty_text_has_no_ids_and_no_dummy_prefix() -> None:
    pair = pair_of(letters("▁a"), dummy_prefix=True)
    assert pair.pieces("") == []
    assert pair.pieces(" ") == [" ", " "]
    assert pair_of(letters("▁a")).pieces(" a") == [" ", "a"]


def test_unused_pieces_take_part_in_merges_and_are_undone() -> None:
    pair = pair_of([("ab", -1, UNUSED), ("abc", -2), ("abcd", -3, UNUSED), *letters("abcd")])
    assert pair.pieces("ab") == ["a", "b"]
    assert pair.pieces("abc") == ["abc"]
    assert pair.pieces("abcd") == ["abc", "d"]
    nested = pair_of([("ab", -1, UNUSED), ("cd", -2, UNUSED), ("abcd", -3, UNUSED), *letters("abd")])
    assert nested.pieces("abcd") == ["a", "b", *bytes_of("c"), "d"]


def test_an_unused_piece_is_undone_by_its_own_last_merge_whatever_is_around_it() -> None:
    pair = pair_of([("ab", -2), ("bc", -1), ("abc", -3, UNUSED), ("bcd", -1.5), *letters("abcd")])
    assert pair.pieces("abc") == ["a", "bc"]
    assert pair.pieces("abcd abc") == ["a", "bcd", *bytes_of("▁"), "a", "bc"]


@pytest.mark.parametrize("text", ["<s>", "</s>", "<unk>", "<0x0A>", "[INST]", "x</s>y<s>"])
def test_control_and_byte_pieces_never_come_from_text_that_spells_them(text: str) -> None:
    pieces: list[Piece] = [("[INST]", 0, CONTROL), *letters("<>/sunk0xA[]INSTy")]
    assert pair_of(pieces).pieces(text) == list(text)
    merged = pair_of([*pieces, ("<s", -1), ("/s", -1), ("s>", -2), ("un", -1), ("0x", -1), ("[I", -1)])
    assert min(merged.check(text.encode())) > 259


def test_a_character_without_a_piece_inside_a_piece() -> None:
    pair = pair_of([("ab", -1), ("é中", -1), ("a", -2)])
    assert pair.pieces("ab") == ["ab"]
    assert pair.pieces("bab") == [*bytes_of("b"), "ab"]
    assert pair.pieces("é中é") == ["é中", *bytes_of("é")]


def test_a_piece_that_no_two_pieces_make_is_out_of_reach() -> None:
    assert pair_of([("abc", -1), *letters("abc")]).pieces("abc") == ["a", "b", "c"]


INVALID = {
    "a lone trail byte": (b"a\x80b", 1),
    "cut short at the end": (b"ab\xe4\xb8", 2),
    "cut short before a letter": (b"\xe4\xb8a", 2),
    "a surrogate": (b"a\xed\xa0\x80b", 3),
    "a pair of surrogates": (b"\xed\xa0\xbd\xed\xb8\x80", 6),
    "overlong in two": (b"\xc0\x80", 2),
    "overlong in three": (b"\xe0\x80\xaf", 3),
    "overlong in four": (b"\xf0\x82\x82\xac", 4),
    "beyond U+10FFFF": (b"\xf4\x90\x80\x80", 4),
    "lead bytes of five and six": (b"\xf8\x88\x80\x80\x80\xfc", 6),
    "bytes that never occur": (b"a\xff\xfe b", 2),
    "a lead byte, then a whole character": (b"\xe4\xe4\xb8\xad", 1),
}


@pytest.mark.parametrize(("text", "replaced"), INVALID.values(), ids=INVALID)
def test_each_byte_that_is_not_utf8_counts_as_one_replacement_character(text: bytes, replaced: int) -> None:
    pieces = [*letters("ab▁中"), ("\ufffd", -1), ("a\ufffd", -2), ("\ufffd\ufffd", -3), ("\ufffdb", -1)]
    ids = pair_of(pieces, dummy_prefix=True).check(text)
    assert pair_of([*letters("ab▁中")], dummy_prefix=True).pieces(text).count("<0xEF>") == replaced
    assert pair_of(pieces, dummy_prefix=True).library.decode(ids).count("\ufffd") == replaced


def test_pieces_with_a_space_that_is_not_escaped_are_out_of_reach() -> None:
    assert pair_of([("a b", -1), (" ", -1), ("a ", -1), *letters("▁ab")]).pieces("a b") == ["a", " ", "b"]


def test_u2581_in_text_is_a_space() -> None:
    pair = pair_of([("▁a", -1), ("▁▁", -2), *letters("▁a")], dummy_prefix=True)
    assert pair.pieces("a▁a a ▁a") == [" a", " a", " a", " ", " a"]
    assert pair_of(letters("a")).pieces(" ▁") == bytes_of("▁▁")


def test_nul_is_a_character_like_others() -> None:
    pair = pair_of([("ab", -1), *letters("ab")])
    assert pair.pieces("a\0b\0\0") == ["a", "<0x00>", "b", "<0x00>", "<0x00>"]
    for length in range(40):  # chunks are remembered apart from those that a NUL makes longer
        assert pair.pieces("\0" * length) == ["<0x00>"] * length


def test_vocabularies_beyond_16_bits() -> None:
    rare: list[Piece] = [(chr(0x20000 + i), -i) for i in range(70_000)]
    pair = pair_of([*rare, (chr(0x20000) + chr(0x20001), -1)])
    assert pair.check("\U00020000\U00020001\U0003116f".encode()) == [259 + 70_000, 259 + 69_999]


def test_clones_give_the_same_ids() -> None:
    model = bpe_model([("ab", -1), *letters("ab")]).SerializeToString()
    encoder = _C.BpeEncoder(model)
    clone = encoder.clone()
    del encoder
    assert clone.encode(b"abab b").tolist() == Pair(model).check(b"abab b")


def test_types_that_the_format_does_not_know_are_normal() -> None:
    proto = bpe_model([("ab", -1), *letters("a")])
    serialized = proto.SerializeToString() + b"\x0a\x0a" + b"\x0a\x01b\x15\0\0\0\0\x18\x09"
    assert Pair(serialized).pieces("ab b") == ["ab", *bytes_of("▁"), "b"]
    assert NORMAL == 1
