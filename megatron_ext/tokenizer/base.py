"""What every tokenizer offers the rest of the package, and the rules all of them keep."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from megatron_ext import _C
from megatron_ext.errors import TokenizerError

TokenIds = npt.NDArray[np.int32]


class Tokenizer(Protocol):
    """Text to ids and back.

    Ids of control tokens are explicit attributes. Text never produces one, even where it spells one out
    (``"<s>"``), and ``encode`` never adds one: whoever wants a BOS or an EOS puts it there.
    """

    @property
    def vocab_size(self) -> int:
        """Ids are in ``range(vocab_size)``; added tokens are counted."""

    @property
    def bos_id(self) -> int | None:
        """Begins a document; None if the tokenizer has none."""

    @property
    def eos_id(self) -> int | None:
        """Ends a document (EOD); None if the tokenizer has none."""

    @property
    def pad_id(self) -> int | None:
        """Fills a row; None if the tokenizer has none."""

    @property
    def unk_id(self) -> int | None:
        """Stands for text outside the vocabulary; None if the tokenizer has none."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the model file: equal where ids mean the same."""

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; lone surrogates count as U+FFFD."""

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """``encode`` of each text, as int32 arrays."""

    def native_encoder(self) -> _C.TextEncoder | None:
        """Exact encoder in C++ for the same ids as ``encode``, None where there is none."""

    @property
    def no_native_encoder(self) -> str | None:
        """Why there is none, for whoever encodes to log once; None where there is one."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without control tokens.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """


def well_formed(text: str) -> str:
    """``text`` with every lone surrogate replaced by U+FFFD.

    JSON can spell half of a surrogate pair (an escaped D800 alone). No UTF-8 exists for it, and tokenizer
    libraries refuse it or disagree about it. One replacement character each is what decoders of UTF-16 give.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Refuse ids that the vocabulary does not have.

    Raises:
        TokenizerError: names the first such id.
    """
    for token in ids:
        if not 0 <= token < vocab_size:
            raise TokenizerError(f"token id {token} is outside the tokenizer's vocabulary of {vocab_size}")
