import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from megatron_ext.errors import TokenizerError
from megatron_ext.tokenizer.base import well_formed
from megatron_ext.tokenizer.build import TOKENIZER_TYPES, Tokenizer, build_tokenizer

TEXTS = [
    "",
    " ",
    "the quick brown fox",
    "a  b   c\t d\n\ne",
    "2024-01-02",
    "unseen: ✓ 😀 ᐃᓄᒃ",
    "nul\0inside",
    "a <s> b </s> <unk> <0x0A>",
    "ﬁ Å e\u0301",
]


@pytest.fixture(params=TOKENIZER_TYPES)
def tokenizer(
    request: pytest.FixtureRequest, sentencepiece_model: Path, hugging_face_folder: Path
) -> Tokenizer:
    model = {"SentencePieceTokenizer": sentencepiece_model, "HuggingFaceTokenizer": hugging_face_folder}
    return build_tokenizer(request.param, str(model[request.param]) if request.param in model else None)


def test_sentencepiece_ids_are_the_librarys(sentencepiece_model: Path) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    ours = build_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    for text in TEXTS:
        assert ours.encode(text) == library.EncodeAsIds(text)
    assert ours.vocab_size == library.vocab_size() == 420
    assert (ours.unk_id, ours.bos_id, ours.eos_id, ours.pad_id) == (0, 1, 2, None)


def test_sentencepiece_without_bos_and_eos_says_so(train_sentencepiece: Callable[..., Path]) -> None:
    model = train_sentencepiece(bos_id=-1, eos_id=-1, pad_id=1)
    tokenizer = build_tokenizer("SentencePieceTokenizer", str(model))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, None, 1)


def test_hugging_face_ids_are_the_librarys_where_no_control_token_is_spelt(hugging_face_folder: Path) -> None:
    library = Backend.from_file(str(hugging_face_folder / "tokenizer.json"))
    for model in (hugging_face_folder, hugging_face_folder / "tokenizer.json"):
        ours = build_tokenizer("HuggingFaceTokenizer", str(model))
        for text in [text for text in TEXTS if "<s>" not in text]:
            assert ours.encode(text) == library.encode(text, add_special_tokens=False).ids
        assert (ours.unk_id, ours.bos_id, ours.eos_id, ours.pad_id) == (0, 1, 2, None)


def test_hugging_face_vocabulary_counts_added_tokens(hugging_face_folder: Path) -> None:
    file = hugging_face_folder / "tokenizer.json"
    description = json.loads(file.read_text())
    added = next(token for token in description["added_tokens"] if token["content"] == "[CITATION]")
    tokenizer = build_tokenizer("HuggingFaceTokenizer", str(file))
    assert tokenizer.vocab_size == added["id"] + 1
    assert added["id"] in tokenizer.encode("see [CITATION] there")


