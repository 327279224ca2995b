import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "def function(argument):  # four spaces",
    "    return argument * 1234567890",
    "der schnelle braune Fuchs springt über den faulen Hund",
    "быстрая коричневая лиса прыгает через ленивую собаку",
    "敏捷的棕色狐狸跳过懒狗",
] * 20


@pytest.fixture(scope="session")
def train_sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def train(**settings: object) -> Path:
        model = io.BytesIO()
        defaults = {
            "model_type": "bpe",
            "vocab_size": 420,
            "normalization_rule_name": "identity",
            "byte_fallback": True,
            "split_digits": True,
            "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True,
            "minloglevel": 2,
            "num_threads": 1,
        }
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES), model_writer=model, **(defaults | settings)
        )
        path = tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"
        path.write_bytes(model.getvalue())
        return path

    return train


@pytest.fixture(scope="session")
def sentencepiece_model(train_sentencepiece: Callable[..., Path]) -> Path:
    return train_sentencepiece()


@pytest.fixture
def hugging_face_folder(tmp_path: Path) -> Path:
    """A Llama-like tokenizer.json: BPE with byte fallback, one added token that is not special."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))  # noqa: S106
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=tokens, show_progress=False)
    )
    backend.add_tokens([AddedToken("[CITATION]", special=False)])
    folder = tmp_path / "hugging_face"
    folder.mkdir()
    description = json.loads(backend.to_str())
    for token in description["added_tokens"]:  # byte pieces are vocabulary, not control tokens
        token["special"] = token["content"] in tokens[:3]
    description["added_tokens"] = [
        token for token in description["added_tokens"] if not token["content"].startswith("<0x")
    ]
    (folder / "tokenizer.json").write_text(json.dumps(description))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "bos_token": "<s>",
                "eos_token": {"__type": "AddedToken", "content": "</s>"},
                "unk_token": "<unk>",
                "pad_token": None,
            }
        )
    )
    return folder
