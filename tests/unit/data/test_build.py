from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.datasets.blended_megatron_dataset_config import (
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)

from megatron_ext.config.section_data import DataConfig, DatasetConfig
from megatron_ext.data.build import Datasets, build_datasets
from megatron_ext.data.indexed import DatasetStatistics, TokenizerIdentity
from megatron_ext.data.split import split_boundaries
from megatron_ext.errors import DataError

WriteSet = Callable[..., Path]


def build(*train: DatasetConfig | str | Path, eod_id: int | None = 3, **options: object) -> Datasets:
    entries = tuple(
        entry if isinstance(entry, DatasetConfig) else DatasetConfig(path=str(entry)) for entry in train
    )
    config = DataConfig.model_validate({"train": entries, **options})
    return build_datasets(config, seq_length=8, seed=1, train_samples=100, eod_id=eod_id)


@pytest.fixture
def corpus(write_set: WriteSet, tmp_path: Path) -> Path:
    for name, size in (("eng", 900), ("deu", 100), ("fra", 400)):
        write_set(f"web/{name}_text_document", [size // 10] * 10)
    write_set("books/eng_text_document", [600])
    return tmp_path


def test_a_pattern_names_many_sets_in_alphabetical_order(corpus: Path) -> None:
    train = build(corpus / "web/*_text_document").train
    assert train.names == ("deu", "eng", "fra")
    assert train.weights == pytest.approx([100 / 1400, 900 / 1400, 400 / 1400])
    assert build(corpus / "web/[de]*").train.names == ("deu", "eng")


def test_a_name_may_hold_pattern_characters(write_set: WriteSet) -> None:
    assert build(write_set("a[1]", [20])).train.names == ("a[1]",)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_shares_follow_size_to_the_power_of_alpha(corpus: Path, alpha: float) -> None:
    train = build(corpus / "web/*", corpus / "books/eng_text_document", blend_alpha=alpha).train
    sizes = np.array([100, 900, 400, 600]) ** alpha
    assert train.weights == pytest.approx(sizes / sizes.sum())


def test_weights_of_entries_are_spread_by_size_inside_a_pattern(corpus: Path) -> None:
    train = build(
        DatasetConfig(path=f"{corpus}/web/*", weight=1),
        DatasetConfig(path=f"{corpus}/books/*", weight=3),
        blend_alpha=0.5,
    ).train
    roots = np.sqrt([100, 900, 400])
    assert train.weights == pytest.approx([*(0.25 * roots / roots.sum()), 0.75])


def test_equal_stems_are_told_apart_by_their_folders(corpus: Path) -> None:
    assert build(corpus / "*/*").train.names == ("books/eng", "deu", "web/eng", "fra")


def test_a_weight_of_zero_leaves_a_set_out(corpus: Path) -> None:
    train = build(
        DatasetConfig(path=f"{corpus}/web/eng*", weight=0), DatasetConfig(path=f"{corpus}/web/deu*", weight=1)
    ).train
    assert train.names == ("deu",)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["web/xyz*"], r"data.train\[0\]: no dataset matches .*web/xyz\*"),
        (["web/deu*", "web/xyz"], r"data.train\[1\]: no dataset matches"),
        (["web/eng_text_document.bin"], "without .bin"),
        (["web/*", "web/eng_text_document"], r"named by data.train\[0\] and by data.train\[1\]"),
    ],
)
def test_paths_that_are_wrong_are_named(corpus: Path, paths: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(*(corpus / path for path in paths))


def test_weights_are_for_all_entries_or_for_none(corpus: Path) -> None:
    weighted = DatasetConfig(path=f"{corpus}/web/*", weight=1)
    with pytest.raises(DataError, match=r"data.train\[1\]: has no weight"):
        build(weighted, corpus / "books/*")
    with pytest.raises(DataError, match="every weight is 0"):
        build(DatasetConfig(path=f"{corpus}/web/*", weight=0))
    with pytest.raises(DataError, match=r"data.valid\[0\].weight"):
        build(corpus / "books/*", valid=(weighted,))


def test_empty_and_damaged_sets_are_named(corpus: Path, write_set: WriteSet) -> None:
    write_set("web/nothing", [0, 1])
    with pytest.raises(DataError, match=r"1 of 4 training sets hold less than 2 tokens: .*web/nothing"):
        build(corpus / "web/*")
    (corpus / "web/nothing.bin").unlink()
    with pytest.raises(DataError, match=r"nothing\.bin: missing"):
        build(corpus / "web/*")


def test_dtypes_must_agree_and_be_of_tokens(corpus: Path, write_set: WriteSet) -> None:
    write_set("wide", [20], dtype=np.int32)
    with pytest.raises(DataError, match=r"wide.idx: tokens of int32, but of uint16 in .*eng"):
        build(corpus / "web/eng*", corpus / "wide")
    assert build(corpus / "wide").train.names == ("wide",)
    with pytest.raises(DataError, match="only uint16 and int32"):
        build(write_set("odd", [20], dtype=np.int64))


def statistics(**changes: object) -> DatasetStatistics:
    tokenizer = TokenizerIdentity(type="SentencePieceTokenizer", vocab_size=32_000, sha256="a" * 64)
    values = {
        "tokens": 900, "documents": 10, "bytes": 3000, "tokenizer": tokenizer,
        "append_eod": True, "prepend_bos": False, "eod_id": 3,
    }  # fmt: skip
    return DatasetStatistics.model_validate({**values, **changes})


def test_sets_of_two_tokenizers_are_refused(corpus: Path) -> None:
    assert build(corpus / "web/*").tokenizer is None
    statistics().write(corpus / "web/eng_text_document")
    assert build(corpus / "web/*").tokenizer == statistics().tokenizer
    other = TokenizerIdentity(type="SentencePieceTokenizer", vocab_size=32_000, sha256="b" * 64)
    statistics(tokenizer=other).write(corpus / "books/eng_text_document")
    with pytest.raises(DataError, match=r"books/eng.*another tokenizer than .*web/eng"):
        build(corpus / "web/*", valid=(DatasetConfig(path=f"{corpus}/books/*"),))


@pytest.mark.parametrize("option", ["eod_mask_loss", "reset_attention_mask", "reset_position_ids"])
def test_document_options_need_documents_that_end_with_eod(corpus: Path, option: str) -> None:
    path = corpus / "web/eng_text_document"
    options = {option: True}
    assert build(path, **options).train.rules.eod_id == 3
    assert build(path, **options).train.rules.mark_boundaries == (option != "eod_mask_loss")
    with pytest.raises(DataError, match=f"data.{option}: the tokenizer has no end-of-document id"):
        build(path, eod_id=None, **options)
    statistics(append_eod=False).write(path)
    with pytest.raises(DataError, match=r"eng.*\.json: its documents do not end with EOD"):
        build(path, **options)
    statistics(eod_id=2).write(path)
    with pytest.raises(DataError, match="EOD is 2 there, but 3"):
        build(path, **options)
    assert build(path).train.rules.eod_id is None


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=3).filter(lambda shares: sum(shares) > 0),
    st.integers(0, 10**7),
)
def test_splits_are_megatron_core_s(shares: list[int], num_sequences: int) -> None:
    split = ",".join(map(str, shares))
    ours = split_boundaries(split, num_sequences)
    theirs = convert_split_vector_to_split_matrix(parse_and_normalize_split(split))
    for (first, end), ends in zip(ours, theirs, strict=True):
        if ends is None:
            assert first == end
        else:
            assert (first, end) == tuple(round(share * float(num_sequences)) for share in ends)


