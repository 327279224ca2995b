"""One place that knows every kind of tokenizer; a new kind is a class and a line here."""

from collections.abc import Callable
from pathlib import Path

from megatron_ext.errors import TokenizerError
from megatron_ext.tokenizer.base import Tokenizer
from megatron_ext.tokenizer.byte import ByteTokenizer
from megatron_ext.tokenizer.huggingface import HuggingFaceTokenizer
from megatron_ext.tokenizer.sentencepiece import SentencePieceTokenizer

__all__ = ["TOKENIZER_TYPES", "Tokenizer", "build_tokenizer"]

_FROM_FILE: dict[str, Callable[[Path], Tokenizer]] = {
    "SentencePieceTokenizer": SentencePieceTokenizer,
    "HuggingFaceTokenizer": HuggingFaceTokenizer,
}
TOKENIZER_TYPES = (*_FROM_FILE, "ByteTokenizer")


def build_tokenizer(tokenizer_type: str, model: str | None) -> Tokenizer:
    """Load a tokenizer.

    Args:
        tokenizer_type: one of ``TOKENIZER_TYPES``.
        model: the ``.model`` file, the ``tokenizer.json`` or its folder; None for ByteTokenizer.

    Raises:
        TokenizerError: unknown type, missing or broken file.
    """
    if tokenizer_type not in TOKENIZER_TYPES:
        raise TokenizerError(
            f"unknown tokenizer type {tokenizer_type!r}; choose one of {', '.join(TOKENIZER_TYPES)}"
        )
    if tokenizer_type == "ByteTokenizer":
        if model is not None:
            raise TokenizerError(f"ByteTokenizer has no model file; leave out {model!r}")
        return ByteTokenizer()
    if model is None:
        raise TokenizerError(
            f"{tokenizer_type} needs a tokenizer model: a file, or a folder for HuggingFaceTokenizer"
        )
    tokenizer = _FROM_FILE[tokenizer_type](Path(model))
    if tokenizer.vocab_size == 0:
        raise TokenizerError(f"{model}: the vocabulary is empty")
    return tokenizer
