"""What is kept of documents that come again, the same or nearly, in one label or in several."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from corpus_sources import NO_CLEANING, read_shard, sample_rows, write_jsonl, write_manifest

from megatron_ext.corpus.builder.build import build_corpus
from megatron_ext.corpus.counts import Corpus
from megatron_ext.corpus.manifest import read_manifest

LONG = [row["text"] for row in sample_rows("eng") if len(row["text"]) > 400]
FIRST, OTHER = LONG[0], LONG[1]
NEARLY = f"{FIRST} Addendum."  # one word more: of a hundred shingles, one is new


def corpus_of(folder: Path, documents: list[tuple[str, str, str]], **duplicates: Any) -> Corpus:
    """Of (language, category, text), without validation."""
    rows = [{"text": text, "lang": language, "kind": kind} for language, kind, text in documents]
    source = {
        "name": "a",
        "files": str(write_jsonl(folder / "a.jsonl", rows)),
        "language": {"field": "lang"},
        "category_field": "kind",
    }
    more = {"duplicates": duplicates, "validation": {"share": 0}, "cleaning": NO_CLEANING}
    return build_corpus(read_manifest(write_manifest(folder, [source], **more)), workers=1).corpus


def kept(folder: Path, corpus: Corpus) -> Counter[tuple[str, str]]:
    """How often each text is in each set."""
    return Counter(
        (one.name, row["text"])
        for one in corpus.sets
        for file in one.train.files
        for row in read_shard(folder / "corpus" / file)
    )


@pytest.mark.parametrize(
    ("scope", "labels", "removed"),
    [("corpus", {"mono/eng_Latn"}, 2), ("label", {"mono/eng_Latn", "mono/fra_Latn"}, 1), ("off", None, 0)],
)
def test_exact_duplicates(tmp_path: Path, scope: str, labels: set[str] | None, removed: int) -> None:
    documents = [("eng", "mono", FIRST), ("eng", "book", FIRST), ("fra", "mono", f" {FIRST}\n")]
    corpus = corpus_of(tmp_path, documents, exact=scope, minhash=None)
    assert corpus.removed.get("exact_duplicate", 0) == removed
    assert {one.name for one in corpus.sets} == (
        labels or {"mono/eng_Latn", "book/eng_Latn", "mono/fra_Latn"}
    )


def test_near_duplicates_are_those_of_one_label_in_whatever_category(tmp_path: Path) -> None:
    documents = [
        ("eng", "mono", FIRST),
        ("eng", "book", NEARLY),
        ("fra", "mono", NEARLY),
        ("eng", "mono", OTHER),
    ]
    corpus = corpus_of(tmp_path, documents, exact="label")
    assert corpus.removed == {"near_duplicate": 1}
    assert kept(tmp_path, corpus) == {
        ("mono/eng_Latn", FIRST): 1,
        ("mono/eng_Latn", OTHER): 1,
        ("mono/fra_Latn", NEARLY): 1,
    }


@pytest.mark.parametrize("minhash", ["fineweb2", None])
def test_large_clusters_come_back_as_fineweb2_has_them(tmp_path: Path, minhash: str | None) -> None:
    documents = [("eng", "mono", FIRST)] * 7 + [("eng", "mono", OTHER)]
    corpus = corpus_of(tmp_path, documents, minhash=minhash, rehydrate=True)
    assert kept(tmp_path, corpus) == {("mono/eng_Latn", FIRST): 5, ("mono/eng_Latn", OTHER): 1}
    (one,) = corpus.sets
    assert one.train.documents == 6
    assert one.sources == {"a": 2}