@pytest.mark.parametrize("split", ["", "a,b", "1,2,3,4", "-1,2", "0,0,0", "nan", "inf,1"])
def test_splits_that_are_none_are_refused(split: str) -> None:
    with pytest.raises(DataError, match="is not a split"):
        split_boundaries(split, 10)


def test_a_split_holds_documents_out(corpus: Path) -> None:
    datasets = build(corpus / "web/*", split="80,20,0")
    assert datasets.valid is not None
    assert datasets.valid.names == ("deu", "eng", "fra")
    assert datasets.valid.num_tokens.tolist() == [20, 180, 80]
    assert datasets.train.samples_per_epoch.tolist() == [10, 90, 40]
    # 40 tokens a document: what is held out are documents 8 and 9, with tokens 321 to 400.
    tokens, valid, sets = datasets.valid.gather(np.array([datasets.valid.num_windows - 1]))
    assert (tokens[0, : valid[0]].tolist(), sets.tolist()) == (list(range(393, 401)), [2])


def test_sets_too_small_to_split_are_only_trained_on(corpus: Path, write_set: WriteSet) -> None:
    datasets = build(corpus / "*/*", split="80,20,0")
    assert datasets.valid is not None
    assert datasets.valid.names == ("deu", "web/eng", "fra")
    with pytest.raises(DataError, match="no text to validate on"):
        build(corpus / "books/*", split="80,20,0")
    assert build(corpus / "books/*", split="1,0,0").valid is None
    with pytest.raises(DataError, match="less than 2 tokens"):
        build(write_set("one", [20]), split="0,1,0")


def test_validation_sets_keep_their_statistics(corpus: Path) -> None:
    statistics().write(corpus / "web/eng_text_document")
    valid = build(corpus / "books/*", valid=(DatasetConfig(path=f"{corpus}/web/[de]*"),)).valid
    assert valid is not None
    assert valid.names == ("deu", "eng")
    assert valid.statistics == (None, statistics())
    with pytest.raises(DataError, match="give one of them"):
        build(corpus / "books/*", valid=(DatasetConfig(path=f"{corpus}/web/*"),), split="1,1,0")


def test_the_plan_is_short_whatever_the_number_of_sets(
    write_set: WriteSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(60):
        write_set(f"many/set{i:02}_text_document", [81 + 8 * i])
    lines: list[str] = []
    monkeypatch.setattr("megatron_ext.data.build.logger.info", lines.append)
    build(tmp_path / "many/*", blend_alpha=0.5, valid=(DatasetConfig(path=f"{tmp_path}/many/set00*"),))
    assert len(lines) == 4
    assert lines[0] == (
        "train: 60 sets, 19,020 tokens (uint16); 100 samples of 8 = 800 tokens to read, "
        "0.04 epochs of everything"
    )
    assert "most repeated: set00 " in lines[1]
    assert "largest shares: set59 2.26%" in lines[2]
    assert lines[3] == "valid: 1 set, 81 tokens in 10 windows of 8"