def test_transformers_agrees_on_ids_and_special_tokens(hugging_face_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    library = transformers.PreTrainedTokenizerFast.from_pretrained(hugging_face_folder)
    tokenizer = build_tokenizer("HuggingFaceTokenizer", str(hugging_face_folder))
    assert (library.bos_token_id, library.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert library.encode(TEXTS[2], add_special_tokens=False) == tokenizer.encode(TEXTS[2])
    assert len(library) == tokenizer.vocab_size


def test_bytes_by_hand() -> None:
    tokenizer = build_tokenizer("ByteTokenizer", None)
    assert tokenizer.encode("Aé\n") == [0x41, 0xC3, 0xA9, 0x0A]
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (
        259,
        256,
        257,
        258,
    )
    assert tokenizer.unk_id is None
    assert tokenizer.decode([256, 0x41, 0xC3, 0xA9, 0xFF, 257]) == "Aé\ufffd"


def test_text_never_becomes_a_control_token(tokenizer: Tokenizer) -> None:
    control = {tokenizer.bos_id, tokenizer.eos_id}
    for text in ("<s>", "</s>", "a<s>b</s>", "<s> <s>", "x </s>\n<s>y"):
        assert not control & set(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_batches_equal_single_texts(tokenizer: Tokenizer) -> None:
    batch = tokenizer.encode_batch(TEXTS)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in TEXTS]
    assert all(ids.dtype == np.int32 for ids in batch)
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.encode("") == []


def test_decoding_gives_the_text_back(tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (
        tokenizer.decode([tokenizer.bos_id or 0, *tokenizer.encode("the fox"), tokenizer.eos_id or 0])
        == "the fox"
    )


def test_decoding_refuses_ids_outside_the_vocabulary(tokenizer: Tokenizer) -> None:
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(TokenizerError, match=f"token id {token} is outside"):
            tokenizer.decode([token])


def test_lone_surrogates_count_as_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a\ud800b\udfff") == tokenizer.encode("a\ufffdb\ufffd")
    assert tokenizer.encode_batch(["\udc00"])[0].tolist() == tokenizer.encode("\ufffd")


@given(st.text(st.characters(exclude_categories=[])))
@settings(max_examples=200, deadline=None)
def test_well_formed_text_has_utf8_and_keeps_the_rest(text: str) -> None:
    cleaned = well_formed(text)
    assert len(cleaned) == len(text)
    # UTF-16 code units, decoded by Python: an independent way to the same answer for halves that stay alone.
    if not any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in itertools.pairwise(text)):
        assert cleaned == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    cleaned.encode()


def test_fingerprint_is_that_of_the_model_file(sentencepiece_model: Path, hugging_face_folder: Path) -> None:
    for kind, model, file in (
        ("SentencePieceTokenizer", sentencepiece_model, sentencepiece_model),
        ("HuggingFaceTokenizer", hugging_face_folder, hugging_face_folder / "tokenizer.json"),
    ):
        expected = hashlib.sha256(file.read_bytes()).hexdigest()
        assert build_tokenizer(kind, str(model)).fingerprint == expected


def test_truncation_and_padding_in_the_file_do_not_apply(hugging_face_folder: Path) -> None:
    backend = Backend.from_file(str(hugging_face_folder / "tokenizer.json"))
    expected = backend.encode(TEXTS[2], add_special_tokens=False).ids
    backend.enable_truncation(3)
    backend.enable_padding(length=100)
    backend.save(str(hugging_face_folder / "tokenizer.json"))
    tokenizer = build_tokenizer("HuggingFaceTokenizer", str(hugging_face_folder))
    assert tokenizer.encode(TEXTS[2]) == expected
    assert tokenizer.encode_batch([TEXTS[2], ""])[1].size == 0


def test_control_tokens_that_the_file_calls_ordinary_stay_out_of_text(hugging_face_folder: Path) -> None:
    file = hugging_face_folder / "tokenizer.json"
    description = json.loads(file.read_text())
    for token in description["added_tokens"]:
        token["special"] = False
    file.write_text(json.dumps(description))
    assert 2 not in build_tokenizer("HuggingFaceTokenizer", str(file)).encode("x</s>y")


def test_special_tokens_come_from_the_map_where_the_config_is_silent(hugging_face_folder: Path) -> None:
    (hugging_face_folder / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    (hugging_face_folder / "special_tokens_map.json").write_text(
        '{"bos_token": "<unk>", "eos_token": "</s>"}'
    )
    tokenizer = build_tokenizer("HuggingFaceTokenizer", str(hugging_face_folder))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


def test_a_model_that_spells_control_tokens_is_refused(tmp_path: Path) -> None:
    backend = Backend(models.WordLevel({"<unk>": 0, "</s>": 1, "word": 2}, unk_token="<unk>"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}'
    )
    with pytest.raises(TokenizerError, match="'</s>' becomes control token 1"):
        build_tokenizer("HuggingFaceTokenizer", str(tmp_path))


def test_random_encodings_are_refused(hugging_face_folder: Path) -> None:
    file = hugging_face_folder / "tokenizer.json"
    description = json.loads(file.read_text())
    description["model"]["dropout"] = 0.1
    file.write_text(json.dumps(description))
    with pytest.raises(TokenizerError, match="dropout"):
        build_tokenizer("HuggingFaceTokenizer", str(file))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "not a Hugging Face tokenizer.json"),
        ("tokenizer.json", "\udcff", "not a Hugging Face tokenizer.json"),
        ("tokenizer_config.json", "{", "tokenizer_config.json: not valid JSON"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json: expected a JSON object"),
        ("tokenizer_config.json", '{"eos_token": 2}', "eos_token: expected a token"),
        ("tokenizer_config.json", '{"eos_token": "<end>"}', "no '<end>', which is the eos_token"),
    ],
)
def test_broken_hugging_face_files(hugging_face_folder: Path, name: str, content: str, message: str) -> None:
    (hugging_face_folder / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(TokenizerError, match=message):
        build_tokenizer("HuggingFaceTokenizer", str(hugging_face_folder))


def test_missing_or_wrong_files(tmp_path: Path, sentencepiece_model: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot read the SentencePiece model: No such file"):
        build_tokenizer("SentencePieceTokenizer", str(tmp_path / "absent.model"))
    with pytest.raises(TokenizerError, match="cannot read the SentencePiece model: Is a directory"):
        build_tokenizer("SentencePieceTokenizer", str(tmp_path))
    for content in (b"", b"no model", sentencepiece_model.read_bytes()[:1000]):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(TokenizerError, match=r"bad.model: not a SentencePiece model"):
            build_tokenizer("SentencePieceTokenizer", str(tmp_path / "bad.model"))
    with pytest.raises(TokenizerError, match=r"tokenizer.json: cannot read the tokenizer: No such file"):
        build_tokenizer("HuggingFaceTokenizer", str(tmp_path))
    with pytest.raises(TokenizerError, match="--tokenizer-type SentencePieceTokenizer"):
        build_tokenizer("HuggingFaceTokenizer", str(sentencepiece_model.parent))


def test_wrong_type_or_model_argument() -> None:
    with pytest.raises(TokenizerError, match="choose one of SentencePieceTokenizer, HuggingFaceTokenizer"):
        build_tokenizer("GPT2Tokenizer", None)
    with pytest.raises(TokenizerError, match="needs a tokenizer model"):
        build_tokenizer("SentencePieceTokenizer", None)
    with pytest.raises(TokenizerError, match="has no model file"):
        build_tokenizer("ByteTokenizer", "x")
