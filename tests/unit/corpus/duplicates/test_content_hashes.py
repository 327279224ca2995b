import hashlib

import numpy as np
import pytest

from megatron_ext.corpus.duplicates.content import content_hashes
from megatron_ext.corpus.duplicates.keys import NO_KEY, scoped


def test_a_hash_is_blake2b_of_the_text_without_white_space_around_it() -> None:
    hashes = content_hashes([" \u3000Ünïcode text\n", "", "\ud800"])
    expected = [
        hashlib.blake2b(content, digest_size=16).digest()
        for content in ("Ünïcode text".encode(), b"", b"\xed\xa0\x80")
    ]
    assert hashes.shape == (3, 2)
    assert [row.astype("<u8").tobytes() for row in hashes] == expected


@pytest.mark.parametrize("other", ["two  words", "Two words", "two words.", "two\nwords", "two wo\u0301rds"])
def test_only_equal_texts_have_one_hash(other: str) -> None:
    first, second, third = content_hashes(["two words", other, "\ttwo words "])
    assert (first == third).all()
    assert (first != second).all()


def test_no_text_makes_no_hash() -> None:
    assert content_hashes([]).shape == (0, 2)


def test_keys_are_equal_within_a_scope_only() -> None:
    keys = np.array([[5, 0], [5, 7], [5, 7]], np.uint64)
    first, second, third = scoped(keys, ["eng_Latn", "eng_Latn", "fra_Latn"])
    assert first[0] == second[0] != third[0]
    assert second[1] != third[1]
    assert first[1] == NO_KEY
    assert (scoped(keys[:, 0], ["a", "a", "b"]) == scoped(keys, ["a", "a", "b"])[:, 0]).all()
