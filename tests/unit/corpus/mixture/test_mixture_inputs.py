"""What a plan starts from: tables, corpus.json, folders of tokenised sets; and the mixture's own file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mixture_tables import OFFICIAL, RECIPES

from megatron_ext.config.load import load_section
from megatron_ext.corpus.counts import Corpus, PartCounts, SetCounts
from megatron_ext.corpus.mixture.config import MixtureConfig
from megatron_ext.corpus.mixture.sets import Dataset, merged, read_corpus, read_tokenised
from megatron_ext.corpus.mixture.table import Columns, read_table
from megatron_ext.data.indexed import IndexedDatasetWriter
from megatron_ext.errors import ConfigError, CorpusError


def write_set(prefix: Path, tokens: int) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        writer.add_documents(np.arange(tokens), np.array([tokens], dtype=np.int64))


def corpus_of(*sets: tuple[str, str, int, int | None, Sequence[str], Sequence[str]]) -> Corpus:
    return Corpus(
        sets=tuple(
            SetCounts(
                category=category,  # type: ignore[arg-type]
                label=label,
                train=PartCounts(whitespace_tokens=words, tokens=tokens, datasets=tuple(train)),
                valid=PartCounts(datasets=tuple(valid)),
            )
            for category, label, words, tokens, train, valid in sets
        )
    )


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official token table is not here")
def test_the_official_table() -> None:
    sets = read_table(OFFICIAL, Columns()).sets
    assert (len(sets), sum(one.tokens for one in sets)) == (939, 74_259_547_978)
    assert (sets[0].name, sets[0].tokens) == ("mono/eng_Latn", 3_002_029_817)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_recognised_or_named(tmp_path: Path, separator: str) -> None:
    rows = (("Label", "x", "tokens", "category", "words"), ("eng_Latn", "1", "20", "code", "9"))
    path = tmp_path / "table.csv"
    path.write_text("\ufeff" + "".join(separator.join(row) + "\n" for row in rows), encoding="utf-8")
    (one,) = read_table(path, Columns()).sets
    assert (one.name, one.tokens, one.whitespace_tokens) == ("code/eng_Latn", 20, 9)
    (one,) = read_table(path, Columns(tokens="x")).sets
    assert one.tokens == 1


@pytest.mark.parametrize(
    ("content", "columns", "told"),
    [
        (
            "label,count\na,1\n",
            {},
            r"no column of tokens \(one of tokens, .*only label, count; .*--tokens-column",
        ),
        (
            "label,tokens\na,1\n",
            {"tokens": "token"},
            "column of tokens: there is no token; did you mean tokens",
        ),
        ("label,tokens\na,1\nb,x\n", {}, ":3: tokens: 'x' is no whole number"),
        ("label,tokens\na,-1\n", {}, ":2: tokens: -1 is negative"),
        ("label,tokens\na,1\nb,2\na,3\n", {}, ":4: mono/a is there twice"),
        ("label,tokens\na,1,2\n", {}, ":2: has 3 columns, and the header has 2"),
        ("label,tokens\n,1\n", {}, ":2: has no label"),
        ("label,tokens\n", {}, "has a header and no rows"),
        ("", {}, "no column of label"),
        (b"label,tokens\n\xff\xfe,1\n", {}, "no table of text in UTF-8"),
    ],
)
def test_a_wrong_table_is_refused_by_line(
    tmp_path: Path, content: str | bytes, columns: dict[str, str], told: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError, match=told):
        read_table(path, Columns(**columns))


def test_a_corpus_is_counted_in_what_all_its_sets_have(tmp_path: Path) -> None:
    write_set(tmp_path / "a", 7)
    write_set(tmp_path / "b", 8)
    corpus_of(("mono", "eng_Latn", 9, 15, ("a", "b"), ()), ("code", "x", 5, 6, ("c",), ("v",))).write(
        tmp_path
    )
    found = read_corpus(tmp_path)
    assert found.unit == "tokenizer's tokens"
    english, code = found.sets
    assert english.datasets == (Dataset(str(tmp_path / "a"), 7), Dataset(str(tmp_path / "b"), 8))
    assert (code.datasets, code.valid) == ((Dataset(str(tmp_path / "c"), 6),), (str(tmp_path / "v"),))
    assert (english.tokens, english.whitespace_tokens) == (15, 9)
    other = tmp_path / "text"
    other.mkdir()
    corpus_of(("mono", "eng_Latn", 9, None, (), ())).write(other)
    assert (read_corpus(other).unit, read_corpus(other / "corpus.json").sets[0].tokens) == (
        "whitespace tokens",
        9,
    )
    with pytest.raises(CorpusError, match=r"count in .* and in .*; tokenise all"):
        merged([found, read_corpus(other)])
    added = merged([found, found]).sets
    assert [(one.tokens, one.whitespace_tokens, len(one.datasets)) for one in added] == [
        (30, 18, 4),
        (12, 10, 2),
    ]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (("mono", "eng_Latn", 1, 1, (), ()), "there twice"),
        (("code", "a", 1, None, (), ()), "code/a, are not"),
    ],
)
def test_a_corpus_that_cannot_be_mixed(
    tmp_path: Path, second: tuple[str, str, int, int | None], told: str
) -> None:
    corpus_of(("mono", "eng_Latn", 1, 1, (), ()), second).write(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match=told):
        read_corpus(tmp_path)


def test_a_folder_of_tokenised_sets(tmp_path: Path) -> None:
    write_set(tmp_path / "train/eng_Latn_text_document", 5)
    write_set(tmp_path / "train/code/python_text_document", 6)
    write_set(tmp_path / "valid/eng_Latn_text_document", 2)
    found = {one.name: one for one in read_tokenised(tmp_path).sets}
    assert {name: one.tokens for name, one in found.items()} == {"mono/eng_Latn": 5, "code/python": 6}
    assert found["mono/eng_Latn"].valid == (str(tmp_path / "valid/eng_Latn_text_document"),)
    assert found["code/python"].valid == ()
    with pytest.raises(CorpusError, match=r"holds neither corpus\.json nor tokenised sets"):
        read_tokenised(tmp_path / "empty")


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("mixture*.yaml")))
def test_shipped_mixtures_are_read(name: str) -> None:
    config = load_section(RECIPES / f"{name}.yaml", MixtureConfig)
    assert config.tiers is not None
    assert list(config.tiers.thresholds.values()) == [1e9, 1e8, 1e7, 1e6, 1e5]
    assert config.rule.name == "tier_rates"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rule: {unimx: {epochs: 4}}", r"m.yaml:1: rule.unimx: unknown key; did you mean .*unimax"),
        ("rule:\n  unimax: {epoch: 4}", r"m.yaml:2: rule.unimax.epoch"),
        (
            "rule: {unimax: {epochs: 4}, proportional: {}}",
            "m.yaml:1: rule: has proportional and unimax; keep one",
        ),
        ("rule: {temperature: {alpha: 2}}", r"rule.temperature.alpha=2: should be less than or equal to 1"),
        (
            "overrides:\n  a: {share: 0.1, epochs: 2}",
            "m.yaml:2: overrides.a: give one of share, epochs and tokens",
        ),
        ("overrides:\n  a: {share: 2}", "m.yaml:2: overrides.a.share=2"),
        ("tiers: {unit: tokens, thresholds: {low: 1, high: 2}}", "from the largest to the smallest"),
        ("tiers: {thresholds: {low: 1}}", r"tiers.unit: missing \(what thresholds count"),
        ("budget: {train_iters: 3}", "budget: give tokens, or train_iters with global_batch_size"),
        ("stages:\n  - {name: a}\n  - {name: b}", "stage b: give one of from_tokens and from_fraction"),
        ("stages:\n  - {name: a, from_tokens: 3}", "stage a: give no start"),
        ("max_epochs: -1", "m.yaml:1: max_epochs=-1: should be greater than 0"),
    ],
)
def test_a_wrong_mixture_is_refused_by_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=told):
        load_section(path, MixtureConfig)
