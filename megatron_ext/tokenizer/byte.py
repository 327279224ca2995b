"""Every UTF-8 byte is a token: needs no file, knows every language."""

import hashlib
from collections.abc import Sequence

import numpy as np

from megatron_ext import _C
from megatron_ext.tokenizer.base import TokenIds, check_ids, well_formed

BYTES = 256


class ByteTokenizer:
    """Ids 0 to 255 are bytes, then BOS 256, EOS 257 and PAD 258."""

    vocab_size = BYTES + 3
    bos_id = BYTES
    eos_id = BYTES + 1
    pad_id = BYTES + 2
    unk_id = None
    no_native_encoder = None
    fingerprint = hashlib.sha256(b"ByteTokenizer: 256 bytes, bos, eos, pad").hexdigest()

    def encode(self, text: str) -> list[int]:
        """UTF-8 bytes of ``text``."""
        return list(well_formed(text).encode())

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """UTF-8 bytes of each text."""
        return [np.frombuffer(well_formed(text).encode(), np.uint8).astype(np.int32) for text in texts]

    def native_encoder(self) -> _C.TextEncoder:
        """The same bytes, from C++."""
        return _C.ByteEncoder()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the bytes; broken UTF-8 gives U+FFFD."""
        check_ids(ids, self.vocab_size)
        return bytes(token for token in ids if token < BYTES).decode(errors="replace")
