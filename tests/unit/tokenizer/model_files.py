"""SentencePiece models built piece by piece, and the library's word on what they do."""

from collections.abc import Iterable, Sequence

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from megatron_ext import _C

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
LOWEST_SCORE = -1e9  # of the runs of spaces in models of Llama's kind

Piece = tuple[str, float] | tuple[str, float, int]  # text, score, type


def bpe_model(pieces: Iterable[Piece], *, dummy_prefix: bool = False) -> ModelProto:
    """Ids 0 to 258 are <unk>, <s>, </s> and the bytes; ``pieces`` follow."""
    proto = ModelProto()
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = dummy_prefix
    proto.normalizer_spec.remove_extra_whitespaces = False
    special: list[Piece] = [("<unk>", 0, UNKNOWN), ("<s>", 0, CONTROL), ("</s>", 0, CONTROL)]
    special += [(f"<0x{byte:02X}>", 0, BYTE) for byte in range(256)]
    for text, score, *kind in [*special, *pieces]:
        proto.pieces.add(piece=text, score=score, type=kind[0] if kind else NORMAL)
    return proto


class Pair:
    """The library and our encoder, on one model."""

    def __init__(self, model: bytes) -> None:
        self.library = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.native = _C.BpeEncoder(model)

    def check(self, text: bytes) -> list[int]:
        """The ids, which both agree about, the first time and when remembered."""
        expected: list[int] = self.library.encode(text)
        assert self.native.encode(text).tolist() == expected
        assert self.native.encode(text).tolist() == expected
        return expected

    def pieces(self, text: str | bytes) -> list[str]:
        """`check`, as pieces; spaces are written as they are, not as U+2581."""
        ids = self.check(text if isinstance(text, bytes) else text.encode())
        return [piece.replace("▁", " ") for piece in self.library.id_to_piece(ids)]


def pair_of(pieces: Sequence[Piece], *, dummy_prefix: bool = False) -> Pair:
    return Pair(bpe_model(pieces, dummy_prefix=dummy_prefix).SerializeToString())
