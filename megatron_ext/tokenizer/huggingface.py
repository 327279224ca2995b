"""Hugging Face tokenizers (``tokenizer.json``), encoded by the tokenizers library."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from megatron_ext.errors import TokenizerError
from megatron_ext.tokenizer.base import TokenIds, check_ids, well_formed

SPECIAL_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


class HuggingFaceTokenizer:
    """A folder with ``tokenizer.json``, or that file itself; special tokens are named by the files beside it.

    ``tokenizer_config.json``, else ``special_tokens_map.json``, says which token is BOS, EOS, PAD or UNK.
    Text that spells a special token (``"<s>"``) is encoded as ordinary text, unlike in transformers; a model
    that cannot do that is refused. Added tokens that the files do not mark as special are vocabulary like any
    other, and text that spells them gives their ids.
    """

    no_native_encoder = "Hugging Face tokenizers: encoded by the tokenizers library"

    def __init__(self, model: Path) -> None:
        """Load the tokenizer.

        Raises:
            TokenizerError: a file is missing, broken, or names a special token that the vocabulary lacks.
        """
        file = model / "tokenizer.json" if model.is_dir() else model
        serialized = _read(file)
        try:
            self._backend = Backend.from_str(serialized.decode())
        except Exception as error:  # the library raises nothing narrower for a broken file
            raise TokenizerError(f"{file}: not a Hugging Face tokenizer.json: {error}") from error
        if getattr(self._backend.model, "dropout", None):
            raise TokenizerError(f"{file}: model.dropout makes encodings random; set it to null")
        special = _special_tokens(file.parent)
        vocabulary: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        for name, token in special.items():
            if token not in vocabulary:
                raise TokenizerError(
                    f"{file}: the vocabulary has no {token!r}, which is the {name} of {file.parent}"
                )
        # Ids may have gaps, so the count of entries is not the bound that an embedding needs.
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.bos_id, self.eos_id, self.pad_id, self.unk_id = (
            vocabulary[special[name]] if name in special else None for name in SPECIAL_NAMES
        )
        self.fingerprint = hashlib.sha256(serialized).hexdigest()
        self._backend.no_truncation()
        self._backend.no_padding()
        # encode_special_tokens reads like its opposite: special tokens in a text are encoded like other text.
        self._backend.add_special_tokens([AddedToken(token, special=True) for token in special.values()])
        self._backend.encode_special_tokens = True
        for token in special.values():
            control = vocabulary[token]
            if control != self.unk_id and control in self.encode(f"{token} a{token}"):
                raise TokenizerError(
                    f"{file}: text that spells {token!r} becomes control token {control}; "
                    "use a model that keeps control tokens apart from text"
                )

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``."""
        ids: list[int] = self._backend.encode(well_formed(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """Ids of each text; on all cores unless ``TOKENIZERS_PARALLELISM=false``."""
        well_formed_texts = [well_formed(text) for text in texts]
        encodings = self._backend.encode_batch_fast(well_formed_texts, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def native_encoder(self) -> None:
        """None: the library is the only one that gives its ids."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without special tokens."""
        check_ids(ids, self.vocab_size)
        text: str = self._backend.decode([int(token) for token in ids], skip_special_tokens=True)
        return text


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        hint = ""
        if (file.parent / "tokenizer.model").is_file():
            hint = (
                f"; {file.parent / 'tokenizer.model'} is a model for --tokenizer-type SentencePieceTokenizer"
            )
        raise TokenizerError(f"{file}: cannot read the tokenizer: {error.strerror}{hint}") from error


def _special_tokens(folder: Path) -> dict[str, str]:
    """Name (``"eos_token"``) to token (``"</s>"``), as far as the files in ``folder`` say."""
    special: dict[str, str] = {}
    for file_name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = folder / file_name
        if not file.is_file():
            continue
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise TokenizerError(f"{file}: not valid JSON: {error}") from error
        if not isinstance(settings, Mapping):
            raise TokenizerError(f"{file}: expected a JSON object")
        for name in SPECIAL_NAMES:
            value = settings.get(name)
            content = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(content, str):
                special[name] = content
            elif value is not None:
                raise TokenizerError(f"{file}: {name}: expected a token or an object with its content")
    return special
