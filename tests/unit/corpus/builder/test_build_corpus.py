"""A corpus holds each document of its sources once, under its label, counted; and what it is asked for besides."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_sources import LANGUAGES, NO_CLEANING, read_shard, sample_rows, write_jsonl, write_manifest

from megatron_ext.cli.main import main
from megatron_ext.corpus.builder import part_file, parts, spread
from megatron_ext.corpus.builder.build import BuildReport, build_corpus
from megatron_ext.corpus.counts import Corpus, PartCounts, SetCounts
from megatron_ext.corpus.manifest import read_manifest
from megatron_ext.data.indexed import IndexedDataset
from megatron_ext.data.preprocess_open import zstd

TEXTS = {code: [row["text"] for row in sample_rows(code) if len(row["text"]) > 200] for code in LANGUAGES}


def build(folder: Path, sources: list[dict[str, Any]], *, workers: int = 1, **more: Any) -> BuildReport:
    manifest = write_manifest(folder, sources, **{"cleaning": NO_CLEANING, **more})
    return build_corpus(read_manifest(manifest), workers=workers)


def rows_of(folder: Path, counts: PartCounts) -> list[dict[str, Any]]:
    return [row for file in counts.files for row in read_shard(folder / "corpus" / file)]


def texts_of(folder: Path, counts: SetCounts) -> list[str]:
    return [row["text"] for part in (counts.train, counts.valid) for row in rows_of(folder, part)]


def by_label(corpus: Corpus) -> dict[str, SetCounts]:
    return {one.label: one for one in corpus.sets}


def web(folder: Path, *codes: str) -> dict[str, Any]:
    rows = [{"text": text, "lang": code} for code in codes for text in TEXTS[code]]
    return {
        "name": "web",
        "files": str(write_jsonl(folder / "web.jsonl", rows)),
        "language": {"field": "lang"},
    }


def test_every_document_is_there_once_under_its_label_and_counted(tmp_path: Path) -> None:
    source = web(tmp_path, *LANGUAGES)
    twice = write_jsonl(tmp_path / "more" / "again.jsonl", [{"text": text} for text in TEXTS["eng"]])
    again = {"name": "again", "files": str(twice.parent), "language": {"fixed": "en"}}
    report = build(tmp_path, [source, again])
    corpus = Corpus.read(tmp_path / "corpus")
    assert corpus == report.corpus
    sets = by_label(corpus)
    assert set(sets) == {f"{code}_{script}" for code, script in LANGUAGES.items()}
    for code, script in LANGUAGES.items():
        counts = sets[f"{code}_{script}"]
        assert sorted(texts_of(tmp_path, counts)) == sorted(set(TEXTS[code]))
        assert counts.sources == {"web": len(set(TEXTS[code]))}
        for part in (counts.train, counts.valid):
            rows = rows_of(tmp_path, part)
            assert all(row["source"] == "web" for row in rows)
            texts = [row["text"] for row in rows]
            assert (part.documents, part.characters) == (len(texts), sum(map(len, texts)))
            assert part.bytes == sum(len(text.encode()) for text in texts)
            assert part.whitespace_tokens == sum(len(text.split()) for text in texts)
    assert corpus.removed["exact_duplicate"] == len(TEXTS["eng"])
    assert corpus.documents_read == {"web": sum(map(len, TEXTS.values())), "again": len(TEXTS["eng"])}
    assert corpus.manifest["sources"][0]["name"] == "web"
    assert not (tmp_path / "corpus" / ".build").exists()


def test_no_text_trains_and_validates(tmp_path: Path) -> None:
    rows = [{"text": text, "category": kind} for text in TEXTS["eng"] for kind in ("mono", "book", "paper")]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    source = {"name": "a", "files": str(file), "language": {"fixed": "eng"}, "category_field": "category"}
    build(
        tmp_path,
        [source],
        duplicates={"exact": "off", "minhash": None},
        validation={"share": 0.2, "max_share": 0.5},
    )
    corpus = Corpus.read(tmp_path / "corpus")
    trained = {row["text"] for one in corpus.sets for row in rows_of(tmp_path, one.train)}
    validated = {row["text"] for one in corpus.sets for row in rows_of(tmp_path, one.valid)}
    assert len(corpus.sets) == 3
    assert validated
    assert trained
    assert not trained & validated


def everything(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_workers_and_parts_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eng = [{"text": text} for text in [*TEXTS["eng"], *TEXTS["fra"][:3]]]
    again = {
        "name": "again",
        "files": str(write_jsonl(tmp_path / "b.jsonl", eng)),
        "language": {"fixed": "eng"},
    }
    sources = [web(tmp_path, *LANGUAGES), again]
    monkeypatch.setattr(spread, "BYTES_PER_WORKER", 1)
    results = []
    for workers, size in ((1, 32 << 20), (3, 40_000), (1, 9_000)):
        monkeypatch.setattr(parts, "PART_BYTES", size)
        if size == 9_000:
            monkeypatch.setattr(part_file, "SEGMENT_BYTES", 2_000)
            monkeypatch.setattr(part_file, "DOCUMENTS_OF_KEYS", 2)
        report = build(tmp_path, sources, workers=workers, shards={"max_bytes": 10_000}, removed_examples=2)
        corpus = report.corpus.model_copy(update={"digest": None})
        (tmp_path / "corpus" / "corpus.json").write_text(corpus.model_dump_json())
        results.append(everything(tmp_path / "corpus"))
        (tmp_path / "corpus").rename(tmp_path / f"{workers}-{size}")
    assert report.parts > 10
    assert report.corpus.removed["exact_duplicate"] == len(eng)
    assert results[0] == results[1] == results[2]
    assert any("00001" in name for name in results[0])


def test_kinds_of_files_and_keys(tmp_path: Path) -> None:
    eng, fra, rus = (TEXTS[code] for code in ("eng", "fra", "rus"))
    pq.write_table(pa.table({"body": eng[:5], "tag": ["en"] * 5}), tmp_path / "a.parquet")
    folder = tmp_path / "texts"
    for label, texts in (("fra_Latn", fra), ("rus_Cyrl", rus)):
        (folder / label).mkdir(parents=True)
        for number, text in enumerate(texts[:4]):
            (folder / label / f"{number}.txt").write_text(text)
    (tmp_path / "q.data.zst").write_bytes(
        zstd.compress(
            b"".join(json.dumps({"q": q, "a": a}).encode() + b"\n" for q, a in zip(eng, fra, strict=False))
        )
    )
    sources: list[dict[str, Any]] = [
        {"name": "columns", "files": "*.parquet", "text_key": "body", "language": {"field": "tag"}},
        {
            "name": "texts",
            "files": "texts",
            "language": {"path": "(?P<language>[a-z]{3})_(?P<script>[A-Z][a-z]{3})"},
        },
        {
            "name": "pairs",
            "files": "q.data.zst",
            "format": ".jsonl",
            "text_key": ["q", "a"],
            "category": "bilingual",
            "language": {"fixed": ["eng_Latn", "fra"]},
        },
    ]
    for source in sources:
        source["files"] = str(tmp_path / source["files"])
    build(tmp_path, sources)
    sets = {one.name: one for one in Corpus.read(tmp_path / "corpus").sets}
    assert sorted(texts_of(tmp_path, sets["mono/eng_Latn"])) == sorted(eng[:5])
    assert sorted(texts_of(tmp_path, sets["mono/fra_Latn"])) == sorted(fra[:4])
    assert sorted(texts_of(tmp_path, sets["mono/rus_Cyrl"])) == sorted(rus[:4])
    pairs = [f"{q}\n{a}" for q, a in zip(eng, fra, strict=False)]
    assert set(texts_of(tmp_path, sets["bilingual/eng_Latn-fra_Latn"])) <= set(pairs)


@pytest.mark.parametrize(
    ("choice", "labels"),
    [
        ("keep", {"eng_Latn": 2}),
        ("relabel", {"eng_Latn": 1, "eng_Cyrl": 1}),
        ("drop", {"eng_Latn": 1}),
    ],
)
def test_text_in_another_script_than_declared(tmp_path: Path, choice: str, labels: dict[str, int]) -> None:
    texts = [TEXTS["eng"][0], TEXTS["rus"][0]]
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    source = {"name": "a", "files": str(file), "language": {"fixed": "eng_Latn"}}
    corpus = build(tmp_path, [source], labels={"script_disagreement": choice}).corpus
    assert {one.label: one.train.documents for one in corpus.sets} == labels
    assert corpus.disagreements == {"eng_Latn in Cyrl": 1}
    assert corpus.removed.get("script_disagreement", 0) == (choice == "drop")


def test_what_was_removed_can_be_looked_at(tmp_path: Path) -> None:
    rows = [{"text": text} for text in [*TEXTS["eng"], *TEXTS["eng"][:4], "…", "12", ""]]
    source = {
        "name": "a",
        "files": str(write_jsonl(tmp_path / "a.jsonl", rows)),
        "language": {"fixed": "eng"},
    }
    corpus = build(tmp_path, [source], removed_examples=2, cleaning={}).corpus
    examples = {path.stem: read_shard(path) for path in (tmp_path / "corpus" / "removed").iterdir()}
    assert set(examples) == set(corpus.removed)
    assert all(len(found) == min(2, corpus.removed[rule]) for rule, found in examples.items())
    assert {row["text"] for row in examples["exact_duplicate"]} == set(TEXTS["eng"][:2])
    assert all(row["source"] == "a" for found in examples.values() for row in found)


def test_sets_are_tokenized_once_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [web(tmp_path, "eng", "tha")]
    plain = build(tmp_path, sources).corpus
    manifest = str(write_manifest(tmp_path, sources, cleaning=NO_CLEANING))
    assert main(["build-corpus", manifest, "--tokenizer-type", "ByteTokenizer"]) == 0
    assert "is not built again" in capsys.readouterr().err
    corpus = Corpus.read(tmp_path / "corpus")
    for before, one in zip(plain.sets, corpus.sets, strict=True):
        assert one.train.tokens == before.train.bytes + before.train.documents  # a byte each, and an EOD
        assert one.fertility == pytest.approx(one.train.tokens / before.train.whitespace_tokens)
        (name,) = one.train.datasets
        dataset = IndexedDataset(tmp_path / "corpus" / name)
        assert (dataset.num_documents, dataset.num_tokens) == (one.train.documents, one.train.tokens)
    assert corpus.tokenizer is not None
    assert corpus.tokenizer["type"] == "ByteTokenizer"
    written = everything(tmp_path / "corpus")
    assert main(["build-corpus", manifest, "--tokenizer-type", "ByteTokenizer"]) == 0
    assert "tokenized already" in capsys.readouterr().err
    assert everything(tmp_path / "corpus") == written
