"""SentencePiece models (``tokenizer.model``), encoded by the sentencepiece library, or in C++ to the same ids."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from megatron_ext import _C
from megatron_ext.errors import TokenizerError
from megatron_ext.tokenizer.base import TokenIds, check_ids, well_formed


class SentencePieceTokenizer:
    """One ``.model`` file. SentencePiece never makes a control piece from text, whatever the text spells."""

    def __init__(self, model: Path) -> None:
        """Load the model.

        Raises:
            TokenizerError: the file is missing or is no SentencePiece model.
        """
        try:
            serialized = model.read_bytes()
        except OSError as error:
            raise TokenizerError(f"{model}: cannot read the SentencePiece model: {error.strerror}") from error
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(serialized)
        except RuntimeError as error:
            raise TokenizerError(
                f"{model}: not a SentencePiece model (expected a tokenizer.model file)"
            ) from error
        self.vocab_size: int = self._processor.get_piece_size()
        self.bos_id = _present(self._processor.bos_id())
        self.eos_id = _present(self._processor.eos_id())
        self.pad_id = _present(self._processor.pad_id())
        self.unk_id = _present(self._processor.unk_id())
        self.fingerprint = hashlib.sha256(serialized).hexdigest()
        self._model = model

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``."""
        ids: list[int] = self._processor.encode(well_formed(text), out_type=int)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """Ids of each text, on the calling thread only: processes are the caller's way to use more cores."""
        batch = self._processor.encode([well_formed(text) for text in texts], out_type=int, num_threads=1)
        return [np.array(ids, np.int32) for ids in batch]

    def native_encoder(self) -> _C.TextEncoder | None:
        """BPE in C++; None for a model with which that would not give the library's ids."""
        encoder, _ = self._native
        return encoder.clone() if encoder else None

    @property
    def no_native_encoder(self) -> str | None:
        """What it is in the model that C++ does not do; None where `native_encoder` gives one."""
        _, reason = self._native
        return reason

    @functools.cached_property
    def _native(self) -> tuple[_C.BpeEncoder | None, str | None]:
        try:
            return _C.BpeEncoder(self._processor.serialized_model_proto()), None
        except ValueError as error:
            return None, f"{self._model} {error}: encoded by the sentencepiece library"

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; control pieces give nothing, broken UTF-8 gives U+FFFD."""
        check_ids(ids, self.vocab_size)
        text: str = self._processor.decode([int(token) for token in ids])
        return text


def _present(token: int) -> int | None:
    """SentencePiece says -1 for a special piece that a model lacks."""
    return token if token >= 0 else None
